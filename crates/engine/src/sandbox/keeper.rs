//! Keeps a worker running: starts it, notices its end, fails its jobs, and starts the next.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use tokio::{sync::watch, task::AbortHandle};

use super::{
    heart,
    link::Link,
    process::{Started, Worker},
};
use crate::{EngineInfo, Error, border::Assignment};

/// Pause before a worker is started again that ended soon after its start; doubled each time.
const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(30);

/// A worker that ran for so long has earned a restart without a pause.
const PROVEN: Duration = Duration::from_secs(30);

/// What there is to talk to.
#[derive(Debug, Clone)]
pub(super) enum State {
    /// A worker is being started.
    Starting,
    /// A worker runs.
    Up(Arc<Link>),
}

/// Dropping it ends the worker.
#[derive(Debug)]
pub(super) struct Keeper {
    state: watch::Receiver<State>,
    replacements: Arc<AtomicU64>,
    task: AbortHandle,
}

impl Keeper {
    /// Starts the first worker. Its failure to load the model is final.
    pub(super) async fn start(assignment: Assignment) -> Result<(Self, EngineInfo), Error> {
        let Started { worker, link, info } = Worker::start(&assignment).await?;
        let link = Arc::new(link);
        let (sender, state) = watch::channel(State::Up(link.clone()));
        let replacements = Arc::new(AtomicU64::new(0));
        let keeping = Keeping {
            assignment,
            state: sender,
            replacements: replacements.clone(),
        };
        let task = tokio::spawn(keeping.run(worker, link)).abort_handle();
        let keeper = Self {
            state,
            replacements,
            task,
        };
        Ok((keeper, info))
    }

    pub(super) fn state(&self) -> watch::Receiver<State> {
        self.state.clone()
    }

    pub(super) fn replacements(&self) -> u64 {
        self.replacements.load(Ordering::Relaxed)
    }
}

impl Drop for Keeper {
    fn drop(&mut self) {
        self.task.abort();
    }
}

struct Keeping {
    assignment: Assignment,
    state: watch::Sender<State>,
    replacements: Arc<AtomicU64>,
}

impl Keeping {
    async fn run(self, mut worker: Worker, mut link: Arc<Link>) {
        let model = self.assignment.manifest.listing();
        let mut pause = Duration::ZERO;
        loop {
            let began = Instant::now();
            let why = end(&mut worker, &link).await;
            tracing::warn!(model, why, "a worker ended and is replaced");
            self.state.send_replace(State::Starting);
            worker.kill().await;
            link.die(&Error::Failed(format!("its worker ended: {why}")));
            if began.elapsed() > PROVEN {
                pause = Duration::ZERO;
            }
            (worker, link) = loop {
                tokio::time::sleep(pause).await;
                pause = (pause * 2).clamp(FIRST_PAUSE, LONGEST_PAUSE);
                match Worker::start(&self.assignment).await {
                    Ok(started) => break (started.worker, Arc::new(started.link)),
                    Err(error) => tracing::error!(model, %error, "a worker cannot be started again"),
                }
            };
            self.replacements.fetch_add(1, Ordering::Relaxed);
            self.state.send_replace(State::Up(link.clone()));
        }
    }
}

/// Serves a worker until it ends, and says why it did. What the worker has sent is read before its silence is judged: after a
/// while without a processor this host finds both at once.
async fn end(worker: &mut Worker, link: &Link) -> String {
    tokio::select! {
        biased;
        why = worker.ended() => why,
        read = link.read() => match read {
            // Its end is near; how it ended says more than that it did.
            Ok(()) => tokio::time::timeout(Duration::from_secs(1), worker.ended())
                .await
                .unwrap_or_else(|_| "it closed its end of the border".to_owned()),
            Err(error) => error.to_string(),
        },
        flushed = link.flush() => flushed.err().map_or_else(String::new, |error| error.to_string()),
        why = heart::stops(link) => why,
    }
}
