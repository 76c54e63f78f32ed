//! Everything that must hold before work begins: a job we can do, a price we agreed on, a channel that pays.

use std::{sync::Arc, time::Duration};

use rialto_engine::{Prepared, Scope};
use rialto_protocol::{
    Address, ChannelParams, NodeKey, Price, RequestId, Signature, SignedReceipt, SignedVoucher, Usage,
    account::VoucherError,
    hash::keccak256,
    job::Job,
    wire::{Refusal, RefusalCode, SellerFrame, TradeRequest},
};

use super::{
    Stop,
    line::{Heard, Line},
};
use crate::{
    bids::Drawn,
    channel::{Channel, Live},
    channels::serving,
    clock,
    config::Config,
    limits::Pass,
    queue::Place,
    reconcile::reconcile,
    refusal,
    room::{Room, Shelf},
    store::OpenRequest,
};

/// A request that is covered by a stored voucher and may be worked on.
pub(crate) struct Admitted {
    pub(crate) channel: Arc<Channel>,
    pub(crate) live: Live,
    pub(crate) shelf: Arc<Shelf>,
    pub(crate) place: Place,
    pub(crate) pass: Pass<Address>,
    /// What it draws from a bid, if it is served at one's price.
    pub(crate) drawn: Option<Drawn>,
    pub(crate) prepared: Box<dyn Prepared>,
    pub(crate) open: OpenRequest,
    pub(crate) max_output: u64,
}

/// Checks a request in the order of what the checks cost us, waits for its turn, and has its first part paid.
///
/// Whoever has to wait too long is refused before anything is done for it, and before its voucher counts. The one
/// signature that is looked at before is the calling node's delegation: nobody may use up another payer's place in the
/// queue.
pub(crate) async fn admit(
    room: &Room,
    peer: NodeKey,
    request: TradeRequest,
    line: &mut Line,
) -> Result<Admitted, Stop> {
    let (shelf, terms) = check(room, &request)?;
    let params = request.channel;
    let channel = room.channels.find(&params).await?;
    entitle(&channel, peer, &request.delegation)?;
    let request_hash = request.job.hash(request.id);
    let payer = params.payer;
    let pass = room.payers.pass(payer).map_err(|retry| {
        let words = "this payer asks for too much, or too often";
        refusal::busy(words, retry)
    })?;
    let patience = patience(&room.config, request.patience_ms);
    let mut place = join(room, &shelf, terms, payer, &request.job, patience)?;
    verify(&channel, &request.voucher)?;
    let live = begin(&channel, request.id)?;
    let catch_up = reconcile(&channel, &room.store, &request.statement, &request.id).await?;
    // While it waits more receipts may be written than are remembered.
    let acknowledged = channel.acknowledges(&request.voucher);
    admitted(room, &mut place, line).await?;
    serving(&channel.state())?;
    let prepared = shelf
        .listing
        .engine
        .prepare(request.job, scope(&params))
        .await
        .map_err(|complaint| refusal::engine(&complaint))?;
    let max_output = prepared.max_output();
    let drawn = terms.draw(room, &params, prepared.input_units(), max_output)?;
    let open = OpenRequest {
        request: request.id,
        request_hash,
        price: terms.price,
        input: prepared.input_units(),
        covered: max_output.min(room.config.chunk),
        floor: 0,
    };
    let opening = Opening {
        room,
        channel: &channel,
        place: &mut place,
        open,
        catch_up,
        voucher: request.voucher,
        acknowledged,
        behind: request.voucher.voucher.receipts_head == request.statement.head,
    };
    opening.pay(line).await?;
    Ok(Admitted {
        channel,
        live,
        shelf,
        place,
        pass,
        drawn,
        prepared,
        open,
        max_output,
    })
}

/// How long a request may wait for its turn. A refusal must be there before the buyer gives up and takes this provider
/// for a dead one.
fn patience(config: &Config, patience_ms: u64) -> Duration {
    let patience = Duration::from_millis(patience_ms);
    let reserve = (patience / 8).min(Duration::from_secs(1));
    patience.saturating_sub(reserve).min(config.queue_wait)
}

/// Takes a place in the queue. Work at the price of a bid only fills slots that nobody who pays the posted price wants.
fn join(
    room: &Room,
    shelf: &Shelf,
    terms: Terms,
    payer: Address,
    job: &Job,
    patience: Duration,
) -> Result<Place, Refusal> {
    let joined = if terms.bid {
        shelf.queue.fill(payer, job, patience)
    } else {
        shelf.queue.join(payer, job, patience)
    };
    joined.map_err(|full| {
        if full.as_told {
            room.metrics.turned_away.inc();
        }
        refusal::full(full)
    })
}

/// Waits until it is a request's turn to be opened. Nothing is owed before.
async fn admitted(room: &Room, place: &mut Place, line: &mut Line) -> Result<(), Stop> {
    let mut turn = std::pin::pin!(place.admitted());
    loop {
        tokio::select! {
            biased;
            turn = &mut turn => return turn.map_err(|full| refusal::full(full).into()),
            () = room.closing.cancelled() => return Err(refusal::stopping().into()),
            heard = line.hear() => match heard {
                // Not asked for; the one that came with the request counts.
                Heard::Voucher(_) => {}
                Heard::Cancel => return Err(refusal::cancelled().into()),
                Heard::Gone => return Err(Stop::Gone),
            },
        }
    }
}

/// Prompts of one payer may be read from each other's memory; nobody else may learn from the time it takes.
fn scope(channel: &ChannelParams) -> Scope {
    Scope::Of(keccak256(&[b"rialto scope", &channel.payer.0]))
}

/// What can be checked without a look at channel or engine.
fn check(room: &Room, request: &TradeRequest) -> Result<(Arc<Shelf>, Terms), Refusal> {
    if room.closing.is_cancelled() {
        return Err(refusal::stopping());
    }
    if room.store.has_failed() {
        return Err(refusal::internal(&crate::Error::StoreFailed));
    }
    request.job.check().map_err(|bad| refusal::job(&bad))?;
    let shelf = room
        .shelves
        .get(&request.channel.model)
        .ok_or_else(|| Refusal::new(RefusalCode::UnknownModel, "the provider does not sell this model"))?;
    let terms = Terms::of(room, shelf, request)
        .ok_or_else(|| Refusal::new(RefusalCode::PriceChanged, "the price is higher now, read the new offer"))?;
    Ok((shelf.clone(), terms))
}

/// The price that a request is served at.
#[derive(Debug, Clone, Copy)]
struct Terms {
    price: Price,
    /// Whether it is below the posted one, because the buyer was bid it.
    bid: bool,
}

impl Terms {
    /// A price that was posted and is within what the buyer names, else the one that it was bid; `None` if neither.
    fn of(room: &Room, shelf: &Shelf, request: &TradeRequest) -> Option<Self> {
        if let Some(price) = shelf.tag.agree(&request.price, clock::now()) {
            return Some(Self { price, bid: false });
        }
        let bid = room.bids.knows(&request.channel, request.price);
        bid.then_some(Self {
            price: request.price,
            bid,
        })
    }

    /// Takes the units that the request may need from the buyer's bid, if it is served at one's price.
    fn draw(self, room: &Room, channel: &ChannelParams, input: u64, output: u64) -> Result<Option<Drawn>, Refusal> {
        let usage = Usage { input, output };
        let drawn = self.bid.then(|| room.bids.draw(channel, self.price, usage));
        drawn.transpose()
    }
}

pub(super) fn verify(channel: &Channel, voucher: &SignedVoucher) -> Result<(), Refusal> {
    if voucher.voucher.channel != channel.id() {
        return Err(refusal::voucher(VoucherError::OtherChannel));
    }
    channel
        .verify(voucher)
        .map_err(|error| Refusal::new(RefusalCode::BadVoucher, error.to_string()))
}

/// Vouchers and channels are public once they are redeemed; only nodes that the session key names can ask for work on them.
fn entitle(channel: &Channel, peer: NodeKey, delegation: &Signature) -> Result<(), Refusal> {
    channel.verify_delegation(peer, delegation).map_err(|_| {
        let message = "the channel's session key does not let this node use it";
        Refusal::new(RefusalCode::BadVoucher, message)
    })
}

/// Takes a request for its own; each id is served once, however often it is sent.
fn begin(channel: &Arc<Channel>, request: RequestId) -> Result<Live, Refusal> {
    let live = channel
        .begin(request)
        .ok_or_else(|| Refusal::new(RefusalCode::BadRequest, "a request with this id is being worked on"))?;
    let settled = channel.has_settled(&request);
    if settled.map_err(|error| refusal::internal(&error))? {
        let message = "a request with this id was served already";
        return Err(Refusal::new(RefusalCode::BadRequest, message));
    }
    Ok(live)
}

/// A request whose first part is to be paid.
struct Opening<'a> {
    room: &'a Room,
    channel: &'a Channel,
    place: &'a mut Place,
    open: OpenRequest,
    catch_up: Vec<SignedReceipt>,
    voucher: SignedVoucher,
    /// Whether the voucher named one of the latest receipts when it came.
    acknowledged: bool,
    /// Whether the voucher names the head that the statement proved.
    behind: bool,
}

impl Opening<'_> {
    /// Has the voucher stored and the request accepted; asks once for a better voucher where that can help.
    async fn pay(mut self, line: &mut Line) -> Result<(), Stop> {
        let complaint = match self.cover().await? {
            None => {
                // The buyer hears of it, or is found gone, once the work begins: it is covered and must be settled.
                let _ = line.say(&self.accepted()).await;
                return Ok(());
            }
            Some(complaint) => complaint,
        };
        if !self.may_ask(complaint) {
            return Err(refusal::voucher(complaint).into());
        }
        let flushed = self.room.store.flush().await;
        flushed.map_err(|error| refusal::internal(&error))?;
        line.say(&self.accepted()).await?;
        let wanted = SellerFrame::VoucherWanted {
            output_units: self.open.covered,
            cumulative: self.channel.required(&self.open),
        };
        line.say(&wanted).await?;
        // A slot does not wait for a buyer.
        self.place.pause();
        self.voucher = self.next_voucher(line).await?;
        verify(self.channel, &self.voucher)?;
        self.acknowledged = self.channel.acknowledges(&self.voucher);
        self.place.resume();
        admitted(self.room, self.place, line).await?;
        serving(&self.channel.state())?;
        match self.cover().await? {
            None => Ok(()),
            Some(complaint) => Err(refusal::voucher(complaint).into()),
        }
    }

    fn accepted(&mut self) -> SellerFrame {
        SellerFrame::Accepted {
            input_units: self.open.input,
            catch_up: std::mem::take(&mut self.catch_up),
        }
    }

    /// Covers the request and waits until that is stored. Returns the complaint when the voucher does not do.
    async fn cover(&self) -> Result<Option<VoucherError>, Refusal> {
        let mut attempt = self.channel.cover(&self.open, &self.voucher, self.acknowledged);
        if matches!(attempt, Err(VoucherError::Unfunded { .. })) && self.room.channels.top_up_seen(self.channel).await {
            attempt = self.channel.cover(&self.open, &self.voucher, self.acknowledged);
        }
        match attempt {
            Ok(commit) => {
                let stored = commit.durable().await;
                stored.map_err(|error| refusal::internal(&error))?;
                self.room.metrics.vouchers.inc();
                Ok(None)
            }
            Err(complaint) => Ok(Some(complaint)),
        }
    }

    /// A buyer that estimated its input too low, or that lacks receipts, can do better; one whose total is below what
    /// it owes already is not asked again.
    fn may_ask(&self, complaint: VoucherError) -> bool {
        match complaint {
            VoucherError::TooLow { offered, .. } => offered.to_nano() >= self.channel.earned(),
            VoucherError::UnknownHead => self.behind && !self.catch_up.is_empty(),
            VoucherError::OtherChannel | VoucherError::Unfunded { .. } | VoucherError::TooLarge(_) => false,
        }
    }

    async fn next_voucher(&self, line: &mut Line) -> Result<SignedVoucher, Stop> {
        match tokio::time::timeout(self.room.config.payment_timeout, line.hear()).await {
            Ok(Heard::Voucher(voucher)) => Ok(*voucher),
            Ok(Heard::Cancel) => Err(Refusal::new(
                RefusalCode::PaymentTimeout,
                "the request was cancelled before it was paid",
            )
            .into()),
            Ok(Heard::Gone) => Err(Stop::Gone),
            Err(_) => Err(Refusal::new(RefusalCode::PaymentTimeout, "no voucher came in time").into()),
        }
    }
}
