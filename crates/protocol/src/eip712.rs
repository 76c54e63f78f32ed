//! EIP-712: typed data is hashed the same way here, in Solidity, and in a wallet that shows it.

use std::{cell::Cell, sync::OnceLock};

use serde::{Deserialize, Serialize};

use crate::{
    Address, Digest,
    hash::{Words, keccak256},
};

/// The signing domain: signatures of one chain and escrow are void on every other.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Domain {
    /// The chain's id (EIP-155).
    pub chain_id: u64,
    /// The escrow contract.
    pub escrow: Address,
}

/// What the domain's name says.
pub const NAME: &str = "Rialto";

/// The version of the signed structures.
pub const VERSION: &str = "1";

/// The type of every domain.
pub(crate) static DOMAIN_TYPE: Type =
    Type::new("EIP712Domain(string name,string version,uint256 chainId,address verifyingContract)");

thread_local! {
    /// The domain that was used last, and its separator: a process trades in one.
    static SEPARATOR: Cell<Option<(Domain, [u8; 32])>> = const { Cell::new(None) };
}

/// A structure's type, as `encodeType` writes it. Its hash, with which the hash of every such structure begins, is computed
/// once.
pub(crate) struct Type {
    name: &'static str,
    hash: OnceLock<[u8; 32]>,
}

impl Type {
    pub(crate) const fn new(name: &'static str) -> Self {
        Self {
            name,
            hash: OnceLock::new(),
        }
    }

    /// The beginning of `encodeData`.
    pub(crate) fn words(&self) -> Words {
        Words::new().right(self.hash.get_or_init(|| keccak256(&[self.name.as_bytes()])))
    }
}

impl Domain {
    /// The domain separator of EIP-712.
    pub fn separator(&self) -> [u8; 32] {
        if let Some((domain, separator)) = SEPARATOR.get()
            && domain == *self
        {
            return separator;
        }
        let separator = DOMAIN_TYPE
            .words()
            .right(&keccak256(&[NAME.as_bytes()]))
            .right(&keccak256(&[VERSION.as_bytes()]))
            .uint(self.chain_id.into())
            .left(&self.escrow.0)
            .keccak();
        SEPARATOR.set(Some((*self, separator)));
        separator
    }

    /// The digest that is signed for a structure with this hash.
    pub fn digest(&self, struct_hash: &[u8; 32]) -> Digest {
        Digest(keccak256(&[&[0x19, 0x01], &self.separator(), struct_hash]))
    }
}
