//! The frames of one trade.

use std::{sync::Arc, time::Duration};

use rialto_network::{FrameReceiver, FrameSender};
use rialto_protocol::{
    MicroDollars, NanoDollars, SignedVoucher, Usage, Voucher,
    output::Output,
    wire::{BuyerFrame, MAX_CATCH_UP, Refusal, RefusalCode, SellerFrame, TradeRequest},
};
use tokio::{
    sync::mpsc,
    time::{Instant, timeout},
};

use super::{Deal, Event, Next, Outcome, catch_up, dial::dial, first_part, settle, tally::Tally};
use crate::{
    Error,
    config::ms,
    desk::Desk,
    paying::Channel,
    routing::{Penalty, Seller, Visit},
    store::Begin,
};

/// The pause after which a busy provider is asked again when it did not say.
const BUSY_PAUSE_MS: u64 = 1_000;

/// How a trade went wrong: what the client is told, and who else could do it.
type Trouble = (Error, Next);

/// Runs a trade to its end. Every way out leaves the ledger, the store and the provider's record in step.
pub(super) async fn run(desk: Arc<Desk>, deal: Deal, events: mpsc::Sender<Event>) {
    let (patience, ended) = (ms(desk.config.timeouts.frame_ms), Arc::clone(&deal.ended));
    let _visit = Visit::new(&deal.seller.record);
    let (last, outcome) = match open(desk, deal, &events).await {
        Ok(mut conversation) => {
            let last = conversation.talk().await;
            let outcome = last.outcome(conversation.channel.id);
            (last, outcome)
        }
        Err(trouble) => (Event::failed(trouble), Outcome::default()),
    };
    ended.set(outcome);
    let _ = timeout(patience, events.send(last)).await;
}

/// Dials the seller and sends the request.
async fn open(desk: Arc<Desk>, deal: Deal, events: &mpsc::Sender<Event>) -> Result<Conversation, Trouble> {
    let trade = match dial(&desk, &deal.seller.offer).await {
        Ok(trade) => trade,
        Err(reason) => return Err(unreachable(&deal, &reason)),
    };
    if events.is_closed() {
        return Err((Error::Stopping, Next::Nobody));
    }
    let (sender, receiver) = trade.split();
    Conversation::open(desk, deal, events.clone(), sender, receiver).await
}

fn unreachable(deal: &Deal, reason: &str) -> Trouble {
    let provider = deal.seller.offer.provider;
    tracing::info!(%provider, reason, "a provider could not be reached");
    deal.seller.record.punish(Penalty::Failed);
    let error = Error::ProviderFailed {
        reason: "it could not be reached".into(),
        charged: false,
    };
    (error, Next::Another)
}

/// What a provider asked money for. Every answer to it costs a signature and a write to the disk.
#[derive(Debug, Default)]
struct Asks {
    /// The most units of output asked for.
    most: u64,
    /// Whether the last ask was for nothing new.
    repeated: bool,
}

impl Asks {
    /// Whether the provider may ask for this: a voucher that did not do may be asked for once more, and no oftener.
    fn allow(&mut self, output_units: u64) -> bool {
        if output_units > self.most {
            *self = Self {
                most: output_units,
                repeated: false,
            };
            return true;
        }
        !std::mem::replace(&mut self.repeated, true)
    }
}

/// A trade whose request is on disk.
struct Conversation {
    desk: Arc<Desk>,
    deal: Deal,
    channel: Arc<Channel>,
    events: mpsc::Sender<Event>,
    sender: FrameSender<BuyerFrame>,
    receiver: FrameReceiver<SellerFrame>,
    tally: Tally,
    /// What the vouchers so far pay for.
    covered: Usage,
    accepted: bool,
    asks: Asks,
    /// Until when the receipt is waited for after a cancellation.
    cancelled: Option<Instant>,
    began: Instant,
    first_output: Option<Instant>,
}

impl Conversation {
    /// Finds a channel, notes the request, and signs its first voucher.
    async fn open(
        desk: Arc<Desk>,
        deal: Deal,
        events: mpsc::Sender<Event>,
        sender: FrameSender<BuyerFrame>,
        receiver: FrameReceiver<SellerFrame>,
    ) -> Result<Self, Trouble> {
        let offer = &deal.seller.offer;
        let covered = first_part(offer, &deal.job, deal.most_input);
        let reservation = offer.price.cost(covered);
        let mut granted = None;
        // Another request may take what was free between looking and reserving.
        for _ in 0..3 {
            let channel = desk
                .ledger
                .acquire(offer, &deal.listing, reservation)
                .await
                .map_err(|error| cannot_pay(&desk, &deal.seller, error))?;
            // In this order: who stops listening now finds this noted, or is found gone.
            deal.ended.set_asks();
            if events.is_closed() {
                return Err((Error::Stopping, Next::Nobody));
            }
            let reserved = channel.account().reserve(deal.request, reservation);
            if let Ok(voucher) = reserved {
                granted = Some((channel, voucher));
                break;
            }
        }
        let Some((channel, voucher)) = granted else {
            return Err((Error::Overloaded, Next::Nobody));
        };
        let most = Usage {
            input: deal.most_input,
            output: deal.job.max_output(),
        };
        let begin = Begin {
            request: deal.request,
            channel: channel.id,
            key: deal.key.clone(),
            idempotency: deal.idempotency,
            price: offer.price,
            request_hash: deal.job.hash(deal.request),
            max_input: deal.most_input,
            covered_output: covered.output,
            reserved: reservation,
            hold: offer.price.cost(most),
            hold_units: most.input.saturating_add(most.output),
            signed: voucher.cumulative,
        };
        if let Err(error) = desk.store.begin_request(&begin).await {
            channel.account().release(&deal.request);
            return Err((error, Next::Nobody));
        }
        channel.touch();
        let tally = Tally::new(&deal.job, deal.most_input);
        let mut conversation = Self {
            desk,
            deal,
            channel,
            events,
            sender,
            receiver,
            tally,
            covered,
            accepted: false,
            asks: Asks::default(),
            cancelled: None,
            began: Instant::now(),
            first_output: None,
        };
        conversation.send_request(voucher).await?;
        Ok(conversation)
    }

    async fn send_request(&mut self, voucher: Voucher) -> Result<(), Trouble> {
        let request = TradeRequest {
            id: self.deal.request,
            channel: self.channel.params,
            price: self.deal.seller.offer.price,
            job: self.deal.job.as_ref().clone(),
            statement: self.channel.account().statement(),
            voucher: self.sign(voucher),
            delegation: self.desk.ledger.delegation(&self.channel, self.desk.node.caller()),
            patience_ms: self.desk.config.timeouts.first_frame_ms,
        };
        let sent = self.sender.send(&BuyerFrame::Request(Box::new(request))).await;
        match sent {
            Ok(()) => Ok(()),
            // It may have arrived nevertheless.
            Err(error) => Err(self.broken(&error.to_string()).await),
        }
    }

    fn sign(&self, voucher: Voucher) -> SignedVoucher {
        voucher.sign(&self.desk.ledger.domain, &self.desk.ledger.session)
    }

    /// Exchanges frames until the end; returns the last event.
    async fn talk(&mut self) -> Event {
        loop {
            let frame = match self.next_frame().await {
                Ok(Some(frame)) => frame,
                Ok(None) => continue,
                Err(trouble) => return self.ended_by(trouble),
            };
            let handled = match frame {
                SellerFrame::Accepted { input_units, catch_up } => self.accepted(input_units, &catch_up).await,
                SellerFrame::VoucherWanted { output_units, .. } => self.pay(output_units).await,
                SellerFrame::Output(output) => self.output(output).await,
                SellerFrame::Refused(refusal) => return Event::failed(self.refused(refusal).await),
                SellerFrame::Finished {
                    reason,
                    receipt,
                    failure,
                } => {
                    let end = (reason, receipt.as_ref(), failure);
                    let bill = settle::finish(&self.desk, &self.deal, &self.channel, &self.tally, end).await;
                    if bill.failure.is_some() {
                        self.deal.seller.record.punish(Penalty::Failed);
                    } else if bill.sequence.is_some() {
                        self.praise();
                    }
                    self.desk.ledger.fill_in_background(&self.channel);
                    return Event::Finished(bill);
                }
            };
            if let Err(trouble) = handled {
                return self.ended_by(trouble);
            }
        }
    }

    /// The last event of a trade that broke off, with what may be billed for it.
    fn ended_by(&self, (error, next): Trouble) -> Event {
        let usage = self.tally.usage();
        let cost = if self.accepted && error.may_be_charged() {
            self.deal.seller.offer.price.cost(usage)
        } else {
            NanoDollars::ZERO
        };
        Event::Failed {
            error,
            next,
            usage,
            cost,
        }
    }

    /// Notes how fast a good answer was.
    fn praise(&self) {
        let Some(first) = self.first_output else { return };
        let units = self.tally.usage().output.saturating_sub(1);
        let record = &self.deal.seller.record;
        record.answered(first.saturating_duration_since(self.began), units, first.elapsed());
    }

    /// The next frame; `None` when the client went away instead and the provider was told.
    async fn next_frame(&mut self) -> Result<Option<SellerFrame>, Trouble> {
        let timeouts = &self.desk.config.timeouts;
        let patience = match self.cancelled {
            Some(until) => until.saturating_duration_since(Instant::now()),
            None if self.accepted => ms(timeouts.frame_ms),
            None => ms(timeouts.first_frame_ms),
        };
        let read = tokio::select! {
            biased;
            () = self.events.closed(), if self.cancelled.is_none() => None,
            () = self.desk.halt.cancelled(), if self.cancelled.is_none() => None,
            read = timeout(patience, self.receiver.next()) => Some(read),
        };
        match read {
            None => {
                self.cancel().await;
                Ok(None)
            }
            Some(Ok(Ok(Some(frame)))) => Ok(Some(frame)),
            Some(Ok(Ok(None))) => Err(self.broken("the provider ended the stream without a receipt").await),
            Some(Ok(Err(error))) => {
                if error.is_peers_fault() {
                    self.deal.seller.record.punish(Penalty::Cheated);
                }
                Err(self.broken(&error.to_string()).await)
            }
            Some(Err(_)) => Err(self.silent().await),
        }
    }

    /// Tells the provider to stop. The receipt is waited for a little.
    async fn cancel(&mut self) {
        tracing::debug!(request = %self.deal.request, "the client went away");
        let patience = ms(self.desk.config.timeouts.cancel_ms);
        self.cancelled = Some(Instant::now() + patience);
        // A failure shows at the next read.
        let _ = timeout(patience, self.sender.send(&BuyerFrame::Cancel)).await;
    }

    async fn accepted(&mut self, input_units: u64, late: &[rialto_protocol::SignedReceipt]) -> Result<(), Trouble> {
        if self.accepted {
            return Err(self.cheated("it accepted twice").await);
        }
        if let Err(unasked) = self.tally.accept(input_units) {
            return Err(self.cheated(unasked.0).await);
        }
        if late.len() > MAX_CATCH_UP {
            return Err(self.cheated("it sent more late receipts than there may be").await);
        }
        if let Err(complaint) = catch_up::take_in(&self.desk, &self.channel, late).await {
            return Err(self.cheated(&complaint).await);
        }
        self.accepted = true;
        if input_units > self.covered.input {
            self.recount(input_units).await?;
        }
        self.tell(Event::Accepted {
            channel: self.channel.id,
        })
        .await;
        Ok(())
    }

    /// The provider counted more input than was estimated: what it may bill is spoken for and on disk, so that a receipt
    /// that comes late is measured by it. Money that is missing is found when the provider asks for it.
    async fn recount(&mut self, input: u64) -> Result<(), Trouble> {
        self.covered.input = input;
        let reservation = self.deal.seller.offer.price.cost(self.covered);
        let signed = {
            let mut account = self.channel.account();
            let reserved = account.reserve(self.deal.request, reservation);
            reserved.map_or_else(|_| account.signed(), |voucher| voucher.cumulative)
        };
        self.note(self.covered.output, reservation, signed).await
    }

    /// Notes what is signed for this request and what arrived of it.
    async fn note(&mut self, output: u64, reserved: NanoDollars, signed: MicroDollars) -> Result<(), Trouble> {
        let (request, channel, received) = (self.deal.request, self.channel.id, self.tally.usage());
        let store = &self.desk.store;
        let noted = store.extend_request(request, channel, output, received, reserved, signed);
        if let Err(error) = noted.await {
            let _ = self.sender.send(&BuyerFrame::Cancel).await;
            settle::interrupt(&self.desk, &self.deal, &self.channel, &self.tally).await;
            return Err((error, Next::Nobody));
        }
        Ok(())
    }

    /// Pays for the next part: never more than a chunk beyond what arrived.
    async fn pay(&mut self, output_units: u64) -> Result<(), Trouble> {
        let offer = &self.deal.seller.offer;
        let received = self.tally.usage();
        if !self.accepted {
            return Err(self.cheated("it wanted money before it accepted").await);
        }
        if output_units > received.output.saturating_add(offer.chunk) {
            return Err(self.cheated("it wanted more than a chunk paid ahead").await);
        }
        if !self.asks.allow(output_units) {
            return Err(self.cheated("it asked for the same money again and again").await);
        }
        if self.cancelled.is_some() {
            return Ok(());
        }
        let wanted = Usage {
            input: received.input,
            output: output_units.min(self.deal.job.max_output()),
        };
        let price = offer.price;
        // What was signed cannot be taken back; the provider's own count of the input replaces the estimate.
        let reservation = price.cost(wanted);
        let voucher = self.reserve(reservation).await?;
        self.note(wanted.output, reservation, voucher.cumulative).await?;
        self.covered.output = self.covered.output.max(wanted.output);
        let voucher = self.sign(voucher);
        if let Err(error) = self.sender.send(&BuyerFrame::Voucher(voucher)).await {
            // A seller whose answer ended meanwhile reads no more: its receipt is on its way. Whatever else happened, the
            // next frame, or that there is none, says it.
            tracing::debug!(request = %self.deal.request, %error, "a voucher was not taken");
        }
        Ok(())
    }

    /// Reserves money for this request, and fills the channel when it has too little.
    async fn reserve(&mut self, reservation: NanoDollars) -> Result<Voucher, Trouble> {
        for _ in 0..3 {
            let reserved = self.channel.account().reserve(self.deal.request, reservation);
            match reserved {
                Ok(voucher) => return Ok(voucher),
                Err(short) => {
                    let missing = short.needed.saturating_sub(short.funded).to_nano();
                    let free = self.channel.account().free();
                    if let Err(error) = self.desk.ledger.fill(&self.channel, free.plus(missing)).await {
                        let _ = self.sender.send(&BuyerFrame::Cancel).await;
                        return Err(self.unpaid(error).await);
                    }
                }
            }
        }
        Err(self.unpaid(Error::Overloaded).await)
    }

    /// Ends a request that cannot be paid any further; the receipt over what arrived comes with the next one's.
    async fn unpaid(&mut self, error: Error) -> Trouble {
        settle::interrupt(&self.desk, &self.deal, &self.channel, &self.tally).await;
        (error, Next::Nobody)
    }

    async fn output(&mut self, output: Output) -> Result<(), Trouble> {
        if !self.accepted {
            return Err(self.cheated("it answered before it accepted").await);
        }
        self.first_output.get_or_insert_with(Instant::now);
        match self.tally.take(&output) {
            Ok(true) => self.tell(Event::Output(output)).await,
            Ok(false) => {}
            Err(unasked) => return Err(self.cheated(unasked.0).await),
        }
        Ok(())
    }

    /// Passes an event on. A client that does not read for long counts as gone.
    async fn tell(&mut self, event: Event) {
        if self.cancelled.is_some() {
            return;
        }
        let patience = Duration::from_millis(self.desk.config.timeouts.frame_ms);
        if !matches!(timeout(patience, self.events.send(event)).await, Ok(Ok(()))) {
            self.cancel().await;
        }
    }

    /// The stream broke off: the provider may bill what was delivered.
    async fn broken(&mut self, reason: &str) -> Trouble {
        let provider = self.deal.seller.offer.provider;
        tracing::info!(%provider, request = %self.deal.request, reason, "a trade broke off");
        self.deal.seller.record.punish(Penalty::Failed);
        settle::interrupt(&self.desk, &self.deal, &self.channel, &self.tally).await;
        let error = Error::ProviderFailed {
            reason: "the connection to it broke off".into(),
            charged: true,
        };
        (error, Next::Another)
    }

    async fn silent(&mut self) -> Trouble {
        let provider = self.deal.seller.offer.provider;
        if self.cancelled.is_none() {
            tracing::info!(%provider, request = %self.deal.request, "a provider was silent for too long");
            self.deal.seller.record.punish(Penalty::Failed);
            let _ = timeout(ms(100), self.sender.send(&BuyerFrame::Cancel)).await;
        }
        settle::interrupt(&self.desk, &self.deal, &self.channel, &self.tally).await;
        (Error::ProviderTimeout { charged: true }, Next::Another)
    }

    /// The provider broke a rule that an honest one keeps.
    async fn cheated(&mut self, complaint: &str) -> Trouble {
        let _ = timeout(ms(100), self.sender.send(&BuyerFrame::Cancel)).await;
        settle::dispute(&self.desk, &self.deal, &self.channel, complaint).await;
        settle::interrupt(&self.desk, &self.deal, &self.channel, &self.tally).await;
        let error = Error::ProviderFailed {
            reason: "it broke the rules of the market".into(),
            charged: true,
        };
        (error, Next::Another)
    }

    /// No work was done: everything goes back to how it was.
    async fn refused(&mut self, refusal: Refusal) -> Trouble {
        if self.tally.any() {
            return self.cheated("it refused what it had begun").await;
        }
        self.channel.account().release(&self.deal.request);
        if let Err(error) = self.desk.store.forget_request(self.deal.request).await {
            tracing::error!(request = %self.deal.request, %error, "a refused request could not be forgotten");
        }
        let offer = &self.deal.seller.offer;
        tracing::info!(provider = %offer.provider, code = ?refusal.code, "a provider refused");
        let failed = |reason: &str| Error::ProviderFailed {
            reason: reason.into(),
            charged: false,
        };
        match refusal.code {
            RefusalCode::BadRequest | RefusalCode::ContextExceeded => (Error::Refused(refusal), Next::Nobody),
            RefusalCode::Busy => {
                let retry_ms = refusal.retry_after_ms.unwrap_or(BUSY_PAUSE_MS).clamp(10, 600_000);
                match &self.deal.bid {
                    // It has room for whoever pays what it posted.
                    Some(bid) => bid.pause(ms(retry_ms)),
                    None => self.deal.seller.record.punish(Penalty::Busy(ms(retry_ms))),
                }
                (Error::Busy { retry_ms }, Next::Another)
            }
            RefusalCode::PriceChanged if let Some(bid) = &self.deal.bid => {
                bid.give_up();
                (failed("its bid is used up"), Next::Another)
            }
            RefusalCode::UnknownModel | RefusalCode::PriceChanged | RefusalCode::ShuttingDown => {
                // A new offer comes with the next look into the book, if it is not there already.
                let next = match self.desk.book.forget(offer) {
                    true => Next::Another,
                    false => Next::SameAgain,
                };
                (failed("its offer is void"), next)
            }
            RefusalCode::UnknownChannel => {
                // It may not have seen yet that the channel is open; or the channel is closing, which shows on chain.
                self.desk.ledger.look_again(&self.channel).await;
                (failed("it does not know the payment channel"), Next::SameAgain)
            }
            RefusalCode::ChannelExhausted => {
                self.desk.ledger.look_again(&self.channel).await;
                (failed("it counts less in the payment channel"), Next::SameAgain)
            }
            RefusalCode::BadVoucher => {
                self.deal.seller.record.punish(Penalty::Failed);
                (failed("it did not accept the payment"), Next::Another)
            }
            RefusalCode::PaymentTimeout | RefusalCode::EngineFailed => {
                self.deal.seller.record.punish(Penalty::Failed);
                (failed("its engine failed"), Next::Another)
            }
        }
    }
}

/// Who else could be paid when a channel cannot be opened or filled. A seller that did not send an order is avoided for a
/// while, like one that is silent.
fn cannot_pay(desk: &Desk, seller: &Seller, error: Error) -> Trouble {
    if desk.ledger.relies_on_sellers() && matches!(error, Error::Settlement(_)) {
        seller.record.punish(Penalty::Failed);
    }
    let next = match &error {
        // Another seller may have an open channel.
        Error::ChainUnreachable(_) | Error::Settlement(_) | Error::DepositExhausted { .. } => Next::Another,
        _ => Next::Nobody,
    };
    (error, next)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_money_may_be_asked_for_twice() {
        let mut asks = Asks::default();
        assert!(asks.allow(4) && asks.allow(4) && !asks.allow(4));
        assert!(asks.allow(5) && asks.allow(5) && !asks.allow(5));
        // A prediction has no units of output: its input may be asked for once.
        let mut asks = Asks::default();
        assert!(asks.allow(0) && !asks.allow(0));
    }
}
