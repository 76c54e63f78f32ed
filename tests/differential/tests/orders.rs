//! What payers sign for others to send: the escrow's orders, the token's permits and authorizations, hashed by EIP-712
//! as wallets do.

use rialto_protocol::{
    Address, Digest, Domain, Signature, SigningKey,
    hash::{Words, keccak256},
    order::{Order, TokenDomain},
};

use crate::evm::CHAIN_ID;

fn type_hash(text: &str) -> Words {
    Words::new().right(&keccak256(&[text.as_bytes()]))
}

/// The token's domain, as production knows it.
fn token_domain(token: Address) -> TokenDomain {
    TokenDomain {
        name: "Rialto Test Dollar".into(),
        version: "1".into(),
        chain_id: CHAIN_ID,
        token,
    }
}

/// The digest of an order, by the code of production.
pub(crate) fn digest(order: &Order, domain: &Domain, token: Address) -> Digest {
    order.digest(domain, &token_domain(token))
}

/// The nonce of an authorization that is for a deposit.
pub(crate) fn deposit_nonce(payer: Address, salt: &[u8; 32]) -> [u8; 32] {
    type_hash("Deposit(address payer,bytes32 salt)")
        .left(&payer.0)
        .right(salt)
        .keccak()
}

/// The token's digest of a structure.
fn token_digest(token: Address, struct_hash: &[u8; 32]) -> Digest {
    let separator = token_domain(token).separator();
    Digest(keccak256(&[&[0x19, 0x01], &separator, struct_hash]))
}

/// A permit of the token (ERC-2612).
pub(crate) struct Permit {
    pub(crate) owner: Address,
    pub(crate) spender: Address,
    pub(crate) amount: u128,
    pub(crate) nonce: u64,
    pub(crate) deadline: u64,
}

impl Permit {
    pub(crate) fn digest(&self, token: Address) -> Digest {
        let text = "Permit(address owner,address spender,uint256 value,uint256 nonce,uint256 deadline)";
        let words = type_hash(text).left(&self.owner.0).left(&self.spender.0);
        let words = words
            .uint(self.amount)
            .uint(self.nonce.into())
            .uint(self.deadline.into());
        token_digest(token, &words.keccak())
    }
}

/// A `ReceiveWithAuthorization` of the token (ERC-3009).
pub(crate) struct Authorization {
    pub(crate) from: Address,
    pub(crate) to: Address,
    pub(crate) amount: u128,
    pub(crate) after: u64,
    pub(crate) before: u64,
    pub(crate) nonce: [u8; 32],
}

impl Authorization {
    pub(crate) fn digest(&self, token: Address) -> Digest {
        let text = "ReceiveWithAuthorization(address from,address to,uint256 value,uint256 validAfter,uint256 validBefore,bytes32 nonce)";
        let words = type_hash(text).left(&self.from.0).left(&self.to.0).uint(self.amount);
        let words = words
            .uint(self.after.into())
            .uint(self.before.into())
            .right(&self.nonce);
        token_digest(token, &words.keccak())
    }
}

/// A signature as it is sent: `r`, `s`, and `v` of 27 or 28.
pub(crate) fn sign(key: &SigningKey, digest: &Digest) -> [u8; 65] {
    key.sign(digest).to_bytes()
}

/// Who made a signature, by the rules of production; `None` for one that nobody made.
pub(crate) fn recover(signature: &[u8; 65], digest: &Digest) -> Option<Address> {
    // `ecrecover` knows no other `v`.
    if !matches!(signature.last(), Some(27 | 28)) {
        return None;
    }
    let signature = Signature::from_bytes(signature).ok()?;
    signature.recover(digest).ok().map(|key| key.address())
}
