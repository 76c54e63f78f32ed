//! What is read of a request, and what is changed before it goes on: the model's name, `provider`, which is for a market,
//! and that a stream tells its usage.

use std::{borrow::Cow, collections::BTreeMap};

use bytes::Bytes;
use rialto_api::BadRequest;
use serde::Deserialize;
use serde_json::value::{RawValue, to_raw_value};

use crate::Error;

/// What is read of a request.
#[derive(Debug, Deserialize)]
pub(crate) struct Wanted {
    /// The model's name.
    pub(crate) model: String,
    /// Whether the answer comes in pieces.
    #[serde(default)]
    stream: Option<bool>,
    #[serde(default)]
    stream_options: Option<StreamOptions>,
    #[serde(default)]
    max_tokens: Option<u64>,
    #[serde(default)]
    max_completion_tokens: Option<u64>,
    #[serde(default)]
    provider: Option<Named>,
}

#[derive(Debug, Deserialize)]
struct StreamOptions {
    #[serde(default)]
    include_usage: Option<bool>,
}

/// Sellers that are asked for by name.
#[derive(Debug, Deserialize)]
struct Named {
    #[serde(default)]
    order: Option<serde::de::IgnoredAny>,
    #[serde(default)]
    only: Option<serde::de::IgnoredAny>,
}

impl Wanted {
    /// Reads a body.
    pub(crate) fn read(body: &[u8]) -> Result<Self, BadRequest> {
        rialto_api::parse(body)
    }

    /// The model of a body that is not understood otherwise.
    pub(crate) fn model_of(body: &[u8]) -> Option<String> {
        let body: serde_json::Value = serde_json::from_slice(body).ok()?;
        Some(body.get("model")?.as_str()?.to_owned())
    }

    /// Whether the answer comes in pieces.
    pub(crate) fn streams(&self) -> bool {
        self.stream == Some(true)
    }

    /// Whether the client reads what a stream used.
    pub(crate) fn reads_usage(&self) -> bool {
        self.stream_options.as_ref().and_then(|options| options.include_usage) == Some(true)
    }

    /// Whether it names sellers, who are asked then and nobody else.
    pub(crate) fn names_sellers(&self) -> bool {
        let named = |provider: &Named| provider.order.is_some() || provider.only.is_some();
        self.provider.as_ref().is_some_and(named)
    }

    /// The most units that it may use: a byte is at least no less than a token.
    pub(crate) fn most(&self, body: &[u8], usual: u64) -> u64 {
        let output = self.max_completion_tokens.or(self.max_tokens).unwrap_or(usual);
        output.saturating_add(u64::try_from(body.len()).unwrap_or(u64::MAX))
    }
}

/// A request, and where it goes below a server's root.
pub(crate) struct Request<'a> {
    pub(crate) path: &'a str,
    pub(crate) bytes: &'a Bytes,
    pub(crate) wanted: &'a Wanted,
}

impl Request<'_> {
    /// The body for a server that calls the model `name`. Most are passed on as they came.
    pub(super) fn body_for(&self, name: &str) -> Result<Bytes, Error> {
        let wanted = self.wanted;
        let tells = !wanted.streams() || wanted.reads_usage();
        if tells && wanted.model == name && wanted.provider.is_none() {
            return Ok(self.bytes.clone());
        }
        let odd = |error: serde_json::Error| BadRequest::value("model", error.to_string());
        if tells && wanted.provider.is_none() {
            return Ok(self.renamed(name).map_err(odd)?);
        }
        // As they were written: what a number or a text is, is not for this gateway to say.
        let mut fields: BTreeMap<Cow<'_, str>, Box<RawValue>> = serde_json::from_slice(self.bytes).map_err(odd)?;
        let mut set = |field: &'static str, value: &serde_json::Value| -> Result<(), Error> {
            fields.insert(field.into(), to_raw_value(value).map_err(odd)?);
            Ok(())
        };
        set("model", &name.into())?;
        if !tells {
            set("stream_options", &serde_json::json!({ "include_usage": true }))?;
        }
        fields.remove("provider");
        Ok(serde_json::to_vec(&fields).map_err(odd)?.into())
    }

    /// The body with another name in the model's place, and all else as it came.
    fn renamed(&self, name: &str) -> Result<Bytes, serde_json::Error> {
        #[derive(Deserialize)]
        struct Place<'a> {
            #[serde(borrow)]
            model: &'a RawValue,
        }
        let bytes = self.bytes;
        let model = serde_json::from_slice::<Place<'_>>(bytes)?.model.get();
        // It is a part of the body, so its distance from the beginning is where it stands.
        let start = model.as_ptr().addr().saturating_sub(bytes.as_ptr().addr());
        let mut renamed = Vec::with_capacity(bytes.len().saturating_add(name.len()));
        renamed.extend_from_slice(bytes.get(..start).unwrap_or_default());
        serde_json::to_writer(&mut renamed, name)?;
        renamed.extend_from_slice(bytes.get(start.saturating_add(model.len())..).unwrap_or_default());
        Ok(renamed.into())
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn sent(body: &Value, name: &str) -> (Bytes, Bytes) {
        let bytes = Bytes::from(body.to_string());
        let wanted = Wanted::read(&bytes).unwrap();
        let request = Request {
            path: "/v1/chat/completions",
            bytes: &bytes,
            wanted: &wanted,
        };
        (request.body_for(name).unwrap(), bytes.clone())
    }

    #[test]
    fn what_needs_no_change_is_passed_on_to_the_last_byte() {
        let whole = json!({ "model": "a", "messages": [], "seed": 1.0, "unknown": { "x": "\u{e9}" } });
        let (there, came) = sent(&whole, "a");
        assert_eq!(there, came);
        let stream = json!({ "model": "a", "stream": true, "stream_options": { "include_usage": true } });
        let (there, came) = sent(&stream, "a");
        assert_eq!(there, came);
    }

    #[test]
    fn only_what_has_to_be_changed_is() {
        let text =
            r#"{"big":123456789012345678901234567890,"model":"a","provider":{"sort":"price"},"stream":true,"x":1.50}"#;
        let bytes = Bytes::from(text);
        let wanted = Wanted::read(&bytes).unwrap();
        let request = Request {
            path: "",
            bytes: &bytes,
            wanted: &wanted,
        };
        let there = request.body_for("b\"c").unwrap();
        let expected = r#"{"big":123456789012345678901234567890,"model":"b\"c","stream":true,"stream_options":{"include_usage":true},"x":1.50}"#;
        assert_eq!(there, expected);
    }

    #[test]
    fn where_a_model_has_another_name_there_only_that_is_changed() {
        let renamed = |text: &str| {
            let bytes = Bytes::copy_from_slice(text.as_bytes());
            let wanted = Wanted::read(&bytes).unwrap();
            let (path, bytes, wanted) = ("", &bytes, &wanted);
            Request { path, bytes, wanted }.body_for("b\"c").unwrap()
        };
        let text = r#"{ "x":[1.50,{"model":"a"}] , "mod\u0065l" : "a\n" ,"z":"\u00e9" }"#;
        let expected = r#"{ "x":[1.50,{"model":"a"}] , "mod\u0065l" : "b\"c" ,"z":"\u00e9" }"#;
        assert_eq!(renamed(text), expected);
        assert_eq!(renamed(r#"{"model":"a"}"#), r#"{"model":"b\"c"}"#);
        assert!(Wanted::read(br#"{"model":"a","model":"b"}"#).is_err());
    }

    #[test]
    fn who_names_sellers_means_them() {
        let read = |provider: Value| {
            let bytes = json!({ "model": "a", "provider": provider }).to_string();
            Wanted::read(bytes.as_bytes()).unwrap().names_sellers()
        };
        assert!(read(json!({ "only": ["0x1"] })));
        assert!(read(json!({ "order": ["0x1"] })));
        assert!(!read(json!({ "sort": "price" })));
        assert!(Wanted::read(b"{\"model\":1}").is_err() && Wanted::read(b"[]").is_err());
    }
}
