//! The purchases that a retry may take over.

use std::{
    collections::{HashMap, VecDeque},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use futures::future::BoxFuture;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::{
    super::serving::Reply,
    Call,
    attempt::{Attempt, Reader},
};
use crate::desk::Desk;

/// Bytes of answers that are kept in all; the oldest are dropped first, and their retries told so.
const MAX_BYTES: usize = 64 << 20;
/// Purchases that are known at a time; the oldest are forgotten first.
const MAX_KNOWN: usize = 1 << 18;
/// Answers that may wait for a retry at a time, at their sellers' expense. The others are cancelled at once.
const MAX_PAUSED: usize = 256;
/// Purchases that still go on and are passed by in one search for those that are over.
const MAX_PASSED: usize = 64;

/// The purchases of calls whose clients retry by themselves.
pub(crate) struct Attempts {
    known: Mutex<Known>,
    paused: Arc<Semaphore>,
}

#[derive(Default)]
struct Known {
    by_scope: HashMap<[u8; 16], Vec<Arc<Attempt>>>,
    /// As they began.
    order: VecDeque<Arc<Attempt>>,
    /// Answers that are kept, as they ended, and their sizes.
    answers: VecDeque<(Arc<Attempt>, usize)>,
    /// The sizes of all answers that are kept.
    bytes: usize,
}

impl Known {
    fn insert(&mut self, attempt: Arc<Attempt>) {
        let scope = attempt.scope();
        self.by_scope.entry(scope).or_default().push(Arc::clone(&attempt));
        self.order.push_back(attempt);
    }

    fn best(&self, scope: [u8; 16], count: u32) -> Option<Arc<Attempt>> {
        let all = self.by_scope.get(&scope)?.iter();
        let fitting = all.filter_map(|attempt| Some((attempt.fit(count)?, attempt)));
        let (_, best) = fitting.max_by_key(|(fit, _)| *fit)?;
        Some(Arc::clone(best))
    }

    /// Takes a purchase from where retries look. The rest of it goes with its age.
    fn remove(&mut self, attempt: &Arc<Attempt>) {
        let scope = attempt.scope();
        if let Some(all) = self.by_scope.get_mut(&scope) {
            all.retain(|one| !Arc::ptr_eq(one, attempt));
            if all.is_empty() {
                self.by_scope.remove(&scope);
            }
        }
    }

    /// Removes purchases from the oldest on, as long as they have been over for longer than this.
    fn remove_over(&mut self, age: Duration, most: usize) {
        let (mut removed, mut passed) = (0, 0);
        while removed < most && passed < MAX_PASSED {
            let Some(attempt) = self.order.pop_front() else { return };
            match attempt.over_for() {
                Some(over) if over > age => {
                    self.remove(&attempt);
                    removed += 1;
                }
                Some(_) => return self.order.push_front(attempt),
                None => {
                    self.order.push_back(attempt);
                    passed += 1;
                }
            }
        }
    }

    /// Drops answers from the oldest on.
    fn drop_answers(&mut self, mut is_due: impl FnMut(&Attempt, usize) -> bool) {
        while let Some((attempt, size)) = self.answers.pop_front() {
            if !is_due(&attempt, self.bytes) {
                return self.answers.push_front((attempt, size));
            }
            self.bytes = self.bytes.saturating_sub(size);
            attempt.drop_answer();
        }
    }
}

impl Attempts {
    /// Knows what an earlier run of the gateway left open, by the names of the purchases.
    pub(crate) fn new(left: Vec<[u8; 32]>) -> Self {
        let mut known = Known::default();
        for id in left {
            known.insert(Arc::new(Attempt::lost(id)));
        }
        Self {
            known: Mutex::new(known),
            paused: Arc::new(Semaphore::new(MAX_PAUSED)),
        }
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Begins a purchase.
    pub(super) fn begin(&self, desk: &Arc<Desk>, call: &Call, asking: BoxFuture<'static, Reply>) -> Reader {
        let reader = Reader::first(desk, call.id, call.count, asking);
        let mut known = self.known();
        if known.order.len() >= MAX_KNOWN {
            known.remove_over(Duration::ZERO, 1);
        }
        known.insert(Arc::clone(reader.attempt()));
        reader
    }

    /// The purchase that fits a retry with this number best.
    pub(super) fn find(&self, scope: [u8; 16], count: u32) -> Option<Arc<Attempt>> {
        self.known().best(scope, count)
    }

    /// Forgets a purchase: a retry buys anew.
    pub(super) fn forget(&self, attempt: &Arc<Attempt>) {
        attempt.forget();
        self.known().remove(attempt);
    }

    /// Keeps an answer that has ended, and makes room for it.
    pub(super) fn keep(&self, attempt: &Arc<Attempt>, bytes: usize) {
        let mut known = self.known();
        known.bytes = known.bytes.saturating_add(bytes);
        known.answers.push_back((Arc::clone(attempt), bytes));
        known.drop_answers(|_, all| all > MAX_BYTES);
    }

    /// A place for an answer that waits for a retry.
    pub(super) fn pause(&self) -> Option<OwnedSemaphorePermit> {
        Arc::clone(&self.paused).try_acquire_owned().ok()
    }

    /// Forgets what ended longer ago than this.
    pub(crate) fn prune(&self, age: Duration) {
        let mut known = self.known();
        known.drop_answers(|attempt, _| attempt.over_for().is_none_or(|over| over > age));
        known.remove_over(age, usize::MAX);
    }

    /// Cancels what waits for a retry: none will come to a gateway that stops.
    pub(crate) fn give_up(&self) {
        let all = self.known().order.clone();
        for attempt in all {
            attempt.give_up(Duration::ZERO);
        }
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt as _;
    use proptest::prelude::*;

    use super::*;

    fn attempt(count: u32) -> Arc<Attempt> {
        Arc::new(Attempt::new([7; 32], count, futures::future::pending().boxed()))
    }

    proptest! {
        /// Equal calls side by side: each makes some attempts, of which some arrive, in any order.
        #[test]
        fn there_are_never_more_purchases_than_calls(
            arriving in prop::collection::vec(prop::collection::vec(any::<bool>(), 1..6), 1..8),
            turns in prop::collection::vec(any::<prop::sample::Index>(), 64),
        ) {
            let mut known = Known::default();
            let mut calls: Vec<_> = arriving.iter().map(|attempts| attempts.iter().zip(0u32..)).collect();
            for turn in turns {
                let turn = turn.index(calls.len());
                let Some((true, count)) = calls[turn].next() else { continue };
                let found = (count > 0).then(|| known.best([7; 16], count)).flatten();
                match found {
                    Some(found) => prop_assert!(found.serve(count)),
                    None => known.insert(attempt(count)),
                }
            }
            prop_assert!(known.order.len() <= calls.len());
        }
    }

    #[test]
    fn a_purchase_serves_each_number_once() {
        let mut known = Known::default();
        known.insert(attempt(0));
        assert!(known.best([7; 16], 1).unwrap().serve(1));
        assert!(known.best([7; 16], 1).is_none());
        assert!(known.best([8; 16], 2).is_none());
        assert!(known.best([7; 16], 2).unwrap().serve(2));
    }

    #[test]
    fn what_is_over_is_forgotten_and_what_goes_on_is_not() {
        let mut known = Known::default();
        known.insert(attempt(0));
        known.insert(Arc::new(Attempt::lost([7; 32])));
        known.insert(Arc::new(Attempt::lost([9; 32])));
        known.remove_over(Duration::from_secs(3_600), usize::MAX);
        assert_eq!(known.order.len(), 3);
        known.remove_over(Duration::ZERO, usize::MAX);
        assert_eq!((known.order.len(), known.by_scope.len()), (1, 1));
        assert!(known.best([7; 16], 1).unwrap().serve(1));
    }

    #[test]
    fn the_oldest_answers_make_room() {
        let mut known = Known::default();
        let answers = [attempt(0), attempt(0), attempt(0)];
        for answer in &answers {
            known.bytes += 10;
            known.answers.push_back((Arc::clone(answer), 10));
        }
        known.drop_answers(|_, all| all > 15);
        assert_eq!((known.bytes, known.answers.len()), (10, 1));
        assert_eq!(answers.map(|answer| answer.serve(1)), [false, false, true]);
    }
}
