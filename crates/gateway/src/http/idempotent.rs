//! `Idempotency-Key`: a request is answered once, and its answer replayed.
//!
//! Under a key, an answer is completed and kept even when its client goes away, because the client will ask for it again.
//! Without a key, a client that goes away cancels its request.

use std::{
    collections::HashMap,
    future::Future,
    panic::AssertUnwindSafe,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use axum::{body::Body, http::HeaderMap, response::Response};
use bytes::Bytes;
use futures::{FutureExt as _, StreamExt as _, stream::BoxStream};
use rialto_api::BadRequest;
use tokio::sync::{Notify, Semaphore, mpsc, oneshot};
use tokio_stream::wrappers::ReceiverStream;

use super::{
    error::build,
    serving::{Presence, Reply, ReplyBody},
};
use crate::{
    Error,
    desk::Desk,
    store::{Claim, StoredAnswer},
};

const HEADER: &str = "idempotency-key";
/// Longest key.
const MAX_KEY: usize = 255;
/// Largest answer that is kept; a larger one is delivered, and a repetition is told that it is lost.
const MAX_ANSWER: usize = 8 << 20;
/// Pieces of a stream that may wait for a slow client.
const BUFFER: usize = 1_024;
/// Repetitions that may wait for the first request with their key. They hold no place for requests, and their bodies.
const MAX_WAITING: usize = 256;
/// Looks at a claim that nobody in this process works on before it counts as lost.
const ORPHANED: u32 = 100;

/// The scope of a request's idempotency key: the API key, the path and the key itself.
pub(crate) fn scope(headers: &HeaderMap, key: &str, path: &str) -> Result<Option<[u8; 32]>, Error> {
    let Some(value) = headers.get(HEADER) else {
        return Ok(None);
    };
    let text = value.as_bytes();
    if text.is_empty() || text.len() > MAX_KEY {
        let reason = format!("must have between 1 and {MAX_KEY} bytes");
        return Err(BadRequest::value("Idempotency-Key", reason).into());
    }
    let mut hasher = blake3::Hasher::new_derive_key("rialto gateway 2026-11 idempotency v1");
    for part in [key.as_bytes(), path.as_bytes(), text] {
        hasher.update(&u64::try_from(part.len()).unwrap_or(u64::MAX).to_le_bytes());
        hasher.update(part);
    }
    Ok(Some(*hasher.finalize().as_bytes()))
}

/// Answers under way, each with a bell that rings when it has ended.
#[derive(Debug)]
pub(crate) struct Bells {
    hanging: Mutex<HashMap<[u8; 32], Arc<Notify>>>,
    waiting: Arc<Semaphore>,
}

impl Default for Bells {
    fn default() -> Self {
        Self {
            hanging: Mutex::default(),
            waiting: Arc::new(Semaphore::new(MAX_WAITING)),
        }
    }
}

impl Bells {
    fn lock(&self) -> MutexGuard<'_, HashMap<[u8; 32], Arc<Notify>>> {
        self.hanging.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn hang(&self, id: [u8; 32]) {
        self.lock().entry(id).or_default();
    }

    fn find(&self, id: [u8; 32]) -> Option<Arc<Notify>> {
        self.lock().get(&id).cloned()
    }

    fn take_down(&self, id: [u8; 32]) {
        if let Some(bell) = self.lock().remove(&id) {
            bell.notify_waiters();
        }
    }
}

/// A request with an idempotency key.
pub(crate) struct Keyed {
    /// [`scope`].
    pub(crate) id: [u8; 32],
    /// The API key.
    pub(crate) key: String,
    /// The hash of the body.
    pub(crate) body: [u8; 32],
}

/// Runs a request once for its key. A repetition that waits gives its place away: those that are answered need it.
pub(crate) async fn run<F>(
    desk: Arc<Desk>,
    keyed: Keyed,
    presence: Presence,
    answer: impl FnOnce(Presence) -> F + Send,
) -> Result<Response, Error>
where
    F: Future<Output = Reply> + Send + 'static,
{
    let operation = presence.operation();
    let mut presence = Some(presence);
    let mut waiting = None;
    let mut orphaned = 0;
    loop {
        match desk.store.claim(keyed.id, &keyed.key, keyed.body, desk.boot).await? {
            Claim::Fresh => {
                let bell = Hung::new(&desk, keyed.id);
                let presence = match presence {
                    Some(presence) => Ok(presence),
                    None => Presence::new(&desk, operation),
                };
                return match presence {
                    Ok(presence) => first(desk, bell, keyed.id, answer(presence)).await,
                    Err(error) => {
                        desk.store.release_claim(keyed.id).await?;
                        Err(error)
                    }
                };
            }
            Claim::Answered(stored) => {
                desk.metrics.replays.inc();
                return Ok(replay(stored));
            }
            Claim::Running => {
                presence = None;
                if waiting.is_none() {
                    let place = Arc::clone(&desk.bells.waiting).try_acquire_owned();
                    waiting = Some(place.map_err(|_| Error::Overloaded)?);
                }
                orphaned = if wait(&desk, keyed.id).await { 0 } else { orphaned + 1 };
                if orphaned == ORPHANED {
                    return Err(Error::IdempotencyLost);
                }
            }
            Claim::Conflict => return Err(Error::IdempotencyConflict),
            Claim::Lost => return Err(Error::IdempotencyLost),
            Claim::Full => return Err(Error::IdempotencyFull),
        }
    }
}

/// Waits until the first request with this key has ended, or long enough to look again. Returns whether somebody works
/// on it.
async fn wait(desk: &Desk, id: [u8; 32]) -> bool {
    match desk.bells.find(id) {
        Some(bell) => {
            let _ = tokio::time::timeout(Duration::from_millis(250), bell.notified()).await;
            true
        }
        None => {
            tokio::time::sleep(Duration::from_millis(20)).await;
            false
        }
    }
}

/// A bell that hangs as long as somebody works on an answer.
struct Hung {
    desk: Arc<Desk>,
    id: [u8; 32],
}

impl Hung {
    fn new(desk: &Arc<Desk>, id: [u8; 32]) -> Self {
        desk.bells.hang(id);
        Self {
            desk: Arc::clone(desk),
            id,
        }
    }
}

impl Drop for Hung {
    fn drop(&mut self) {
        self.desk.bells.take_down(self.id);
    }
}

/// Runs the request in a task of its own, so that it ends whether or not its client stays.
async fn first(
    desk: Arc<Desk>,
    bell: Hung,
    id: [u8; 32],
    answer: impl Future<Output = Reply> + Send + 'static,
) -> Result<Response, Error> {
    let (sender, receiver) = oneshot::channel();
    let tasks = desk.tasks.clone();
    tasks.spawn(async move {
        let _bell = bell;
        let work = AssertUnwindSafe(work(&desk, id, answer, sender));
        if work.catch_unwind().await.is_err() {
            tracing::error!("a request with an idempotency key broke down");
            lose(&desk, id).await;
        }
    });
    receiver.await.map_err(|_| Error::Stopping)
}

/// Answers, and keeps the answer.
async fn work(desk: &Desk, id: [u8; 32], answer: impl Future<Output = Reply>, sender: oneshot::Sender<Response>) {
    let reply = answer.await;
    let (status, headers, keep) = (reply.status, reply.headers, reply.keep);
    match reply.body {
        ReplyBody::Whole(bytes) => {
            let stored = StoredAnswer {
                status,
                headers: headers.clone(),
                body: bytes.to_vec(),
            };
            keep_or_release(desk, id, stored, keep).await;
            let _ = sender.send(build(status, &headers, Body::from(bytes)));
        }
        ReplyBody::Stream(stream) => {
            let (pieces, outlet) = mpsc::channel(BUFFER);
            let outlet = ReceiverStream::new(outlet).map(Ok::<Bytes, std::convert::Infallible>);
            let _ = sender.send(build(status, &headers, Body::from_stream(outlet)));
            match copy(stream, pieces).await {
                Some(body) => keep_or_release(desk, id, StoredAnswer { status, headers, body }, true).await,
                None => too_large(desk, id).await,
            }
        }
    }
}

/// Keeps an answer; or gives the key back if the answer need not be kept and nothing can be billed for it.
async fn keep_or_release(desk: &Desk, id: [u8; 32], answer: StoredAnswer, keep: bool) {
    if answer.body.len() > MAX_ANSWER {
        return too_large(desk, id).await;
    }
    let done = async {
        // One of the sellers that were asked before it failed may still bill: a repetition would be billed again.
        if !keep && desk.store.release_claim(id).await? {
            return Ok(());
        }
        desk.store.keep_answer(id, &answer).await
    };
    let done: Result<(), Error> = done.await;
    if let Err(error) = done {
        tracing::error!(%error, "an idempotent answer could not be kept");
        lose(desk, id).await;
    }
}

async fn too_large(desk: &Desk, id: [u8; 32]) {
    tracing::warn!("an answer is too large to be kept for its idempotency key");
    lose(desk, id).await;
}

/// There is no answer to repeat: repetitions are told so, because buying it again would charge twice.
async fn lose(desk: &Desk, id: [u8; 32]) {
    if let Err(error) = desk.store.lose_claim(id).await {
        tracing::error!(%error, "an idempotency key could not be marked as lost");
    }
}

/// Passes a stream on to its client, if there still is one, and returns all of it.
async fn copy(mut stream: BoxStream<'static, Bytes>, pieces: mpsc::Sender<Bytes>) -> Option<Vec<u8>> {
    let mut all = Some(Vec::new());
    let mut client = Some(pieces);
    while let Some(piece) = stream.next().await {
        if let Some(bytes) = &mut all {
            if bytes.len() + piece.len() > MAX_ANSWER {
                all = None;
            } else {
                bytes.extend_from_slice(&piece);
            }
        }
        if let Some(sender) = &client
            && sender.send(piece).await.is_err()
        {
            client = None;
        }
    }
    all
}

fn replay(stored: StoredAnswer) -> Response {
    let mut headers = stored.headers;
    headers.push(("idempotent-replayed".into(), "true".into()));
    build(stored.status, &headers, Body::from(stored.body))
}
