//! The chain: its blocks, its present state, and the one path by which either changes.

mod index;
mod open;
mod write;

pub(crate) use write::WriteError;

use crate::{
    block::{Block, Draft},
    change::Change,
    clock::Clock,
    diff::Diff,
    evm::{self, CallFailure, Mode},
    journal::{Directory, Journal, TornTail},
    state::State,
    view::View,
};
use alloy::{
    eips::{BlockId, BlockNumberOrTag},
    primitives::{B256, Bytes},
    rpc::types::TransactionRequest,
};
use index::Index;
use revm::context::BlockEnv;

/// A block or patch in the order it happened, with what undoes it.
#[derive(Debug)]
struct Entry {
    /// The chain's height after the entry.
    height: u64,
    is_block: bool,
    diff: Diff,
    /// The state commitment after the entry.
    commitment: B256,
}

/// A point that `evm_revert` can go back to.
#[derive(Debug)]
struct Snapshot {
    id: u64,
    kept: usize,
    clock: Clock,
}

/// The chain in memory, with its journal. All methods are synchronous; callers hold the lock.
#[derive(Debug)]
pub(crate) struct Chain {
    chain_id: u64,
    state: State,
    /// Never empty: the first is the genesis block.
    blocks: Vec<Block>,
    /// Blocks and patches in order; as many blocks as `blocks` has.
    entries: Vec<Entry>,
    index: Index,
    clock: Clock,
    /// Kept in memory only: snapshots belong to a running test.
    snapshots: Vec<Snapshot>,
    next_snapshot: u64,
    journal: Option<Journal>,
    /// Held for its lock.
    directory: Option<Directory>,
    /// Set when the owner stopped the chain.
    closed: bool,
    torn: Option<TornTail>,
}

/// A block that a client named and this chain does not have.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("block not found: {0}")]
pub(crate) struct UnknownBlock(pub(crate) String);

impl Chain {
    /// The EIP-155 chain id.
    pub(crate) fn chain_id(&self) -> u64 {
        self.chain_id
    }

    /// What a crash had left at the journal's end, if anything.
    pub(crate) fn torn(&self) -> Option<TornTail> {
        self.torn
    }

    /// The number of the newest block.
    pub(crate) fn height(&self) -> u64 {
        u64::try_from(self.blocks.len()).unwrap_or(u64::MAX).saturating_sub(1)
    }

    /// The newest block. There is always one; an `Option` only spares a panic.
    pub(crate) fn tip(&self) -> Option<&Block> {
        self.blocks.last()
    }

    /// The clock's offset from wall time, seconds.
    pub(crate) fn clock_offset(&self) -> i64 {
        self.clock.offset()
    }

    /// The block with this number.
    pub(crate) fn block(&self, number: u64) -> Option<&Block> {
        usize::try_from(number).ok().and_then(|number| self.blocks.get(number))
    }

    /// Blocks `from` to `to`, both included and cut to those that exist.
    pub(crate) fn blocks(&self, from: u64, to: u64) -> &[Block] {
        let from = usize::try_from(from).unwrap_or(usize::MAX);
        let end = usize::try_from(to.saturating_add(1))
            .unwrap_or(usize::MAX)
            .min(self.blocks.len());
        self.blocks.get(from..end).unwrap_or_default()
    }

    /// The number of the block with this hash.
    pub(crate) fn number_of(&self, hash: &B256) -> Option<u64> {
        self.index.block(hash)
    }

    /// The block and position of a transaction.
    pub(crate) fn find_transaction(&self, hash: &B256) -> Option<(&Block, usize)> {
        let (number, position) = self.index.transaction(hash)?;
        Some((self.block(number)?, position))
    }

    /// The number of the block that a client named. Nothing is ever pending or unsafe here, so those tags mean
    /// the newest block.
    pub(crate) fn resolve(&self, id: BlockId) -> Result<u64, UnknownBlock> {
        match id {
            BlockId::Hash(hash) => {
                let hash = hash.block_hash;
                self.number_of(&hash).ok_or_else(|| UnknownBlock(hash.to_string()))
            }
            BlockId::Number(BlockNumberOrTag::Earliest) => Ok(0),
            BlockId::Number(BlockNumberOrTag::Number(number)) if number > self.height() => {
                Err(UnknownBlock(format!("{number}; the newest is {}", self.height())))
            }
            BlockId::Number(BlockNumberOrTag::Number(number)) => Ok(number),
            BlockId::Number(_) => Ok(self.height()),
        }
    }

    /// The state after block `height` and whatever was patched before the next block.
    pub(crate) fn view(&self, height: u64) -> View<'_> {
        let blocks = self.blocks(0, height);
        let later = self.entries.iter().rev().take_while(|entry| entry.height > height);
        View::before(&self.state, blocks, later.map(|entry| &entry.diff))
    }

    /// The block that would be made now.
    pub(crate) fn draft(&self) -> Draft {
        match self.tip() {
            Some(tip) => Draft::after(tip, self.clock.next(tip.header().timestamp)),
            None => Draft::genesis(self.clock.next(0)),
        }
    }

    /// What a call at `height` sees of its block.
    ///
    /// At the newest height it is that block's number with the time and fee that a transaction sent now would
    /// get: blocks are only made by transactions, so the newest block may be old, and a call would otherwise say
    /// that a deadline has not come when a transaction would find that it has.
    pub(crate) fn call_block(&self, height: u64) -> BlockEnv {
        let mut environment = self.draft().environment();
        environment.number = alloy::primitives::U256::from(height);
        if let Some(block) = self.block(height)
            && height < self.height()
        {
            environment.timestamp = alloy::primitives::U256::from(block.header().timestamp);
            environment.basefee = block.base_fee();
            environment.prevrandao = Some(block.header().mix_hash);
        }
        environment
    }

    /// Runs a call on the state at `height` and returns its output.
    pub(crate) fn call(&self, request: &TransactionRequest, height: u64) -> Result<Bytes, CallFailure> {
        let transaction = evm::call_environment(request, crate::fees::BLOCK_GAS_LIMIT)?;
        let view = self.view(height);
        let outcome = evm::run(self.chain_id, &view, self.call_block(height), transaction, Mode::Call)?;
        CallFailure::check(outcome.result)
    }

    /// The least gas with which the request succeeds as a transaction sent now on the state at `height`.
    pub(crate) fn estimate(&self, request: &TransactionRequest, height: u64) -> Result<u64, CallFailure> {
        let transaction = evm::call_environment(request, crate::fees::TRANSACTION_GAS_LIMIT)?;
        let block = if height == self.height() {
            self.draft().environment()
        } else {
            self.call_block(height)
        };
        crate::estimate::estimate(self.chain_id, &self.view(height), &block, transaction)
    }

    fn commitment(&self) -> B256 {
        self.entries.last().map(|entry| entry.commitment).unwrap_or_default()
    }

    /// Applies a change that is true by construction, or was checked by [`Chain::check`].
    fn apply(&mut self, change: Change) {
        match change {
            Change::Block { block, diff, clock } => {
                self.index.insert(&block);
                self.blocks.push(*block);
                self.clock = clock;
                self.enter(diff, true);
            }
            Change::Patch { diff } => self.enter(diff, false),
            Change::Clock { clock } => self.clock = clock,
            Change::Revert { kept, clock } => {
                self.truncate(usize::try_from(kept).unwrap_or(usize::MAX));
                self.clock = clock;
            }
        }
    }

    fn enter(&mut self, diff: Diff, is_block: bool) {
        let commitment = diff.commit(self.commitment());
        self.state.apply(&diff);
        self.entries.push(Entry {
            height: self.height(),
            is_block,
            diff,
            commitment,
        });
    }

    /// Takes back every entry after the first `kept`; the genesis block always stays.
    fn truncate(&mut self, kept: usize) {
        while self.entries.len() > kept.max(1) {
            let Some(entry) = self.entries.pop() else { return };
            self.state.undo(&entry.diff);
            if entry.is_block
                && let Some(block) = self.blocks.pop()
            {
                self.index.remove(&block);
            }
        }
    }
}
