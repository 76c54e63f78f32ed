//! Stake of providers and royalties of models: what is at risk, what is leaving, and what is taken.

use alloy::primitives::{B256, FixedBytes};
use rialto_protocol::{
    Address, Digest, MicroDollars, ModelId,
    receipt::{Receipt, SignedReceipt},
};
use serde::Serialize;

use crate::{
    Chain, Confirmed, Error, Wallet, abi,
    bindings::{self, Models, Providers},
};

/// Stake that is leaving.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Unstaking {
    /// How much; it no longer stands for new work, and can still be taken for old.
    pub amount: MicroDollars,
    /// From when on it may be taken out, in seconds of the chain; zero if nothing is leaving.
    pub available_at: u64,
}

impl Chain {
    /// What of a provider's stake is leaving.
    pub async fn unstaking_of(&self, account: Address) -> Result<Unstaking, Error> {
        let provider = abi::to_evm(account);
        let leaving = self.providers(&Providers::unstakingOfCall { provider }).await?;
        Ok(Unstaking {
            amount: abi::micro96(leaving.amount)?,
            available_at: abi::seconds(leaving.availableAt),
        })
    }

    /// Seconds between asking for stake and getting it.
    pub async fn unstake_delay(&self) -> Result<u64, Error> {
        let delay = self.providers(&Providers::unstakeDelayCall {}).await?;
        Ok(abi::seconds(delay))
    }

    /// From when on a provider may be frozen, in seconds of the chain; in the past if it may be now.
    pub async fn freezable_from(&self, account: Address) -> Result<u64, Error> {
        let provider = abi::to_evm(account);
        let from = self.providers(&Providers::freezableFromCall { provider }).await?;
        Ok(abi::seconds(from))
    }

    /// Whether stake was taken for an offence; it is taken once.
    pub async fn is_judged(&self, offence: Digest) -> Result<bool, Error> {
        let offence = B256::from(offence.0);
        self.providers(&Providers::isJudgedCall { offence }).await
    }

    /// What an account was credited of stake that was taken from providers, and has not taken out.
    pub async fn stake_credit_of(&self, account: Address) -> Result<MicroDollars, Error> {
        let account = abi::to_evm(account);
        let credit = self.providers(&Providers::creditOfCall { account }).await?;
        abi::micro(credit, "a credit of stake")
    }

    /// Who alone may freeze and slash; zero if nobody may.
    pub async fn disputes(&self) -> Result<Address, Error> {
        let disputes = self.providers(&Providers::disputesCall {}).await?;
        Ok(abi::from_evm(disputes))
    }

    /// Who is credited what is taken from providers.
    pub async fn slash_recipient(&self) -> Result<Address, Error> {
        let recipient = self.providers(&Providers::slashRecipientCall {}).await?;
        Ok(abi::from_evm(recipient))
    }

    /// A raise of a model's royalty that is not in force yet: the coming rate in basis points, and from when on it is in
    /// force, in seconds of the chain.
    pub async fn pending_royalty_of(&self, model: ModelId) -> Result<Option<(u16, u64)>, Error> {
        let model_id = B256::from(model.0);
        let pending = self.models(&Models::pendingRoyaltyOfCall { modelId: model_id }).await?;
        let from = abi::seconds(pending.from);
        Ok((from != 0).then_some((pending.royaltyBps, from)))
    }
}

impl Wallet {
    /// Sets a model's royalty in basis points, as the holder of its token: a cut is in force at once, a raise after
    /// seven days; either replaces a raise that is pending.
    pub async fn set_royalty(&self, model: ModelId, royalty_bps: u16) -> Result<Confirmed, Error> {
        let call = Models::setRoyaltyCall {
            modelId: B256::from(model.0),
            royaltyBps: royalty_bps,
        };
        self.act(self.chain().contracts().models, &call).await
    }

    /// Adds to the account's stake, approved as in [`Wallet::deposit`].
    pub async fn add_stake(&self, amount: MicroDollars) -> Result<Confirmed, Error> {
        let call = Providers::addStakeCall {
            amount: abi::to_u96(amount),
        };
        self.pulled_by(self.chain().contracts().providers, amount, &call).await
    }

    /// Lets a part of the account's stake begin to leave. All that is leaving then waits for the whole delay anew.
    pub async fn request_unstake(&self, amount: MicroDollars) -> Result<Confirmed, Error> {
        let call = Providers::requestUnstakeCall {
            amount: abi::to_u96(amount),
        };
        self.act(self.chain().contracts().providers, &call).await
    }

    /// Takes out the stake that was leaving, once its delay has passed and the account is not frozen.
    pub async fn complete_unstake(&self) -> Result<Confirmed, Error> {
        self.act(self.chain().contracts().providers, &Providers::completeUnstakeCall {})
            .await
    }

    /// Stops a provider for thirty days at most. Refused unless this account is the market's dispute contract.
    pub async fn freeze(&self, provider: Address, case: Digest) -> Result<Confirmed, Error> {
        let call = Providers::freezeCall {
            provider: abi::to_evm(provider),
            caseHash: B256::from(case.0),
        };
        self.act(self.chain().contracts().providers, &call).await
    }

    /// Ends a freeze before its time. Refused unless this account is the market's dispute contract.
    pub async fn unfreeze(&self, provider: Address) -> Result<Confirmed, Error> {
        let call = Providers::unfreezeCall {
            provider: abi::to_evm(provider),
        };
        self.act(self.chain().contracts().providers, &call).await
    }

    /// Takes stake for an offence: what is asked, or a tenth of all if that is less; nothing for an offence that was
    /// judged before. Refused unless this account is the market's dispute contract.
    pub async fn slash(
        &self,
        provider: Address,
        amount: MicroDollars,
        offence: Digest,
        reporter: Option<Address>,
    ) -> Result<Confirmed, Error> {
        let call = Providers::slashCall {
            provider: abi::to_evm(provider),
            amount: abi::to_u96(amount),
            offence: B256::from(offence.0),
            reporter: abi::to_evm(reporter.unwrap_or_default()),
        };
        self.act(self.chain().contracts().providers, &call).await
    }

    /// Shows two receipts that one provider signed for one number of one channel: it loses all its stake, and this account
    /// is credited a small part. Receipts that prove nothing are [`Error::Invalid`], and nothing is sent.
    pub async fn prove_equivocation(&self, first: &SignedReceipt, second: &SignedReceipt) -> Result<Confirmed, Error> {
        let domain = self.chain().domain().await?;
        let (one, other) = (&first.receipt, &second.receipt);
        if (one.channel, one.sequence) != (other.channel, other.sequence) {
            return Err(Error::invalid("the receipts are of different channels or numbers"));
        }
        if one.struct_hash() == other.struct_hash() {
            return Err(Error::invalid("the receipts are one and the same"));
        }
        let signer = |signed: &SignedReceipt| {
            let key = signed.signature.recover(&signed.receipt.digest(&domain));
            key.map(|key| key.address())
                .map_err(|_| Error::invalid("a receipt's signature is not valid"))
        };
        if signer(first)? != signer(second)? {
            return Err(Error::invalid("the receipts were signed by different keys"));
        }
        let call = Providers::proveEquivocationCall {
            first: receipt(one),
            firstSignature: first.signature.to_bytes().to_vec().into(),
            second: receipt(other),
            secondSignature: second.signature.to_bytes().to_vec().into(),
        };
        self.act(self.chain().contracts().providers, &call).await
    }

    /// Takes out what the account was credited of stake that was taken from providers. Refused with `ZeroAmount` if there
    /// is nothing.
    pub async fn claim_stake_credit(&self) -> Result<Confirmed, Error> {
        self.act(self.chain().contracts().providers, &Providers::claimCreditCall {})
            .await
    }
}

fn receipt(receipt: &Receipt) -> bindings::Receipt {
    bindings::Receipt {
        channelId: B256::from(receipt.channel.0),
        sequence: receipt.sequence,
        requestId: B256::from(receipt.request.0),
        modelId: B256::from(receipt.model.0),
        requestHash: B256::from(receipt.request_hash.0),
        responseHash: B256::from(receipt.response_hash.0),
        inputUnits: receipt.usage.input,
        outputUnits: receipt.usage.output,
        costNano: receipt.cost.0,
        totalNano: receipt.total.0,
        status: receipt.status as u8,
        finishedAt: receipt.finished_at,
        region: FixedBytes(receipt.region.0),
        energyMillijoules: receipt.energy_millijoules,
        fingerprintRoot: B256::from(receipt.fingerprint_root.0),
        previousHead: B256::from(receipt.previous_head.0),
    }
}

#[cfg(test)]
mod tests {
    use alloy::{
        primitives::{U256, keccak256},
        sol_types::SolValue,
    };
    use rialto_protocol::{
        ChannelId, NanoDollars, ReceiptsHead, Region, RequestId, Usage, hash::keccak256 as hash, receipt::ReceiptStatus,
    };

    use super::*;

    /// What is sent to the contract is what was signed: its struct hash is that of the ABI's words.
    #[test]
    fn a_receipt_goes_to_the_contract_as_it_was_signed() {
        let signed = Receipt {
            channel: ChannelId([1; 32]),
            sequence: 2,
            request: RequestId([3; 32]),
            model: ModelId([4; 32]),
            request_hash: Digest([5; 32]),
            response_hash: Digest([6; 32]),
            usage: Usage { input: 7, output: 8 },
            cost: NanoDollars(9),
            total: NanoDollars(10),
            status: ReceiptStatus::Failed,
            finished_at: 11,
            region: Region::from_name("eu-west").unwrap(),
            energy_millijoules: 12,
            fingerprint_root: Digest([13; 32]),
            previous_head: ReceiptsHead([14; 32]),
        };
        let kind = hash(&[b"Receipt(bytes32 channelId,uint64 sequence,bytes32 requestId,bytes32 modelId,bytes32 requestHash,bytes32 responseHash,uint64 inputUnits,uint64 outputUnits,uint128 costNano,uint128 totalNano,uint8 status,uint64 finishedAt,bytes8 region,uint64 energyMillijoules,bytes32 fingerprintRoot,bytes32 previousHead)"]);
        let words = [U256::from_be_bytes(kind).abi_encode(), receipt(&signed).abi_encode()].concat();
        assert_eq!(keccak256(words).0, signed.struct_hash());
    }
}
