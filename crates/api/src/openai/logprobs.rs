//! Log-probabilities of tokens, as chat completions and as completions tell them.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// Log-probabilities of a chat's tokens.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct ChatLogprobs {
    /// One for each token, in order.
    pub content: Vec<ContentLogprob>,
    /// Always null.
    pub refusal: Option<()>,
}

/// How likely a token was, and what could have stood in its place.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ContentLogprob {
    /// Its text; a part of a character shows as a replacement character.
    pub token: String,
    /// Natural logarithm of its probability.
    pub logprob: f32,
    /// Its bytes, exactly.
    pub bytes: Vec<u8>,
    /// The likeliest tokens at its place, likeliest first.
    pub top_logprobs: Vec<TopLogprob>,
}

/// A token that could have been chosen.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct TopLogprob {
    /// Its text; a part of a character shows as a replacement character.
    pub token: String,
    /// Natural logarithm of its probability.
    pub logprob: f32,
    /// Its bytes, exactly.
    pub bytes: Vec<u8>,
}

/// Log-probabilities of a completion's tokens. All lists are of the same length.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct CompletionLogprobs {
    /// The tokens' texts; what is no text is spelt `bytes:\xe2\x80`.
    pub tokens: Vec<String>,
    /// Natural logarithms of their probabilities.
    pub token_logprobs: Vec<f32>,
    /// The likeliest tokens at their places, with the chosen one.
    pub top_logprobs: Vec<BTreeMap<String, f32>>,
    /// Where their texts begin in the answer, in characters.
    pub text_offset: Vec<u64>,
}
