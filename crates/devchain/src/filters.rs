//! Filters that clients install and poll. Kept in memory: a client whose filter is gone installs it again.

use alloy::{primitives::U64, rpc::types::Filter};
use std::{collections::BTreeMap, time::Instant};

/// The most filters at once; the one that was polled longest ago makes room for a new one.
const CAPACITY: usize = 1024;

/// What a filter watches.
#[derive(Clone, Debug)]
pub(crate) enum Watched {
    /// Logs that match.
    Logs(Box<Filter>),
    /// Hashes of new blocks.
    Blocks,
    /// Hashes of new transactions. Here they are mined at once, so these are the mined ones.
    Transactions,
}

#[derive(Debug)]
struct Installed {
    watched: Watched,
    /// The first block that the next poll reports.
    next: u64,
    polled: Instant,
}

/// All installed filters.
#[derive(Debug, Default)]
pub(crate) struct Filters {
    installed: BTreeMap<u64, Installed>,
    last: u64,
}

impl Filters {
    /// Installs a filter that reports blocks from `next` on; returns its id.
    pub(crate) fn install(&mut self, watched: Watched, next: u64) -> U64 {
        if self.installed.len() >= CAPACITY {
            let oldest = self
                .installed
                .iter()
                .min_by_key(|(_, filter)| filter.polled)
                .map(|(id, _)| *id);
            oldest.and_then(|id| self.installed.remove(&id));
        }
        self.last = self.last.wrapping_add(1);
        self.installed.insert(
            self.last,
            Installed {
                watched,
                next,
                polled: Instant::now(),
            },
        );
        U64::from(self.last)
    }

    /// Removes a filter; returns whether there was one.
    pub(crate) fn uninstall(&mut self, id: U64) -> bool {
        self.installed.remove(&id.to()).is_some()
    }

    /// What a filter watches.
    pub(crate) fn watched(&self, id: U64) -> Option<Watched> {
        self.installed.get(&id.to()).map(|filter| filter.watched.clone())
    }

    /// What a filter watches and the first block to report; the next poll begins after `height`.
    pub(crate) fn poll(&mut self, id: U64, height: u64) -> Option<(Watched, u64)> {
        let filter = self.installed.get_mut(&id.to())?;
        let from = filter.next;
        filter.next = height.saturating_add(1);
        filter.polled = Instant::now();
        Some((filter.watched.clone(), from))
    }

    /// After blocks above `height` were taken back, their replacements are new again.
    pub(crate) fn rewind(&mut self, height: u64) {
        for filter in self.installed.values_mut() {
            filter.next = filter.next.min(height.saturating_add(1));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_block_is_reported_once() {
        let mut filters = Filters::default();
        let id = filters.install(Watched::Blocks, 4);
        assert_eq!(filters.poll(id, 6).unwrap().1, 4);
        assert_eq!(filters.poll(id, 6).unwrap().1, 7);
        filters.rewind(2);
        assert_eq!(filters.poll(id, 3).unwrap().1, 3);
    }

    #[test]
    fn the_number_of_filters_is_bounded() {
        let mut filters = Filters::default();
        let first = filters.install(Watched::Blocks, 0);
        for _ in 0..CAPACITY {
            filters.install(Watched::Blocks, 0);
        }
        assert_eq!(filters.installed.len(), CAPACITY);
        assert!(filters.watched(first).is_none());
        assert!(!filters.uninstall(first));
    }
}
