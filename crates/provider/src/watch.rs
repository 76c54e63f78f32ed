//! Watching the chain: top-ups, closes and redemptions of our channels.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use rialto_protocol::{Address, ChannelId};
use rialto_settlement::{Chain, ChainEvent, EventKind};
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

/// Under this name the store keeps the next block to read.
const NEXT_BLOCK: &str = "next_block";

/// Follows the chain's events.
pub(crate) struct Watcher {
    pub(crate) chain: Chain,
    pub(crate) channels: Arc<Channels>,
    pub(crate) store: Store,
    pub(crate) orders: Orders,
    pub(crate) provider: Address,
    pub(crate) interval: Duration,
    pub(crate) metrics: Metrics,
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
            self.metrics.chain_reachable.set(i64::from(reachable));
            tokio::select! {
                () = stop.cancelled() => return,
                () = tokio::time::sleep(self.interval) => {}
            }
        }
    }

    async fn look(&self) -> Result<(), Error> {
        let mark = self.store.mark(NEXT_BLOCK).await?;
        let from = if mark == 0 { self.begin().await? } else { mark };
        let (events, next) = self.chain.events(from).await?;
        self.take_in(events).await?;
        if next != mark {
            let write = Write::Mark(NEXT_BLOCK, next);
            self.store.submit(vec![write]).durable().await?;
        }
        Ok(())
    }

    /// Where to begin without a mark: now, once every channel that is known was asked for.
    async fn begin(&self) -> Result<u64, Error> {
        let now = self.chain.block_number().await?.max(1);
        for channel in self.channels.all() {
            self.refresh(&channel.id()).await?;
        }
        Ok(now)
    }

    async fn take_in(&self, events: Vec<ChainEvent>) -> Result<(), Error> {
        let mut changed = BTreeSet::new();
        for event in events {
            match event.kind {
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
                    ref channels,
                    ..
                } if provider == self.provider => {
                    changed.extend(channels.iter().map(|(channel, _)| *channel));
                    // A redeem whose outcome was not known in time is found here.
                    let redemption = Redemption {
                        transaction: event.transaction,
                        block: event.block,
                        redeemed_at: clock::now(),
                        provider: amount,
                        royalty,
                        fee,
                        channels: channels.clone(),
                    };
                    let write = Write::Redemption(Box::new(redemption));
                    self.store.submit(vec![write]).durable().await?;
                }
                EventKind::Deposited { .. }
                | EventKind::Withdrawn { .. }
                | EventKind::CreditClaimed { .. }
                | EventKind::Opened { .. }
                | EventKind::Redeemed { .. } => {}
            }
        }
        for id in changed {
            self.refresh(&id).await?;
        }
        Ok(())
    }

    async fn refresh(&self, id: &ChannelId) -> Result<(), Error> {
        let Some(channel) = self.channels.get(id) else {
            return Ok(());
        };
        self.channels.refresh(&channel).await?;
        if channel.state().closes_at != 0 {
            info!(channel = %id, closes_at = channel.state().closes_at, "a channel is closing, claiming at once");
            self.orders.closing();
        }
        Ok(())
    }
}
