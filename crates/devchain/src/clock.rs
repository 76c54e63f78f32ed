//! The chain's clock: wall time plus an offset that tests may move.

use serde::{Deserialize, Serialize};
use std::time::{SystemTime, UNIX_EPOCH};

/// The furthest a clock can be moved: a hundred thousand years, so that sums of timestamps never overflow.
const LIMIT: i64 = 3_155_760_000_000;

/// Decides the timestamp of the next block. Kept in the journal, so that travelled time survives a restart.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Clock {
    /// Seconds added to the wall clock.
    offset: i64,
    /// A timestamp fixed for the next block only; afterwards time runs on from it.
    fixed: Option<u64>,
}

impl Clock {
    /// The timestamp a block after `parent` (seconds) gets if it is made now. Always greater than `parent`.
    pub(crate) fn next(&self, parent: u64) -> u64 {
        self.next_at(parent, wall())
    }

    fn next_at(&self, parent: u64, wall: u64) -> u64 {
        let now = self.fixed.unwrap_or_else(|| wall.saturating_add_signed(self.offset));
        now.max(parent.saturating_add(1))
    }

    /// The clock after a block with `timestamp` was made: a fixed timestamp is used up and time runs on from it.
    pub(crate) fn after_block(&self, timestamp: u64) -> Self {
        match self.fixed {
            Some(_) => Self {
                offset: difference(timestamp, wall()),
                fixed: None,
            },
            None => *self,
        }
    }

    /// Moves time forward from the chain's present; returns `None` beyond the limit.
    ///
    /// Many blocks in one second run ahead of the wall clock, since each is younger than its parent. Time moves
    /// from there: whoever waits for a deadline that counts from the newest block, `parent`, moves past it.
    pub(crate) fn advance(&self, seconds: u64, parent: u64) -> Option<Self> {
        self.advance_at(seconds, parent, wall())
    }

    fn advance_at(&self, seconds: u64, parent: u64, wall: u64) -> Option<Self> {
        let seconds = i64::try_from(seconds).ok()?;
        let ahead = difference(parent, wall).max(self.offset);
        let offset = ahead.checked_add(seconds).filter(|offset| offset.abs() <= LIMIT)?;
        let fixed = self.fixed.map(|fixed| fixed.saturating_add_signed(seconds));
        Some(Self { offset, fixed })
    }

    /// Fixes the next block's timestamp; returns `None` unless it lies after `parent` and within the limit.
    pub(crate) fn fix(&self, timestamp: u64, parent: u64) -> Option<Self> {
        let bounded = timestamp > parent && i64::try_from(timestamp).is_ok_and(|at| at <= LIMIT);
        bounded.then_some(Self {
            offset: self.offset,
            fixed: Some(timestamp),
        })
    }

    /// Seconds added to the wall clock now.
    pub(crate) fn offset(&self) -> i64 {
        self.offset
    }
}

/// Seconds since the Unix epoch; zero on a machine whose clock stands before it.
pub(crate) fn wall() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |elapsed| elapsed.as_secs())
}

fn difference(a: u64, b: u64) -> i64 {
    let clamp = |value: u64| i64::try_from(value).unwrap_or(i64::MAX);
    clamp(a).saturating_sub(clamp(b))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn time_never_stands_still() {
        let clock = Clock::default();
        assert_eq!(clock.next_at(100, 50), 101);
        assert_eq!(clock.next_at(100, 100), 101);
        assert_eq!(clock.next_at(100, 200), 200);
    }

    #[test]
    fn travel_adds_up_and_is_bounded() {
        let clock = Clock::default().advance(10, 0).unwrap().advance(5, 0).unwrap();
        assert_eq!(clock.next_at(0, 1000), 1015);
        assert!(clock.advance(u64::MAX, 0).is_none());
        assert!(clock.advance(LIMIT.unsigned_abs(), 0).is_none());
    }

    #[test]
    fn travel_begins_at_a_newest_block_that_ran_ahead() {
        let clock = Clock::default().advance_at(100, 1_030, 1_000).unwrap();
        assert_eq!(clock.next_at(1_030, 1_000), 1_130);
    }

    #[test]
    fn a_fixed_timestamp_holds_once_and_time_runs_on_from_it() {
        let clock = Clock::default().fix(5_000_000_000, 10).unwrap();
        assert_eq!(clock.next_at(10, 1000), 5_000_000_000);
        let after = clock.after_block(5_000_000_000);
        let next = after.next(5_000_000_000);
        assert!((5_000_000_001..5_000_000_010).contains(&next));
        assert!(Clock::default().fix(10, 10).is_none());
    }
}
