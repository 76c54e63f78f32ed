//! What crosses the border between a provider and the worker that runs a model for it: frames on a Unix socket, each a
//! 32-bit little-endian length and postcard.
//!
//! The worker runs code that parses strangers' files, so what comes from it is as hostile as what comes from a peer: bounded,
//! parsed strictly, and believed only in what concerns its own requests.

mod frames;
mod outbox;

pub use frames::{FrameReader, MAX_FRAME};
pub use outbox::Outbox;

use std::path::PathBuf;

use rialto_protocol::{job::Job, manifest::Manifest};
use serde::{Deserialize, Serialize};

use crate::{EngineInfo, Error, LoadOptions, Piece, Replay, Scope};

/// What a worker is for. Sent first, and once.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Assignment {
    /// The model.
    pub manifest: Manifest,
    /// The folder of its files, which were verified. The worker can read these files and nothing else.
    pub folder: PathBuf,
    /// How to run it.
    pub options: LoadOptions,
    /// Bytes of address space that the worker may have.
    pub memory: u64,
}

/// From the provider to its worker.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum ToWorker {
    /// Load this model.
    Load(Box<Assignment>),
    /// Check and count this job; it is called by this number from now on.
    Prepare {
        /// Chosen by the provider; never used twice.
        id: u64,
        /// What to do.
        job: Job,
        /// Whose prompts it may share memory with.
        scope: Scope,
    },
    /// Begin a prepared job; so many units of output are paid for.
    Start {
        /// The job.
        id: u64,
        /// Units of output.
        grant: u64,
    },
    /// So many units of output are paid for now.
    Grant {
        /// The job.
        id: u64,
        /// Units of output.
        grant: u64,
    },
    /// Nobody pays for more than was granted: end when that is given out.
    Settle {
        /// The job.
        id: u64,
    },
    /// Nobody waits for this job any more.
    Forget {
        /// The job.
        id: u64,
    },
    /// Read this answer again.
    Replay {
        /// Chosen by the provider; never used twice.
        id: u64,
        /// What was asked.
        job: Job,
        /// The token ids that were answered.
        answer: Vec<u32>,
    },
    /// Say that you are well.
    Ping {
        /// To be repeated.
        number: u64,
    },
}

/// From a worker to its provider.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum FromWorker {
    /// The model is loaded, or cannot be.
    Ready(Result<EngineInfo, Error>),
    /// A job can be done.
    Prepared {
        /// The job.
        id: u64,
        /// Units of input.
        input_units: u64,
        /// Most units of output.
        max_output: u64,
    },
    /// The next piece of an answer.
    Piece {
        /// The job.
        id: u64,
        /// What is new.
        piece: Piece,
    },
    /// A job or a replay cannot be done, or ends with this.
    Failed {
        /// The job.
        id: u64,
        /// Why.
        error: Error,
    },
    /// An answer was read again.
    Replayed {
        /// The request.
        id: u64,
        /// What it should have been.
        replay: Replay,
    },
    /// The answer to a ping.
    Pong {
        /// Of the ping.
        number: u64,
        /// Milliseconds that the present step of computation has taken; zero when nothing is computed.
        step_millis: u64,
        /// The most that it may take, by what earlier steps of its size took.
        limit_millis: u64,
    },
}
