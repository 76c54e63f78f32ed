//! How an answer is bought: a seller is picked, and another if that one fails, before the first output and after it.

mod estimate;
mod hedge;
mod pick;
mod purchase;
mod standby;

use std::{sync::Arc, time::Duration};

pub(crate) use estimate::{estimate_input, likely_usage, max_input};
use hedge::Lost;
use pick::Picked;
pub(crate) use purchase::{Bill, Part, Purchase};
use rialto_protocol::{Address, NanoDollars, RequestId, job::Job};
pub(crate) use standby::{Uses, stand_by};

use crate::{
    Error,
    batch::Terms,
    book::Resolved,
    desk::Desk,
    routing::{Preferences, Prompt},
    trade::{self, Deal, Ended, Event, Next},
};

/// How long a seller that does not know a channel yet is given to see it on chain.
const SAME_AGAIN: Duration = Duration::from_millis(250);

/// What a client wants to buy.
#[derive(Clone)]
pub(crate) struct Order {
    pub(crate) model: Resolved,
    pub(crate) job: Arc<Job>,
    /// The API key that pays: its public part.
    pub(crate) key: String,
    pub(crate) idempotency: Option<[u8; 32]>,
    /// The most units of input that may be billed.
    pub(crate) most_input: u64,
    /// What is wanted of the seller.
    pub(crate) preferences: Arc<Preferences>,
    /// The prompt's marks.
    pub(crate) prompt: Prompt,
    /// Whether the client wants to know why its seller was chosen.
    pub(crate) explain: bool,
    /// What was bid for it, if it is of a batch.
    pub(crate) terms: Option<Arc<Terms>>,
}

/// An answer that has begun to arrive from one seller.
struct Begun {
    part: Part,
    /// The request by which its receipt is known.
    request: RequestId,
    first: Event,
    events: tokio::sync::mpsc::Receiver<Event>,
    route: Option<String>,
    /// Who was asked as well, and was slower.
    lost: Option<Lost>,
}

impl Desk {
    /// Buys an answer: tries one seller after another until one has begun to answer. Dropping the purchase cancels it.
    pub(crate) async fn buy(self: &Arc<Self>, order: Order) -> Result<Purchase, Error> {
        self.uses.note(&order, likely_usage(&order.job));
        let mut tried = Vec::new();
        let begun = self.begin(&order, &mut tried).await?;
        Ok(Purchase::new(Arc::clone(self), order, tried, begun))
    }

    /// Begins an answer at the first seller that gives anything of it. Those that were asked are noted in `tried`, and are
    /// not asked again.
    async fn begin(self: &Arc<Self>, order: &Order, tried: &mut Vec<Address>) -> Result<Begun, Error> {
        let mut worst: Option<Error> = None;
        let mut busy: Option<u64> = None;
        let mut again = 2;
        for _ in 0..self.config.max_attempts.max(1) {
            let picked = match self.pick(order, tried) {
                Ok(picked) => picked,
                Err(error) if tried.is_empty() => return Err(error),
                Err(_) => break,
            };
            let (provider, place) = (picked.seller.offer.provider, picked.seller.offer.peer());
            tried.push(provider);
            match self.attempt_hedged(order, picked, tried).await {
                Ok(begun) => return Ok(begun),
                // A client that heard of the key's limit alone would come back and buy what may be billed already.
                Err((error, Next::Nobody)) => return Err(worst.filter(Error::may_be_charged).unwrap_or(error)),
                Err((error, Next::SameAgain)) => {
                    if again > 0 {
                        again -= 1;
                        tried.retain(|one| *one != provider);
                        tokio::time::sleep(SAME_AGAIN).await;
                    }
                    worst = Some(error);
                }
                Err((Error::Busy { retry_ms }, Next::Another)) => {
                    busy = Some(busy.map_or(retry_ms, |shortest| shortest.min(retry_ms)));
                }
                Err((error, Next::Another)) => {
                    tracing::info!(%provider, %error, "trying another seller");
                    // It started again since: there it was not tried.
                    if self.book.peer_of(provider).is_some_and(|newest| newest != place) {
                        tried.retain(|one| *one != provider);
                    }
                    worst = Some(error);
                }
            }
        }
        if let Some(retry_ms) = busy {
            return Err(Error::Busy { retry_ms });
        }
        Err(worst.unwrap_or(Error::NoSeller {
            model: order.model.asked.clone(),
            retry_ms: self.config.timeouts.browse_ms,
        }))
    }

    /// Begins a trade and waits until its first output or its end.
    async fn attempt(
        self: &Arc<Self>,
        order: &Order,
        picked: Picked,
        ended: Arc<Ended>,
    ) -> Result<Begun, (Error, Next)> {
        let Picked { seller, route, bid } = picked;
        let offer = &seller.offer;
        self.prefixes.note(&order.prompt, offer.provider, offer.model);
        let request = RequestId(rand::random());
        let deal = Deal {
            request,
            listing: order.model.listing.name.clone(),
            job: Arc::clone(&order.job),
            key: order.key.clone(),
            idempotency: order.idempotency,
            most_input: order.most_input,
            seller: Arc::clone(&seller),
            bid,
            ended,
        };
        let mut part = Part::at(offer.provider, offer.model);
        let mut events = trade::begin(Arc::clone(self), deal);
        loop {
            match events.recv().await {
                Some(Event::Accepted { channel }) => part.channel = channel,
                Some(Event::Failed { error, next, .. }) => return Err((error, next)),
                Some(Event::Finished(bill)) if bill.failure.is_some() && bill.usage.output == 0 => {
                    let reason = bill.failure.unwrap_or_default();
                    let charged = bill.cost > NanoDollars::ZERO;
                    return Err((Error::ProviderFailed { reason, charged }, Next::Another));
                }
                Some(first) => {
                    return Ok(Begun {
                        part,
                        request,
                        first,
                        events,
                        route,
                        lost: None,
                    });
                }
                None => return Err((Error::Stopping, Next::Nobody)),
            }
        }
    }
}
