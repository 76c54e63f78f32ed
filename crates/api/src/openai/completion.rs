//! `POST /v1/completions`.

use serde::{
    Deserialize, Deserializer, Serialize,
    de::{Error, SeqAccess, Visitor},
};

use super::{CompletionLogprobs, Sampling, Usage, text::Text};
use crate::{BadRequest, parse, wish::Wish};

/// Most alternatives of each token.
const MAX_LOGPROBS: u8 = 5;

/// The request, checked.
#[derive(Debug, Clone, PartialEq)]
pub struct CompletionRequest {
    /// `publisher/name:tag`, a model id, or an alias.
    pub model: String,
    /// The text to continue.
    pub prompt: String,
    /// How many alternatives to tell with each token's log-probability; `None` for no log-probabilities.
    pub logprobs: Option<u8>,
    /// How tokens are chosen and the answer is delivered.
    pub sampling: Sampling,
}

#[derive(Deserialize)]
struct Fields {
    model: String,
    prompt: Prompt,
    #[serde(default)]
    suffix: Wish,
    #[serde(default)]
    echo: Wish,
    best_of: Option<u64>,
    logprobs: Option<u64>,
}

/// A text, or a list of exactly one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Prompt(pub String);

struct PromptVisitor;

impl<'de> Visitor<'de> for PromptVisitor {
    type Value = Prompt;

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("one text (lists of prompts and token ids are not supported)")
    }

    fn visit_str<E>(self, text: &str) -> Result<Prompt, E> {
        Ok(Prompt(text.to_owned()))
    }

    fn visit_string<E>(self, text: String) -> Result<Prompt, E> {
        Ok(Prompt(text))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Prompt, A::Error> {
        let Text(text) = seq.next_element()?.ok_or_else(|| A::Error::invalid_length(0, &self))?;
        match seq.next_element::<serde::de::IgnoredAny>()? {
            None => Ok(Prompt(text)),
            Some(_) => Err(A::Error::invalid_length(2, &self)),
        }
    }
}

impl<'de> Deserialize<'de> for Prompt {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(PromptVisitor)
    }
}

impl CompletionRequest {
    /// Reads a body, and refuses what is not supported and would change the answer.
    pub fn parse(body: &[u8]) -> Result<Self, BadRequest> {
        let fields: Fields = parse(body)?;
        let sampling: Sampling = parse(body)?;
        sampling.check()?;
        fields
            .suffix
            .refuse("suffix", &[], "text after the completion is not supported")?;
        fields.echo.refuse("echo", &[], "the prompt is not repeated")?;
        if fields.best_of.is_some_and(|best| best != 1) {
            return Err(BadRequest::unsupported("best_of", "only 1 is supported"));
        }
        let logprobs = fields.logprobs.map(u8::try_from).transpose();
        let logprobs = logprobs
            .ok()
            .filter(|top| top.is_none_or(|top| top <= MAX_LOGPROBS))
            .ok_or_else(|| BadRequest::value("logprobs", format!("must be between 0 and {MAX_LOGPROBS}")))?;
        Ok(Self {
            model: fields.model,
            prompt: fields.prompt.0,
            logprobs,
            sampling,
        })
    }
}

/// The answer, or a piece of it when it is streamed.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Completion {
    /// The same for all pieces of one answer.
    pub id: String,
    /// Always `text_completion`.
    pub object: String,
    /// Seconds since 1970.
    pub created: u64,
    /// The model that answered.
    pub model: String,
    /// One, or none in the piece that carries the usage.
    pub choices: Vec<CompletionChoice>,
    /// Units and cost; in a stream only in the last piece, if it was asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub usage: Option<Usage>,
}

/// An answer or a piece of it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct CompletionChoice {
    /// Always 0.
    pub index: u32,
    /// The text, or what is new of it.
    pub text: String,
    /// `stop` or `length` when the answer is whole.
    pub finish_reason: Option<String>,
    /// Of the tokens, or of those that are new, if they were asked for.
    pub logprobs: Option<CompletionLogprobs>,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(rest: &str) -> Result<CompletionRequest, BadRequest> {
        CompletionRequest::parse(format!(r#"{{"model":"m",{rest}}}"#).as_bytes())
    }

    #[test]
    fn one_prompt_is_read_in_either_form() {
        assert_eq!(request(r#""prompt":"a""#).unwrap().prompt, "a");
        assert_eq!(
            request(r#""prompt":["a"],"stop":["b","c"]"#).unwrap().sampling.stop.0,
            ["b", "c"]
        );
    }

    #[test]
    fn log_probabilities_are_asked_for_by_a_number() {
        for (rest, wanted) in [
            (r#""prompt":"a""#, None),
            (r#""prompt":"a","logprobs":null"#, None),
            (r#""prompt":"a","logprobs":0"#, Some(0)),
            (r#""prompt":"a","logprobs":5"#, Some(5)),
        ] {
            assert_eq!(request(rest).unwrap().logprobs, wanted, "{rest}");
        }
    }

    #[test]
    fn what_is_not_supported_is_named() {
        for (rest, param) in [
            (r#""prompt":["a","b"]"#, "prompt"),
            (r#""prompt":[]"#, "prompt"),
            (r#""prompt":[1]"#, "prompt[0]"),
            (r#""prompt":7"#, "prompt"),
            (r#""stream":true"#, "prompt"),
            (r#""prompt":"a","suffix":"b""#, "suffix"),
            (r#""prompt":"a","echo":true"#, "echo"),
            (r#""prompt":"a","best_of":3"#, "best_of"),
            (r#""prompt":"a","logprobs":6"#, "logprobs"),
            (r#""prompt":"a","logprobs":true"#, "logprobs"),
            (r#""prompt":"a","logit_bias":{"5":1}"#, "logit_bias"),
        ] {
            assert_eq!(request(rest).unwrap_err().param.as_deref(), Some(param), "{rest}");
        }
    }
}
