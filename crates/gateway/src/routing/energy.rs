//! Least energy a unit first, as sellers declare; who does not say comes last.

use std::sync::Arc;

use super::pool::{Pool, Seller};

/// Sellers that are so near to the best count as equal, and share the load.
pub(super) const BAND: f64 = 0.1;

/// The few best, with their figures as of the last look.
pub(super) fn ranked(pools: &[Arc<Pool>]) -> Vec<(f64, &Arc<Seller>)> {
    let few = pools.iter().flat_map(|pool| &pool.frugal);
    few.map(|(figure, seller)| (*figure, seller)).collect()
}
