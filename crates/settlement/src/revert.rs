//! What a contract says when it refuses, in words.

use std::{collections::BTreeMap, sync::OnceLock};

use alloy::{
    dyn_abi::{DynSolValue, ErrorExt},
    json_abi::{Error as AbiError, JsonAbi},
    sol_types::{Panic, Revert, SolError},
};
use serde::Deserialize;

use crate::{
    Error, Purse,
    deploy::ARTIFACTS,
    rpc::{Failure, shorten},
};

#[derive(Deserialize)]
struct Artifact {
    abi: JsonAbi,
}

/// The custom errors of all contracts, inherited ones included, by selector.
fn errors() -> &'static BTreeMap<[u8; 4], AbiError> {
    static ERRORS: OnceLock<BTreeMap<[u8; 4], AbiError>> = OnceLock::new();
    ERRORS.get_or_init(|| {
        ARTIFACTS
            .iter()
            .filter_map(|text| serde_json::from_str::<Artifact>(text).ok())
            .flat_map(|artifact| artifact.abi.errors.into_values().flatten())
            .map(|error| (error.selector().0, error))
            .collect()
    })
}

/// The name and fields of what a contract reverted with.
pub(crate) fn describe(data: &[u8]) -> Option<String> {
    if let Ok(revert) = Revert::abi_decode(data) {
        return Some(shorten(&revert.reason));
    }
    if let Ok(panic) = Panic::abi_decode(data) {
        return Some(format!("Panic({})", panic.code));
    }
    let selector: [u8; 4] = *data.first_chunk()?;
    let error = errors().get(&selector)?;
    let Ok(decoded) = error.decode_error(data) else {
        return Some(error.name.clone());
    };
    let fields = error.inputs.iter().zip(&decoded.body);
    let fields: Vec<_> = fields
        .map(|(input, value)| format!("{}: {}", input.name, show(value)))
        .collect();
    Some(shorten(&format!("{}({})", error.name, fields.join(", "))))
}

fn show(value: &DynSolValue) -> String {
    match value {
        DynSolValue::Uint(number, _) => number.to_string(),
        DynSolValue::Address(address) => address.to_string(),
        DynSolValue::FixedBytes(bytes, _) => bytes.to_string(),
        DynSolValue::String(text) => text.clone(),
        other => format!("{other:?}"),
    }
}

/// An answer with an error in it: by a contract, or by the node.
pub(crate) fn classify(failure: Failure) -> Error {
    let Failure::Refused { code, message, data } = failure else {
        return failure.into();
    };
    let lower = message.to_lowercase();
    let data = data.unwrap_or_default();
    if code == 3 || !data.is_empty() || lower.contains("revert") {
        return reverted(describe(&data).unwrap_or(message));
    }
    let poor = [
        "insufficient funds",
        "insufficient balance",
        "lackoffund",
        "not enough funds",
    ];
    if poor.iter().any(|words| lower.contains(words)) {
        return Error::InsufficientFunds {
            purse: Purse::Gas,
            reason: message,
        };
    }
    Error::Rejected {
        reason: format!("{message} (code {code})"),
    }
}

/// A contract's refusal; lack of money is told apart.
pub(crate) fn reverted(reason: String) -> Error {
    let purse = match reason.split('(').next() {
        Some("ERC20InsufficientBalance") => Purse::Token,
        Some("InsufficientBalance") => Purse::FreeBalance,
        _ => return Error::Reverted { reason },
    };
    Error::InsufficientFunds { purse, reason }
}

#[cfg(test)]
mod tests {
    use alloy::{primitives::U256, sol_types::SolValue};

    use super::*;

    fn encoded(name: &str, fields: &[u8]) -> Vec<u8> {
        let error = errors().values().find(|error| error.name == name).unwrap();
        [error.selector().as_slice(), fields].concat()
    }

    #[test]
    fn custom_errors_are_named_with_their_fields() {
        let data = encoded("InsufficientBalance", &(U256::from(2), U256::from(5)).abi_encode());
        assert_eq!(describe(&data).unwrap(), "InsufficientBalance(balance: 2, asked: 5)");
        assert_eq!(describe(&encoded("NotPayer", &[])).unwrap(), "NotPayer()");
    }

    #[test]
    fn fields_that_cannot_be_read_leave_the_name_and_unknown_bytes_nothing() {
        assert_eq!(describe(&encoded("ChannelExists", &[1, 2])).unwrap(), "ChannelExists");
        assert_eq!(describe(&[1, 2, 3]), None);
        assert_eq!(describe(&[0xff; 68]), None);
    }

    #[test]
    fn lack_of_money_is_told_apart() {
        let node = Failure::Refused {
            code: -32003,
            message: "Insufficient funds for gas * price + value".into(),
            data: None,
        };
        assert!(matches!(
            classify(node),
            Error::InsufficientFunds { purse: Purse::Gas, .. }
        ));
        let escrow = reverted("InsufficientBalance(balance: 2, asked: 5)".into());
        assert_eq!(escrow.revert_name(), Some("InsufficientBalance"));
        assert!(matches!(
            escrow,
            Error::InsufficientFunds {
                purse: Purse::FreeBalance,
                ..
            }
        ));
    }
}
