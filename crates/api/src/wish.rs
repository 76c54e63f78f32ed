//! Fields of features that are not supported: read without keeping them, and refused when they ask for something.

use serde::{
    Deserialize, Deserializer,
    de::{IgnoredAny, MapAccess, SeqAccess, Visitor},
};

use crate::BadRequest;

/// What a field asks for, without its content: a client's list of tools may be large, and none of it is kept.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Wish {
    /// Absent, null, false, an empty text, list or object: nothing is asked for.
    #[default]
    Nothing,
    /// A text of at most 64 bytes.
    Word(String),
    /// Anything else.
    Something,
}

impl Wish {
    /// Refuses the field unless it asks for nothing or says one of the words that mean the default.
    pub fn refuse(&self, param: &str, harmless: &[&str], reason: &str) -> Result<(), BadRequest> {
        match self {
            Self::Nothing => Ok(()),
            Self::Word(word) if harmless.contains(&word.as_str()) => Ok(()),
            Self::Word(_) | Self::Something => Err(BadRequest::unsupported(param, reason)),
        }
    }
}

struct WishVisitor;

impl<'de> Visitor<'de> for WishVisitor {
    type Value = Wish;

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("any value")
    }

    fn visit_unit<E>(self) -> Result<Wish, E> {
        Ok(Wish::Nothing)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Wish, E> {
        Ok(if value { Wish::Something } else { Wish::Nothing })
    }

    fn visit_u64<E>(self, _: u64) -> Result<Wish, E> {
        Ok(Wish::Something)
    }

    fn visit_i64<E>(self, _: i64) -> Result<Wish, E> {
        Ok(Wish::Something)
    }

    fn visit_f64<E>(self, _: f64) -> Result<Wish, E> {
        Ok(Wish::Something)
    }

    fn visit_str<E>(self, text: &str) -> Result<Wish, E> {
        Ok(match text.len() {
            0 => Wish::Nothing,
            1..=64 => Wish::Word(text.to_owned()),
            _ => Wish::Something,
        })
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Wish, A::Error> {
        let mut wish = Wish::Nothing;
        while seq.next_element::<IgnoredAny>()?.is_some() {
            wish = Wish::Something;
        }
        Ok(wish)
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Wish, A::Error> {
        let mut wish = Wish::Nothing;
        while map.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {
            wish = Wish::Something;
        }
        Ok(wish)
    }
}

impl<'de> Deserialize<'de> for Wish {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(WishVisitor)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wish(json: &str) -> Wish {
        serde_json::from_str(json).unwrap()
    }

    #[test]
    fn only_what_asks_for_something_is_refused() {
        for nothing in ["null", "false", "[]", "{}", "\"\""] {
            assert_eq!(wish(nothing), Wish::Nothing, "{nothing}");
        }
        for something in ["true", "1", "-1", "0.5", "[{}]", "{\"a\":1}"] {
            assert_eq!(wish(something), Wish::Something, "{something}");
        }
        wish("\"none\"").refuse("tool_choice", &["none"], "no").unwrap();
        assert!(wish("\"required\"").refuse("tool_choice", &["none"], "no").is_err());
    }
}
