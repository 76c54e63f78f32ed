//! Predictive models, and models that turn texts into vectors, through ONNX Runtime, which is loaded when the first model
//! is.
//!
//! One intra-op thread for each session and deterministic kernels: the same batch gives the same bits. That is what an
//! audit repeats: it runs the request's rows once more, as one batch, and compares. So requests are run together only
//! where the trial at load found that no row's bits depend on the rows beside it (`trial.rs`).

mod agreement;
mod batch;
mod maps;
mod queue;
mod runtime;
mod sessions;
mod tensor;
mod text;
mod trial;

pub use runtime::environment;

use std::{path::Path, sync::Arc, time::Duration};

use async_trait::async_trait;
use ort::session::Session;
use rialto_protocol::{
    job::Job,
    manifest::{Manifest, TaskKind},
};
use tokio::{
    sync::{Semaphore, mpsc, watch},
    time::Instant,
};

use rialto_engine::{
    Answer, Engine, EngineInfo, Error, LoadOptions, Prepared, Scope, Signature,
    artifact::{self, VerifiedContent},
    files,
};

use crate::steps::Steps;
use queue::{Queue, Request, Work};
use sessions::Sessions;
use text::Reader;
use trial::Trial;

/// A model in ONNX Runtime.
pub struct OnnxEngine {
    info: EngineInfo,
    task: Task,
    queue: Arc<Queue>,
    /// Requests that run or wait.
    admitted: Arc<Semaphore>,
    max_tensor_bytes: u64,
    most_rows: u64,
}

/// What the model is asked for.
enum Task {
    Predict(Signature),
    Embed(Box<Reader>),
}

impl std::fmt::Debug for OnnxEngine {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("OnnxEngine")
            .field("info", &self.info)
            .finish_non_exhaustive()
    }
}

impl OnnxEngine {
    /// Verifies the files, loads ONNX Runtime and the model, checks that it is what the manifest says, and tries it. The
    /// first artifact is the model; the others are its external data, and the tokenizer of a model that reads texts.
    /// Blocks.
    pub fn load(manifest: &Manifest, folder: &Path, options: &LoadOptions, steps: &Steps) -> Result<Self, Error> {
        let files = artifact::read(manifest, folder)?;
        let Some(((_, model), others)) = files.split_first() else {
            return Err(Error::Model("the manifest names no file".to_owned()));
        };
        let reads_texts = manifest.task == TaskKind::Embedding;
        let is_external = |file: &&VerifiedContent| !(reads_texts && file.0 == text::FILE);
        let external: Vec<VerifiedContent> = others.iter().filter(is_external).cloned().collect();
        check_external(model, &external)?;
        let environment = runtime::environment(options.onnxruntime.as_deref())?;
        let size: u64 = manifest.artifacts.iter().map(|artifact| artifact.size).sum();
        let count = sessions::count(size, options);
        let mut sessions = sessions::make(&environment, model, &external, count)?;
        let first = sessions.first_mut();
        let first = first.ok_or_else(|| Error::Model("no session was made".to_owned()))?;
        let (task, trial) = task(manifest, options, others, first)?;
        let queue = usize::try_from(options.queue).unwrap_or(64).min(1 << 16);
        tracing::info!(
            model = manifest.listing(),
            sessions = count,
            rows_together = trial.most_rows,
            nanos_alone = trial.alone.map(|(nanos, _)| nanos),
            "onnx model loaded"
        );
        let gather = Duration::from_millis(u64::from(options.gather_millis));
        let queue_of = Queue::new(
            Sessions::new(sessions),
            trial,
            gather,
            options.max_tensor_bytes,
            steps.clone(),
        );
        Ok(Self {
            info: EngineInfo {
                name: manifest.listing(),
                class: "onnxruntime".to_owned(),
                slots: u32::try_from(count).unwrap_or(1),
            },
            task,
            queue: Arc::new(queue_of),
            admitted: Arc::new(Semaphore::new(count.saturating_add(queue))),
            max_tensor_bytes: options.max_tensor_bytes,
            most_rows: trial.most_rows,
        })
    }

    /// Most rows of several requests that run as one batch; 1 where requests never do, because a row's bits depend on the
    /// rows beside it, because the first dimension is no batch, or because one row takes long.
    pub fn most_rows(&self) -> u64 {
        self.most_rows
    }

    /// Runs of the model so far: fewer than requests where some ran together.
    pub fn runs(&self) -> u64 {
        self.queue.runs()
    }
}

/// What the model is for, checked, and how it runs.
fn task(
    manifest: &Manifest,
    options: &LoadOptions,
    files: &[VerifiedContent],
    session: &mut Session,
) -> Result<(Task, Trial), Error> {
    if manifest.task == TaskKind::Embedding {
        text::check(session)?;
        let limit = options.context.map_or(manifest.context_length, u64::from);
        let reader = Reader::load(files, limit.min(manifest.context_length))?;
        return Ok((Task::Embed(Box::new(reader)), text::trial(session)));
    }
    agreement::check(manifest, session)?;
    let signature = Signature::new(manifest)?;
    Ok((Task::Predict(signature), trial::run(session, manifest)))
}

#[async_trait]
impl Engine for OnnxEngine {
    fn info(&self) -> &EngineInfo {
        &self.info
    }

    async fn prepare(&self, job: Job, _scope: Scope) -> Result<Box<dyn Prepared>, Error> {
        job.check()?;
        let (work, units, pieces) = match (&self.task, job) {
            (Task::Predict(signature), Job::Predict { inputs, outputs }) => {
                let rows = signature.check(&inputs, self.max_tensor_bytes)?;
                let outputs = signature.wanted(outputs)?;
                inputs.iter().try_for_each(tensor::check_strings)?;
                (Work::Predict { inputs, outputs }, rows, 2)
            }
            (Task::Embed(reader), Job::Embedding { inputs }) => {
                let tokens = |(index, text): (usize, &String)| reader.tokens(index, text);
                let texts = inputs.iter().enumerate().map(tokens).collect::<Result<Vec<_>, _>>()?;
                let total = texts.iter().map(Vec::len).fold(0, usize::saturating_add);
                let pieces = texts.len().saturating_add(1);
                (Work::Embed { texts }, u64::try_from(total).unwrap_or(u64::MAX), pieces)
            }
            (Task::Predict(_), _) => {
                let reason = "this model takes tensors: use the inference protocol";
                return Err(Error::bad("model", reason));
            }
            (Task::Embed(_), _) => {
                return Err(Error::bad(
                    "model",
                    "this model turns texts into vectors: ask for embeddings",
                ));
            }
        };
        Ok(Box::new(OnnxJob {
            queue: self.queue.clone(),
            admitted: self.admitted.clone(),
            work,
            units,
            pieces,
        }))
    }
}

struct OnnxJob {
    queue: Arc<Queue>,
    admitted: Arc<Semaphore>,
    work: Work,
    /// Rows, or tokens.
    units: u64,
    /// Most pieces of the answer.
    pieces: usize,
}

impl Prepared for OnnxJob {
    fn input_units(&self) -> u64 {
        self.units
    }

    fn max_output(&self) -> u64 {
        0
    }

    fn start(self: Box<Self>, _grant: watch::Receiver<u64>) -> Answer {
        let (sender, pieces) = mpsc::channel(self.pieces);
        match self.admitted.try_acquire_owned() {
            Ok(place) => self.queue.push(Request {
                work: self.work,
                units: self.units,
                pieces: sender,
                arrived: Instant::now(),
                place,
            }),
            Err(_) => {
                // The channel is new, so it has room.
                let _ = sender.try_send(Err(Error::Busy));
            }
        }
        Answer::new(pieces)
    }
}

/// Refuses a model that reads files which the manifest does not name.
fn check_external(model: &[u8], others: &[VerifiedContent]) -> Result<(), Error> {
    let locations = files::onnx::locations(model).map_err(|error| Error::Model(error.to_string()))?;
    for location in &locations {
        if !others.iter().any(|(name, _)| name == location) {
            return Err(Error::Model(format!(
                "it reads the file `{location}`, which is not among the manifest's artifacts"
            )));
        }
    }
    match others.iter().find(|(name, _)| !locations.contains(name)) {
        Some((name, _)) => Err(Error::Model(format!("the artifact `{name}` is not used by the model"))),
        None => Ok(()),
    }
}
