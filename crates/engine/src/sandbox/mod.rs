//! The host's side of the border: a model runs in a worker, a process of its own that can read the model's files and
//! nothing else. A worker that crashes or hangs takes only its own requests with it, and another takes its place.

mod heart;
mod keeper;
mod link;
mod memory;
mod pace;
mod process;

use std::{
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use async_trait::async_trait;
use futures::{FutureExt as _, future::BoxFuture};
use rialto_protocol::{
    job::Job,
    manifest::{Format, Manifest, TaskKind},
};
use tokio::sync::{mpsc, watch};

use crate::{
    Answer, Engine, EngineInfo, Error, LoadOptions, Prepared, Replay, Scope, Signature, artifact,
    border::{Assignment, ToWorker},
    files,
};
use keeper::{Keeper, State};
use link::{Counted, Link};
pub use process::worker_program;

/// How long a request waits for a worker that is being replaced.
const PATIENCE: Duration = Duration::from_secs(10);

/// Verifies a model's files, checks their structure, and loads them into a worker.
///
/// Fails with [`Error::Artifact`], [`Error::Model`], [`Error::RuntimeMissing`] or [`Error::WorkerMissing`].
pub async fn load(manifest: &Manifest, folder: &Path, options: &LoadOptions) -> Result<Arc<dyn Engine>, Error> {
    Ok(Arc::new(Sandboxed::load(manifest, folder, options).await?))
}

/// A model in a worker.
#[derive(Debug)]
pub struct Sandboxed {
    info: EngineInfo,
    /// Of a predictive model: its jobs are checked here, so that they cross the border once.
    signature: Option<Signature>,
    max_tensor_bytes: u64,
    keeper: Keeper,
}

impl Sandboxed {
    /// As [`load`]. Must be called inside a tokio runtime, which then keeps the worker.
    pub fn load<'a>(
        manifest: &'a Manifest,
        folder: &'a Path,
        options: &'a LoadOptions,
    ) -> BoxFuture<'a, Result<Self, Error>> {
        Self::start(manifest, folder, options).boxed()
    }

    async fn start(manifest: &Manifest, folder: &Path, options: &LoadOptions) -> Result<Self, Error> {
        manifest.check().map_err(|error| Error::Model(error.to_string()))?;
        if manifest.format == Format::Safetensors {
            let reason = "files in this format are served through an upstream engine, such as vLLM";
            return Err(Error::Model(reason.to_owned()));
        }
        let assignment = {
            let (manifest, folder, options) = (manifest.clone(), folder.to_owned(), options.clone());
            let check = move || assign(manifest, &folder, options);
            let checked = tokio::task::spawn_blocking(check).await;
            checked.unwrap_or_else(|error| Err(Error::Failed(error.to_string())))?
        };
        let (keeper, info) = Keeper::start(assignment).await?;
        let signature = match manifest.task {
            TaskKind::Predict => Some(Signature::new(manifest)?),
            _ => None,
        };
        Ok(Self {
            info,
            signature,
            max_tensor_bytes: options.max_tensor_bytes,
            keeper,
        })
    }

    /// The process that runs the model now; `None` while it is being replaced.
    pub fn process_id(&self) -> Option<u32> {
        match &*self.keeper.state().borrow() {
            State::Up(link) => Some(link.process_id()),
            State::Starting => None,
        }
    }

    /// Workers that were started in place of one that ended.
    pub fn replacements(&self) -> u64 {
        self.keeper.replacements()
    }

    /// The living worker, waited for while it is being replaced.
    async fn link(&self) -> Result<Arc<Link>, Error> {
        let mut state = self.keeper.state();
        let up = state.wait_for(|state| matches!(state, State::Up(_)));
        match tokio::time::timeout(PATIENCE, up).await {
            Ok(Ok(state)) => match &*state {
                State::Up(link) => Ok(link.clone()),
                State::Starting => Err(Error::Failed("its worker is being replaced".to_owned())),
            },
            _ => Err(Error::Failed("its worker is being replaced".to_owned())),
        }
    }
}

/// The variable that names ONNX Runtime's shared object. A worker sees no variables but a few.
const ONNXRUNTIME: &str = "ORT_DYLIB_PATH";

fn assign(manifest: Manifest, folder: &Path, mut options: LoadOptions) -> Result<Assignment, Error> {
    let named = || std::env::var_os(ONNXRUNTIME).filter(|value| !value.is_empty());
    let onnxruntime = options.onnxruntime.take().or_else(|| named().map(PathBuf::from));
    // A worker stands in another folder.
    options.onnxruntime = onnxruntime.map(|path| std::path::absolute(&path).unwrap_or(path));
    let verified = artifact::verify(&manifest, folder)?;
    let folder = folder
        .canonicalize()
        .map_err(|error| Error::Model(format!("its folder: {error}")))?;
    let memory = memory::needed(&manifest, &verified, &options)?;
    files::check(&manifest, &verified)?;
    Ok(Assignment {
        manifest,
        folder,
        options,
        memory,
    })
}

#[async_trait]
impl Engine for Sandboxed {
    fn info(&self) -> &EngineInfo {
        &self.info
    }

    async fn prepare(&self, job: Job, scope: Scope) -> Result<Box<dyn Prepared>, Error> {
        job.check()?;
        if let (Some(signature), Job::Predict { inputs, outputs }) = (&self.signature, &job) {
            let rows = signature.check(inputs, self.max_tensor_bytes)?;
            signature.wanted(outputs.clone())?;
            let link = self.link().await?;
            return Ok(Box::new(PreparedPrediction { link, job, rows }));
        }
        let link = self.link().await?;
        let answers = match &job {
            Job::Embedding { inputs } => Some(inputs.len()),
            _ => None,
        };
        let (id, counted) = link.prepare(job, scope).await?;
        Ok(Box::new(PreparedText {
            link,
            id,
            counted,
            answers,
            started: false,
        }))
    }

    async fn replay(&self, job: Job, answer: Vec<u32>) -> Result<Replay, Error> {
        job.check()?;
        self.link().await?.replay(job, answer).await
    }
}

/// A predictive job, which crosses the border when it starts.
struct PreparedPrediction {
    link: Arc<Link>,
    job: Job,
    rows: u64,
}

impl Prepared for PreparedPrediction {
    fn input_units(&self) -> u64 {
        self.rows
    }

    fn max_output(&self) -> u64 {
        0
    }

    fn start(self: Box<Self>, _grant: watch::Receiver<u64>) -> Answer {
        let (sender, pieces) = mpsc::channel(4);
        let id = self.link.begin_whole(sender);
        let prepare = ToWorker::Prepare {
            id,
            job: self.job,
            scope: Scope::Alone,
        };
        self.link.send_all(&[prepare, ToWorker::Start { id, grant: 0 }]);
        cancelling(self.link, id, pieces)
    }
}

/// A job that the worker has checked and counted.
struct PreparedText {
    link: Arc<Link>,
    id: u64,
    counted: Counted,
    /// Vectors that will come; `None` for a generation.
    answers: Option<usize>,
    started: bool,
}

impl Prepared for PreparedText {
    fn input_units(&self) -> u64 {
        self.counted.input_units
    }

    fn max_output(&self) -> u64 {
        self.counted.max_output
    }

    fn start(mut self: Box<Self>, grant: watch::Receiver<u64>) -> Answer {
        self.started = true;
        let (link, id) = (self.link.clone(), self.id);
        match self.answers {
            Some(answers) => {
                let (sender, pieces) = mpsc::channel(answers.saturating_add(2));
                link.begin_prepared(id, link::Waiting::Whole(sender));
                link.send(&ToWorker::Start { id, grant: 0 });
                cancelling(link, id, pieces)
            }
            None => pace::start(link, id, self.counted.max_output, grant),
        }
    }
}

impl Drop for PreparedText {
    fn drop(&mut self) {
        if !self.started {
            self.link.forget(self.id);
        }
    }
}

fn cancelling(link: Arc<Link>, id: u64, pieces: mpsc::Receiver<Result<crate::Piece, Error>>) -> Answer {
    Answer::with_cancel(pieces, move || link.forget(id))
}
