//! Cheapest first, by what the request is likely to cost.

use std::sync::Arc;

use super::{
    choose::Wish,
    pool::{Pool, Seller, cost},
};

/// Sellers whose price is so near to the lowest count as equal, and share the load.
pub(super) const BAND: f64 = 0.01;

/// The few that are cheapest for a use like this one, with what it is likely to cost there.
pub(super) fn ranked<'p>(pools: &'p [Arc<Pool>], wish: &Wish<'_>) -> Vec<(f64, &'p Arc<Seller>)> {
    let few = pools.iter().flat_map(|pool| pool.cheapest(wish.usage));
    few.map(|(_, seller)| (cost(seller, wish.usage), seller)).collect()
}
