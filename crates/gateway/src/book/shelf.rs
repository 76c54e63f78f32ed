//! The offers of one model, and the order in which routing finds the best of them.

use std::{collections::HashMap, sync::Arc};

use rialto_protocol::{Address, Region};

use crate::routing::{Pool, Seller};

/// Shelves that are sorted while a request waits for it; larger ones take too long.
const SMALL: usize = 256;

/// The offers of one model.
#[derive(Debug, Default)]
pub(super) struct Shelf {
    sellers: HashMap<Address, Arc<Seller>>,
    sorted: Sorted,
    /// Counts changes.
    version: u64,
}

/// A snapshot: all sellers, and those of each region.
#[derive(Debug, Default)]
pub(super) struct Sorted {
    /// The shelf's version when it was made.
    version: u64,
    whole: Arc<Pool>,
    regions: HashMap<Region, Arc<Pool>>,
}

impl Sorted {
    pub(super) fn new(version: u64, sellers: Vec<Arc<Seller>>) -> Self {
        let mut regions: HashMap<Region, Vec<Arc<Seller>>> = HashMap::new();
        for seller in &sellers {
            regions.entry(seller.offer.region).or_default().push(Arc::clone(seller));
        }
        let pools = regions
            .into_iter()
            .map(|(region, sellers)| (region, Arc::new(Pool::new(sellers))));
        Self {
            version,
            regions: pools.collect(),
            whole: Arc::new(Pool::new(sellers)),
        }
    }
}

impl Shelf {
    pub(super) fn get(&self, provider: &Address) -> Option<&Arc<Seller>> {
        self.sellers.get(provider)
    }

    /// Returns the offer whose place this one takes.
    pub(super) fn put(&mut self, seller: Arc<Seller>) -> Option<Arc<Seller>> {
        self.version += 1;
        self.sellers.insert(seller.offer.provider, seller)
    }

    pub(super) fn take(&mut self, provider: &Address) -> Option<Arc<Seller>> {
        self.version += 1;
        self.sellers.remove(provider)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.sellers.is_empty()
    }

    pub(super) fn live(&self, now: u64) -> impl Iterator<Item = Arc<Seller>> + '_ {
        let live = self
            .sellers
            .values()
            .filter(move |seller| seller.offer.expires_at > now);
        live.cloned()
    }

    pub(super) fn expired(&self, now: u64) -> impl Iterator<Item = Address> + '_ {
        let expired = self
            .sellers
            .iter()
            .filter(move |(_, seller)| seller.offer.expires_at <= now);
        expired.map(|(provider, _)| *provider)
    }

    /// What a snapshot is made of.
    pub(super) fn content(&self) -> (u64, Vec<Arc<Seller>>) {
        (self.version, self.sellers.values().cloned().collect())
    }

    /// Whether the snapshot is older than the last offer.
    pub(super) fn has_changed(&self) -> bool {
        self.version != self.sorted.version
    }

    /// Whether a request has to sort it: there is no snapshot yet, or a new one costs little.
    pub(super) fn is_due(&self) -> bool {
        self.has_changed() && (self.sellers.len() <= SMALL || self.sorted.whole.is_empty())
    }

    pub(super) fn sort(&mut self) {
        let (version, sellers) = self.content();
        self.sorted = Sorted::new(version, sellers);
    }

    /// Takes in a snapshot.
    pub(super) fn take_in(&mut self, sorted: Sorted) {
        self.sorted = sorted;
    }

    /// All sellers, or those in these regions.
    pub(super) fn pools(&self, regions: &[Region]) -> Vec<Arc<Pool>> {
        if regions.is_empty() {
            return vec![Arc::clone(&self.sorted.whole)];
        }
        let pools = regions.iter().filter_map(|region| self.sorted.regions.get(region));
        pools.cloned().collect()
    }
}
