//! How a provider wants a model to be run.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// How a language model computes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Mode {
    /// With the fastest kernels. Reading an answer again gives nearly the same logits.
    #[default]
    Fast,
    /// Reading an answer again gives the same logits, bit for bit.
    Exact,
}

/// How a provider wants a model to be run on its machine. The defaults serve a small machine without a GPU.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LoadOptions {
    /// Requests worked on at the same time. Each reserves memory for a whole context.
    pub slots: u32,
    /// Requests that may wait for a slot; one more is refused as busy.
    pub queue: u32,
    /// Threads of computation; `None` for all cores, or for one when the model is tiny.
    pub threads: Option<u32>,
    /// Most tokens of prompt and answer; `None` for what the manifest and the model file allow.
    pub context: Option<u32>,
    /// Layers to put on a GPU, where the build has one.
    pub gpu_layers: u32,
    /// ONNX Runtime's shared object; `None` to look for it.
    pub onnxruntime: Option<PathBuf>,
    /// Most bytes of all output tensors of one predictive request.
    pub max_tensor_bytes: u64,
    /// Milliseconds that a predictive request may wait for others that can run in one batch with it. Zero only takes
    /// together what waits anyway; and none ever wait where a batch could change a bit of an answer.
    pub gather_millis: u32,
    /// How a language model computes.
    pub mode: Mode,
    /// The program of the worker; `None` for `rialto-worker` beside this one.
    pub worker: Option<PathBuf>,
    /// Most bytes of memory that the worker may have; `None` for what the model needs, counted generously.
    pub memory: Option<u64>,
}

impl Default for LoadOptions {
    fn default() -> Self {
        Self {
            slots: 4,
            queue: 64,
            threads: None,
            context: None,
            gpu_layers: 0,
            onnxruntime: None,
            max_tensor_bytes: 64 << 20,
            gather_millis: 0,
            mode: Mode::Fast,
            worker: None,
            memory: None,
        }
    }
}

impl LoadOptions {
    /// Threads to compute with.
    pub fn thread_count(&self) -> usize {
        let cores = || std::thread::available_parallelism().map_or(1, usize::from);
        let wanted = self.threads.and_then(|threads| usize::try_from(threads).ok());
        wanted.unwrap_or_else(cores).clamp(1, 512)
    }

    /// Parallel requests, at least one.
    pub fn slot_count(&self) -> u32 {
        self.slots.clamp(1, 64)
    }
}
