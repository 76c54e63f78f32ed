//! What a process says: JSON objects, a line each.

use std::{
    io::{BufRead, BufReader, Read},
    sync::{Arc, Condvar, Mutex, PoisonError},
    time::{Duration, Instant},
};

use anyhow::{Result, bail};
use serde_json::Value;

/// Lines read so far by a thread of their own, so that the process never waits for us.
#[derive(Clone, Default)]
pub(crate) struct Lines {
    shared: Arc<(Mutex<State>, Condvar)>,
}

#[derive(Default)]
struct State {
    values: Vec<Value>,
    ended: bool,
}

impl Lines {
    pub(crate) fn read(from: impl Read + Send + 'static) -> Self {
        let lines = Self::default();
        let shared = lines.shared.clone();
        std::thread::spawn(move || {
            for line in BufReader::new(from).lines().map_while(Result::ok) {
                if let Ok(value) = serde_json::from_str(&line) {
                    shared
                        .0
                        .lock()
                        .unwrap_or_else(PoisonError::into_inner)
                        .values
                        .push(value);
                    shared.1.notify_all();
                }
            }
            shared.0.lock().unwrap_or_else(PoisonError::into_inner).ended = true;
            shared.1.notify_all();
        });
        lines
    }

    /// The latest line that `wanted` finds something in; waits for it.
    pub(crate) fn wait<T>(&self, patience: Duration, wanted: impl Fn(&Value) -> Option<T>) -> Result<T> {
        self.wait_in(patience, |values| values.iter().rev().find_map(&wanted))
    }

    /// Waits until `wanted` finds something in all lines so far.
    pub(crate) fn wait_in<T>(&self, patience: Duration, wanted: impl Fn(&[Value]) -> Option<T>) -> Result<T> {
        let until = Instant::now() + patience;
        let mut state = self.shared.0.lock().unwrap_or_else(PoisonError::into_inner);
        loop {
            if let Some(found) = wanted(&state.values) {
                return Ok(found);
            }
            let left = until.saturating_duration_since(Instant::now());
            if state.ended || left.is_zero() {
                bail!(
                    "the process {}",
                    if state.ended { "ended" } else { "did not say it in time" }
                );
            }
            state = self
                .shared
                .1
                .wait_timeout(state, left)
                .map(|(state, _)| state)
                .unwrap_or_else(|e| e.into_inner().0);
        }
    }
}
