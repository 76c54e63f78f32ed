//! Limits for each payer and each peer: requests at a time, and requests and units a minute.
//!
//! A minute's allowance may be used at once, and comes back evenly. Units are counted when a request ends, since nobody
//! knows them before: whoever has used more than a minute's worth waits until that is made up for.

use std::{
    collections::HashMap,
    hash::Hash,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::time::Instant;

use crate::clock::millis;

/// Most of the time that an allowance saves up.
const WINDOW: Duration = Duration::from_secs(60);

/// Advice before anything was measured, in milliseconds.
const UNKNOWN_RETRY: u64 = 250;

/// Weight of the newest measurement in a moving mean.
const NEWEST: f64 = 0.1;

/// Entries above which idle ones are forgotten.
const MANY: usize = 4_096;

/// What one payer, or one peer, may ask for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Requests at a time, those that wait included.
    pub at_once: usize,
    /// Requests a minute; `None` for any number.
    pub requests_a_minute: Option<u64>,
    /// Units a minute, input and output together; `None` for any number.
    pub units_a_minute: Option<u64>,
}

/// Who is limited how far, by key.
#[derive(Debug)]
pub(crate) struct Limiter<K> {
    limits: Limits,
    book: Mutex<Book<K>>,
}

#[derive(Debug)]
struct Book<K> {
    entries: HashMap<K, Entry>,
    /// Seconds that a request took lately.
    duration: Option<f64>,
}

#[derive(Debug, Default)]
struct Entry {
    open: usize,
    requests: Allowance,
    units: Allowance,
    /// The last time that a refused caller was told.
    told: Option<Instant>,
}

/// Something of which there is so much a minute.
#[derive(Debug, Default)]
struct Allowance {
    /// When everything that was used is made up for.
    even_at: Option<Instant>,
}

/// A request that counts until this is dropped.
#[derive(Debug)]
pub(crate) struct Pass<K: Hash + Eq> {
    limiter: Arc<Limiter<K>>,
    key: K,
    since: Instant,
}

impl Allowance {
    /// How long until a minute's worth is not exceeded by one more that costs so much.
    fn missing(&self, cost: Duration, now: Instant) -> Duration {
        let used = self
            .even_at
            .map_or(Duration::ZERO, |at| at.saturating_duration_since(now));
        (used + cost).saturating_sub(WINDOW)
    }

    fn take(&mut self, cost: Duration, now: Instant) {
        self.even_at = Some(self.even_at.unwrap_or(now).max(now) + cost);
    }

    fn is_even(&self, now: Instant) -> bool {
        self.even_at.is_none_or(|at| at <= now)
    }
}

/// The time in which so many come back.
fn cost(units: u64, a_minute: Option<u64>) -> Duration {
    let nanos = a_minute.map_or(0, |limit| {
        u128::from(units).saturating_mul(WINDOW.as_nanos()) / u128::from(limit.max(1))
    });
    // No debt of more than a day.
    Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX)).min(Duration::from_secs(86_400))
}

impl<K: Hash + Eq + Copy> Limiter<K> {
    pub(crate) fn new(limits: Limits) -> Arc<Self> {
        let book = Book {
            entries: HashMap::new(),
            duration: None,
        };
        Arc::new(Self {
            limits,
            book: Mutex::new(book),
        })
    }

    fn lock(&self) -> MutexGuard<'_, Book<K>> {
        self.book.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Counts a request, or says in how many milliseconds it may come back.
    pub(crate) fn pass(self: &Arc<Self>, key: K) -> Result<Pass<K>, u64> {
        let now = Instant::now();
        let each = cost(1, self.limits.requests_a_minute);
        let mut book = self.lock();
        if book.entries.len() >= MANY {
            book.entries.retain(|_, entry| !entry.is_idle(now));
        }
        // The time in which one of its requests ends.
        let duration = book.duration;
        let entry = book.entries.entry(key).or_default();
        let mut missing = entry.requests.missing(each, now);
        if self.limits.units_a_minute.is_some() {
            missing = missing.max(entry.units.missing(Duration::ZERO, now));
        }
        let crowded = entry.open >= self.limits.at_once;
        if !crowded && missing.is_zero() {
            entry.open += 1;
            entry.requests.take(each, now);
            let limiter = self.clone();
            return Ok(Pass {
                limiter,
                key,
                since: now,
            });
        }
        let step = if crowded {
            let open = f64::from(u32::try_from(entry.open.max(1)).unwrap_or(u32::MAX));
            let unknown = Duration::from_millis(UNKNOWN_RETRY);
            duration.map_or(unknown, |seconds| Duration::from_secs_f64(seconds / open))
        } else {
            each
        };
        let free = now + missing.max(if crowded { step } else { Duration::ZERO });
        // Those who were refused before come first.
        let told = entry.told.map_or(free, |told| free.max(told + step));
        entry.told = Some(told.min(free + WINDOW));
        Err(millis(told.saturating_duration_since(now)).saturating_add(1))
    }
}

impl Entry {
    fn is_idle(&self, now: Instant) -> bool {
        self.open == 0 && self.requests.is_even(now) && self.units.is_even(now)
    }
}

impl<K: Hash + Eq> Pass<K> {
    /// Counts units that were used.
    pub(crate) fn used(&self, units: u64) {
        let cost = cost(units, self.limiter.limits.units_a_minute);
        let mut book = self.limiter.book.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(entry) = book.entries.get_mut(&self.key) {
            entry.units.take(cost, Instant::now());
        }
    }
}

impl<K: Hash + Eq> Drop for Pass<K> {
    fn drop(&mut self) {
        let took = self.since.elapsed().as_secs_f64();
        let mut book = self.limiter.book.lock().unwrap_or_else(PoisonError::into_inner);
        let mean = book
            .duration
            .map_or(took, |old| old.mul_add(1.0 - NEWEST, took * NEWEST));
        book.duration = Some(mean);
        if let Some(entry) = book.entries.get_mut(&self.key) {
            entry.open = entry.open.saturating_sub(1);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: Limits = Limits {
        at_once: 2,
        requests_a_minute: Some(6),
        units_a_minute: Some(600),
    };

    #[tokio::test(start_paused = true)]
    async fn requests_at_a_time_are_bounded_for_each_key() {
        let limiter = Limiter::new(LIMITS);
        let first = limiter.pass(1).unwrap();
        let second = limiter.pass(1).unwrap();
        assert_eq!(limiter.pass(1).unwrap_err(), UNKNOWN_RETRY + 1);
        assert_eq!(
            limiter.pass(1).unwrap_err(),
            2 * UNKNOWN_RETRY + 1,
            "not at the same time"
        );
        let _other = limiter.pass(2).unwrap();
        tokio::time::advance(Duration::from_secs(4)).await;
        drop(first);
        let _third = limiter.pass(1).unwrap();
        assert_eq!(
            limiter.pass(1).unwrap_err(),
            2_001,
            "one of two requests of four seconds"
        );
        drop(second);
    }

    #[tokio::test(start_paused = true)]
    async fn a_minute_holds_so_many_requests_and_the_advice_is_true() {
        let limiter = Limiter::new(LIMITS);
        for _ in 0..6 {
            drop(limiter.pass(1).unwrap());
        }
        let wait = limiter.pass(1).unwrap_err();
        let next = limiter.pass(1).unwrap_err();
        assert_eq!((wait, next), (10_001, 20_001));
        tokio::time::advance(Duration::from_millis(wait)).await;
        drop(limiter.pass(1).unwrap());
        tokio::time::advance(Duration::from_millis(next - wait)).await;
        drop(limiter.pass(1).unwrap());
    }

    #[tokio::test(start_paused = true)]
    async fn units_are_made_up_for_after_they_were_used() {
        let limiter = Limiter::new(LIMITS);
        let pass = limiter.pass(1).unwrap();
        pass.used(900);
        drop(pass);
        let wait = limiter.pass(1).unwrap_err();
        assert_eq!(wait, 30_001);
        tokio::time::advance(Duration::from_millis(wait)).await;
        drop(limiter.pass(1).unwrap());
    }

    #[tokio::test(start_paused = true)]
    async fn idle_keys_are_forgotten() {
        let limiter = Limiter::new(LIMITS);
        for key in 0..MANY {
            drop(limiter.pass(key).unwrap());
        }
        tokio::time::advance(WINDOW).await;
        drop(limiter.pass(MANY).unwrap());
        assert_eq!(limiter.lock().entries.len(), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn without_limits_a_minute_everything_passes() {
        let limiter = Limiter::new(Limits {
            at_once: 1,
            requests_a_minute: None,
            units_a_minute: None,
        });
        for _ in 0..1_000 {
            let pass = limiter.pass(1).unwrap();
            pass.used(u64::MAX);
        }
    }
}
