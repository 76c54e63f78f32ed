//! The stablecoin: balances, allowances to the escrow, permits and authorizations.

use std::collections::{BTreeMap, BTreeSet};

use alloy::{
    primitives::{B256, U256, b256},
    sol,
    sol_types::SolError as _,
};
use rialto_protocol::{Address, Digest};

use super::{Refusal, refuse};
use crate::{
    abi::Token as Abi,
    ops::evm,
    orders::{Authorization, Permit, recover},
};

sol! {
    error ECDSAInvalidSignature();
    error ECDSAInvalidSignatureS(bytes32 s);
}

/// The largest `s` of a signature in its one accepted form.
const HALF_ORDER: B256 = b256!("7fffffffffffffffffffffffffffffff5d576e7357a4501ddfe92f46681b20a0");

#[derive(Debug, Clone)]
pub(crate) struct Token {
    /// The contract.
    pub(crate) address: Address,
    /// The only spender there is.
    pub(crate) escrow: Address,
    pub(crate) balances: BTreeMap<Address, u128>,
    pub(crate) allowances: BTreeMap<Address, U256>,
    /// Of permits.
    pub(crate) nonces: BTreeMap<Address, u64>,
    /// Authorizations that were used.
    pub(crate) used: BTreeSet<(Address, [u8; 32])>,
}

impl Token {
    pub(crate) fn balance(&self, account: Address) -> u128 {
        self.balances.get(&account).copied().unwrap_or_default()
    }

    pub(crate) fn nonce(&self, account: Address) -> u64 {
        self.nonces.get(&account).copied().unwrap_or_default()
    }

    pub(crate) fn approve(&mut self, owner: Address, amount: U256) {
        self.allowances.insert(owner, amount);
    }

    /// Moves money.
    pub(crate) fn transfer(&mut self, from: Address, to: Address, amount: u128) -> Result<(), Refusal> {
        let balance = self.balance(from);
        let Some(left) = balance.checked_sub(amount) else {
            return refuse(&Abi::ERC20InsufficientBalance {
                sender: evm(from),
                balance: U256::from(balance),
                needed: U256::from(amount),
            });
        };
        self.balances.insert(from, left);
        *self.balances.entry(to).or_default() += amount;
        Ok(())
    }

    /// The escrow takes what it is allowed to.
    pub(crate) fn pull(&mut self, from: Address, amount: u128) -> Result<(), Refusal> {
        let allowance = self.allowances.get(&from).copied().unwrap_or_default();
        if allowance != U256::MAX {
            let Some(left) = allowance.checked_sub(U256::from(amount)) else {
                return refuse(&Abi::ERC20InsufficientAllowance {
                    spender: evm(self.escrow),
                    allowance,
                    needed: U256::from(amount),
                });
            };
            self.allowances.insert(from, left);
        }
        self.transfer(from, self.escrow, amount)
    }

    /// Whether a permit for the escrow was good; then it is in force.
    pub(crate) fn permit(
        &mut self,
        owner: Address,
        amount: u128,
        deadline: u64,
        signature: &[u8; 65],
        now: u64,
    ) -> bool {
        let permit = Permit {
            owner,
            spender: self.escrow,
            amount,
            nonce: self.nonce(owner),
            deadline,
        };
        let good = now <= deadline && recover(signature, &permit.digest(self.address)) == Some(owner);
        if good {
            *self.nonces.entry(owner).or_default() += 1;
            self.approve(owner, U256::from(amount));
        }
        good
    }

    /// The escrow receives by an authorization.
    pub(crate) fn receive(
        &mut self,
        authorization: &Authorization,
        signature: &[u8; 65],
        now: u64,
    ) -> Result<(), Refusal> {
        let Authorization {
            from,
            amount,
            after,
            before,
            nonce,
            ..
        } = *authorization;
        if recovered(signature, &authorization.digest(self.address))? != from {
            return refuse(&Abi::ERC3009InvalidSignature {});
        }
        if now <= after || now >= before {
            let (after, before) = (U256::from(after), U256::from(before));
            return refuse(&Abi::ERC3009InvalidAuthorizationTime {
                validAfter: after,
                validBefore: before,
            });
        }
        if !self.used.insert((from, nonce)) {
            return refuse(&Abi::ERC3009UsedAuthorization {
                authorizer: evm(from),
                nonce: nonce.into(),
            });
        }
        self.transfer(from, self.escrow, amount)
    }
}

/// Who signed, or how the token's library says that nobody did.
fn recovered(signature: &[u8; 65], digest: &Digest) -> Result<Address, Refusal> {
    let s = B256::from_slice(&signature[32..64]);
    if s > HALF_ORDER {
        return refuse(&ECDSAInvalidSignatureS { s });
    }
    recover(signature, digest).ok_or_else(|| ECDSAInvalidSignature {}.abi_encode().into())
}
