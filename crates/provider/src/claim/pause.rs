//! How long to wait between two tries to claim: a pure function.

use std::time::Duration;

/// Longest pause after failures.
const LONGEST: Duration = Duration::from_secs(60);
/// Longest pause while a channel is closing that still owes something.
const LONGEST_CLOSING: Duration = Duration::from_secs(10);
/// So many tries at least are left in the time that is left until a channel closes.
const TRIES_LEFT: u32 = 20;
/// Shortest pause after a failure, so that a node is not drowned in the last seconds.
const SHORTEST: Duration = Duration::from_millis(200);

/// The pause before the next look: the interval, doubled with each failure in a row up to a minute. `left` is the time
/// until the first closing channel that owes something can be closed: the nearer that is, the shorter the pauses.
pub(crate) fn pause(interval: Duration, failures: u32, left: Option<Duration>) -> Duration {
    if failures == 0 {
        return interval;
    }
    let patient = interval
        .saturating_mul(2u32.saturating_pow(failures.min(16)))
        .min(LONGEST.max(interval));
    match left {
        None => patient,
        Some(left) => patient.min(LONGEST_CLOSING).min((left / TRIES_LEFT).max(SHORTEST)),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn pauses_grow_to_a_limit() {
        let interval = Duration::from_secs(5);
        assert_eq!(pause(interval, 0, None), interval);
        assert_eq!(pause(interval, 2, None), interval * 4);
        assert_eq!(pause(interval, u32::MAX, None), LONGEST);
        assert_eq!(pause(Duration::from_secs(600), 9, None), Duration::from_secs(600));
    }

    #[test]
    fn a_deadline_makes_them_short() {
        let interval = Duration::from_secs(5);
        let left = |seconds| Some(Duration::from_secs(seconds));
        assert_eq!(pause(interval, 9, left(86_400)), LONGEST_CLOSING);
        assert_eq!(pause(interval, 9, left(60)), Duration::from_secs(3));
        assert_eq!(pause(interval, 9, left(0)), SHORTEST);
    }

    proptest! {
        #[test]
        fn there_is_always_time_for_another_try(ms in 200u64..100_000, failures in 1u32.., left in 1u64..10_000_000) {
            let (interval, left) = (Duration::from_millis(ms), Duration::from_millis(left));
            let short = pause(interval, failures, Some(left));
            prop_assert!(short <= pause(interval, failures, None), "a deadline never makes it wait longer");
            prop_assert!(short < left || left <= SHORTEST);
            prop_assert!(short >= SHORTEST.min(interval), "a node is not drowned");
            prop_assert!(pause(interval, failures, Some(left * 2)) >= short, "nearer is never slower");
        }
    }
}
