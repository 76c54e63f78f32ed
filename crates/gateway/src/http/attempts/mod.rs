//! Clients that retry by themselves: all attempts of one call are answered by one purchase.
//!
//! The official clients send no idempotency key. They number their attempts instead, and send the same bytes again
//! when an attempt failed, whatever it was that failed between them and us. So a retry is proof that a call has no
//! answer yet: it takes over what an earlier attempt bought. Its answer is sent from the start, and bought on from where
//! it was; while nobody reads, nothing more is bought.
//!
//! Every purchase serves each number once, and a first attempt always buys. Hence there are never more purchases than
//! calls, also when equal calls run side by side: a retry takes the purchase with the highest number below its own, which
//! leaves one for every other call.

mod attempt;
mod register;

use std::{future::Future, sync::Arc};

use axum::{body::Body, http::HeaderMap, response::Response};
use futures::FutureExt as _;

pub(crate) use register::Attempts;

use super::{
    error::build,
    serving::{Presence, Reply},
};
use crate::{Error, desk::Desk};
use attempt::{Head, Reader};

/// How clients made by Stainless, such as OpenAI's, number the attempts of a call: from 0.
const HEADER: &str = "x-stainless-retry-count";
/// Most attempts of a call. No client that waits between them makes as many.
const MAX_COUNT: u32 = 100;

/// An attempt of a call.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Call {
    /// What equal calls have in common: the API key, the path and the body.
    scope: [u8; 16],
    /// The name of what this attempt buys, if it has to buy: the scope and a number of its own.
    pub(crate) id: [u8; 32],
    /// Attempts before this one.
    count: u32,
}

impl Call {
    /// The attempt that a request is; `None` if its client does not number its attempts.
    pub(crate) fn of(headers: &HeaderMap, key: &str, path: &str, body: &[u8]) -> Option<Self> {
        let count: u32 = headers.get(HEADER)?.to_str().ok()?.parse().ok()?;
        if count > MAX_COUNT {
            return None;
        }
        let mut hasher = blake3::Hasher::new_derive_key("rialto gateway 2026-11 attempts v1");
        for part in [key.as_bytes(), path.as_bytes(), body] {
            hasher.update(&u64::try_from(part.len()).unwrap_or(u64::MAX).to_le_bytes());
            hasher.update(part);
        }
        let mut scope = [0; 16];
        hasher.finalize_xof().fill(&mut scope);
        let mut id = [0; 32];
        let own: [u8; 16] = rand::random();
        for (byte, from) in id.iter_mut().zip(scope.into_iter().chain(own)) {
            *byte = from;
        }
        Some(Self { scope, id, count })
    }
}

/// Answers an attempt: with what an earlier attempt of its call bought, or with a purchase of its own.
pub(crate) async fn run<F>(
    desk: Arc<Desk>,
    call: Call,
    presence: Presence,
    answer: impl FnOnce(Presence) -> F + Send,
) -> Result<Response, Error>
where
    F: Future<Output = Reply> + Send + 'static,
{
    let earlier = match call.count {
        0 => None,
        _ => take_over(&desk, &call).await?,
    };
    let replayed = earlier.is_some();
    let mut reader = if let Some(reader) = earlier {
        // The place of the attempt that bought is held as long as its answer lasts. The body is needed no more.
        drop((presence, answer));
        desk.metrics.replays.inc();
        reader
    } else {
        let asking = ask(Arc::clone(&desk), call.id, answer(presence));
        desk.attempts.begin(&desk, &call, asking.boxed())
    };
    let head = reader.head().await?;
    Ok(respond(head, reader, replayed))
}

/// What an earlier attempt of a call bought.
async fn take_over(desk: &Arc<Desk>, call: &Call) -> Result<Option<Reader>, Error> {
    while let Some(found) = desk.attempts.find(call.scope, call.count) {
        if let Some(reader) = Reader::attach(desk, &found, call.count) {
            return Ok(Some(reader));
        }
        // Its answer is gone. Buying it again would charge twice, unless nothing came of it.
        if desk.store.bought_under(found.id).await? {
            return Err(Error::RetryLost);
        }
        desk.attempts.forget(&found);
    }
    Ok(None)
}

/// An answer under which something may still be billed is kept, also when it is an error that asks for a retry.
async fn ask(desk: Arc<Desk>, id: [u8; 32], answer: impl Future<Output = Reply>) -> Reply {
    let mut reply = answer.await;
    if !reply.keep {
        reply.keep = desk.store.may_bill_under(id).await.unwrap_or_else(|error| {
            tracing::error!(%error, "what an attempt left open could not be read");
            true
        });
    }
    reply
}

fn respond(head: Head, mut reader: Reader, replayed: bool) -> Response {
    let mut headers = head.headers;
    if replayed {
        headers.push(("idempotent-replayed".into(), "true".into()));
    }
    let body = match reader.whole() {
        Some(bytes) => Body::from(bytes),
        None => Body::from_stream(reader.pieces()),
    };
    build(head.status, &headers, body)
}

#[cfg(test)]
mod tests {
    use axum::http::HeaderValue;

    use super::*;

    fn call(count: &str, key: &str, path: &str, body: &str) -> Option<Call> {
        let mut headers = HeaderMap::new();
        headers.insert(HEADER, HeaderValue::from_str(count).unwrap());
        Call::of(&headers, key, path, body.as_bytes())
    }

    #[test]
    fn equal_calls_share_a_scope_and_nothing_else() {
        let first = call("0", "key", "/v1/x", "body").unwrap();
        let again = call("1", "key", "/v1/x", "body").unwrap();
        assert_eq!((first.scope, first.count, again.count), (again.scope, 0, 1));
        assert_ne!(first.id, again.id);
        assert_eq!(first.id[..16], first.scope);
        for other in [
            call("0", "other", "/v1/x", "body"),
            call("0", "key", "/v1/y", "body"),
            call("0", "key", "/v1/x", "bodies"),
            call("0", "key/v1/x", "", "body"),
        ] {
            assert_ne!(other.unwrap().scope, first.scope);
        }
    }

    #[test]
    fn what_is_no_number_of_an_attempt_is_no_call() {
        for count in ["", "-1", "1.5", "101", "99999999999999999999", "one"] {
            assert!(call(count, "key", "/v1/x", "body").is_none(), "{count}");
        }
        assert!(Call::of(&HeaderMap::new(), "key", "/v1/x", b"body").is_none());
    }
}
