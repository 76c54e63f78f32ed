//! OpenAI's API: models, chat completions, completions, embeddings and errors.

mod chat;
mod completion;
mod embedding;
mod endpoint;
mod error;
mod format;
mod logprobs;
mod model;
mod provider;
mod sampling;
mod text;
mod tool;
mod usage;

pub use chat::{ChatChoice, ChatChunk, ChatChunkChoice, ChatCompletion, ChatDelta, ChatMessage, ChatRequest, ChatTurn};
pub use completion::{Completion, CompletionChoice, CompletionRequest, Prompt};
pub use embedding::{Embedding, EmbeddingInput, EmbeddingList, EmbeddingRequest, Vector};
pub use endpoint::{Endpoint, Endpoints, ModelEndpoints, Percentiles};
pub use error::{ErrorBody, ErrorObject};
pub use format::Format;
pub use logprobs::{ChatLogprobs, CompletionLogprobs, ContentLogprob, TopLogprob};
pub use model::{Model, ModelList, ModelPricing};
pub use provider::{MaxPrice, Provider, Sort};
pub use sampling::{Sampling, Stop, StreamOptions};
pub use tool::{
    Choice, Function, FunctionCall, FunctionDelta, MAX_SCHEMA_BYTES, MAX_TOOLS, ToolCall, ToolCallDelta, Toolbox,
};
pub use usage::{Trade, TradePart, Usage};
