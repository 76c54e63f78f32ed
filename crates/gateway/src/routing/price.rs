//! Cheapest first, by what the request is likely to cost.

use std::cmp::Ordering;

use super::Candidate;

/// Compares the likely cost at two sellers.
pub(super) fn compare(a: &Candidate, b: &Candidate) -> Ordering {
    a.cost.cmp(&b.cost)
}
