//! The desk: everything that a request needs.

use std::sync::Arc;

use rialto_network::{Neighbours, Node};
use tokio::sync::Semaphore;
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::{
    Config, Error, Store,
    batch::Batches,
    book::{Book, Door, Resolved, Spread, Stakes},
    buying::Uses,
    http::{Attempts, Bells},
    limits::Turnstile,
    metrics::Metrics,
    own::Own,
    paying::Ledger,
    routing::Prefixes,
};

/// Everything that a request needs.
pub(crate) struct Desk {
    pub(crate) config: Arc<Config>,
    pub(crate) node: Node,
    pub(crate) book: Arc<Book>,
    /// The owner's own servers.
    pub(crate) own: Own,
    pub(crate) stakes: Stakes,
    pub(crate) neighbours: Arc<Neighbours>,
    /// What each caller may bring.
    pub(crate) door: Door,
    /// Offers that are passed on.
    pub(crate) spread: Spread,
    pub(crate) store: Store,
    pub(crate) ledger: Arc<Ledger>,
    /// Who was given which prompts.
    pub(crate) prefixes: Prefixes,
    /// Models in use.
    pub(crate) uses: Uses,
    pub(crate) metrics: Metrics,
    /// Trades under way; they outlive the connections of their clients.
    pub(crate) tasks: TaskTracker,
    /// Ends trades under way when the gateway cannot wait for them any longer.
    pub(crate) halt: CancellationToken,
    /// Requests of keys that have limits of them.
    pub(crate) turnstile: Arc<Turnstile>,
    /// Places for requests.
    pub(crate) places: Arc<Semaphore>,
    /// Idempotent requests being answered.
    pub(crate) bells: Bells,
    /// Files, and what batches share.
    pub(crate) batches: Batches,
    /// Purchases for clients that retry by themselves.
    pub(crate) attempts: Attempts,
    /// Tells this run of the gateway from others.
    pub(crate) boot: [u8; 16],
}

impl Desk {
    /// What a name of a model stands for.
    pub(crate) fn resolve(&self, name: &str) -> Result<Resolved, Error> {
        if let Some(model) = self.book.resolve(name) {
            return Ok(model);
        }
        let model: String = name.chars().take(256).collect();
        // Before any book was read, nobody can say that a model does not exist.
        if self.book.was_read() || !self.book.is_empty() {
            return Err(Error::UnknownModel { model });
        }
        Err(Error::NoSeller {
            model,
            retry_ms: self.config.timeouts.browse_ms,
        })
    }
}
