//! The escrow's books as its events write them: a pure state machine, compared with the contract in tests.

use std::collections::BTreeMap;

use rialto_protocol::{
    Address, ChannelId, ChannelParams, MicroDollars,
    channel::{ChannelState, StepError},
};
use serde::Serialize;

use crate::{ChainEvent, Error, EventKind};

/// A channel as its events tell it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct MirroredChannel {
    /// What its id is made of.
    pub params: ChannelParams,
    /// What the escrow keeps of it; equals [`crate::Chain::channel`].
    pub state: ChannelState,
    /// The block in which it was opened.
    pub opened_block: u64,
}

/// Everything that the escrow keeps, made from its events alone.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct EscrowBooks {
    /// Every channel ever opened, the closed ones included.
    pub channels: BTreeMap<ChannelId, MirroredChannel>,
    /// Free balances that are not zero; each equals [`crate::Chain::free_balance`].
    pub balances: BTreeMap<Address, MicroDollars>,
    /// Royalties that were not taken out; each equals [`crate::Chain::credit_of`].
    pub credits: BTreeMap<Address, MicroDollars>,
    /// Fees that were not taken out, by the holder beside whose royalties they were credited; each equals
    /// [`crate::Chain::fees_of`]. These are the holders to name to [`crate::Wallet::claim_fees`].
    pub fees: BTreeMap<Address, MicroDollars>,
}

/// What is not on the books cannot be taken from them: the node left events out, or made some up.
fn impossible(event: &ChainEvent, what: &str) -> Error {
    Error::corrupt(format!(
        "the events of the escrow do not add up: {what} in block {}",
        event.block
    ))
}

impl EscrowBooks {
    /// What the escrow holds in all: what it owes to everybody (invariant 1).
    pub fn owed(&self) -> u128 {
        let open = self.channels.values().filter(|channel| !channel.state.closed);
        let in_channels = open.map(|channel| channel.state.remainder().get());
        let outside = self
            .balances
            .values()
            .chain(self.credits.values())
            .chain(self.fees.values())
            .map(|amount| amount.get());
        in_channels.chain(outside).fold(0, u128::saturating_add)
    }

    /// The channels of an account, as payer, session key or provider, by the block in which they were opened.
    pub fn channels_of(&self, account: Address) -> Vec<&MirroredChannel> {
        let party = |params: &ChannelParams| [params.payer, params.signer, params.provider].contains(&account);
        let mut found: Vec<_> = self.channels.values().filter(|one| party(&one.params)).collect();
        found.sort_by_key(|channel| channel.opened_block);
        found
    }

    /// Books one event. `fee_recipient` is who is credited the fee.
    ///
    /// Fails when the event cannot follow from what is booked: invariants 1 and 2 would break, or the channel is not
    /// known. Part of it may be booked then, and the books are of no use any more.
    pub fn book(&mut self, event: &ChainEvent, fee_recipient: Address) -> Result<(), Error> {
        match &event.kind {
            EventKind::Deposited { payer, amount } => add(&mut self.balances, *payer, *amount, event),
            EventKind::Withdrawn { payer, amount } => take(&mut self.balances, *payer, *amount, event),
            EventKind::CreditClaimed { account, amount } => take(&mut self.credits, *account, *amount, event),
            EventKind::FeesClaimed { amount, holders, .. } => self.fees_claimed(event, *amount, holders),
            EventKind::Paused { .. } | EventKind::Unpaused => Ok(()),
            EventKind::Opened {
                params,
                amount,
                from_balance,
            } => self.opened(event, params, *amount, *from_balance),
            EventKind::ToppedUp {
                channel,
                amount,
                funded,
                ..
            } => self.topped_up(event, channel, *amount, *funded),
            EventKind::CloseRequested { channel, closes_at, .. } => {
                // The event says when the period ends, not when it began.
                self.step(event, channel, |state| state.close_requested(*closes_at, 0))
                    .map(drop)
            }
            EventKind::CloseCancelled { channel, .. } => {
                self.step(event, channel, ChannelState::close_cancelled).map(drop)
            }
            EventKind::Closed { channel, remainder, .. } => self.closed(event, channel, *remainder),
            EventKind::Redeemed { .. } => self.redeemed(event, fee_recipient),
        }
    }

    /// Takes a channel one step further, as the escrow does; returns it as it was.
    fn step(
        &mut self,
        event: &ChainEvent,
        id: &ChannelId,
        step: impl FnOnce(ChannelState) -> Result<ChannelState, StepError>,
    ) -> Result<MirroredChannel, Error> {
        let channel = self.channels.get_mut(id);
        let channel = channel.ok_or_else(|| impossible(event, "a channel that was never opened"))?;
        let before = *channel;
        channel.state = step(before.state).map_err(|refused| impossible(event, &refused.to_string()))?;
        Ok(before)
    }

    fn opened(
        &mut self,
        event: &ChainEvent,
        params: &ChannelParams,
        amount: MicroDollars,
        from_balance: bool,
    ) -> Result<(), Error> {
        let id = params.id();
        if self.channels.contains_key(&id) {
            return Err(impossible(event, "a channel that was opened twice"));
        }
        if from_balance {
            take(&mut self.balances, params.payer, amount, event)?;
        }
        let channel = MirroredChannel {
            params: *params,
            state: ChannelState::opened(amount),
            opened_block: event.block,
        };
        self.channels.insert(id, channel);
        Ok(())
    }

    fn topped_up(
        &mut self,
        event: &ChainEvent,
        id: &ChannelId,
        amount: MicroDollars,
        funded: MicroDollars,
    ) -> Result<(), Error> {
        let before = self.step(event, id, |state| state.topped_up(amount))?;
        if before.state.funded.checked_add(amount) != Some(funded) {
            return Err(impossible(event, "a top-up of another amount"));
        }
        take(&mut self.balances, before.params.payer, amount, event)
    }

    fn closed(&mut self, event: &ChainEvent, id: &ChannelId, remainder: MicroDollars) -> Result<(), Error> {
        let before = self.step(event, id, |state| Ok(state.close()?.0))?;
        if before.state.remainder() != remainder {
            return Err(impossible(event, "a close with another remainder"));
        }
        add(&mut self.balances, before.params.payer, remainder, event)
    }

    fn redeemed(&mut self, event: &ChainEvent, fee_recipient: Address) -> Result<(), Error> {
        let EventKind::Redeemed {
            amount,
            royalty,
            fee,
            channels,
            royalties,
            fees,
            ..
        } = &event.kind
        else {
            return Ok(());
        };
        let mut paid = 0u128;
        for (id, total) in channels {
            let before = self.step(event, id, |state| Ok(state.paid(*total, *total).0))?.state;
            if before.payable(*total, *total) == MicroDollars::ZERO || *total > before.funded {
                return Err(impossible(event, "a channel that paid more than it holds, or nothing"));
            }
            paid = paid.saturating_add(total.saturating_sub(before.redeemed).get());
        }
        for (parts, whole) in [(royalties, royalty), (fees, fee)] {
            let credited = parts.iter().map(|(_, part)| part.get());
            if credited.fold(0, u128::saturating_add) != whole.get() {
                return Err(impossible(event, "royalties or fees that do not sum up"));
            }
        }
        if amount.get().saturating_add(royalty.get()).saturating_add(fee.get()) != paid {
            return Err(impossible(event, "a payment whose parts are not the whole"));
        }
        for (holder, part) in royalties {
            add(&mut self.credits, *holder, *part, event)?;
        }
        for (holder, part) in fees {
            let beside = if holder.is_zero() { fee_recipient } else { *holder };
            add(&mut self.fees, beside, *part, event)?;
        }
        Ok(())
    }

    fn fees_claimed(&mut self, event: &ChainEvent, amount: MicroDollars, holders: &[Address]) -> Result<(), Error> {
        let taken = holders.iter().filter_map(|holder| self.fees.remove(holder));
        let taken = taken.fold(0, |sum: u128, part| sum.saturating_add(part.get()));
        if taken != amount.get() {
            return Err(impossible(event, "fees that are not those that were credited"));
        }
        Ok(())
    }
}

fn add(
    books: &mut BTreeMap<Address, MicroDollars>,
    account: Address,
    amount: MicroDollars,
    event: &ChainEvent,
) -> Result<(), Error> {
    let before = books.get(&account).copied().unwrap_or_default();
    let after = before.checked_add(amount);
    let after = after.ok_or_else(|| impossible(event, "more money than there is"))?;
    if after > MicroDollars::ZERO {
        books.insert(account, after);
    }
    Ok(())
}

fn take(
    books: &mut BTreeMap<Address, MicroDollars>,
    account: Address,
    amount: MicroDollars,
    event: &ChainEvent,
) -> Result<(), Error> {
    let before = books.get(&account).copied().unwrap_or_default();
    let after = before.checked_sub(amount);
    let after = after.ok_or_else(|| impossible(event, "money taken that was not there"))?;
    if after == MicroDollars::ZERO {
        books.remove(&account);
    } else {
        books.insert(account, after);
    }
    Ok(())
}
