//! Redeeming: claims of any number, in as many transactions as it takes.

use std::collections::{BTreeMap, BTreeSet};

use alloy::primitives::{B256, Bytes};
use rialto_protocol::{ChannelId, Digest, Domain, MicroDollars, ModelId, Signature, SignedVoucher, claim::Claim};

use crate::{
    Error, Wallet, abi,
    bindings::{Escrow, Group},
    events::{self, EventKind},
    sender::Confirmed,
};

/// Claims that one transaction carries at most: about 1.5 million gas, a fraction of a block everywhere.
pub const MAX_BATCH: usize = 100;

/// A batch that was paid.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Redeemed {
    /// The transaction's hash.
    pub transaction: Digest,
    /// Its block.
    pub block: u64,
    /// Gas it used.
    pub gas_used: u64,
    /// What the provider received.
    pub provider: MicroDollars,
    /// What holders of models were credited.
    pub royalty: MicroDollars,
    /// What the protocol was credited.
    pub fee: MicroDollars,
    /// Channels that paid, each with what it has paid in all since it was opened.
    pub channels: Vec<(ChannelId, MicroDollars)>,
}

/// A batch that was not paid, or of which it is not known. Redeeming it again is harmless: a channel never pays the
/// same twice.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FailedBatch {
    /// Its channels.
    pub channels: Vec<ChannelId>,
    /// Why.
    pub error: Error,
}

/// What became of all claims: every claim's channel is in exactly one of the three lists.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Redemption {
    /// Batches that were paid.
    pub redeemed: Vec<Redeemed>,
    /// Channels whose claim pays nothing: paid before, closed, of another provider, or badly signed.
    pub skipped: Vec<ChannelId>,
    /// Batches that failed; the others are not touched by it.
    pub failed: Vec<FailedBatch>,
}

impl Redemption {
    /// The first failure, if there was one.
    pub fn first_error(&self) -> Option<&Error> {
        self.failed.first().map(|batch| &batch.error)
    }
}

/// Claims in batches: sorted by model, so that a batch has few groups.
pub(crate) fn batches(claims: &[Claim]) -> Vec<Vec<Claim>> {
    let mut sorted = claims.to_vec();
    sorted.sort_by_key(|claim| claim.channel.model);
    sorted.chunks(MAX_BATCH).map(<[Claim]>::to_vec).collect()
}

/// The argument of the escrow's `redeem`.
pub(crate) fn groups(claims: &[Claim]) -> Vec<Group> {
    let mut groups: BTreeMap<ModelId, Vec<u8>> = BTreeMap::new();
    for claim in claims {
        groups.entry(claim.channel.model).or_default().extend(claim.pack());
    }
    let group = |(model, packed): (ModelId, Vec<u8>)| Group {
        modelId: B256::from(model.0),
        claims: Bytes::from(packed),
    };
    groups.into_iter().map(group).collect()
}

/// The claim with the one form of its signature that the escrow accepts; `None` if there is none.
///
/// A signature is valid against a known key whatever its recovery bit says, but the escrow knows the key only by its
/// account: a buyer that turns that bit would pay with vouchers that pass every check but the last.
fn as_the_escrow_reads(claim: &Claim, domain: &Domain) -> Option<Claim> {
    let SignedVoucher { voucher, signature } = claim.voucher;
    if abi::salt(&claim.channel).is_err() || voucher.channel != claim.channel.id() {
        return None;
    }
    let digest = voucher.digest(domain);
    let by_signer = |signature: &Signature| {
        let key = signature.recover(&digest);
        key.is_ok_and(|key| key.address() == claim.channel.signer)
    };
    let mut bytes = signature.to_bytes();
    if let Some(bit) = bytes.last_mut() {
        *bit = if *bit == 27 { 28 } else { 27 };
    }
    let turned = Signature::from_bytes(&bytes).ok();
    let signature = [Some(signature), turned].into_iter().flatten().find(by_signer)?;
    Some(Claim {
        voucher: SignedVoucher { voucher, signature },
        ..*claim
    })
}

impl Wallet {
    /// Redeems claims on channels of this wallet, in batches of at most [`MAX_BATCH`].
    ///
    /// A claim that pays nothing is skipped and costs nothing else; a batch that fails takes no other with it. After
    /// the chain is found unreachable the remaining batches fail at once.
    pub async fn redeem(&self, claims: &[Claim]) -> Redemption {
        let mut all = Redemption::default();
        let domain = match self.chain().domain().await {
            Ok(domain) => domain,
            Err(error) => {
                all.failed.push(FailedBatch {
                    channels: claims.iter().map(|claim| claim.channel.id()).collect(),
                    error,
                });
                return all;
            }
        };
        let mut good = Vec::new();
        for claim in claims {
            match as_the_escrow_reads(claim, &domain) {
                Some(claim) => good.push(claim),
                None => all.skipped.push(claim.channel.id()),
            }
        }
        let mut unreachable = None;
        for batch in batches(&good) {
            let channels: BTreeSet<ChannelId> = batch.iter().map(|claim| claim.channel.id()).collect();
            let outcome = match &unreachable {
                Some(error) => Err(Error::clone(error)),
                None => self.redeem_batch(&batch, &channels).await,
            };
            match outcome {
                Ok(paid) => {
                    let is_paid =
                        |id: &&ChannelId| paid.iter().any(|batch| batch.channels.iter().any(|(p, _)| p == *id));
                    all.skipped.extend(channels.iter().filter(|id| !is_paid(id)));
                    all.redeemed.extend(paid);
                }
                Err(error) => {
                    if matches!(error, Error::Unreachable { .. }) {
                        unreachable = Some(error.clone());
                    }
                    all.failed.push(FailedBatch {
                        channels: channels.into_iter().collect(),
                        error,
                    });
                }
            }
        }
        all
    }

    /// Redeems one batch; `None` if none of its claims pays, in which case nothing is sent.
    async fn redeem_batch(&self, batch: &[Claim], channels: &BTreeSet<ChannelId>) -> Result<Option<Redeemed>, Error> {
        let call = Escrow::redeemCall { groups: groups(batch) };
        let escrow = abi::to_evm(self.chain().contracts().escrow);
        let from = Some(abi::to_evm(self.address()));
        let paid = self.chain().link.call_from(from, escrow, &call).await?;
        if paid.is_zero() {
            return Ok(None);
        }
        let receipt = self.transact(self.chain().contracts().escrow, &call).await?;
        let confirmed = crate::sender::confirmed(&receipt)?;
        for log in receipt.logs().iter().filter(|log| log.address() == escrow) {
            let event = events::kind(log, self.chain().contracts().token)?;
            if let Some(redeemed) = redeemed(event, confirmed) {
                return check(redeemed, channels).map(Some);
            }
        }
        Ok(None)
    }
}

fn redeemed(event: EventKind, confirmed: Confirmed) -> Option<Redeemed> {
    let EventKind::Redeemed {
        amount,
        royalty,
        fee,
        channels,
        ..
    } = event
    else {
        return None;
    };
    Some(Redeemed {
        transaction: confirmed.transaction,
        block: confirmed.block,
        gas_used: confirmed.gas_used,
        provider: amount,
        royalty,
        fee,
        channels,
    })
}

/// A node that reports channels that were not claimed is not to be believed.
fn check(redeemed: Redeemed, claimed: &BTreeSet<ChannelId>) -> Result<Redeemed, Error> {
    if redeemed.channels.iter().all(|(id, _)| claimed.contains(id)) {
        Ok(redeemed)
    } else {
        Err(Error::corrupt("a redeem that paid channels that were not claimed"))
    }
}

#[cfg(test)]
mod tests {
    use rialto_protocol::{Address, ChannelParams, Domain, ReceiptsHead, SigningKey, Voucher, claim::CLAIM_LENGTH};

    use super::*;

    fn claim(model: u8, salt: u128) -> Claim {
        let channel = ChannelParams {
            payer: Address([1; 20]),
            signer: Address([2; 20]),
            provider: Address([3; 20]),
            model: ModelId([model; 32]),
            token: Address([4; 20]),
            salt,
        };
        let domain = Domain {
            chain_id: 1,
            escrow: Address([5; 20]),
        };
        let voucher = Voucher {
            channel: channel.id(),
            cumulative: MicroDollars::new(5),
            receipts_head: ReceiptsHead::default(),
        };
        Claim {
            channel,
            voucher: voucher.sign(&domain, &SigningKey::from_bytes(&[9; 32]).unwrap()),
            amount: MicroDollars::new(5),
        }
    }

    #[test]
    fn claims_are_cut_into_batches_and_grouped_by_model() {
        let claims: Vec<_> = (0..250u8).map(|i| claim(i % 3, u128::from(i))).collect();
        let batches = batches(&claims);
        assert_eq!(batches.iter().map(Vec::len).collect::<Vec<_>>(), vec![100, 100, 50]);
        let first = groups(&batches[0]);
        assert_eq!(first.len(), 2, "84 claims of the first model and 16 of the second");
        assert_eq!(first[0].claims.len(), 84 * CLAIM_LENGTH);
        let all: BTreeSet<_> = batches.iter().flatten().map(|claim| claim.channel.id()).collect();
        assert_eq!(all.len(), 250, "no claim is lost");
    }
}
