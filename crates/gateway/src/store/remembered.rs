//! Keys that were found a moment ago, so that not every request reads the store for its key.
//!
//! Whatever is bought is checked once more in the transaction that begins it; so a key that another process changed or
//! revoked a moment ago buys nothing by this, and is refused everything soon after.

use std::{
    collections::HashMap,
    sync::{Arc, PoisonError, RwLock},
    time::{Duration, Instant},
};

use subtle::ConstantTimeEq as _;

use super::KeyRow;

/// For how long a key is remembered.
const MOMENT: Duration = Duration::from_millis(250);
/// Most keys that are remembered.
const MAX_KEYS: usize = 4_096;

/// When a key was found, the hash of its text, and what is known of it.
type Found = (Instant, [u8; 32], KeyRow);

/// The keys. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub(super) struct Remembered(Arc<RwLock<HashMap<String, Found>>>);

impl Remembered {
    /// The key with this public part whose text has this hash, if it was found a moment ago.
    pub(super) fn find(&self, id: &str, hash: &[u8; 32]) -> Option<KeyRow> {
        let keys = self.0.read().unwrap_or_else(PoisonError::into_inner);
        let (found, known, key) = keys.get(id)?;
        let same = bool::from(known.as_slice().ct_eq(hash.as_slice()));
        (same && found.elapsed() < MOMENT).then(|| key.clone())
    }

    /// Notes a key that was read at this time. One with a budget is not remembered: what is left of it changes with every
    /// request.
    pub(super) fn note(&self, read: Instant, hash: [u8; 32], key: &KeyRow) {
        if key.budget.is_some() {
            return;
        }
        let mut keys = self.0.write().unwrap_or_else(PoisonError::into_inner);
        if keys.len() >= MAX_KEYS {
            keys.retain(|_, (found, ..)| found.elapsed() < MOMENT);
        }
        if keys.len() < MAX_KEYS {
            keys.insert(key.id.clone(), (read, hash, key.clone()));
        }
    }

    /// Forgets a key that is about to change.
    pub(super) fn forget(&self, id: &str) {
        self.0.write().unwrap_or_else(PoisonError::into_inner).remove(id);
    }
}
