//! What payers sign for others to send: the escrow's orders, the token's permits and authorizations, hashed by EIP-712
//! as wallets do.

use rialto_protocol::{
    Address, ChannelId, ChannelParams, Digest, Domain, Signature, SigningKey,
    hash::{Words, keccak256},
};

use crate::evm::CHAIN_ID;

fn type_hash(text: &str) -> Words {
    Words::new().right(&keccak256(&[text.as_bytes()]))
}

/// The escrow's `Open`.
pub(crate) fn open(domain: &Domain, params: &ChannelParams, amount: u128, deadline: u64) -> Digest {
    let text = "Open(address payer,address signer,address provider,bytes32 modelId,uint96 salt,uint96 amount,uint256 deadline)";
    let words = type_hash(text)
        .left(&params.payer.0)
        .left(&params.signer.0)
        .left(&params.provider.0)
        .right(&params.model.0);
    domain.digest(&words.uint(params.salt).uint(amount).uint(deadline.into()).keccak())
}

/// The escrow's `RequestClose`.
pub(crate) fn request_close(domain: &Domain, channel: ChannelId, nonce: u64, deadline: u64) -> Digest {
    let words = type_hash("RequestClose(bytes32 channelId,uint256 nonce,uint256 deadline)");
    domain.digest(
        &words
            .right(&channel.0)
            .uint(nonce.into())
            .uint(deadline.into())
            .keccak(),
    )
}

/// The escrow's `Withdraw`.
pub(crate) fn withdraw(domain: &Domain, payer: Address, amount: u128, nonce: u64, deadline: u64) -> Digest {
    let words = type_hash("Withdraw(address payer,uint96 amount,uint256 nonce,uint256 deadline)").left(&payer.0);
    domain.digest(&words.uint(amount).uint(nonce.into()).uint(deadline.into()).keccak())
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
    let domain = type_hash("EIP712Domain(string name,string version,uint256 chainId,address verifyingContract)")
        .right(&keccak256(&[b"Rialto Test Dollar"]))
        .right(&keccak256(&[b"1"]))
        .uint(CHAIN_ID.into())
        .left(&token.0)
        .keccak();
    Digest(keccak256(&[&[0x19, 0x01], &domain, struct_hash]))
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
