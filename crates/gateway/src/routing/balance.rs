//! Everything together: cost times expected time times load, worse for who fails often or has no open channel.

use super::{candidate::Candidate, choose::Wish};

/// How much worse a seller is with whom a channel would have to be opened first.
const UNOPENED: f64 = 1.5;

/// Less is better.
pub(super) fn score(one: &Candidate<'_>, wish: &Wish<'_>) -> f64 {
    #[expect(clippy::cast_precision_loss, reason = "an estimate")]
    let seconds = one.first + wish.usage.output as f64 / one.speed;
    let reliability = one.seller.record.reliability().max(0.01);
    let opening = if (wish.has_channel)(&one.seller.offer) {
        1.0
    } else {
        UNOPENED
    };
    // What is free is not better than everything.
    (one.cost + 1.0) * seconds * one.load * opening / (reliability * reliability)
}
