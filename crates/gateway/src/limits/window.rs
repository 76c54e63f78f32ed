//! Sliding windows in buckets, and whether a request still fits into them.
//!
//! What a request may use at most is reserved when it begins; when it ends, what it did use is counted at that time. So at
//! every moment what ended within the span and what is reserved are together within the limit.

use super::{Limits, Meter, Reached, Use};

/// A stretch of time over which uses are added up, in seconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Span {
    pub(crate) seconds: u64,
    /// Uses within so long a time are counted as one, at its end: a use counts up to this longer than the span.
    pub(crate) bucket: u64,
}

/// A minute.
pub(crate) const MINUTE: Span = Span { seconds: 60, bucket: 5 };
/// A day.
pub(crate) const DAY: Span = Span {
    seconds: 86_400,
    bucket: 1_800,
};

/// How long a request waits for others under way, in seconds: they end at a time that nobody knows.
const OTHERS: u64 = 60;

impl Span {
    /// The beginning of the bucket that holds a time.
    pub(crate) fn bucket_of(self, now: u64) -> u64 {
        now - now % self.bucket
    }

    /// The time from which a bucket does not count any more.
    pub(crate) fn end_of(self, bucket: u64) -> u64 {
        bucket.saturating_add(self.bucket).saturating_add(self.seconds)
    }

    /// The last beginning of a bucket that does not count any more.
    pub(crate) fn forgotten(self, now: u64) -> u64 {
        now.saturating_sub(self.bucket.saturating_add(self.seconds))
    }
}

/// What was used within one bucket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Bucket {
    /// In seconds since 1970.
    pub(crate) start: u64,
    pub(crate) used: Use,
}

/// What a key used lately, and what its requests under way may use.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct State {
    /// The oldest first.
    pub(crate) minute: Vec<Bucket>,
    pub(crate) day: Vec<Bucket>,
    pub(crate) held: Use,
}

impl State {
    pub(crate) fn of(&self, span: Span) -> &[Bucket] {
        if span == MINUTE { &self.minute } else { &self.day }
    }

    /// What counts of a span: ended or under way.
    pub(crate) fn taken(&self, span: Span, now: u64) -> Use {
        let counts = self.of(span).iter().filter(|bucket| span.end_of(bucket.start) > now);
        counts.fold(self.held, |sum, bucket| sum.plus(bucket.used))
    }
}

/// Whether a request that may use so much fits. Of the limits that it does not fit into, the one that lasts longest is named.
pub(crate) fn check(limits: &Limits, state: &State, wanted: Use, now: u64) -> Result<(), Reached> {
    let reached = limits.meters().filter_map(|meter| {
        let (taken, wanted) = ((meter.of)(state.taken(meter.span, now)), (meter.of)(wanted));
        let missing = taken
            .saturating_add(wanted)
            .checked_sub(meter.most)
            .filter(|missing| *missing > 0)?;
        Some(Reached {
            limit: meter.name,
            most: (meter.show)(meter.most),
            used: (meter.show)(taken),
            wanted: (meter.show)(wanted),
            retry_ms: (wanted <= meter.most).then(|| wait(&meter, state, missing, now).saturating_mul(1_000)),
        })
    });
    // What no wait helps against lasts longest.
    let longest = reached.max_by_key(|one| one.retry_ms.unwrap_or(u64::MAX));
    longest.map_or(Ok(()), Err)
}

/// Seconds until there is room for what is missing: when so much is forgotten, or, where that is not enough, when what is
/// under way will have ended, as it may.
fn wait(meter: &Meter, state: &State, missing: u128, now: u64) -> u64 {
    let held = (meter.of)(state.held);
    forgotten_after(meter, state, missing, now).unwrap_or_else(|| {
        let rest = forgotten_after(meter, state, missing.saturating_sub(held), now);
        rest.unwrap_or(OTHERS).max(OTHERS)
    })
}

/// Seconds until so much of what ended is forgotten; `None` if there is not so much.
fn forgotten_after(meter: &Meter, state: &State, amount: u128, now: u64) -> Option<u64> {
    let mut freed = 0_u128;
    let mut wait = 0;
    for bucket in state.of(meter.span) {
        if freed >= amount {
            break;
        }
        let left = meter.span.end_of(bucket.start).saturating_sub(now);
        if left > 0 {
            freed = freed.saturating_add((meter.of)(bucket.used));
            wait = left;
        }
    }
    (freed >= amount).then_some(wait)
}
