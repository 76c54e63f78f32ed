//! How long steps of computation take, and whether the present one takes too long: this is how a host tells a worker that
//! works from one that hangs.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

/// A step may always take this long.
const ALWAYS: Duration = Duration::from_millis(1_000);

/// And this many times as long as its size lets expect: pages that have to be read again, a machine with other work.
const TIMES: u32 = 20;

/// What a step may take before any was measured.
const UNKNOWN: Duration = Duration::from_secs(600);

/// The steps of one worker. Clones share them.
#[derive(Debug, Clone, Default)]
pub struct Steps(Arc<Mutex<Inner>>);

#[derive(Debug, Default)]
struct Inner {
    running: BTreeMap<u64, Running>,
    next: u64,
    /// The slowest so far: fixed part and part for each unit of size, taken together as if each were all.
    slowest: Option<Slowest>,
}

#[derive(Debug, Clone, Copy)]
struct Running {
    began: Instant,
    size: usize,
}

#[derive(Debug, Clone, Copy, Default)]
struct Slowest {
    step: Duration,
    unit: Duration,
}

/// A step under way. One that is dropped without an end counts as ended.
#[derive(Debug)]
pub struct Step<'s> {
    steps: &'s Steps,
    number: u64,
}

impl Steps {
    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Begins a step of this size: tokens, or rows.
    pub fn begin(&self, size: usize) -> Step<'_> {
        let mut inner = self.inner();
        let number = inner.next;
        inner.next = number.wrapping_add(1);
        let running = Running {
            began: Instant::now(),
            size: size.max(1),
        };
        inner.running.insert(number, running);
        Step { steps: self, number }
    }

    /// Milliseconds that the present step has taken and may take: of the one that is nearest to its limit.
    pub fn pulse(&self) -> (u64, u64) {
        let inner = self.inner();
        let steps = inner.running.values().map(|running| {
            let limit = inner.slowest.map_or(UNKNOWN, |slowest| slowest.limit(running.size));
            (millis(running.began.elapsed()), millis(limit))
        });
        steps
            .max_by_key(|(took, limit)| took.saturating_mul(1_000) / limit.max(&1))
            .unwrap_or((0, millis(UNKNOWN)))
    }
}

impl Slowest {
    fn limit(self, size: usize) -> Duration {
        let units = u32::try_from(size).unwrap_or(u32::MAX);
        let expected = self.unit.saturating_mul(units).max(self.step);
        expected.saturating_mul(TIMES).max(ALWAYS)
    }
}

impl Step<'_> {
    /// The step is done.
    pub fn end(self) {}
}

impl Drop for Step<'_> {
    fn drop(&mut self) {
        let mut inner = self.steps.inner();
        let Some(running) = inner.running.remove(&self.number) else {
            return;
        };
        let took = running.began.elapsed();
        let size = u32::try_from(running.size).unwrap_or(u32::MAX);
        let before = inner.slowest.unwrap_or_default();
        inner.slowest = Some(Slowest {
            step: before.step.max(took),
            unit: before.unit.max(took / size),
        });
    }
}

/// Processor time of this process so far, in microseconds.
pub(crate) fn processor_micros() -> u64 {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
    let whole = u64::try_from(time.tv_sec).unwrap_or_default().saturating_mul(1_000_000);
    whole.saturating_add(u64::try_from(time.tv_nsec).unwrap_or_default() / 1_000)
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_step_may_take_what_its_size_lets_expect_and_never_less_than_a_second() {
        let tick = Duration::from_millis(20);
        let slowest = Slowest { step: tick, unit: tick };
        assert_eq!(millis(slowest.limit(1)), 1_000);
        assert_eq!(millis(slowest.limit(1_000)), 400_000);

        let steps = Steps::default();
        assert_eq!(steps.pulse(), (0, 600_000), "nothing runs");
        let first = steps.begin(1);
        assert_eq!(steps.pulse().1, 600_000, "nothing is known");
        // How much longer than this it takes, the machine decides.
        std::thread::sleep(tick);
        first.end();
        let small = steps.begin(1);
        assert!(steps.pulse().1 >= 1_000);
        let large = steps.begin(1_000);
        drop(small);
        assert!(steps.pulse().1 >= 400_000, "{:?}", steps.pulse());
        large.end();
        assert_eq!(steps.pulse(), (0, 600_000));
    }
}
