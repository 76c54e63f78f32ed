//! One trade: a request to one seller, paid for as its answer arrives.

mod catch_up;
mod conversation;
mod dial;
mod settle;
mod tally;

use std::sync::{
    Arc, OnceLock,
    atomic::{AtomicBool, Ordering},
};

use rialto_protocol::{ChannelId, NanoDollars, RequestId, Usage, job::Job, offer::Offer, output::Output};
use tokio::sync::mpsc;

use crate::{
    Error,
    batch::BidInHand,
    buying::{Bill, estimate_input},
    desk::Desk,
    routing::Seller,
};

/// Pieces of an answer that may wait for a slow client.
const BUFFER: usize = 64;

/// What is bought from whom.
pub(crate) struct Deal {
    pub(crate) request: RequestId,
    /// The model's name.
    pub(crate) listing: String,
    pub(crate) job: Arc<Job>,
    /// The API key that pays: its public part.
    pub(crate) key: String,
    pub(crate) idempotency: Option<[u8; 32]>,
    /// The most units of input that may be billed.
    pub(crate) most_input: u64,
    pub(crate) seller: Arc<Seller>,
    /// The bid at whose price it is bought; the seller's offer then has that price.
    pub(crate) bid: Option<Arc<BidInHand>>,
    /// Where it is noted what the trade came to.
    pub(crate) ended: Arc<Ended>,
}

/// What becomes of a trade, for whoever does not listen to it any more.
#[derive(Debug, Default)]
pub(crate) struct Ended {
    asks: AtomicBool,
    outcome: OnceLock<Outcome>,
}

impl Ended {
    /// Notes that the seller is asked now, unless nobody listens.
    fn set_asks(&self) {
        self.asks.store(true, Ordering::SeqCst);
    }

    fn set(&self, outcome: Outcome) {
        // It is told once.
        let _ = self.outcome.set(outcome);
    }

    /// What it came to; until that is known, `most` where the seller was asked.
    pub(crate) fn so_far(&self, most: NanoDollars) -> Outcome {
        let asked = self.asks.load(Ordering::SeqCst);
        let unknown = Outcome {
            cost: if asked { most } else { NanoDollars::ZERO },
            ..Outcome::default()
        };
        self.outcome.get().copied().unwrap_or(unknown)
    }
}

/// What a trade came to.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Outcome {
    pub(crate) channel: ChannelId,
    /// The receipt's number in its channel; `None` if it was not accepted, or comes later.
    pub(crate) sequence: Option<u64>,
    /// What it cost, or the most that may be billed.
    pub(crate) cost: NanoDollars,
}

/// What is paid for before a seller has said anything: the input, as it is estimated, and the first chunk.
pub(crate) fn first_part(offer: &Offer, job: &Job, most_input: u64) -> Usage {
    Usage {
        input: estimate_input(job, most_input),
        output: offer.chunk.min(job.max_output()),
    }
}

/// What happens in a trade. Exactly one of `Finished` and `Failed` comes, and it is the last.
#[derive(Debug)]
pub(crate) enum Event {
    /// The provider took the request; this channel pays.
    Accepted { channel: ChannelId },
    /// A piece of the answer.
    Output(Output),
    /// The answer is whole, or the provider said why it is not.
    Finished(Bill),
    /// The answer broke off.
    Failed {
        error: Error,
        next: Next,
        /// What arrived before that.
        usage: Usage,
        /// The most that may be billed for it.
        cost: NanoDollars,
    },
}

impl Event {
    /// What a trade came to of which this is the last event.
    fn outcome(&self, channel: ChannelId) -> Outcome {
        let (sequence, cost) = match self {
            Self::Finished(bill) => (bill.sequence, bill.cost),
            Self::Failed { cost, .. } => (None, *cost),
            Self::Accepted { .. } | Self::Output(_) => (None, NanoDollars::ZERO),
        };
        Outcome {
            channel,
            sequence,
            cost,
        }
    }

    /// The end of a trade in which nothing arrived.
    fn failed((error, next): (Error, Next)) -> Self {
        Self::Failed {
            error,
            next,
            usage: Usage::default(),
            cost: NanoDollars::ZERO,
        }
    }
}

/// What to do after a failure.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Next {
    /// Another seller may do it.
    Another,
    /// The same seller may do it in a moment.
    SameAgain,
    /// Nobody would.
    Nobody,
}

/// Begins a trade. Dropping the receiver cancels it: what has arrived by then is paid for, and nothing more.
pub(crate) fn begin(desk: Arc<Desk>, deal: Deal) -> mpsc::Receiver<Event> {
    let (sender, receiver) = mpsc::channel(BUFFER);
    let tasks = desk.tasks.clone();
    tasks.spawn(conversation::run(desk, deal, sender));
    receiver
}
