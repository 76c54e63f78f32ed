//! One worker's life as its host sees it: who waits for what, and what came.

use std::{
    collections::HashMap,
    io,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

use rialto_protocol::job::Job;
use tokio::{
    net::UnixStream,
    sync::{mpsc, oneshot, watch},
};

use crate::{
    Error, Piece, Replay, Scope,
    border::{FrameReader, FromWorker, Outbox, ToWorker},
};

/// Bytes read from the socket at a time.
const BLOCK: usize = 64 << 10;

/// What a worker counted of a job.
#[derive(Debug, Clone, Copy)]
pub(super) struct Counted {
    pub(super) input_units: u64,
    pub(super) max_output: u64,
}

/// The last sign of life.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Pulse {
    pub(super) number: u64,
    pub(super) step_millis: u64,
    pub(super) limit_millis: u64,
}

/// Who waits for a job's next frame.
#[derive(Debug)]
pub(super) enum Waiting {
    Count(oneshot::Sender<Result<Counted, Error>>),
    /// An answer that comes whole; there is room for all of it.
    Whole(mpsc::Sender<Result<Piece, Error>>),
    /// An answer that comes bit by bit; there is room for as much as was granted.
    Paced(mpsc::Sender<Result<Piece, Error>>),
    Replay(oneshot::Sender<Result<Replay, Error>>),
}

/// The jobs of a living worker; `None` once it is dead.
type Jobs = Option<HashMap<u64, Waiting>>;

#[derive(Debug)]
pub(super) struct Link {
    stream: Arc<UnixStream>,
    outbox: Outbox,
    jobs: Mutex<Jobs>,
    next: AtomicU64,
    pulse: watch::Sender<Pulse>,
    process_id: u32,
}

impl Link {
    pub(super) fn new(stream: UnixStream, process_id: u32) -> Self {
        let stream = Arc::new(stream);
        Self {
            outbox: Outbox::new(stream.clone()),
            stream,
            jobs: Mutex::new(Some(HashMap::new())),
            next: AtomicU64::new(1),
            pulse: watch::Sender::new(Pulse::default()),
            process_id,
        }
    }

    pub(super) fn process_id(&self) -> u32 {
        self.process_id
    }

    pub(super) fn pulse(&self) -> watch::Receiver<Pulse> {
        self.pulse.subscribe()
    }

    fn jobs(&self) -> MutexGuard<'_, Jobs> {
        self.jobs.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Sends a frame. A worker that cannot be written to is dead, which its keeper notices too.
    pub(super) fn send(&self, frame: &ToWorker) {
        self.send_all(std::slice::from_ref(frame));
    }

    /// Sends frames in one go.
    pub(super) fn send_all(&self, frames: &[ToWorker]) {
        if let Err(error) = self.outbox.send_all(frames) {
            tracing::debug!(%error, "a frame did not reach its worker");
            self.die(&Error::Failed("its worker died".to_owned()));
        }
    }

    /// Notes who waits for a job. A dead worker's job fails at once.
    fn wait(&self, id: u64, waiting: Waiting) {
        let dead = match &mut *self.jobs() {
            Some(jobs) => {
                jobs.insert(id, waiting);
                None
            }
            None => Some(waiting),
        };
        if let Some(waiting) = dead {
            waiting.fail(Error::Failed("its worker died".to_owned()));
        }
    }

    fn number(&self) -> u64 {
        self.next.fetch_add(1, Ordering::Relaxed)
    }

    /// Has a job checked and counted.
    pub(super) async fn prepare(&self, job: Job, scope: Scope) -> Result<(u64, Counted), Error> {
        let (id, (sender, counted)) = (self.number(), oneshot::channel());
        self.wait(id, Waiting::Count(sender));
        let guard = Unwanted { link: self, id };
        self.send(&ToWorker::Prepare { id, job, scope });
        let counted = counted.await.unwrap_or_else(|_| Err(died()))?;
        std::mem::forget(guard);
        Ok((id, counted))
    }

    /// Notes who waits for a new job whose answer comes whole, and gives its number.
    pub(super) fn begin_whole(&self, sender: mpsc::Sender<Result<Piece, Error>>) -> u64 {
        let id = self.number();
        self.wait(id, Waiting::Whole(sender));
        id
    }

    /// Notes who waits for the answer of a job that was counted.
    pub(super) fn begin_prepared(&self, id: u64, waiting: Waiting) {
        self.wait(id, waiting);
    }

    /// Has an answer read again.
    pub(super) async fn replay(&self, job: Job, answer: Vec<u32>) -> Result<Replay, Error> {
        let (id, (sender, replay)) = (self.number(), oneshot::channel());
        self.wait(id, Waiting::Replay(sender));
        let guard = Unwanted { link: self, id };
        self.send(&ToWorker::Replay { id, job, answer });
        let replay = replay.await.unwrap_or_else(|_| Err(died()));
        std::mem::forget(guard);
        replay
    }

    /// Nobody waits for this job any more.
    pub(super) fn forget(&self, id: u64) {
        let alive = self.jobs().as_mut().map(|jobs| jobs.remove(&id)).is_some();
        if alive {
            self.send(&ToWorker::Forget { id });
        }
    }

    /// Reads frames until the worker is gone, or sends something that no worker of ours would.
    pub(super) async fn read(&self) -> io::Result<()> {
        let (mut reader, mut buffer) = (FrameReader::default(), vec![0; BLOCK]);
        loop {
            self.stream.readable().await?;
            loop {
                match self.stream.try_read(&mut buffer) {
                    Ok(0) => return Ok(()),
                    Ok(count) => reader.extend(buffer.get(..count).unwrap_or_default()),
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                    Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                    Err(error) => return Err(error),
                }
                while let Some(frame) = reader.take()? {
                    self.take(frame)?;
                }
            }
        }
    }

    pub(super) async fn flush(&self) -> io::Result<()> {
        self.outbox.flush().await
    }

    fn take(&self, frame: FromWorker) -> io::Result<()> {
        match frame {
            // The first frame was read before there was a link.
            FromWorker::Ready(_) => Err(io::Error::other("a worker got ready twice")),
            FromWorker::Pong {
                number,
                step_millis,
                limit_millis,
            } => {
                self.pulse.send_replace(Pulse {
                    number,
                    step_millis,
                    limit_millis,
                });
                Ok(())
            }
            FromWorker::Prepared {
                id,
                input_units,
                max_output,
            } => {
                let counted = Counted {
                    input_units,
                    max_output,
                };
                self.counted(id, counted);
                Ok(())
            }
            FromWorker::Replayed { id, replay } => {
                if let Some(Waiting::Replay(sender)) = self.remove(id) {
                    let _ = sender.send(Ok(replay));
                }
                Ok(())
            }
            FromWorker::Failed { id, error } => {
                if let Some(waiting) = self.remove(id) {
                    waiting.fail(error);
                }
                Ok(())
            }
            FromWorker::Piece { id, piece } => self.piece(id, piece),
        }
    }

    fn remove(&self, id: u64) -> Option<Waiting> {
        self.jobs().as_mut()?.remove(&id)
    }

    fn counted(&self, id: u64, counted: Counted) {
        let mut jobs = self.jobs();
        let Some(jobs) = jobs.as_mut() else { return };
        // A job that crossed the border once was counted on this side.
        if matches!(jobs.get(&id), Some(Waiting::Count(_)))
            && let Some(Waiting::Count(sender)) = jobs.remove(&id)
        {
            let _ = sender.send(Ok(counted));
        }
    }

    fn piece(&self, id: u64, piece: Piece) -> io::Result<()> {
        let mut jobs = self.jobs();
        let Some(jobs) = jobs.as_mut() else { return Ok(()) };
        let last = matches!(piece, Piece::Finished(_));
        let sent = match jobs.get(&id) {
            Some(Waiting::Whole(sender) | Waiting::Paced(sender)) => sender.try_send(Ok(piece)),
            // Cancelled meanwhile.
            _ => return Ok(()),
        };
        if last || sent.is_err() {
            jobs.remove(&id);
        }
        match sent {
            Err(mpsc::error::TrySendError::Full(_)) => Err(io::Error::other("a worker sent more than it may")),
            _ => Ok(()),
        }
    }

    /// Fails every job, and every later one.
    pub(super) fn die(&self, error: &Error) {
        let jobs = self.jobs().take();
        for (_, waiting) in jobs.into_iter().flatten() {
            waiting.fail(error.clone());
        }
    }
}

impl Waiting {
    fn fail(self, error: Error) {
        match self {
            Self::Count(sender) => drop(sender.send(Err(error))),
            Self::Replay(sender) => drop(sender.send(Err(error))),
            Self::Whole(sender) | Self::Paced(sender) => drop(sender.try_send(Err(error))),
        }
    }
}

/// Forgets a job whose asker went away.
struct Unwanted<'a> {
    link: &'a Link,
    id: u64,
}

impl Drop for Unwanted<'_> {
    fn drop(&mut self) {
        self.link.forget(self.id);
    }
}

fn died() -> Error {
    Error::Failed("its worker died".to_owned())
}
