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
    /// Tells apart channels with the same parties and model; at most 96 bits count. Text in JSON.
    #[serde(with = "crate::number")]
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
    /// The model holder's part.
    pub royalty: MicroDollars,
    /// The protocol's part.
    pub fee: MicroDollars,
}

impl Split {
    /// Divides what a channel pays when its running total goes from `from` to `to`, as the escrow does.
    ///
    /// Every part is the difference of a function of the running total, so the way in which claims are batched changes
    /// no total (invariant 7): the fee of the total, and the royalty of what the fee leaves. Both rates are in basis
    /// points of what the buyer pays; the contracts hold each to at most 1,000.
    pub fn between(from: MicroDollars, to: MicroDollars, royalty_bps: u16, fee_bps: u16) -> Self {
        const BPS: u128 = 10_000;
        let fee_bps = u128::from(fee_bps).min(BPS - 1);
        let royalty_bps = u128::from(royalty_bps).min(BPS - fee_bps);
        let parts = |total: MicroDollars| {
            let fee = total.get() * fee_bps / BPS;
            (fee, (total.get() - fee) * royalty_bps / (BPS - fee_bps))
        };
        let (before, after) = (parts(from), parts(to.max(from)));
        let part = |amount: u128| MicroDollars::try_from(amount).unwrap_or_default();
        let (fee, royalty) = (part(after.0 - before.0), part(after.1 - before.1));
        Self {
            provider: to.saturating_sub(from).saturating_sub(royalty).saturating_sub(fee),
            royalty,
            fee,
        }
    }

    /// Divides a channel's first payment; later ones are [`Self::between`] two totals.
    pub fn of(paid: MicroDollars, royalty_bps: u16, fee_bps: u16) -> Self {
        Self::between(MicroDollars::ZERO, paid, royalty_bps, fee_bps)
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
        fn batching_changes_no_part_of_a_payment(
            totals in prop::collection::vec(0..=crate::money::MAX_MICRO, 1..8),
            royalty in 0u16..=1_000,
            fee in 0u16..=1_000,
        ) {
            let mut totals: Vec<_> = totals.into_iter().map(|total| MicroDollars::try_from(total).unwrap()).collect();
            totals.sort_unstable();
            let (mut from, mut sum) = (MicroDollars::ZERO, [0u128; 3]);
            for to in &totals {
                let split = Split::between(from, *to, royalty, fee);
                let parts = [split.provider, split.royalty, split.fee].map(MicroDollars::get);
                prop_assert_eq!(parts.iter().sum::<u128>(), to.get() - from.get());
                sum = std::array::from_fn(|i| sum[i] + parts[i]);
                from = *to;
            }
            let once = Split::of(from, royalty, fee);
            prop_assert_eq!(sum, [once.provider, once.royalty, once.fee].map(MicroDollars::get));
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
