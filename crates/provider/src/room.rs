//! What every task of the provider shares.

use std::{collections::BTreeMap, fmt, sync::Arc};

use rialto_engine::Engine;
use rialto_protocol::{Address, ModelId, Price, manifest::Manifest};
use tokio_util::sync::CancellationToken;

use crate::{
    bids::Bids, channels::Channels, config::Config, energy::Tally, metrics::Metrics, queue::Queue, store::Store,
};

/// A model that the provider sells.
#[derive(Clone)]
pub struct Listing {
    /// What it is.
    pub manifest: Manifest,
    /// On whose terms: the model's id is made of the manifest and this.
    pub publisher: Address,
    /// What runs it.
    pub engine: Arc<dyn Engine>,
    /// What it costs, in nano-dollars a unit.
    pub price: Price,
    /// Millijoules a unit of output (of input where output is not counted), as a benchmark found; zero when not known.
    /// What receipts find takes its place.
    pub energy_millijoules: u64,
}

impl Listing {
    /// The model's id on its publisher's terms.
    pub fn model(&self) -> ModelId {
        self.manifest.model_id(self.publisher)
    }
}

impl fmt::Debug for Listing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Listing")
            .field("manifest", &self.manifest.listing())
            .field("publisher", &self.publisher)
            .field("engine", self.engine.info())
            .field("price", &self.price)
            .finish_non_exhaustive()
    }
}

/// A listing with the queue in front of its engine, and what its work draws.
#[derive(Debug)]
pub(crate) struct Shelf {
    pub(crate) model: ModelId,
    pub(crate) listing: Listing,
    pub(crate) queue: Arc<Queue>,
    pub(crate) energy: Tally,
}

/// What every task of the provider shares.
#[derive(Debug)]
pub(crate) struct Room {
    pub(crate) config: Config,
    pub(crate) shelves: BTreeMap<ModelId, Arc<Shelf>>,
    pub(crate) channels: Arc<Channels>,
    pub(crate) bids: Arc<Bids>,
    pub(crate) store: Store,
    pub(crate) metrics: Metrics,
    /// Nothing new is admitted.
    pub(crate) closing: CancellationToken,
    /// Running work ends now.
    pub(crate) cut: CancellationToken,
}
