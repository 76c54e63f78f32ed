//! The state as of one block, for the EVM and for readers.

use crate::{
    block::Block,
    diff::{Account, Diff},
    state::State,
};
use alloy::primitives::{Address, B256, U256, map::HashMap};
use revm::{
    DatabaseRef,
    state::{AccountInfo, Bytecode},
};
use std::convert::Infallible;

/// How many blocks back the `BLOCKHASH` instruction sees.
const BLOCK_HASH_WINDOW: u64 = 256;

/// The state as it was at one block: the present state, with later changes taken back.
#[derive(Debug)]
pub(crate) struct View<'a> {
    state: &'a State,
    blocks: &'a [Block],
    accounts: HashMap<Address, Option<Account>>,
    slots: HashMap<(Address, U256), U256>,
}

impl<'a> View<'a> {
    /// The present state. `blocks` are all blocks that `BLOCKHASH` may see.
    pub(crate) fn latest(state: &'a State, blocks: &'a [Block]) -> Self {
        Self {
            state,
            blocks,
            accounts: HashMap::default(),
            slots: HashMap::default(),
        }
    }

    /// The state before `later` changes, which are given newest first.
    pub(crate) fn before<'d>(state: &'a State, blocks: &'a [Block], later: impl Iterator<Item = &'d Diff>) -> Self {
        let mut view = Self::latest(state, blocks);
        for diff in later {
            for change in &diff.accounts {
                view.accounts.insert(change.address, change.before);
            }
            for change in &diff.slots {
                view.slots.insert((change.address, change.slot), change.before);
            }
        }
        view
    }

    /// The account at `address`; an unused one when there is none.
    pub(crate) fn account(&self, address: &Address) -> Account {
        self.find(address).unwrap_or_default()
    }

    fn find(&self, address: &Address) -> Option<Account> {
        match self.accounts.get(address) {
            Some(account) => *account,
            None => self.state.account(address).copied(),
        }
    }

    /// The value of a storage slot.
    pub(crate) fn slot(&self, address: &Address, slot: &U256) -> U256 {
        self.slots
            .get(&(*address, *slot))
            .copied()
            .unwrap_or_else(|| self.state.slot(address, slot))
    }

    /// The code at `address`; empty for an account without code.
    pub(crate) fn code(&self, address: &Address) -> Bytecode {
        self.state
            .code(&self.account(address).code_hash)
            .cloned()
            .unwrap_or_default()
    }
}

impl DatabaseRef for View<'_> {
    type Error = Infallible;

    fn basic_ref(&self, address: Address) -> Result<Option<AccountInfo>, Infallible> {
        Ok(self.find(&address).map(|account| AccountInfo {
            balance: account.balance,
            nonce: account.nonce,
            code_hash: account.code_hash,
            // Code is asked for by hash, and only when it runs.
            code: None,
            ..AccountInfo::default()
        }))
    }

    fn code_by_hash_ref(&self, code_hash: B256) -> Result<Bytecode, Infallible> {
        Ok(self.state.code(&code_hash).cloned().unwrap_or_default())
    }

    fn storage_ref(&self, address: Address, slot: U256) -> Result<U256, Infallible> {
        Ok(self.slot(&address, &slot))
    }

    fn block_hash_ref(&self, number: u64) -> Result<B256, Infallible> {
        let known = u64::try_from(self.blocks.len()).unwrap_or(u64::MAX);
        let block = usize::try_from(number).ok().and_then(|index| self.blocks.get(index));
        let near = known.saturating_sub(number) <= BLOCK_HASH_WINDOW;
        Ok(block.filter(|_| near).map(Block::hash).unwrap_or_default())
    }
}
