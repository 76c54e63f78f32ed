//! Paying for vouchers. Claims come as the bytes that the contract reads, and are taken apart here by other code.

use alloy::{
    primitives::{Bytes, U256},
    sol_types::SolValue,
};
use rialto_protocol::{
    Address, ChannelParams, MicroDollars, ModelId, ReceiptsHead, Voucher, channel::Split, claim::CLAIM_LENGTH,
};

use super::{Refusal, World, books::require_some, refuse};
use crate::{abi::Escrow, orders::recover};

/// A claim as its bytes say; nothing of it is checked.
struct Raw {
    payer: Address,
    signer: Address,
    salt: u128,
    cumulative: MicroDollars,
    amount: MicroDollars,
    head: ReceiptsHead,
    signature: [u8; 65],
}

impl World {
    pub(super) fn redeem(&mut self, provider: Address, groups: &[(ModelId, Bytes)]) -> Result<Vec<u8>, Refusal> {
        let (mut paid, mut to_provider) = (0, 0);
        for (model, claims) in groups {
            if claims.len() % CLAIM_LENGTH != 0 {
                return refuse(&Escrow::MalformedClaims {
                    length: U256::from(claims.len()),
                });
            }
            let terms = self.models.get(model);
            let royalty_bps = terms.map_or(0, |terms| terms.in_force(self.now));
            let holder = terms.map_or(self.fee_recipient, |terms| terms.holder);
            for claim in claims.as_chunks::<CLAIM_LENGTH>().0 {
                let Some(split) = self.pay(provider, *model, &unpack(claim), royalty_bps) else {
                    continue;
                };
                let (royalty, fee) = (split.royalty.get(), split.fee.get());
                to_provider += split.provider.get();
                paid += split.provider.get() + royalty + fee;
                if royalty + fee != 0 {
                    let share = self.shares.entry(holder).or_default();
                    share.royalty += royalty;
                    share.fee += fee;
                }
            }
        }
        if to_provider != 0 {
            self.token.transfer(self.token.escrow, provider, to_provider)?;
        }
        Ok(U256::from(paid).abi_encode())
    }

    /// Pays one claim; `None` for one that is skipped.
    fn pay(&mut self, provider: Address, model: ModelId, claim: &Raw, royalty_bps: u16) -> Option<Split> {
        let params = ChannelParams {
            payer: claim.payer,
            signer: claim.signer,
            provider,
            model,
            token: self.token.address,
            salt: claim.salt,
        };
        let voucher = Voucher {
            channel: params.id(),
            cumulative: claim.cumulative,
            receipts_head: claim.head,
        };
        let before = *self.channels.get(&voucher.channel)?;
        let (after, paid) = before.paid(claim.amount, claim.cumulative);
        if paid == MicroDollars::ZERO || recover(&claim.signature, &voucher.digest(&self.domain)) != Some(claim.signer)
        {
            return None;
        }
        self.channels.insert(voucher.channel, after);
        Some(Split::between(
            before.redeemed,
            after.redeemed,
            royalty_bps,
            self.fee_bps,
        ))
    }

    pub(super) fn claim_credit(&mut self, account: Address) -> Result<Vec<u8>, Refusal> {
        let amount = self
            .shares
            .get_mut(&account)
            .map_or(0, |share| std::mem::take(&mut share.royalty));
        require_some(amount)?;
        self.token.transfer(self.token.escrow, account, amount)?;
        Ok(U256::from(amount).abi_encode())
    }

    pub(super) fn claim_fees(&mut self, holders: &[Address]) -> Result<Vec<u8>, Refusal> {
        let mut amount = 0;
        for holder in holders {
            amount += self
                .shares
                .get_mut(holder)
                .map_or(0, |share| std::mem::take(&mut share.fee));
        }
        require_some(amount)?;
        self.token.transfer(self.token.escrow, self.fee_recipient, amount)?;
        Ok(U256::from(amount).abi_encode())
    }
}

fn unpack(claim: &[u8; CLAIM_LENGTH]) -> Raw {
    let amount = |at: usize| {
        let mut wide = [0; 16];
        wide[4..].copy_from_slice(&claim[at..at + 12]);
        u128::from_be_bytes(wide)
    };
    let word = |at: usize| std::array::from_fn(|i| claim[at + i]);
    let mut signature = [0; 65];
    signature[..64].copy_from_slice(&claim[108..]);
    signature[64] = 27 + (signature[32] >> 7);
    signature[32] &= 0x7f;
    Raw {
        payer: Address(std::array::from_fn(|i| claim[i])),
        signer: Address(std::array::from_fn(|i| claim[20 + i])),
        salt: amount(40),
        cumulative: super::books::micro(amount(52)),
        amount: super::books::micro(amount(64)),
        head: ReceiptsHead(word(76)),
        signature,
    }
}
