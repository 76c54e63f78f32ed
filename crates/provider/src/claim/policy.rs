//! When to claim: a pure function of what there is to claim.

use std::time::Duration;

use rialto_protocol::{ChannelId, MicroDollars};

use crate::config::RedeemPolicy;

/// What there is to claim on a channel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Pending {
    pub(crate) channel: ChannelId,
    /// Earned, promised and not redeemed.
    pub(crate) unclaimed: MicroDollars,
    /// How long the oldest of it waits.
    pub(crate) age: Duration,
    /// The payer asked to close: what is not claimed before the deadline is lost.
    pub(crate) closing: bool,
    /// When it can be closed then, in seconds since 1970 by the chain's clock; zero while it is not closing.
    pub(crate) closes_at: u64,
    /// Nothing can be claimed any more.
    pub(crate) closed: bool,
    /// Requests that an earlier process left open and no statement settled yet.
    pub(crate) orphans: usize,
}

impl Pending {
    /// Whether a claim would pay, or would once the orphans are settled.
    pub(crate) fn worth(&self) -> bool {
        !self.closed && (self.unclaimed > MicroDollars::ZERO || (self.closing && self.orphans > 0))
    }
}

/// The channels to claim now.
///
/// Once the sum over all channels is worth a transaction, or the oldest earning is old enough, or `now` is asked for,
/// every channel with something to claim goes along: one more claim in a batch is cheap. A closing channel is claimed
/// at once, whatever it holds.
///
/// `cost` is what claiming all of them costs in gas, if that is known: then a multiple of it is what is worth a
/// transaction, and what is old but worth less than its gas waits for more.
pub(crate) fn due(policy: &RedeemPolicy, pending: &[Pending], cost: Option<MicroDollars>, now: bool) -> Vec<ChannelId> {
    let worth = || pending.iter().filter(|one| one.worth());
    let sum = worth().try_fold(MicroDollars::ZERO, |sum, one| sum.checked_add(one.unclaimed));
    let sum = sum.unwrap_or(MicroDollars::MAX);
    let enough = sum >= threshold(policy, cost) && sum > MicroDollars::ZERO;
    let pays = cost.is_none_or(|cost| sum >= cost);
    let old = pays && worth().any(|one| one.age >= policy.max_age);
    let all = now || enough || old;
    worth()
        .filter(|one| all || one.closing)
        .map(|one| one.channel)
        .collect()
}

/// What is worth a transaction.
fn threshold(policy: &RedeemPolicy, cost: Option<MicroDollars>) -> MicroDollars {
    let Some(cost) = cost else { return policy.min_value };
    let many = cost.get().saturating_mul(u128::from(policy.gas_multiple));
    MicroDollars::try_from(many).unwrap_or(MicroDollars::MAX)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const POLICY: RedeemPolicy = RedeemPolicy {
        gas_multiple: 20,
        coin_price: None,
        min_value: MicroDollars::new(100),
        max_age: Duration::from_secs(60),
        interval: Duration::from_secs(1),
    };

    fn pending(id: u8, unclaimed: u64, age: u64) -> Pending {
        Pending {
            channel: ChannelId([id; 32]),
            unclaimed: MicroDollars::new(unclaimed),
            age: Duration::from_secs(age),
            closing: false,
            closes_at: 0,
            closed: false,
            orphans: 0,
        }
    }

    #[test]
    fn small_and_young_earnings_wait() {
        assert!(due(&POLICY, &[pending(1, 50, 10), pending(2, 49, 59)], None, false).is_empty());
        assert_eq!(
            due(&POLICY, &[pending(1, 50, 10), pending(2, 49, 59)], None, true).len(),
            2
        );
    }

    #[test]
    fn value_counts_over_all_channels_and_takes_all_along() {
        assert_eq!(
            due(&POLICY, &[pending(1, 60, 0), pending(2, 40, 0)], None, false).len(),
            2
        );
        assert_eq!(
            due(&POLICY, &[pending(1, 1, 60), pending(2, 1, 0)], None, false).len(),
            2
        );
    }

    #[test]
    fn where_gas_is_known_a_multiple_of_it_counts() {
        let cost = |micro| Some(MicroDollars::new(micro));
        // Worth 110: twenty times five, less than twenty times six, and less than `min_value` does not matter.
        let rows = [pending(1, 60, 0), pending(2, 50, 0)];
        assert_eq!(due(&POLICY, &rows, cost(5), false).len(), 2);
        assert!(due(&POLICY, &rows, cost(6), false).is_empty());
        let small = [pending(1, 40, 0)];
        assert_eq!(due(&POLICY, &small, cost(2), false).len(), 1);
        // Old earnings wait while they are worth less than their gas.
        let old = [pending(1, 40, 1_000)];
        assert!(due(&POLICY, &old, cost(41), false).is_empty());
        assert_eq!(due(&POLICY, &old, cost(40), false).len(), 1);
        assert_eq!(due(&POLICY, &old, cost(41), true).len(), 1);
    }

    #[test]
    fn a_closing_channel_is_claimed_at_once_and_alone() {
        let closing = Pending {
            closing: true,
            ..pending(1, 1, 0)
        };
        assert_eq!(
            due(&POLICY, &[closing, pending(2, 1, 0)], None, false),
            vec![closing.channel]
        );
        let orphaned = Pending {
            unclaimed: MicroDollars::ZERO,
            orphans: 1,
            ..closing
        };
        assert_eq!(due(&POLICY, &[orphaned], None, false).len(), 1);
    }

    #[test]
    fn nothing_is_claimed_of_a_closed_channel() {
        let closed = Pending {
            closed: true,
            closing: true,
            ..pending(1, 1_000, 1_000)
        };
        assert!(due(&POLICY, &[closed], None, true).is_empty());
    }

    proptest! {
        #[test]
        fn a_claim_always_pays_and_no_closing_channel_waits(
            rows in prop::collection::vec((0u64..200, 0u64..120, any::<bool>(), any::<bool>(), 0usize..2), 0..8),
            cost in prop::option::of(0u64..20),
            now: bool,
        ) {
            let all: Vec<_> = rows.iter().enumerate().map(|(id, (value, age, closing, closed, orphans))| Pending {
                closing: *closing, closed: *closed, orphans: *orphans,
                ..pending(u8::try_from(id).unwrap(), *value, *age)
            }).collect();
            let cost = cost.map(MicroDollars::new);
            let due = due(&POLICY, &all, cost, now);
            for one in &all {
                let claimed = due.contains(&one.channel);
                let pays = !one.closed && (one.unclaimed > MicroDollars::ZERO || one.closing && one.orphans > 0);
                prop_assert!(!claimed || pays);
                prop_assert!(claimed || !pays || !one.closing, "a closing channel was left");
                prop_assert!(claimed || !pays || !now, "asked for now and left");
            }
            let sum: u128 = all.iter().filter(|one| one.worth()).map(|one| one.unclaimed.get()).sum();
            let worth_it = match cost {
                Some(cost) => sum >= cost.get(),
                None => true,
            };
            let hurried = now || all.iter().any(|one| one.worth() && one.closing);
            prop_assert!(due.is_empty() || worth_it || hurried, "paid more for gas than it claimed");
        }
    }
}
