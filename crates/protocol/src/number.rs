//! Integers of 128 bits in JSON, whose readers often have 53: numbers where they fit 64 bits, decimal text beyond.

use std::fmt;

use serde::{
    Deserialize, Deserializer, Serializer,
    de::{Error, Visitor},
};

pub(crate) fn serialize<S: Serializer>(value: &u128, serializer: S) -> Result<S::Ok, S::Error> {
    if !serializer.is_human_readable() {
        return serializer.serialize_u128(*value);
    }
    match u64::try_from(*value) {
        Ok(small) => serializer.serialize_u64(small),
        Err(_) => serializer.collect_str(value),
    }
}

pub(crate) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u128, D::Error> {
    if deserializer.is_human_readable() {
        deserializer.deserialize_any(NumberVisitor)
    } else {
        u128::deserialize(deserializer)
    }
}

struct NumberVisitor;

impl Visitor<'_> for NumberVisitor {
    type Value = u128;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a whole number, or its decimal text")
    }

    fn visit_u64<E: Error>(self, value: u64) -> Result<u128, E> {
        Ok(value.into())
    }

    fn visit_u128<E: Error>(self, value: u128) -> Result<u128, E> {
        Ok(value)
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<u128, E> {
        text.parse().map_err(|_| E::custom("not a whole number of 128 bits"))
    }
}

#[cfg(test)]
mod tests {
    use crate::{MicroDollars, NanoDollars};

    #[test]
    fn amounts_of_any_size_survive_json_and_binary() {
        for amount in [0, 1, u64::MAX.into(), u128::from(u64::MAX) + 1, u128::MAX] {
            let amount = NanoDollars(amount);
            // Going through a value matters: it holds no number beyond 64 bits.
            let value = serde_json::to_value(amount).unwrap();
            assert_eq!(serde_json::from_value::<NanoDollars>(value).unwrap(), amount);
            let bytes = postcard::to_stdvec(&amount).unwrap();
            assert_eq!(postcard::from_bytes::<NanoDollars>(&bytes).unwrap(), amount);
        }
        assert_eq!(serde_json::to_string(&NanoDollars(7)).unwrap(), "7");
        assert!(serde_json::from_str::<NanoDollars>("-1").is_err());
        assert!(serde_json::from_str::<MicroDollars>(&format!("\"{}\"", u128::MAX)).is_err());
    }
}
