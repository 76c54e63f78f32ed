//! Which seller gets a request. One file for each policy.

mod eligible;
mod health;
mod load;
mod price;
mod traffic;
mod two_choices;

use std::sync::Arc;

pub(crate) use eligible::{Ceiling, Verdict};
pub(crate) use health::{Health, Penalty};
use rialto_protocol::{NanoDollars, offer::Announcement};
pub(crate) use traffic::Traffic;

/// A seller that could take a request.
#[derive(Debug, Clone)]
pub(crate) struct Candidate {
    pub(crate) announcement: Arc<Announcement>,
    /// Requests of this gateway that it works on.
    pub(crate) in_flight: u32,
    /// What the request is likely to cost there.
    pub(crate) cost: NanoDollars,
    /// Whether it failed or was busy lately.
    pub(crate) penalised: bool,
}

/// The seller for a request: a healthy one if there is any; of two chosen at random, the one with less to do for what it
/// can do, and the cheaper one of equals.
pub(crate) fn choose(candidates: Vec<Candidate>) -> Option<Candidate> {
    let (penalised, healthy): (Vec<_>, Vec<_>) = candidates.into_iter().partition(|candidate| candidate.penalised);
    let pool = if healthy.is_empty() { penalised } else { healthy };
    two_choices::pick(pool, |a, b| load::compare(a, b).then_with(|| price::compare(a, b)))
}

#[cfg(test)]
mod tests {
    use rialto_protocol::Address;

    use super::*;
    use crate::book::tests::{manifest, offer};

    fn candidate(provider: u8, in_flight: u32, cost: u128) -> Candidate {
        Candidate {
            announcement: Arc::new(offer(provider, 5, &manifest("v1", 1), 1)),
            in_flight,
            cost: NanoDollars(cost),
            penalised: false,
        }
    }

    fn chosen(candidates: &[Candidate]) -> Address {
        choose(candidates.to_vec()).unwrap().announcement.offer.provider
    }

    #[test]
    fn the_less_busy_and_then_the_cheaper_wins() {
        let (busy, free, cheap) = (candidate(1, 2, 1), candidate(2, 0, 9), candidate(3, 0, 5));
        for _ in 0..20 {
            assert_eq!(chosen(&[busy.clone(), free.clone()]), free.announcement.offer.provider);
            assert_eq!(
                chosen(&[cheap.clone(), free.clone()]),
                cheap.announcement.offer.provider
            );
        }
        assert!(choose(Vec::new()).is_none());
    }

    #[test]
    fn load_counts_relative_to_capacity() {
        let small = candidate(1, 1, 1);
        let mut large = candidate(2, 2, 1);
        Arc::make_mut(&mut large.announcement).offer.capacity = 64;
        assert_eq!(chosen(&[small, large.clone()]), large.announcement.offer.provider);
    }

    #[test]
    fn a_penalised_seller_is_the_last_resort() {
        let mut penalised = candidate(1, 0, 1);
        penalised.penalised = true;
        let busy = candidate(2, 50, 9);
        assert_eq!(
            chosen(&[penalised.clone(), busy.clone()]),
            busy.announcement.offer.provider
        );
        assert_eq!(
            chosen(std::slice::from_ref(&penalised)),
            penalised.announcement.offer.provider
        );
    }

    #[test]
    fn every_equal_seller_gets_its_share() {
        let equal: Vec<_> = (1..=5).map(|provider| candidate(provider, 0, 1)).collect();
        let seen: std::collections::HashSet<_> = (0..2_000).map(|_| chosen(&equal)).collect();
        assert_eq!(seen.len(), 5);
    }
}
