//! What can go wrong in an engine, whose fault it is, and whether trying again can help.

use std::path::PathBuf;

use rialto_protocol::{Digest, job::BadJob};
use serde::{Deserialize, Serialize};

/// How to get ONNX Runtime, for people.
pub const ONNXRUNTIME_HELP: &str = "ONNX Runtime 1.24 or later is needed. `script/setup` fetches it; or take \
    `onnxruntime/capi/libonnxruntime.so.*` out of the `onnxruntime` wheel from PyPI, put it beside the program as \
    `libonnxruntime.so`, or point ORT_DYLIB_PATH at it";

/// An engine's complaint. Cheap to clone, so that one failure can be told to every request it hit.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error, Serialize, Deserialize)]
pub enum Error {
    /// The request cannot be served by this model, whoever sells it. The buyer's fault.
    #[error("bad request: {0}")]
    BadRequest(#[from] BadJob),
    /// Prompt and at least one token of answer do not fit into the model's context. The buyer's fault.
    #[error("the prompt has {prompt} tokens, the model's context {limit} for prompt and answer together")]
    ContextExceeded {
        /// Tokens of the prompt; a lower bound when it was so long that counting was not worth it.
        prompt: u64,
        /// Most tokens of prompt and answer.
        limit: u64,
    },
    /// A file of the model is not what the manifest says. Nothing read it but the hasher.
    #[error("model file `{path}`: {fault}")]
    Artifact {
        /// As in the manifest.
        path: String,
        /// What is wrong.
        fault: ArtifactFault,
    },
    /// The files have the right hashes, but no engine can run them, or they do not do what the manifest says.
    #[error("the model cannot be loaded: {0}")]
    Model(String),
    /// ONNX Runtime's shared object was not found or does not fit.
    #[error("{reason} (looked at {}); {ONNXRUNTIME_HELP}", list(looked))]
    RuntimeMissing {
        /// What went wrong.
        reason: String,
        /// Where it was looked for.
        looked: Vec<PathBuf>,
    },
    /// The worker's program was not found, or this machine cannot run it.
    #[error("the worker that runs models cannot be started: {0}")]
    WorkerMissing(String),
    /// Every slot and every place in the queue is taken. Try again, or elsewhere.
    #[error("the engine's queue is full")]
    Busy,
    /// The engine failed while it worked. Another try, or another provider, may succeed.
    #[error("the engine failed: {0}")]
    Failed(String),
}

/// What is wrong with a model's file.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error, Serialize, Deserialize)]
pub enum ArtifactFault {
    /// There is no such file.
    #[error("it is missing")]
    Missing,
    /// A link that leads out of the model's folder, or no regular file.
    #[error("it is not a regular file inside the model's folder")]
    Outside,
    /// The operating system refused to read it.
    #[error("it cannot be read: {0}")]
    Unreadable(String),
    /// Longer or shorter than the manifest says.
    #[error("{found} bytes found, {expected} expected")]
    Size {
        /// Bytes by the manifest.
        expected: u64,
        /// Bytes on disk.
        found: u64,
    },
    /// Another content than the manifest says.
    #[error("its BLAKE3 hash is {found}, the manifest says {expected}")]
    Hash {
        /// By the manifest.
        expected: Digest,
        /// Of the file.
        found: Digest,
    },
}

/// Whose fault an error is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// The request was wrong; no other provider would serve it.
    Buyer,
    /// The provider's machine or set-up.
    Provider,
}

impl Error {
    /// A complaint about a field of a job.
    pub fn bad(field: &'static str, reason: impl Into<String>) -> Self {
        Self::BadRequest(BadJob::new(field, reason))
    }

    /// Whether the same request may succeed later, or on another provider.
    pub fn retryable(&self) -> bool {
        match self {
            Self::BadRequest(_) | Self::ContextExceeded { .. } => false,
            Self::Artifact { .. } | Self::Model(_) | Self::RuntimeMissing { .. } | Self::WorkerMissing(_) => false,
            Self::Busy | Self::Failed(_) => true,
        }
    }

    /// Whose fault it is.
    pub fn fault(&self) -> Fault {
        match self {
            Self::BadRequest(_) | Self::ContextExceeded { .. } => Fault::Buyer,
            _ => Fault::Provider,
        }
    }

    /// What a peer may read: everything about its own request, nothing about the provider's machine.
    pub fn public(&self) -> String {
        match self {
            Self::BadRequest(_) | Self::ContextExceeded { .. } | Self::Busy => self.to_string(),
            Self::Artifact { .. } | Self::Model(_) | Self::RuntimeMissing { .. } | Self::WorkerMissing(_) => {
                "the provider cannot run this model".to_owned()
            }
            Self::Failed(_) => "the provider's engine failed; try again".to_owned(),
        }
    }
}

fn list(paths: &[PathBuf]) -> String {
    let paths: Vec<String> = paths.iter().map(|path| path.display().to_string()).collect();
    paths.join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_peer_does_not_read_about_the_machine() {
        let error = Error::RuntimeMissing {
            reason: "not found".into(),
            looked: vec!["/home/someone/libonnxruntime.so".into()],
        };
        assert!(error.to_string().contains("/home/someone"));
        assert!(!error.public().contains("/home/someone"));
        assert_eq!(error.fault(), Fault::Provider);
        assert!(Error::Busy.retryable());
        assert!(!Error::bad("prompt", "no").retryable());
    }
}
