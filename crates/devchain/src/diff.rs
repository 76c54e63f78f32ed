//! A reversible change of the state: what one block, or one test control, did.
//!
//! A diff holds every touched value as it was and as it became. Played forwards it rebuilds the state from the
//! journal without running the EVM; played backwards it undoes blocks (`evm_revert`) and answers questions about
//! older blocks.

use crate::state::State;
use alloy::primitives::{Address, B256, Bytes, U256, keccak256};
use revm::{primitives::KECCAK_EMPTY, state::EvmState};
use serde::{Deserialize, Serialize};

/// An account as the state keeps it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Account {
    /// Wei.
    pub(crate) balance: U256,
    /// Transactions sent, or contracts created.
    pub(crate) nonce: u64,
    /// Keccak-256 of the code; the hash of nothing for an account without code.
    pub(crate) code_hash: B256,
}

impl Default for Account {
    fn default() -> Self {
        Self {
            balance: U256::ZERO,
            nonce: 0,
            code_hash: KECCAK_EMPTY,
        }
    }
}

impl Account {
    /// Whether the account equals one that was never used (EIP-161); such accounts are not kept.
    pub(crate) fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

/// One account before and after.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct AccountChange {
    pub(crate) address: Address,
    pub(crate) before: Option<Account>,
    pub(crate) after: Option<Account>,
}

/// One storage slot before and after; zero means absent.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct SlotChange {
    pub(crate) address: Address,
    pub(crate) slot: U256,
    pub(crate) before: U256,
    pub(crate) after: U256,
}

/// Everything that changed, in a fixed order, so that equal changes have equal bytes.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Diff {
    pub(crate) accounts: Vec<AccountChange>,
    pub(crate) slots: Vec<SlotChange>,
    /// Code seen for the first time. Never undone: code is found by its hash, so spare code is harmless.
    pub(crate) codes: Vec<Bytes>,
}

impl Diff {
    /// The change that the EVM's result makes to `state`.
    pub(crate) fn from_execution(state: &State, result: &EvmState) -> Self {
        let mut diff = Self::default();
        for (address, account) in result.iter().filter(|(_, account)| account.is_touched()) {
            if account.is_selfdestructed() {
                diff.remove_account(state, *address);
                continue;
            }
            let after = Account {
                balance: account.info.balance,
                nonce: account.info.nonce,
                code_hash: account.info.code_hash,
            };
            diff.set_account(state, *address, after);
            if let Some(code) = &account.info.code
                && after.code_hash != KECCAK_EMPTY
                && !state.has_code(&after.code_hash)
            {
                diff.codes.push(code.original_bytes());
            }
            for (slot, value) in account.changed_storage_slots() {
                diff.set_slot(state, *address, *slot, value.present_value());
            }
        }
        diff.sort();
        diff
    }

    /// Records that `address` becomes `after`, if it is not so already.
    pub(crate) fn set_account(&mut self, state: &State, address: Address, after: Account) {
        let before = state.account(&address).copied();
        let after = (!after.is_empty()).then_some(after);
        if before != after {
            self.accounts.push(AccountChange { address, before, after });
        }
    }

    /// Records that `slot` becomes `after`, if it is not so already.
    pub(crate) fn set_slot(&mut self, state: &State, address: Address, slot: U256, after: U256) {
        let before = state.slot(&address, &slot);
        if before != after {
            self.slots.push(SlotChange {
                address,
                slot,
                before,
                after,
            });
        }
    }

    fn remove_account(&mut self, state: &State, address: Address) {
        self.set_account(state, address, Account::default());
        for (slot, _) in state.slots(&address) {
            self.set_slot(state, address, *slot, U256::ZERO);
        }
    }

    /// Puts the changes into the order that [`Diff::digest`] relies on.
    pub(crate) fn sort(&mut self) {
        self.accounts.sort_unstable_by_key(|change| change.address);
        self.slots.sort_unstable_by_key(|change| (change.address, change.slot));
        self.codes.sort_unstable();
    }

    /// Keccak-256 over a fixed-width encoding of all values after the change.
    fn digest(&self) -> B256 {
        let mut bytes = Vec::with_capacity(self.accounts.len() * 100 + self.slots.len() * 84);
        for change in &self.accounts {
            let after = change.after.unwrap_or_default();
            bytes.push(1);
            bytes.extend_from_slice(change.address.as_slice());
            bytes.extend_from_slice(&after.balance.to_be_bytes::<32>());
            bytes.extend_from_slice(&after.nonce.to_be_bytes());
            bytes.extend_from_slice(after.code_hash.as_slice());
        }
        for change in &self.slots {
            bytes.push(2);
            bytes.extend_from_slice(change.address.as_slice());
            bytes.extend_from_slice(&change.slot.to_be_bytes::<32>());
            bytes.extend_from_slice(&change.after.to_be_bytes::<32>());
        }
        keccak256(bytes)
    }

    /// The commitment after this change: what a header carries in place of a state root.
    ///
    /// A Merkle root would cost a walk over all state for each block. This chains the changes instead: it is
    /// different for different states, and it lets the journal be checked, but it proves no single account.
    pub(crate) fn commit(&self, previous: B256) -> B256 {
        let mut bytes = [0u8; 64];
        let (left, right) = bytes.split_at_mut(32);
        left.copy_from_slice(previous.as_slice());
        right.copy_from_slice(self.digest().as_slice());
        keccak256(bytes)
    }
}
