//! What a transaction offers for gas (EIP-1559), between what the market asks and what the wallet allows.

use alloy::consensus::TxEip1559;

use crate::{Error, Options, link::Market};

/// No chain needs a higher tip; a node that suggests one gives its own coins away with somebody else's.
const MAX_TIP: u128 = 100_000_000_000;

/// An offer, in wei for each unit of gas.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Fees {
    /// Most that is paid, base fee and tip together.
    pub(crate) max: u128,
    /// The tip.
    pub(crate) priority: u128,
}

/// Most that a transaction with so much gas may offer for a unit of it.
pub(crate) fn limit(options: &Options, gas: u64) -> u128 {
    options.max_fee_per_gas.min(options.max_cost / u128::from(gas.max(1)))
}

impl Fees {
    /// What a transaction offers now.
    pub(crate) fn of(transaction: &TxEip1559) -> Self {
        Self {
            max: transaction.max_fee_per_gas,
            priority: transaction.max_priority_fee_per_gas,
        }
    }

    /// What a new transaction offers: room for the base fee to double, and the tip that the node suggests.
    pub(crate) fn offer(market: &Market, limit: u128) -> Result<Self, Error> {
        let priority = market.tip.min(MAX_TIP);
        let price = market.base.saturating_add(priority);
        if price > limit {
            return Err(Error::TooExpensive { price, limit });
        }
        Ok(Self {
            max: price.saturating_add(market.base).min(limit),
            priority,
        })
    }

    /// An offer that replaces this one: at least an eighth more of both, as every pool demands, and at least the
    /// market's price. `None` if that is more than is allowed.
    pub(crate) fn raise(self, market: Option<&Market>, limit: u128) -> Option<Self> {
        let least = self.scaled(8);
        let asked = market.and_then(|market| Self::offer(market, limit).ok());
        let max = least.max.max(asked.map_or(0, |asked| asked.max)).min(limit);
        let priority = least.priority.max(asked.map_or(0, |asked| asked.priority)).min(max);
        (max >= least.max && priority >= least.priority).then_some(Self { max, priority })
    }

    /// An offer half as much again, up to a limit: for replacing what nobody here knows the price of. `None` at the
    /// limit.
    pub(crate) fn leap(self, limit: u128) -> Option<Self> {
        let next = self.scaled(2);
        let max = next.max.min(limit);
        (self.max < limit).then_some(Self {
            max,
            priority: next.priority.min(max),
        })
    }

    /// So much more that two processes, which know the same and decide the same, do not make the very same transaction
    /// and both take it for their own.
    pub(crate) fn made_unique(self, limit: u128) -> Self {
        let extra = u128::from(rand::random::<u32>() >> 12);
        let max = self.max.saturating_add(extra).min(limit);
        Self {
            max,
            priority: self.priority.saturating_add(extra).min(max),
        }
    }

    fn scaled(self, part: u128) -> Self {
        let more = |fee: u128| fee.saturating_add((fee / part).saturating_add(1));
        Self {
            max: more(self.max),
            priority: more(self.priority),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GWEI: u128 = 1_000_000_000;

    fn market(base: u128, tip: u128) -> Market {
        Market {
            block: 1,
            gas_limit: 30_000_000,
            base,
            tip,
        }
    }

    #[test]
    fn an_offer_leaves_room_for_the_base_fee_to_double_but_not_beyond_the_limit() {
        let offer = |base, limit| Fees::offer(&market(base * GWEI, GWEI), limit * GWEI);
        let of = |max| Fees {
            max: max * GWEI,
            priority: GWEI,
        };
        assert_eq!(offer(10, 100).unwrap(), of(21));
        assert_eq!(offer(10, 15).unwrap(), of(15));
        assert_eq!(
            offer(10, 10).unwrap_err(),
            Error::TooExpensive {
                price: 11 * GWEI,
                limit: 10 * GWEI
            }
        );
        let greedy = Fees::offer(&market(GWEI, u128::MAX), 1_000 * GWEI).unwrap();
        assert_eq!(greedy.priority, MAX_TIP);
    }

    #[test]
    fn the_cost_of_a_transaction_is_limited_whatever_gas_it_needs() {
        let options = Options {
            max_fee_per_gas: 100 * GWEI,
            max_cost: 10u128.pow(16),
            ..Options::default()
        };
        assert_eq!(limit(&options, 21_000), 100 * GWEI);
        assert_eq!(limit(&options, 1_000_000), 10 * GWEI);
        assert_eq!(limit(&options, 0), 100 * GWEI);
    }

    #[test]
    fn a_replacement_is_an_eighth_dearer_and_at_the_markets_price() {
        let old = Fees {
            max: 8 * GWEI,
            priority: GWEI,
        };
        let raised = old.raise(None, 100 * GWEI).unwrap();
        assert!(raised.max * 8 >= old.max * 9 && raised.priority * 8 >= old.priority * 9);
        let dear = old.raise(Some(&market(20 * GWEI, 5 * GWEI)), 100 * GWEI).unwrap();
        assert_eq!((dear.max, dear.priority), (45 * GWEI, 5 * GWEI));
        let capped = old.raise(Some(&market(20 * GWEI, 5 * GWEI)), 30 * GWEI).unwrap();
        assert_eq!(capped.max, 30 * GWEI);
        // The market is above the limit: as near to it as allowed, for it may fall.
        assert!(old.raise(Some(&market(50 * GWEI, GWEI)), 30 * GWEI).is_some());
        assert_eq!(
            old.raise(None, 8 * GWEI),
            None,
            "what is no eighth more is refused by every pool"
        );
    }

    #[test]
    fn leaps_end_at_the_limit() {
        let mut fees = Some(Fees { max: 1, priority: 1 });
        let mut leaps = 0;
        while let Some(next) = fees {
            assert!(next.max <= 1_000 * GWEI && next.priority <= next.max);
            leaps += 1;
            fees = next.leap(1_000 * GWEI);
        }
        assert!(leaps < 80);
    }
}
