//! Outputs: what a model answers, piece by piece, and the hash of all pieces.

use serde::{Deserialize, Serialize};
use sha3::{Digest as _, Keccak256};

use crate::{
    Digest, bounded,
    hash::keccak256,
    job::{MAX_INPUT_BYTES, MAX_PARTS, MAX_TOP_LOGPROBS, Tensor},
};

/// Most tokens of one piece of an answer. A seller works at most [`crate::offer::MAX_CHUNK`] tokens beyond what is paid.
pub const MAX_PIECE_TOKENS: usize = 4_096;

/// Most values of a vector: as many as fit a frame.
const MAX_DIMENSION: usize = 4 << 20;

const MAX_TOP: usize = MAX_TOP_LOGPROBS as usize;

/// One piece of an answer.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum Output {
    /// Generated tokens and their text. Text may lag behind its tokens while a character or a possible stop text is
    /// incomplete; the tokens are what is billed.
    Tokens {
        /// Text to append; may be empty.
        #[serde(deserialize_with = "bounded::text::<_, MAX_INPUT_BYTES>")]
        text: String,
        /// Ids in the model's vocabulary, in order.
        #[serde(deserialize_with = "bounded::list::<_, _, MAX_PIECE_TOKENS>")]
        ids: Vec<u32>,
        /// One for each id, if they were asked for; else empty.
        #[serde(deserialize_with = "bounded::list::<_, _, MAX_PIECE_TOKENS>")]
        logprobs: Vec<TokenLogprob>,
    },
    /// The vector of one text.
    Embedding {
        /// Position of the text in the request.
        index: u32,
        /// The vector.
        #[serde(deserialize_with = "bounded::list::<_, _, MAX_DIMENSION>")]
        vector: Vec<f32>,
    },
    /// All outputs of a predictive model.
    Tensors(#[serde(deserialize_with = "bounded::list::<_, _, MAX_PARTS>")] Vec<Tensor>),
    /// What is new of a call of a tool. Its tokens come as [`Output::Tokens`] without text.
    ToolCall {
        /// Counts the calls of the answer from 0.
        index: u32,
        /// The tool, in the first piece of a call; else empty.
        #[serde(deserialize_with = "bounded::text::<_, MAX_INPUT_BYTES>")]
        name: String,
        /// What to append to the JSON text of the arguments.
        #[serde(deserialize_with = "bounded::text::<_, MAX_INPUT_BYTES>")]
        arguments: String,
    },
}

/// How likely a token was, by the softmax of the model's unchanged logits.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct TokenLogprob {
    /// Its bytes, which may be a part of a character.
    #[serde(deserialize_with = "bounded::list::<_, _, MAX_INPUT_BYTES>")]
    pub bytes: Vec<u8>,
    /// Natural logarithm of its probability.
    pub logprob: f32,
    /// The likeliest tokens at its place, likeliest first, as many as were asked for.
    #[serde(deserialize_with = "bounded::list::<_, _, MAX_TOP>")]
    pub top: Vec<Alternative>,
}

/// A token that could have been chosen.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Alternative {
    /// Its id in the model's vocabulary.
    pub id: u32,
    /// Its bytes, which may be a part of a character.
    #[serde(deserialize_with = "bounded::list::<_, _, MAX_INPUT_BYTES>")]
    pub bytes: Vec<u8>,
    /// Natural logarithm of its probability.
    pub logprob: f32,
}

impl Output {
    /// Units of output in this piece: only generated tokens count.
    pub fn units(&self) -> u64 {
        match self {
            Self::Tokens { ids, .. } => u64::try_from(ids.len()).unwrap_or(u64::MAX),
            Self::Embedding { .. } | Self::Tensors(_) | Self::ToolCall { .. } => 0,
        }
    }
}

/// Why a generation ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FinishReason {
    /// The model or a stop text ended it.
    Stop,
    /// The limit of tokens, or the model's context, was reached.
    Length,
    /// The buyer cancelled, or its money ended.
    Cancelled,
    /// The model called tools, and waits for what they say.
    ToolCalls,
}

/// Hashes an answer independently of how it was cut into pieces: token ids with their log-probabilities, text, values and
/// calls of tools each in their own lane.
#[derive(Clone, Default)]
pub struct ResponseHasher {
    ids: Keccak256,
    text: Keccak256,
    values: Keccak256,
    calls: Keccak256,
}

impl ResponseHasher {
    /// A hasher of nothing yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a piece.
    pub fn update(&mut self, output: &Output) {
        match output {
            Output::Tokens { text, ids, logprobs } => {
                self.text.update(text.as_bytes());
                for id in ids {
                    self.ids.update(id.to_le_bytes());
                }
                for logprob in logprobs {
                    self.values.update(postcard::to_stdvec(logprob).unwrap_or_default());
                }
            }
            Output::Embedding { index, vector } => {
                self.values.update(index.to_le_bytes());
                for value in vector {
                    self.values.update(value.to_le_bytes());
                }
            }
            Output::Tensors(tensors) => {
                self.values.update(postcard::to_stdvec(tensors).unwrap_or_default());
            }
            Output::ToolCall { index, name, arguments } => {
                // A byte that no UTF-8 text has keeps calls apart.
                if !name.is_empty() {
                    self.calls.update([0xFF]);
                    self.calls.update(index.to_le_bytes());
                    self.calls.update(name.as_bytes());
                    self.calls.update([0xFF]);
                }
                self.calls.update(arguments.as_bytes());
            }
        }
    }

    /// The hash of all pieces so far.
    pub fn finish(&self) -> Digest {
        let lane = |hasher: &Keccak256| <[u8; 32]>::from(hasher.clone().finalize());
        Digest(keccak256(&[
            &lane(&self.ids),
            &lane(&self.text),
            &lane(&self.values),
            &lane(&self.calls),
        ]))
    }
}

impl std::fmt::Debug for ResponseHasher {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "ResponseHasher({})", self.finish())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_hash_does_not_depend_on_how_an_answer_was_cut() {
        let tokens = |text: &str, ids: &[u32]| Output::Tokens {
            text: text.into(),
            ids: ids.to_vec(),
            logprobs: vec![],
        };
        let (mut whole, mut cut) = (ResponseHasher::new(), ResponseHasher::new());
        whole.update(&tokens("to be", &[1, 2]));
        cut.update(&tokens("", &[1]));
        cut.update(&tokens("to be", &[2]));
        assert_eq!(whole.finish(), cut.finish());
        cut.update(&tokens("", &[3]));
        assert_ne!(whole.finish(), cut.finish());
    }
}
