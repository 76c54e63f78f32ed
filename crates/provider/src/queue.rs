//! Admission: a bounded queue in front of each engine, and what was measured of it.

use std::{
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore};

use crate::clock::millis;

/// Weight of the newest measurement in a moving mean.
const NEWEST: f64 = 0.2;

/// Advice before anything was measured, and bounds of any advice, in milliseconds.
const UNKNOWN_RETRY: u64 = 1_000;
const SHORTEST_RETRY: u64 = 50;
const LONGEST_RETRY: u64 = 60_000;

/// The queue is full.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Full {
    /// When a place is likely to be free, in milliseconds.
    pub(crate) retry_after_ms: u64,
}

/// The queue in front of one engine.
#[derive(Debug)]
pub(crate) struct Queue {
    slots: Arc<Semaphore>,
    capacity: u32,
    bound: usize,
    load: AtomicUsize,
    pace: Mutex<Pace>,
    changed: Arc<Notify>,
}

/// Moving means of what requests took.
#[derive(Debug, Clone, Copy, Default)]
struct Pace {
    /// Milliseconds in a slot.
    service: Option<f64>,
    /// Units of output a second while one answer was generated.
    speed: Option<f64>,
}

/// A request's place: it counts as load until this is dropped.
#[derive(Debug)]
pub(crate) struct Place {
    queue: Arc<Queue>,
}

/// A request's turn in a slot.
#[derive(Debug)]
pub(crate) struct Turn {
    _permit: OwnedSemaphorePermit,
}

impl Queue {
    /// A queue for an engine with this many slots; `bound` requests may wait. `changed` is told when the load changes.
    pub(crate) fn new(slots: u32, bound: usize, changed: Arc<Notify>) -> Self {
        let capacity = slots.max(1);
        Self {
            slots: Arc::new(Semaphore::new(usize::try_from(capacity).unwrap_or(1))),
            capacity,
            bound,
            load: AtomicUsize::new(0),
            pace: Mutex::new(Pace::default()),
            changed,
        }
    }

    /// Requests worked on at a time.
    pub(crate) fn capacity(&self) -> u32 {
        self.capacity
    }

    /// Requests being worked on or waiting.
    pub(crate) fn load(&self) -> usize {
        self.load.load(Ordering::Relaxed)
    }

    /// Units of output a second of one request; zero when nothing was measured.
    pub(crate) fn speed(&self) -> u32 {
        let speed = self.pace().speed.unwrap_or(0.0).clamp(0.0, f64::from(u32::MAX));
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "the value was clamped to the range"
        )]
        let whole = speed.round() as u32;
        whole
    }

    /// Takes a place, unless the queue is full.
    pub(crate) fn enter(self: &Arc<Self>) -> Result<Place, Full> {
        let most = usize::try_from(self.capacity)
            .unwrap_or(usize::MAX)
            .saturating_add(self.bound);
        let taken = self.load.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |load| {
            (load < most).then_some(load.saturating_add(1))
        });
        if taken.is_err() {
            return Err(self.full());
        }
        self.changed.notify_one();
        Ok(Place { queue: self.clone() })
    }

    /// What is said to whom there is no place for.
    pub(crate) fn full(&self) -> Full {
        Full {
            retry_after_ms: self.retry_after(),
        }
    }

    /// A place is free again once one request finishes, and one does every `service / slots` on average.
    fn retry_after(&self) -> u64 {
        self.pace().service.map_or(UNKNOWN_RETRY, |service| {
            let wait = service / f64::from(self.capacity);
            millis(Duration::from_secs_f64(wait.max(0.0) / 1_000.0)).clamp(SHORTEST_RETRY, LONGEST_RETRY)
        })
    }

    fn pace(&self) -> Pace {
        *self.pace.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Place {
    /// Waits for a slot; first come, first served.
    pub(crate) async fn turn(&self) -> Option<Turn> {
        let permit = self.queue.slots.clone().acquire_owned().await.ok()?;
        Some(Turn { _permit: permit })
    }

    /// Notes what a finished request took: the time in its slot, and the time between its first and last output with
    /// the units that came after the first.
    pub(crate) fn measured(&self, service: Duration, units: u64, generating: Duration) {
        let mut pace = self.queue.pace.lock().unwrap_or_else(PoisonError::into_inner);
        let mean = |old: Option<f64>, new: f64| Some(old.map_or(new, |old| old.mul_add(1.0 - NEWEST, new * NEWEST)));
        pace.service = mean(pace.service, service.as_secs_f64() * 1_000.0);
        if let Ok(units) = u32::try_from(units)
            && units > 0
            && !generating.is_zero()
        {
            pace.speed = mean(pace.speed, f64::from(units) / generating.as_secs_f64());
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.queue.load.fetch_sub(1, Ordering::Relaxed);
        self.queue.changed.notify_one();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn queue(slots: u32, bound: usize) -> Arc<Queue> {
        Arc::new(Queue::new(slots, bound, Arc::new(Notify::new())))
    }

    #[test]
    fn one_more_than_slots_and_queue_is_refused_with_a_measured_delay() {
        let queue = queue(2, 1);
        let mut places: Vec<_> = (0..3).map(|_| queue.enter().unwrap()).collect();
        assert_eq!(queue.enter().unwrap_err().retry_after_ms, UNKNOWN_RETRY);
        places[0].measured(Duration::from_secs(4), 0, Duration::ZERO);
        assert_eq!(queue.enter().unwrap_err().retry_after_ms, 2_000);
        places.pop();
        assert_eq!(queue.load(), 2);
        queue.enter().unwrap();
    }

    #[test]
    fn speed_is_units_over_the_time_they_took() {
        let queue = queue(1, 0);
        let place = queue.enter().unwrap();
        assert_eq!(queue.speed(), 0);
        place.measured(Duration::from_secs(2), 100, Duration::from_secs(1));
        assert_eq!(queue.speed(), 100);
        place.measured(Duration::from_secs(2), 0, Duration::ZERO);
        assert_eq!(queue.speed(), 100);
    }

    #[tokio::test]
    async fn a_turn_comes_when_another_ends() {
        let queue = queue(1, 1);
        let (first, second) = (queue.enter().unwrap(), queue.enter().unwrap());
        let turn = first.turn().await.unwrap();
        let mut waiting = Box::pin(second.turn());
        assert!(futures::poll!(&mut waiting).is_pending());
        drop(turn);
        assert!(waiting.await.is_some());
    }
}
