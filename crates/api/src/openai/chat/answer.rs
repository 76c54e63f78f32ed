//! The answer, whole or in pieces.

use serde::{Deserialize, Serialize};

use crate::openai::{ChatLogprobs, ToolCall, ToolCallDelta, Usage};

/// The answer when it comes whole.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ChatCompletion {
    /// Unique.
    pub id: String,
    /// Always `chat.completion`.
    pub object: String,
    /// Seconds since 1970.
    pub created: u64,
    /// The model that answered.
    pub model: String,
    /// Exactly one.
    pub choices: Vec<ChatChoice>,
    /// Units and cost.
    pub usage: Usage,
}

/// An answer.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ChatChoice {
    /// Always 0.
    pub index: u32,
    /// What the model said.
    pub message: ChatMessage,
    /// `stop`, `length` or `tool_calls`.
    pub finish_reason: Option<String>,
    /// Of the answer's tokens, if they were asked for.
    pub logprobs: Option<ChatLogprobs>,
}

/// What the model said.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChatMessage {
    /// Always `assistant`.
    pub role: String,
    /// The text; null when there are only calls.
    pub content: Option<String>,
    /// What the model called, in order.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub tool_calls: Vec<ToolCall>,
    /// Always null.
    pub refusal: Option<String>,
}

/// A piece of the answer when it is streamed.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ChatChunk {
    /// The same for all pieces of one answer.
    pub id: String,
    /// Always `chat.completion.chunk`.
    pub object: String,
    /// Seconds since 1970; the same for all pieces.
    pub created: u64,
    /// The model that answers.
    pub model: String,
    /// One, or none in the piece that carries the usage.
    pub choices: Vec<ChatChunkChoice>,
    /// In the last piece, if it was asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub usage: Option<Usage>,
}

/// A piece of an answer.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ChatChunkChoice {
    /// Always 0.
    pub index: u32,
    /// What is new.
    pub delta: ChatDelta,
    /// In the last piece: `stop`, `length` or `tool_calls`.
    pub finish_reason: Option<String>,
    /// Of the tokens that are new, if they were asked for.
    pub logprobs: Option<ChatLogprobs>,
}

/// What is new in a piece.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChatDelta {
    /// In the first piece.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub role: Option<String>,
    /// Text to append.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub content: Option<String>,
    /// What is new of calls.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub tool_calls: Vec<ToolCallDelta>,
}
