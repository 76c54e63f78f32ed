//! OpenAI's API: models, chat completions, completions, embeddings and errors.

mod chat;
mod completion;
mod embedding;
mod error;
mod model;
mod sampling;
mod usage;

pub use chat::{ChatChoice, ChatChunk, ChatChunkChoice, ChatCompletion, ChatDelta, ChatMessage, ChatRequest, ChatTurn};
pub use completion::{Completion, CompletionChoice, CompletionRequest, Prompt};
pub use embedding::{Embedding, EmbeddingInput, EmbeddingList, EmbeddingRequest, Vector};
pub use error::{ErrorBody, ErrorObject};
pub use model::{Model, ModelList, ModelPricing};
pub use sampling::{Sampling, Stop, StreamOptions};
pub use usage::{Trade, Usage};
