//! Beginning a chain, or rebuilding it from its journal.

use super::{Chain, index::Index};
use crate::{
    account,
    block::Draft,
    change::Change,
    clock::{self, Clock},
    diff::{Account, Diff},
    error::Error,
    journal::{Directory, Journal, Opened},
    state::State,
};
use std::path::Path;

impl Chain {
    /// A new chain that is kept in memory only.
    pub(crate) fn in_memory(chain_id: u64) -> Self {
        let mut chain = Self::empty(chain_id);
        chain.apply(genesis());
        chain
    }

    /// The chain kept in the directory `path`, or a new one when there is none.
    ///
    /// # Errors
    /// When the directory is locked or unreadable, the journal is damaged before its last record, or it belongs
    /// to a chain with another id.
    pub(crate) fn open(path: &Path, chain_id: u64) -> Result<Self, Error> {
        let directory = Directory::lock(path)?;
        let file = directory.journal();
        let mut chain = match Journal::open(&file, chain_id)? {
            Some(opened) => Self::replay(opened, chain_id, &file)?,
            None => {
                let mut chain = Self::in_memory(chain_id);
                chain.rewrite(&file)?;
                chain
            }
        };
        chain.directory = Some(directory);
        Ok(chain)
    }

    fn empty(chain_id: u64) -> Self {
        Self {
            chain_id,
            state: State::default(),
            blocks: vec![],
            entries: vec![],
            index: Index::default(),
            clock: Clock::default(),
            snapshots: vec![],
            next_snapshot: 0,
            journal: None,
            directory: None,
            closed: false,
            torn: None,
        }
    }

    fn replay(opened: Opened, chain_id: u64, file: &Path) -> Result<Self, Error> {
        let mut chain = Self::empty(chain_id);
        let mut reverted = false;
        for (offset, payload) in opened.records {
            let corrupted = |reason: String| Error::JournalCorrupted {
                path: file.to_owned(),
                offset,
                reason,
            };
            let change = Change::decode(&payload).map_err(corrupted)?;
            reverted |= matches!(change, Change::Revert { .. });
            chain.check(&change).map_err(|reason| corrupted(reason.to_owned()))?;
            chain.apply(change);
        }
        chain.torn = opened.torn;
        chain.journal = Some(opened.journal);
        if reverted {
            // Reverted blocks would be read and thrown away at every start.
            chain.rewrite(file)?;
        }
        tracing::info!(height = chain.height(), reverted, "chain loaded from its journal");
        Ok(chain)
    }

    /// Whether a change read from the journal can follow what was read before it.
    fn check(&self, change: &Change) -> Result<(), &'static str> {
        match change {
            Change::Block { block, diff, .. } => {
                block.check(self.tip())?;
                if !self.state.precedes(diff) {
                    return Err("block does not begin where the state stands");
                }
                if block.header().state_root != diff.commit(self.commitment()) {
                    return Err("state commitment does not match the header");
                }
                Ok(())
            }
            _ if self.blocks.is_empty() => Err("the first record is no block"),
            Change::Patch { diff } if !self.state.precedes(diff) => Err("patch does not begin where the state stands"),
            Change::Revert { kept, .. } => {
                let kept = usize::try_from(*kept).unwrap_or(usize::MAX);
                let known = (1..=self.entries.len()).contains(&kept);
                known.then_some(()).ok_or("revert to a point that never was")
            }
            Change::Patch { .. } | Change::Clock { .. } => Ok(()),
        }
    }

    /// Writes a fresh journal of what the chain is now, in place of an older one.
    fn rewrite(&mut self, file: &Path) -> Result<(), Error> {
        // Dropped first: on some systems an open file cannot be replaced.
        self.journal = None;
        let mut blocks = self.blocks.iter();
        let mut payloads = Vec::with_capacity(self.entries.len() + 1);
        for entry in &self.entries {
            let diff = entry.diff.clone();
            let change = match entry.is_block.then(|| blocks.next()).flatten() {
                Some(block) => Change::Block {
                    block: Box::new(block.clone()),
                    diff,
                    clock: self.clock,
                },
                None => Change::Patch { diff },
            };
            payloads.push(change.encode());
        }
        payloads.push(Change::Clock { clock: self.clock }.encode());
        let payloads = payloads.into_iter().collect::<Result<Vec<_>, _>>();
        let payloads = payloads.map_err(|reason| Error::JournalClosed { reason })?;
        self.journal = Some(Journal::create(file, self.chain_id, payloads.into_iter())?);
        Ok(())
    }
}

/// The first block: ten funded accounts and nothing else.
fn genesis() -> Change {
    let state = State::default();
    let mut diff = Diff::default();
    for address in account::addresses() {
        diff.set_account(
            &state,
            address,
            Account {
                balance: account::FUNDS,
                ..Account::default()
            },
        );
    }
    diff.sort();
    let commitment = diff.commit(Default::default());
    let block = Draft::genesis(clock::wall()).seal(vec![], commitment);
    let block = Box::new(block);
    Change::Block {
        block,
        diff,
        clock: Clock::default(),
    }
}
