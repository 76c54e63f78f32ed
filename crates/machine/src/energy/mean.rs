//! What a busy second cost of late.

use std::time::Duration;

/// Busy time after which what was learnt counts half.
const HALF: Duration = Duration::from_secs(60);

/// An interval counts when one core, or one GPU, was busy for this part of it at least.
const LEAST_BUSY: u32 = 4;

/// Energy and busy time of an interval.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Drawn {
    pub(crate) microjoules: u64,
    pub(crate) busy: Duration,
}

/// The quotient of two sums, in which what is old weighs less.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Mean {
    microjoules: u64,
    busy: Duration,
}

impl Mean {
    /// Learns from an interval of this length, if there was work in it.
    pub(crate) fn learn(&mut self, drawn: Drawn, passed: Duration) {
        if drawn.busy.is_zero() || drawn.busy < passed / LEAST_BUSY || drawn.microjoules == 0 {
            return;
        }
        self.microjoules = self.microjoules.saturating_add(drawn.microjoules);
        self.busy = self.busy.saturating_add(drawn.busy);
        while self.busy > HALF * 2 {
            self.microjoules /= 2;
            self.busy /= 2;
        }
    }

    /// Millijoules for a busy second; `None` before anything was learnt.
    pub(crate) fn milliwatts(&self) -> Option<u64> {
        // Microjoules over microseconds are watts.
        let milli = u128::from(self.microjoules).checked_mul(1_000)?;
        let milliwatts = milli.checked_div(self.busy.as_micros())?;
        u64::try_from(milliwatts).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn drawn(joules: u64, busy: u64) -> Drawn {
        Drawn {
            microjoules: joules * 1_000_000,
            busy: Duration::from_secs(busy),
        }
    }

    #[test]
    fn an_idle_machine_teaches_nothing() {
        let mut mean = Mean::default();
        mean.learn(drawn(500, 2), Duration::from_secs(10));
        assert_eq!(mean.milliwatts(), None);
        mean.learn(drawn(100, 5), Duration::from_secs(10));
        assert_eq!(mean.milliwatts(), Some(20_000));
    }

    #[test]
    fn what_is_new_outweighs_what_is_old() {
        let mut mean = Mean::default();
        for _ in 0..100 {
            mean.learn(drawn(50, 10), Duration::from_secs(10));
        }
        assert_eq!(mean.milliwatts(), Some(5_000));
        for _ in 0..60 {
            mean.learn(drawn(100, 10), Duration::from_secs(10));
        }
        let now = mean.milliwatts().unwrap();
        assert!((9_000..=10_000).contains(&now), "{now}");
    }
}
