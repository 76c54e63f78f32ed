//! Positional parameters.

use super::error::RpcError;
use alloy::eips::BlockId;
use serde::de::DeserializeOwned;
use serde_json::Value;

/// The parameters of a request, by position.
#[derive(Debug, Default)]
pub(super) struct Params(Vec<Value>);

impl Params {
    pub(super) fn new(values: Vec<Value>) -> Self {
        Self(values)
    }

    /// The parameter at `index`, called `name` in messages.
    pub(super) fn get<T: DeserializeOwned>(&self, index: usize, name: &str) -> Result<T, RpcError> {
        let missing = || RpcError::invalid_params(format!("missing parameter {index}: {name}"));
        self.optional(index, name)?.ok_or_else(missing)
    }

    /// The parameter at `index`, or `None` when it is absent or null.
    pub(super) fn optional<T: DeserializeOwned>(&self, index: usize, name: &str) -> Result<Option<T>, RpcError> {
        match self.0.get(index) {
            None | Some(Value::Null) => Ok(None),
            Some(value) => T::deserialize(value)
                .map(Some)
                .map_err(|error| RpcError::invalid_params(format!("invalid parameter {index}: {name}: {error}"))),
        }
    }

    /// A block parameter; the newest block when it is absent.
    pub(super) fn block(&self, index: usize) -> Result<BlockId, RpcError> {
        Ok(self.optional(index, "block")?.unwrap_or(BlockId::latest()))
    }

    /// A number given as JSON number, hexadecimal string or decimal string, as test tools mix them.
    pub(super) fn number(&self, index: usize, name: &str) -> Result<u64, RpcError> {
        let missing = || RpcError::invalid_params(format!("missing parameter {index}: {name}"));
        self.optional_number(index, name)?.ok_or_else(missing)
    }

    /// Like [`Params::number`], or `None` when it is absent or null.
    pub(super) fn optional_number(&self, index: usize, name: &str) -> Result<Option<u64>, RpcError> {
        let number = match self.0.get(index) {
            None | Some(Value::Null) => return Ok(None),
            Some(Value::Number(number)) => number.as_u64(),
            Some(Value::String(text)) => match text.strip_prefix("0x") {
                Some(digits) => u64::from_str_radix(digits, 16).ok(),
                None => text.parse().ok(),
            },
            Some(_) => None,
        };
        let invalid = || RpcError::invalid_params(format!("invalid parameter {index}: {name}: not a 64-bit number"));
        number.map(Some).ok_or_else(invalid)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn numbers_are_read_in_every_spelling() {
        let params = Params::new(vec![
            json!(100),
            json!("0x64"),
            json!("100"),
            json!(-1),
            json!("0xzz"),
            json!([]),
        ]);
        for index in 0..3 {
            assert_eq!(params.number(index, "n").unwrap(), 100);
        }
        for index in 3..7 {
            assert!(params.number(index, "n").is_err());
        }
        assert_eq!(params.optional_number(6, "n").unwrap(), None);
    }
}
