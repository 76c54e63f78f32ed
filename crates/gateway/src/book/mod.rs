//! The book: live offers of staked providers, and the models that they sell.

mod meeting;
mod stake;

use std::{
    collections::{BTreeMap, HashMap},
    sync::{Arc, PoisonError, RwLock},
};

pub(crate) use meeting::{answer_peers, browse};
use rialto_protocol::{
    Address, ModelId, NodeKey,
    hash::keccak256,
    manifest::Manifest,
    offer::{Announcement, Offer, OfferError},
    ticket::Peer,
};
pub(crate) use stake::Stakes;

/// Most live offers.
const MAX_OFFERS: usize = 16_384;
/// Most live offers that one peer brought in.
const MAX_FROM_PEER: usize = 4_096;
/// Most models of one provider.
const MAX_OF_PROVIDER: usize = 64;
/// Most models that are remembered after nobody sells them any more.
const MAX_MODELS: usize = 16_384;

/// Live offers and known models. Every read sees only offers that have not expired.
#[derive(Debug, Default)]
pub struct Book {
    aliases: BTreeMap<String, String>,
    pages: RwLock<Pages>,
}

#[derive(Debug, Default)]
struct Pages {
    offers: HashMap<(Address, ModelId), Entry>,
    models: HashMap<ModelId, Listing>,
    /// Whether any meeting peer's book was read since the start.
    read_once: bool,
}

#[derive(Debug)]
struct Entry {
    announcement: Arc<Announcement>,
    from: NodeKey,
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
pub(crate) type Sold = (Listing, Vec<Arc<Announcement>>);

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
}

impl Book {
    /// An empty book with this gateway's own names for models.
    pub fn new(aliases: BTreeMap<String, String>) -> Self {
        Self {
            aliases,
            pages: RwLock::default(),
        }
    }

    /// Notes an announcement whose provider's stake was looked up. The newest sequence wins.
    pub(crate) fn note(&self, announcement: Announcement, from: NodeKey, now: u64) -> Result<(), NoteError> {
        announcement.check(now)?;
        let key = (announcement.offer.provider, announcement.offer.model);
        let mut pages = self.pages.write().unwrap_or_else(PoisonError::into_inner);
        match pages.offers.get(&key) {
            Some(known) if known.announcement.offer.sequence >= announcement.offer.sequence => {
                // The same offer comes again from every peer that has it.
                let same = known.announcement.offer.sequence == announcement.offer.sequence;
                return if same { Ok(()) } else { Err(NoteError::Older) };
            }
            Some(_) => {}
            None => pages.make_room(&announcement, from, now)?,
        }
        pages.remember(&announcement, now);
        let announcement = Arc::new(announcement);
        pages.offers.insert(key, Entry { announcement, from });
        Ok(())
    }

    /// Forgets a provider's offer, because it said itself that it is void.
    pub(crate) fn forget(&self, provider: Address, model: ModelId) {
        let mut pages = self.pages.write().unwrap_or_else(PoisonError::into_inner);
        pages.offers.remove(&(provider, model));
    }

    /// Drops what has expired.
    pub(crate) fn expire(&self, now: u64) {
        let mut pages = self.pages.write().unwrap_or_else(PoisonError::into_inner);
        pages
            .offers
            .retain(|_, entry| entry.announcement.offer.expires_at > now);
    }

    /// Notes that a meeting peer's book was read.
    pub(crate) fn set_read(&self) {
        self.pages.write().unwrap_or_else(PoisonError::into_inner).read_once = true;
    }

    /// Whether any meeting peer's book was read since the start.
    pub(crate) fn was_read(&self) -> bool {
        self.pages.read().unwrap_or_else(PoisonError::into_inner).read_once
    }

    /// What a name stands for: an alias, a model id, or `publisher/name:tag`.
    ///
    /// Anybody may list other weights under a name that is taken. The weights that were known first under it win; other
    /// listings of the same weights count as the same model, whoever published them.
    pub(crate) fn resolve(&self, asked: &str) -> Option<Resolved> {
        let name = self.aliases.get(asked).map_or(asked, String::as_str);
        let pages = self.pages.read().unwrap_or_else(PoisonError::into_inner);
        let resolved = |listing: &Listing, models| Resolved {
            asked: asked.to_owned(),
            listing: listing.clone(),
            models,
        };
        if let Some(listing) = name.parse().ok().and_then(|id: ModelId| pages.models.get(&id)) {
            return Some(resolved(listing, vec![listing.model]));
        }
        let named = || pages.models.values().filter(|listing| listing.name == name);
        let first = named().min_by_key(|listing| (listing.first_seen, listing.model))?;
        let same = named().filter(|listing| listing.weights == first.weights);
        Some(resolved(first, same.map(|listing| listing.model).collect()))
    }

    /// The live offers of some models.
    pub(crate) fn offers(&self, models: &[ModelId], now: u64) -> Vec<Arc<Announcement>> {
        let pages = self.pages.read().unwrap_or_else(PoisonError::into_inner);
        let live = pages.offers.values().map(|entry| &entry.announcement);
        live.filter(|one| one.offer.expires_at > now && models.contains(&one.offer.model))
            .cloned()
            .collect()
    }

    /// How to reach a provider: as in any of its offers, the newest first.
    pub(crate) fn peer_of(&self, provider: Address) -> Option<Peer> {
        let pages = self.pages.read().unwrap_or_else(PoisonError::into_inner);
        let offers = pages.offers.values().map(|entry| &entry.announcement.offer);
        let newest = offers.filter(|offer| offer.provider == provider);
        newest.max_by_key(|offer| offer.sequence).map(Offer::peer)
    }

    /// All live offers, at most so many.
    pub(crate) fn all(&self, now: u64, most: usize) -> Vec<Announcement> {
        let pages = self.pages.read().unwrap_or_else(PoisonError::into_inner);
        let live = pages.offers.values().map(|entry| &entry.announcement);
        live.filter(|one| one.offer.expires_at > now)
            .take(most)
            .map(|one| Announcement::clone(one))
            .collect()
    }

    /// Models with at least one live offer, each with its offers, by name.
    pub(crate) fn on_sale(&self, now: u64) -> Vec<Sold> {
        let pages = self.pages.read().unwrap_or_else(PoisonError::into_inner);
        let mut sold: BTreeMap<(String, ModelId), Sold> = BTreeMap::new();
        for entry in pages
            .offers
            .values()
            .filter(|entry| entry.announcement.offer.expires_at > now)
        {
            if let Some(listing) = pages.models.get(&entry.announcement.offer.model) {
                let slot = sold.entry((listing.name.clone(), listing.model));
                slot.or_insert_with(|| (listing.clone(), Vec::new()))
                    .1
                    .push(Arc::clone(&entry.announcement));
            }
        }
        sold.into_values().collect()
    }

    /// Live offers.
    pub fn len(&self) -> usize {
        self.pages.read().unwrap_or_else(PoisonError::into_inner).offers.len()
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
    /// Refuses a new offer that would make the book, or one party's part of it, too large.
    fn make_room(&mut self, announcement: &Announcement, from: NodeKey, now: u64) -> Result<(), NoteError> {
        let crowded = |offers: &HashMap<(Address, ModelId), Entry>| {
            let by_peer = offers.values().filter(|entry| entry.from == from).count();
            let provider = announcement.offer.provider;
            let of_provider = offers.keys().filter(|(one, _)| *one == provider).count();
            offers.len() >= MAX_OFFERS || by_peer >= MAX_FROM_PEER || of_provider >= MAX_OF_PROVIDER
        };
        if crowded(&self.offers) {
            self.offers.retain(|_, entry| entry.announcement.offer.expires_at > now);
            if crowded(&self.offers) {
                return Err(NoteError::Full);
            }
        }
        Ok(())
    }

    fn remember(&mut self, announcement: &Announcement, now: u64) {
        let model = announcement.offer.model;
        if self.models.contains_key(&model) {
            return;
        }
        if self.models.len() >= MAX_MODELS {
            let sold: std::collections::HashSet<ModelId> = self.offers.keys().map(|(_, model)| *model).collect();
            self.models.retain(|model, _| sold.contains(model));
        }
        let manifest = Arc::new(announcement.manifest.clone());
        let listing = Listing {
            name: manifest.listing(),
            weights: weights(&manifest),
            manifest,
            model,
            first_seen: now,
        };
        self.models.insert(model, listing);
    }
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
