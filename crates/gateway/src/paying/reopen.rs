//! What a reorganisation of the chain took back: channels that are not there any more, money that is not in them, and
//! closes that did not happen.

use rialto_protocol::{MicroDollars, NanoDollars, channel::ChannelState};
use rialto_settlement::{Error as ChainError, Step, Trail};

use super::{
    Channel, Ledger,
    funding::{self, Purse},
    relay::OpenError,
};
use crate::{
    Error,
    store::{ChannelStatus, now},
};

/// A channel that was found closed in this many seconds is looked at again after a reorganisation. No chain replaces
/// blocks of yesterday.
const CLOSED_LATELY: u64 = 24 * 3_600;

/// Whether a channel that is not on the chain was once, and paid for something: its provider was promised money that it
/// can only take from this very channel.
pub(super) fn is_owed(ledger: &Ledger, channel: &Channel) -> bool {
    channel.params.signer == ledger.session.address() && channel.account().signed() > MicroDollars::ZERO
}

/// Whether the same channel may be opened once more by this gateway's keys. An id opens at most once, so what was sent
/// or signed for it before can only do the same; another salt could lock the same money up twice.
pub(super) fn is_repeatable(ledger: &Ledger, channel: &Channel) -> bool {
    let params = &channel.params;
    params.signer == ledger.session.address() && params.payer == ledger.wallet.address()
}

/// Opens a channel that is not on the chain once more, with what was promised on it and `needed` besides: a
/// reorganisation dropped it, or the first attempt got no answer. It has the same id, so its vouchers and receipts are
/// worth what they were.
pub(super) async fn reopen(ledger: &Ledger, channel: &Channel, needed: NanoDollars) -> Result<(), Error> {
    let (committed, signed) = {
        let account = channel.account();
        (account.committed(), account.signed())
    };
    let least = committed
        .plus(needed)
        .round_up()
        .unwrap_or(MicroDollars::MAX)
        .max(signed);
    if least > ledger.config.max_channel {
        return Err(Error::DepositExhausted {
            needed: least,
            reason: format!("a channel may hold at most {}", ledger.config.max_channel),
        });
    }
    let purse = Purse::look(ledger).await?;
    // A seller sends no order over a channel that is not worth its gas.
    let wanted = match needed {
        NanoDollars::ZERO if !purse.is_gasless() => least,
        // The same amount as at the first attempt: then a wallet goes on with the same transaction.
        _ => least.max(ledger.config.channel_deposit).max(channel.funded()),
    };
    let wanted = wanted.min(ledger.config.max_channel);
    let amount = purse.affordable(least, wanted)?;
    match purse.open(ledger, &channel.params, amount).await {
        Ok(transaction) => {
            correct_funds(ledger, channel, amount).await?;
            ledger.store.set_channel(channel.id, ChannelStatus::Open, 0).await?;
            channel.set_status(ChannelStatus::Open);
            tracing::info!(channel = %channel.id, %amount, %transaction, "channel opened again");
            Ok(())
        }
        // Its first transaction came back after all.
        Err(OpenError::NotSent(error)) if error.revert_name() == Some("ChannelExists") => {
            funding::adopt(ledger, channel).await?;
            Ok(())
        }
        Err(OpenError::Unknown(error)) => {
            // An earlier attempt may have arrived, with another amount.
            if funding::adopt(ledger, channel).await? {
                return Ok(());
            }
            tracing::warn!(channel = %channel.id, %error, "it is not known yet whether a channel was opened again");
            Err(error)
        }
        Err(OpenError::NotSent(error)) => Err(funding::explain(&error, amount)),
    }
}

/// Notes that an open channel is not on the chain: nothing is signed on it until it is there again. What was signed and
/// received is kept.
pub(super) async fn lose(ledger: &Ledger, channel: &Channel) -> Result<(), Error> {
    channel.set_status(ChannelStatus::Opening);
    ledger.store.set_channel(channel.id, ChannelStatus::Opening, 0).await?;
    correct_funds(ledger, channel, MicroDollars::ZERO).await?;
    tracing::warn!(channel = %channel.id, "a channel is not on the chain any more: a reorganisation dropped it");
    Ok(())
}

/// Notes that a channel holds less than it did: a reorganisation dropped a top-up.
pub(super) async fn shrink(ledger: &Ledger, channel: &Channel, state: &ChannelState) -> Result<(), Error> {
    let gate = ledger.gate((channel.params.provider, channel.params.model));
    let Ok(_turn) = gate.try_lock() else {
        // A top-up is under way, and what was read may be from before it.
        return Ok(());
    };
    if state.funded < channel.funded() {
        tracing::warn!(channel = %channel.id, funded = %state.funded, "a channel holds less than it did");
        correct_funds(ledger, channel, state.funded).await?;
    }
    Ok(())
}

/// Notes what the chain says that a channel holds, be it more or less than before.
pub(super) async fn correct_funds(ledger: &Ledger, channel: &Channel, funded: MicroDollars) -> Result<(), Error> {
    // In memory first: nothing may be signed for on money that is not there.
    channel.account().correct_funded(funded);
    ledger.store.correct_funded(channel.id, funded).await
}

impl Ledger {
    /// Follows the chain's blocks; when some were replaced, looks whether closes went with them, and returns `true`.
    /// Opens and top-ups show in the state of the channels, which is to be read then.
    pub(crate) async fn follow(&self) -> Result<bool, Error> {
        let mut replaced = false;
        let chain = self.wallet.chain();
        let settled = |error: ChainError| funding::explain(&error, MicroDollars::ZERO);
        let mut trail = match self.store.trail().await? {
            Some(trail) => trail,
            None => Trail::starting_at(chain.block_number().await.map_err(settled)?),
        };
        loop {
            let (step, next) = trail.step_over(chain).await.map_err(settled)?;
            if let Step::Reorganised { from_block } = step {
                tracing::warn!(from_block, "the chain was reorganised");
                let since = match from_block <= trail.first_block() {
                    true => 0,
                    false => now().saturating_sub(CLOSED_LATELY),
                };
                self.take_back_closes(since).await?;
                replaced = true;
            }
            if next == trail {
                return Ok(replaced);
            }
            self.store.set_trail(&next).await?;
            trail = next;
        }
    }

    /// Whether a channel is waiting to be opened again.
    pub(crate) fn has_lost(&self) -> bool {
        let lost = |channel: &Channel| channel.status() == ChannelStatus::Opening && is_owed(self, channel);
        self.all().iter().any(|channel| lost(channel))
    }

    /// A channel that was closed and is not any more has to be closed again before its money is back.
    async fn take_back_closes(&self, since: u64) -> Result<(), Error> {
        let settled = |error: ChainError| funding::explain(&error, MicroDollars::ZERO);
        for mut row in self.store.closed_since(since).await? {
            let state = self.wallet.chain().channel(row.id).await.map_err(settled)?;
            if state.closed {
                continue;
            }
            tracing::warn!(channel = %row.id, "a reorganisation dropped the close of a channel");
            row.status = ChannelStatus::Closing;
            row.closes_at = state.closes_at;
            self.store.set_channel(row.id, row.status, row.closes_at).await?;
            if self.find(row.id).is_none() {
                self.take_in(&row).await?;
            }
        }
        Ok(())
    }
}
