//! The end of a trade: the bill is checked against what arrived, and kept.

use rialto_protocol::{
    NanoDollars, ReceiptStatus, SignedReceipt,
    account::Observed,
    output::FinishReason,
    wire::{Refusal, RefusalCode},
};

use super::{Deal, tally::Tally};
use crate::{book::remember, buying::Bill, desk::Desk, paying::Channel, routing::Penalty, store::ChannelStatus};

/// Checks the receipt, keeps it, and says what the client is told.
///
/// The client gets its answer even when the bill is wrong: then the provider is distrusted, the channel is closed, and
/// the key is charged what arrived.
pub(super) async fn finish(
    desk: &Desk,
    deal: &Deal,
    channel: &Channel,
    tally: &Tally,
    end: (FinishReason, &SignedReceipt, Option<Refusal>),
) -> Bill {
    let (reason, signed, failure) = end;
    let price = deal.seller.offer.price;
    let whole = signed.receipt.status == ReceiptStatus::Complete;
    let observed = Observed {
        price,
        request_hash: deal.job.hash(deal.request),
        usage: tally.usage(),
        response_hash: whole.then(|| tally.hash()),
    };
    let about_this = signed.receipt.request == deal.request;
    let checked = if about_this {
        channel
            .account()
            .settle(signed, Some(&observed), &desk.ledger.domain)
            .map_err(|error| error.to_string())
    } else {
        Err("the receipt is for another request".to_owned())
    };
    let failure = failure.map(public_failure);
    match checked {
        Ok(()) => {
            if let Err(error) = desk.store.settle_request(signed).await {
                tracing::error!(request = %deal.request, %error, "a receipt could not be kept");
            }
            Bill {
                reason,
                usage: signed.receipt.usage,
                cost: signed.receipt.cost,
                sequence: Some(signed.receipt.sequence),
                failure,
            }
        }
        Err(complaint) => {
            let cost = price.cost(tally.usage());
            dispute(desk, deal, channel, &complaint).await;
            channel.account().interrupt(deal.request, tally.usage());
            if about_this && let Err(error) = desk.store.settle_disputed(signed, cost, &complaint).await {
                tracing::error!(request = %deal.request, %error, "a disputed receipt could not be kept");
            }
            Bill {
                reason,
                usage: tally.usage(),
                cost,
                sequence: None,
                failure,
            }
        }
    }
}

/// Notes that a provider billed wrongly: it is not asked again, and its channel is closed.
pub(super) async fn dispute(desk: &Desk, deal: &Deal, channel: &Channel, complaint: &str) {
    let provider = deal.seller.offer.provider;
    tracing::warn!(%provider, channel = %channel.id, request = %deal.request, complaint, "the bill is wrong");
    deal.seller.record.punish(Penalty::Cheated);
    desk.metrics.disputes.inc();
    channel.set_status(ChannelStatus::Disputed);
    if let Err(error) = desk.store.set_channel(channel.id, ChannelStatus::Disputed, 0).await {
        tracing::error!(channel = %channel.id, %error, "a dispute could not be noted");
    }
    // At once: a restart must not make it a seller like any other.
    if let Err(error) = remember(desk).await {
        tracing::error!(%provider, %error, "a cheat could not be noted");
    }
}

/// Notes that a request ended without a receipt. What it had reserved stays spoken for until the receipt comes.
pub(super) async fn interrupt(desk: &Desk, deal: &Deal, channel: &Channel, tally: &Tally) -> NanoDollars {
    let reserved = channel.account().interrupt(deal.request, tally.usage());
    if let Err(error) = desk.store.interrupt_request(deal.request, tally.usage()).await {
        tracing::error!(request = %deal.request, %error, "an interruption could not be noted");
    }
    reserved.unwrap_or(NanoDollars::ZERO)
}

/// A provider's words about its own failure, shortened for the client.
fn public_failure(refusal: Refusal) -> String {
    match refusal.code {
        RefusalCode::PaymentTimeout => "the payment did not arrive in time".to_owned(),
        RefusalCode::ShuttingDown => "it is stopping".to_owned(),
        _ => refusal.message.chars().filter(|c| !c.is_control()).take(200).collect(),
    }
}
