//! One trade, from its first frame to its receipt.

mod admit;
mod answer;
mod line;

use std::{sync::Arc, time::Instant};

use rialto_network::Trade;
use rialto_protocol::{
    NodeKey, Usage,
    fingerprint::{Fingerprint, STRIDE, WIDTH},
    wire::{BuyerFrame, Refusal, SellerFrame, TradeRequest},
};
use tracing::debug;

use crate::{
    channel::{Bill, cost},
    limits::Pass,
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

/// A trade whose first frame has come.
pub(crate) struct Asked {
    line: Line,
    request: Box<TradeRequest>,
    arrived: Instant,
}

/// Waits for a trade's first frame; `None` when it does not come in time, or is none.
pub(crate) async fn listen(room: &Room, trade: Trade<SellerFrame, BuyerFrame>) -> Option<Asked> {
    let mut line = Line::new(trade, room.config.stall_timeout);
    match line.request(room.config.first_frame_timeout).await {
        Ok(request) => Some(Asked {
            line,
            request,
            arrived: Instant::now(),
        }),
        Err(Gone) => {
            line.hang_up();
            None
        }
    }
}

impl Asked {
    /// Refuses without a look at the request.
    pub(crate) async fn refuse(self, room: &Room, refusal: Refusal) {
        room.metrics.refused(refusal.code);
        self.line.end(&SellerFrame::Refused(refusal)).await;
    }
}

/// Serves one trade to its end.
pub(crate) async fn serve(room: Arc<Room>, peer: NodeKey, pass: &Pass<NodeKey>, asked: Asked) {
    let Asked {
        mut line,
        request,
        arrived,
    } = asked;
    match admit::admit(&room, peer, *request, &mut line).await {
        Ok(admitted) => {
            let usage = finish(&room, admitted, line, arrived).await;
            pass.used(usage.input.saturating_add(usage.output));
        }
        Err(Stop::Refuse(refusal)) => {
            debug!(%peer, code = ?refusal.code, "refused");
            room.metrics.refused(refusal.code);
            line.end(&SellerFrame::Refused(refusal)).await;
        }
        Err(Stop::Gone) => line.hang_up(),
    }
}

/// Does the work of an admitted request, writes its receipt, and hands it over. Returns what was used.
async fn finish(room: &Room, admitted: Admitted, mut line: Line, arrived: Instant) -> Usage {
    let Admitted {
        channel,
        live,
        shelf,
        mut place,
        pass,
        drawn,
        prepared,
        open,
        max_output,
    } = admitted;
    let work = answer::Work {
        room,
        channel: &channel,
        place: &mut place,
        open,
        max_output,
        arrived,
    };
    let outcome = work.perform(prepared, &mut line).await;
    drop(place);
    let usage = billed(&outcome, open.input);
    pass.used(usage.input.saturating_add(usage.output));
    let (cpu_micros, fingerprint) = outcome.ending.map_or((0, Fingerprint::default()), |ending| {
        (ending.cpu_micros, within(ending.fingerprint, usage.output))
    });
    if let Some(drawn) = drawn {
        drawn.settle(usage);
    }
    let energy_millijoules = shelf.energy.spent(cpu_micros, usage);
    shelf.tag.learn(usage, energy_millijoules);
    let (signed, commit) = channel.settle(Bill {
        request: open.request,
        request_hash: open.request_hash,
        response_hash: outcome.response_hash,
        usage,
        cost: cost(&open, usage),
        status: outcome.status,
        energy_millijoules,
        fingerprint,
    });
    let stored = commit.durable().await;
    // Not before: from here on a request with the same id is told from a new one by its receipt in the store.
    drop(live);
    if stored.is_err() {
        // A receipt that is not stored must not be known to anybody: its number would be used again.
        line.hang_up();
        return usage;
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
    usage
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
