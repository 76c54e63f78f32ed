//! EIP-712: typed data is hashed the same way here, in Solidity, and in a wallet that shows it.

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

const DOMAIN_TYPE: &str = "EIP712Domain(string name,string version,uint256 chainId,address verifyingContract)";

impl Domain {
    /// The domain separator of EIP-712.
    pub fn separator(&self) -> [u8; 32] {
        Words::new()
            .right(&keccak256(&[DOMAIN_TYPE.as_bytes()]))
            .right(&keccak256(&[NAME.as_bytes()]))
            .right(&keccak256(&[VERSION.as_bytes()]))
            .uint(self.chain_id.into())
            .left(&self.escrow.0)
            .keccak()
    }

    /// The digest that is signed for a structure with this hash.
    pub fn digest(&self, struct_hash: &[u8; 32]) -> Digest {
        Digest(keccak256(&[&[0x19, 0x01], &self.separator(), struct_hash]))
    }
}
