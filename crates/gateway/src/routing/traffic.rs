//! How many requests of this gateway each seller works on.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
};

use rialto_protocol::{Address, ModelId};

type Counts = Mutex<HashMap<(Address, ModelId), u32>>;

/// Requests in flight by seller and model.
#[derive(Debug, Default, Clone)]
pub(crate) struct Traffic(Arc<Counts>);

/// One request in flight; it is counted until this is dropped.
#[derive(Debug)]
pub(crate) struct Visit {
    counts: Arc<Counts>,
    seller: (Address, ModelId),
}

impl Traffic {
    /// Counts a request.
    pub(crate) fn visit(&self, seller: (Address, ModelId)) -> Visit {
        let mut counts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        *counts.entry(seller).or_insert(0) += 1;
        Visit {
            counts: Arc::clone(&self.0),
            seller,
        }
    }

    /// Requests in flight.
    pub(crate) fn of(&self, seller: (Address, ModelId)) -> u32 {
        let counts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        counts.get(&seller).copied().unwrap_or(0)
    }
}

impl Drop for Visit {
    fn drop(&mut self) {
        let mut counts = self.counts.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = counts.get_mut(&self.seller) {
            *count = count.saturating_sub(1);
            if *count == 0 {
                counts.remove(&self.seller);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_counts_until_it_ends() {
        let (traffic, seller) = (Traffic::default(), (Address([1; 20]), ModelId([2; 32])));
        let (first, second) = (traffic.visit(seller), traffic.visit(seller));
        assert_eq!(traffic.of(seller), 2);
        drop((first, second));
        assert_eq!(traffic.of(seller), 0);
    }
}
