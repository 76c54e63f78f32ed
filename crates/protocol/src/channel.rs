//! Payment channels: their id, and the state machine that the escrow contract keeps for each of them.

use serde::{Deserialize, Serialize};

use crate::{Address, ChannelId, MicroDollars, ModelId, hash::Words};

/// What a channel's id is made of. The model is inside, so nobody can dodge its royalty; the provider is inside, so a
/// payer cannot name itself as the receiver.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct ChannelParams {
    /// Whose money it is.
    pub payer: Address,
    /// The session key whose signatures spend it: an externally owned account.
    pub signer: Address,
    /// Who may redeem.
    pub provider: Address,
    /// The model that is bought; its holder earns the royalty.
    pub model: ModelId,
    /// The stablecoin.
    pub token: Address,
    /// Tells apart channels with the same parties and model; at most 96 bits count.
    pub salt: u128,
}

impl ChannelParams {
    /// `keccak256(abi.encode(payer, signer, provider, modelId, token, salt))`.
    pub fn id(&self) -> ChannelId {
        ChannelId(
            Words::new()
                .left(&self.payer.0)
                .left(&self.signer.0)
                .left(&self.provider.0)
                .right(&self.model.0)
                .left(&self.token.0)
                .uint(self.salt)
                .keccak(),
        )
    }

    /// The salt as twelve big-endian bytes.
    pub fn salt_bytes12(&self) -> [u8; 12] {
        MicroDollars::try_from(self.salt & crate::money::MAX_MICRO)
            .unwrap_or_default()
            .to_be_bytes12()
    }
}

/// What the escrow keeps of a channel, in one storage slot.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct ChannelState {
    /// What the payer put in.
    pub funded: MicroDollars,
    /// What was paid out of it. Never falls, never above `funded` (invariant 2).
    pub redeemed: MicroDollars,
    /// When a requested close can be finalised, in seconds since 1970; zero while none is requested.
    pub closes_at: u64,
    /// A closed channel never opens again.
    pub closed: bool,
}

impl ChannelState {
    /// Whether the channel exists and was not closed.
    pub fn is_open(&self) -> bool {
        !self.closed && self.funded > MicroDollars::ZERO
    }

    /// What a claim of `amount` under a voucher over `cumulative` pays now (invariants 2 and 3).
    pub fn payable(&self, amount: MicroDollars, cumulative: MicroDollars) -> MicroDollars {
        if !self.is_open() || amount > cumulative {
            return MicroDollars::ZERO;
        }
        amount.min(self.funded).saturating_sub(self.redeemed)
    }

    /// What the payer gets back when the channel closes.
    pub fn remainder(&self) -> MicroDollars {
        self.funded.saturating_sub(self.redeemed)
    }
}

/// How a payment is divided: the parts sum to the whole, to the last unit (invariant 5).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Split {
    /// The seller's part: what the others leave.
    pub provider: MicroDollars,
    /// The model holder's part, rounded down.
    pub royalty: MicroDollars,
    /// The protocol's part, rounded down.
    pub fee: MicroDollars,
}

impl Split {
    /// Divides a payment; both rates are in basis points, together at most 10,000.
    pub fn of(paid: MicroDollars, royalty_bps: u16, fee_bps: u16) -> Self {
        let part = |bps: u16| MicroDollars::try_from(paid.get() * u128::from(bps.min(10_000)) / 10_000).unwrap_or(paid);
        let (royalty, fee) = (part(royalty_bps), part(fee_bps));
        Self {
            provider: paid.saturating_sub(royalty).saturating_sub(fee),
            royalty,
            fee,
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn the_parts_of_a_payment_sum_to_the_whole(paid in 0..=crate::money::MAX_MICRO, royalty in 0u16..=1_000, fee in 0u16..=1_000) {
            let paid = MicroDollars::try_from(paid).unwrap();
            let split = Split::of(paid, royalty, fee);
            prop_assert_eq!(split.provider.get() + split.royalty.get() + split.fee.get(), paid.get());
        }

        #[test]
        fn no_claim_pays_more_than_was_signed_or_funded(funded in 1u64.., redeemed: u64, amount: u64, cumulative: u64) {
            let funded = MicroDollars::new(funded);
            let state = ChannelState { funded, redeemed: MicroDollars::new(redeemed).min(funded), ..Default::default() };
            let paid = state.payable(MicroDollars::new(amount), MicroDollars::new(cumulative));
            let total = state.redeemed.checked_add(paid).unwrap();
            prop_assert!(total <= funded);
            prop_assert!(paid == MicroDollars::ZERO || total <= MicroDollars::new(cumulative));
        }
    }
}
