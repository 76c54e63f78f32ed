//! What every parser of ours must bear: bytes from a stranger. One function a parser, which is the body of a fuzz target
//! in `fuzz/targets/` and of a test that replays `fuzz/corpus/`.
//!
//! A body may refuse its bytes. It must not panic, and what it accepts must keep the promises that its assertions state.

pub mod files;
pub mod market;
pub mod requests;
pub mod seeds;

/// The body of a fuzz target. Says whether the bytes were accepted.
pub type Body = fn(&[u8]) -> bool;

/// Every target, by the name of its folder in `fuzz/corpus/` and of its program in `fuzz/targets/`.
pub const TARGETS: [(&str, Body); 17] = [
    ("gguf", files::gguf),
    ("safetensors", files::safetensors),
    ("onnx", files::onnx),
    ("manifest", market::manifest),
    ("buyer_frame", market::buyer_frame),
    ("seller_frame", market::seller_frame),
    ("offers_request", market::offers_request),
    ("offers_response", market::offers_response),
    ("ticket", market::ticket),
    ("worker_frames", market::worker_frames),
    ("upstream_stream", market::upstream_stream),
    ("chat_request", requests::chat),
    ("completion_request", requests::completion),
    ("embedding_request", requests::embedding),
    ("batch_lines", requests::batch),
    ("infer_request", requests::infer),
    ("infer_values", requests::values),
];
