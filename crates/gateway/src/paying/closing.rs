//! The end of channels: those nobody uses, those that the owner wants closed, and those with a dispute.

use std::sync::Arc;

use rialto_protocol::{ChannelId, MicroDollars, NanoDollars};

use super::{
    Channel, Ledger, funding,
    relay::{self, OpenError},
    reopen,
};
use crate::{
    Error,
    store::{ChannelRow, ChannelStatus, now},
};

/// For how long a channel whose opening got no answer is looked for on chain at every turn, in seconds; and the pause
/// between two looks after that. It is never forgotten: a transaction has no deadline, and whoever forgot the channel's
/// salt could not close it.
const OPENING_PATIENCE: u64 = 3_600;

/// Requests that a channel closes; returns when that can be finalised, in seconds since 1970 by the chain's clock.
async fn request_close(ledger: &Ledger, channel: ChannelId) -> Result<u64, Error> {
    let (store, wallet) = (&ledger.store, &ledger.wallet);
    let row = store.channel(channel).await?;
    let row = row.ok_or_else(|| Error::Settlement(format!("there is no channel {channel} in the store")))?;
    let settled = |error: rialto_settlement::Error| funding::explain(&error, MicroDollars::ZERO);
    let state = wallet.chain().channel(channel).await.map_err(settled)?;
    if state.closed {
        store.set_channel(channel, ChannelStatus::Closed, 0).await?;
        return Ok(0);
    }
    // Noted first: nothing more may be signed once the provider sees the request.
    store
        .set_channel(channel, ChannelStatus::Closing, state.closes_at)
        .await?;
    if state.closes_at > 0 {
        return Ok(state.closes_at);
    }
    if let Err(error) = relay::request_close(ledger, &row.params).await {
        if !matches!(error, OpenError::Unknown(_)) {
            store.set_channel(channel, row.status, row.closes_at).await?;
        }
        return Err(error.explained(MicroDollars::ZERO));
    }
    let state = wallet.chain().channel(channel).await.map_err(settled)?;
    store
        .set_channel(channel, ChannelStatus::Closing, state.closes_at)
        .await?;
    tracing::info!(%channel, closes_at = state.closes_at, "close requested");
    Ok(state.closes_at)
}

/// Finalises every requested close that is due; returns the channels that are closed now. Their remainders are in the
/// escrow's free balance.
///
/// One channel that fails does not keep the others waiting; an error is returned only when none was closed.
async fn finalise_due(ledger: &Ledger) -> Result<Vec<ChannelId>, Error> {
    let mut closed = Vec::new();
    let mut failed = None;
    for row in ledger.store.live_channels().await? {
        if row.status != ChannelStatus::Closing {
            continue;
        }
        match finalise(ledger, &row).await {
            Ok(true) => closed.push(row.id),
            Ok(false) => {}
            Err(error) => {
                tracing::warn!(channel = %row.id, %error, "a channel could not be closed");
                let nobody_answers = matches!(error, Error::ChainUnreachable(_));
                failed.get_or_insert(error);
                if nobody_answers {
                    break;
                }
            }
        }
    }
    match failed {
        Some(error) if closed.is_empty() => Err(error),
        _ => Ok(closed),
    }
}

/// Takes one close further: asks for it if the chain does not know of it, finalises it if that is due. Returns whether
/// the channel is closed now.
async fn finalise(ledger: &Ledger, row: &ChannelRow) -> Result<bool, Error> {
    let (store, wallet) = (&ledger.store, &ledger.wallet);
    let settled = |error: rialto_settlement::Error| funding::explain(&error, MicroDollars::ZERO);
    let state = wallet.chain().channel(row.id).await.map_err(settled)?;
    if !state.closed {
        if !state.is_open() {
            // A reorganisation dropped it; if it comes back, it is closed then.
            return Ok(false);
        }
        if state.closes_at == 0 {
            // The transaction that should have asked for it was lost.
            let asked = relay::request_close(ledger, &row.params).await;
            asked.map_err(|error| error.explained(MicroDollars::ZERO))?;
            let state = wallet.chain().channel(row.id).await.map_err(settled)?;
            store
                .set_channel(row.id, ChannelStatus::Closing, state.closes_at)
                .await?;
            tracing::info!(channel = %row.id, closes_at = state.closes_at, "close requested again");
            return Ok(false);
        }
        if wallet.chain().block_time().await.map_err(settled)? < state.closes_at {
            return Ok(false);
        }
        let finalised = relay::finalize_close(ledger, &row.params).await;
        finalised.map_err(|error| error.explained(MicroDollars::ZERO))?;
    }
    store.set_channel(row.id, ChannelStatus::Closed, 0).await?;
    store.void_requests(row.id).await?;
    tracing::info!(channel = %row.id, returned = %state.remainder(), "channel closed");
    Ok(true)
}

impl Ledger {
    /// Looks after all channels once: adopts, closes, finalises, and notices what others did to them.
    pub(crate) async fn tend(self: &Arc<Self>) -> Result<(), Error> {
        let mut failed = None;
        match self.follow().await {
            Ok(_) => {}
            Err(error @ Error::ChainUnreachable(_)) => return Err(error),
            // Closes must not wait for it.
            Err(error) => failed = Some(error),
        }
        for channel in self.all() {
            if let Err(error) = self.synchronise(&channel).await {
                if matches!(error, Error::ChainUnreachable(_)) {
                    return Err(error);
                }
                tracing::warn!(channel = %channel.id, %error, "a channel could not be looked up");
                failed.get_or_insert(error);
            }
        }
        let now = now();
        for channel in self.all() {
            let status = channel.status();
            let unused =
                status == ChannelStatus::Open && channel.idle(now) >= self.config.timeouts.idle_channel_seconds;
            let disputed = status == ChannelStatus::Disputed && channel.account().active() == 0;
            if (unused || disputed)
                && let Err(error) = self.close(&channel).await
            {
                tracing::warn!(channel = %channel.id, %error, "a close could not be requested");
                failed.get_or_insert(error);
            }
        }
        for id in finalise_due(self).await? {
            self.remove(id);
        }
        failed.map_or(Ok(()), Err)
    }

    /// Requests that a channel closes. Nothing is signed on it any more; requests under way end where they are paid to.
    pub(crate) async fn close(&self, channel: &Channel) -> Result<u64, Error> {
        let before = channel.status();
        self.note_closing();
        channel.set_status(ChannelStatus::Closing);
        let asked = request_close(self, channel.id).await;
        if asked.is_err() {
            // A transaction whose outcome is not known may still close the channel: then the store says so.
            let row = self.store.channel(channel.id).await;
            let noted = row.ok().flatten().map(|row| row.status);
            let closing = noted.filter(|status| matches!(status, ChannelStatus::Closing | ChannelStatus::Closed));
            channel.set_status(closing.unwrap_or(before));
        }
        asked
    }

    /// Compares a channel with the store, which the command line writes too, and with the chain.
    async fn synchronise(&self, channel: &Arc<Channel>) -> Result<(), Error> {
        let Some(row) = self.store.channel(channel.id).await? else {
            return Ok(());
        };
        if matches!(row.status, ChannelStatus::Closing | ChannelStatus::Closed) && channel.status() != row.status {
            self.note_closing();
            channel.set_status(row.status);
        }
        if channel.is_on_credit() {
            // It is being looked for.
            return Ok(());
        }
        if row.status == ChannelStatus::Opening {
            return self.find_opening(channel, &row).await;
        }
        let settled = |error: rialto_settlement::Error| funding::explain(&error, MicroDollars::ZERO);
        let state = self.wallet.chain().channel(channel.id).await.map_err(settled)?;
        if (state.closed || state.closes_at > 0) && row.status == ChannelStatus::Open {
            self.note_closing();
        }
        if state.closed {
            channel.set_status(ChannelStatus::Closed);
            self.store.set_channel(channel.id, ChannelStatus::Closed, 0).await?;
            self.store.void_requests(channel.id).await?;
            self.remove(channel.id);
        } else if state.closes_at > 0 && row.status == ChannelStatus::Open {
            channel.set_status(ChannelStatus::Closing);
            self.store
                .set_channel(channel.id, ChannelStatus::Closing, state.closes_at)
                .await?;
        } else if !state.is_open() {
            if row.status == ChannelStatus::Open {
                reopen::lose(self, channel).await?;
            }
        } else if state.funded > channel.funded() {
            funding::note_funds(self, channel, state.funded).await?;
        } else if state.funded < channel.funded() {
            reopen::shrink(self, channel, &state).await?;
        }
        Ok(())
    }

    /// Looks for a channel that is not open yet, or not any more. One on which nothing was promised is looked for rarely
    /// after a while; one on which something was is opened again, at the second look: its first transaction may come
    /// back.
    async fn find_opening(&self, channel: &Arc<Channel>, row: &ChannelRow) -> Result<(), Error> {
        let noticed = channel.status() == ChannelStatus::Opening;
        channel.set_status(ChannelStatus::Opening);
        let (owed, now) = (reopen::is_owed(self, channel), now());
        let old = now.saturating_sub(row.opened_at) > OPENING_PATIENCE;
        if old && !owed && !channel.is_look_due(now, OPENING_PATIENCE) {
            return Ok(());
        }
        if !funding::adopt(self, channel).await? && owed {
            let gate = self.gate((channel.params.provider, channel.params.model));
            if noticed && let Ok(_turn) = gate.try_lock() {
                reopen::reopen(self, channel, NanoDollars::ZERO).await?;
            }
        }
        Ok(())
    }

    /// Looks at one channel at once, because its provider said something unexpected about it.
    pub(crate) async fn look_again(&self, channel: &Arc<Channel>) {
        if let Err(error) = self.synchronise(channel).await {
            tracing::debug!(channel = %channel.id, %error, "a channel could not be looked up");
        }
    }
}
