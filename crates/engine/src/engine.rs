//! What every engine offers: preparing a job, and answering it piece by piece within what is paid for.

use async_trait::async_trait;
use rialto_protocol::{
    job::Job,
    output::{FinishReason, Output},
};
use tokio::sync::{mpsc, watch};

use crate::Error;

/// What an engine is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EngineInfo {
    /// The model it runs, as `publisher/name:tag`.
    pub name: String,
    /// The class of engine that answers are compared within: `llama.cpp fast`, `onnxruntime`, `simulated`.
    pub class: String,
    /// Requests that it works on at the same time; more wait.
    pub slots: u32,
}

/// A loaded model, ready for jobs.
#[async_trait]
pub trait Engine: Send + Sync {
    /// What this engine is.
    fn info(&self) -> &EngineInfo;

    /// Checks a job against the model, tokenises and counts. No heavy work, and nothing is reserved.
    ///
    /// Fails with [`Error::BadRequest`] or [`Error::ContextExceeded`] for what no engine with this model could serve.
    async fn prepare(&self, job: Job) -> Result<Box<dyn Prepared>, Error>;
}

/// A job that was checked and counted, and has not begun.
pub trait Prepared: Send {
    /// Units of input: prompt tokens, or rows.
    fn input_units(&self) -> u64;

    /// Most units of output: what was asked for, or what the context leaves; zero when output is not billed.
    fn max_output(&self) -> u64;

    /// Begins, or waits in the engine's own queue for a slot.
    ///
    /// `grant` holds the units of output that are paid for, counted from the start of this answer. The engine never
    /// gives out more, waits without blocking other requests while the grant is used up, goes on when it grows, and
    /// ends with [`FinishReason::Cancelled`] when its sender is dropped. Jobs whose output is not billed ignore it.
    fn start(self: Box<Self>, grant: watch::Receiver<u64>) -> Answer;
}

/// A running answer. Dropping it cancels the work within one step.
#[derive(Debug)]
pub struct Answer {
    /// The pieces in order. The last is [`Piece::Finished`] or an error; a channel that ends without either means that
    /// the engine died.
    pub pieces: mpsc::Receiver<Result<Piece, Error>>,
}

/// A piece of an answer.
#[derive(Debug, Clone, PartialEq)]
pub enum Piece {
    /// Something to pass on.
    Output(Output),
    /// Nothing more comes.
    Finished(FinishReason),
}
