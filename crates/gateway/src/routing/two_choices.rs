//! The power of two choices: the better of two at random spreads load nearly as well as the best of all, and many
//! gateways that see the same book do not all run to the same seller.

use std::cmp::Ordering;

/// The better of two entries chosen at random; either of them if they are equal.
pub(super) fn pick<T>(mut pool: Vec<T>, compare: impl Fn(&T, &T) -> Ordering) -> Option<T> {
    let take = |pool: &mut Vec<T>| {
        let length = pool.len();
        (length > 0).then(|| pool.swap_remove(rand::random_range(0..length)))
    };
    let first = take(&mut pool)?;
    let Some(second) = take(&mut pool) else {
        return Some(first);
    };
    Some(if compare(&second, &first) == Ordering::Less {
        second
    } else {
        first
    })
}
