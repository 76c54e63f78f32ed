//! Request, response and event types of the public APIs: OpenAI's and the Open Inference Protocol V2. No input or output,
//! and nothing of the market: the gateway translates to and from its own language.
//!
//! Fields that a client may send and that change nothing are ignored, as OpenAI does. A field of the wrong type, and a
//! feature that would change the answer and is not supported, are refused with the field named.

pub mod fault;
pub mod inference;
pub mod json;
pub mod openai;
pub mod sse;
pub mod wish;

pub use fault::{BadRequest, parse};
