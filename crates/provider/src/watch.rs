//! Watching the chain: top-ups, closes and redemptions of our channels, and blocks that were replaced.

use std::{
    collections::BTreeSet,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use rialto_protocol::{Address, ChannelId};
use rialto_settlement::{Chain, ChainEvent, EventKind, Step, Trail};
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};

use crate::{
    Error,
    channels::Channels,
    claim::Orders,
    clock,
    metrics::Metrics,
    store::{Redemption, Store, Write},
};

/// Under this name an earlier version kept the next block to read.
const NEXT_BLOCK: &str = "next_block";

/// Between two looks at every channel, whatever the events say.
const RECHECK: Duration = Duration::from_secs(600);

/// The same while the events cannot be followed: a request to close must not stay hidden for longer than it takes.
const RECHECK_FAILING: Duration = Duration::from_secs(30);

/// A channel that was found closed in this many seconds is looked at again after a reorganisation. No chain replaces
/// blocks of yesterday.
const CLOSED_LATELY: u64 = 24 * 3_600;

/// Follows the chain's events.
pub(crate) struct Watcher {
    pub(crate) chain: Chain,
    pub(crate) channels: Arc<Channels>,
    pub(crate) store: Store,
    pub(crate) orders: Orders,
    pub(crate) provider: Address,
    pub(crate) interval: Duration,
    pub(crate) metrics: Metrics,
    /// When every channel was last looked at.
    pub(crate) checked: Mutex<Option<Instant>>,
}

impl Watcher {
    /// Looks every interval until `stop`. While the chain is away it only says so, once.
    pub(crate) async fn run(self, stop: CancellationToken) {
        let mut reachable = true;
        loop {
            match self.look().await {
                Ok(()) if !reachable => {
                    info!("the chain is reachable again");
                    reachable = true;
                }
                Ok(()) => {}
                Err(error) if reachable => {
                    warn!(%error, "the chain cannot be watched, open channels go on and claims wait");
                    reachable = false;
                }
                Err(error) => debug!(%error, "the chain cannot be watched"),
            }
            if !reachable && self.is_due(RECHECK_FAILING) {
                self.recheck().await;
            }
            self.metrics.chain_reachable.set(i64::from(reachable));
            tokio::select! {
                () = stop.cancelled() => return,
                () = tokio::time::sleep(self.interval) => {}
                () = self.channels.redeemed() => {}
            }
        }
    }

    /// Asks the chain about every channel without following it.
    async fn recheck(&self) {
        for channel in self.channels.all() {
            if let Err(error) = self.channels.refresh(&channel).await {
                debug!(channel = %channel.id(), %error, "a channel could not be refreshed");
            }
            if channel.state().closes_at != 0 {
                self.orders.closing();
            }
        }
    }

    /// Goes on to the newest block, and looks at every channel of which something was learnt.
    async fn look(&self) -> Result<(), Error> {
        if self.is_due(RECHECK) {
            self.channels.doubt_all();
        }
        // Before the way to the newest block: what was learnt until now is of that block or of an older one.
        let mut unsure = self.channels.take_unsure();
        let looked = self.look_at(&mut unsure).await;
        for id in unsure {
            // Left over from a failure.
            self.channels.doubt(id);
        }
        looked
    }

    async fn look_at(&self, unsure: &mut BTreeSet<ChannelId>) -> Result<(), Error> {
        let trail = self.follow(unsure).await?;
        let Some(block) = trail.end() else { return Ok(()) };
        while let Some(id) = unsure.first().copied() {
            if self.channels.get(&id).is_none() {
                self.channels.reopen(id, block).await?;
            }
            if let Some(channel) = self.channels.get(&id) {
                self.channels.correct(&channel, block).await?;
                let closes_at = channel.state().closes_at;
                if closes_at != 0 {
                    info!(channel = %id, closes_at, "a channel is closing, claiming at once");
                    self.orders.closing();
                }
            }
            unsure.remove(&id);
        }
        Ok(())
    }

    /// Reads events up to the newest block; collects the channels that they are about.
    async fn follow(&self, changed: &mut BTreeSet<ChannelId>) -> Result<Trail, Error> {
        let mut trail = match self.store.trail().await? {
            Some(trail) => trail,
            None => self.begin().await?,
        };
        loop {
            let (step, next) = trail.step(&self.chain).await?;
            if next == trail {
                return Ok(trail);
            }
            let mut writes = Vec::new();
            match step {
                Step::Forward(events) => self.take_in(events, changed, &mut writes),
                Step::Reorganised { from_block } => {
                    self.start_over(from_block, &trail).await?;
                    changed.extend(self.channels.take_unsure());
                    // Those that still stand come again with the events.
                    writes.push(Write::Unredeem(from_block));
                }
            }
            writes.push(Write::Trail(Box::new(next.clone())));
            self.store.submit(writes).durable().await?;
            trail = next;
        }
    }

    /// Where to begin without a trail: where an earlier version stopped, or now, because every channel that is known is
    /// looked at first.
    async fn begin(&self) -> Result<Trail, Error> {
        let mark = self.store.mark(NEXT_BLOCK).await?;
        let now = self.chain.block_number().await?.max(1);
        Ok(Trail::starting_at(if mark == 0 { now } else { mark.min(now) }))
    }

    /// Whether every channel is to be looked at, as it is from time to time whatever the events say.
    fn is_due(&self, interval: Duration) -> bool {
        let mut checked = self.checked.lock().unwrap_or_else(PoisonError::into_inner);
        let due = checked.is_none_or(|last| last.elapsed() >= interval);
        if due {
            *checked = Some(Instant::now());
        }
        due
    }

    /// The chain from a block on is another one: nothing that its events said is believed any more.
    async fn start_over(&self, from_block: u64, trail: &Trail) -> Result<(), Error> {
        let read_to = trail.end();
        warn!(
            from_block,
            read_to, "the chain was reorganised, its channels are read again"
        );
        self.metrics.reorganisations.inc();
        // Without a block in common it is another chain altogether.
        let since = match from_block <= trail.first_block() {
            true => 0,
            false => clock::now().saturating_sub(CLOSED_LATELY),
        };
        self.channels.correct_closed(since).await?;
        self.channels.distrust_all();
        Ok(())
    }

    /// Collects the channels that events are about, and the redemptions, which are booked from here alone: a redeem
    /// whose outcome was not known in time is found too, and one that a reorganisation dropped is not kept.
    fn take_in(&self, events: Vec<ChainEvent>, changed: &mut BTreeSet<ChannelId>, writes: &mut Vec<Write>) {
        for event in events {
            match event.kind {
                EventKind::Opened { params, .. } => {
                    // Known already if a reorganisation had dropped it.
                    changed.insert(params.id());
                }
                EventKind::ToppedUp { channel, .. }
                | EventKind::CloseRequested { channel, .. }
                | EventKind::CloseCancelled { channel, .. }
                | EventKind::Closed { channel, .. } => {
                    changed.insert(channel);
                }
                EventKind::Redeemed {
                    provider,
                    amount,
                    royalty,
                    fee,
                    channels,
                    ..
                } if provider == self.provider => {
                    changed.extend(channels.iter().map(|(channel, _)| *channel));
                    writes.push(Write::Redemption(Box::new(Redemption {
                        transaction: event.transaction,
                        block: event.block,
                        redeemed_at: clock::now(),
                        provider: amount,
                        royalty,
                        fee,
                        channels,
                    })));
                }
                EventKind::Deposited { .. }
                | EventKind::Withdrawn { .. }
                | EventKind::CreditClaimed { .. }
                | EventKind::FeesClaimed { .. }
                | EventKind::Paused { .. }
                | EventKind::Unpaused
                | EventKind::Redeemed { .. } => {}
            }
        }
    }
}
