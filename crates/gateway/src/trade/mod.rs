//! One trade: a request to one seller, paid for as its answer arrives.

mod catch_up;
mod conversation;
mod settle;
mod tally;

use std::sync::Arc;

use rialto_protocol::{ChannelId, NanoDollars, RequestId, Usage, job::Job, output::Output};
use tokio::sync::mpsc;

use crate::{Error, batch::BidInHand, buying::Bill, desk::Desk, routing::Seller};

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
