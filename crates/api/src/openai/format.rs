//! `response_format`: what an answer has to be.

use serde::Deserialize;
use serde_json::value::RawValue;

use super::tool::{MAX_SCHEMA_BYTES, check_name};
use crate::{BadRequest, json};

/// What an answer has to be.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Format {
    /// Any text.
    #[default]
    Text,
    /// Any JSON object.
    JsonObject,
    /// A JSON value of this schema, as text.
    JsonSchema(String),
}

#[derive(Debug, Deserialize)]
pub(super) struct Field {
    #[serde(rename = "type")]
    kind: String,
    json_schema: Option<SchemaField>,
}

#[derive(Debug, Deserialize)]
struct SchemaField {
    name: String,
    schema: Option<Box<RawValue>>,
    // An answer always fits its schema; only the type is checked.
    #[serde(rename = "strict")]
    _strict: Option<bool>,
}

impl Field {
    pub(super) fn check(self) -> Result<Format, BadRequest> {
        match self.kind.as_str() {
            "text" => Ok(Format::Text),
            "json_object" => Ok(Format::JsonObject),
            "json_schema" => {
                const AT: &str = "response_format.json_schema";
                let field = self.json_schema.ok_or_else(|| BadRequest::missing(AT))?;
                check_name(&field.name, &format!("{AT}.name"))?;
                let at = format!("{AT}.schema");
                let schema = field.schema.ok_or_else(|| BadRequest::missing(&at))?;
                json::object(schema.get(), &at, MAX_SCHEMA_BYTES).map(Format::JsonSchema)
            }
            other => {
                let reason = format!("'{other}' is not supported; 'text', 'json_object' and 'json_schema' are");
                Err(BadRequest::unsupported("response_format.type", reason))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::parse;

    #[derive(Debug, Deserialize)]
    struct Body {
        response_format: Field,
    }

    fn read(format: &str) -> Result<Format, BadRequest> {
        let body = format!(r#"{{"response_format":{format}}}"#);
        parse::<Body>(body.as_bytes())?.response_format.check()
    }

    #[test]
    fn each_format_is_read() {
        assert_eq!(read(r#"{"type":"text"}"#).unwrap(), Format::Text);
        assert_eq!(read(r#"{"type":"json_object"}"#).unwrap(), Format::JsonObject);
        let schema = r#"{"type":"json_schema","json_schema":{"name":"a","schema":{ "z":1, "a":2 },"strict":true}}"#;
        assert_eq!(read(schema).unwrap(), Format::JsonSchema(r#"{"z":1,"a":2}"#.into()));
    }

    #[test]
    fn what_cannot_be_kept_is_refused_by_name() {
        for (format, param) in [
            ("7", "response_format"),
            ("{}", "response_format.type"),
            (r#"{"type":"grammar"}"#, "response_format.type"),
            (r#"{"type":"json_schema"}"#, "response_format.json_schema"),
            (
                r#"{"type":"json_schema","json_schema":{"schema":{}}}"#,
                "response_format.json_schema.name",
            ),
            (
                r#"{"type":"json_schema","json_schema":{"name":"","schema":{}}}"#,
                "response_format.json_schema.name",
            ),
            (
                r#"{"type":"json_schema","json_schema":{"name":"a"}}"#,
                "response_format.json_schema.schema",
            ),
            (
                r#"{"type":"json_schema","json_schema":{"name":"a","schema":[]}}"#,
                "response_format.json_schema.schema",
            ),
        ] {
            assert_eq!(read(format).unwrap_err().param.as_deref(), Some(param), "{format}");
        }
    }
}
