//! Receipts: the provider's signed account of one request. Settlement, audits, statistics and the console read these;
//! there is no second source of truth.

use serde::{Deserialize, Serialize};

use crate::{
    Address, ChannelId, Digest, Domain, ModelId, NanoDollars, ReceiptsHead, Region, RequestId, Signature, SigningKey,
    Usage, eip712::Type, hash::keccak256, signature::SignatureError,
};

static TYPE: Type = Type::new(
    "Receipt(bytes32 channelId,uint64 sequence,bytes32 requestId,bytes32 modelId,bytes32 requestHash,\
bytes32 responseHash,uint64 inputUnits,uint64 outputUnits,uint128 costNano,uint128 totalNano,uint8 status,\
uint64 finishedAt,bytes8 region,uint64 energyMillijoules,bytes32 fingerprintRoot,bytes32 previousHead)",
);

/// How a request ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[repr(u8)]
pub enum ReceiptStatus {
    /// The answer is whole.
    Complete = 0,
    /// The buyer cancelled or went away; what had been delivered is billed.
    Cancelled = 1,
    /// The provider failed; what had been delivered is billed.
    Failed = 2,
    /// Written after a restart for a request that a crash cut off.
    Interrupted = 3,
}

/// What one request was, and what it cost. Field order and types are those of the EIP-712 structure.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Receipt {
    /// The channel that pays.
    pub channel: ChannelId,
    /// Counts from 1 in each channel. Two receipts with one number are proof of fraud.
    pub sequence: u64,
    /// The buyer's id of the request.
    pub request: RequestId,
    /// The model that answered.
    pub model: ModelId,
    /// [`crate::job::Job::hash`].
    pub request_hash: Digest,
    /// [`crate::output::ResponseHasher`] over what was delivered.
    pub response_hash: Digest,
    /// Units billed.
    pub usage: Usage,
    /// What this request cost.
    pub cost: NanoDollars,
    /// What all requests of the channel cost up to and with this one.
    pub total: NanoDollars,
    /// How it ended.
    pub status: ReceiptStatus,
    /// Seconds since 1970, by the provider's clock.
    pub finished_at: u64,
    /// Where it was computed, as the provider declares.
    pub region: Region,
    /// Energy used in millijoules; zero when it is not known.
    pub energy_millijoules: u64,
    /// Root of the fingerprint tree; zero when the engine makes none.
    pub fingerprint_root: Digest,
    /// The head before this receipt.
    pub previous_head: ReceiptsHead,
}

impl Receipt {
    /// `hashStruct` of EIP-712.
    pub fn struct_hash(&self) -> [u8; 32] {
        TYPE.words()
            .right(&self.channel.0)
            .uint(self.sequence.into())
            .right(&self.request.0)
            .right(&self.model.0)
            .right(&self.request_hash.0)
            .right(&self.response_hash.0)
            .uint(self.usage.input.into())
            .uint(self.usage.output.into())
            .uint(self.cost.0)
            .uint(self.total.0)
            .uint((self.status as u8).into())
            .uint(self.finished_at.into())
            .right(&self.region.0)
            .uint(self.energy_millijoules.into())
            .right(&self.fingerprint_root.0)
            .right(&self.previous_head.0)
            .keccak()
    }

    /// The digest that the provider signs.
    pub fn digest(&self, domain: &Domain) -> Digest {
        domain.digest(&self.struct_hash())
    }

    /// The channel's head after this receipt.
    pub fn head(&self) -> ReceiptsHead {
        ReceiptsHead(keccak256(&[&self.previous_head.0, &self.struct_hash()]))
    }

    /// Signs with the provider's key.
    pub fn sign(self, domain: &Domain, key: &SigningKey) -> SignedReceipt {
        SignedReceipt {
            signature: key.sign(&self.digest(domain)),
            receipt: self,
        }
    }
}

/// A receipt with the provider's signature.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct SignedReceipt {
    /// What was signed.
    pub receipt: Receipt,
    /// By the channel's provider.
    pub signature: Signature,
}

impl SignedReceipt {
    /// Verifies that the channel's provider signed it.
    pub fn verify(&self, domain: &Domain, provider: Address) -> Result<(), SignatureError> {
        let key = self.signature.recover(&self.receipt.digest(domain))?;
        if key.address() == provider {
            Ok(())
        } else {
            Err(SignatureError::WrongSigner)
        }
    }
}
