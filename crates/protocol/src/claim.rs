//! Claims: a voucher in the packed form in which the escrow's `redeem` reads it.

use crate::{ChannelParams, MicroDollars, SignedVoucher};

/// Bytes of one packed claim.
pub const CLAIM_LENGTH: usize = 172;

/// What a provider asks for on one channel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Claim {
    /// The channel; its provider must be the sender of the transaction.
    pub channel: ChannelParams,
    /// The best voucher.
    pub voucher: SignedVoucher,
    /// The total that the receipts add up to; at most the voucher's.
    pub amount: MicroDollars,
}

impl Claim {
    /// `payer(20) signer(20) salt(12) cumulative(12) amount(12) receiptsHead(32) r(32) vs(32)`.
    pub fn pack(&self) -> [u8; CLAIM_LENGTH] {
        let mut packed = [0u8; CLAIM_LENGTH];
        let voucher = &self.voucher.voucher;
        let parts: [&[u8]; 7] = [
            &self.channel.payer.0,
            &self.channel.signer.0,
            &self.channel.salt_bytes12(),
            &voucher.cumulative.to_be_bytes12(),
            &self.amount.to_be_bytes12(),
            &voucher.receipts_head.0,
            &self.voucher.signature.to_compact(),
        ];
        for (to, from) in packed.iter_mut().zip(parts.iter().flat_map(|part| part.iter())) {
            *to = *from;
        }
        packed
    }
}
