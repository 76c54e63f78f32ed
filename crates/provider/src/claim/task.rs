//! The one task that redeems.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use rialto_protocol::{ChannelId, MicroDollars, claim::Claim};
use rialto_settlement::{FailedBatch, Redeemed, Wallet};
use tokio::{
    sync::{mpsc, oneshot},
    time::Instant,
};
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};

use super::{GasMeter, Pending, due, pause};
use crate::{
    Error,
    channels::Channels,
    clock,
    config::RedeemPolicy,
    metrics::Metrics,
    store::{Redemption, Store},
};

/// A buyer of a request that a crash cut off has this long at the least to say what arrived, however often is claimed.
const ORPHAN_PATIENCE: Duration = Duration::from_secs(600);

/// What others ask of the claiming task.
#[derive(Debug)]
pub(crate) enum Order {
    /// Claim everything, and tell what came of it.
    Now(oneshot::Sender<Result<Vec<Redemption>, Error>>),
    /// A channel is closing: look at once.
    Closing,
}

/// A handle by which the claiming task is woken.
#[derive(Debug, Clone)]
pub(crate) struct Orders(mpsc::Sender<Order>);

impl Orders {
    /// A handle, and what the task reads.
    pub(crate) fn new() -> (Self, mpsc::Receiver<Order>) {
        let (sender, receiver) = mpsc::channel(16);
        (Self(sender), receiver)
    }

    /// Claims everything that can be claimed. An empty list means that there was nothing.
    pub(crate) async fn now(&self) -> Result<Vec<Redemption>, Error> {
        let (sender, receiver) = oneshot::channel();
        self.0.send(Order::Now(sender)).await.map_err(|_| Error::Stopping)?;
        receiver.await.unwrap_or(Err(Error::Stopping))
    }

    /// Wakes the task because a channel is closing.
    pub(crate) fn closing(&self) {
        // A full queue means that the task is about to look anyway.
        drop(self.0.try_send(Order::Closing));
    }
}

/// Claims what is earned.
pub(crate) struct Claimer {
    pub(crate) wallet: Wallet,
    pub(crate) channels: Arc<Channels>,
    pub(crate) store: Store,
    pub(crate) policy: RedeemPolicy,
    pub(crate) metrics: Metrics,
}

impl Claimer {
    /// Looks every interval and whenever it is told to, until `stop`. A failure is tried again, after longer and longer
    /// pauses, which a close that comes nearer makes shorter; nothing is assumed about it.
    pub(crate) async fn run(self, mut orders: mpsc::Receiver<Order>, stop: CancellationToken) {
        let (mut failures, mut meter) = (0u32, GasMeter::default());
        let mut last = Instant::now();
        let mut next = last + self.policy.interval;
        loop {
            let order = tokio::select! {
                () = stop.cancelled() => return,
                order = orders.recv() => order,
                () = tokio::time::sleep_until(next) => None,
            };
            if matches!(order, Some(Order::Closing)) && failures > 0 {
                // It is told at every look at the chain: what fails is tried again as soon as the deadline demands.
                next = next.min(last + pause(self.policy.interval, failures, self.left()));
                if Instant::now() < next {
                    continue;
                }
            }
            let forced = matches!(order, Some(Order::Now(_)));
            let outcome = self.round(forced, &mut meter).await;
            failures = if outcome.is_ok() { 0 } else { failures.saturating_add(1) };
            if let Err(error) = &outcome {
                self.metrics.redeem_failures.inc();
                warn!(%error, failures, "claiming failed and will be tried again");
            }
            last = Instant::now();
            next = last + pause(self.policy.interval, failures, self.left());
            if let Some(Order::Now(answer)) = order {
                // Whoever asked may have stopped waiting; what was redeemed is stored.
                drop(answer.send(outcome));
            }
        }
    }

    /// The time until the first closing channel that owes something can be closed, as far as this machine's clock
    /// knows; `None` if there is no such channel.
    fn left(&self) -> Option<Duration> {
        let now = clock::now();
        let all = self.channels.all();
        let pending = all.iter().map(|channel| channel.pending(now));
        let closing = pending.filter(|one| one.closing && one.worth());
        let first = closing.map(|one| one.closes_at).min();
        first.map(|at| Duration::from_secs(at.saturating_sub(now)))
    }

    /// What claiming all of this costs in gas; `None` if nobody said what the chain's coin is worth, or if the chain
    /// does not say what gas costs.
    async fn cost(&self, pending: &[Pending], meter: &GasMeter) -> Option<MicroDollars> {
        let coin_price = self.policy.coin_price?;
        let channels = pending.iter().filter(|one| one.worth()).count();
        if channels == 0 {
            return None;
        }
        match self.wallet.chain().gas_price().await {
            Ok(gas_price) => Some(meter.cost(channels, gas_price, coin_price)),
            Err(error) => {
                debug!(%error, "the price of gas is not known");
                None
            }
        }
    }

    /// One look: claims what is due. `forced` claims everything.
    async fn round(&self, forced: bool, meter: &mut GasMeter) -> Result<Vec<Redemption>, Error> {
        let now = clock::now();
        let patience = self.policy.max_age.max(ORPHAN_PATIENCE);
        let mut pending = Vec::new();
        for channel in self.channels.all() {
            let settled = channel.settle_stale_orphans(now, patience).len();
            if settled > 0 {
                info!(channel = %channel.id(), settled, "billed what a crash cut off and no buyer came back for");
            }
            pending.push(channel.pending(now));
        }
        let cost = self.cost(&pending, meter).await;
        let due = due(&self.policy, &pending, cost, forced);
        if due.is_empty() {
            return Ok(Vec::new());
        }
        let claims = self.claims(&due).await?;
        if claims.is_empty() {
            return Ok(Vec::new());
        }
        let outcome = self.wallet.redeem(&claims).await;
        let mut written = Vec::new();
        for batch in outcome.redeemed {
            meter.measure(batch.gas_used, batch.channels.len());
            written.push(self.take_in(batch).await?);
        }
        for id in &outcome.skipped {
            warn!(channel = %id, "a claim was skipped by the contract");
            self.refresh(id).await?;
        }
        match outcome.failed.into_iter().next() {
            Some(FailedBatch { error, .. }) => Err(error.into()),
            None => Ok(written),
        }
    }

    /// The claims on these channels, by what the chain says of them now.
    async fn claims(&self, due: &[ChannelId]) -> Result<Vec<Claim>, Error> {
        let mut claims = Vec::new();
        for id in due {
            let Some(channel) = self.channels.get(id) else { continue };
            match self.channels.refresh(&channel).await {
                Ok(()) => {}
                Err(error) if error.is_retryable() || self.store.has_failed() => return Err(error),
                Err(error) => {
                    // One odd channel must not keep the others from being paid.
                    warn!(channel = %id, %error, "a channel cannot be read and is left out");
                    continue;
                }
            }
            if channel.state().closes_at != 0 {
                // The buyer may never come back with a statement; what it had for certain is billed before the
                // channel closes.
                channel.settle_orphans(&BTreeMap::new());
            }
            claims.extend(channel.claim());
        }
        // A claim must never be ahead of the receipts that it stands on.
        self.store.flush().await?;
        Ok(claims)
    }

    async fn take_in(&self, batch: Redeemed) -> Result<Redemption, Error> {
        let redemption = Redemption {
            transaction: batch.transaction,
            block: batch.block,
            redeemed_at: clock::now(),
            provider: batch.provider,
            royalty: batch.royalty,
            fee: batch.fee,
            channels: batch.channels,
        };
        info!(
            transaction = %redemption.transaction,
            block = redemption.block,
            provider = %redemption.provider,
            royalty = %redemption.royalty,
            fee = %redemption.fee,
            channels = redemption.channels.len(),
            gas = batch.gas_used,
            "redeemed"
        );
        self.metrics.redemptions.inc();
        // It is booked when the watcher finds it on the chain; this only keeps it from being claimed again meanwhile.
        for (id, total) in &redemption.channels {
            self.channels.note_redeemed(id, *total).await?;
        }
        Ok(redemption)
    }

    async fn refresh(&self, id: &ChannelId) -> Result<(), Error> {
        match self.channels.get(id) {
            Some(channel) => self.channels.refresh(&channel).await,
            None => Ok(()),
        }
    }
}
