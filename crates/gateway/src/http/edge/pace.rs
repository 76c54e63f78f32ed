//! How slow the other side of a connection may be.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering::Relaxed},
};

use tokio::time::Instant;

/// Milliseconds since the server began. Never zero, so that zero can stand for "not at all".
#[derive(Debug, Clone, Copy)]
pub(super) struct Clock(Instant);

impl Clock {
    pub(super) fn new() -> Self {
        Self(Instant::now())
    }

    pub(super) fn now(self) -> u64 {
        u64::try_from(self.0.elapsed().as_millis())
            .unwrap_or(u64::MAX)
            .saturating_add(1)
    }
}

/// Patience with the other side: waiting uses it up, and bytes that move at the lowest rate or faster restore it. Who is
/// silent for `most` milliseconds runs out of it, and so does who sends a byte now and then.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Pace {
    /// The most patience there is, in milliseconds.
    most: u64,
    /// The lowest rate, in bytes a second.
    rate: u64,
    left: u64,
}

impl Pace {
    pub(crate) fn new(most: u64, rate: u64) -> Self {
        Self {
            most,
            rate: rate.max(1),
            left: most,
        }
    }

    /// How long may be waited for the next byte, in milliseconds.
    pub(crate) fn left(&self) -> u64 {
        self.left
    }

    /// Notes that so many bytes moved after so many milliseconds of waiting.
    pub(crate) fn moved(&mut self, waited: u64, bytes: usize) {
        let bytes = u64::try_from(bytes).unwrap_or(u64::MAX);
        let earned = bytes.saturating_mul(1_000) / self.rate;
        self.left = self.left.saturating_sub(waited).saturating_add(earned).min(self.most);
    }
}

/// A pace with the time at which it runs out, for whoever looks after the connections.
#[derive(Debug)]
pub(super) struct Watch {
    clock: Clock,
    pace: Pace,
    since: Option<u64>,
    /// When patience runs out; zero while nobody is waited for.
    end: Arc<AtomicU64>,
}

impl Watch {
    pub(super) fn new(clock: Clock, pace: Pace) -> Self {
        Self {
            clock,
            pace,
            since: None,
            end: Arc::default(),
        }
    }

    /// When patience runs out; zero while nobody is waited for.
    pub(super) fn end(&self) -> &Arc<AtomicU64> {
        &self.end
    }

    /// The other side is waited for from now on, unless it was before.
    pub(super) fn wait(&mut self) {
        if self.since.is_none() {
            let now = self.clock.now();
            self.since = Some(now);
            self.end.store(now.saturating_add(self.pace.left()), Relaxed);
        }
    }

    /// The other side took so many bytes.
    pub(super) fn moved(&mut self, bytes: usize) {
        if let Some(since) = self.since.take() {
            self.pace.moved(self.clock.now().saturating_sub(since), bytes);
            self.end.store(0, Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn who_is_slower_than_the_rate_is_left_and_who_is_not_stays(
            gap in 1u64..500,
            bytes in 0usize..4_096,
            rate in 1u64..4_096,
        ) {
            let mut pace = Pace::new(5_000, rate);
            let earned = u64::try_from(bytes).unwrap() * 1_000 / rate;
            for _ in 0..5_000 {
                pace.moved(gap, bytes);
            }
            // The next wait is as long as those before.
            prop_assert_eq!(pace.left() < gap, earned < gap);
            prop_assert!(pace.left() <= 5_000);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn patience_runs_from_the_first_wait_and_ends_with_a_move() {
        let clock = Clock::new();
        let mut watch = Watch::new(clock, Pace::new(1_000, 1_000));
        tokio::time::advance(std::time::Duration::from_millis(9)).await;
        watch.wait();
        tokio::time::advance(std::time::Duration::from_millis(600)).await;
        watch.wait();
        assert_eq!(watch.end().load(Relaxed), 1_010);
        watch.moved(100);
        assert_eq!(watch.end().load(Relaxed), 0);
        watch.wait();
        assert_eq!(watch.end().load(Relaxed), 610 + 500);
    }
}
