//! Everything that changes a chain: to disk first, then to memory, then to the client.

use super::{Chain, Snapshot};
use crate::{
    block::Draft,
    change::Change,
    diff::{Account, Diff},
    error::Error,
    evm::{self, Mode},
    receipt,
    transaction::{self, Refusal},
};
use alloy::{
    consensus::{TxEnvelope, transaction::Recovered},
    primitives::{Address, B256, Bytes, U256, keccak256},
};

/// The most empty blocks that one call may make.
pub(crate) const MAX_MINED: u64 = 10_000;

/// Why a write was not done. Nothing of it is in the chain then.
#[derive(Debug, thiserror::Error)]
pub(crate) enum WriteError {
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// The client asked for something impossible.
    #[error("{0}")]
    Invalid(String),
    /// The journal failed: not the client's fault.
    #[error(transparent)]
    Journal(#[from] Error),
}

impl Chain {
    /// Runs a signed transaction and makes its block. Returns the transaction's hash once the block is durable.
    ///
    /// A transaction that reverts or runs out of gas is also mined, as on every chain; its receipt says so.
    pub(crate) fn submit(&mut self, transaction: Recovered<TxEnvelope>) -> Result<B256, WriteError> {
        let hash = *transaction.inner().hash();
        let draft = self.draft();
        let environment = transaction::environment(&transaction);
        let view = self.view(self.height());
        let outcome = evm::run(
            self.chain_id,
            &view,
            draft.environment(),
            environment,
            Mode::Transaction,
        )?;
        let diff = Diff::from_execution(&self.state, &outcome.state);
        let mined = receipt::mined(transaction, outcome.result);
        let clock = self.clock.after_block(draft.timestamp);
        let block = Box::new(draft.seal(vec![mined], diff.commit(self.commitment())));
        self.write(vec![Change::Block { block, diff, clock }])?;
        Ok(hash)
    }

    /// Makes `count` empty blocks, `interval` seconds apart when that is given.
    pub(crate) fn mine(&mut self, count: u64, interval: Option<u64>) -> Result<(), WriteError> {
        if count > MAX_MINED {
            return Err(WriteError::Invalid(format!(
                "cannot mine more than {MAX_MINED} blocks at once"
            )));
        }
        let Some(tip) = self.tip() else { return Ok(()) };
        let (mut parent, mut clock) = (tip.clone(), self.clock);
        let mut commitment = self.commitment();
        let mut changes = Vec::new();
        for made in 0..count {
            let last = parent.header().timestamp;
            if let Some(interval) = interval.filter(|_| made > 0) {
                clock = clock.fix(last.saturating_add(interval.max(1)), last).unwrap_or(clock);
            }
            let draft = Draft::after(&parent, clock.next(last));
            clock = clock.after_block(draft.timestamp);
            let diff = Diff::default();
            commitment = diff.commit(commitment);
            parent = draft.seal(vec![], commitment);
            changes.push(Change::Block {
                block: Box::new(parent.clone()),
                diff,
                clock,
            });
        }
        self.write(changes)
    }

    /// Moves the clock forward by `seconds`; returns the offset from wall time.
    pub(crate) fn advance_time(&mut self, seconds: u64) -> Result<i64, WriteError> {
        let clock = self.clock.advance(seconds, self.last_timestamp());
        let clock = clock.ok_or_else(|| WriteError::Invalid("time out of range".to_owned()))?;
        self.write(vec![Change::Clock { clock }])?;
        Ok(clock.offset())
    }

    /// Fixes the next block's timestamp, in seconds.
    pub(crate) fn fix_time(&mut self, timestamp: u64) -> Result<(), WriteError> {
        let parent = self.last_timestamp();
        let clock = self.clock.fix(timestamp, parent).ok_or_else(|| {
            WriteError::Invalid(format!(
                "timestamp {timestamp} must be greater than the newest block's {parent}"
            ))
        })?;
        self.write(vec![Change::Clock { clock }])
    }

    fn last_timestamp(&self) -> u64 {
        self.tip().map_or(0, |tip| tip.header().timestamp)
    }

    /// Sets an account's balance, in wei.
    pub(crate) fn set_balance(&mut self, address: Address, balance: U256) -> Result<(), WriteError> {
        self.patch_account(address, |account| account.balance = balance, None)
    }

    /// Sets an account's nonce.
    pub(crate) fn set_nonce(&mut self, address: Address, nonce: u64) -> Result<(), WriteError> {
        self.patch_account(address, |account| account.nonce = nonce, None)
    }

    /// Sets an account's code.
    pub(crate) fn set_code(&mut self, address: Address, code: Bytes) -> Result<(), WriteError> {
        let hash = keccak256(&code);
        self.patch_account(address, |account| account.code_hash = hash, Some(code))
    }

    /// Sets one storage slot of an account.
    pub(crate) fn set_slot(&mut self, address: Address, slot: U256, value: U256) -> Result<(), WriteError> {
        let mut diff = Diff::default();
        diff.set_slot(&self.state, address, slot, value);
        self.write(vec![Change::Patch { diff }])
    }

    fn patch_account(
        &mut self,
        address: Address,
        change: impl FnOnce(&mut Account),
        code: Option<Bytes>,
    ) -> Result<(), WriteError> {
        let mut account = self.state.account(&address).copied().unwrap_or_default();
        change(&mut account);
        let mut diff = Diff {
            codes: code.into_iter().collect(),
            ..Diff::default()
        };
        diff.set_account(&self.state, address, account);
        self.write(vec![Change::Patch { diff }])
    }

    /// Remembers the present point; returns the id to revert to.
    pub(crate) fn snapshot(&mut self) -> u64 {
        let id = self.next_snapshot;
        self.next_snapshot = id.saturating_add(1);
        self.snapshots.push(Snapshot {
            id,
            kept: self.entries.len(),
            clock: self.clock,
        });
        id
    }

    /// Goes back to a snapshot, which is used up together with all later ones. Returns whether it was known.
    pub(crate) fn revert(&mut self, id: u64) -> Result<bool, WriteError> {
        let Some(position) = self.snapshots.iter().position(|snapshot| snapshot.id == id) else {
            return Ok(false);
        };
        let Some(snapshot) = self.snapshots.get(position) else {
            return Ok(false);
        };
        let kept = u64::try_from(snapshot.kept).unwrap_or(u64::MAX);
        self.write(vec![Change::Revert {
            kept,
            clock: snapshot.clock,
        }])?;
        self.snapshots.truncate(position);
        Ok(true)
    }

    /// Gives up the journal and the data directory; every later write is refused.
    pub(crate) fn close(&mut self) {
        self.closed = true;
        self.journal = None;
        self.directory = None;
    }

    /// The only way into the chain: journal first, memory second.
    fn write(&mut self, changes: Vec<Change>) -> Result<(), WriteError> {
        if self.closed {
            return Err(Error::JournalClosed {
                reason: "the chain was stopped".to_owned(),
            }
            .into());
        }
        if let Some(journal) = &mut self.journal {
            let payloads = changes.iter().map(Change::encode).collect::<Result<Vec<_>, _>>();
            let payloads = payloads.map_err(|reason| WriteError::Invalid(format!("not recordable: {reason}")))?;
            journal.append(&payloads)?;
        }
        for change in changes {
            self.apply(change);
        }
        Ok(())
    }
}
