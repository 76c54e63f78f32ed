//! The buyer's side of the reverse auction: tenders are sent to the cheapest sellers of a model, and work is asked for at
//! the lowest bid that holds.
//!
//! What was bid is kept in memory alone: after a restart new tenders are sent. The seller counts what is used of its bid,
//! and says when it is used up.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use rialto_protocol::{
    Address, Digest, ModelId, NanoDollars, Price, Usage,
    tender::{MAX_MODELS, MAX_UNITS, SignedBid, SignedTender, Tender},
    wire::{OffersRequest, OffersResponse},
};
use tokio::{
    sync::Mutex as AsyncMutex,
    time::{Instant, timeout},
};

use crate::{
    Error,
    book::Resolved,
    desk::Desk,
    routing::Seller,
    store::{BatchRow, LineRow, now},
};

/// How long sellers have to answer a tender.
const PATIENCE: Duration = Duration::from_secs(5);
/// Seconds for which a tender is answered: clocks differ.
const LIFETIME: u64 = 60;
/// Shortest time between two auctions for a model, and the longest: somebody may have room that had none.
const PAUSE: Duration = Duration::from_secs(15);
const REPEAT: Duration = Duration::from_secs(300);
/// A bid that ends within so many seconds is not used any more: what begins would come too late.
const MARGIN: u64 = 2;
/// Models whose auctions are remembered.
const MAX_ROUNDS: usize = 1_024;
/// The part of a batch's time, at its end, in which the posted price is paid rather than waited for a bidder: one in eight.
const LATE: u64 = 8;

/// A bid that was made to this gateway.
#[derive(Debug)]
pub(crate) struct BidInHand {
    signed: SignedBid,
    /// Its seller said that it is used up, or will not have it.
    void: AtomicBool,
    /// Until when its seller is busy.
    busy: Mutex<Option<Instant>>,
}

impl BidInHand {
    fn new(signed: SignedBid) -> Self {
        Self {
            signed,
            void: AtomicBool::new(false),
            busy: Mutex::new(None),
        }
    }

    /// Who made it, and for what.
    pub(crate) fn of(&self) -> (Address, ModelId) {
        (self.signed.bid.provider, self.signed.bid.model)
    }

    /// The price that was bid.
    pub(crate) fn price(&self) -> Price {
        self.signed.bid.price
    }

    /// Its seller will not serve at it any more.
    pub(crate) fn give_up(&self) {
        self.void.store(true, Ordering::Relaxed);
    }

    /// Its seller has no room for so long.
    pub(crate) fn pause(&self, pause: Duration) {
        *self.busy.lock().unwrap_or_else(PoisonError::into_inner) = Some(Instant::now() + pause);
    }

    /// Whether it holds.
    fn holds(&self) -> bool {
        !self.void.load(Ordering::Relaxed) && self.signed.bid.expires_at > now().saturating_add(MARGIN)
    }

    /// How long its seller is still busy.
    fn wait(&self) -> Option<Duration> {
        let busy = *self.busy.lock().unwrap_or_else(PoisonError::into_inner);
        busy.and_then(|until| until.checked_duration_since(Instant::now()))
    }
}

/// What a request of a batch is bought at.
#[derive(Debug)]
pub(crate) struct Terms {
    /// The lowest first.
    bids: Vec<Arc<BidInHand>>,
    /// The lowest posted price when the bids were made.
    pub(crate) posted: Price,
    /// Whether a bidder that is busy is waited for.
    patient: bool,
}

impl Terms {
    /// Bids that hold and whose sellers are not busy, the lowest first.
    pub(crate) fn bids(&self) -> impl Iterator<Item = &Arc<BidInHand>> {
        self.bids.iter().filter(|bid| bid.holds() && bid.wait().is_none())
    }

    /// How long the next bidder that is worth waiting for is busy; `None` where the posted price is to be paid.
    pub(crate) fn wait(&self) -> Option<Duration> {
        let held = self.bids.iter().filter(|bid| self.patient && bid.holds());
        held.map(|bid| bid.wait().unwrap_or_default()).min()
    }

    /// What a use costs at the lowest bid.
    pub(crate) fn lowest_cost(&self, usage: Usage) -> Option<NanoDollars> {
        let held = self.bids.iter().filter(|bid| bid.holds());
        held.map(|bid| bid.price().cost(usage)).min()
    }
}

/// The last auction for a model.
#[derive(Debug)]
struct Round {
    held: Instant,
    posted: Price,
    bids: Vec<Arc<BidInHand>>,
}

impl Round {
    /// Whether nothing would be gained by another.
    fn serves(&self) -> bool {
        let age = self.held.elapsed();
        age < PAUSE || (age < REPEAT && self.bids.iter().any(|bid| bid.holds()))
    }
}

type Slot = Arc<AsyncMutex<Option<Round>>>;

/// The last auction for each model that batches name.
#[derive(Debug, Default)]
pub(super) struct Auctions {
    rounds: Mutex<HashMap<String, Slot>>,
}

impl Auctions {
    fn slot(&self, model: &str) -> Slot {
        let mut rounds = self.rounds.lock().unwrap_or_else(PoisonError::into_inner);
        if rounds.len() >= MAX_ROUNDS && !rounds.contains_key(model) {
            rounds.clear();
        }
        Arc::clone(rounds.entry(model.to_owned()).or_default())
    }

    /// What a request is bought at: an auction is held first if the last one does not do any more.
    pub(super) async fn terms(&self, desk: &Desk, batch: &BatchRow, line: &LineRow) -> Result<Arc<Terms>, Error> {
        let model = desk.resolve(&line.model)?;
        let slot = self.slot(&line.model);
        // One auction for a model at a time: the others wait for its result.
        let mut last = slot.lock().await;
        if !last.as_ref().is_some_and(Round::serves) {
            *last = Some(hold(desk, batch, line, &model).await?);
        }
        let Some(round) = last.as_ref() else {
            return Err(nobody(desk, &model));
        };
        Ok(Arc::new(Terms {
            bids: round.bids.clone(),
            posted: round.posted,
            patient: is_early(batch),
        }))
    }
}

fn nobody(desk: &Desk, model: &Resolved) -> Error {
    Error::NoSeller {
        model: model.asked.clone(),
        retry_ms: desk.config.timeouts.browse_ms,
    }
}

/// Whether there is time to wait for a bidder.
fn is_early(batch: &BatchRow) -> bool {
    let (begun, end) = (batch.times.created_at, batch.times.expires_at.unwrap_or(u64::MAX));
    now().saturating_add(end.saturating_sub(begun) / LATE) < end
}

/// Holds an auction.
async fn hold(desk: &Desk, batch: &BatchRow, line: &LineRow, model: &Resolved) -> Result<Round, Error> {
    let wanted = desk.store.outstanding(&batch.id, &line.model).await?;
    // The request that this is for may be marked already.
    let usage = Usage {
        input: wanted.input.max(line.input).clamp(1, MAX_UNITS),
        output: wanted.output.max(line.output).min(MAX_UNITS),
    };
    let sellers = cheapest(desk, model, usage);
    let posted = sellers.first().ok_or_else(|| nobody(desk, model))?.offer.price;
    let mut bids = Vec::new();
    if desk.config.batches.bidders > 0 {
        let tender = Tender {
            buyer: desk.ledger.session.address(),
            models: model.models.iter().take(MAX_MODELS).copied().collect(),
            usage,
            deadline: batch.times.expires_at.unwrap_or(u64::MAX),
            ceiling: posted,
            salt: Digest(rand::random()),
            expires_at: now().saturating_add(LIFETIME),
        };
        let tender = tender.sign(&desk.ledger.session);
        let asked = sellers.iter().take(desk.config.batches.bidders);
        let answers = futures::future::join_all(asked.map(|seller| ask(desk, seller, &tender)));
        bids = answers.await.into_iter().flatten().collect();
        bids.sort_by_key(|bid| bid.bid.price.cost(usage));
        tracing::info!(model = %line.model, asked = sellers.len(), bids = bids.len(), "an auction was held");
    }
    Ok(Round {
        held: Instant::now(),
        posted,
        bids: bids.into_iter().map(|bid| Arc::new(BidInHand::new(bid))).collect(),
    })
}

/// The sellers that the owner would buy from, the cheapest first.
fn cheapest(desk: &Desk, model: &Resolved, usage: Usage) -> Vec<Arc<Seller>> {
    let config = &desk.config;
    let mut sellers = desk.book.offers(&model.models, now());
    sellers.retain(|seller| {
        let offer = &seller.offer;
        offer.price.within(&config.max_price)
            && offer.chunk <= config.max_chunk
            && !seller.record.standing.is_distrusted()
    });
    sellers.sort_by_key(|seller| seller.offer.price.cost(usage));
    sellers
}

/// Asks one seller for its bid.
async fn ask(desk: &Desk, seller: &Seller, tender: &SignedTender) -> Option<SignedBid> {
    let provider = seller.offer.provider;
    let request = OffersRequest::Tender(Box::new(tender.clone()));
    let answer = timeout(PATIENCE, desk.node.offers(&seller.offer.peer(), &request)).await;
    let complaint = match answer {
        Ok(Ok(OffersResponse::Bid(bid))) => match bid.check(&tender.tender, provider, now()) {
            // The address that was asked is of this model's seller, so it is this model that it sells.
            Ok(()) => return Some(*bid),
            Err(error) => error.to_string(),
        },
        Ok(Ok(OffersResponse::NoBid(refusal))) => refusal.message.chars().take(200).collect(),
        Ok(Ok(_)) => "it answered another question".to_owned(),
        Ok(Err(error)) => error.to_string(),
        Err(_) => "it did not answer in time".to_owned(),
    };
    tracing::debug!(%provider, complaint, "a seller made no bid");
    None
}

#[cfg(test)]
mod tests {
    use rialto_protocol::{SigningKey, tender::Bid};

    use super::*;

    fn bid(number: u8, output: u64) -> Arc<BidInHand> {
        let key = SigningKey::from_bytes(&[number; 32]).unwrap();
        let bid = Bid {
            provider: key.address(),
            tender: Digest([1; 32]),
            buyer: Address([1; 20]),
            model: ModelId([7; 32]),
            price: Price {
                input: 1,
                output,
                request: 0,
            },
            usage: Usage { input: 10, output: 10 },
            expires_at: now() + 600,
        };
        Arc::new(BidInHand::new(bid.sign(&key)))
    }

    fn outputs(terms: &Terms) -> Vec<u64> {
        terms.bids().map(|bid| bid.price().output).collect()
    }

    #[tokio::test]
    async fn the_lowest_bid_is_first_and_the_next_follows_when_it_is_busy_or_used_up() {
        let terms = Terms {
            bids: vec![bid(1, 10), bid(2, 20)],
            posted: Price::default(),
            patient: true,
        };
        let usage = Usage { input: 2, output: 3 };
        assert_eq!(
            (outputs(&terms), terms.lowest_cost(usage)),
            (vec![10, 20], Some(NanoDollars(32)))
        );
        let pause = Duration::from_secs(5);
        terms.bids[0].pause(pause);
        assert_eq!(outputs(&terms), [20]);
        terms.bids[1].give_up();
        assert!(outputs(&terms).is_empty());
        // The first is waited for; once it is void too, the posted price is paid.
        assert!(terms.wait().is_some_and(|wait| wait <= pause));
        terms.bids[0].give_up();
        assert_eq!((terms.wait(), terms.lowest_cost(usage)), (None, None));
    }

    #[tokio::test]
    async fn who_is_late_does_not_wait_for_a_bidder() {
        let terms = Terms {
            bids: vec![bid(1, 10)],
            posted: Price::default(),
            patient: false,
        };
        terms.bids[0].pause(Duration::from_secs(5));
        assert_eq!((outputs(&terms), terms.wait()), (vec![], None));
    }
}
