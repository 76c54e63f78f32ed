//! Predictive models through ONNX Runtime, which is loaded when the first model is.
//!
//! One intra-op thread for each session and deterministic kernels: the same batch gives the same bits, which is what
//! an audit repeats. Requests run on blocking threads, one session each, because a session is not safe to share.

mod agreement;
mod runtime;
mod tensor;

pub use runtime::environment;

use std::{
    path::Path,
    sync::{Arc, Mutex, PoisonError},
};

use async_trait::async_trait;
use ort::session::{NoSelectedOutputs, RunOptions, Session, builder::SessionBuilder};
use rialto_protocol::{
    job::{Job, Tensor},
    manifest::Manifest,
    output::{FinishReason, Output},
};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, watch};

use rialto_engine::{
    Answer, Engine, EngineInfo, Error, LoadOptions, Piece, Prepared, Scope, Signature,
    artifact::{self, VerifiedContent},
    files,
};

use crate::steps::Steps;

/// Files above this size get one session, because each session holds the weights again.
const LARGE_MODEL: u64 = 256 << 20;

/// A predictive model in ONNX Runtime.
pub struct OnnxEngine {
    info: EngineInfo,
    signature: Arc<Signature>,
    pool: Arc<Pool>,
}

/// Sessions that are not in use, and the places for requests.
struct Pool {
    idle: Mutex<Vec<Session>>,
    free: Arc<Semaphore>,
    /// Requests that run or wait.
    admitted: Arc<Semaphore>,
    max_tensor_bytes: u64,
    steps: Steps,
}

impl std::fmt::Debug for OnnxEngine {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("OnnxEngine")
            .field("info", &self.info)
            .finish_non_exhaustive()
    }
}

impl OnnxEngine {
    /// Verifies the files, loads ONNX Runtime and the model, and checks the model's signature against the manifest's.
    /// The first artifact is the model, the others are its external data. Blocks.
    pub fn load(manifest: &Manifest, folder: &Path, options: &LoadOptions, steps: &Steps) -> Result<Self, Error> {
        let files = artifact::read(manifest, folder)?;
        let Some(((_, model), others)) = files.split_first() else {
            return Err(Error::Model("the manifest names no file".to_owned()));
        };
        check_external(model, others)?;
        let environment = runtime::environment(options.onnxruntime.as_deref())?;
        let size: u64 = manifest.artifacts.iter().map(|artifact| artifact.size).sum();
        let count = session_count(size, options);
        let sessions = (0..count)
            .map(|_| {
                let mut builder = builder(&environment, others).map_err(refused)?;
                builder.commit_from_memory(model).map_err(refused)
            })
            .collect::<Result<Vec<Session>, Error>>()?;
        let signature = match sessions.first() {
            Some(session) => {
                agreement::check(manifest, session)?;
                Signature::new(manifest)?
            }
            None => return Err(Error::Model("no session was made".to_owned())),
        };
        let slots = u32::try_from(count).unwrap_or(1);
        let queue = usize::try_from(options.queue).unwrap_or(64).min(1 << 16);
        let pool = Pool {
            idle: Mutex::new(sessions),
            free: Arc::new(Semaphore::new(count)),
            admitted: Arc::new(Semaphore::new(count.saturating_add(queue))),
            max_tensor_bytes: options.max_tensor_bytes,
            steps: steps.clone(),
        };
        tracing::info!(model = manifest.listing(), sessions = count, "onnx model loaded");
        Ok(Self {
            info: EngineInfo {
                name: manifest.listing(),
                class: "onnxruntime".to_owned(),
                slots,
            },
            signature: Arc::new(signature),
            pool: Arc::new(pool),
        })
    }
}

#[async_trait]
impl Engine for OnnxEngine {
    fn info(&self) -> &EngineInfo {
        &self.info
    }

    async fn prepare(&self, job: Job, _scope: Scope) -> Result<Box<dyn Prepared>, Error> {
        job.check()?;
        let Job::Predict { inputs, outputs } = job else {
            return Err(Error::bad(
                "model",
                "this model takes tensors: use the inference protocol",
            ));
        };
        let rows = self.signature.check(&inputs, self.pool.max_tensor_bytes)?;
        let outputs = self.signature.wanted(outputs)?;
        Ok(Box::new(OnnxJob {
            pool: self.pool.clone(),
            inputs,
            outputs,
            rows,
        }))
    }
}

struct OnnxJob {
    pool: Arc<Pool>,
    inputs: Vec<Tensor>,
    outputs: Vec<String>,
    rows: u64,
}

impl Prepared for OnnxJob {
    fn input_units(&self) -> u64 {
        self.rows
    }

    fn max_output(&self) -> u64 {
        0
    }

    fn start(self: Box<Self>, _grant: watch::Receiver<u64>) -> Answer {
        let (sender, pieces) = mpsc::channel(2);
        match self.pool.admitted.clone().try_acquire_owned() {
            Ok(place) => {
                tokio::spawn(async move {
                    let _place = place;
                    self.answer(&sender).await;
                });
            }
            Err(_) => {
                // The channel is new, so it has room.
                let _ = sender.try_send(Err(Error::Busy));
            }
        }
        Answer::new(pieces)
    }
}

impl OnnxJob {
    async fn answer(self: Box<Self>, sender: &mpsc::Sender<Result<Piece, Error>>) {
        let permit = tokio::select! {
            () = sender.closed() => return,
            permit = self.pool.free.clone().acquire_owned() => permit,
        };
        let (Ok(permit), Ok(options)) = (permit, RunOptions::new()) else {
            let _ = sender.send(Err(stopped())).await;
            return;
        };
        let options = Arc::new(options);
        let (pool, running) = (self.pool.clone(), options.clone());
        let mut work = tokio::task::spawn_blocking(move || pool.run(permit, &self.inputs, &self.outputs, &running));
        let outcome = tokio::select! {
            outcome = &mut work => outcome,
            () = sender.closed() => {
                // ONNX Runtime looks at this flag between the nodes of the graph.
                if let Err(error) = options.terminate() {
                    tracing::warn!(%error, "onnx run could not be cancelled");
                }
                work.await
            }
        };
        let pieces = match outcome {
            Ok(Ok(tensors)) => vec![
                Ok(Piece::Output(Output::Tensors(tensors))),
                Ok(Piece::Finished(FinishReason::Stop.into())),
            ],
            Ok(Err(error)) => vec![Err(error)],
            Err(error) => vec![Err(Error::Failed(format!("the run was lost: {error}")))],
        };
        for piece in pieces {
            if sender.send(piece).await.is_err() {
                return;
            }
        }
    }
}

impl Pool {
    /// Runs on a session that nobody else uses. The permit says that there is one.
    fn run(
        &self,
        permit: OwnedSemaphorePermit,
        inputs: &[Tensor],
        outputs: &[String],
        options: &RunOptions<NoSelectedOutputs>,
    ) -> Result<Vec<Tensor>, Error> {
        let session = self.idle.lock().unwrap_or_else(PoisonError::into_inner).pop();
        let mut session = session.ok_or_else(stopped)?;
        let rows = inputs.first().map_or(1, Tensor::rows);
        let step = self.steps.begin(usize::try_from(rows).unwrap_or(usize::MAX));
        let result = tensor::run(&mut session, inputs, outputs, options, self.max_tensor_bytes);
        step.end();
        self.idle.lock().unwrap_or_else(PoisonError::into_inner).push(session);
        drop(permit);
        result
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

fn builder(environment: &ort::environment::Environment, others: &[VerifiedContent]) -> ort::Result<SessionBuilder> {
    let mut builder = Session::builder(environment)?
        .with_intra_threads(1)?
        .with_inter_threads(1)?
        .with_parallel_execution(false)?
        .with_deterministic_compute(true)?;
    for (name, content) in others {
        builder = builder.with_external_initializer_file_in_memory(name, content.clone())?;
    }
    Ok(builder)
}

fn session_count(size: u64, options: &LoadOptions) -> usize {
    if size > LARGE_MODEL {
        return 1;
    }
    let slots = usize::try_from(options.slot_count()).unwrap_or(1);
    slots.min(options.thread_count())
}

fn refused(error: impl std::fmt::Display) -> Error {
    Error::Model(error.to_string())
}

fn stopped() -> Error {
    Error::Failed("the engine was shut down".to_owned())
}
