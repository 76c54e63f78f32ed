//! Why a request went where it went, for people.

use std::{collections::BTreeMap, sync::Arc};

use serde::Serialize;

use super::{
    candidate::{Candidate, Class},
    choose::{Decision, Wish},
    eligible::{self, Verdict},
    pool::{Pool, Seller},
};

/// A decision with everything that went into it. Costs a look at every seller: made only when it is asked for.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Explanation {
    /// The policy that decided.
    reason: &'static str,
    chosen: Told,
    /// How many sellers there are in each state: eligible and `good`, `full`, `slow` or `avoided`, or why they are not.
    sellers: BTreeMap<&'static str, usize>,
    /// What the request would cost at the cheapest seller that was eligible, in nano-dollars.
    cheapest_nanodollars: Option<f64>,
}

/// A seller as the decision saw it.
#[derive(Debug, Clone, Serialize)]
struct Told {
    provider: String,
    region: String,
    likely_cost_nanodollars: f64,
    first_output_seconds: Option<f64>,
    output_per_second: Option<f64>,
    reliability: f64,
    in_flight: u32,
    capacity: u32,
    open_channel: bool,
}

/// Explains a decision that was just made.
pub(crate) fn explain(pools: &[Arc<Pool>], wish: &Wish<'_>, decision: &Decision) -> Explanation {
    let mut sellers = BTreeMap::new();
    let mut cheapest: Option<f64> = None;
    for pool in pools {
        for seller in pool.sellers() {
            let state = match Candidate::new(seller, pool, wish) {
                Some(one) => {
                    cheapest = Some(cheapest.map_or(one.cost, |least| least.min(one.cost)));
                    class_name(one.class)
                }
                None => excluded(seller, wish),
            };
            *sellers.entry(state).or_default() += 1;
        }
    }
    Explanation {
        reason: decision.reason,
        chosen: told(&decision.seller, wish),
        sellers,
        cheapest_nanodollars: cheapest,
    }
}

fn class_name(class: Class) -> &'static str {
    match class {
        Class::Good => "good",
        Class::Full => "full",
        Class::Slow => "slow",
        Class::Avoided => "avoided",
    }
}

fn excluded(seller: &Seller, wish: &Wish<'_>) -> &'static str {
    match eligible::judge(seller, wish) {
        Verdict::Fine => "tried",
        other => other.name(),
    }
}

fn told(seller: &Seller, wish: &Wish<'_>) -> Told {
    let (offer, record) = (&seller.offer, &seller.record);
    Told {
        provider: offer.provider.to_string(),
        region: offer.region.name(),
        likely_cost_nanodollars: super::pool::cost(seller, wish.usage),
        first_output_seconds: record.first_output(),
        output_per_second: record.speed(),
        reliability: record.reliability(),
        in_flight: record.in_flight(),
        capacity: offer.capacity,
        open_channel: (wish.has_channel)(offer),
    }
}
