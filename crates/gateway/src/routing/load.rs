//! Least loaded first: requests in flight relative to what a seller works on at a time.

use std::cmp::Ordering;

use super::Candidate;

/// Compares how busy two sellers are, without dividing.
pub(super) fn compare(a: &Candidate, b: &Candidate) -> Ordering {
    let busy = |candidate: &Candidate| {
        // Its own count was made when the offer was, and may include requests of this gateway: the larger one counts.
        u64::from(candidate.in_flight.max(candidate.announcement.offer.load))
    };
    let capacity = |candidate: &Candidate| u64::from(candidate.announcement.offer.capacity.max(1));
    (busy(a) * capacity(b)).cmp(&(busy(b) * capacity(a)))
}
