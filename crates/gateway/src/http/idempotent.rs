//! `Idempotency-Key`: a request is answered once, and its answer replayed.
//!
//! Under a key, an answer is completed and kept even when its client goes away, because the client will ask for it again.
//! Without a key, a client that goes away cancels its request.

use std::{
    collections::HashMap,
    future::Future,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use axum::{body::Body, http::HeaderMap, response::Response};
use bytes::Bytes;
use futures::{StreamExt as _, stream::BoxStream};
use rialto_api::BadRequest;
use tokio::sync::{Notify, mpsc};
use tokio_stream::wrappers::ReceiverStream;

use super::{
    error::build,
    serving::{Reply, ReplyBody},
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
#[derive(Debug, Default)]
pub(crate) struct Bells(Mutex<HashMap<[u8; 32], Arc<Notify>>>);

impl Bells {
    fn hang(&self, id: [u8; 32]) -> Arc<Notify> {
        let mut bells = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(bells.entry(id).or_default())
    }

    fn find(&self, id: [u8; 32]) -> Option<Arc<Notify>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).get(&id).cloned()
    }

    fn take_down(&self, id: [u8; 32]) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).remove(&id);
    }
}

/// Runs a request once for its key.
pub(crate) async fn run(
    desk: Arc<Desk>,
    id: [u8; 32],
    key: String,
    body: [u8; 32],
    answer: impl Future<Output = Reply> + Send + 'static,
) -> Result<Response, Error> {
    loop {
        match desk.store.claim(id, &key, body, desk.boot).await? {
            Claim::Fresh => return first(desk, id, answer).await,
            Claim::Answered(stored) => {
                desk.metrics.replays.inc();
                return Ok(replay(stored));
            }
            Claim::Running => wait(&desk, id).await,
            Claim::Conflict => return Err(Error::IdempotencyConflict),
            Claim::Lost => return Err(Error::IdempotencyLost),
            Claim::Full => return Err(Error::IdempotencyFull),
        }
    }
}

/// Waits until the first request with this key has ended, or long enough to look again.
async fn wait(desk: &Desk, id: [u8; 32]) {
    let bell = desk.bells.find(id);
    let pause = Duration::from_millis(250);
    match bell {
        Some(bell) => {
            let _ = tokio::time::timeout(pause, bell.notified()).await;
        }
        None => tokio::time::sleep(Duration::from_millis(20)).await,
    }
}

/// Runs the request in a task of its own, so that it ends whether or not its client stays.
async fn first(
    desk: Arc<Desk>,
    id: [u8; 32],
    answer: impl Future<Output = Reply> + Send + 'static,
) -> Result<Response, Error> {
    let bell = desk.bells.hang(id);
    let (sender, receiver) = tokio::sync::oneshot::channel();
    let tasks = desk.tasks.clone();
    tasks.spawn(async move {
        let reply = answer.await;
        let (status, headers, keep) = (reply.status, reply.headers, reply.keep);
        match reply.body {
            ReplyBody::Whole(bytes) => {
                let stored = keep.then(|| StoredAnswer {
                    status,
                    headers: headers.clone(),
                    body: bytes.to_vec(),
                });
                keep_or_release(&desk, id, stored).await;
                let _ = sender.send(build(status, &headers, Body::from(bytes)));
            }
            ReplyBody::Stream(stream) => {
                let (pieces, outlet) = mpsc::channel(BUFFER);
                let outlet = ReceiverStream::new(outlet).map(Ok::<Bytes, std::convert::Infallible>);
                let _ = sender.send(build(status, &headers, Body::from_stream(outlet)));
                let body = copy(stream, pieces).await;
                let stored = body.map(|body| StoredAnswer { status, headers, body });
                match stored {
                    Some(stored) => keep_or_release(&desk, id, Some(stored)).await,
                    // The claim stays: repeating what was bought would charge twice.
                    None => tracing::warn!("an answer is too large to be kept for its idempotency key"),
                }
            }
        }
        desk.bells.take_down(id);
        bell.notify_waiters();
    });
    receiver.await.map_err(|_| Error::Stopping)
}

async fn keep_or_release(desk: &Desk, id: [u8; 32], answer: Option<StoredAnswer>) {
    let done = match &answer {
        Some(answer) if answer.body.len() <= MAX_ANSWER => desk.store.keep_answer(id, answer).await,
        Some(_) => Ok(()),
        None => desk.store.release_claim(id).await,
    };
    if let Err(error) = done {
        tracing::error!(%error, "an idempotent answer could not be kept");
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
