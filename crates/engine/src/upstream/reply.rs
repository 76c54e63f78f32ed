//! A generated answer: the stream of the server, read as far as it is paid for.

use std::{sync::Arc, time::Duration};

use reqwest::Response;
use rialto_protocol::{job::Job, output::FinishReason};
use tokio::{
    sync::{mpsc, watch},
    time::Instant,
};

use super::{
    Shared,
    body::Ask,
    call::Trouble,
    continuation,
    delta::{self, Delta},
    events::Events,
    tokens::Input,
    writer::{End, Writer},
};
use crate::{Ending, Error, Piece};

/// Bytes of a stream beside its tokens.
const MARGIN: u64 = 1 << 20;

/// Bytes of a stream for each token: twenty alternatives are about two kilobytes.
const BYTES_PER_TOKEN: u64 = 16 << 10;

/// Time in which a stream ends after its last token.
const LAST: Duration = Duration::from_secs(2);

/// An answer that was asked for.
pub(super) struct Reply {
    pub(super) shared: Arc<Shared>,
    pub(super) job: Job,
    pub(super) ask: Ask,
    pub(super) input: Input,
    /// Most tokens.
    pub(super) limit: u64,
}

impl Reply {
    pub(super) async fn run(
        &self,
        grant: watch::Receiver<u64>,
        sender: &mpsc::Sender<Result<Piece, Error>>,
    ) -> Result<Ending, Error> {
        let writer = Writer::new(&self.shared, &self.job, self.limit, grant.clone(), sender);
        let ended = tokio::select! {
            biased;
            () = revoked(grant) => Err(End::Revoked),
            ended = self.generate(writer) => ended,
        };
        match ended {
            Ok(ending) => Ok(ending),
            Err(End::Revoked) => Ok(FinishReason::Cancelled.into()),
            Err(End::Failed(error)) => Err(error),
        }
    }

    async fn generate(&self, mut writer: Writer<'_>) -> Result<Ending, End> {
        let asked = Instant::now();
        let config = &self.shared.config;
        let mut incoming = self.open().await?;
        let mut deadline = asked + config.first_token;
        let mut reason = None;
        loop {
            let was_last = reason.is_some() || writer.is_full();
            let delta = match tokio::time::timeout_at(deadline, incoming.next()).await {
                Ok(Ok(Some(delta))) => delta,
                // Everything came; how the stream ends makes no difference to anybody.
                Err(_) | Ok(Err(Trouble::Gone(_))) if was_last => break,
                Ok(Ok(None)) => break,
                Ok(Err(trouble)) => return Err(self.trouble(trouble).into()),
                Err(_) => return Err(self.trouble(Trouble::Gone("does not go on in time")).into()),
            };
            reason = delta.finish.or(reason);
            let is_alive = delta.visible() > 0 || delta.hidden || !delta.tokens.is_empty();
            if let Some(early) = writer.take(delta).await? {
                return writer.finish(early, self.input).await;
            }
            // Events with nothing in them win no time.
            if !was_last && (reason.is_some() || writer.is_full()) {
                deadline = Instant::now() + LAST;
            } else if !was_last && is_alive {
                deadline = Instant::now() + config.between_tokens;
            }
        }
        let reason = reason.or(writer.is_full().then_some(FinishReason::Length));
        match reason {
            Some(reason) => writer.finish(reason, self.input).await,
            None => Err(self.trouble(Trouble::Gone("ended an answer in its middle")).into()),
        }
    }

    async fn open(&self) -> Result<Incoming, Error> {
        let (server, config) = (&self.shared.server, &self.shared.config);
        let opened = server.stream(self.ask.path, &self.ask.body, config.first_token).await;
        match opened {
            Ok(response) => Ok(Incoming::new(response, self.limit)),
            Err(trouble) => Err(self.trouble(trouble)),
        }
    }

    /// What went wrong, for whoever asked; a prompt that is too long is told with its length.
    fn trouble(&self, trouble: Trouble) -> Error {
        if trouble == Trouble::TooLong {
            return Error::ContextExceeded {
                prompt: self.input.units,
                limit: self.shared.limit,
            };
        }
        self.shared.met(&trouble);
        continuation::refusal(&self.job, trouble.into())
    }
}

/// Ends once nobody can pay any more.
async fn revoked(mut grant: watch::Receiver<u64>) {
    while grant.changed().await.is_ok() {}
}

/// The events of a stream, bounded.
pub(super) struct Incoming {
    response: Response,
    events: Events,
    left: u64,
}

impl Incoming {
    pub(super) fn new(response: Response, tokens: u64) -> Self {
        Self {
            response,
            events: Events::default(),
            left: MARGIN.saturating_add(tokens.saturating_mul(BYTES_PER_TOKEN)),
        }
    }

    /// The next event; `None` at the end, whether the server said that it is one or only ended.
    pub(super) async fn next(&mut self) -> Result<Option<Delta>, Trouble> {
        loop {
            if let Some(data) = self.events.next() {
                return match data.trim() {
                    "[DONE]" => Ok(None),
                    data => delta::read(data).map(Some),
                };
            }
            let chunk = self.response.chunk().await.map_err(|_| Trouble::Gone("broke off"))?;
            let Some(chunk) = chunk else { return Ok(None) };
            let length = u64::try_from(chunk.len()).unwrap_or(u64::MAX);
            let left = self.left.checked_sub(length);
            self.left = left.ok_or_else(|| Trouble::odd("a stream that does not end"))?;
            let pushed = self.events.push(&chunk);
            pushed.map_err(|bad| Trouble::odd(bad.to_string()))?;
        }
    }
}
