//! What was measured of the requests of one engine: how long they take, and how many there are.

use std::time::Duration;

/// Weight of the newest measurement in a moving mean.
const NEWEST: f64 = 0.2;

/// Moving means of what requests took, and the load over time.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Pace {
    /// Seconds in a slot.
    service: Option<f64>,
    /// Seconds from being let in to being ready for a slot.
    opening: Option<f64>,
    /// Units of output a second while one answer was generated.
    speed: Option<f64>,
    load: Load,
}

/// The load added up over time.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Load {
    /// Milliseconds of the queue's clock.
    pub(crate) at: u64,
    /// Requests times milliseconds.
    pub(crate) sum: u128,
    now: usize,
}

impl Load {
    /// At the beginning.
    pub(crate) const NONE: Self = Self { at: 0, sum: 0, now: 0 };
}

impl Pace {
    /// Notes the time that a request had a slot.
    pub(super) fn served(&mut self, service: Duration) {
        mean(&mut self.service, service.as_secs_f64());
    }

    /// Notes the time that a request took to be checked and paid.
    pub(super) fn opened(&mut self, opening: Duration) {
        mean(&mut self.opening, opening.as_secs_f64());
    }

    /// Notes how fast an answer was generated: the time from its first to its last output, and the units after the first.
    pub(super) fn generated(&mut self, units: u64, generating: Duration) {
        if let Ok(units) = u32::try_from(units)
            && units > 0
            && !generating.is_zero()
        {
            mean(&mut self.speed, f64::from(units) / generating.as_secs_f64());
        }
    }

    /// Units of output a second of one request; zero when nothing was measured.
    pub(super) fn speed(&self) -> u32 {
        let speed = self.speed.unwrap_or(0.0).clamp(0.0, f64::from(u32::MAX));
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "the value was clamped to the range"
        )]
        let whole = speed.round() as u32;
        whole
    }

    /// Milliseconds after which one of so many slots is free again, on average; `None` before anything was measured.
    pub(super) fn interval(&self, slots: u32) -> Option<f64> {
        let service = self.service?;
        Some((service * 1_000.0 / f64::from(slots.max(1))).clamp(0.001, 3_600_000.0))
    }

    /// How many requests to let in beyond the slots, so that no slot waits while the next request is checked and paid.
    pub(super) fn ahead(&self, slots: u32) -> usize {
        let most = usize::try_from(slots).unwrap_or(usize::MAX);
        let Some((opening, service)) = self.opening.zip(self.service) else {
            return 1;
        };
        let wanted = (opening * f64::from(slots) / service.max(1e-6)).ceil().clamp(1.0, 1e6);
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "the value was clamped to the range"
        )]
        let wanted = wanted as usize;
        wanted.min(most)
    }

    /// Notes that there are so many requests from now on.
    pub(super) fn set_load(&mut self, load: usize, now: u64) {
        self.load = self.load(now);
        self.load.now = load;
    }

    /// The load up to now.
    pub(super) fn load(&self, now: u64) -> Load {
        let passed = u128::from(now.saturating_sub(self.load.at));
        let requests = u128::try_from(self.load.now).unwrap_or(u128::MAX);
        Load {
            at: now.max(self.load.at),
            sum: self.load.sum.saturating_add(requests.saturating_mul(passed)),
            now: self.load.now,
        }
    }
}

fn mean(old: &mut Option<f64>, new: f64) {
    *old = Some(old.map_or(new, |old| old.mul_add(1.0 - NEWEST, new * NEWEST)));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn speed_is_units_over_the_time_they_took() {
        let mut pace = Pace::default();
        assert_eq!(pace.speed(), 0);
        pace.generated(100, Duration::from_secs(1));
        assert_eq!(pace.speed(), 100);
        pace.generated(0, Duration::ZERO);
        assert_eq!(pace.speed(), 100);
    }

    #[test]
    fn the_load_is_added_up_over_time() {
        let mut pace = Pace::default();
        pace.set_load(2, 100);
        pace.set_load(4, 200);
        let load = pace.load(300);
        assert_eq!((load.at, load.sum), (300, 600));
    }

    #[test]
    fn as_many_are_let_in_ahead_as_their_opening_takes() {
        let mut pace = Pace::default();
        assert_eq!((pace.ahead(8), pace.interval(8)), (1, None));
        pace.served(Duration::from_millis(80));
        pace.opened(Duration::from_millis(40));
        assert_eq!(pace.ahead(8), 4);
        assert_eq!(pace.interval(8), Some(10.0));
        pace.opened(Duration::from_secs(100));
        assert_eq!(pace.ahead(8), 8, "never more than there are slots");
    }
}
