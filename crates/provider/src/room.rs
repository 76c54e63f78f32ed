//! What every task of the provider shares.

use std::{collections::BTreeMap, fmt, sync::Arc};

use rialto_engine::Engine;
use rialto_protocol::{Address, ModelId, NodeKey, manifest::Manifest};
use tokio_util::sync::CancellationToken;

use crate::{
    bids::Bids,
    channels::Channels,
    clock,
    config::Config,
    energy::Tally,
    limits::Limiter,
    metrics::Metrics,
    price::{Policy, Seen, Tag},
    queue::Queue,
    store::{Store, Write},
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
    /// What it costs.
    pub price: Policy,
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
    pub(crate) tag: Tag,
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
    pub(crate) payers: Arc<Limiter<Address>>,
    pub(crate) peers: Arc<Limiter<NodeKey>>,
    /// Nothing new is admitted.
    pub(crate) closing: CancellationToken,
    /// Running work ends now.
    pub(crate) cut: CancellationToken,
}

impl Room {
    /// Moves every price on and promises it until `expires_at`, in seconds since 1970. The promises are to be on disk
    /// before anybody reads them.
    pub(crate) fn quote(&self, expires_at: u64) -> Vec<Write> {
        let now = clock::now();
        let quote = |shelf: &Arc<Shelf>| {
            let seen = Seen {
                slots: shelf.queue.capacity(),
                load: shelf.queue.load_so_far(),
            };
            Write::Quote(shelf.model, shelf.tag.quote(&seen, expires_at, now))
        };
        self.shelves.values().map(quote).collect()
    }
}
