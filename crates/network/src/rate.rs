//! How often something may happen.

use std::{
    collections::HashMap,
    hash::Hash,
    time::{Duration, Instant},
};

/// Keys that are told apart at a time.
const KEYS: usize = 8_192;

/// A token bucket for each of many keys. What is remembered is bounded: while too many keys are busy, some of them
/// are forgotten, whichever, so that nobody is kept out by others.
#[derive(Debug)]
pub struct Rates<K> {
    full: Rate,
    busy: HashMap<K, Rate>,
}

impl<K: Eq + Hash + Copy> Rates<K> {
    /// Full buckets for all keys.
    pub fn new(burst: u32, per_second: f64, now: Instant) -> Self {
        Self {
            full: Rate::new(burst, per_second, now),
            busy: HashMap::new(),
        }
    }

    /// Takes all that a key has, and what it will have in so long.
    pub fn punish(&mut self, key: K, pause: Duration, now: Instant) {
        // What was never seen is full: it is not forgotten while it is not.
        self.take(key, now);
        if let Some(rate) = self.busy.get_mut(&key) {
            rate.tokens = -rate.per_second * pause.as_secs_f64();
        }
    }

    /// Takes a token of a key; `false` if there is none.
    pub fn take(&mut self, key: K, now: Instant) -> bool {
        if self.busy.len() >= KEYS && !self.busy.contains_key(&key) {
            self.busy.retain(|_, rate| !rate.is_full(now));
            let mut room = KEYS - KEYS / 8;
            self.busy.retain(|_, _| {
                let stays = room > 0;
                room = room.saturating_sub(1);
                stays
            });
        }
        self.busy.entry(key).or_insert(self.full).take(now)
    }
}

/// A token bucket: a burst at once, then so many a second.
#[derive(Debug, Clone, Copy)]
pub struct Rate {
    burst: f64,
    per_second: f64,
    tokens: f64,
    seen: Instant,
}

impl Rate {
    /// A full bucket.
    pub fn new(burst: u32, per_second: f64, now: Instant) -> Self {
        Self {
            burst: f64::from(burst),
            per_second,
            tokens: f64::from(burst),
            seen: now,
        }
    }

    /// Takes a token; `false` if there is none.
    pub fn take(&mut self, now: Instant) -> bool {
        self.fill(now);
        let has_one = self.tokens >= 1.0;
        if has_one {
            self.tokens -= 1.0;
        }
        has_one
    }

    /// Whether nothing was taken lately: forgetting it changes nothing.
    pub fn is_full(&mut self, now: Instant) -> bool {
        self.fill(now);
        self.tokens >= self.burst
    }

    fn fill(&mut self, now: Instant) {
        let passed = now.saturating_duration_since(self.seen).as_secs_f64();
        self.tokens = (self.tokens + passed * self.per_second).min(self.burst);
        self.seen = self.seen.max(now);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_do_not_take_from_each_other_and_are_bounded() {
        let start = Instant::now();
        let mut rates = Rates::new(1, 1.0, start);
        for key in 0..KEYS {
            assert!(rates.take(key, start) && !rates.take(key, start));
        }
        assert!(rates.take(KEYS, start), "nobody is kept out");
        assert_eq!(rates.busy.len(), KEYS - KEYS / 8 + 1);
        for key in KEYS..KEYS * 2 {
            rates.take(key, start + Duration::from_secs(1));
        }
        assert!(rates.busy.len() <= KEYS, "who had time is forgotten");
    }

    #[test]
    fn who_is_punished_waits() {
        let start = Instant::now();
        let mut rates = Rates::new(4, 2.0, start);
        rates.punish(7, Duration::from_secs(60), start);
        assert!(!rates.take(7, start + Duration::from_secs(59)));
        assert!(rates.take(7, start + Duration::from_secs(61)));
        assert!(rates.take(8, start), "another does not");
    }

    #[test]
    fn a_burst_and_then_so_many_a_second() {
        let start = Instant::now();
        let mut rate = Rate::new(3, 2.0, start);
        assert!(rate.is_full(start));
        let taken = |rate: &mut Rate, now| {
            std::iter::repeat_with(|| rate.take(now))
                .take_while(|taken| *taken)
                .count()
        };
        assert_eq!(taken(&mut rate, start), 3);
        assert!(!rate.is_full(start));
        assert_eq!(taken(&mut rate, start + Duration::from_secs(1)), 2);
        assert_eq!(taken(&mut rate, start), 0, "a clock that goes back gives nothing");
        assert_eq!(
            taken(&mut rate, start + Duration::from_secs(100)),
            3,
            "no more than a burst is saved"
        );
    }
}
