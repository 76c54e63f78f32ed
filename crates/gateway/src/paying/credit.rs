//! Channels that are used before the chain knows them: their seller sends the order that opens them, and lends what they
//! may pay until then. So the first trade with a new seller waits for no block.
//!
//! Nothing is signed beyond what is lent before the chain shows the channel. In the store it is being opened all the while:
//! a crash leaves what a crash in the middle of any opening leaves, and it is found, or opened again, after the start.

use std::{sync::Arc, time::Duration};

use rialto_protocol::{
    Digest, MicroDollars, NanoDollars,
    order::SignedOrder,
    wire::{OffersRequest, OffersResponse},
};
use tokio::time::Instant;

use super::{
    Channel, Ledger,
    aside::SetAside,
    funding::Purse,
    relay::{self, OpenError},
    reopen,
};
use crate::store::ChannelStatus;

/// How long the chain is looked at for a channel that is used already, and the pause between two looks. Blocks are seconds
/// apart, and fees may have to rise first.
const LOOK: (Duration, Duration) = (Duration::from_secs(120), Duration::from_millis(200));

/// How a channel was opened.
pub(super) enum Opened {
    /// The chain knows it.
    Known(Digest),
    /// It may be used for what its seller lends.
    OnCredit,
}

/// Has a channel opened by its seller, without waiting for the chain if the seller lends what is needed at once.
pub(super) async fn begin(
    ledger: &Arc<Ledger>,
    channel: &Arc<Channel>,
    amount: MicroDollars,
    at_once: NanoDollars,
    purse: Purse<'_>,
) -> Result<Opened, OpenError> {
    let params = &channel.params;
    let (funds, aside) = purse.set_aside(ledger, params, amount);
    let good_until = relay::soon(ledger).await?;
    let order = ledger.wallet.sign_open(params, amount, funds, good_until).await?;
    let Some(credit) = ask(ledger, channel, &order).await.map(|credit| credit.min(amount)) else {
        return relay::carry_open(ledger, params, order, amount)
            .await
            .map(Opened::Known);
    };
    channel.account().correct_funded(credit);
    channel.set_on_credit(true);
    channel.set_status(ChannelStatus::Open);
    tracing::info!(channel = %channel.id, provider = %params.provider, %credit, "a channel is used on credit");
    tokio::spawn(follow(Arc::clone(ledger), Arc::clone(channel), amount, aside));
    if credit.to_nano() < at_once {
        channel.until_known().await.map_err(OpenError::Unknown)?;
    }
    Ok(Opened::OnCredit)
}

/// What the seller lends; `None` if it would rather not, or is too old to know how.
async fn ask(ledger: &Ledger, channel: &Channel, order: &SignedOrder) -> Option<MicroDollars> {
    let peer = ledger.sellers.book.peer_of(channel.params.provider)?;
    let request = OffersRequest::Begin(Box::new(*order));
    match ledger.sellers.node.offers(&peer, &request).await {
        Ok(OffersResponse::Begun { credit }) if credit > MicroDollars::ZERO => Some(credit),
        Ok(other) => {
            tracing::debug!(channel = %channel.id, ?other, "a seller waits for the chain");
            None
        }
        Err(error) => {
            tracing::debug!(channel = %channel.id, %error, "a seller waits for the chain");
            None
        }
    }
}

/// Looks for a channel on the chain until it is there. One that does not come is not used any more, and opened again as
/// one is that a reorganisation dropped.
async fn follow(ledger: Arc<Ledger>, channel: Arc<Channel>, amount: MicroDollars, _until_done: SetAside) {
    let started = Instant::now();
    let mut funded = None;
    while funded.is_none() && started.elapsed() < LOOK.0 {
        tokio::time::sleep(LOOK.1).await;
        match ledger.wallet.chain().channel(channel.id).await {
            Ok(state) if state.is_open() && state.funded >= amount => funded = Some(state.funded),
            Ok(_) => {}
            Err(error) => tracing::debug!(channel = %channel.id, %error, "the chain was not asked"),
        }
    }
    let used = channel.status() == ChannelStatus::Open;
    let noted = match funded {
        Some(funded) => note(&ledger, &channel, funded, used).await,
        None => {
            tracing::warn!(channel = %channel.id, "a channel that was used on credit is not on the chain");
            if used {
                channel.set_status(ChannelStatus::Opening);
            }
            reopen::correct_funds(&ledger, &channel, MicroDollars::ZERO).await
        }
    };
    if let Err(error) = noted {
        tracing::error!(channel = %channel.id, %error, "what a channel holds could not be noted");
    }
    channel.set_on_credit(false);
}

/// Notes that a channel is open; one that is closing, or disputed, stays that.
async fn note(ledger: &Ledger, channel: &Channel, funded: MicroDollars, used: bool) -> Result<(), crate::Error> {
    reopen::correct_funds(ledger, channel, funded).await?;
    if used {
        ledger.store.set_channel(channel.id, ChannelStatus::Open, 0).await?;
    }
    tracing::info!(channel = %channel.id, %funded, "a channel that was used on credit is open");
    Ok(())
}
