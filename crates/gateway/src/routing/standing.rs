//! Penalties: a seller that failed, was busy or cheated is avoided for a while, longer each time.

use std::{
    sync::{
        LazyLock,
        atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

/// Why a seller is avoided.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Penalty {
    /// It is busy, and said for how long.
    Busy(Duration),
    /// It could not be reached or broke off.
    Failed,
    /// It billed wrongly or broke the protocol.
    Cheated,
}

const BUSY_MOST: Duration = Duration::from_secs(60);
const FAILED: Duration = Duration::from_secs(2);
const FAILED_MOST: Duration = Duration::from_secs(120);
const CHEATED: Duration = Duration::from_secs(24 * 3_600);

static START: LazyLock<Instant> = LazyLock::new(Instant::now);

/// Milliseconds of a clock that never goes back.
pub(super) fn now() -> u64 {
    u64::try_from(START.elapsed().as_millis()).unwrap_or(u64::MAX)
}

/// What is held against one provider, whatever it sells.
#[derive(Debug, Default)]
pub struct Standing {
    /// Until when it is avoided, by [`now`].
    until: AtomicU64,
    /// Failures that no good answers have made up for.
    failures: AtomicU32,
    cheated: AtomicBool,
}

impl Standing {
    /// Notes a penalty.
    pub fn punish(&self, penalty: Penalty) {
        let pause = match penalty {
            Penalty::Busy(pause) => pause.min(BUSY_MOST),
            Penalty::Failed => {
                let before = self.failures.fetch_add(1, Ordering::Relaxed);
                FAILED.saturating_mul(1 << before.min(6)).min(FAILED_MOST)
            }
            Penalty::Cheated => {
                self.cheated.store(true, Ordering::Relaxed);
                CHEATED
            }
        };
        let pause = u64::try_from(pause.as_millis()).unwrap_or(u64::MAX);
        self.until.fetch_max(now().saturating_add(pause), Ordering::Relaxed);
    }

    /// Notes that it answered well. One good answer does not make up for many failures: a seller that fails every other
    /// time would never be avoided for long.
    pub fn praise(&self) {
        if self.cheated.load(Ordering::Relaxed) {
            return;
        }
        let left = |failures: u32| (failures > 0).then_some(failures / 2);
        let _ = self.failures.fetch_update(Ordering::Relaxed, Ordering::Relaxed, left);
        self.until.store(0, Ordering::Relaxed);
    }

    /// Whether it is avoided now; `in_flight` is what it works on. After a failure it gets one request at a time until it
    /// has answered well.
    pub fn is_avoided(&self, in_flight: u32) -> bool {
        let until = self.until.load(Ordering::Relaxed);
        if until == 0 {
            return false;
        }
        until > now() || (in_flight > 0 && self.failures.load(Ordering::Relaxed) > 0)
    }

    /// For how many more milliseconds it is not asked at all, because it cheated.
    pub(super) fn distrusted_for(&self) -> u64 {
        if !self.cheated.load(Ordering::Relaxed) {
            return 0;
        }
        self.until.load(Ordering::Relaxed).saturating_sub(now())
    }

    /// Notes that it cheated before this gateway's start, and is not asked for so many more milliseconds.
    pub(super) fn distrust(&self, milliseconds: u64) {
        let most = u64::try_from(CHEATED.as_millis()).unwrap_or(u64::MAX);
        self.cheated.store(true, Ordering::Relaxed);
        self.until
            .fetch_max(now().saturating_add(milliseconds.min(most)), Ordering::Relaxed);
    }

    /// Whether it cheated and is not asked at all for now.
    pub fn is_distrusted(&self) -> bool {
        self.cheated.load(Ordering::Relaxed) && self.until.load(Ordering::Relaxed) > now()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cheat_is_not_forgiven_for_one_good_answer() {
        let standing = Standing::default();
        standing.punish(Penalty::Failed);
        assert!(standing.is_avoided(0) && !standing.is_distrusted());
        standing.praise();
        assert!(!standing.is_avoided(0));
        standing.punish(Penalty::Cheated);
        standing.praise();
        assert!(standing.is_avoided(0) && standing.is_distrusted());
    }

    #[test]
    fn a_seller_that_fails_again_and_again_is_avoided_longer_each_time() {
        let standing = Standing::default();
        let until = |times: u32| {
            (0..times).for_each(|_| standing.punish(Penalty::Failed));
            standing.until.load(Ordering::Relaxed).saturating_sub(now())
        };
        let (first, later) = (until(1), until(3));
        assert!(first <= 2_000 && later > 10_000, "{first} {later}");
        // A single good answer lets it be asked again, and the next failure costs nearly as much as the last.
        standing.praise();
        standing.punish(Penalty::Failed);
        assert!(standing.until.load(Ordering::Relaxed) >= now() + 3_900);
    }
}
