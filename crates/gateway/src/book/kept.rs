//! What outlives a restart of what was learnt from others: who answers, what is on sale, and how sellers did.

use std::{sync::Arc, time::Duration};

use futures::StreamExt as _;
use tokio::time::{Instant, sleep, timeout};
use tokio_util::sync::CancellationToken;

use super::meeting::{MAX_READS, note};
use crate::{Error, desk::Desk, store::now};

/// Most contacts, offers and sellers that are kept.
const MAX_KEPT: usize = 48;
const MAX_OFFERS_KEPT: usize = 1_024;
/// Most bytes of the offers that are kept.
const MAX_BYTES_KEPT: usize = 8 << 20;
const MAX_REMEMBERED: usize = 4_096;

/// Longest time between two writes, and how long a seller that is new or elsewhere waits for others.
const KEEP: Duration = Duration::from_secs(60);
const SOON: Duration = Duration::from_millis(100);

/// Pause after a write, in times of what it took.
const PAUSE: u32 = 50;

/// How long a start may take to look at the offers of before: whether their providers have a stake, the chain knows.
const RESTORING: Duration = Duration::from_secs(2);

/// Puts offers of before the last stop into the book, if they are still in force and their providers' stakes too: so that a
/// restart does not have to wait until sellers announce themselves again. They go through the same checks.
pub(crate) async fn restore(desk: &Desk) {
    match desk.store.memories().await {
        Ok(memories) => desk.book.resume(&memories),
        Err(error) => tracing::warn!(%error, "what was known of sellers cannot be read"),
    }
    let kept = desk.store.offers().await.unwrap_or_else(|error| {
        tracing::warn!(%error, "the offers of before cannot be read");
        Vec::new()
    });
    let all = futures::stream::iter(kept).for_each_concurrent(MAX_READS, async |announcement| {
        // Nobody brought them: they are as good as the peers that did before.
        if let Err(error) = note(desk, desk.node.key(), announcement).await {
            tracing::debug!(%error, "an offer of before is not taken");
        }
    });
    if timeout(RESTORING, all).await.is_err() {
        tracing::debug!("not all offers of before were looked at in time");
    }
}

/// Keeps it now and then, and soon after a seller came or moved: a gateway that is killed then still finds it again at once.
pub(crate) async fn keep_book(desk: Arc<Desk>, stop: CancellationToken) {
    loop {
        let stirred = async {
            desk.book.stirred().await;
            sleep(SOON).await;
        };
        tokio::select! {
            () = stop.cancelled() => break,
            () = sleep(KEEP) => {}
            () = stirred => {}
        }
        let started = Instant::now();
        keep(&desk).await;
        tokio::select! {
            () = stop.cancelled() => break,
            () = sleep(started.elapsed().saturating_mul(PAUSE)) => {}
        }
    }
    keep(&desk).await;
}

/// Keeps what is known of sellers: the figures they are chosen by, and who cheated.
pub(crate) async fn remember(desk: &Desk) -> Result<(), Error> {
    desk.store.set_memories(&desk.book.memories(MAX_REMEMBERED)).await
}

/// Keeps who answers now, and what is on sale. Nobody answers while this machine is cut off: then those of before stay.
async fn keep(desk: &Desk) {
    let contacts = desk.neighbours.answering(MAX_KEPT);
    let offers = desk.book.all(now(), MAX_OFFERS_KEPT, MAX_BYTES_KEPT);
    let kept = async {
        if !contacts.is_empty() {
            desk.store.set_contacts(&contacts).await?;
        }
        if !offers.is_empty() {
            desk.store.set_offers(&offers).await?;
        }
        remember(desk).await
    };
    if let Err(error) = kept.await {
        tracing::debug!(%error, "contacts, offers and figures cannot be kept");
    }
}
