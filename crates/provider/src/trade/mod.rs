//! One trade, from its first frame to its receipt.

mod admit;
mod answer;
mod line;

use std::{sync::Arc, time::Instant};

use rialto_network::Trade;
use rialto_protocol::{
    NodeKey, Usage,
    fingerprint::{Fingerprint, STRIDE, WIDTH},
    wire::{BuyerFrame, Refusal, SellerFrame},
};
use tracing::debug;

use crate::{
    channel::{Bill, cost},
    room::Room,
};

use admit::Admitted;
use answer::Outcome;
use line::{Gone, Line};

/// Why a trade ends before there is anything to bill.
#[derive(Debug)]
pub(crate) enum Stop {
    /// The buyer is told.
    Refuse(Refusal),
    /// There is nobody to tell.
    Gone,
}

impl From<Refusal> for Stop {
    fn from(refusal: Refusal) -> Self {
        Self::Refuse(refusal)
    }
}

impl From<Gone> for Stop {
    fn from(Gone: Gone) -> Self {
        Self::Gone
    }
}

/// Serves one trade to its end.
pub(crate) async fn serve(room: Arc<Room>, peer: NodeKey, trade: Trade<SellerFrame, BuyerFrame>) {
    let arrived = Instant::now();
    let mut line = Line::new(trade, room.config.stall_timeout);
    let admitted = match line.request(room.config.first_frame_timeout).await {
        Ok(request) => admit::admit(&room, *request, &mut line).await,
        Err(Gone) => Err(Stop::Gone),
    };
    match admitted {
        Ok(admitted) => finish(&room, admitted, line, arrived).await,
        Err(Stop::Refuse(refusal)) => {
            room.metrics.refused(refusal.code);
            debug!(%peer, code = ?refusal.code, "refused");
            line.end(&SellerFrame::Refused(refusal)).await;
        }
        Err(Stop::Gone) => line.hang_up(),
    }
}

/// Refuses a trade without reading its request.
pub(crate) async fn refuse(room: Arc<Room>, trade: Trade<SellerFrame, BuyerFrame>, refusal: Refusal) {
    room.metrics.refused(refusal.code);
    let line = Line::new(trade, std::time::Duration::from_secs(1));
    line.end(&SellerFrame::Refused(refusal)).await;
}

/// Does the work of an admitted request, writes its receipt, and hands it over.
async fn finish(room: &Room, admitted: Admitted, mut line: Line, arrived: Instant) {
    let Admitted {
        channel,
        live,
        shelf,
        place,
        drawn,
        prepared,
        open,
        max_output,
    } = admitted;
    let work = answer::Work {
        room,
        channel: &channel,
        place: &place,
        open,
        max_output,
        arrived,
    };
    let outcome = work.perform(prepared, &mut line).await;
    drop(place);
    let usage = billed(&outcome, open.input);
    let (cpu_micros, fingerprint) = outcome.ending.map_or((0, Fingerprint::default()), |ending| {
        (ending.cpu_micros, within(ending.fingerprint, usage.output))
    });
    if let Some(drawn) = drawn {
        drawn.settle(usage);
    }
    let (signed, commit) = channel.settle(Bill {
        request: open.request,
        request_hash: open.request_hash,
        response_hash: outcome.response_hash,
        usage,
        cost: cost(&open, usage),
        status: outcome.status,
        energy_millijoules: shelf.energy.spent(cpu_micros, usage),
        fingerprint,
    });
    let stored = commit.durable().await;
    // Not before: from here on a request with the same id is told from a new one by its receipt in the store.
    drop(live);
    if stored.is_err() {
        // A receipt that is not stored must not be known to anybody: its number would be used again.
        line.hang_up();
        return;
    }
    room.metrics.settled(&signed.receipt);
    debug!(
        request = %open.request,
        model = %signed.receipt.model,
        input = usage.input,
        output = usage.output,
        cost = %signed.receipt.cost,
        status = ?signed.receipt.status,
        "settled"
    );
    let last = SellerFrame::Finished {
        reason: outcome.reason,
        receipt: Box::new(signed),
        failure: outcome.failure,
    };
    line.end(&last).await;
}

/// The marks of what was delivered, and no more of them than there can be: an engine of another make may say anything.
fn within(mut fingerprint: Fingerprint, output: u64) -> Fingerprint {
    let most = usize::try_from(output / u64::from(STRIDE) + 1).unwrap_or(usize::MAX);
    fingerprint
        .marks
        .retain(|mark| u64::from(mark.position) < output && mark.top.len() <= WIDTH);
    fingerprint.marks.truncate(most);
    fingerprint
}

/// Units that are billed: what was delivered, and the input if the engine worked on it. Work that failed on our side
/// before anything was delivered is free, and so is a request that never got a slot.
fn billed(outcome: &Outcome, input: u64) -> Usage {
    let failed = outcome.status == rialto_protocol::ReceiptStatus::Failed;
    if !outcome.began || (failed && !outcome.anything) {
        return Usage::default();
    }
    Usage {
        input,
        output: outcome.delivered,
    }
}
