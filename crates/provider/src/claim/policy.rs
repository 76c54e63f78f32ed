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
    /// Nothing can be claimed any more.
    pub(crate) closed: bool,
    /// Requests that an earlier process left open and no statement settled yet.
    pub(crate) orphans: usize,
}

impl Pending {
    /// Whether a claim would pay, or would once the orphans are settled.
    fn worth(&self) -> bool {
        !self.closed && (self.unclaimed > MicroDollars::ZERO || (self.closing && self.orphans > 0))
    }
}

/// The channels to claim now.
///
/// Once the sum over all channels is worth a transaction, or the oldest earning is old enough, or `now` is asked for,
/// every channel with something to claim goes along: one more claim in a batch is cheap. A closing channel is claimed
/// at once, whatever it holds.
pub(crate) fn due(policy: &RedeemPolicy, pending: &[Pending], now: bool) -> Vec<ChannelId> {
    let worth = || pending.iter().filter(|one| one.worth());
    let sum = worth().try_fold(MicroDollars::ZERO, |sum, one| sum.checked_add(one.unclaimed));
    let enough = sum.is_none_or(|sum| sum >= policy.min_value && sum > MicroDollars::ZERO);
    let old = worth().any(|one| one.age >= policy.max_age);
    let all = now || enough || old;
    worth()
        .filter(|one| all || one.closing)
        .map(|one| one.channel)
        .collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const POLICY: RedeemPolicy = RedeemPolicy {
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
            closed: false,
            orphans: 0,
        }
    }

    #[test]
    fn small_and_young_earnings_wait() {
        assert!(due(&POLICY, &[pending(1, 50, 10), pending(2, 49, 59)], false).is_empty());
        assert_eq!(due(&POLICY, &[pending(1, 50, 10), pending(2, 49, 59)], true).len(), 2);
    }

    #[test]
    fn value_counts_over_all_channels_and_takes_all_along() {
        assert_eq!(due(&POLICY, &[pending(1, 60, 0), pending(2, 40, 0)], false).len(), 2);
        assert_eq!(due(&POLICY, &[pending(1, 1, 60), pending(2, 1, 0)], false).len(), 2);
    }

    #[test]
    fn a_closing_channel_is_claimed_at_once_and_alone() {
        let closing = Pending {
            closing: true,
            ..pending(1, 1, 0)
        };
        assert_eq!(due(&POLICY, &[closing, pending(2, 1, 0)], false), vec![closing.channel]);
        let orphaned = Pending {
            unclaimed: MicroDollars::ZERO,
            orphans: 1,
            ..closing
        };
        assert_eq!(due(&POLICY, &[orphaned], false).len(), 1);
    }

    #[test]
    fn nothing_is_claimed_of_a_closed_channel() {
        let closed = Pending {
            closed: true,
            closing: true,
            ..pending(1, 1_000, 1_000)
        };
        assert!(due(&POLICY, &[closed], true).is_empty());
    }

    proptest! {
        #[test]
        fn a_claim_always_pays_and_no_closing_channel_waits(
            rows in prop::collection::vec((0u64..200, 0u64..120, any::<bool>(), any::<bool>(), 0usize..2), 0..8),
            now: bool,
        ) {
            let all: Vec<_> = rows.iter().enumerate().map(|(id, (value, age, closing, closed, orphans))| Pending {
                closing: *closing, closed: *closed, orphans: *orphans,
                ..pending(u8::try_from(id).unwrap(), *value, *age)
            }).collect();
            let due = due(&POLICY, &all, now);
            for one in &all {
                let claimed = due.contains(&one.channel);
                let pays = !one.closed && (one.unclaimed > MicroDollars::ZERO || one.closing && one.orphans > 0);
                prop_assert!(!claimed || pays);
                prop_assert!(claimed || !pays || !one.closing, "a closing channel was left");
                prop_assert!(claimed || !pays || !now, "asked for now and left");
            }
        }
    }
}
