//! Nucleus sampling (Holtzman et al., 2019): the smallest set of the likeliest tokens with a given part of the probability.

use super::{Candidate, highest, order};
use crate::softmax;

/// Tokens less likely than the likeliest by more than this power of e are left out before anything is summed: together
/// they hold less than 2e-9 of the probability of a vocabulary of 150,000, and most of a vocabulary is among them.
const NEGLIGIBLE: f64 = 32.0;

/// Keeps the smallest set of the likeliest tokens that has at least this part of the probability; at least one token.
pub(super) fn keep(candidates: &mut Vec<Candidate>, part: f64) {
    let top = highest(candidates);
    candidates.retain(|one| one.scaled >= top - NEGLIGIBLE);
    // The sum must not depend on the order that earlier filters left.
    candidates.sort_unstable_by_key(|candidate| candidate.id);
    let wanted = part * candidates.iter().map(|one| softmax::exp(one.scaled - top)).sum::<f64>();
    // Sorting a whole vocabulary is slow, and nearly always a few hundred tokens are enough.
    let mut count = 256;
    loop {
        let sorted = count.min(candidates.len());
        if sorted < candidates.len() {
            candidates.select_nth_unstable_by(sorted, order);
        }
        let best = candidates.get_mut(..sorted).unwrap_or_default();
        best.sort_unstable_by(order);
        let mut sum = 0.0;
        let reached = best.iter().position(|one| {
            sum += softmax::exp(one.scaled - top);
            sum >= wanted
        });
        match reached {
            Some(last) => return candidates.truncate(last + 1),
            None if sorted == candidates.len() => return,
            None => count *= 8,
        }
    }
}
