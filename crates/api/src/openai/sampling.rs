//! The fields that chat completions and completions have in common.

use serde::{
    Deserialize, Deserializer,
    de::{Error, SeqAccess, Visitor},
};

use super::Provider;
use crate::{BadRequest, wish::Wish};

/// How tokens are chosen, when to stop, and how the answer is delivered. Numbers are not checked for their range here.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
pub struct Sampling {
    /// Most tokens to generate.
    pub max_tokens: Option<u64>,
    /// The newer name of `max_tokens`; it wins.
    pub max_completion_tokens: Option<u64>,
    /// Zero picks the most likely token.
    pub temperature: Option<f32>,
    /// Nucleus sampling.
    pub top_p: Option<f32>,
    /// Keeps the k most likely tokens; an extension.
    pub top_k: Option<u32>,
    /// Keeps tokens at least this likely compared with the likeliest; an extension.
    pub min_p: Option<f32>,
    /// Penalty on tokens by how often they occurred.
    pub frequency_penalty: Option<f32>,
    /// Penalty on tokens that occurred.
    pub presence_penalty: Option<f32>,
    /// Same seed, same engine, same answer.
    pub seed: Option<i64>,
    /// Texts that end the answer.
    #[serde(default)]
    pub stop: Stop,
    /// Answers wanted; only 1 is supported.
    pub n: Option<u64>,
    /// Whether the answer comes in pieces.
    pub stream: Option<bool>,
    /// How a stream is delivered.
    pub stream_options: Option<StreamOptions>,
    #[serde(default)]
    logit_bias: Wish,
    /// What is wanted of the seller; OpenRouter's extension and ours.
    #[serde(default)]
    pub provider: Provider,
    #[serde(default)]
    models: Wish,
}

/// How a stream is delivered.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
pub struct StreamOptions {
    /// Adds a last chunk with the usage.
    pub include_usage: Option<bool>,
}

impl Sampling {
    /// Refuses what is not supported and would change the answer.
    pub fn check(&self) -> Result<(), BadRequest> {
        if self.n.is_some_and(|n| n != 1) {
            return Err(BadRequest::unsupported(
                "n",
                "only 1 is supported; send the request again for another answer",
            ));
        }
        if self.stream_options.is_some() && self.stream != Some(true) {
            return Err(BadRequest::value("stream_options", "allowed only with 'stream': true"));
        }
        self.logit_bias
            .refuse("logit_bias", &[], "token biases are not supported")?;
        self.models
            .refuse("models", &[], "fallback models are not supported yet")
    }

    /// Most tokens to generate, if the client says.
    pub fn limit(&self) -> Option<u64> {
        self.max_completion_tokens.or(self.max_tokens)
    }

    /// Whether the answer comes in pieces.
    pub fn streams(&self) -> bool {
        self.stream == Some(true)
    }

    /// Whether a stream ends with its usage.
    pub fn includes_usage(&self) -> bool {
        self.stream_options.as_ref().and_then(|options| options.include_usage) == Some(true)
    }
}

/// Texts that end the answer: none, one, or a list.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Stop(pub Vec<String>);

struct StopVisitor;

impl<'de> Visitor<'de> for StopVisitor {
    type Value = Stop;

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("a text or a list of at most 16 texts")
    }

    fn visit_unit<E>(self) -> Result<Stop, E> {
        Ok(Stop::default())
    }

    fn visit_str<E>(self, text: &str) -> Result<Stop, E> {
        Ok(Stop(vec![text.to_owned()]))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Stop, A::Error> {
        let mut texts = Vec::new();
        while let Some(text) = seq.next_element::<String>()? {
            if texts.len() == 16 {
                return Err(A::Error::invalid_length(texts.len() + 1, &self));
            }
            texts.push(text);
        }
        Ok(Stop(texts))
    }
}

impl<'de> Deserialize<'de> for Stop {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(StopVisitor)
    }
}
