//! A request that cannot be accepted, and the parser that says which field is at fault.

use serde::de::DeserializeOwned;

/// Longest message about a bad request, in bytes: a client's text is quoted in it.
const MAX_MESSAGE: usize = 512;

/// A request that cannot be accepted: the client's fault, and the same request never succeeds.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct BadRequest {
    /// The field at fault, such as `messages[0].content`; `None` when the body as a whole is.
    pub param: Option<String>,
    /// The reason, for programs.
    pub code: &'static str,
    /// The reason, for people.
    pub message: String,
}

impl BadRequest {
    /// The body is not JSON.
    pub const INVALID_JSON: &'static str = "invalid_json";
    /// A field is missing.
    pub const MISSING: &'static str = "missing_required_parameter";
    /// A field has the wrong type.
    pub const TYPE: &'static str = "invalid_type";
    /// A field has a value that cannot be accepted.
    pub const VALUE: &'static str = "invalid_value";
    /// A feature that is not supported.
    pub const UNSUPPORTED: &'static str = "unsupported_parameter";

    /// A field has a value that cannot be accepted.
    pub fn value(param: impl Into<String>, reason: impl std::fmt::Display) -> Self {
        let param = param.into();
        Self {
            message: shorten(format!("Invalid '{param}': {reason}.")),
            param: Some(param),
            code: Self::VALUE,
        }
    }

    /// A field asks for a feature that is not supported and would change the answer.
    pub fn unsupported(param: impl Into<String>, reason: impl std::fmt::Display) -> Self {
        let param = param.into();
        Self {
            message: shorten(format!("Unsupported parameter: '{param}': {reason}.")),
            param: Some(param),
            code: Self::UNSUPPORTED,
        }
    }

    /// A field that must be there is not.
    pub fn missing(param: impl Into<String>) -> Self {
        let param = param.into();
        Self {
            message: format!("Missing required parameter: '{param}'."),
            param: Some(param),
            code: Self::MISSING,
        }
    }
}

/// Reads a JSON body. The error names the field at fault.
pub fn parse<T: DeserializeOwned>(body: &[u8]) -> Result<T, BadRequest> {
    // To know where one is in a body costs as much as to read it: that is looked for in a bad one only.
    serde_json::from_slice(body).or_else(|_| find_fault(body))
}

fn find_fault<T: DeserializeOwned>(body: &[u8]) -> Result<T, BadRequest> {
    let mut deserializer = serde_json::Deserializer::from_slice(body);
    let value = serde_path_to_error::deserialize(&mut deserializer).map_err(|error| {
        let path = error.path().to_string();
        explain(&path, &error.into_inner())
    })?;
    deserializer.end().map_err(|error| explain(".", &error))?;
    Ok(value)
}

fn explain(path: &str, error: &serde_json::Error) -> BadRequest {
    let place = (!path.is_empty() && path != "." && path != "?").then(|| path.to_owned());
    if !error.is_data() {
        let message = shorten(format!("We could not parse the JSON body of your request: {error}."));
        return BadRequest {
            param: None,
            code: BadRequest::INVALID_JSON,
            message,
        };
    }
    let text = error.to_string();
    // serde's own words are the only place that tells which field is missing.
    let missing = text
        .strip_prefix("missing field `")
        .and_then(|rest| rest.split('`').next());
    if let Some(field) = missing {
        return BadRequest::missing(place.map_or_else(|| field.to_owned(), |place| format!("{place}.{field}")));
    }
    let reason = text.split(" at line ").next().unwrap_or_default();
    BadRequest {
        message: shorten(match &place {
            Some(place) => format!("Invalid type for '{place}': {reason}."),
            None => format!("Invalid body: {reason}."),
        }),
        param: place.map(shorten),
        code: BadRequest::TYPE,
    }
}

/// Cuts a text that quotes a client's, at a character's boundary.
fn shorten(mut text: String) -> String {
    if text.len() > MAX_MESSAGE {
        let end = (0..=MAX_MESSAGE)
            .rev()
            .find(|end| text.is_char_boundary(*end))
            .unwrap_or(0);
        text.truncate(end);
        text.push('…');
    }
    text
}

#[cfg(test)]
mod tests {
    use serde::Deserialize;

    use super::*;

    #[derive(Debug, Deserialize)]
    struct Outer {
        #[expect(dead_code, reason = "only parsed")]
        list: Vec<Inner>,
    }

    #[derive(Debug, Deserialize)]
    struct Inner {
        #[expect(dead_code, reason = "only parsed")]
        number: u8,
    }

    fn fault(body: &str) -> BadRequest {
        parse::<Outer>(body.as_bytes()).unwrap_err()
    }

    #[test]
    fn the_field_at_fault_is_named() {
        let wrong = fault(r#"{"list":[{"number":1},{"number":"x"}]}"#);
        assert_eq!(
            (wrong.param.as_deref(), wrong.code),
            (Some("list[1].number"), BadRequest::TYPE)
        );
        let missing = fault(r#"{"list":[{}]}"#);
        assert_eq!(
            (missing.param.as_deref(), missing.code),
            (Some("list[0].number"), BadRequest::MISSING)
        );
        let top = fault("{}");
        assert_eq!(top.param.as_deref(), Some("list"));
    }

    #[test]
    fn a_body_that_is_not_json_says_so() {
        for body in ["", "{", "{\"list\":[]} x", "\u{0}"] {
            assert_eq!(fault(body).code, BadRequest::INVALID_JSON, "{body}");
        }
        assert_eq!(fault("[1]").code, BadRequest::TYPE);
    }

    #[test]
    fn a_long_text_is_cut() {
        let message = fault(&format!(r#"{{"list":"{}"}}"#, "é".repeat(5_000))).message;
        assert!(message.len() < MAX_MESSAGE + 8, "{}", message.len());
    }
}
