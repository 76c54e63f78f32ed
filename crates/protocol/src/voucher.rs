//! Vouchers: the buyer's signed, cumulative promise on a channel.

use serde::{Deserialize, Serialize};

use crate::{
    Address, ChannelId, Digest, Domain, MicroDollars, PublicKey, ReceiptsHead, Signature, SigningKey, eip712::Type,
    signature::SignatureError,
};

static TYPE: Type = Type::new("Voucher(bytes32 channelId,uint96 cumulative,bytes32 receiptsHead)");

/// "Of this channel you may take this much in all, and this is what I received for it."
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Voucher {
    /// The channel.
    pub channel: ChannelId,
    /// The total that may be taken since the channel was opened.
    pub cumulative: MicroDollars,
    /// The running hash of the receipts that the buyer acknowledges.
    pub receipts_head: ReceiptsHead,
}

impl Voucher {
    /// `hashStruct` of EIP-712.
    pub fn struct_hash(&self) -> [u8; 32] {
        TYPE.words()
            .right(&self.channel.0)
            .uint(self.cumulative.get())
            .right(&self.receipts_head.0)
            .keccak()
    }

    /// The digest that the session key signs.
    pub fn digest(&self, domain: &Domain) -> Digest {
        domain.digest(&self.struct_hash())
    }

    /// Signs with the channel's session key.
    pub fn sign(self, domain: &Domain, key: &SigningKey) -> SignedVoucher {
        SignedVoucher {
            signature: key.sign(&self.digest(domain)),
            voucher: self,
        }
    }
}

/// A voucher with the session key's signature.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct SignedVoucher {
    /// What was signed.
    pub voucher: Voucher,
    /// By the channel's session key.
    pub signature: Signature,
}

/// Verifies the vouchers of one channel; knows the session key from the first one on.
#[derive(Debug, Clone)]
pub struct VoucherVerifier {
    domain: Domain,
    signer: Address,
    key: Option<PublicKey>,
}

impl VoucherVerifier {
    /// For a channel whose session key has this account.
    pub fn new(domain: Domain, signer: Address) -> Self {
        Self {
            domain,
            signer,
            key: None,
        }
    }

    /// Verifies the signature alone; totals are the account's business.
    pub fn verify(&mut self, signed: &SignedVoucher) -> Result<(), SignatureError> {
        self.verify_digest(&signed.voucher.digest(&self.domain), &signed.signature)
    }

    /// Verifies that the session key signed this digest.
    pub fn verify_digest(&mut self, digest: &Digest, signature: &Signature) -> Result<(), SignatureError> {
        if let Some(key) = &self.key {
            return key.verify(digest, signature);
        }
        let key = signature.recover(digest)?;
        if key.address() != self.signer {
            return Err(SignatureError::WrongSigner);
        }
        self.key = Some(key);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{NodeKey, wire::delegation_digest};

    #[test]
    fn a_verifier_accepts_the_session_key_alone() {
        let domain = Domain {
            chain_id: 31_337,
            escrow: Address([3; 20]),
        };
        let (key, thief) = (
            SigningKey::from_bytes(&[1; 32]).unwrap(),
            SigningKey::from_bytes(&[2; 32]).unwrap(),
        );
        let voucher = Voucher {
            channel: ChannelId([5; 32]),
            cumulative: MicroDollars::new(7),
            receipts_head: ReceiptsHead::default(),
        };
        let mut verifier = VoucherVerifier::new(domain, key.address());
        assert_eq!(
            verifier.verify(&voucher.sign(&domain, &thief)),
            Err(SignatureError::WrongSigner)
        );
        verifier.verify(&voucher.sign(&domain, &key)).unwrap();
        assert_eq!(
            verifier.verify(&voucher.sign(&domain, &thief)),
            Err(SignatureError::WrongSigner)
        );
        // A contract recovers another account from these, and pays nothing for them.
        let mut flipped = voucher.sign(&domain, &key);
        let mut bytes = flipped.signature.to_bytes();
        bytes[64] ^= 7;
        flipped.signature = crate::Signature::from_bytes(&bytes).unwrap();
        for mut verifier in [verifier.clone(), VoucherVerifier::new(domain, key.address())] {
            assert_eq!(verifier.verify(&flipped), Err(SignatureError::WrongSigner));
        }
        let elsewhere = Domain { chain_id: 1, ..domain };
        assert!(verifier.verify(&voucher.sign(&elsewhere, &key)).is_err());
    }

    #[test]
    fn a_delegation_holds_for_its_own_channel_and_node_alone() {
        let domain = Domain {
            chain_id: 31_337,
            escrow: Address([3; 20]),
        };
        let key = SigningKey::from_bytes(&[1; 32]).unwrap();
        let digest = |channel, node| delegation_digest(&domain, ChannelId([channel; 32]), NodeKey([node; 32]));
        let delegation = key.sign(&digest(5, 6));
        // Whether or not the key is known yet.
        let mut verifier = VoucherVerifier::new(domain, key.address());
        for _ in 0..2 {
            assert!(verifier.verify_digest(&digest(4, 6), &delegation).is_err());
            assert!(verifier.verify_digest(&digest(5, 7), &delegation).is_err());
            verifier.verify_digest(&digest(5, 6), &delegation).unwrap();
        }
    }
}
