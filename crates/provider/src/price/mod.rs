//! What a model costs: a policy for each, and the prices that were promised.
//!
//! The price moves only when an offer is made, and the offer's price is on disk before anybody reads it. A request is
//! billed at the current price if no part of that is above what its buyer named; otherwise at a price that was offered, is
//! still valid, and is within what the buyer named. So nobody pays more than the offer that it read says.

mod congestion;
mod cost_plus;
mod fixed;
mod quotes;

use std::sync::{Mutex, MutexGuard, PoisonError};

use rialto_protocol::{Price, Usage};

use crate::{Error, queue::Load};

pub use congestion::Congestion;
pub use cost_plus::{CostPlus, Takes};
pub(crate) use quotes::Quote;
use quotes::Quotes;

/// How a model's price is found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Policy {
    /// Always the same.
    Fixed(Price),
    /// What a unit costs the seller, and a margin.
    CostPlus(CostPlus),
    /// Higher while more is asked for than the slots can do, lower while less is.
    Congestion(Congestion),
}

impl From<Price> for Policy {
    fn from(price: Price) -> Self {
        Self::Fixed(price)
    }
}

impl Policy {
    /// Checks every bound.
    pub fn check(&self) -> Result<(), Error> {
        match self {
            Self::Fixed(_) | Self::CostPlus(_) => Ok(()),
            Self::Congestion(congestion) => congestion.check(),
        }
    }
}

/// What a policy goes by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Seen {
    /// Requests worked on at a time.
    pub(crate) slots: u32,
    /// The load over time.
    pub(crate) load: Load,
}

/// The price of one model.
#[derive(Debug)]
pub(crate) struct Tag(Mutex<State>);

#[derive(Debug)]
struct State {
    mover: Mover,
    current: Price,
    quotes: Quotes,
}

/// A policy with what it remembers.
#[derive(Debug)]
enum Mover {
    Fixed(Price),
    CostPlus(cost_plus::Running),
    Congestion(congestion::Running),
}

impl Mover {
    fn price(&mut self, seen: &Seen) -> Price {
        match self {
            Self::Fixed(price) => fixed::price(*price),
            Self::CostPlus(running) => running.price(),
            Self::Congestion(running) => running.price(seen),
        }
    }
}

impl Tag {
    /// A price by this policy, of which these quotes are out.
    pub(crate) fn new(policy: Policy, quotes: Vec<Quote>, now: u64) -> Self {
        let quotes = Quotes::restore(quotes, now);
        let (mover, current) = match policy {
            Policy::Fixed(price) => (Mover::Fixed(price), price),
            Policy::CostPlus(policy) => {
                let running = cost_plus::Running::new(policy);
                let price = running.price();
                (Mover::CostPlus(running), price)
            }
            Policy::Congestion(policy) => {
                let running = congestion::Running::new(policy, quotes.latest());
                let price = running.current();
                (Mover::Congestion(running), price)
            }
        };
        Self(Mutex::new(State { mover, current, quotes }))
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Moves the price on, and promises it until `expires_at`, in seconds since 1970. The quote has to be on disk before
    /// anybody reads it.
    pub(crate) fn quote(&self, seen: &Seen, expires_at: u64, now: u64) -> Quote {
        let mut state = self.lock();
        if state.quotes.has_room(now) {
            state.current = state.mover.price(seen);
        }
        let quote = Quote {
            price: state.current,
            expires_at,
        };
        state.quotes.add(quote);
        quote
    }

    /// The price now.
    pub(crate) fn current(&self) -> Price {
        self.lock().current
    }

    /// What a request is billed at whose buyer names this price; `None` when no price that holds is within it.
    pub(crate) fn agree(&self, named: &Price, now: u64) -> Option<Price> {
        let state = self.lock();
        if state.current.within(named) {
            return Some(state.current);
        }
        state.quotes.within(named, now)
    }

    /// Notes what a request drew, in millijoules.
    pub(crate) fn learn(&self, usage: Usage, millijoules: u64) {
        if let Mover::CostPlus(running) = &mut self.lock().mover {
            running.learn(usage, millijoules);
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn price(output: u64) -> Price {
        Price {
            input: 10,
            output,
            request: 0,
        }
    }

    const IDLE: Seen = Seen {
        slots: 1,
        load: Load::NONE,
    };

    #[test]
    fn who_read_an_offer_pays_no_more_until_it_expires() {
        let old = Quote {
            price: price(5),
            expires_at: 100,
        };
        // A restart with a higher price.
        let tag = Tag::new(Policy::Fixed(price(9)), vec![old], 50);
        tag.quote(&IDLE, 200, 50);
        assert_eq!(tag.agree(&price(5), 50), Some(price(5)));
        assert_eq!(tag.agree(&price(9), 50), Some(price(9)));
        assert_eq!(
            tag.agree(&price(7), 50),
            Some(price(5)),
            "the one that is within what was named"
        );
        assert_eq!(tag.agree(&price(4), 50), None);
        assert_eq!(tag.agree(&price(5), 100 + quotes::SLACK), None, "it has expired");
    }

    #[test]
    fn who_names_more_than_the_price_pays_the_price() {
        let tag = Tag::new(Policy::Fixed(price(5)), Vec::new(), 0);
        assert_eq!(tag.agree(&price(50), 0), Some(price(5)));
    }

    proptest! {
        /// Whatever was offered when: nobody pays more than it named, and whoever names a price that was offered and has
        /// not expired is served.
        #[test]
        fn every_quote_is_kept(
            quotes in proptest::collection::vec((0u64..20, 0u64..20, 1u64..60), 1..40),
            named in (0u64..20, 0u64..20),
        ) {
            let tag = Tag::new(Policy::Fixed(Price { input: 30, output: 30, request: 0 }), Vec::new(), 0);
            let as_price = |(input, output): (u64, u64)| Price { input, output, request: 0 };
            for (now, (input, output, lifetime)) in (0u64..).zip(&quotes) {
                let mut state = tag.lock();
                state.mover = Mover::Fixed(as_price((*input, *output)));
                drop(state);
                tag.quote(&IDLE, now + lifetime, now);
            }
            let now = u64::try_from(quotes.len()).unwrap();
            if let Some(agreed) = tag.agree(&as_price(named), now) {
                prop_assert!(agreed.within(&as_price(named)));
            }
            for (at, (input, output, lifetime)) in (0u64..).zip(&quotes) {
                if at + lifetime > now {
                    let agreed = tag.agree(&as_price((*input, *output)), now);
                    prop_assert!(agreed.is_some_and(|agreed| agreed.within(&as_price((*input, *output)))));
                }
            }
        }
    }
}
