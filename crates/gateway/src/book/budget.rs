//! What the book takes in memory: so many bytes of each provider, and so many in all.
//!
//! A model that nobody sells now is still known, so that whoever asks for it is told to come again and not that there is no
//! such model. It counts against the provider that sold it last, and is the first to go when that provider, or the book, has
//! no room left. A model that a channel of ours is for makes room for nobody but its own seller.

use std::{
    collections::{HashMap, HashSet, VecDeque},
    mem::size_of,
};

use rialto_protocol::{
    Address, ModelId,
    manifest::{Artifact, Manifest, TensorSpec},
    offer::Offer,
};

use super::Listing;
use crate::routing::Seller;

/// Most bytes of one provider: its offers and the manifests of what it sells.
pub(super) const MAX_OF_PROVIDER: usize = 1 << 20;
/// Most bytes of all offers and manifests.
pub(super) const MAX_IN_ALL: usize = 512 << 20;
/// Most models that are remembered of one provider after nobody sells them any more.
const MAX_UNSOLD: usize = 64;

/// Bytes that something takes: of a provider's budget, and of all. A manifest counts in full against each provider that
/// sells the model, and once in all.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Load {
    pub(super) of_provider: usize,
    pub(super) in_all: usize,
}

impl Load {
    /// As much of the provider's budget as of all.
    pub(super) fn both(bytes: usize) -> Self {
        Self {
            of_provider: bytes,
            in_all: bytes,
        }
    }
}

/// What is taken, by whom.
#[derive(Debug, Default)]
pub(super) struct Budget {
    total: usize,
    providers: HashMap<Address, usize>,
    /// Models that nobody sells now, by the provider that sold them last; the one without a seller for longest first.
    unsold: HashMap<Address, VecDeque<ModelId>>,
    /// The provider of each of these.
    last: HashMap<ModelId, Address>,
    /// Models that channels of ours are for.
    ours: HashSet<ModelId>,
}

impl Budget {
    /// Says which models channels of ours are for.
    pub(super) fn set_ours(&mut self, models: HashSet<ModelId>) {
        self.ours = models;
    }

    /// What the book takes.
    #[cfg(test)]
    pub(super) fn total(&self) -> usize {
        self.total
    }

    /// Whether there is room for so much more of a provider, and in all.
    pub(super) fn fits(&self, provider: Address, more: Load) -> bool {
        !self.is_full(provider, more) && self.total.saturating_add(more.in_all) <= MAX_IN_ALL
    }

    fn is_full(&self, provider: Address, more: Load) -> bool {
        let of_provider = self.providers.get(&provider).copied().unwrap_or_default();
        of_provider.saturating_add(more.of_provider) > MAX_OF_PROVIDER
    }

    /// A model that can be forgotten to make room for so much of a provider: its own, where it has no room, else
    /// anybody's.
    pub(super) fn forgettable(&self, provider: Address, more: Load) -> Option<ModelId> {
        if self.is_full(provider, more) {
            return self.first_unsold(provider);
        }
        let mut unsold = self.unsold.values().flatten();
        unsold.find(|model| !self.ours.contains(*model)).copied()
    }

    fn first_unsold(&self, provider: Address) -> Option<ModelId> {
        let models = self.unsold.get(&provider)?;
        let not_ours = models.iter().find(|model| !self.ours.contains(*model));
        not_ours.or(models.front()).copied()
    }

    /// Counts what came.
    pub(super) fn add(&mut self, provider: Address, load: Load) {
        self.total = self.total.saturating_add(load.in_all);
        let of_provider = self.providers.entry(provider).or_default();
        *of_provider = of_provider.saturating_add(load.of_provider);
    }

    /// Counts bytes that are no provider's alone.
    pub(super) fn count(&mut self, bytes: usize) {
        self.total = self.total.saturating_add(bytes);
    }

    /// Counts what went.
    pub(super) fn sub(&mut self, provider: Address, load: Load) {
        self.total = self.total.saturating_sub(load.in_all);
        if let Some(of_provider) = self.providers.get_mut(&provider) {
            *of_provider = of_provider.saturating_sub(load.of_provider);
            if *of_provider == 0 {
                self.providers.remove(&provider);
            }
        }
    }

    /// The last seller of a model is gone. Returns a model that is to be forgotten because that seller left too many.
    pub(super) fn unsell(&mut self, provider: Address, model: ModelId) -> Option<ModelId> {
        let models = self.unsold.entry(provider).or_default();
        models.push_back(model);
        let is_full = models.len() > MAX_UNSOLD;
        self.last.insert(model, provider);
        is_full.then(|| self.first_unsold(provider)).flatten()
    }

    /// A model is sold again, or forgotten: returns the provider that it counted against until now.
    pub(super) fn resell(&mut self, model: ModelId) -> Option<Address> {
        let provider = self.last.remove(&model)?;
        if let Some(models) = self.unsold.get_mut(&provider) {
            models.retain(|one| *one != model);
            if models.is_empty() {
                self.unsold.remove(&provider);
            }
        }
        Some(provider)
    }
}

/// What an offer takes.
pub(super) fn weight_of(offer: &Offer) -> usize {
    let texts = offer
        .addresses
        .iter()
        .map(|address| size_of::<String>() + address.len());
    let relay = offer.relay.as_ref().map_or(0, String::len);
    texts.fold(size_of::<Seller>() + relay + offer.engine.len(), usize::saturating_add)
}

/// What a model takes: its texts, and what its lists are made of.
pub(super) fn weight(manifest: &Manifest) -> usize {
    let tensors = manifest.inputs.iter().chain(&manifest.outputs);
    let tensors = tensors.map(|tensor| size_of::<TensorSpec>() + tensor.shape.len() * size_of::<i64>());
    let artifacts = manifest.artifacts.len() * size_of::<Artifact>();
    let lists = tensors.fold(artifacts, usize::saturating_add);
    size_of::<Listing>() + size_of::<Manifest>() + manifest.canonical().len() + lists
}
