//! Requests for models of the owner's own servers.

use std::{pin::Pin, sync::Arc, time::Duration};

use axum::http::header;
use bytes::Bytes;
use futures::{StreamExt as _, stream::BoxStream};
use tokio::time::{Instant, Sleep, sleep};

use super::{
    error,
    serving::{Caller, Presence, Reply, ReplyBody},
};
use crate::{
    Error,
    config::ms,
    desk::Desk,
    limits::{self, Use},
    metrics::TokenLabels,
    own::{Answer, Meter, Outcome, Request, Units, Wanted, whole},
    store::{KeyRow, now},
};

/// Longest answer that does not come in pieces.
const MAX_ANSWER: usize = 64 << 20;
/// How much longer than a first piece an answer may take that comes whole.
const WHOLE: u32 = 10;

/// What an answer of an own server costs, in dollars.
const NOTHING: &str = "0.000000000";

/// A request for a model of the owner's own servers.
pub(crate) struct ForOwn {
    wanted: Wanted,
    /// Whether the market is asked if they have no room.
    pub(crate) overflows: bool,
}

impl ForOwn {
    /// The model, as it is asked for.
    pub(super) fn model(&self) -> &str {
        &self.wanted.model
    }
}

/// What the owner's servers should know of a request; `None` if it is not for them. One that names sellers, or whose key
/// does, is for those. What is for them and not understood is refused: it must not go to the market by that.
pub(super) fn for_own(desk: &Desk, key: &KeyRow, operation: &str, body: &[u8]) -> Result<Option<ForOwn>, Error> {
    if desk.own.is_empty() || operation == "infer" {
        return Ok(None);
    }
    let usual = |field| key.provider.as_ref().is_some_and(|usual| usual.get(field).is_some());
    let wanted = match Wanted::read(body) {
        Ok(wanted) => wanted,
        Err(bad) => {
            let stays = Wanted::model_of(body).and_then(|model| desk.own.overflows(&model)) == Some(false);
            return if stays { Err(bad.into()) } else { Ok(None) };
        }
    };
    if wanted.names_sellers() || usual("only") || usual("order") {
        return Ok(None);
    }
    let Some(overflows) = desk.own.overflows(&wanted.model) else {
        return Ok(None);
    };
    let overflows = overflows && desk.book.resolve(&wanted.model).is_some();
    Ok(Some(ForOwn { wanted, overflows }))
}

/// What came of asking the owner's servers.
pub(super) enum Served {
    /// An answer.
    Here(Reply),
    /// They have no room: the market is asked.
    Elsewhere(Box<Caller>),
}

/// Asks the owner's servers.
pub(super) async fn serve(
    desk: &Arc<Desk>,
    caller: Caller,
    bytes: &Bytes,
    path: &str,
    asked: ForOwn,
) -> Result<Served, Error> {
    let ForOwn { wanted, overflows } = asked;
    let request = Request {
        path,
        bytes,
        wanted: &wanted,
    };
    let usage = Usage::begin(desk, &caller.key, wanted.most(bytes, desk.config.default_max_tokens)).await?;
    let patience = ms(desk.config.timeouts.first_frame_ms);
    let patience = if wanted.streams() {
        patience
    } else {
        patience.saturating_mul(WHOLE)
    };
    let answer = match desk.own.ask(&request, patience, overflows).await? {
        Outcome::Answered(answer) => answer,
        Outcome::Overflow => return Ok(Served::Elsewhere(Box::new(caller))),
    };
    let head = Head::of(&answer);
    if head.streamed {
        let passing = Passing {
            answer,
            meter: Meter::new(wanted.reads_usage()),
            quiet: Quiet::new(desk),
            presence: caller.presence,
            usage,
            begun: false,
            ended: false,
        };
        return Ok(Served::Here(head.reply(ReplyBody::Stream(passing.pieces()))));
    }
    let body = collect(desk, answer).await?;
    caller.presence.first_output();
    if head.status < 400 {
        usage.count(whole(&body));
        caller.presence.ended("ok");
    } else {
        caller.presence.ended("refused");
    }
    Ok(Served::Here(head.reply(ReplyBody::Whole(body))))
}

/// What is known of an answer before its body.
struct Head {
    status: u16,
    kind: String,
    streamed: bool,
}

impl Head {
    fn of(answer: &Answer) -> Self {
        let kind = answer.headers().get(header::CONTENT_TYPE);
        let kind = kind.and_then(|kind| kind.to_str().ok()).unwrap_or("application/json");
        Self {
            status: answer.status(),
            kind: kind.to_owned(),
            streamed: kind.starts_with("text/event-stream"),
        }
    }

    fn reply(self, body: ReplyBody) -> Reply {
        let mut headers = vec![
            ("content-type".into(), self.kind),
            ("x-rialto-provider".into(), "own".into()),
            ("x-rialto-cost".into(), NOTHING.into()),
        ];
        if self.streamed {
            headers.push(("cache-control".into(), "no-cache".into()));
            headers.push(("x-accel-buffering".into(), "no".into()));
        }
        Reply {
            status: self.status,
            headers,
            body,
            // Nothing was bought; but a client that names its request means one answer.
            keep: self.status < 400,
        }
    }
}

async fn collect(desk: &Desk, mut answer: Answer) -> Result<Bytes, Error> {
    let failed = |reason: &str| Error::OwnServerFailed { reason: reason.into() };
    let mut quiet = Quiet::new(desk);
    let mut next = async || quiet.piece(&mut answer).await.map_err(failed);
    let Some(first) = next().await? else {
        return Ok(Bytes::new());
    };
    let Some(second) = next().await? else {
        return Ok(first);
    };
    let mut all = bytes::BytesMut::from(first);
    let mut piece = Some(second);
    while let Some(more) = piece {
        if all.len().saturating_add(more.len()) > MAX_ANSWER {
            return Err(failed("its answer is too long"));
        }
        all.extend_from_slice(&more);
        piece = next().await?;
    }
    Ok(all.freeze())
}

/// Waits for the pieces of an answer, for each so long at most. One timer does for all: it is set when it goes off, and not with
/// each piece.
struct Quiet {
    patience: Duration,
    timer: Pin<Box<Sleep>>,
}

impl Quiet {
    fn new(desk: &Desk) -> Self {
        let patience = ms(desk.config.timeouts.frame_ms);
        Self {
            patience,
            timer: Box::pin(sleep(patience)),
        }
    }

    /// The next piece; `None` at the end. Fails if it does not come.
    async fn piece(&mut self, answer: &mut Answer) -> Result<Option<Bytes>, &'static str> {
        let until = Instant::now() + self.patience;
        loop {
            tokio::select! {
                biased;
                piece = answer.piece() => return piece.map_err(|_| "it broke off"),
                () = &mut self.timer => {
                    if self.timer.deadline() >= until {
                        return Err("it does not answer in time");
                    }
                    self.timer.as_mut().reset(until);
                }
            }
        }
    }
}

/// What a request used, for the metrics and the limits of its key.
struct Usage {
    desk: Arc<Desk>,
    /// The key, if its tokens are limited.
    limited: Option<String>,
}

impl Usage {
    /// Refuses a request whose key is at a limit. What several requests at a time use is known when they end: the limit of
    /// requests at a time bounds how far they can go beyond.
    async fn begin(desk: &Arc<Desk>, key: &KeyRow, most: u64) -> Result<Self, Error> {
        let limits = &key.limits;
        let limited = limits.tokens_a_minute.is_some() || limits.tokens_a_day.is_some();
        if limited {
            let wanted = Use {
                tokens: most,
                ..Use::default()
            };
            let state = desk.store.used(&key.id).await?;
            limits::check(limits, &state, wanted, now()).map_err(Error::LimitReached)?;
        }
        Ok(Self {
            desk: Arc::clone(desk),
            limited: limited.then(|| key.id.clone()),
        })
    }

    fn count(&self, units: Units) {
        for (gen_ai_token_type, units) in [("input", units.input), ("output", units.output)] {
            let labels = TokenLabels { gen_ai_token_type };
            self.desk.metrics.tokens.get_or_create(&labels).inc_by(units);
        }
        if let Some(key) = self.limited.clone() {
            let desk = Arc::clone(&self.desk);
            self.desk.tasks.spawn(async move {
                let tokens = units.input.saturating_add(units.output);
                if let Err(error) = desk.store.count_tokens(&key, tokens).await {
                    tracing::warn!(%error, "what a key used was not counted");
                }
            });
        }
    }
}

/// A stream on its way.
struct Passing {
    answer: Answer,
    quiet: Quiet,
    meter: Meter,
    presence: Presence,
    usage: Usage,
    begun: bool,
    ended: bool,
}

impl Passing {
    fn pieces(self) -> BoxStream<'static, Bytes> {
        futures::stream::unfold(self, async |mut passing| {
            let bytes = passing.next().await?;
            Some((bytes, passing))
        })
        .boxed()
    }

    async fn next(&mut self) -> Option<Bytes> {
        while !self.ended {
            let bytes = match self.quiet.piece(&mut self.answer).await {
                Ok(Some(piece)) => self.pass(piece),
                Ok(None) => self.end(),
                Err(reason) => self.fail(reason),
            };
            if !bytes.is_empty() {
                return Some(bytes);
            }
        }
        None
    }

    fn pass(&mut self, piece: Bytes) -> Bytes {
        if !self.begun {
            self.begun = true;
            self.presence.first_output();
        }
        self.meter.pass(piece)
    }

    fn end(&mut self) -> Bytes {
        if !self.meter.has_ended() {
            return self.fail("it broke off");
        }
        self.ended = true;
        self.presence.ended("ok");
        self.meter.rest()
    }

    /// No `[DONE]` follows, so that no client takes a part for the whole.
    fn fail(&mut self, reason: &str) -> Bytes {
        self.ended = true;
        let error = Error::OwnServerFailed { reason: reason.into() };
        self.presence.ended(error.public().code);
        error::event(&error).into()
    }
}

impl Drop for Passing {
    fn drop(&mut self) {
        self.usage.count(self.meter.units());
    }
}

#[cfg(test)]
mod tests {
    use rialto_protocol::NanoDollars;

    use super::super::model_list::dollars;

    #[test]
    fn nothing_is_written_as_every_cost_is() {
        assert_eq!(super::NOTHING, dollars(NanoDollars::ZERO));
    }
}
