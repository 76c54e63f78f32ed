//! Since when a store sells. A channel that is older may have receipts that this store knows nothing of, and a second
//! receipt with a number of theirs is proof of fraud: such a channel is not served.

use std::fmt;

use rialto_protocol::ChannelParams;
use rialto_settlement::{Chain, Error as ChainError, MAX_EVENT_BLOCKS};
use tokio::sync::OnceCell;

use crate::{
    Error,
    store::{Store, Write},
};

/// Under this name the store keeps the block.
const BIRTH: &str = "birth";

/// Every node knows the state after so many of the latest blocks.
const STATE_KEPT: u64 = 64;

/// The chain's newest block when the store was new.
pub(crate) struct Birth {
    chain: Chain,
    store: Store,
    block: OnceCell<u64>,
}

impl fmt::Debug for Birth {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Birth").field(&self.block.get()).finish()
    }
}

impl Birth {
    pub(crate) fn new(chain: Chain, store: Store) -> Self {
        Self {
            chain,
            store,
            block: OnceCell::new(),
        }
    }

    /// The block; a store that has none gets it now, for ever. Fails while that takes the chain and it is away.
    pub(crate) async fn block(&self) -> Result<u64, Error> {
        self.block.get_or_try_init(|| self.find()).await.copied()
    }

    async fn find(&self) -> Result<u64, Error> {
        let known = self.store.mark(BIRTH).await?;
        if known != 0 {
            return Ok(known);
        }
        // A store of an earlier version knows since when it follows the chain.
        let block = match self.store.trail().await? {
            Some(trail) => trail.first_block(),
            None => self.chain.block_number().await?,
        }
        .max(1);
        self.store.submit(vec![Write::Mark(BIRTH, block)]).durable().await?;
        Ok(block)
    }

    /// Whether a channel that is open now was certainly opened after the store was new. An open that is many thousand
    /// blocks old may not be found any more; then it counts as older.
    pub(crate) async fn precedes(&self, params: &ChannelParams) -> Result<bool, Error> {
        let birth = self.block().await?;
        let head = self.chain.block_number().await?;
        if head <= birth {
            return Ok(false);
        }
        if head - birth <= STATE_KEPT {
            match self.chain.channel_at(params.id(), birth).await {
                Ok(state) => return Ok(!state.is_open() && !state.closed),
                // The escrow itself is younger.
                Err(ChainError::NoContract { .. }) => return Ok(true),
                Err(error @ ChainError::Unreachable { .. }) => return Err(error.into()),
                // It does not have that state any more.
                Err(_) => {}
            }
        }
        let first = birth.saturating_add(1).max(head.saturating_sub(MAX_EVENT_BLOCKS - 1));
        Ok(self.chain.was_opened(params, first, head).await?)
    }
}
