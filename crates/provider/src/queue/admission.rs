//! Who may wait, who is refused, and when the refused may come back.
//!
//! Pure: times are milliseconds of the caller's clock.

use std::collections::BTreeSet;

use rialto_protocol::Address;

use super::{
    Full,
    bookings::{Bookings, Standing},
    lines::{Lines, Ticket},
    pace::Pace,
};

/// Advice before anything was measured, and the shortest advice, in milliseconds.
const UNKNOWN_RETRY: u64 = 1_000;
const SHORTEST_RETRY: u64 = 50;

/// Who asks to be let in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Caller {
    pub(super) payer: Address,
    /// Tells what it asks for from other requests of its payer.
    pub(super) job: u64,
    /// Milliseconds that it waits.
    pub(super) patience: u64,
}

/// A queue in front of so many slots.
#[derive(Debug)]
pub(super) struct Admission<T> {
    slots: u32,
    /// `slots` as a count.
    capacity: usize,
    /// Requests that may wait.
    bound: usize,
    pub(super) lines: Lines<T>,
    pub(super) bookings: Bookings,
    pub(super) pace: Pace,
}

/// Where a request finds room.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Room {
    Free,
    /// In place of the last one of the longest line.
    OfLongest,
}

/// A request that may wait.
#[derive(Debug)]
pub(super) struct Joined<T> {
    pub(super) ticket: Ticket,
    /// Whose place it got.
    pub(super) displaced: Option<(Address, T)>,
}

impl<T> Admission<T> {
    pub(super) fn new(slots: u32, bound: usize) -> Self {
        let slots = slots.max(1);
        Self {
            slots,
            capacity: usize::try_from(slots).unwrap_or(usize::MAX),
            bound,
            lines: Lines::default(),
            bookings: Bookings::default(),
            pace: Pace::default(),
        }
    }

    pub(super) fn slots(&self) -> u32 {
        self.slots
    }

    /// Requests that wait or were let in.
    pub(super) fn load(&self) -> usize {
        self.lines.admitted().saturating_add(self.lines.waiting())
    }

    /// Milliseconds until a slot has nothing to do; `None` when one has nothing to do now.
    pub(super) fn idle_after(&self) -> Option<u64> {
        let before = self
            .load()
            .saturating_add(1)
            .checked_sub(self.capacity)
            .filter(|before| *before > 0)?;
        let interval = self.pace.interval(self.slots);
        Some(
            interval
                .map_or(UNKNOWN_RETRY, |interval| millis(interval, before))
                .max(SHORTEST_RETRY),
        )
    }

    /// Takes a request into its payer's line, or says when it may come back.
    pub(super) fn join(&mut self, caller: &Caller, now: u64, waiter: T) -> Result<Joined<T>, Full> {
        let standing = self.bookings.standing(&caller.payer, caller.job, now);
        match self.judge(caller, standing) {
            Ok(room) => {
                if matches!(standing, Standing::Early(_)) {
                    self.bookings.cancel(&caller.payer, caller.job);
                }
                let displaced = match room {
                    Room::Free => None,
                    Room::OfLongest => self.lines.displace(0),
                };
                let ticket = self.lines.push(caller.payer, waiter);
                Ok(Joined { ticket, displaced })
            }
            Err(earliest) => Err(Full {
                retry_after_ms: match standing {
                    // It was told already.
                    Standing::Early(wait) => wait,
                    Standing::New | Standing::Due => self.book(caller.payer, caller.job, now, earliest),
                },
                as_told: standing == Standing::Due,
            }),
        }
    }

    /// Lets in the next request, if there is room for one more between here and the engine.
    pub(super) fn next(&mut self) -> Option<(Address, T)> {
        let ahead = self.pace.ahead(self.slots).min(self.bound);
        if self.lines.admitted() >= self.capacity.saturating_add(ahead) {
            return None;
        }
        self.lines.next()
    }

    /// Tells a payer when to come back with a job, in milliseconds, and keeps a place for it.
    pub(super) fn book(&mut self, payer: Address, job: u64, now: u64, earliest: u64) -> u64 {
        let spacing = self.spacing(&payer);
        let earliest = earliest.max(spacing).max(SHORTEST_RETRY);
        self.bookings.book(payer, job, now, earliest, spacing)
    }

    /// Where there is room for a request; otherwise the milliseconds after which there may be, as far as they are known.
    fn judge(&self, caller: &Caller, standing: Standing) -> Result<Room, u64> {
        let load = self.load();
        if load < self.capacity {
            return Ok(Room::Free);
        }
        let due = standing == Standing::Due;
        // Slots are not left empty for callers that may not come back.
        let slack = load < self.capacity.saturating_add(self.bound.min(self.capacity));
        let kept = !due && !slack;
        // New callers leave something for those who come back.
        let (limit, patience) = if due {
            (self.bound.saturating_add(self.bound / 4), caller.patience)
        } else {
            (self.bound, caller.patience.saturating_sub(caller.patience / 4))
        };
        let line = self.lines.line(&caller.payer);
        let own = line.saturating_add(if kept {
            self.bookings.expected_of(&caller.payer)
        } else {
            0
        });
        let wait = self.wait(&caller.payer, own, kept);
        if wait > patience {
            return Err(wait - patience);
        }
        let most = self.capacity.saturating_add(limit);
        let expected = if kept { self.bookings.expected() } else { 0 };
        if load.saturating_add(expected) < most {
            return Ok(Room::Free);
        }
        let share = self.bound / self.contenders(&caller.payer);
        if own < share.max(self.bound.min(1)) {
            if load < most {
                return Ok(Room::Free);
            }
            if self.lines.longest() > line.saturating_add(1) {
                return Ok(Room::OfLongest);
            }
        }
        Err(0)
    }

    /// Milliseconds until a request gets a slot that joins now behind `own` others of its payer.
    fn wait(&self, payer: &Address, own: usize, kept: bool) -> u64 {
        let Some(interval) = self.pace.interval(self.slots) else {
            return 0;
        };
        let more = |other: &Address| if kept { self.bookings.expected_of(other) } else { 0 };
        let before = self.lines.before(payer, own, more);
        let turns = self.lines.admitted().saturating_add(before).saturating_add(1);
        millis(interval, turns.saturating_sub(self.capacity))
    }

    /// Milliseconds after which a payer's next request can be let in, as long as nobody else comes or goes.
    fn spacing(&self, payer: &Address) -> u64 {
        let interval = self.pace.interval(self.slots);
        interval.map_or(UNKNOWN_RETRY, |interval| {
            millis(interval, self.contenders(payer)).max(1)
        })
    }

    /// Payers that want slots, this one among them.
    fn contenders(&self, payer: &Address) -> usize {
        let others = self.lines.waiting_payers().chain(self.bookings.payers());
        others.chain(std::iter::once(payer)).collect::<BTreeSet<_>>().len()
    }
}

/// So many intervals, in whole milliseconds, rounded up.
fn millis(interval: f64, times: usize) -> u64 {
    let times = f64::from(u32::try_from(times).unwrap_or(u32::MAX));
    let millis = (interval * times).ceil().clamp(0.0, 1e12);
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "the value was clamped to the range"
    )]
    let whole = millis as u64;
    whole
}
