//! Most output a second first, as measured here.

use std::sync::Arc;

use super::pool::{Pool, Seller};

/// Sellers that are so near to the best count as equal, and share the load.
pub(super) const BAND: f64 = 0.1;

/// The few best. Which ones they are is known as of the last look, how good they are as of now.
pub(super) fn ranked(pools: &[Arc<Pool>]) -> Vec<(f64, &Arc<Seller>)> {
    let few = pools
        .iter()
        .flat_map(|pool| pool.fastest.iter().map(move |(_, seller)| (pool, seller)));
    few.map(|(pool, seller)| (figure(pool, seller), seller)).collect()
}

fn figure(pool: &Pool, seller: &Seller) -> f64 {
    1.0 / seller.record.speed().unwrap_or(pool.usual_speed).max(0.001)
}
