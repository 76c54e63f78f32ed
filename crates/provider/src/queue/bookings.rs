//! What refused callers were told: each gets a time of its own to come back, and a place is kept for it then.
//!
//! Without that, everybody who was refused comes back at once, or finds that somebody else came first. Places are kept
//! only as far as callers do come back: the share that did so lately is measured.
//!
//! Pure: times are milliseconds of the caller's clock.

use std::collections::BTreeMap;

use rialto_protocol::Address;

/// Most times that are kept; whoever is refused beyond that is told a time, and no place is kept.
const MAX_BOOKINGS: usize = 8_192;

/// Furthest time, in milliseconds. Gateways believe no more.
const FURTHEST: u64 = 600_000;

/// A caller may be so much early: clocks differ, and timers are not exact. In milliseconds.
const EARLY: u64 = 10;

/// A caller may be so much late, besides a quarter of what it was told to wait. In milliseconds.
const LATE: u64 = 2_000;

/// Weight of the newest caller in the share that comes back.
const NEWEST: f64 = 0.05;

/// A time that somebody was told.
#[derive(Debug, Clone, Copy)]
struct Booking {
    /// What its caller asked for.
    job: u64,
    due: u64,
    /// When its caller counts as gone.
    until: u64,
}

/// Whether a caller was told a time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Standing {
    /// It was not.
    New,
    /// It comes too early by so many milliseconds.
    Early(u64),
    /// It comes as it was told.
    Due,
}

/// The times that refused callers were told.
#[derive(Debug)]
pub(super) struct Bookings {
    payers: BTreeMap<Address, Vec<Booking>>,
    count: usize,
    /// The share of callers that came back lately.
    kept: f64,
    swept: u64,
}

impl Default for Bookings {
    fn default() -> Self {
        Self {
            payers: BTreeMap::new(),
            count: 0,
            // Until somebody stays away, everybody is expected.
            kept: 1.0,
            swept: 0,
        }
    }
}

impl Bookings {
    /// What a caller was told before. Whoever comes back at its time uses it up.
    pub(super) fn standing(&mut self, payer: &Address, job: u64, now: u64) -> Standing {
        self.sweep(now);
        let Some(booked) = self.payers.get_mut(payer) else {
            return Standing::New;
        };
        let own = booked.iter().enumerate().filter(|(_, one)| one.job == job);
        let Some((place, due)) = own.map(|(place, one)| (place, one.due)).min_by_key(|(_, due)| *due) else {
            return Standing::New;
        };
        if due > now.saturating_add(EARLY) {
            return Standing::Early(due - now);
        }
        booked.swap_remove(place);
        self.used(payer);
        Standing::Due
    }

    /// Forgets what a caller was told that is let in before its time.
    pub(super) fn cancel(&mut self, payer: &Address, job: u64) {
        if let Some(booked) = self.payers.get_mut(payer)
            && let Some(place) = booked.iter().position(|one| one.job == job)
        {
            booked.swap_remove(place);
            self.used(payer);
        }
    }

    fn used(&mut self, payer: &Address) {
        if self.payers.get(payer).is_some_and(Vec::is_empty) {
            self.payers.remove(payer);
        }
        self.count -= 1;
        self.learn(true);
    }

    /// Tells a caller when to come back, in milliseconds: not before `earliest`, and `spacing` after what the last one of
    /// its payer was told.
    pub(super) fn book(&mut self, payer: Address, job: u64, now: u64, earliest: u64, spacing: u64) -> u64 {
        self.sweep(now);
        let booked = self.payers.get(&payer);
        let last = booked.and_then(|booked| booked.iter().map(|one| one.due).max());
        let after_last = last.map_or(0, |due| due.saturating_add(spacing));
        let wait = now
            .saturating_add(earliest)
            .max(after_last)
            .saturating_sub(now)
            .min(FURTHEST);
        if self.count < MAX_BOOKINGS && wait < FURTHEST {
            let due = now.saturating_add(wait);
            let until = due.saturating_add(LATE).saturating_add(wait / 4);
            self.payers.entry(payer).or_default().push(Booking { job, due, until });
            self.count += 1;
        }
        wait
    }

    /// Callers of a payer that are expected back.
    pub(super) fn expected_of(&self, payer: &Address) -> usize {
        self.share(self.payers.get(payer).map_or(0, Vec::len))
    }

    /// Callers of all payers that are expected back.
    pub(super) fn expected(&self) -> usize {
        self.share(self.count)
    }

    /// Payers whose callers are expected back.
    pub(super) fn payers(&self) -> impl Iterator<Item = &Address> {
        self.payers.keys()
    }

    fn share(&self, count: usize) -> usize {
        let count = u32::try_from(count).unwrap_or(u32::MAX);
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "a share of a small number that is not negative"
        )]
        let expected = (f64::from(count) * self.kept).round() as usize;
        expected
    }

    fn learn(&mut self, came: bool) {
        let came = if came { 1.0 } else { 0.0 };
        self.kept = self.kept.mul_add(1.0 - NEWEST, came * NEWEST);
    }

    /// Forgets callers that stayed away. Looks at all of them at most every hundredth of a second.
    fn sweep(&mut self, now: u64) {
        if now < self.swept.saturating_add(10) {
            return;
        }
        self.swept = now;
        let before = self.count;
        self.payers.retain(|_, booked| {
            booked.retain(|one| one.until >= now);
            !booked.is_empty()
        });
        self.count = self.payers.values().map(Vec::len).sum();
        for _ in self.count..before {
            self.learn(false);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ONE: Address = Address([1; 20]);
    const TWO: Address = Address([2; 20]);

    #[test]
    fn refused_callers_get_times_one_after_another() {
        let mut bookings = Bookings::default();
        assert_eq!(bookings.book(ONE, 1, 0, 100, 50), 100);
        assert_eq!(bookings.book(ONE, 2, 0, 100, 50), 150);
        assert_eq!(
            bookings.book(TWO, 3, 0, 100, 50),
            100,
            "another payer has a line of its own"
        );
        assert_eq!(bookings.book(ONE, 4, 120, 10, 50), 80);
        assert_eq!((bookings.expected(), bookings.expected_of(&ONE)), (4, 3));
    }

    #[test]
    fn who_comes_as_told_is_known_once_and_who_is_early_is_told_the_same_time() {
        let mut bookings = Bookings::default();
        bookings.book(ONE, 1, 0, 1_000, 50);
        assert_eq!(bookings.standing(&ONE, 1, 400), Standing::Early(600));
        assert_eq!(bookings.standing(&ONE, 2, 1_000), Standing::New);
        assert_eq!(bookings.standing(&TWO, 1, 1_000), Standing::New);
        assert_eq!(bookings.standing(&ONE, 1, 1_001), Standing::Due);
        assert_eq!(bookings.standing(&ONE, 1, 1_001), Standing::New);
    }

    #[test]
    fn places_are_kept_only_as_far_as_callers_come_back() {
        let mut bookings = Bookings::default();
        for round in 0..20u64 {
            let now = round * 100_000;
            for job in 0..10 {
                bookings.book(ONE, job, now, 100, 10);
            }
        }
        assert_eq!(bookings.expected(), 0, "nobody ever came");
        assert_eq!(
            bookings.standing(&ONE, 3, 1_900_200),
            Standing::Due,
            "and yet who comes is known"
        );
    }

    #[test]
    fn what_is_told_and_kept_is_bounded() {
        let mut bookings = Bookings::default();
        for job in 0..20_000 {
            assert!(bookings.book(ONE, job, 0, 100, 1_000) <= FURTHEST);
        }
        assert!(bookings.count <= 600);
        for job in 0..20_000u64 {
            let number = u8::try_from(job % 251).unwrap();
            bookings.book(Address([number; 20]), job, 0, 100, 1);
        }
        assert_eq!(bookings.count, MAX_BOOKINGS);
    }
}
