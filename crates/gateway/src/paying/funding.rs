//! Money into channels: what is in the escrow first, then what is in the wallet.

use std::sync::Arc;

use rialto_protocol::{ChannelParams, Digest, MicroDollars, ModelId, NanoDollars, account::BuyerAccount};
use rialto_settlement::{Error as ChainError, Funds};
use tokio::sync::MutexGuard;

use super::{
    Channel, Ledger,
    aside::SetAside,
    credit::{self, Opened},
    relay::{self, OpenError},
    reopen,
};
use crate::{
    Error,
    store::{ChannelStatus, Parties, now},
};

/// A channel with so much free: an existing one filled up, or a new one, in which that much is free once the chain knows
/// it, and before that at least what is needed at once.
pub(super) async fn provide(
    ledger: &Arc<Ledger>,
    parties: Parties,
    listing: &str,
    needed: NanoDollars,
    at_once: NanoDollars,
) -> Result<Arc<Channel>, Error> {
    for channel in ledger.of(parties) {
        if channel.status() == ChannelStatus::Opening {
            if !adopt(ledger, &channel).await? && reopen::is_repeatable(ledger, &channel) {
                open_again(ledger, &channel, needed).await?;
            }
            if channel.free().is_some_and(|free| free >= needed) {
                return Ok(channel);
            }
        }
    }
    for channel in ledger.of(parties) {
        let room = ledger.config.max_channel.saturating_sub(channel.funded());
        let fits = channel
            .free()
            .is_some_and(|free| needed.saturating_sub(free) <= room.to_nano());
        if fits && top_up(ledger, &channel, needed).await.is_ok() {
            return Ok(channel);
        }
    }
    open(ledger, parties, listing, needed, at_once).await
}

/// Opens a channel that is not on the chain once more. One that was promised money may be beyond help, and another is
/// opened beside it; one that was promised nothing is never replaced: a seller that keeps orders to itself would get
/// one for each request, and could send them all.
async fn open_again(ledger: &Ledger, channel: &Channel, needed: NanoDollars) -> Result<(), Error> {
    match reopen::reopen(ledger, channel, needed).await {
        Err(error) if reopen::is_owed(ledger, channel) && !matches!(error, Error::ChainUnreachable(_)) => {
            tracing::warn!(channel = %channel.id, %error, "a channel could not be opened again");
            Ok(())
        }
        other => other,
    }
}

/// Opens a channel. It is noted before its transaction is sent, so that its money is found again after a crash.
async fn open(
    ledger: &Arc<Ledger>,
    (provider, model): Parties,
    listing: &str,
    needed: NanoDollars,
    at_once: NanoDollars,
) -> Result<Arc<Channel>, Error> {
    let least = needed.round_up().unwrap_or(MicroDollars::MAX);
    if least > ledger.config.max_channel {
        return Err(Error::DepositExhausted {
            needed: least,
            reason: format!("a channel may hold at most {}", ledger.config.max_channel),
        });
    }
    check_registered(ledger, model).await?;
    let purse = Purse::look(ledger).await?;
    let amount = purse.affordable(least, ledger.amount(needed).min(ledger.config.max_channel))?;
    let salt = rand::random::<u128>() & ((1 << 96) - 1);
    let params = ChannelParams {
        payer: ledger.wallet.address(),
        signer: ledger.session.address(),
        provider,
        model,
        token: ledger.wallet.chain().contracts().token,
        salt,
    };
    ledger.store.begin_channel(&params, listing, amount).await?;
    let channel = Arc::new(Channel::new(
        BuyerAccount::new(params, amount),
        ChannelStatus::Opening,
        now(),
    ));
    ledger.add(Arc::clone(&channel));
    let opened = if purse.gasless {
        match credit::begin(ledger, &channel, amount, at_once, purse).await {
            Ok(Opened::OnCredit) => return Ok(channel),
            Ok(Opened::Known(transaction)) => Ok(transaction),
            Err(error) => Err(error),
        }
    } else {
        purse.open(ledger, &params, amount).await
    };
    match opened {
        Ok(transaction) => {
            ledger.store.set_channel(channel.id, ChannelStatus::Open, 0).await?;
            channel.set_status(ChannelStatus::Open);
            tracing::info!(channel = %channel.id, %provider, %amount, %transaction, "channel opened");
            Ok(channel)
        }
        Err(OpenError::Unknown(error)) => {
            tracing::warn!(channel = %channel.id, %error, "it is not known yet whether a channel was opened");
            Err(error)
        }
        Err(OpenError::NotSent(error)) => {
            ledger.store.forget_channel(channel.id).await?;
            ledger.remove(channel.id);
            Err(explain(&error, amount))
        }
    }
}

/// The escrow opens a channel for any model, and pays no royalty for one that nobody registered: such a one is not
/// bought.
async fn check_registered(ledger: &Ledger, model: ModelId) -> Result<(), Error> {
    let royalty = ledger.wallet.chain().royalty_of(model).await;
    let royalty = royalty.map_err(|error| explain(&error, MicroDollars::ZERO))?;
    match royalty {
        Some(_) => Ok(()),
        None => Err(Error::Settlement(format!(
            "the model {model} is not registered on the chain"
        ))),
    }
}

/// Looks up whether a channel that was being opened exists by now, or did: then it stands where the chain says.
pub(super) async fn adopt(ledger: &Ledger, channel: &Channel) -> Result<bool, Error> {
    let state = ledger
        .wallet
        .chain()
        .channel(channel.id)
        .await
        .map_err(|error| explain(&error, MicroDollars::ZERO))?;
    if state.closed {
        channel.set_status(ChannelStatus::Closed);
        ledger.store.set_channel(channel.id, ChannelStatus::Closed, 0).await?;
        ledger.store.void_requests(channel.id).await?;
        ledger.remove(channel.id);
        return Ok(true);
    }
    if !state.is_open() {
        return Ok(false);
    }
    reopen::correct_funds(ledger, channel, state.funded).await?;
    let status = match state.closes_at {
        0 => ChannelStatus::Open,
        _ => ChannelStatus::Closing,
    };
    ledger.store.set_channel(channel.id, status, state.closes_at).await?;
    channel.set_status(status);
    tracing::info!(channel = %channel.id, funded = %state.funded, "a channel of an earlier attempt is open");
    Ok(true)
}

/// Adds money to a channel so that `needed` is free in it.
pub(super) async fn top_up(ledger: &Ledger, channel: &Channel, needed: NanoDollars) -> Result<(), Error> {
    let not_open = || Error::Settlement("the channel is not open".into());
    channel.free().ok_or_else(not_open)?;
    // An earlier top-up whose outcome was not known may have arrived.
    let chain = ledger.wallet.chain();
    let state = chain
        .channel(channel.id)
        .await
        .map_err(|error| explain(&error, MicroDollars::ZERO))?;
    if state.funded > channel.funded() {
        note_funds(ledger, channel, state.funded).await?;
    }
    let free = channel.free().ok_or_else(not_open)?;
    if free >= needed {
        return Ok(());
    }
    let least = needed
        .saturating_sub(free)
        .round_up()
        .unwrap_or(MicroDollars::MAX)
        .max(MicroDollars::new(1));
    let room = ledger.config.max_channel.saturating_sub(channel.funded());
    if least > room {
        return Err(Error::DepositExhausted {
            needed: least,
            reason: format!("a channel may hold at most {}", ledger.config.max_channel),
        });
    }
    let purse = Purse::look(ledger).await?;
    if purse.gasless {
        return Err(Error::Settlement(
            "a channel cannot be filled up without a coin for gas: another is opened instead".into(),
        ));
    }
    let amount = purse.affordable(least, ledger.amount(needed.saturating_sub(free)).min(room))?;
    if purse.free < amount {
        let missing = amount.saturating_sub(purse.free);
        ledger
            .wallet
            .deposit(missing)
            .await
            .map_err(|error| explain(&error, missing))?;
    }
    ledger
        .wallet
        .top_up(&channel.params, amount)
        .await
        .map_err(|error| explain(&error, amount))?;
    // Not added to the ledger's own number: whoever looked at the chain meanwhile may have counted this money already,
    // and money that is not there must never be signed for.
    let sure = state.funded.checked_add(amount).unwrap_or(MicroDollars::MAX);
    let seen = chain.channel(channel.id).await;
    let funded = seen.map_or(sure, |state| state.funded.max(sure));
    note_funds(ledger, channel, funded).await?;
    tracing::info!(channel = %channel.id, %amount, %funded, "channel topped up");
    Ok(())
}

/// Notes what a channel holds: on disk first, so that nothing is signed on money that a crash would forget.
pub(super) async fn note_funds(ledger: &Ledger, channel: &Channel, funded: MicroDollars) -> Result<(), Error> {
    ledger.store.set_funded(channel.id, funded).await?;
    channel.account().set_funded(funded);
    Ok(())
}

/// Where money can come from. No other channel gets money while this is held.
pub(super) struct Purse<'ledger> {
    /// The free balance in the escrow.
    free: MicroDollars,
    /// The stablecoin in the wallet.
    tokens: MicroDollars,
    /// Whether the sellers send what the payer signs. Then a channel's money comes from one place alone.
    gasless: bool,
    /// `None` in tests alone.
    turn: Option<MutexGuard<'ledger, ()>>,
}

impl<'ledger> Purse<'ledger> {
    /// Whether the sellers send what the payer signs.
    pub(super) fn is_gasless(&self) -> bool {
        self.gasless
    }

    /// Opens a channel with so much: out of the free balance if that is enough.
    pub(super) async fn open(
        self,
        ledger: &Ledger,
        params: &ChannelParams,
        amount: MicroDollars,
    ) -> Result<Digest, OpenError> {
        if self.gasless {
            let (funds, _until_done) = self.set_aside(ledger, params, amount);
            return relay::open(ledger, params, amount, funds).await;
        }
        let send = async {
            if self.free >= amount {
                return ledger.wallet.open(params, amount).await;
            }
            if self.tokens >= amount {
                return ledger.wallet.deposit_and_open(params, amount).await;
            }
            ledger.wallet.deposit(amount.saturating_sub(self.free)).await?;
            ledger.wallet.open(params, amount).await
        };
        Ok(send.await?.transaction)
    }

    /// Sets the money of a channel aside that its seller opens, and lets the next one have a look: a seller that takes its
    /// time keeps nobody else waiting.
    pub(super) fn set_aside(self, ledger: &Ledger, params: &ChannelParams, amount: MicroDollars) -> (Funds, SetAside) {
        let funds = match self.free >= amount {
            true => Funds::FreeBalance,
            false => Funds::Account,
        };
        let aside = ledger.aside.set(params.id(), funds, amount);
        drop(self.turn);
        (funds, aside)
    }

    /// Waits for its turn and looks what there is, without what orders under way will take.
    pub(super) async fn look(ledger: &'ledger Ledger) -> Result<Self, Error> {
        let turn = ledger.purse.lock().await;
        let (chain, payer) = (ledger.wallet.chain(), ledger.wallet.address());
        let left = |held: MicroDollars, place| held.saturating_sub(ledger.aside.of(place));
        let look = async {
            Ok(Self {
                free: left(chain.free_balance(payer).await?, Funds::FreeBalance),
                tokens: left(chain.token_balance(payer).await?, Funds::Account),
                gasless: relay::is_needed(ledger).await?,
                turn: Some(turn),
            })
        };
        look.await
            .map_err(|error: ChainError| explain(&error, MicroDollars::ZERO))
    }

    /// As much of `wanted` as there is, but not less than `least`.
    pub(super) fn affordable(&self, least: MicroDollars, wanted: MicroDollars) -> Result<MicroDollars, Error> {
        let all = match self.gasless {
            // One signature moves money of one place; a channel with less than wanted is better than none.
            true => match self.free >= wanted {
                true => self.free,
                false => self.free.max(self.tokens),
            },
            false => self.free.checked_add(self.tokens).unwrap_or(MicroDollars::MAX),
        };
        if all < least {
            return Err(Error::DepositExhausted {
                needed: least,
                reason: format!("{} is free in the escrow, {} is in the wallet", self.free, self.tokens),
            });
        }
        Ok(wanted.min(all))
    }
}

/// What an error of the chain means for a request that needs a channel.
pub(super) fn explain(error: &ChainError, needed: MicroDollars) -> Error {
    match error {
        ChainError::Unreachable { reason } => Error::ChainUnreachable(reason.clone()),
        ChainError::InsufficientFunds { .. } => Error::DepositExhausted {
            needed,
            reason: error.to_string(),
        },
        other => Error::Settlement(other.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn purse(free: u64, tokens: u64, gasless: bool) -> Purse<'static> {
        Purse {
            free: MicroDollars::new(free),
            tokens: MicroDollars::new(tokens),
            gasless,
            turn: None,
        }
    }

    #[test]
    fn without_a_coin_a_channels_money_comes_from_one_place() {
        let take = |free, tokens, gasless, least, wanted| {
            let (least, wanted) = (MicroDollars::new(least), MicroDollars::new(wanted));
            let amount = purse(free, tokens, gasless).affordable(least, wanted).ok();
            amount.map(MicroDollars::get)
        };
        assert_eq!(take(60, 50, false, 100, 110), Some(110), "two transactions take both");
        assert_eq!(take(60, 50, true, 61, 110), None, "one signature does not");
        assert_eq!(
            take(60, 50, true, 55, 110),
            Some(60),
            "less than wanted is better than none"
        );
        assert_eq!(take(60, 200, true, 55, 110), Some(110), "the account has it all");
        assert_eq!(take(120, 200, true, 55, 110), Some(110));
    }
}
