//! Where to find blocks and transactions by their hashes.

use crate::block::Block;
use alloy::primitives::{B256, map::HashMap};

/// Hashes to places.
#[derive(Debug, Default)]
pub(super) struct Index {
    blocks: HashMap<B256, u64>,
    transactions: HashMap<B256, (u64, usize)>,
}

impl Index {
    /// The number of the block with this hash.
    pub(super) fn block(&self, hash: &B256) -> Option<u64> {
        self.blocks.get(hash).copied()
    }

    /// The block number and position of the transaction with this hash.
    pub(super) fn transaction(&self, hash: &B256) -> Option<(u64, usize)> {
        self.transactions.get(hash).copied()
    }

    /// Adds a block and its transactions.
    pub(super) fn insert(&mut self, block: &Block) {
        let number = block.header().number;
        self.blocks.insert(block.hash(), number);
        for (position, mined) in block.transactions().iter().enumerate() {
            self.transactions.insert(mined.hash(), (number, position));
        }
    }

    /// Forgets a block and its transactions.
    pub(super) fn remove(&mut self, block: &Block) {
        self.blocks.remove(&block.hash());
        for mined in block.transactions() {
            self.transactions.remove(&mined.hash());
        }
    }
}
