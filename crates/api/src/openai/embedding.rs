//! `POST /v1/embeddings`.

use serde::{
    Deserialize, Deserializer, Serialize,
    de::{SeqAccess, Visitor},
};

use super::{Provider, Usage, text::Text};
use crate::{BadRequest, parse};

/// The request, checked.
#[derive(Debug, Clone, PartialEq)]
pub struct EmbeddingRequest {
    /// `publisher/name:tag`, a model id, or an alias.
    pub model: String,
    /// The texts; never empty.
    pub input: Vec<String>,
    /// Whether vectors are wanted as base64 of little-endian floats.
    pub base64: bool,
    /// What is wanted of the seller.
    pub provider: Provider,
}

#[derive(Deserialize)]
struct Fields {
    model: String,
    input: EmbeddingInput,
    encoding_format: Option<String>,
    dimensions: Option<u64>,
    #[serde(default)]
    provider: Provider,
}

/// One text or a list of texts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EmbeddingInput(pub Vec<String>);

struct InputVisitor;

impl<'de> Visitor<'de> for InputVisitor {
    type Value = EmbeddingInput;

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("a text or a list of texts (token ids are not supported)")
    }

    fn visit_str<E>(self, text: &str) -> Result<EmbeddingInput, E> {
        Ok(EmbeddingInput(vec![text.to_owned()]))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<EmbeddingInput, A::Error> {
        let mut texts = Vec::new();
        while let Some(Text(text)) = seq.next_element()? {
            texts.push(text);
        }
        Ok(EmbeddingInput(texts))
    }
}

impl<'de> Deserialize<'de> for EmbeddingInput {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(InputVisitor)
    }
}

impl EmbeddingRequest {
    /// Reads a body, and refuses what is not supported and would change the answer.
    pub fn parse(body: &[u8]) -> Result<Self, BadRequest> {
        let fields: Fields = parse(body)?;
        if fields.dimensions.is_some() {
            return Err(BadRequest::unsupported(
                "dimensions",
                "the model decides the length of its vectors",
            ));
        }
        let base64 = match fields.encoding_format.as_deref() {
            None | Some("float") => false,
            Some("base64") => true,
            Some(_) => return Err(BadRequest::value("encoding_format", "must be 'float' or 'base64'")),
        };
        if fields.input.0.is_empty() {
            return Err(BadRequest::value("input", "at least one text is needed"));
        }
        if let Some(index) = fields.input.0.iter().position(String::is_empty) {
            return Err(BadRequest::value(format!("input[{index}]"), "the text is empty"));
        }
        Ok(Self {
            model: fields.model,
            input: fields.input.0,
            base64,
            provider: fields.provider,
        })
    }
}

/// The answer.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct EmbeddingList {
    /// Always `list`.
    pub object: String,
    /// One for each text, in order.
    pub data: Vec<Embedding>,
    /// The model that answered.
    pub model: String,
    /// Units and cost.
    pub usage: Usage,
}

/// The vector of one text.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Embedding {
    /// Always `embedding`.
    pub object: String,
    /// Position of the text.
    pub index: u32,
    /// The vector.
    pub embedding: Vector,
}

/// A vector in either encoding.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Vector {
    /// As numbers.
    Numbers(Vec<f32>),
    /// As base64 of little-endian floats.
    Base64(String),
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(rest: &str) -> Result<EmbeddingRequest, BadRequest> {
        EmbeddingRequest::parse(format!(r#"{{"model":"m",{rest}}}"#).as_bytes())
    }

    #[test]
    fn texts_are_read_in_either_form() {
        assert_eq!(request(r#""input":"a""#).unwrap().input, ["a"]);
        let read = request(r#""input":["a","b"],"encoding_format":"base64""#).unwrap();
        assert_eq!((read.input.len(), read.base64), (2, true));
    }

    #[test]
    fn what_is_not_supported_is_named() {
        for (rest, param) in [
            (r#""input":[1,2]"#, "input[0]"),
            (r#""input":[[1,2],[3]]"#, "input[0]"),
            (r#""input":["a",2]"#, "input[1]"),
            (r#""input":[]"#, "input"),
            (r#""input":["a",""]"#, "input[1]"),
            (r#""input":"a","dimensions":5"#, "dimensions"),
            (r#""input":"a","encoding_format":"hex""#, "encoding_format"),
            (r#""encoding_format":"float""#, "input"),
        ] {
            assert_eq!(request(rest).unwrap_err().param.as_deref(), Some(param), "{rest}");
        }
    }

    #[test]
    fn token_ids_are_refused_with_the_reason() {
        for input in ["[1,2]", "[[1,2]]", "7"] {
            let fault = request(&format!(r#""input":{input}"#)).unwrap_err();
            assert!(
                fault.message.contains("token ids are not supported"),
                "{}",
                fault.message
            );
            assert_eq!(fault.code, BadRequest::TYPE);
        }
    }
}
