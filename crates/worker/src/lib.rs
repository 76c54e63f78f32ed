//! The worker: one model in a process of its own.
//!
//! It reads its assignment from the socket it was born with, gives up every right that it does not need, and only then opens
//! the model's files: what parses and runs them are large C++ libraries, and the files may come from a stranger. It serves
//! its host over the same socket until that closes.

pub mod llama;
pub mod onnx;
pub mod sandbox;
mod serve;
mod steps;

pub use serve::run;
pub use steps::{Step, Steps};
