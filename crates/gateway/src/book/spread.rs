//! Offers that are passed on: what was new in this book is told to some neighbours, who tell it to theirs.
//!
//! What comes here was judged: it is in the book. An offer that changes faster than is worth telling is told as it is when
//! its turn comes, so a change is late and never lost. What does not fit a turn waits for the next.

use std::{
    collections::{HashMap, HashSet},
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use rialto_protocol::{
    Address, ModelId,
    offer::Announcement,
    wire::{MAX_ANNOUNCEMENTS, OffersRequest},
};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

use crate::{desk::Desk, store::now};

/// Time between two turns.
const TURN: Duration = Duration::from_millis(100);

/// Offers of one turn, which bounds what a node sends to one neighbour.
const MAX_OF_TURN: usize = 128;

/// Shortest time between two tellings of what one provider asks for one model.
const PAUSE: Duration = Duration::from_secs(2);

/// Neighbours, at random, that are told.
const FAN_OUT: usize = 8;

/// Calls under way; a neighbour whose call has no place is not told this time.
const MAX_CALLS: usize = 64;

/// Most bytes of one call; a frame takes a few times as many.
pub(super) const MAX_BYTES: usize = 1 << 20;

/// Offers whose last telling is remembered.
const MAX_TOLD: usize = 131_072;

type Key = (Address, ModelId);

/// What waits to be told.
#[derive(Debug, Default)]
pub(crate) struct Spread {
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    waiting: HashSet<Key>,
    told: HashMap<Key, Instant>,
}

impl Spread {
    /// Has an offer told that is new in the book.
    pub(crate) fn put(&self, provider: Address, model: ModelId) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.waiting.insert((provider, model));
    }

    /// What is to be told now.
    fn take(&self, now: Instant) -> Vec<Key> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let State { waiting, told } = &mut *state;
        let is_due = |key: &&Key| told.get(*key).is_none_or(|last| now >= *last + PAUSE);
        let due: Vec<Key> = waiting.iter().filter(is_due).take(MAX_OF_TURN).copied().collect();
        if told.len() >= MAX_TOLD {
            told.retain(|_, last| now < *last + PAUSE);
        }
        for key in &due {
            waiting.remove(key);
            told.insert(*key, now);
        }
        due
    }
}

/// Tells until it is stopped.
pub(crate) async fn spread(desk: Arc<Desk>, stop: CancellationToken) {
    let places = Arc::new(Semaphore::new(MAX_CALLS));
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(TURN) => {}
        }
        let due = desk.spread.take(Instant::now());
        let live = due.iter().filter_map(|key| desk.book.announcement(*key, now()));
        let parts: Arc<[OffersRequest]> = parts(live).into_iter().map(OffersRequest::Announce).collect();
        if parts.is_empty() {
            continue;
        }
        for peer in desk.neighbours.listeners(FAN_OUT) {
            let Ok(place) = Arc::clone(&places).try_acquire_owned() else {
                tracing::debug!(peer = %peer.node, "neighbours answer too slowly, and one is not told");
                continue;
            };
            let (node, parts) = (desk.node.clone(), Arc::clone(&parts));
            tokio::spawn(async move {
                for part in parts.iter() {
                    if let Err(error) = node.offers(&peer, part).await {
                        tracing::debug!(peer = %peer.node, %error, "a neighbour was not told");
                        break;
                    }
                }
                drop(place);
            });
        }
    }
}

/// Cuts a list so that each part fits a frame.
fn parts(list: impl IntoIterator<Item = Announcement>) -> Vec<Vec<Announcement>> {
    let mut parts: Vec<Vec<Announcement>> = Vec::new();
    let mut bytes = 0;
    for announcement in list {
        let size = postcard::to_stdvec(&announcement).map_or(MAX_BYTES, |encoded| encoded.len());
        bytes += size;
        match parts.last_mut() {
            Some(part) if bytes <= MAX_BYTES && part.len() < MAX_ANNOUNCEMENTS => part.push(announcement),
            _ => {
                bytes = size;
                parts.push(vec![announcement]);
            }
        }
    }
    parts
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::book::tests::{manifest, offer};

    fn key(number: usize) -> Key {
        let mut model = [0; 32];
        model[..8].copy_from_slice(&number.to_be_bytes());
        (Address([1; 20]), ModelId(model))
    }

    fn put(spread: &Spread, (provider, model): Key) {
        spread.put(provider, model);
    }

    #[test]
    fn an_offer_that_changes_all_the_time_is_told_now_and_then_and_at_the_end() {
        let (spread, mut now, mut told) = (Spread::default(), Instant::now(), 0);
        for _ in 0..100 {
            put(&spread, key(1));
            told += spread.take(now).len();
            now += TURN;
        }
        assert_eq!(told, 5, "in ten seconds");
        assert_eq!(spread.take(now + PAUSE), vec![key(1)], "the last change");
        assert!(spread.take(now + PAUSE * 2).is_empty());
    }

    #[test]
    fn a_turn_is_bounded_and_nothing_is_left_out() {
        let (spread, now) = (Spread::default(), Instant::now());
        (0..300).for_each(|number| put(&spread, key(number)));
        let turns: Vec<usize> = (0..4).map(|_| spread.take(now).len()).collect();
        assert_eq!(turns, [128, 128, 44, 0]);
    }

    #[test]
    fn a_part_fits_a_frame() {
        let small = offer(1, 1, &manifest("v1", 1), 1);
        let parts_of = |list: Vec<Announcement>| parts(list).iter().map(Vec::len).collect::<Vec<_>>();
        assert_eq!(parts_of(vec![small.clone(); 300]), [256, 44]);
        let mut large = small;
        Arc::make_mut(&mut large.manifest).description = "x".repeat(MAX_BYTES / 3);
        assert_eq!(parts_of(vec![large; 5]), [2, 2, 1]);
    }
}
