//! What clients are told when something goes wrong.

use crate::{
    chain::{UnknownBlock, WriteError},
    evm::CallFailure,
    logs::LogsError,
    transaction::Refusal,
};
use serde_json::{Value, json};

/// How far a nonce may be ahead and still be waited for.
const NEAR_NONCES: u64 = 64;

/// A JSON-RPC error object, with the codes that Ethereum clients know.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct RpcError {
    code: i64,
    message: String,
    data: Option<Value>,
    /// Whether the transaction may be accepted once others were mined.
    nonce_ahead: bool,
}

impl RpcError {
    fn new(code: i64, message: impl Into<String>) -> Self {
        Self {
            code,
            message: message.into(),
            data: None,
            nonce_ahead: false,
        }
    }

    /// The body is not JSON.
    pub(crate) fn parse(message: &str) -> Self {
        Self::new(-32700, format!("parse error: {message}"))
    }

    /// JSON, but not a request.
    pub(crate) fn invalid_request(message: &str) -> Self {
        Self::new(-32600, format!("invalid request: {message}"))
    }

    /// No such method.
    pub(crate) fn method_not_found(method: &str) -> Self {
        let method: String = method.chars().take(64).collect();
        Self::new(-32601, format!("method not found: {method}"))
    }

    /// A parameter is missing or wrong.
    pub(crate) fn invalid_params(message: impl Into<String>) -> Self {
        Self::new(-32602, message)
    }

    /// The thing asked for is not there.
    pub(crate) fn not_found(message: impl Into<String>) -> Self {
        Self::new(-32000, message)
    }

    /// This side's fault.
    pub(crate) fn internal(message: &str) -> Self {
        Self::new(-32603, message)
    }

    /// Whether the same transaction may be accepted a moment later.
    pub(crate) fn waits_for_nonce(&self) -> bool {
        self.nonce_ahead
    }

    /// The error object of a response.
    pub(crate) fn to_json(&self) -> Value {
        match &self.data {
            Some(data) => json!({ "code": self.code, "message": self.message, "data": data }),
            None => json!({ "code": self.code, "message": self.message }),
        }
    }
}

impl From<Refusal> for RpcError {
    fn from(refusal: Refusal) -> Self {
        let code = match refusal {
            Refusal::Malformed(_) | Refusal::TooLarge { .. } => -32602,
            _ => -32003,
        };
        let nonce_ahead = match refusal {
            Refusal::NonceTooHigh { transaction, state } => transaction.saturating_sub(state) <= NEAR_NONCES,
            _ => false,
        };
        Self {
            nonce_ahead,
            ..Self::new(code, refusal.to_string())
        }
    }
}

impl From<WriteError> for RpcError {
    fn from(error: WriteError) -> Self {
        match error {
            WriteError::Refused(refusal) => refusal.into(),
            WriteError::Invalid(message) => Self::invalid_params(message),
            WriteError::Journal(error) => {
                tracing::error!(%error, "block not recorded");
                Self::internal(&format!("block not recorded, nothing was changed: {error}"))
            }
        }
    }
}

impl From<CallFailure> for RpcError {
    fn from(failure: CallFailure) -> Self {
        let message = failure.to_string();
        match failure {
            CallFailure::Reverted { data, .. } => Self {
                data: Some(json!(data)),
                ..Self::new(3, message)
            },
            CallFailure::Halted(_) | CallFailure::Allowance(_) => Self::new(-32000, message),
            CallFailure::Refused(refusal) => refusal.into(),
        }
    }
}

impl From<UnknownBlock> for RpcError {
    fn from(error: UnknownBlock) -> Self {
        Self::not_found(error.to_string())
    }
}

impl From<LogsError> for RpcError {
    fn from(error: LogsError) -> Self {
        let code = match error {
            LogsError::TooMany => -32005,
            LogsError::Range { .. } => -32602,
            LogsError::UnknownBlock(_) => -32000,
        };
        Self::new(code, error.to_string())
    }
}
