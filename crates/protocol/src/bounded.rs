//! Lists and texts of messages, with their bounds where they are decoded: `#[serde(deserialize_with = "…")]`.
//!
//! An empty text takes one byte of a frame and 24 bytes of memory, an empty message 4 and 96. So what a frame decodes to
//! cannot be bounded by the frame: each list says how long it may be, and is refused at the first element too many. What is
//! allocated grows with what was decoded, never with what the frame says that it holds. The encoding is that of `Vec` and
//! `String`.

use std::{fmt, mem::size_of};

use serde::{
    Deserialize, Deserializer,
    de::{Error, SeqAccess, Visitor},
};

/// Most bytes that are allocated because a frame says how long a list is.
const FIRST: usize = 4 << 10;

/// A list of at most `N` elements.
///
/// # Errors
///
/// What the deserializer says, and a list that is longer.
pub fn list<'de, D: Deserializer<'de>, T: Deserialize<'de>, const N: usize>(
    deserializer: D,
) -> Result<Vec<T>, D::Error> {
    list_of(deserializer, N, |_| 0, N)
}

/// A list of at most so many elements, which have at most so many parts together.
///
/// # Errors
///
/// What the deserializer says, and a list that is longer or has more parts.
pub fn list_of<'de, D: Deserializer<'de>, T: Deserialize<'de>>(
    deserializer: D,
    most: usize,
    parts: fn(&T) -> usize,
    most_parts: usize,
) -> Result<Vec<T>, D::Error> {
    deserializer.deserialize_seq(List {
        most,
        parts,
        most_parts,
    })
}

/// A list of at most `N` texts of at most `L` bytes.
///
/// # Errors
///
/// What the deserializer says, a list that is longer, and a text that is.
pub fn texts<'de, D: Deserializer<'de>, const N: usize, const L: usize>(
    deserializer: D,
) -> Result<Vec<String>, D::Error> {
    let texts = list::<D, Text<L>, N>(deserializer)?;
    Ok(texts.into_iter().map(|text| text.0).collect())
}

/// A text of at most `L` bytes.
///
/// # Errors
///
/// What the deserializer says, and a text that is longer.
pub fn text<'de, D: Deserializer<'de>, const L: usize>(deserializer: D) -> Result<String, D::Error> {
    Text::<L>::deserialize(deserializer).map(|text| text.0)
}

/// A text of at most `L` bytes, or none.
///
/// # Errors
///
/// What the deserializer says, and a text that is longer.
pub fn maybe_text<'de, D: Deserializer<'de>, const L: usize>(deserializer: D) -> Result<Option<String>, D::Error> {
    Option::<Text<L>>::deserialize(deserializer).map(|text| text.map(|text| text.0))
}

/// Cuts a text to at most so many bytes, between characters.
#[must_use]
pub fn cut(mut text: String, most: usize) -> String {
    text.truncate(text.floor_char_boundary(most));
    text
}

struct Text<const L: usize>(String);

impl<'de, const L: usize> Deserialize<'de> for Text<L> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        // Asked for as borrowed, so that it is copied only once its length is known.
        deserializer.deserialize_str(TextVisitor::<L>)
    }
}

struct TextVisitor<const L: usize>;

impl<const L: usize> Visitor<'_> for TextVisitor<L> {
    type Value = Text<L>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "a text of at most {L} bytes")
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<Text<L>, E> {
        if text.len() > L {
            return Err(E::invalid_length(text.len(), &self));
        }
        Ok(Text(text.to_owned()))
    }
}

struct List<T> {
    most: usize,
    parts: fn(&T) -> usize,
    most_parts: usize,
}

impl<'de, T: Deserialize<'de>> Visitor<'de> for List<T> {
    type Value = Vec<T>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "a list of at most {} elements", self.most)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut elements: A) -> Result<Vec<T>, A::Error> {
        let said = elements.size_hint().unwrap_or_default();
        if said > self.most {
            return Err(A::Error::invalid_length(said, &self));
        }
        let mut list = Vec::with_capacity(said.min(FIRST / size_of::<T>().max(1)));
        let mut parts = 0usize;
        while let Some(element) = elements.next_element::<T>()? {
            if list.len() >= self.most {
                return Err(A::Error::invalid_length(list.len() + 1, &self));
            }
            parts = parts.saturating_add((self.parts)(&element));
            if parts > self.most_parts {
                return Err(A::Error::custom("the elements of a list have too many parts together"));
            }
            list.push(element);
        }
        list.shrink_to_fit();
        Ok(list)
    }
}
