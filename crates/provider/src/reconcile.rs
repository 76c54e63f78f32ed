//! Bringing a buyer's view of a channel and ours together before new work: what a crash cut off is settled, and the
//! receipts that the buyer lacks are collected.

use std::collections::BTreeMap;

use rialto_protocol::{
    RequestId, SignedReceipt, Usage,
    account::{MAX_INTERRUPTIONS, Statement},
    wire::{MAX_CATCH_UP, Refusal, RefusalCode},
};

use crate::{Error, channel::Channel, refusal, store::Store};

/// Most receipts over nothing that are written for one statement. A buyer pays nothing for them, so it gets few at a
/// time; the next statement brings the rest.
const MAX_UNKNOWN: usize = 4;

/// Settles what the statement settles and returns the receipts that the buyer lacks, oldest first.
///
/// The store must be flushed, or a later write be durable, before they are sent.
pub(crate) async fn reconcile(
    channel: &Channel,
    store: &Store,
    statement: &Statement,
    current: &RequestId,
) -> Result<Vec<SignedReceipt>, Refusal> {
    if statement.interrupted.len() > MAX_INTERRUPTIONS {
        return Err(bad("the statement lists too many interrupted requests"));
    }
    let _order = channel.reconciling.lock().await;
    let (sequence, head) = channel.position();
    if statement.sequence > sequence {
        return Err(bad("the statement names receipts that were never written"));
    }
    if statement.sequence == sequence && statement.head != head {
        return Err(bad("the statement's head is not this channel's"));
    }
    let declared: BTreeMap<RequestId, Usage> = statement
        .interrupted
        .iter()
        .map(|interruption| (interruption.request, interruption.usage))
        .collect();
    channel.settle_orphans(&declared);
    settle_unknown(channel, store, &declared, current).map_err(|error| refusal::internal(&error))?;
    let missing = missing(channel, store, statement.sequence)
        .await
        .map_err(|error| refusal::internal(&error))?;
    match missing.first() {
        Some(first) if first.receipt.previous_head != statement.head => {
            Err(bad("the statement's head is not this channel's"))
        }
        _ => Ok(missing),
    }
}

fn settle_unknown(
    channel: &Channel,
    store: &Store,
    declared: &BTreeMap<RequestId, Usage>,
    current: &RequestId,
) -> Result<(), Error> {
    let mut written = 0;
    for request in declared.keys().filter(|request| *request != current) {
        if written == MAX_UNKNOWN {
            break;
        }
        if channel.remembers(request) || store.has_receipt(&channel.id(), request)? {
            continue;
        }
        channel.settle_unknown(*request);
        written += 1;
    }
    Ok(())
}

async fn missing(channel: &Channel, store: &Store, sequence: u64) -> Result<Vec<SignedReceipt>, Error> {
    if let Some(mut recent) = channel.recent_after(sequence) {
        recent.truncate(MAX_CATCH_UP);
        return Ok(recent);
    }
    store.flush().await?;
    store.receipts_after(&channel.id(), sequence, MAX_CATCH_UP).await
}

fn bad(message: &str) -> Refusal {
    Refusal::new(RefusalCode::BadVoucher, message)
}
