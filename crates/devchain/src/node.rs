//! The chain as its clients share it.

use crate::{chain::Chain, filters::Filters, rpc::RpcError};
use std::sync::{Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard};
use tokio::sync::watch;

/// A chain with what its JSON-RPC clients need around it.
#[derive(Debug)]
pub(crate) struct Node {
    chain: RwLock<Chain>,
    filters: Mutex<Filters>,
    height: watch::Sender<u64>,
}

impl Node {
    pub(crate) fn new(chain: Chain) -> Self {
        let height = watch::Sender::new(chain.height());
        Self {
            chain: RwLock::new(chain),
            filters: Mutex::default(),
            height,
        }
    }

    /// Reads the chain.
    pub(crate) fn read(&self) -> Result<RwLockReadGuard<'_, Chain>, RpcError> {
        // A panic while writing may have left half a change behind: nothing is answered from that.
        self.chain
            .read()
            .map_err(|_| RpcError::internal("chain stopped after an internal error"))
    }

    /// Changes the chain and tells whoever waits for a block.
    pub(crate) fn write<T, E: Into<RpcError>>(
        &self,
        change: impl FnOnce(&mut Chain) -> Result<T, E>,
    ) -> Result<T, RpcError> {
        let mut chain = self
            .chain
            .write()
            .map_err(|_| RpcError::internal("chain stopped after an internal error"))?;
        let outcome = change(&mut chain);
        self.height.send_replace(chain.height());
        outcome.map_err(Into::into)
    }

    /// The installed filters.
    pub(crate) fn filters(&self) -> MutexGuard<'_, Filters> {
        // Filters are whole after each single step, so a panic elsewhere does not spoil them.
        self.filters.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Signals each change of the chain.
    pub(crate) fn watch(&self) -> watch::Receiver<u64> {
        self.height.subscribe()
    }

    /// Refuses all further writes and gives up the data directory.
    pub(crate) fn close(&self) {
        self.chain.write().unwrap_or_else(PoisonError::into_inner).close();
    }
}
