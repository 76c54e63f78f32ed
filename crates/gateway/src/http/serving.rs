//! What every paid request goes through: a place, a key, a body, and perhaps an idempotency key or an attempt's number.

use std::{future::Future, sync::Arc, time::Instant};

use axum::{
    body::Body,
    extract::Request,
    http::HeaderMap,
    response::{IntoResponse as _, Response},
};
use bytes::Bytes;
use futures::stream::BoxStream;
use tokio::sync::OwnedSemaphorePermit;

use super::{
    attempts,
    auth::authenticate,
    body,
    error::{Failure, build},
    idempotent,
    own::{self, ForOwn, Served},
};
use crate::{
    Error,
    batch::Terms,
    desk::Desk,
    limits::{self, Entered},
    metrics::RequestLabels,
    store::KeyRow,
};

/// A request with this header is told why it went where it went, in `x-rialto-route`.
const EXPLAIN: &str = "x-rialto-explain";

/// Who asks, and for what.
pub(crate) struct Caller {
    pub(crate) key: KeyRow,
    /// What its purchase is stored under, if it may be asked for again.
    pub(crate) idempotency: Option<[u8; 32]>,
    /// Whether it wants to know why its seller was chosen.
    pub(crate) explain: bool,
    /// What was bid for it, if it is of a batch.
    pub(crate) terms: Option<Arc<Terms>>,
    pub(crate) presence: Presence,
}

/// A request's place among those being answered; it lasts until its answer has ended.
pub(crate) struct Presence {
    desk: Arc<Desk>,
    operation: &'static str,
    started: Instant,
    _place: OwnedSemaphorePermit,
    /// Counted among the requests of its key, if that has limits.
    entered: Option<Entered>,
}

impl Presence {
    /// Takes a place.
    pub(super) fn new(desk: &Arc<Desk>, operation: &'static str) -> Result<Self, Error> {
        let place = Arc::clone(&desk.places)
            .try_acquire_owned()
            .map_err(|_| Error::Overloaded)?;
        desk.metrics.active.inc();
        Ok(Self {
            desk: Arc::clone(desk),
            operation,
            started: Instant::now(),
            _place: place,
            entered: None,
        })
    }

    /// Counts it among the requests of its key; a repetition that buys nothing is not counted.
    fn enter(&mut self, key: &KeyRow) -> Result<(), Error> {
        let entered = self.desk.turnstile.enter(&key.id, &key.limits, Instant::now());
        self.entered = entered.map_err(Error::LimitReached)?;
        Ok(())
    }

    pub(super) fn operation(&self) -> &'static str {
        self.operation
    }

    /// Counts the time to the first output.
    pub(crate) fn first_output(&self) {
        self.desk
            .metrics
            .first_output
            .observe(self.started.elapsed().as_secs_f64());
    }

    /// Counts how an answer that had begun ended: `ok` or the code of its error.
    pub(crate) fn ended(&self, outcome: &'static str) {
        let labels = RequestLabels {
            operation: self.operation,
            outcome,
        };
        self.desk.metrics.requests.get_or_create(&labels).inc();
        self.desk.metrics.duration.observe(self.started.elapsed().as_secs_f64());
    }
}

impl Drop for Presence {
    fn drop(&mut self) {
        self.entered.take();
        self.desk.metrics.active.dec();
    }
}

/// An answer on its way to a client.
pub(crate) struct Reply {
    pub(crate) status: u16,
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: ReplyBody,
    /// Whether it is kept for a repetition: something was or may have been bought.
    pub(crate) keep: bool,
}

/// The body of an answer.
pub(crate) enum ReplyBody {
    Whole(Bytes),
    Stream(BoxStream<'static, Bytes>),
}

impl Reply {
    /// A JSON document that was paid for.
    pub(crate) fn json<T: serde::Serialize>(value: &T, mut headers: Vec<(String, String)>) -> Self {
        headers.push(("content-type".into(), "application/json".into()));
        Self {
            status: 200,
            headers,
            body: ReplyBody::Whole(serde_json::to_vec(value).unwrap_or_default().into()),
            keep: true,
        }
    }

    /// Server-sent events.
    pub(crate) fn events(stream: BoxStream<'static, Bytes>, mut headers: Vec<(String, String)>) -> Self {
        headers.push(("content-type".into(), "text/event-stream".into()));
        headers.push(("cache-control".into(), "no-cache".into()));
        // Intermediaries must not collect the pieces.
        headers.push(("x-accel-buffering".into(), "no".into()));
        Self {
            status: 200,
            headers,
            body: ReplyBody::Stream(stream),
            keep: true,
        }
    }

    /// An error.
    pub(crate) fn failure(failure: &Failure) -> Self {
        let (status, headers, body) = failure.parts();
        Self {
            status,
            headers,
            body: ReplyBody::Whole(body.into()),
            keep: failure.error.may_be_charged(),
        }
    }

    /// As a response.
    pub(crate) fn into_response(self) -> Response {
        let body = match self.body {
            ReplyBody::Whole(bytes) => Body::from(bytes),
            ReplyBody::Stream(stream) => {
                use futures::StreamExt as _;
                Body::from_stream(stream.map(Ok::<_, std::convert::Infallible>))
            }
        };
        build(self.status, &self.headers, body)
    }
}

/// Serves a paid request: `work` turns the caller and the body into an answer.
pub(crate) async fn serve<W, F>(desk: Arc<Desk>, request: Request, operation: &'static str, work: W) -> Response
where
    W: FnOnce(Arc<Desk>, Caller, Bytes) -> F + Send + 'static,
    F: Future<Output = Result<Reply, Error>> + Send + 'static,
{
    let failure = move |error: Error| {
        let failure = Failure::from(error);
        if operation == "infer" {
            failure.for_inference()
        } else {
            failure
        }
    };
    let (parts, body) = request.into_parts();
    let path = parts.uri.path().to_owned();
    let count = {
        let desk = Arc::clone(&desk);
        move |error: &Error| {
            let outcome = error.public().code;
            tracing::info!(operation, outcome, %error, "a request failed");
            desk.metrics
                .requests
                .get_or_create(&RequestLabels { operation, outcome })
                .inc();
        }
    };
    let (caller, bytes, for_own) = match admit(&desk, &parts.headers, body, operation, &path).await {
        Ok(admitted) => admitted,
        Err(error) => {
            count(&error);
            return failure(error).into_response();
        }
    };
    let Caller {
        key,
        idempotency,
        explain,
        terms,
        presence,
    } = caller;
    let keyed = idempotency.map(|id| idempotent::Keyed {
        id,
        key: key.id.clone(),
        body: *blake3::hash(&bytes).as_bytes(),
    });
    // What is never bought is not charged twice either.
    let may_buy = for_own.as_ref().is_none_or(|asked| asked.overflows);
    let numbered = idempotency.is_none() && desk.config.timeouts.retry_seconds > 0 && may_buy;
    let call = numbered.then(|| attempts::Call::of(&parts.headers, &key.id, &path, &bytes));
    let call = call.flatten();
    let idempotency = idempotency.or(call.map(|call| call.id));
    let answer = {
        let desk = Arc::clone(&desk);
        move |presence| async move {
            let caller = Caller {
                key,
                idempotency,
                explain,
                terms,
                presence,
            };
            let refused = |error| {
                count(&error);
                Reply::failure(&failure(error))
            };
            let asked = async move |desk, caller, bytes| ask(desk, caller, bytes, &path, for_own, work).await;
            within_limits(desk, caller, bytes, asked, refused).await
        }
    };
    let answered = match (keyed, call) {
        (Some(keyed), _) => idempotent::run(desk, keyed, presence, answer).await,
        (None, Some(call)) => attempts::run(desk, call, presence, answer).await,
        (None, None) => Ok(answer(presence).await.into_response()),
    };
    answered.unwrap_or_else(|error| failure(error).into_response())
}

/// Asks the owner's own servers if the request is for them, and the market if it is not or they have no room.
async fn ask<W, F>(
    desk: Arc<Desk>,
    caller: Caller,
    bytes: Bytes,
    path: &str,
    for_own: Option<ForOwn>,
    work: W,
) -> Result<Reply, Error>
where
    W: FnOnce(Arc<Desk>, Caller, Bytes) -> F,
    F: Future<Output = Result<Reply, Error>>,
{
    let caller = match for_own {
        None => caller,
        Some(asked) => match own::serve(&desk, caller, &bytes, path, asked).await? {
            Served::Here(reply) => return Ok(reply),
            Served::Elsewhere(caller) => *caller,
        },
    };
    // Buying is a large future, which requests for own servers need not carry about.
    Box::pin(work(desk, caller, bytes)).await
}

/// Has a request answered if the limits of its key let it in, and tells what is left of them.
async fn within_limits<W, F>(
    desk: Arc<Desk>,
    mut caller: Caller,
    bytes: Bytes,
    work: W,
    refused: impl FnOnce(Error) -> Reply,
) -> Reply
where
    W: FnOnce(Arc<Desk>, Caller, Bytes) -> F,
    F: Future<Output = Result<Reply, Error>>,
{
    let limited = (!caller.key.limits.is_empty()).then(|| caller.key.clone());
    let answered = match caller.presence.enter(&caller.key) {
        Ok(()) => work(Arc::clone(&desk), caller, bytes).await,
        Err(error) => Err(error),
    };
    let mut reply = answered.unwrap_or_else(refused);
    if let Some(key) = limited {
        match limits::headers(&desk.store, &desk.turnstile, &key).await {
            Ok(headers) => reply.headers.extend(headers),
            Err(error) => tracing::warn!(%error, "what is left of a key's limits could not be read"),
        }
    }
    reply
}

async fn admit(
    desk: &Arc<Desk>,
    headers: &HeaderMap,
    body: Body,
    operation: &'static str,
    path: &str,
) -> Result<(Caller, Bytes, Option<ForOwn>), Error> {
    let presence = Presence::new(desk, operation)?;
    let key = authenticate(desk, headers).await?;
    let idempotency = idempotent::scope(headers, &key.id, path)?;
    let bytes = body::read(&desk.config, headers, body).await?;
    let for_own = own::for_own(desk, &key, operation, &bytes)?;
    let caller = Caller {
        key,
        idempotency,
        explain: headers.contains_key(EXPLAIN),
        terms: None,
        presence,
    };
    Ok((caller, bytes, for_own))
}
