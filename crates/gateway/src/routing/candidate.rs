//! A seller in the light of one request.

use std::sync::Arc;

use super::{
    choose::Wish,
    eligible::{self, Verdict},
    pool::{Pool, Seller, cost, energy},
};

/// Whether a seller is asked before others.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Class {
    /// Nothing speaks against it.
    Good,
    /// It works on as much as it can.
    Full,
    /// It is slower than the buyer would like.
    Slow,
    /// It failed or was busy lately.
    Avoided,
}

/// A seller that could take a request.
#[derive(Debug, Clone, Copy)]
pub(super) struct Candidate<'p> {
    pub(super) seller: &'p Arc<Seller>,
    pub(super) class: Class,
    /// What the request is likely to cost, in nano-dollars.
    pub(super) cost: f64,
    /// Requests that it has, this one included, for each that it works on at a time.
    pub(super) load: f64,
    /// Seconds to the first output, as measured or as usual.
    pub(super) first: f64,
    /// Units of output a second, as measured or as usual.
    pub(super) speed: f64,
    /// Millijoules a unit; infinite where it is not known.
    pub(super) energy: f64,
}

impl<'p> Candidate<'p> {
    /// The seller as this request sees it; `None` if it may not have it.
    pub(super) fn new(seller: &'p Arc<Seller>, pool: &Pool, wish: &Wish<'_>) -> Option<Self> {
        if wish.tried.contains(&seller.offer.provider) || eligible::judge(seller, wish) != Verdict::Fine {
            return None;
        }
        let (offer, record) = (&seller.offer, &seller.record);
        let in_flight = record.in_flight();
        let capacity = offer.capacity.max(1);
        // Its own count was made when the offer was, and may include requests of this gateway: the larger one counts.
        let busy = in_flight.max(offer.load);
        let measured = record.speed();
        let class = if record.standing.is_avoided(in_flight) {
            Class::Avoided
        } else if wish.preferences.is_slower(measured) {
            Class::Slow
        } else if busy >= capacity {
            Class::Full
        } else {
            Class::Good
        };
        // Nobody gets many requests before it has shown what it does with one.
        let unproven = if record.first_output().is_none() { 2.0 } else { 1.0 };
        Some(Self {
            seller,
            class,
            cost: cost(seller, wish.usage),
            load: (f64::from(busy) * unproven + 1.0) / f64::from(capacity),
            first: record.first_output().unwrap_or(pool.usual_first),
            speed: measured.unwrap_or(pool.usual_speed).max(0.001),
            energy: energy(seller),
        })
    }
}
