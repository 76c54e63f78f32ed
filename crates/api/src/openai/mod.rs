//! OpenAI's API: models, chat completions, completions, embeddings and errors.

mod batch;
mod chat;
mod completion;
mod embedding;
mod endpoint;
mod error;
mod file;
mod format;
mod logprobs;
mod model;
mod provider;
mod sampling;
mod text;
mod tool;
mod usage;

pub use batch::{
    Batch, BatchCounts, BatchEndpoint, BatchError, BatchErrors, BatchFailure, BatchLine, BatchOutcome, BatchRequest,
    BatchResponse, BatchStatus, BatchTimes, BatchTrade, BatchUsage, InputDetails, MAX_BATCH_REQUESTS, MAX_CUSTOM_ID,
    OutputDetails,
};
pub use chat::{ChatChoice, ChatChunk, ChatChunkChoice, ChatCompletion, ChatDelta, ChatMessage, ChatRequest, ChatTurn};
pub use completion::{Completion, CompletionChoice, CompletionRequest, Prompt};
pub use embedding::{Embedding, EmbeddingInput, EmbeddingList, EmbeddingRequest, Vector};
pub use endpoint::{Endpoint, Endpoints, ModelEndpoints, Percentiles};
pub use error::{ErrorBody, ErrorObject};
pub use file::{ExpiresAfter, FILE_LIFETIMES, FileDeleted, FileObject, MAX_FILE_NAME, Page, file_name};
pub use format::Format;
pub use logprobs::{ChatLogprobs, CompletionLogprobs, ContentLogprob, TopLogprob};
pub use model::{Model, ModelList, ModelPricing};
pub use provider::{MaxPrice, Provider, Sort};
pub use sampling::{Sampling, Stop, StreamOptions};
pub use tool::{
    Choice, Function, FunctionCall, FunctionDelta, MAX_SCHEMA_BYTES, MAX_TOOLS, ToolCall, ToolCallDelta, Toolbox,
};
pub use usage::{Trade, TradePart, Usage};
