//! What every engine offers: preparing a job, answering it piece by piece within what is paid for, and saying later what an
//! answer should have been.

use std::fmt;

use async_trait::async_trait;
use rialto_protocol::{
    fingerprint::Fingerprint,
    job::{Job, SoFar},
    output::{FinishReason, Output},
};
use serde::{Deserialize, Serialize};
use tokio::sync::{mpsc, watch};

use crate::Error;

/// What an engine is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct EngineInfo {
    /// The model it runs, as `publisher/name:tag`.
    pub name: String,
    /// The class of engine that answers are compared within: `llama.cpp fast`, `llama.cpp exact`,
    /// `onnxruntime`, `upstream`, `simulated`.
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
    /// Fails with [`Error::BadRequest`] or [`Error::ContextExceeded`] for what no engine with this model could serve. An
    /// answer that another seller began goes on after what came of it, and everything counts from there: grants, marks,
    /// `max_tokens`. What cannot be gone on with is a bad request whose field is `so_far`; another engine may be able to.
    async fn prepare(&self, job: Job, scope: Scope) -> Result<Box<dyn Prepared>, Error>;

    /// Reads a job and the token ids of a claimed answer in one pass, and says how likely each token was and how far it
    /// is from the one that the job's seed picks.
    ///
    /// Fails with [`Error::BadRequest`] where an engine cannot do this, or an id is not in the vocabulary.
    async fn replay(&self, job: Job, answer: Vec<u32>) -> Result<Replay, Error> {
        let _ = (job, answer);
        Err(Error::bad("model", "this engine cannot repeat an answer"))
    }
}

/// The bit of an id that stands for a token whose own id is not known. No vocabulary has so many tokens.
pub(crate) const PSEUDO: u32 = 1 << 31;

/// Whether the tokens that came of an answer are known. Where they are not, it goes on after its text.
pub fn is_told(so_far: &SoFar) -> bool {
    !so_far.ids.is_empty() && so_far.ids.iter().all(|id| id & PSEUDO == 0)
}

/// Whose prompts may speed up each other's: a prompt that begins like an earlier one of the same scope is read from
/// memory. Time tells what others asked, so a scope is never shared between buyers.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Scope {
    /// Nothing is reused, and nothing can be reused later.
    #[default]
    Alone,
    /// The prompts of one buyer.
    Of([u8; 32]),
}

/// What an answer should have been, place by place.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Replay {
    /// Units of input.
    pub input_units: u64,
    /// For each token of the claimed answer, how far it is from the one that logits and seed pick, as
    /// [`rialto_protocol::sampler::Sampler::margin`] counts; zero for the very one.
    pub margins: Vec<f32>,
    /// A mark at every place.
    pub fingerprint: Fingerprint,
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
    _cancel: Option<OnDrop>,
}

impl Answer {
    /// An answer whose engine notices that nobody reads it.
    pub fn new(pieces: mpsc::Receiver<Result<Piece, Error>>) -> Self {
        Self { pieces, _cancel: None }
    }

    /// An answer whose engine has to be told that nobody reads it.
    pub(crate) fn with_cancel(
        pieces: mpsc::Receiver<Result<Piece, Error>>,
        cancel: impl FnOnce() + Send + 'static,
    ) -> Self {
        Self {
            pieces,
            _cancel: Some(OnDrop(Some(Box::new(cancel)))),
        }
    }
}

struct OnDrop(Option<Box<dyn FnOnce() + Send>>);

impl fmt::Debug for OnDrop {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("OnDrop")
    }
}

impl Drop for OnDrop {
    fn drop(&mut self) {
        if let Some(cancel) = self.0.take() {
            cancel();
        }
    }
}

/// A piece of an answer.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum Piece {
    /// Something to pass on.
    Output(Output),
    /// Nothing more comes.
    Finished(Ending),
}

/// The end of an answer.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Ending {
    /// Why.
    pub reason: FinishReason,
    /// Microseconds of processor time that this answer took, its share of common steps; zero when not known.
    pub cpu_micros: u64,
    /// Marks of a generated answer; empty where the engine makes none.
    pub fingerprint: Fingerprint,
}

impl From<FinishReason> for Ending {
    fn from(reason: FinishReason) -> Self {
        Self {
            reason,
            cpu_micros: 0,
            fingerprint: Fingerprint::default(),
        }
    }
}
