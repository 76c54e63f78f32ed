//! Prices that stood in offers which have not expired.

use rialto_protocol::Price;

/// A quote holds for so many seconds longer than it says: clocks differ, and a request takes its time to arrive.
pub(super) const SLACK: u64 = 5;

/// Most quotes of one model. Offers are made twice a second at most and last ten minutes at most.
const MAX_QUOTES: usize = 2_048;

/// A price that was promised.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Quote {
    pub(crate) price: Price,
    /// Seconds since 1970 after which it does not hold any more.
    pub(crate) expires_at: u64,
}

/// The quotes of one model, the latest last; each price once.
#[derive(Debug, Default)]
pub(super) struct Quotes(Vec<Quote>);

impl Quotes {
    /// Quotes as a store kept them.
    pub(super) fn restore(mut quotes: Vec<Quote>, now: u64) -> Self {
        quotes.sort_by_key(|quote| quote.expires_at);
        let mut restored = Self(quotes);
        restored.expire(now);
        restored
    }

    /// Whether one more price may be promised.
    pub(super) fn has_room(&mut self, now: u64) -> bool {
        self.expire(now);
        self.0.len() < MAX_QUOTES
    }

    pub(super) fn add(&mut self, quote: Quote) {
        let known = self.0.iter().position(|known| known.price == quote.price);
        let before = known.map_or(0, |place| self.0.remove(place).expires_at);
        self.0.push(Quote {
            expires_at: quote.expires_at.max(before),
            ..quote
        });
    }

    pub(super) fn latest(&self) -> Option<Price> {
        self.0.last().map(|quote| quote.price)
    }

    /// The very price that is named if it holds, otherwise the latest that holds and is within it.
    pub(super) fn within(&self, named: &Price, now: u64) -> Option<Price> {
        let holding = || {
            self.0
                .iter()
                .rev()
                .filter(|quote| quote.holds(now))
                .map(|quote| quote.price)
        };
        let same = holding().find(|price| price == named);
        same.or_else(|| holding().find(|price| price.within(named)))
    }

    fn expire(&mut self, now: u64) {
        self.0.retain(|quote| quote.holds(now));
    }
}

impl Quote {
    fn holds(&self, now: u64) -> bool {
        self.expires_at.saturating_add(SLACK) > now
    }
}
