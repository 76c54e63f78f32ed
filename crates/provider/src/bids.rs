//! Bids for work that can wait: below the posted price while there is room, kept until they expire, and never sold over.
//!
//! A bid is on disk before anybody sees it, and so is what each request draws from it before the request is worked on: a
//! restart honours what was promised. After a crash, what cut-off requests had drawn counts as used.

use std::{
    collections::{BTreeMap, HashMap, VecDeque},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use rialto_protocol::{
    ChannelParams, Digest, ModelId, NodeKey, Price, SigningKey, Usage,
    tender::{Bid, MAX_BID_LIFETIME, SignedBid, SignedTender, Tender},
    wire::{OffersResponse, Refusal, RefusalCode},
};
use tokio::time::Instant;
use tracing::{debug, info};

use crate::{
    Error, clock, refusal,
    room::{Room, Shelf},
    store::{Store, Write},
};

/// Most live bids, of all buyers and of one.
const MAX_LIVE: usize = 4_096;
const MAX_OF_BUYER: usize = 64;

/// Tenders that are looked at in a minute, of all peers and of one: each costs a signature and a write to the disk.
const A_MINUTE: usize = 600;
const OF_PEER: usize = 60;
const WINDOW: Duration = Duration::from_secs(60);

/// What a provider bids for work that can wait.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BidPolicy {
    /// Percent below the posted price; zero makes no bids, and at most 100.
    pub discount: u8,
    /// A bid is made only while at least this percent of a model's slots are free; at most 100.
    pub idle: u8,
    /// The least that is bid for a unit of any model, in nano-dollars.
    pub floor: Price,
    /// What a unit of a model costs the seller, where that is known: the least that is bid for it.
    pub costs: BTreeMap<ModelId, Price>,
    /// How long a bid is valid.
    pub lifetime: Duration,
}

impl Default for BidPolicy {
    fn default() -> Self {
        Self {
            discount: 50,
            idle: 50,
            floor: Price::default(),
            costs: BTreeMap::new(),
            lifetime: Duration::from_secs(900),
        }
    }
}

impl BidPolicy {
    /// Checks every bound; the error names the field.
    pub(crate) fn check(&self) -> Result<(), Error> {
        let field = |text: &str| Err(Error::Config(text.to_owned()));
        if self.discount > 100 || self.idle > 100 {
            return field("`discount` and `idle` of bids are percents, at most 100");
        }
        if self.lifetime.as_secs() == 0 || self.lifetime.as_secs() > MAX_BID_LIFETIME {
            return field("the lifetime of bids must be between a second and a day");
        }
        Ok(())
    }

    /// The price that is bid for a model with this posted price; `None` if that is not below it.
    fn price(&self, model: ModelId, posted: Price) -> Option<Price> {
        let cost = self.costs.get(&model).copied().unwrap_or_default();
        let part = |posted: u64, floor: u64, cost: u64| {
            let kept = u128::from(posted) * u128::from(100 - self.discount.min(100));
            let rounded = u64::try_from(kept.div_ceil(100)).unwrap_or(posted);
            rounded.max(floor).max(cost)
        };
        let price = Price {
            input: part(posted.input, self.floor.input, cost.input),
            output: part(posted.output, self.floor.output, cost.output),
            request: part(posted.request, self.floor.request, cost.request),
        };
        (price.within(&posted) && price != posted).then_some(price)
    }
}

/// Bids that are valid, and what was drawn from them.
#[derive(Debug)]
pub(crate) struct Bids {
    store: Store,
    book: Mutex<Book>,
}

#[derive(Debug, Default)]
struct Book {
    /// By the bid's digest.
    live: HashMap<Digest, Live>,
    asked: VecDeque<(Instant, NodeKey)>,
}

#[derive(Debug)]
struct Live {
    signed: SignedBid,
    drawn: Usage,
}

/// What a request has drawn from a bid. Dropping it gives back what was not used.
#[derive(Debug)]
pub(crate) struct Drawn {
    bids: Arc<Bids>,
    bid: Digest,
    reserved: Usage,
    used: Usage,
}

impl Drawn {
    /// Notes what the request really used, and gives the rest back.
    pub(crate) fn settle(mut self, used: Usage) {
        self.used = used;
    }
}

impl Drop for Drawn {
    fn drop(&mut self) {
        let back = Usage {
            input: self.reserved.input.saturating_sub(self.used.input),
            output: self.reserved.output.saturating_sub(self.used.output),
        };
        let mut book = self.bids.lock();
        if let Some(live) = book.live.get_mut(&self.bid) {
            live.drawn.input = live.drawn.input.saturating_sub(back.input);
            live.drawn.output = live.drawn.output.saturating_sub(back.output);
            // Nobody waits for it: until it is on disk, more counts as used than is.
            drop(self.bids.store.submit(vec![Write::Drawn(self.bid, live.drawn)]));
        }
    }
}

impl Live {
    /// Whether so much is left of it.
    fn holds(&self, usage: Usage) -> bool {
        let most = self.signed.bid.usage;
        self.drawn.input.saturating_add(usage.input) <= most.input
            && self.drawn.output.saturating_add(usage.output) <= most.output
    }

    /// Whether it is for this channel, at this price and time.
    fn is_for(&self, channel: &ChannelParams, price: Price, now: u64) -> bool {
        let bid = &self.signed.bid;
        bid.buyer == channel.signer && bid.model == channel.model && bid.price == price && bid.expires_at > now
    }
}

impl Bids {
    /// Takes up the bids that were made before a restart.
    pub(crate) async fn restore(store: Store) -> Result<Self, Error> {
        let kept = store.bids(clock::now()).await?;
        let live = kept.into_iter().map(|(signed, drawn)| {
            let live = Live { signed, drawn };
            (signed.bid.digest(), live)
        });
        let book = Book {
            live: live.collect(),
            asked: VecDeque::new(),
        };
        Ok(Self {
            book: Mutex::new(book),
            store,
        })
    }

    fn lock(&self) -> MutexGuard<'_, Book> {
        self.book.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether a channel's holder was bid this price, and something is left of it.
    pub(crate) fn knows(&self, channel: &ChannelParams, price: Price) -> bool {
        let now = clock::now();
        let book = self.lock();
        let mut bids = book.live.values();
        bids.any(|live| live.is_for(channel, price, now) && live.holds(Usage::default()))
    }

    /// Takes units from a bid of this price; refuses when no bid holds as many any more.
    pub(crate) fn draw(
        self: &Arc<Self>,
        channel: &ChannelParams,
        price: Price,
        usage: Usage,
    ) -> Result<Drawn, Refusal> {
        let now = clock::now();
        let mut book = self.lock();
        let mut bids = book.live.iter_mut();
        let found = bids.find(|(_, live)| live.is_for(channel, price, now) && live.holds(usage));
        let Some((bid, live)) = found else {
            let message = "the units that were bid are used up, or the bid has expired";
            return Err(Refusal::new(RefusalCode::PriceChanged, message));
        };
        live.drawn.input = live.drawn.input.saturating_add(usage.input);
        live.drawn.output = live.drawn.output.saturating_add(usage.output);
        // On disk before the work begins: the voucher that pays for it is written after this and waited for.
        drop(self.store.submit(vec![Write::Drawn(*bid, live.drawn)]));
        Ok(Drawn {
            bids: Arc::clone(self),
            bid: *bid,
            reserved: usage,
            used: Usage::default(),
        })
    }

    /// Notes a bid, unless there are too many; the same tender gets the same bid. Returns the bid and whether it is new.
    fn note(&self, fresh: SignedBid, now: u64) -> Result<(SignedBid, bool), Refusal> {
        let mut book = self.lock();
        book.live.retain(|_, live| live.signed.bid.expires_at > now);
        let of_buyer = book
            .live
            .values()
            .filter(|live| live.signed.bid.buyer == fresh.bid.buyer);
        let (mut count, mut same) = (0, None);
        for live in of_buyer {
            count += 1;
            if live.signed.bid.tender == fresh.bid.tender {
                same = Some(live.signed);
            }
        }
        if let Some(known) = same {
            return Ok((known, false));
        }
        if count >= MAX_OF_BUYER || book.live.len() >= MAX_LIVE {
            return Err(Refusal::new(RefusalCode::Busy, "too many bids are valid already"));
        }
        let live = Live {
            signed: fresh,
            drawn: Usage::default(),
        };
        book.live.insert(fresh.bid.digest(), live);
        Ok((fresh, true))
    }

    /// Counts a tender, unless there were too many lately.
    fn admit(&self, peer: NodeKey, now: Instant) -> bool {
        let mut book = self.lock();
        let is_old = |at: &Instant| now.duration_since(*at) >= WINDOW;
        while book.asked.front().is_some_and(|(at, _)| is_old(at)) {
            book.asked.pop_front();
        }
        let own = book.asked.iter().filter(|(_, asker)| *asker == peer).count();
        if own >= OF_PEER || book.asked.len() >= A_MINUTE {
            return false;
        }
        book.asked.push_back((now, peer));
        true
    }
}

/// Answers a tender.
pub(crate) async fn answer(room: &Room, key: &SigningKey, peer: NodeKey, tender: &SignedTender) -> OffersResponse {
    match consider(room, key, peer, tender).await {
        Ok(signed) => {
            let (buyer, price) = (signed.bid.buyer, signed.bid.price);
            info!(%buyer, model = %signed.bid.model, ?price, "a bid was made");
            OffersResponse::Bid(Box::new(signed))
        }
        Err(refusal) => {
            debug!(%peer, %refusal, "no bid was made");
            OffersResponse::NoBid(refusal)
        }
    }
}

async fn consider(room: &Room, key: &SigningKey, peer: NodeKey, signed: &SignedTender) -> Result<SignedBid, Refusal> {
    let policy = &room.config.bids;
    if policy.discount == 0 {
        return Err(Refusal::new(RefusalCode::BadRequest, "this provider makes no bids"));
    }
    if room.closing.is_cancelled() {
        return Err(refusal::stopping());
    }
    if !room.bids.admit(peer, Instant::now()) {
        return Err(Refusal::new(RefusalCode::Busy, "too many tenders came lately"));
    }
    let now = clock::now();
    signed
        .check(now)
        .map_err(|error| Refusal::new(RefusalCode::BadRequest, error.to_string()))?;
    let tender = &signed.tender;
    let shelf = tender.models.iter().find_map(|model| room.shelves.get(model));
    let shelf =
        shelf.ok_or_else(|| Refusal::new(RefusalCode::UnknownModel, "the provider does not sell this model"))?;
    if !is_idle(shelf, policy.idle) {
        return Err(Refusal::new(RefusalCode::Busy, "there is no room to spare now"));
    }
    let price = policy.price(shelf.model, shelf.tag.current());
    let price = price
        .filter(|price| price.within(&tender.ceiling))
        .ok_or_else(|| Refusal::new(RefusalCode::PriceChanged, "the work is not worth so little"))?;
    let bid = Bid {
        provider: key.address(),
        tender: tender.digest(),
        buyer: tender.buyer,
        model: shelf.model,
        price,
        usage: able(shelf, tender, policy.lifetime),
        expires_at: now.saturating_add(policy.lifetime.as_secs()),
    };
    let (bid, new) = room.bids.note(bid.sign(key), now)?;
    if new {
        let kept = room.store.submit(vec![Write::Bid(Box::new(bid))]).durable().await;
        kept.map_err(|error| refusal::internal(&error))?;
    }
    Ok(bid)
}

/// Whether so many percent of a model's slots are free.
fn is_idle(shelf: &Shelf, percent: u8) -> bool {
    let capacity = u64::from(shelf.queue.capacity());
    let load = u64::try_from(shelf.queue.load()).unwrap_or(u64::MAX);
    let free = capacity.saturating_sub(load);
    free > 0 && free.saturating_mul(100) >= capacity.saturating_mul(percent.into())
}

/// Units that are promised: what is asked for, and no more output than all slots write until the bid expires, where their
/// speed is known.
fn able(shelf: &Shelf, tender: &Tender, lifetime: Duration) -> Usage {
    let speed = u64::from(shelf.queue.speed());
    let most = speed
        .saturating_mul(shelf.queue.capacity().into())
        .saturating_mul(lifetime.as_secs());
    Usage {
        input: tender.usage.input,
        output: match most {
            0 => tender.usage.output,
            most => tender.usage.output.min(most),
        },
    }
}

#[cfg(test)]
mod tests;
