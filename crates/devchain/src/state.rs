//! Accounts, storage and code as they are now.

use crate::diff::{Account, Diff};
use alloy::primitives::{Address, B256, Bytes, U256, map::HashMap};
use revm::state::Bytecode;

/// The chain's present state, held in memory.
#[derive(Debug, Default)]
pub(crate) struct State {
    accounts: HashMap<Address, Account>,
    storage: HashMap<Address, HashMap<U256, U256>>,
    codes: HashMap<B256, Bytecode>,
}

impl State {
    /// The account at `address`, if it was ever used.
    pub(crate) fn account(&self, address: &Address) -> Option<&Account> {
        self.accounts.get(address)
    }

    /// The value of a storage slot; zero when it was never written.
    pub(crate) fn slot(&self, address: &Address, slot: &U256) -> U256 {
        self.storage
            .get(address)
            .and_then(|slots| slots.get(slot))
            .copied()
            .unwrap_or_default()
    }

    /// All non-zero slots of an account, in no order.
    pub(crate) fn slots(&self, address: &Address) -> impl Iterator<Item = (&U256, &U256)> {
        self.storage.get(address).into_iter().flatten()
    }

    /// Code by its hash; nothing for an unknown hash or the hash of nothing.
    pub(crate) fn code(&self, hash: &B256) -> Option<&Bytecode> {
        self.codes.get(hash)
    }

    /// Whether code with this hash is kept.
    pub(crate) fn has_code(&self, hash: &B256) -> bool {
        self.codes.contains_key(hash)
    }

    /// Plays a change forwards.
    pub(crate) fn apply(&mut self, diff: &Diff) {
        for code in &diff.codes {
            self.insert_code(code);
        }
        for change in &diff.accounts {
            self.put_account(change.address, change.after);
        }
        for change in &diff.slots {
            self.put_slot(change.address, change.slot, change.after);
        }
    }

    /// Plays a change backwards. It must be the change applied last.
    pub(crate) fn undo(&mut self, diff: &Diff) {
        for change in &diff.accounts {
            self.put_account(change.address, change.before);
        }
        for change in &diff.slots {
            self.put_slot(change.address, change.slot, change.before);
        }
    }

    /// Whether `diff` begins where this state stands; a journal that was tampered with does not.
    pub(crate) fn precedes(&self, diff: &Diff) -> bool {
        diff.accounts
            .iter()
            .all(|change| self.account(&change.address).copied() == change.before)
            && diff
                .slots
                .iter()
                .all(|change| self.slot(&change.address, &change.slot) == change.before)
    }

    fn insert_code(&mut self, code: &Bytes) {
        // A journal may hold any bytes, so an unreadable delegation is kept as plain code that does nothing.
        let bytecode = Bytecode::new_raw_checked(code.clone()).unwrap_or_else(|_| Bytecode::new_legacy(code.clone()));
        self.codes.insert(alloy::primitives::keccak256(code), bytecode);
    }

    fn put_account(&mut self, address: Address, account: Option<Account>) {
        match account {
            Some(account) => self.accounts.insert(address, account),
            None => self.accounts.remove(&address),
        };
    }

    fn put_slot(&mut self, address: Address, slot: U256, value: U256) {
        if value.is_zero() {
            if let Some(slots) = self.storage.get_mut(&address) {
                slots.remove(&slot);
                if slots.is_empty() {
                    self.storage.remove(&address);
                }
            }
        } else {
            self.storage.entry(address).or_default().insert(slot, value);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloy::primitives::{address, keccak256};
    use proptest::prelude::*;

    const A: Address = address!("00000000000000000000000000000000000000aa");

    fn account(balance: u64) -> Account {
        Account {
            balance: U256::from(balance),
            ..Account::default()
        }
    }

    #[test]
    fn an_emptied_account_and_slot_leave_nothing_behind() {
        let mut state = State::default();
        let mut diff = Diff::default();
        diff.set_account(&state, A, account(5));
        diff.set_slot(&state, A, U256::from(1), U256::from(7));
        state.apply(&diff);
        assert_eq!(state.slot(&A, &U256::from(1)), U256::from(7));

        let mut clear = Diff::default();
        clear.set_account(&state, A, Account::default());
        clear.set_slot(&state, A, U256::from(1), U256::ZERO);
        state.apply(&clear);
        assert!(state.accounts.is_empty() && state.storage.is_empty());
    }

    #[test]
    fn code_is_found_by_its_hash() {
        let mut state = State::default();
        let code = Bytes::from_static(&[0x60, 0x00]);
        state.apply(&Diff {
            codes: vec![code.clone()],
            ..Diff::default()
        });
        assert_eq!(state.code(&keccak256(&code)).unwrap().original_bytes(), code);
    }

    proptest! {
        #[test]
        fn undoing_every_change_restores_the_start(steps in prop::collection::vec((0u8..4, 0u64..3, 0u64..3), 1..40)) {
            let mut state = State::default();
            let mut diffs = Vec::new();
            let mut seen = Vec::new();
            for (who, balance, value) in steps {
                let address = Address::with_last_byte(who);
                let mut diff = Diff::default();
                diff.set_account(&state, address, account(balance));
                diff.set_slot(&state, address, U256::from(who), U256::from(value));
                diff.sort();
                prop_assert!(state.precedes(&diff));
                seen.push((state.accounts.clone(), state.storage.clone()));
                state.apply(&diff);
                diffs.push(diff);
            }
            for (diff, (accounts, storage)) in diffs.iter().zip(seen).rev() {
                state.undo(diff);
                prop_assert_eq!(&state.accounts, &accounts);
                prop_assert_eq!(&state.storage, &storage);
            }
            prop_assert!(state.accounts.is_empty() && state.storage.is_empty());
        }
    }
}
