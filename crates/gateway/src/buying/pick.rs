//! Who is asked for an answer, or why there is nobody.

use std::{collections::BTreeMap, fmt::Write as _, sync::Arc};

use rialto_protocol::{Address, NanoDollars, Usage, job::Job, offer::Offer};

use super::{Order, likely_usage};
use crate::{
    Error,
    batch::BidInHand,
    desk::Desk,
    routing::{self, Decision, Pool, Seller, Verdict, Wish, choose, explain},
    store::now,
};

/// The shortest pause before a bidder that is busy is asked again, in milliseconds.
const SHORTEST_WAIT: u64 = 250;

/// A seller that was chosen.
pub(super) struct Picked {
    pub(super) seller: Arc<Seller>,
    /// Why, as JSON, if the client wants to know.
    pub(super) route: Option<String>,
    /// The bid at whose price it is asked.
    pub(super) bid: Option<Arc<BidInHand>>,
}

impl Desk {
    /// The seller for an order, none of those that were tried.
    pub(super) fn pick(&self, order: &Order, tried: &[Address]) -> Result<Picked, Error> {
        let preferences = &order.preferences;
        let has_channel = |offer: &Offer| self.ledger.has_open(offer);
        let wish = Wish {
            usage: likely_usage(&order.job),
            preferences,
            tried,
            prompt: Some((&self.prefixes, &order.prompt)),
            has_channel: &has_channel,
            now: now(),
        };
        if let Some(picked) = self.pick_bidder(order, &wish)? {
            return Ok(picked);
        }
        let pools = self.book.pools(&order.model.models, &preferences.regions);
        match choose(&pools, &wish) {
            Some(decision) => Ok(Picked {
                route: order.explain.then(|| route(&pools, &wish, &decision)),
                seller: decision.seller,
                bid: None,
            }),
            None => Err(self.nobody(order, &wish)),
        }
    }

    /// The seller with the lowest bid for an order; an error if a bidder that is busy is to be waited for, and `None` where
    /// the posted price is to be paid.
    fn pick_bidder(&self, order: &Order, wish: &Wish<'_>) -> Result<Option<Picked>, Error> {
        let Some(terms) = &order.terms else { return Ok(None) };
        for bid in terms.bids() {
            let (provider, model) = bid.of();
            let Some(posted) = self.book.seller(provider, model) else {
                continue;
            };
            if wish.tried.contains(&provider) || !order.model.models.contains(&model) {
                continue;
            }
            // An offer that has become cheaper than the bid needs none.
            let bid = (!posted.offer.price.within(&bid.price())).then(|| Arc::clone(bid));
            let seller = match &bid {
                Some(bid) => Arc::new(posted.at(bid.price())),
                None => posted,
            };
            if routing::judge(&seller, wish) == Verdict::Fine {
                return Ok(Some(Picked {
                    seller,
                    route: None,
                    bid,
                }));
            }
        }
        match terms.wait() {
            // An answer that broke off in the middle goes on at once.
            Some(wait) if !has_begun(&order.job) => Err(Error::Busy {
                retry_ms: u64::try_from(wait.as_millis()).unwrap_or(u64::MAX).max(SHORTEST_WAIT),
            }),
            _ => Ok(None),
        }
    }

    /// Why nobody is left although there may be offers.
    fn nobody(&self, order: &Order, wish: &Wish<'_>) -> Error {
        let model = order.model.asked.clone();
        let mut counts: BTreeMap<Verdict, usize> = BTreeMap::new();
        for pool in self.book.pools(&order.model.models, &[]) {
            for seller in pool.sellers() {
                *counts.entry(routing::judge(seller, wish)).or_default() += 1;
            }
        }
        // Those that are gone, or that nobody should ask, do not count as sellers.
        for unseen in [Verdict::Expired, Verdict::Distrusted, Verdict::Fine] {
            counts.remove(&unseen);
        }
        if counts.is_empty() {
            return Error::NoSeller {
                model,
                retry_ms: self.config.timeouts.browse_ms,
            };
        }
        if counts.keys().eq([&Verdict::TooExpensive]) {
            return Error::TooExpensive { model };
        }
        let mut reasons = String::new();
        for (verdict, count) in counts {
            let comma = if reasons.is_empty() { "" } else { ", " };
            // Writing to a string does not fail.
            let _ = write!(reasons, "{comma}{count} {}", verdict.name());
        }
        Error::NobodyFits { model, reasons }
    }

    /// The most that an order can cost at the cheapest seller: a key that has less is refused before anybody is asked.
    pub(crate) fn most(&self, order: &Order) -> Option<NanoDollars> {
        let usage = Usage {
            input: order.most_input,
            output: order.job.max_output(),
        };
        let pools = self.book.pools(&order.model.models, &order.preferences.regions);
        let lowest = pools.iter().filter_map(|pool| pool.lowest_cost(usage));
        let bid = order.terms.as_ref().and_then(|terms| terms.lowest_cost(usage));
        lowest.chain(bid).min()
    }
}

/// Whether a part of the answer is there already.
fn has_begun(job: &Job) -> bool {
    match job {
        Job::Chat { generation, .. } | Job::Completion { generation, .. } => {
            !generation.so_far.ids.is_empty() || !generation.so_far.text.is_empty()
        }
        Job::Embedding { .. } | Job::Predict { .. } => false,
    }
}

fn route(pools: &[Arc<Pool>], wish: &Wish<'_>, decision: &Decision) -> String {
    serde_json::to_string(&explain(pools, wish, decision)).unwrap_or_default()
}
