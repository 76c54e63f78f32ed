//! The book: live offers of staked providers, and the models that they sell.

mod budget;
mod door;
mod kept;
mod meeting;
mod registry;
mod shelf;
mod spread;
mod stake;

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard},
};

pub(crate) use door::Door;
pub(crate) use kept::{keep_book, remember, restore};
pub(crate) use meeting::{answer_peers, browse};
pub(crate) use registry::meet_registered;
use rialto_protocol::{
    Address, ModelId, NodeKey, Region, Signature,
    hash::keccak256,
    manifest::Manifest,
    offer::{Announcement, Offer, OfferError},
    ticket::Peer,
};
pub(crate) use spread::{Spread, spread};
pub(crate) use stake::Stakes;
use tokio::sync::Notify;

use budget::{Budget, Load};

use crate::routing::{Memory, Pool, Records, Seller};
use shelf::Shelf;

/// Most live offers.
const MAX_OFFERS: usize = 131_072;
/// Most live offers that one peer brought in.
const MAX_FROM_PEER: usize = 65_536;
/// Most models of one provider.
const MAX_OF_PROVIDER: usize = 64;

/// Live offers and known models. Every read sees only offers that have not expired.
#[derive(Debug, Default)]
pub struct Book {
    aliases: BTreeMap<String, String>,
    pages: RwLock<Pages>,
    /// A seller came that is new, or elsewhere.
    stir: Notify,
}

#[derive(Debug, Default)]
struct Pages {
    shelves: HashMap<ModelId, Shelf>,
    /// What each provider sells.
    providers: HashMap<Address, Vec<ModelId>>,
    /// Offers that each peer brought in.
    brought: HashMap<NodeKey, usize>,
    offers: usize,
    models: HashMap<ModelId, Listing>,
    names: HashMap<String, Vec<ModelId>>,
    records: Records,
    /// The bytes of all this.
    budget: Budget,
    /// Whether any meeting peer's book was read since the start.
    read_once: bool,
}

/// A model that is or was on sale.
#[derive(Debug, Clone)]
pub struct Listing {
    /// `publisher/name:tag`.
    pub name: String,
    /// The model in full.
    pub manifest: Arc<Manifest>,
    /// Its id.
    pub model: ModelId,
    /// When this gateway first heard of it, in seconds since 1970.
    pub first_seen: u64,
    /// Tells weights apart: equal for listings of the same files.
    weights: [u8; 32],
    /// Bytes of the manifest in a message.
    encoded: usize,
    /// Bytes that it takes here.
    weight: usize,
}

/// What a client's name of a model stands for.
#[derive(Debug, Clone)]
pub(crate) struct Resolved {
    /// The name that was asked for.
    pub(crate) asked: String,
    pub(crate) listing: Listing,
    /// Every id under which the same weights are sold by that name.
    pub(crate) models: Vec<ModelId>,
}

/// A model with its live offers.
pub(crate) type Sold = (Listing, Vec<Arc<Seller>>);

/// Why an announcement was not noted.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum NoteError {
    #[error(transparent)]
    Offer(#[from] OfferError),
    #[error("a newer offer is known")]
    Older,
    #[error("the book is full")]
    Full,
    #[error("the provider has no stake")]
    Unstaked,
    #[error("there are too many offers of this provider")]
    TooMany,
}

impl Book {
    /// An empty book with this gateway's own names for models.
    pub fn new(aliases: BTreeMap<String, String>) -> Self {
        Self {
            aliases,
            pages: RwLock::default(),
            stir: Notify::new(),
        }
    }

    fn read(&self) -> RwLockReadGuard<'_, Pages> {
        self.pages.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, Pages> {
        self.pages.write().unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes an announcement whose provider's stake was looked up. The newest sequence wins. Returns whether its seller is
    /// new, or elsewhere.
    pub(crate) fn note(&self, announcement: Announcement, from: NodeKey, now: u64) -> Result<bool, NoteError> {
        announcement.check(now)?;
        let Announcement {
            offer,
            signature,
            manifest,
        } = announcement;
        let (provider, model) = (offer.provider, offer.model);
        let mut pages = self.write();
        let known = pages.shelves.get(&model).and_then(|shelf| shelf.get(&provider));
        match known.map(|known| known.offer.sequence.cmp(&offer.sequence)) {
            Some(std::cmp::Ordering::Greater) => return Err(NoteError::Older),
            // The same offer comes again from every peer that has it.
            Some(std::cmp::Ordering::Equal) => return Ok(false),
            Some(std::cmp::Ordering::Less) | None => {}
        }
        let stirs = known.is_none_or(|known| known.offer.peer() != offer.peer());
        pages.make_room(&offer, &manifest, from, now)?;
        pages.remember(model, manifest, now);
        let record = pages.records.of(provider, model);
        pages.put(Arc::new(Seller {
            offer,
            signature,
            from,
            record,
        }));
        if stirs {
            self.stir.notify_one();
        }
        Ok(stirs)
    }

    /// Waits until a seller comes that is new, or elsewhere.
    pub(crate) async fn stirred(&self) {
        self.stir.notified().await;
    }

    /// Whether an offer brings nothing new, whether or not it is its provider's.
    pub(crate) fn knows(&self, offer: &Offer) -> bool {
        let pages = self.read();
        let known = pages
            .shelves
            .get(&offer.model)
            .and_then(|shelf| shelf.get(&offer.provider));
        known.is_some_and(|known| known.offer.sequence >= offer.sequence)
    }

    /// Forgets an offer, because its provider said itself that it is void. Returns whether no newer one is known.
    pub(crate) fn forget(&self, offer: &Offer) -> bool {
        let mut pages = self.write();
        let known = pages
            .shelves
            .get(&offer.model)
            .and_then(|shelf| shelf.get(&offer.provider));
        let is_newest = known.is_none_or(|known| known.offer.sequence <= offer.sequence);
        if is_newest {
            pages.take(offer.provider, offer.model);
        }
        is_newest
    }

    /// What is remembered of sellers over a restart, of so many at most.
    pub(crate) fn memories(&self, most: usize) -> Vec<Memory> {
        self.read().records.memories(most)
    }

    /// Takes in what was remembered of sellers.
    pub(crate) fn resume(&self, memories: &[Memory]) {
        self.write().records.resume(memories);
    }

    /// Drops what has expired.
    pub(crate) fn expire(&self, now: u64) {
        self.write().expire(now);
    }

    /// Says which models channels of ours are for: they are not forgotten to make room for others.
    pub(crate) fn set_ours(&self, models: HashSet<ModelId>) {
        self.write().budget.set_ours(models);
    }

    /// Notes that a meeting peer's book was read.
    pub(crate) fn set_read(&self) {
        self.write().read_once = true;
    }

    /// Whether any meeting peer's book was read since the start.
    pub(crate) fn was_read(&self) -> bool {
        self.read().read_once
    }

    /// What a name stands for: an alias, a model id, or `publisher/name:tag`.
    ///
    /// Anybody may list other weights under a name that is taken. The weights that were known first under it win; other
    /// listings of the same weights count as the same model, whoever published them.
    pub(crate) fn resolve(&self, asked: &str) -> Option<Resolved> {
        let name = self.aliases.get(asked).map_or(asked, String::as_str);
        let pages = self.read();
        let resolved = |listing: &Listing, models| Resolved {
            asked: asked.to_owned(),
            listing: listing.clone(),
            models,
        };
        if let Some(listing) = name.parse().ok().and_then(|id: ModelId| pages.models.get(&id)) {
            return Some(resolved(listing, vec![listing.model]));
        }
        let ids = pages.names.get(name)?;
        let named = || ids.iter().filter_map(|id| pages.models.get(id));
        let first = named().min_by_key(|listing| (listing.first_seen, listing.model))?;
        let same = named().filter(|listing| listing.weights == first.weights);
        Some(resolved(first, same.map(|listing| listing.model).collect()))
    }

    /// The sellers of some models, in the form that routing takes: all, or those in some regions. A snapshot that is at
    /// most a moment old.
    pub(crate) fn pools(&self, models: &[ModelId], regions: &[Region]) -> Vec<Arc<Pool>> {
        let stale = |pages: &Pages| {
            let shelves = models.iter().filter_map(|model| pages.shelves.get(model));
            shelves.into_iter().any(Shelf::is_due)
        };
        let pages = self.read();
        if !stale(&pages) {
            return pages.pools(models, regions);
        }
        drop(pages);
        let mut pages = self.write();
        for model in models {
            if let Some(shelf) = pages.shelves.get_mut(model).filter(|shelf| shelf.is_due()) {
                shelf.sort();
            }
        }
        pages.pools(models, regions)
    }

    /// Sorts anew what has changed. Large parts of the book are not sorted while a request waits for it: this has to be
    /// called again and again.
    pub fn sort(&self) {
        let changed: Vec<_> = {
            let pages = self.read();
            let changed = pages.shelves.iter().filter(|(_, shelf)| shelf.has_changed());
            changed.map(|(model, shelf)| (*model, shelf.content())).collect()
        };
        for (model, (version, sellers)) in changed {
            let sorted = shelf::Sorted::new(version, sellers);
            if let Some(shelf) = self.write().shelves.get_mut(&model) {
                shelf.take_in(sorted);
            }
        }
    }

    /// The live offers of some models.
    pub(crate) fn offers(&self, models: &[ModelId], now: u64) -> Vec<Arc<Seller>> {
        let pages = self.read();
        let shelves = models.iter().filter_map(|model| pages.shelves.get(model));
        shelves.flat_map(|shelf| shelf.live(now)).collect()
    }

    /// How to reach a provider: as in any of its offers, the newest first.
    pub(crate) fn peer_of(&self, provider: Address) -> Option<Peer> {
        let pages = self.read();
        let models = pages.providers.get(&provider)?;
        let shelves = models.iter().filter_map(|model| pages.shelves.get(model));
        let offers = shelves.filter_map(|shelf| shelf.get(&provider).map(|seller| &seller.offer));
        offers.max_by_key(|offer| offer.sequence).map(Offer::peer)
    }

    /// The live offer of one provider for a model.
    pub(crate) fn seller(&self, provider: Address, model: ModelId) -> Option<Arc<Seller>> {
        self.read().shelves.get(&model)?.get(&provider).cloned()
    }

    /// Live offers, at most so many and so many bytes of them in a message. Where these are not all, it is chance which:
    /// whoever asks again finds the others.
    pub(crate) fn all(&self, now: u64, most: usize, most_bytes: usize) -> Vec<Announcement> {
        let pages = self.read();
        let (mut list, mut bytes) = (Vec::new(), 0usize);
        let start = rand::random_range(0..pages.shelves.len().max(1));
        let (before, after) = (pages.shelves.iter().take(start), pages.shelves.iter().skip(start));
        for (model, shelf) in after.chain(before) {
            let Some(listing) = pages.models.get(model) else {
                continue;
            };
            for seller in shelf.live(now) {
                bytes = bytes
                    .saturating_add(encoded(&seller.offer))
                    .saturating_add(listing.encoded);
                if list.len() >= most || bytes > most_bytes {
                    return list;
                }
                list.push(announced(&seller, listing));
            }
        }
        list
    }

    /// The live offer of one provider for a model, as it was announced.
    pub(crate) fn announcement(&self, (provider, model): (Address, ModelId), now: u64) -> Option<Announcement> {
        let pages = self.read();
        let seller = pages.shelves.get(&model)?.get(&provider)?;
        let live = seller.offer.expires_at > now;
        live.then(|| Some(announced(seller, pages.models.get(&model)?)))
            .flatten()
    }

    /// Models with at least one live offer, each with its offers, by name.
    pub(crate) fn on_sale(&self, now: u64) -> Vec<Sold> {
        let pages = self.read();
        let mut sold: Vec<Sold> = Vec::new();
        for (model, shelf) in &pages.shelves {
            let offers: Vec<Arc<Seller>> = shelf.live(now).collect();
            if let Some(listing) = pages.models.get(model).filter(|_| !offers.is_empty()) {
                sold.push((listing.clone(), offers));
            }
        }
        sold.sort_by(|(one, _), (other, _)| (&one.name, one.model).cmp(&(&other.name, other.model)));
        sold
    }

    /// Live offers.
    pub fn len(&self) -> usize {
        self.read().offers
    }

    /// Whether there is no live offer.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// This gateway's own names, and what they stand for.
    pub(crate) fn aliases(&self) -> &BTreeMap<String, String> {
        &self.aliases
    }
}

impl Pages {
    fn pools(&self, models: &[ModelId], regions: &[Region]) -> Vec<Arc<Pool>> {
        let shelves = models.iter().filter_map(|model| self.shelves.get(model));
        shelves.flat_map(|shelf| shelf.pools(regions)).collect()
    }

    /// Refuses an offer that would make the book, or one party's part of it, too large.
    fn make_room(&mut self, offer: &Offer, manifest: &Manifest, from: NodeKey, now: u64) -> Result<(), NoteError> {
        let provider = offer.provider;
        let known = |pages: &Self| pages.shelves.get(&offer.model)?.get(&provider).cloned();
        let crowded = |pages: &Self| {
            let count = pages.providers.get(&provider).map_or(0, Vec::len);
            known(pages).is_none()
                && (pages.offers >= MAX_OFFERS
                    || pages.brought.get(&from).is_some_and(|count| *count >= MAX_FROM_PEER)
                    || count >= MAX_OF_PROVIDER)
        };
        let more = |pages: &Self| {
            let offered = budget::weight_of(offer);
            let listing = pages.models.get(&offer.model);
            let weight = listing.map_or_else(|| budget::weight(manifest), |listing| listing.weight);
            match known(pages) {
                Some(known) => {
                    let more = offered.saturating_sub(budget::weight_of(&known.offer));
                    Load {
                        of_provider: more,
                        in_all: more,
                    }
                }
                None => Load {
                    of_provider: offered + weight,
                    in_all: offered + if listing.is_some() { 0 } else { weight },
                },
            }
        };
        if crowded(self) || !self.budget.fits(provider, more(self)) {
            self.expire(now);
            if crowded(self) {
                return Err(NoteError::Full);
            }
        }
        loop {
            let load = more(self);
            if self.budget.fits(provider, load) {
                return Ok(());
            }
            let forgotten = self.budget.forgettable(provider, load).ok_or(NoteError::Full)?;
            self.forget_model(forgotten);
        }
    }

    fn put(&mut self, seller: Arc<Seller>) {
        let (provider, model, from) = (seller.offer.provider, seller.offer.model, seller.from);
        let mut load = Load::both(budget::weight_of(&seller.offer));
        let before = self.shelves.entry(model).or_default().put(seller);
        *self.brought.entry(from).or_default() += 1;
        match before {
            Some(before) => {
                self.uncount(before.from);
                self.budget.sub(provider, Load::both(budget::weight_of(&before.offer)));
            }
            None => {
                self.offers += 1;
                self.providers.entry(provider).or_default().push(model);
                load.of_provider += self.models.get(&model).map_or(0, |listing| listing.weight);
            }
        }
        self.budget.add(provider, load);
    }

    fn take(&mut self, provider: Address, model: ModelId) {
        let Some(shelf) = self.shelves.get_mut(&model) else {
            return;
        };
        let Some(gone) = shelf.take(&provider) else { return };
        let is_unsold = shelf.is_empty();
        if is_unsold {
            self.shelves.remove(&model);
        }
        self.offers = self.offers.saturating_sub(1);
        self.uncount(gone.from);
        if let Some(list) = self.providers.get_mut(&provider) {
            list.retain(|one| *one != model);
            if list.is_empty() {
                self.providers.remove(&provider);
            }
        }
        let mut load = Load::both(budget::weight_of(&gone.offer));
        if !is_unsold {
            load.of_provider += self.models.get(&model).map_or(0, |listing| listing.weight);
        }
        self.budget.sub(provider, load);
        if is_unsold && let Some(forgotten) = self.budget.unsell(provider, model) {
            self.forget_model(forgotten);
        }
    }

    /// Forgets a model that nobody sells now.
    fn forget_model(&mut self, model: ModelId) {
        let provider = self.budget.resell(model);
        let Some(listing) = self.models.remove(&model) else {
            return;
        };
        if let Some(provider) = provider {
            self.budget.sub(provider, Load::both(listing.weight));
        }
        if let Some(ids) = self.names.get_mut(&listing.name) {
            ids.retain(|id| *id != model);
            if ids.is_empty() {
                self.names.remove(&listing.name);
            }
        }
    }

    fn uncount(&mut self, from: NodeKey) {
        if let Some(count) = self.brought.get_mut(&from) {
            *count = count.saturating_sub(1);
            if *count == 0 {
                self.brought.remove(&from);
            }
        }
    }

    fn expire(&mut self, now: u64) {
        let shelves = self.shelves.iter();
        let expired: Vec<(Address, ModelId)> = shelves
            .flat_map(|(model, shelf)| shelf.expired(now).map(|provider| (provider, *model)))
            .collect();
        for (provider, model) in expired {
            self.take(provider, model);
        }
    }

    fn remember(&mut self, model: ModelId, manifest: Arc<Manifest>, now: u64) {
        if let Some(listing) = self.models.get(&model) {
            let weight = listing.weight;
            if let Some(last) = self.budget.resell(model) {
                let load = Load {
                    of_provider: weight,
                    in_all: 0,
                };
                self.budget.sub(last, load);
            }
            return;
        }
        let listing = Listing {
            name: manifest.listing(),
            weights: weights(&manifest),
            encoded: manifest.canonical().len(),
            weight: budget::weight(&manifest),
            manifest,
            model,
            first_seen: now,
        };
        self.names.entry(listing.name.clone()).or_default().push(model);
        self.budget.count(listing.weight);
        self.models.insert(model, listing);
    }
}

fn announced(seller: &Seller, listing: &Listing) -> Announcement {
    Announcement {
        offer: seller.offer.clone(),
        signature: seller.signature,
        manifest: Arc::clone(&listing.manifest),
    }
}

/// Bytes of an announcement without its manifest in a message.
fn encoded(offer: &Offer) -> usize {
    size_of::<Signature>() + postcard::to_stdvec(offer).map_or(usize::MAX, |bytes| bytes.len())
}

/// What tells weights apart: the hashes and sizes of a model's files, whatever they are called.
fn weights(manifest: &Manifest) -> [u8; 32] {
    let mut files: Vec<Vec<u8>> = manifest
        .artifacts
        .iter()
        .map(|artifact| [artifact.blake3.0.as_slice(), &artifact.size.to_be_bytes()].concat())
        .collect();
    files.sort();
    let parts: Vec<&[u8]> = files.iter().map(Vec::as_slice).collect();
    keccak256(&parts)
}

#[cfg(test)]
pub(crate) mod tests;
