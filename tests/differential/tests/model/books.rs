//! Balances and channels: what each function of the escrow checks, in its order.

use alloy::{
    primitives::{B256, U256, aliases::U40},
    sol_types::SolValue,
};
use rialto_protocol::{
    Address, ChannelId, ChannelParams, Digest, MicroDollars,
    channel::{ChannelState, StepError},
    order::Order,
};

use super::{Refusal, World, refuse};
use crate::{
    abi::Escrow,
    orders::{self, Authorization, recover},
};

/// An amount that has 96 bits already: calldata holds no other.
pub(crate) fn micro(amount: u128) -> MicroDollars {
    MicroDollars::try_from(amount).unwrap_or(MicroDollars::MAX)
}

fn id(channel: ChannelId) -> B256 {
    B256::new(channel.0)
}

impl World {
    pub(super) fn deposit(&mut self, payer: Address, amount: u128) -> Result<Vec<u8>, Refusal> {
        self.not_paused()?;
        self.pull(payer, amount)?;
        self.credit(payer, amount);
        Ok(Vec::new())
    }

    pub(super) fn deposit_with_permit(
        &mut self,
        from: Address,
        payer: Address,
        amount: u128,
        deadline: u64,
        signature: &[u8; 65],
    ) -> Result<Vec<u8>, Refusal> {
        self.not_paused()?;
        if !self.token.permit(payer, amount, deadline, signature, self.now) && from != payer {
            return refuse(&Escrow::NotPayer {});
        }
        self.pull(payer, amount)?;
        self.credit(payer, amount);
        Ok(Vec::new())
    }

    pub(super) fn deposit_with_authorization(
        &mut self,
        payer: Address,
        amount: u128,
        window: (u64, u64),
        salt: &[u8; 32],
        signature: &[u8; 65],
    ) -> Result<Vec<u8>, Refusal> {
        self.not_paused()?;
        self.receive(payer, amount, window, orders::deposit_nonce(payer, salt), signature)?;
        self.credit(payer, amount);
        Ok(Vec::new())
    }

    pub(super) fn withdraw(&mut self, payer: Address, amount: u128) -> Result<Vec<u8>, Refusal> {
        self.debit(payer, amount)?;
        require_some(amount)?;
        self.token.transfer(self.token.escrow, payer, amount)?;
        Ok(Vec::new())
    }

    pub(super) fn withdraw_with_sig(
        &mut self,
        payer: Address,
        amount: u128,
        signature: &[u8; 65],
        deadline: u64,
    ) -> Result<Vec<u8>, Refusal> {
        let nonce = self.use_nonce(payer);
        let order = Order::Withdraw {
            payer,
            amount: micro(amount),
            nonce,
            deadline,
        };
        let digest = self.digest(&order);
        self.require_signed(payer, &digest, signature, deadline)?;
        self.withdraw(payer, amount)
    }

    pub(super) fn open(&mut self, params: &ChannelParams, amount: u128) -> Result<Vec<u8>, Refusal> {
        self.not_paused()?;
        self.debit(params.payer, amount)?;
        self.create(params.id(), amount)
    }

    pub(super) fn open_with_sig(
        &mut self,
        params: &ChannelParams,
        amount: u128,
        signature: &[u8; 65],
        deadline: u64,
    ) -> Result<Vec<u8>, Refusal> {
        self.not_paused()?;
        self.debit(params.payer, amount)?;
        let order = Order::Open {
            channel: *params,
            amount: micro(amount),
            deadline,
        };
        let digest = self.digest(&order);
        self.require_signed(params.payer, &digest, signature, deadline)?;
        self.create(params.id(), amount)
    }

    pub(super) fn deposit_and_open(&mut self, params: &ChannelParams, amount: u128) -> Result<Vec<u8>, Refusal> {
        self.not_paused()?;
        self.pull(params.payer, amount)?;
        self.create(params.id(), amount)
    }

    pub(super) fn deposit_and_open_with_authorization(
        &mut self,
        params: &ChannelParams,
        amount: u128,
        window: (u64, u64),
        signature: &[u8; 65],
    ) -> Result<Vec<u8>, Refusal> {
        self.not_paused()?;
        self.receive(params.payer, amount, window, params.id().0, signature)?;
        self.create(params.id(), amount)
    }

    pub(super) fn top_up(&mut self, params: &ChannelParams, amount: u128) -> Result<Vec<u8>, Refusal> {
        self.debit(params.payer, amount)?;
        let channel = params.id();
        let state = self.opened(channel)?;
        let sum = state.funded.get() + amount;
        let after = state.topped_up(micro(amount)).or_else(|error| match error {
            StepError::TooLarge(_) => refuse(&Escrow::SafeCastOverflowedUintDowncast {
                bits: 96,
                value: U256::from(sum),
            }),
            error => refused(channel, error),
        })?;
        self.channels.insert(channel, after);
        Ok(Vec::new())
    }

    pub(super) fn close_by_provider(&mut self, from: Address, params: &ChannelParams) -> Result<Vec<u8>, Refusal> {
        if from != params.provider {
            return refuse(&Escrow::NotProvider {});
        }
        let channel = params.id();
        let closed = self.opened(channel)?.close();
        self.close(params, closed.or_else(|error| refused(channel, error))?)
    }

    pub(super) fn request_close(&mut self, channel: ChannelId) -> Result<Vec<u8>, Refusal> {
        let asked = self.opened(channel)?.close_requested(self.now, self.challenge);
        self.channels
            .insert(channel, asked.or_else(|error| refused(channel, error))?);
        Ok(Vec::new())
    }

    pub(super) fn request_close_with_sig(
        &mut self,
        params: &ChannelParams,
        signature: &[u8; 65],
        deadline: u64,
    ) -> Result<Vec<u8>, Refusal> {
        let asked = self.request_close(params.id())?;
        let nonce = self.use_nonce(params.payer);
        let order = Order::RequestClose {
            channel: *params,
            nonce,
            deadline,
        };
        let digest = self.digest(&order);
        self.require_signed(params.payer, &digest, signature, deadline)?;
        Ok(asked)
    }

    pub(super) fn cancel_close(&mut self, channel: ChannelId) -> Result<Vec<u8>, Refusal> {
        let cancelled = self.opened(channel)?.close_cancelled();
        self.channels
            .insert(channel, cancelled.or_else(|error| refused(channel, error))?);
        Ok(Vec::new())
    }

    pub(super) fn finalize_close(&mut self, params: &ChannelParams) -> Result<Vec<u8>, Refusal> {
        let channel = params.id();
        let closed = self.opened(channel)?.close_finalised(self.now);
        self.close(params, closed.or_else(|error| refused(channel, error))?)
    }

    fn close(&mut self, params: &ChannelParams, closed: (ChannelState, MicroDollars)) -> Result<Vec<u8>, Refusal> {
        let (state, remainder) = closed;
        self.channels.insert(params.id(), state);
        self.credit(params.payer, remainder.get());
        Ok(Vec::new())
    }

    /// The state of a channel; one that never was is refused as a closed one is.
    fn opened(&self, channel: ChannelId) -> Result<ChannelState, Refusal> {
        self.channels
            .get(&channel)
            .copied()
            .map_or_else(|| refused(channel, StepError::Closed), Ok)
    }

    fn create(&mut self, channel: ChannelId, amount: u128) -> Result<Vec<u8>, Refusal> {
        if self.channels.contains_key(&channel) {
            return refuse(&Escrow::ChannelExists { channelId: id(channel) });
        }
        self.channels.insert(channel, ChannelState::opened(micro(amount)));
        Ok(id(channel).abi_encode())
    }

    fn pull(&mut self, payer: Address, amount: u128) -> Result<(), Refusal> {
        self.token.pull(payer, amount)?;
        require_some(amount)
    }

    fn receive(
        &mut self,
        payer: Address,
        amount: u128,
        window: (u64, u64),
        nonce: [u8; 32],
        signature: &[u8; 65],
    ) -> Result<(), Refusal> {
        let authorization = Authorization {
            from: payer,
            to: self.token.escrow,
            amount,
            after: window.0,
            before: window.1,
            nonce,
        };
        self.token.receive(&authorization, signature, self.now)?;
        require_some(amount)
    }

    fn credit(&mut self, payer: Address, amount: u128) {
        *self.purses.entry(payer).or_default() += amount;
    }

    fn debit(&mut self, payer: Address, amount: u128) -> Result<(), Refusal> {
        let balance = self.purses.get(&payer).copied().unwrap_or_default();
        let Some(left) = balance.checked_sub(amount) else {
            return refuse(&Escrow::InsufficientBalance {
                balance: U256::from(balance),
                asked: U256::from(amount),
            });
        };
        self.purses.insert(payer, left);
        Ok(())
    }

    pub(crate) fn nonce(&self, payer: Address) -> u64 {
        self.nonces.get(&payer).copied().unwrap_or_default()
    }

    /// What the payer signs.
    pub(crate) fn digest(&self, order: &Order) -> Digest {
        orders::digest(order, &self.domain, self.token.address)
    }

    fn use_nonce(&mut self, payer: Address) -> u64 {
        let nonce = self.nonce(payer);
        self.nonces.insert(payer, nonce + 1);
        nonce
    }

    fn require_signed(
        &self,
        payer: Address,
        digest: &Digest,
        signature: &[u8; 65],
        deadline: u64,
    ) -> Result<(), Refusal> {
        if self.now > deadline {
            return refuse(&Escrow::Expired {
                deadline: U256::from(deadline),
            });
        }
        match recover(signature, digest) {
            Some(signer) if signer == payer => Ok(()),
            _ => refuse(&Escrow::WrongSignature {}),
        }
    }
}

pub(super) fn require_some(amount: u128) -> Result<(), Refusal> {
    if amount == 0 {
        refuse(&Escrow::ZeroAmount {})
    } else {
        Ok(())
    }
}

/// What the contract says where production has its own words.
fn refused<T>(channel: ChannelId, error: StepError) -> Result<T, Refusal> {
    match error {
        StepError::Closed => refuse(&Escrow::ChannelNotOpen { channelId: id(channel) }),
        StepError::CloseRequested { closes_at } => refuse(&Escrow::CloseAlreadyRequested {
            closeAt: U40::from(closes_at),
        }),
        StepError::CloseNotRequested => refuse(&Escrow::CloseNotRequested {}),
        StepError::TooEarly { closes_at } => refuse(&Escrow::TooEarly {
            closeAt: U40::from(closes_at),
        }),
        StepError::TooLarge(_) => refuse(&Escrow::SafeCastOverflowedUintDowncast {
            bits: 96,
            value: U256::ZERO,
        }),
    }
}
