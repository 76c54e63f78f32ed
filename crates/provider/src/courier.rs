//! Relaying: a buyer that has stablecoin and no coin for gas signs an order, and the provider that it wants to trade with
//! sends it. Bounded in what is sent, how often, and what it costs.

use std::{
    collections::{BTreeSet, VecDeque},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use rialto_protocol::{
    Address, ChannelParams, Digest, MicroDollars,
    order::{Order, SignedOrder, TokenDomain},
    wire::{OffersResponse, Refusal, RefusalCode},
};
use rialto_settlement::{Confirmed, Error as ChainError, Wallet};
use tokio::{sync::OnceCell, time::Instant};
use tracing::{info, warn};

use crate::{claim::Orders, config::RelayPolicy, lent::Lent, room::Room};

/// Over which orders are counted.
const WINDOW: Duration = Duration::from_secs(60);

/// Advice to a buyer that was early, in milliseconds.
const RETRY: u64 = 5_000;

/// Sends the orders of buyers.
pub(crate) struct Courier {
    wallet: Wallet,
    room: Arc<Room>,
    /// Wakes the claiming task.
    claims: Orders,
    /// The stablecoin's domain never changes.
    token: OnceCell<TokenDomain>,
    log: Arc<Mutex<Log>>,
    lent: Arc<Lent>,
}

/// What was sent lately, and for whom something is being sent.
#[derive(Debug, Default)]
struct Log {
    sent: VecDeque<(Instant, Address)>,
    busy: BTreeSet<Address>,
}

/// An order that counts as under way until this is dropped.
struct Turn {
    log: Arc<Mutex<Log>>,
    payer: Address,
}

impl Drop for Turn {
    fn drop(&mut self) {
        let mut log = self.log.lock().unwrap_or_else(PoisonError::into_inner);
        log.busy.remove(&self.payer);
    }
}

impl Log {
    /// Counts an order, unless there were too many.
    fn admit(&mut self, payer: Address, policy: &RelayPolicy, now: Instant) -> bool {
        while self
            .sent
            .front()
            .is_some_and(|(at, _)| now.duration_since(*at) >= WINDOW)
        {
            self.sent.pop_front();
        }
        let own = self.sent.iter().filter(|(_, sender)| *sender == payer).count();
        let crowded = self.sent.len() >= policy.orders_a_minute || own >= policy.orders_of_payer;
        if crowded || !self.busy.insert(payer) {
            return false;
        }
        self.sent.push_back((now, payer));
        true
    }
}

impl Courier {
    pub(crate) fn new(wallet: Wallet, room: Arc<Room>, claims: Orders) -> Self {
        Self {
            wallet,
            room,
            claims,
            token: OnceCell::new(),
            log: Arc::default(),
            lent: Arc::default(),
        }
    }

    /// Sends an order that opens a channel, or says why not; the channel may be used as soon as the order was tried.
    pub(crate) async fn begin(&self, signed: &SignedOrder) -> OffersResponse {
        match self.try_begin(signed).await {
            Ok(credit) => OffersResponse::Begun { credit },
            Err(refusal) => OffersResponse::NotRelayed(refusal),
        }
    }

    async fn try_begin(&self, signed: &SignedOrder) -> Result<MicroDollars, Refusal> {
        let (Order::Open {
            channel: params,
            amount,
            ..
        }
        | Order::DepositAndOpen {
            channel: params,
            amount,
            ..
        }) = &signed.order
        else {
            return Err(bad("only an order that opens a channel is begun with"));
        };
        let policy = self.room.config.relay;
        let turn = self.check(signed, &policy).await?;
        let tried = self.wallet.try_order(signed).await;
        if tried.map_err(|error| refusal(&error))?.cost > policy.max_cost {
            return Err(Refusal::new(RefusalCode::Busy, "gas is too dear now").with_retry_after(60_000));
        }
        let payer = signed.order.payer();
        let loan = self
            .lent
            .lend(payer, &policy)
            .ok_or_else(|| Refusal::new(RefusalCode::Busy, "nothing more is lent").with_retry_after(RETRY))?;
        let credit = loan.amount.min(*amount);
        let channel = self.room.channels.await_open(params, *amount, credit).await;
        let channel = channel.inspect_err(|_| self.lent.take_back(&loan))?;
        info!(channel = %channel.id(), %payer, %credit, "a channel is worked for before the chain knows it");
        let (wallet, room, lent, signed) = (
            self.wallet.clone(),
            Arc::clone(&self.room),
            Arc::clone(&self.lent),
            *signed,
        );
        // The next one of this payer need not wait for a block either; what is lent bounds it.
        drop(turn);
        tokio::spawn(async move {
            let sent = wallet.relay(&signed, policy.max_cost).await;
            room.channels.await_no_more(&channel).await;
            if channel.state().is_open() {
                lent.take_back(&loan);
            } else {
                warn!(channel = %channel.id(), %payer, ?sent, "a channel that was worked for did not get into a block");
            }
        });
        Ok(credit)
    }

    /// Sends an order, or says why not.
    pub(crate) async fn carry(&self, signed: &SignedOrder) -> OffersResponse {
        let payer = signed.order.payer();
        match self.try_carry(signed).await {
            Ok(transaction) => {
                info!(%payer, %transaction, "a buyer's order was relayed");
                OffersResponse::Relayed { transaction }
            }
            Err(refusal) => {
                info!(%payer, %refusal, "a buyer's order was not relayed");
                OffersResponse::NotRelayed(refusal)
            }
        }
    }

    /// Whether an order may be sent for its payer, whose turn it is then.
    async fn check(&self, signed: &SignedOrder, policy: &RelayPolicy) -> Result<Turn, Refusal> {
        if policy.max_cost == 0 {
            return Err(bad("this provider relays no orders"));
        }
        if self.room.closing.is_cancelled() {
            return Err(Refusal::new(RefusalCode::ShuttingDown, "the provider is stopping"));
        }
        self.judge(signed, policy)?;
        // Before the chain is asked: what nobody signed must not cost a look-up.
        let token = self.token_domain().await?;
        signed
            .verify(token)
            .map_err(|_| bad("the payer's own key has not signed this order"))?;
        self.turn(signed.order.payer(), policy)
    }

    async fn try_carry(&self, signed: &SignedOrder) -> Result<Digest, Refusal> {
        let policy = self.room.config.relay;
        let _turn = self.check(signed, &policy).await?;
        let sent = match &signed.order {
            Order::RequestClose { channel, .. } => self.close(signed, channel, &policy).await,
            _ => {
                let sent = self.wallet.relay(signed, policy.max_cost).await;
                sent.map_err(|error| refusal(&error))
            }
        };
        sent.map(|confirmed| confirmed.transaction)
    }

    /// Asks the escrow to close a channel, or closes it if that was asked for long enough ago. Between the two, what is
    /// earned is claimed as after any request to close; a close that would lose some of it waits for that.
    async fn close(
        &self,
        signed: &SignedOrder,
        channel: &ChannelParams,
        policy: &RelayPolicy,
    ) -> Result<Confirmed, Refusal> {
        let state = self.wallet.chain().channel(channel.id()).await;
        let state = state.map_err(|error| refusal(&error))?;
        let sent = if state.closes_at == 0 {
            self.wallet.relay(signed, policy.max_cost).await
        } else {
            let known = self.room.channels.get(&channel.id());
            if known.is_some_and(|known| known.has_more()) {
                self.claims.closing();
                let words = "what is earned on the channel is claimed first";
                return Err(Refusal::new(RefusalCode::Busy, words).with_retry_after(RETRY));
            }
            self.wallet.finalize_close_within(channel, policy.max_cost).await
        };
        sent.map_err(|error| refusal(&error))
    }

    /// Whether it is an order that this provider gains from.
    fn judge(&self, signed: &SignedOrder, policy: &RelayPolicy) -> Result<(), Refusal> {
        match &signed.order {
            Order::Open { channel, amount, .. } | Order::DepositAndOpen { channel, amount, .. } => {
                self.judge_open(channel, *amount, policy)
            }
            // Whoever opened a channel without a coin must be able to close it without one.
            Order::RequestClose { channel, .. } => self.is_ours(channel),
            Order::Deposit { .. } | Order::Withdraw { .. } => {
                Err(bad("only orders about channels with this provider are relayed"))
            }
        }
    }

    fn judge_open(&self, channel: &ChannelParams, amount: MicroDollars, policy: &RelayPolicy) -> Result<(), Refusal> {
        self.is_ours(channel)?;
        if !self.room.shelves.contains_key(&channel.model) {
            return Err(Refusal::new(RefusalCode::UnknownModel, "the model is not sold here"));
        }
        if amount < policy.min_amount {
            return Err(bad(&format!(
                "a channel that is opened at the provider's cost must hold at least {}",
                policy.min_amount
            )));
        }
        Ok(())
    }

    fn is_ours(&self, channel: &ChannelParams) -> Result<(), Refusal> {
        if channel.provider == self.wallet.address() {
            Ok(())
        } else {
            Err(bad("the channel is with another provider"))
        }
    }

    async fn token_domain(&self) -> Result<&TokenDomain, Refusal> {
        let read = async || self.wallet.chain().token_domain().await;
        self.token.get_or_try_init(read).await.map_err(|error| refusal(&error))
    }

    fn turn(&self, payer: Address, policy: &RelayPolicy) -> Result<Turn, Refusal> {
        let mut log = self.log.lock().unwrap_or_else(PoisonError::into_inner);
        if !log.admit(payer, policy, Instant::now()) {
            return Err(Refusal::new(RefusalCode::Busy, "too many orders are being relayed").with_retry_after(RETRY));
        }
        Ok(Turn {
            log: Arc::clone(&self.log),
            payer,
        })
    }
}

fn bad(message: &str) -> Refusal {
    Refusal::new(RefusalCode::BadRequest, message)
}

/// What a buyer is told of an error of the chain.
fn refusal(error: &ChainError) -> Refusal {
    match error {
        ChainError::Reverted { .. } | ChainError::Invalid { .. } => bad(&error.to_string()),
        // The buyer's money, or this provider's coins: the words tell which, and a buyer can only mend the first.
        ChainError::InsufficientFunds { .. } => bad(&error.to_string()),
        ChainError::TooExpensive { .. } => {
            Refusal::new(RefusalCode::Busy, "gas is too dear now").with_retry_after(60_000)
        }
        other => {
            warn!(error = %other, "an order could not be relayed");
            Refusal::new(RefusalCode::Busy, "the chain does not answer this provider").with_retry_after(RETRY)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn orders_are_counted_by_payer_and_in_all_and_one_at_a_time() {
        let policy = RelayPolicy {
            orders_a_minute: 3,
            orders_of_payer: 2,
            ..RelayPolicy::default()
        };
        let (mut log, payer) = (Log::default(), |number| Address([number; 20]));
        let admit = |log: &mut Log, number| log.admit(payer(number), &policy, Instant::now());
        assert!(admit(&mut log, 1));
        assert!(!admit(&mut log, 1), "one at a time");
        log.busy.clear();
        assert!(admit(&mut log, 1));
        log.busy.clear();
        assert!(!admit(&mut log, 1), "two a minute");
        assert!(admit(&mut log, 2));
        assert!(!admit(&mut log, 3), "three in all");
        tokio::time::advance(WINDOW).await;
        log.busy.clear();
        assert!(admit(&mut log, 1) && admit(&mut log, 3));
    }
}
