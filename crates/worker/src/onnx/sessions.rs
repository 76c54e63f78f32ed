//! Sessions of ONNX Runtime: how they are made, and who has which. A session is not safe to share, so each run has one.

use std::sync::{Arc, Mutex, PoisonError};

use ort::session::{Session, builder::SessionBuilder};
use rialto_engine::{Error, LoadOptions, artifact::VerifiedContent};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Files above this size get one session, because each session holds the weights again.
const LARGE_MODEL: u64 = 256 << 20;

/// Sessions that are not in use.
pub(super) struct Sessions {
    idle: Mutex<Vec<Session>>,
    free: Arc<Semaphore>,
}

/// A session for one run. It goes back when it is dropped.
pub(super) struct Lease {
    session: Option<Session>,
    sessions: Arc<Sessions>,
    _permit: OwnedSemaphorePermit,
}

impl Sessions {
    pub(super) fn new(sessions: Vec<Session>) -> Self {
        Self {
            free: Arc::new(Semaphore::new(sessions.len())),
            idle: Mutex::new(sessions),
        }
    }

    /// Waits for a session. `None` only if one was lost.
    pub(super) async fn lease(self: &Arc<Self>) -> Option<Lease> {
        let permit = self.free.clone().acquire_owned().await.ok()?;
        let session = self.idle.lock().unwrap_or_else(PoisonError::into_inner).pop()?;
        Some(Lease {
            session: Some(session),
            sessions: self.clone(),
            _permit: permit,
        })
    }
}

impl Lease {
    /// The session.
    pub(super) fn session(&mut self) -> Result<&mut Session, Error> {
        let session = self.session.as_mut();
        session.ok_or_else(|| Error::Failed("the engine was shut down".to_owned()))
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        // Before the permit, so that whoever gets that finds it.
        let mut idle = self.sessions.idle.lock().unwrap_or_else(PoisonError::into_inner);
        idle.extend(self.session.take());
    }
}

/// Makes the sessions of a model: the first of its files is the graph, the others its external data.
pub(super) fn make(
    environment: &ort::environment::Environment,
    model: &[u8],
    external: &[VerifiedContent],
    count: usize,
) -> Result<Vec<Session>, Error> {
    let session = |_| {
        let mut builder = builder(environment, external)?;
        builder.commit_from_memory(model)
    };
    let sessions: ort::Result<Vec<Session>> = (0..count).map(session).collect();
    sessions.map_err(|error| Error::Model(error.to_string()))
}

fn builder(environment: &ort::environment::Environment, external: &[VerifiedContent]) -> ort::Result<SessionBuilder> {
    let mut builder = Session::builder(environment)?
        .with_intra_threads(1)?
        .with_inter_threads(1)?
        .with_parallel_execution(false)?
        .with_deterministic_compute(true)?;
    for (name, content) in external {
        builder = builder.with_external_initializer_file_in_memory(name, content.clone())?;
    }
    Ok(builder)
}

/// How many sessions a model of this size gets.
pub(super) fn count(size: u64, options: &LoadOptions) -> usize {
    if size > LARGE_MODEL {
        return 1;
    }
    let slots = usize::try_from(options.slot_count()).unwrap_or(1);
    slots.min(options.thread_count())
}
