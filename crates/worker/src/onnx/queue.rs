//! Requests that wait, and how they are run: together where that cannot change a bit, on the caller's thread where a
//! run is shorter than the way to another one.

use std::{
    collections::VecDeque,
    mem,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use rialto_engine::{Ending, Error, Piece};
use rialto_protocol::{
    job::Tensor,
    output::{FinishReason, Output},
};
use rustix::time::{ClockId, clock_gettime};
use tokio::{
    sync::{OwnedSemaphorePermit, mpsc},
    time::Instant,
};

use super::{
    batch,
    sessions::{Lease, Sessions},
    tensor::{self, Stop},
    text,
    trial::Trial,
};
use crate::steps::Steps;

/// A run shorter than this is not worth a thread of its own: to wake one takes as long.
const TRIFLE: u64 = 30_000;

/// A run shorter than this, in nanoseconds, goes on the caller's thread when nothing else waits.
const SHORT: u64 = 200_000;

/// The pace of a model of which nothing is known: its first run is thought to be long.
const UNKNOWN: u64 = 1 << 40;

/// Where a request's pieces go. There is room for all of them.
pub(super) type Pieces = mpsc::Sender<Result<Piece, Error>>;

/// What a request wants.
pub(super) enum Work {
    /// A model's outputs.
    Predict { inputs: Vec<Tensor>, outputs: Vec<String> },
    /// A vector for each text, given as tokens.
    Embed { texts: Vec<Vec<u32>> },
}

/// A request that waits.
pub(super) struct Request {
    pub(super) work: Work,
    /// Rows, or tokens.
    pub(super) units: u64,
    pub(super) pieces: Pieces,
    pub(super) arrived: Instant,
    /// Given back when the request is answered.
    pub(super) place: OwnedSemaphorePermit,
}

/// What runs requests, first come, first served.
pub(super) struct Queue {
    sessions: Arc<Sessions>,
    waiting: Mutex<Waiting>,
    /// Most rows of a batch of several requests; 1 for never.
    most_rows: u64,
    /// How long a request may wait for others.
    gather: Duration,
    max_tensor_bytes: u64,
    /// Nanoseconds for a KiB of input, as it was lately.
    pace: AtomicU64,
    runs: AtomicU64,
    steps: Steps,
}

#[derive(Default)]
struct Waiting {
    requests: VecDeque<Request>,
    /// Whether a task is at work on them.
    served: bool,
}

impl Request {
    fn bytes(&self) -> u64 {
        match &self.work {
            Work::Predict { inputs, .. } => batch::bytes(inputs),
            Work::Embed { .. } => self.units.saturating_mul(8),
        }
    }

    fn inputs(&self) -> &[Tensor] {
        match &self.work {
            Work::Predict { inputs, .. } => inputs,
            Work::Embed { .. } => &[],
        }
    }

    /// Whether the two can be one batch.
    fn is_like(&self, other: &Self) -> bool {
        match (&self.work, &other.work) {
            (
                Work::Predict { inputs, outputs },
                Work::Predict {
                    inputs: others,
                    outputs: wanted,
                },
            ) => outputs == wanted && batch::alike(inputs, others),
            _ => false,
        }
    }

    fn answer(self, result: Result<Vec<Tensor>, Error>, nanos: u64) {
        // There is room for every piece; a reader that left needs none.
        match result {
            Ok(tensors) => {
                let _ = self.pieces.try_send(Ok(Piece::Output(Output::Tensors(tensors))));
                let _ = self.pieces.try_send(Ok(finished(nanos)));
            }
            Err(error) => drop(self.pieces.try_send(Err(error))),
        }
        drop(self.place);
    }
}

impl Queue {
    pub(super) fn new(sessions: Sessions, trial: Trial, gather: Duration, max_tensor_bytes: u64, steps: Steps) -> Self {
        let pace = trial.alone.map(|(nanos, bytes)| per_kib(nanos, bytes).min(UNKNOWN - 1));
        Self {
            sessions: Arc::new(sessions),
            waiting: Mutex::default(),
            most_rows: trial.most_rows,
            gather,
            max_tensor_bytes,
            pace: AtomicU64::new(pace.unwrap_or(UNKNOWN)),
            runs: AtomicU64::new(0),
            steps,
        }
    }

    /// Runs of the model so far.
    pub(super) fn runs(&self) -> u64 {
        self.runs.load(Ordering::Relaxed)
    }

    /// Takes a request; its pieces come when it was run. Must be called inside a tokio runtime.
    pub(super) fn push(self: &Arc<Self>, request: Request) {
        let mut waiting = self.waiting();
        waiting.requests.push_back(request);
        if !mem::replace(&mut waiting.served, true) {
            drop(waiting);
            tokio::spawn(self.clone().serve(Service(self.clone())));
        }
    }

    fn waiting(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Runs what waits, until nothing does.
    async fn serve(self: Arc<Self>, service: Service) {
        loop {
            // While it waits for a session, requests gather.
            let lease = self.sessions.lease().await;
            if !self.gather.is_zero() {
                self.gather().await;
            }
            let (batch, more) = self.next();
            let Some(lease) = lease.filter(|_| !batch.is_empty()) else {
                for request in batch {
                    request.answer(Err(Error::Failed("the engine was shut down".to_owned())), 0);
                }
                if more {
                    continue;
                }
                // The flag was taken back with the last look at what waits.
                mem::forget(service);
                return;
            };
            let bytes: u64 = batch.iter().map(Request::bytes).fold(0, u64::saturating_add);
            let expected = bytes.saturating_mul(self.pace.load(Ordering::Relaxed)) / 1_024;
            if expected < TRIFLE || (expected < SHORT && !more) {
                self.run(batch, lease, None);
                // Others of this thread read and write for those who wait.
                if more {
                    tokio::task::yield_now().await;
                }
            } else {
                tokio::spawn(self.clone().run_elsewhere(batch, lease));
            }
        }
    }

    /// Waits until the oldest request has waited long enough, or a batch is full.
    async fn gather(&self) {
        loop {
            let until = {
                let waiting = self.waiting();
                let rows = waiting.requests.iter().map(|request| request.units).sum::<u64>();
                let oldest = waiting.requests.front().map(|request| request.arrived + self.gather);
                oldest.filter(|until| rows < self.most_rows && *until > Instant::now())
            };
            match until {
                // Looked at often, because a full batch need not wait for the rest of the time.
                Some(until) => tokio::time::sleep_until(until.min(Instant::now() + Duration::from_millis(1))).await,
                None => return,
            }
        }
    }

    /// The oldest request, with those behind it that may run with it; and whether more wait. Nothing and no more means
    /// that nobody serves the queue now.
    fn next(&self) -> (Vec<Request>, bool) {
        let mut waiting = self.waiting();
        let mut batch: Vec<Request> = Vec::with_capacity(1);
        let mut rows = 0u64;
        while let Some(request) = waiting.requests.front() {
            let fits = match batch.first() {
                None => true,
                Some(first) => rows.saturating_add(request.units) <= self.most_rows && first.is_like(request),
            };
            if !fits && !request.pieces.is_closed() {
                break;
            }
            // Whoever went away while they waited is left out.
            if let Some(request) = waiting
                .requests
                .pop_front()
                .filter(|request| !request.pieces.is_closed())
            {
                rows = rows.saturating_add(request.units);
                batch.push(request);
            }
        }
        let more = !waiting.requests.is_empty();
        waiting.served = more || !batch.is_empty();
        (batch, more)
    }

    /// Runs a batch on a thread where it may take its time, and stops it when nobody waits for it any more.
    async fn run_elsewhere(self: Arc<Self>, batch: Vec<Request>, lease: Lease) {
        let readers: Vec<Pieces> = batch.iter().map(|request| request.pieces.clone()).collect();
        let stop = Stop::new().ok().map(Arc::new);
        let (queue, stopped) = (self.clone(), stop.clone());
        let mut work = tokio::task::spawn_blocking(move || queue.run(batch, lease, stopped.as_deref()));
        let outcome = tokio::select! {
            outcome = &mut work => outcome,
            () = all_gone(&readers) => {
                // ONNX Runtime looks at this flag between the nodes of the graph.
                if let Some(Err(error)) = stop.map(|stop| stop.terminate()) {
                    tracing::warn!(%error, "onnx run could not be cancelled");
                }
                work.await
            }
        };
        if let Err(error) = outcome {
            for reader in readers {
                let _ = reader.try_send(Err(Error::Failed(format!("the run was lost: {error}"))));
            }
        }
    }

    /// Runs a batch and answers its requests.
    fn run(&self, mut batch: Vec<Request>, mut lease: Lease, stop: Option<&Stop>) {
        let bytes: u64 = batch.iter().map(Request::bytes).fold(0, u64::saturating_add);
        let watch = match stop {
            Some(_) => Stopwatch::Thread(processor_time()),
            None => Stopwatch::Wall(std::time::Instant::now()),
        };
        let nanos = if batch.len() > 1 {
            self.run_together(batch, &mut lease, stop, watch)
        } else {
            batch
                .pop()
                .map_or(0, |request| self.run_alone(request, &mut lease, stop, watch))
        };
        let (took, pace) = (per_kib(nanos, bytes), self.pace.load(Ordering::Relaxed));
        // The first run of a model that could not be tried says all there is to know.
        let pace = match pace {
            UNKNOWN => took,
            // A run that was interrupted counts as a slow one, and not as what a whole slice of time would say.
            pace => pace.saturating_mul(3).saturating_add(took.min(pace.saturating_mul(8))) / 4,
        };
        self.pace.store(pace.max(1), Ordering::Relaxed);
    }

    /// Runs one request, and gives the nanoseconds that it took.
    fn run_alone(&self, mut request: Request, lease: &mut Lease, stop: Option<&Stop>, watch: Stopwatch) -> u64 {
        // A run that nobody can stop is one that blocks this thread, whose silence says enough.
        let _step = stop.map(|_| self.steps.begin(usize::try_from(request.units).unwrap_or(usize::MAX)));
        self.runs.fetch_add(1, Ordering::Relaxed);
        match &mut request.work {
            Work::Predict { inputs, outputs } => {
                let session = lease.session();
                let max = self.max_tensor_bytes;
                let result = session.and_then(|session| tensor::run(session, inputs, outputs, stop, max));
                let nanos = watch.nanos();
                request.answer(result, nanos);
                nanos
            }
            Work::Embed { texts } => {
                let texts = mem::take(texts);
                for (index, ids) in (0u32..).zip(&texts) {
                    if request.pieces.is_closed() {
                        return watch.nanos();
                    }
                    match lease.session().and_then(|session| text::embed(session, ids, stop)) {
                        Ok(vector) => {
                            let output = Output::Embedding { index, vector };
                            let _ = request.pieces.try_send(Ok(Piece::Output(output)));
                        }
                        Err(error) => {
                            request.answer(Err(error), 0);
                            return watch.nanos();
                        }
                    }
                }
                let nanos = watch.nanos();
                let _ = request.pieces.try_send(Ok(finished(nanos)));
                nanos
            }
        }
    }

    /// Runs requests as one batch; or one by one, if that fails, because one of them may be the reason.
    fn run_together(&self, batch: Vec<Request>, lease: &mut Lease, stop: Option<&Stop>, watch: Stopwatch) -> u64 {
        let rows: Vec<u64> = batch.iter().map(|request| request.units).collect();
        let parts = self.outputs_of(&batch, &rows, lease, stop);
        let nanos = watch.nanos();
        let Some(parts) = parts else {
            let present = batch.into_iter().filter(|request| !request.pieces.is_closed());
            let each = present.map(|request| {
                let watch = Stopwatch::Wall(std::time::Instant::now());
                self.run_alone(request, lease, stop, watch)
            });
            return each.fold(nanos, u64::saturating_add);
        };
        let each = nanos / rows.iter().sum::<u64>().max(1);
        for ((request, part), rows) in batch.into_iter().zip(parts).zip(rows) {
            request.answer(Ok(part), each.saturating_mul(rows));
        }
        nanos
    }

    fn outputs_of(
        &self,
        batch: &[Request],
        rows: &[u64],
        lease: &mut Lease,
        stop: Option<&Stop>,
    ) -> Option<Vec<Vec<Tensor>>> {
        let inputs: Vec<&[Tensor]> = batch.iter().map(Request::inputs).collect();
        let joined = batch::join(&inputs)?;
        let Some(Work::Predict { outputs, .. }) = batch.first().map(|request| &request.work) else {
            return None;
        };
        let _step = stop.map(|_| {
            self.steps
                .begin(rows.iter().sum::<u64>().try_into().unwrap_or(usize::MAX))
        });
        let session = lease.session().ok()?;
        self.runs.fetch_add(1, Ordering::Relaxed);
        // Each of them could have this much; what is too large together is found out alone.
        let result = tensor::run(session, &joined, outputs, stop, self.max_tensor_bytes).ok()?;
        batch::split(&result, rows)
    }
}

/// Says that nobody serves the queue any more when a runtime ends in the middle of it.
struct Service(Arc<Queue>);

impl Drop for Service {
    fn drop(&mut self) {
        self.0.waiting().served = false;
    }
}

/// Waits until no reader is left.
async fn all_gone(readers: &[Pieces]) {
    for reader in readers {
        reader.closed().await;
    }
}

fn finished(nanos: u64) -> Piece {
    let mut ending = Ending::from(FinishReason::Stop);
    // A run is never for nothing.
    ending.cpu_micros = nanos.div_ceil(1_000);
    Piece::Finished(ending)
}

/// How a run is timed.
enum Stopwatch {
    /// By the clock, which costs next to nothing: for runs so short that hardly one is interrupted.
    Wall(std::time::Instant),
    /// By the processor time of this thread, which takes a call of the kernel.
    Thread(Duration),
}

impl Stopwatch {
    fn nanos(&self) -> u64 {
        nanos(match self {
            Self::Wall(began) => began.elapsed(),
            Self::Thread(before) => processor_time().saturating_sub(*before),
        })
    }
}

/// Processor time of this thread: another program's work says nothing about a model.
pub(super) fn processor_time() -> Duration {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    let seconds = u64::try_from(time.tv_sec).unwrap_or_default();
    Duration::new(seconds, u32::try_from(time.tv_nsec).unwrap_or_default())
}

pub(super) fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

fn per_kib(nanos: u64, bytes: u64) -> u64 {
    (nanos.saturating_mul(1_024) / bytes.max(1)).max(1)
}
