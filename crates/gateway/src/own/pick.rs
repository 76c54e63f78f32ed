//! Which server is asked: of two drawn at random, the one with the fewer requests for its slots.

use std::collections::BTreeSet;

use rand::seq::IteratorRandom as _;

use super::{Place, server::Server};

/// The place of a server that was not tried yet, is well and has room. Where the market cannot help, one that failed is
/// better than none.
pub(super) fn one(places: &[Place], tried: &BTreeSet<usize>, overflows: bool) -> Option<usize> {
    let well = one_of(places, tried, Server::is_well);
    well.or_else(|| {
        if overflows {
            None
        } else {
            one_of(places, tried, |server| !server.is_busy())
        }
    })
}

fn one_of(places: &[Place], tried: &BTreeSet<usize>, fits: impl Fn(&Server) -> bool) -> Option<usize> {
    let fit = |(at, (server, _)): &(usize, &Place)| !tried.contains(at) && fits(server) && server.free() > 0;
    let free = |at: &usize| places.get(*at).map(|(server, _)| server.share_free());
    let fitting = places.iter().enumerate().filter(fit).map(|(at, _)| at);
    if places.len() == 1 {
        return fitting.last();
    }
    let drawn = fitting.sample(&mut rand::rng(), 2);
    drawn.into_iter().max_by_key(free)
}

/// Milliseconds until the first of them may be asked again.
pub(super) fn wait(places: &[Place]) -> u64 {
    let waits = places.iter().map(|(server, _)| server.rests_for());
    let shortest = waits.min().unwrap_or_default().as_millis();
    u64::try_from(shortest).unwrap_or(u64::MAX).max(1_000)
}
