//! Requests a minute and at a time. They are counted in memory: a restart forgets a minute at most.

use std::{
    collections::{HashMap, VecDeque},
    sync::{Arc, PoisonError},
    time::{Duration, Instant},
};

use super::{Limits, MINUTE, Reached};

/// The pause before a request is asked again that did not fit beside the others of its key: when one of them ends, nobody
/// knows.
const BESIDE: Duration = Duration::from_secs(1);

/// Counts the requests of keys that have limits.
#[derive(Debug, Default)]
pub(crate) struct Turnstile(std::sync::Mutex<HashMap<String, Visits>>);

#[derive(Debug, Default)]
struct Visits {
    /// How many began in each bucket of the last minute, the oldest first.
    begun: VecDeque<(Instant, u64)>,
    inside: u64,
}

impl Visits {
    fn forget(&mut self, now: Instant) {
        while self.begun.front().is_some_and(|(start, _)| left(*start, now).is_zero()) {
            self.begun.pop_front();
        }
    }

    fn minute(&self) -> u64 {
        self.begun.iter().map(|(_, count)| count).sum()
    }

    fn count(&mut self, now: Instant) {
        match self.begun.back_mut() {
            Some((start, count)) if now.duration_since(*start) < Duration::from_secs(MINUTE.bucket) => *count += 1,
            _ => self.begun.push_back((now, 1)),
        }
    }
}

/// How long the requests that began in a bucket still count.
fn left(start: Instant, now: Instant) -> Duration {
    Duration::from_secs(MINUTE.bucket + MINUTE.seconds).saturating_sub(now.duration_since(start))
}

/// A request that was let in; it is inside until this is dropped.
pub(crate) struct Entered {
    turnstile: Arc<Turnstile>,
    key: String,
}

impl Drop for Entered {
    fn drop(&mut self) {
        if let Some(visits) = self.turnstile.keys().get_mut(&self.key) {
            visits.inside = visits.inside.saturating_sub(1);
        }
    }
}

/// How many requests may still begin, and when all may.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Room {
    pub(super) left: u64,
    pub(super) all_after: Duration,
}

impl Turnstile {
    fn keys(&self) -> std::sync::MutexGuard<'_, HashMap<String, Visits>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Lets a request in. Keys without limits of requests are not counted.
    pub(crate) fn enter(
        self: &Arc<Self>,
        key: &str,
        limits: &Limits,
        now: Instant,
    ) -> Result<Option<Entered>, Reached> {
        if limits.requests_a_minute.is_none() && limits.at_a_time.is_none() {
            return Ok(None);
        }
        let mut keys = self.keys();
        let visits = keys.entry(key.to_owned()).or_default();
        visits.forget(now);
        if let Some(most) = limits.at_a_time.filter(|most| visits.inside >= *most) {
            return Err(reached("requests at a time", most, visits.inside, BESIDE));
        }
        let minute = visits.minute();
        if let Some(most) = limits.requests_a_minute.filter(|most| minute >= *most) {
            let pause = visits.begun.front().map_or(BESIDE, |(start, _)| left(*start, now));
            return Err(reached("requests a minute", most, minute, pause));
        }
        visits.count(now);
        visits.inside += 1;
        drop(keys);
        Ok(Some(Entered {
            turnstile: Arc::clone(self),
            key: key.to_owned(),
        }))
    }

    pub(super) fn room(&self, key: &str, most: u64, now: Instant) -> Room {
        let mut keys = self.keys();
        let Some(visits) = keys.get_mut(key) else {
            return Room {
                left: most,
                all_after: Duration::ZERO,
            };
        };
        visits.forget(now);
        Room {
            left: most.saturating_sub(visits.minute()),
            all_after: visits
                .begun
                .back()
                .map_or(Duration::ZERO, |(start, _)| left(*start, now)),
        }
    }
}

fn reached(limit: &'static str, most: u64, used: u64, pause: Duration) -> Reached {
    Reached {
        limit,
        most: most.to_string(),
        used: used.to_string(),
        wanted: "1".into(),
        // A limit of nothing lets nothing in, however long one waits.
        retry_ms: (most > 0).then(|| u64::try_from(pause.as_millis()).unwrap_or(u64::MAX).max(1)),
    }
}
