//! The contracts' rules without an EVM. Channels, splits, ids, signatures and hashes are those of production
//! (`rialto-protocol`); the rest is what the escrow keeps around them.

pub(crate) mod books;
mod redeem;
pub(crate) mod token;

use std::collections::BTreeMap;

use alloy::{
    primitives::{Bytes, U256, aliases::U40},
    sol_types::{SolError, SolValue},
};
use rialto_protocol::{Address, ChannelId, ChannelParams, Domain, ModelId, channel::ChannelState};

use crate::{
    abi::{Escrow, Models},
    evm::Outcome,
    ops::{Op, evm},
};
use token::Token;

/// A refusal, as the ABI encodes it.
pub(crate) type Refusal = Bytes;

pub(crate) fn refuse<T>(error: &impl SolError) -> Result<T, Refusal> {
    Err(error.abi_encode().into())
}

/// Seconds that a pause lasts, and seconds from one to the next.
const PAUSE: (u64, u64) = (7 * 86_400, 30 * 86_400);
/// Seconds until a higher royalty is in force.
const RAISE_DELAY: u64 = 7 * 86_400;

/// Who is owed what of the redemptions of one holder's models.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Share {
    pub(crate) royalty: u128,
    pub(crate) fee: u128,
}

/// A model's holder and rates.
#[derive(Debug, Clone, Copy)]
pub(crate) struct ModelTerms {
    pub(crate) holder: Address,
    /// The rate until `from`, and since.
    pub(crate) rates: (u16, u16),
    pub(crate) from: u64,
}

impl ModelTerms {
    pub(crate) fn in_force(&self, now: u64) -> u16 {
        if now < self.from { self.rates.0 } else { self.rates.1 }
    }
}

/// Everything that the contracts keep.
#[derive(Debug, Clone)]
pub(crate) struct World {
    pub(crate) now: u64,
    pub(crate) domain: Domain,
    pub(crate) guardian: Address,
    pub(crate) fee_recipient: Address,
    pub(crate) fee_bps: u16,
    pub(crate) challenge: u64,
    pub(crate) token: Token,
    pub(crate) models: BTreeMap<ModelId, ModelTerms>,
    pub(crate) purses: BTreeMap<Address, u128>,
    pub(crate) shares: BTreeMap<Address, Share>,
    pub(crate) channels: BTreeMap<ChannelId, ChannelState>,
    pub(crate) nonces: BTreeMap<Address, u64>,
    pub(crate) paused_until: u64,
    pub(crate) next_pause: u64,
}

impl World {
    /// Does what the contracts would do. A refusal changes nothing.
    pub(crate) fn apply(&mut self, from: Address, op: &Op) -> Outcome {
        let before = self.clone();
        match self.attempt(from, op) {
            Ok(returned) => Outcome::Returned(returned.into()),
            Err(error) => {
                *self = before;
                Outcome::Refused(error)
            }
        }
    }

    fn attempt(&mut self, from: Address, op: &Op) -> Result<Vec<u8>, Refusal> {
        let own = |params: &ChannelParams| ChannelParams { payer: from, ..*params };
        match op {
            Op::Approve { amount } => {
                self.token.approve(from, *amount);
                Ok(true.abi_encode())
            }
            Op::Deposit { amount } => self.deposit(from, *amount),
            Op::DepositWithPermit {
                payer,
                amount,
                deadline,
                signature,
            } => self.deposit_with_permit(from, *payer, *amount, *deadline, signature),
            Op::DepositWithAuthorization {
                payer,
                amount,
                window,
                salt,
                signature,
            } => self.deposit_with_authorization(*payer, *amount, *window, salt, signature),
            Op::Open { params, amount } => self.open(&own(params), *amount),
            Op::OpenWithSig {
                params,
                amount,
                signature,
                deadline,
            } => self.open_with_sig(params, *amount, signature, *deadline),
            Op::DepositAndOpen { params, amount } => self.deposit_and_open(&own(params), *amount),
            Op::DepositAndOpenWithAuthorization {
                params,
                amount,
                window,
                signature,
            } => self.deposit_and_open_with_authorization(params, *amount, *window, signature),
            Op::TopUp { params, amount } => self.top_up(&own(params), *amount),
            Op::Redeem { groups } => self.redeem(from, groups),
            Op::CloseByProvider { params } => self.close_by_provider(from, params),
            Op::RequestClose { params } => self.request_close(own(params).id()),
            Op::RequestCloseWithSig {
                params,
                signature,
                deadline,
            } => self.request_close_with_sig(params, signature, *deadline),
            Op::CancelClose { params } => self.cancel_close(own(params).id()),
            Op::FinalizeClose { params } => self.finalize_close(params),
            Op::Withdraw { amount } => self.withdraw(from, *amount),
            Op::WithdrawWithSig {
                payer,
                amount,
                signature,
                deadline,
            } => self.withdraw_with_sig(*payer, *amount, signature, *deadline),
            Op::ClaimCredit { account } => self.claim_credit(*account),
            Op::ClaimFees { holders } => self.claim_fees(holders),
            Op::Pause => self.pause(from),
            Op::EndPause => self.end_pause(from),
            Op::SetRoyalty { model, bps } => self.set_royalty(from, *model, *bps),
            Op::SellModel {
                model,
                from: holder,
                to,
            } => self.sell(from, *model, *holder, *to),
        }
    }

    /// What the escrow owes to everybody: it holds exactly that (invariant 1).
    pub(crate) fn owed(&self) -> u128 {
        let channels = self.channels.values().map(|state| state.remainder().get());
        let shares = self.shares.values().map(|share| share.royalty + share.fee);
        channels.chain(shares).chain(self.purses.values().copied()).sum()
    }

    /// How many words the escrow needs for all this.
    pub(crate) fn words(&self) -> usize {
        let purses = self.purses.values().filter(|balance| **balance != 0).count();
        let shares = self.shares.values().filter(|share| **share != Share::default()).count();
        let pauses = usize::from(self.paused_until != 0) + usize::from(self.next_pause != 0);
        self.channels.len() + purses + shares + self.nonces.len() + pauses
    }

    fn pause(&mut self, from: Address) -> Result<Vec<u8>, Refusal> {
        self.require_guardian(from)?;
        if self.now < self.next_pause {
            let next = U40::from(self.next_pause);
            return refuse(&Escrow::PausedLately { nextPauseAt: next });
        }
        self.paused_until = self.now + PAUSE.0;
        self.next_pause = self.now + PAUSE.1;
        Ok(Vec::new())
    }

    fn end_pause(&mut self, from: Address) -> Result<Vec<u8>, Refusal> {
        self.require_guardian(from)?;
        self.paused_until = 0;
        Ok(Vec::new())
    }

    fn require_guardian(&self, from: Address) -> Result<(), Refusal> {
        if from == self.guardian {
            Ok(())
        } else {
            refuse(&Escrow::NotGuardian {})
        }
    }

    fn not_paused(&self) -> Result<(), Refusal> {
        if self.now < self.paused_until {
            let until = U40::from(self.paused_until);
            return refuse(&Escrow::PausedNow { until });
        }
        Ok(())
    }

    fn set_royalty(&mut self, from: Address, model: ModelId, bps: u16) -> Result<Vec<u8>, Refusal> {
        let now = self.now;
        let Some(terms) = self.models.get_mut(&model).filter(|terms| terms.holder == from) else {
            return refuse(&Models::NotHolder {
                modelId: model.0.into(),
            });
        };
        if bps > 1_000 {
            return refuse(&Models::RoyaltyTooHigh { royaltyBps: bps });
        }
        let current = terms.in_force(now);
        (terms.rates, terms.from) = if bps > current {
            ((current, bps), now + RAISE_DELAY)
        } else {
            ((0, bps), 0)
        };
        Ok(Vec::new())
    }

    fn sell(&mut self, sender: Address, model: ModelId, holder: Address, to: Address) -> Result<Vec<u8>, Refusal> {
        let token = U256::from_be_bytes(model.0);
        match self.models.get_mut(&model) {
            None => refuse(&Models::ERC721NonexistentToken { tokenId: token }),
            Some(terms) if sender == holder && terms.holder == holder => {
                terms.holder = to;
                Ok(Vec::new())
            }
            Some(_) => refuse(&Models::ERC721InsufficientApproval {
                operator: evm(sender),
                tokenId: token,
            }),
        }
    }
}
