//! Errors as OpenAI's clients read them.

use serde::{Deserialize, Serialize};

/// The body of every error, and of the event that ends a stream that failed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ErrorBody {
    /// What went wrong.
    pub error: ErrorObject,
}

/// What went wrong.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ErrorObject {
    /// For people: what happened and what to do.
    pub message: String,
    /// The class: `invalid_request_error`, `authentication_error`, `insufficient_quota`, `server_error`, …
    #[serde(rename = "type")]
    pub kind: String,
    /// The field at fault, if it is a field.
    pub param: Option<String>,
    /// The reason, for programs.
    pub code: Option<String>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_key_is_present_even_when_null() {
        let body = ErrorBody {
            error: ErrorObject {
                message: "m".into(),
                kind: "server_error".into(),
                param: None,
                code: None,
            },
        };
        let json = serde_json::to_value(&body).unwrap();
        assert_eq!(
            json,
            serde_json::json!({"error": {"message": "m", "type": "server_error", "param": null, "code": null}})
        );
    }
}
