//! Payment channels: their id, and the state machine that the escrow contract keeps for each of them.

use serde::{Deserialize, Serialize};

use crate::{Address, ChannelId, MicroDollars, ModelId, hash::Words, money::TooLarge};

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

/// Why the escrow refuses a step of a channel that was opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum StepError {
    /// It is closed for ever.
    #[error("the channel is closed")]
    Closed,
    /// A close was requested already.
    #[error("a close was requested, and can be finalised at {closes_at}")]
    CloseRequested {
        /// When, in seconds since 1970.
        closes_at: u64,
    },
    /// No close was requested.
    #[error("no close was requested")]
    CloseNotRequested,
    /// The provider still has time to redeem.
    #[error("the close can be finalised at {closes_at}, not before")]
    TooEarly {
        /// When, in seconds since 1970.
        closes_at: u64,
    },
    /// More than 96 bits.
    #[error(transparent)]
    TooLarge(#[from] TooLarge),
}

/// The steps that the escrow takes with a channel. Each takes the state before and gives the state after; an error leaves
/// the channel as it was. They are for a channel that was opened: an id that never was has no state.
impl ChannelState {
    /// A channel with this much in it. The escrow lets a channel be opened with nothing, too; it pays nothing until it
    /// is topped up.
    pub fn opened(amount: MicroDollars) -> Self {
        Self {
            funded: amount,
            ..Self::default()
        }
    }

    /// With `amount` more in it. Not while a close is requested.
    pub fn topped_up(self, amount: MicroDollars) -> Result<Self, StepError> {
        self.idle()?;
        let funded = self.funded.get() + amount.get();
        Ok(Self {
            funded: MicroDollars::try_from(funded)?,
            ..self
        })
    }

    /// After a claim of `amount` under a voucher over `cumulative`, and what it paid: see [`Self::payable`].
    #[must_use]
    pub fn paid(self, amount: MicroDollars, cumulative: MicroDollars) -> (Self, MicroDollars) {
        let paid = self.payable(amount, cumulative);
        // Never above `funded`, which fits.
        let redeemed = self.redeemed.checked_add(paid).unwrap_or(self.redeemed);
        (Self { redeemed, ..self }, paid)
    }

    /// After the payer asked at `now` to close it; the provider has `challenge` seconds.
    pub fn close_requested(self, now: u64, challenge: u64) -> Result<Self, StepError> {
        self.idle()?;
        Ok(Self {
            closes_at: now.saturating_add(challenge),
            ..self
        })
    }

    /// After the payer took its request back.
    pub fn close_cancelled(self) -> Result<Self, StepError> {
        self.closing()?;
        Ok(Self { closes_at: 0, ..self })
    }

    /// After the challenge period, and what the payer got back.
    pub fn close_finalised(self, now: u64) -> Result<(Self, MicroDollars), StepError> {
        let closes_at = self.closing()?;
        if now < closes_at {
            return Err(StepError::TooEarly { closes_at });
        }
        self.close()
    }

    /// After a close by the provider, or one whose time has come; and what the payer got back. What was not paid out
    /// leaves the channel: the escrow keeps a closed channel as one that held what it paid.
    pub fn close(self) -> Result<(Self, MicroDollars), StepError> {
        if self.closed {
            return Err(StepError::Closed);
        }
        let after = Self {
            funded: self.redeemed,
            redeemed: self.redeemed,
            closes_at: 0,
            closed: true,
        };
        Ok((after, self.remainder()))
    }

    fn idle(&self) -> Result<(), StepError> {
        match self.closing() {
            Ok(closes_at) => Err(StepError::CloseRequested { closes_at }),
            Err(StepError::CloseNotRequested) => Ok(()),
            Err(error) => Err(error),
        }
    }

    fn closing(&self) -> Result<u64, StepError> {
        match self {
            Self { closed: true, .. } => Err(StepError::Closed),
            Self { closes_at: 0, .. } => Err(StepError::CloseNotRequested),
            Self { closes_at, .. } => Ok(*closes_at),
        }
    }
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
