//! One request of a batch: bought as it would be alone, but never twice, and with more patience.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use rialto_api::{BadRequest, openai::BatchLine};
use rialto_protocol::MicroDollars;
use serde::Deserialize;

use super::outcome::Outcome;
use crate::{
    Error,
    desk::Desk,
    http::{Errand, ReplyBody, for_home, perform},
    store::{BatchRow, LineRow},
};

/// Bounds of the pause before a request is asked again.
const SHORTEST: Duration = Duration::from_millis(250);
const LONGEST: Duration = Duration::from_secs(60);
/// The pause where nobody named one.
const USUAL: Duration = Duration::from_secs(2);

/// The longest pause of a batch whose key has reached a limit: its owner may have raised it.
const LONGEST_OF_LIMIT: Duration = Duration::from_secs(5);

/// What becomes of a request after it was looked at.
pub(super) enum Fate {
    /// It has its outcome.
    Ended(Outcome),
    /// Nothing can be billed for it: it is asked again after a pause.
    Again(Duration),
    /// It is asked again after a pause, and so is every other one: the key has reached a limit.
    Pause(Duration),
}

/// Runs a request to its outcome, or finds that it has to be asked again.
pub(super) async fn run(desk: &Arc<Desk>, batch: &BatchRow, line: LineRow) -> Fate {
    match attempt(desk, batch, &line).await {
        Ok(outcome) => Fate::Ended(outcome),
        Err(error) => settle(desk, batch, &line, error).await,
    }
}

async fn attempt(desk: &Arc<Desk>, batch: &BatchRow, line: &LineRow) -> Result<Outcome, Error> {
    let key = desk.store.key(&batch.key).await?.filter(|key| key.revoked_at.is_none());
    let key = key.ok_or(Error::BadKey)?;
    let body = read(desk, batch, line).await?;
    let home = for_home(desk, &key, batch.endpoint, &body)?;
    let stays = home.as_ref().is_some_and(|asked| !asked.overflows);
    let terms = if line.model.is_empty() || stays {
        // It cannot be read, and asking says why; or nothing is bought, so that it may be asked again after a crash.
        None
    } else {
        let terms = desk.batches.auctions.terms(desk, batch, line).await?;
        desk.store.begin_line(line.id, terms.posted).await?;
        Some(terms)
    };
    let errand = Errand {
        endpoint: batch.endpoint,
        key,
        idempotency: line.id,
        terms,
        home,
    };
    let reply = perform(desk, errand, body).await?;
    match reply.body {
        ReplyBody::Whole(bytes) => Ok(Outcome::answered(line, reply.status, &bytes)),
        ReplyBody::Stream(_) => Err(no_streams()),
    }
}

fn no_streams() -> Error {
    BadRequest::unsupported("stream", "the answers of a batch come in a file").into()
}

/// The body of a request, from the file.
async fn read(desk: &Desk, batch: &BatchRow, line: &LineRow) -> Result<Bytes, Error> {
    #[derive(Deserialize)]
    struct Peek {
        stream: Option<bool>,
    }
    let text = desk
        .batches
        .folder
        .read_part(&batch.input_file, line.offset, line.length);
    let read = BatchLine::parse(&text.await?, batch.endpoint)?;
    let body = read.body.get();
    if serde_json::from_str::<Peek>(body).is_ok_and(|peek| peek.stream == Some(true)) {
        return Err(no_streams());
    }
    Ok(Bytes::from(body.to_owned()))
}

/// What an error means for a request that can wait: those that pass are waited for, if nothing can be billed.
async fn settle(desk: &Desk, batch: &BatchRow, line: &LineRow, error: Error) -> Fate {
    let pause = match &error {
        _ if error.may_be_charged() => None,
        Error::BudgetExhausted { needed, .. } => wait_for_holds(desk, batch, *needed).await,
        _ => {
            let public = error.public();
            let named = public.retry_ms.map_or(USUAL, Duration::from_millis);
            public.retry.then(|| named.clamp(SHORTEST, LONGEST))
        }
    };
    let Some(pause) = pause else {
        tracing::debug!(batch = %batch.id, line = line.number, %error, "a request of a batch failed");
        return Fate::Ended(Outcome::failed(line, error));
    };
    let again = |pause: Duration| {
        if matches!(error, Error::LimitReached(_)) {
            Fate::Pause(pause.min(LONGEST_OF_LIMIT))
        } else {
            Fate::Again(pause)
        }
    };
    match desk.store.release_line(line.id).await {
        Ok(true) => again(pause),
        // One of the sellers that were asked may still bill, or it was never marked.
        Ok(false) => match desk.store.is_waiting(line.id).await {
            Ok(true) => again(pause),
            _ => Fate::Ended(Outcome::failed(line, error)),
        },
        Err(store) => {
            tracing::error!(batch = %batch.id, line = line.number, error = %store, "a request could not be put back");
            Fate::Ended(Outcome::failed(line, error))
        }
    }
}

/// Whether a request that its key cannot pay for now can be paid for once others under way have their receipts, which cost
/// less than what is held for them.
async fn wait_for_holds(desk: &Desk, batch: &BatchRow, needed: MicroDollars) -> Option<Duration> {
    let key = desk.store.key(&batch.key).await.ok().flatten()?;
    let budget = key.budget?.to_nano();
    let fits = budget.saturating_sub(key.spent) >= needed.to_nano();
    // A hold that no request under way can free any more, such as one for a receipt that is missing, is not waited for.
    let under_way = desk.places.available_permits() < desk.config.max_requests;
    (fits && under_way && key.held.0 > 0).then_some(USUAL)
}
