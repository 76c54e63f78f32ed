//! A mirror of the escrow: its books rebuilt from its events alone, and kept in step with the chain through
//! reorganisations. Whoever lost its own records finds here what it has on chain.

mod books;
#[cfg(test)]
mod tests;

use std::collections::VecDeque;

use rialto_protocol::Address;

pub use self::books::{EscrowBooks, MirroredChannel};
use crate::{
    Chain, ChainEvent, Error,
    trail::{Step, Trail},
};

/// Events older than this many blocks are folded into the base: a deeper reorganisation costs reading from the start.
const DEPTH: u64 = 256;

/// Looks at the chain that bring nothing before [`Mirror::catch_up`] gives up: it changes under every look.
const MAX_IDLE: usize = 100;

/// The pure part: the books, and what it takes to go back a little.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Ledger {
    fee_recipient: Address,
    /// The books without `recent`.
    base: EscrowBooks,
    /// The first block that is not wholly in `base`.
    base_end: u64,
    /// Events since, in order.
    recent: VecDeque<ChainEvent>,
    books: EscrowBooks,
}

impl Ledger {
    /// Empty books, to be filled from the block in which the escrow was created, or an earlier one.
    pub fn new(fee_recipient: Address) -> Self {
        Self {
            fee_recipient,
            ..Self::default()
        }
    }

    /// The books.
    pub fn books(&self) -> &EscrowBooks {
        &self.books
    }

    /// Books events in the order of the chain. Fails, with the books as they were, if one of them cannot follow from
    /// those before.
    pub fn advance(&mut self, events: Vec<ChainEvent>) -> Result<(), Error> {
        let before = self.recent.len();
        for event in events {
            let booked = self.books.book(&event, self.fee_recipient);
            self.recent.push_back(event);
            if let Err(error) = booked {
                self.recent.truncate(before);
                self.replay()?;
                return Err(error);
            }
        }
        let newest = self.recent.back().map_or(0, |event| event.block);
        self.settle(newest.saturating_sub(DEPTH))
    }

    /// Takes every event from a block on back. Returns `false`, with empty books, if that is further than is
    /// remembered: then everything has to be read again.
    pub fn rewind(&mut self, from_block: u64) -> Result<bool, Error> {
        if from_block < self.base_end {
            *self = Self::new(self.fee_recipient);
            return Ok(false);
        }
        self.recent.retain(|event| event.block < from_block);
        self.replay()?;
        Ok(true)
    }

    /// Makes the books of the base and the recent events.
    fn replay(&mut self) -> Result<(), Error> {
        self.books = self.base.clone();
        for event in &self.recent {
            self.books.book(event, self.fee_recipient)?;
        }
        Ok(())
    }

    /// Folds the events before a block into the base.
    fn settle(&mut self, before: u64) -> Result<(), Error> {
        while let Some(event) = self.recent.pop_front_if(|event| event.block < before) {
            self.base.book(&event, self.fee_recipient)?;
        }
        self.base_end = self.base_end.max(before);
        Ok(())
    }
}

/// The books of one market's escrow, followed on its chain.
#[derive(Debug, Clone)]
pub struct Mirror {
    first: u64,
    trail: Trail,
    ledger: Ledger,
}

impl Mirror {
    /// Begins at a block before which the escrow did nothing; zero always will do. Asks the chain for the recipient of
    /// fees, which never changes.
    pub async fn begin(chain: &Chain, first_block: u64) -> Result<Self, Error> {
        Ok(Self {
            first: first_block,
            trail: Trail::starting_at(first_block),
            ledger: Ledger::new(chain.fee_recipient().await?),
        })
    }

    /// The books as of the last catching up.
    pub fn books(&self) -> &EscrowBooks {
        self.ledger.books()
    }

    /// The first block that is not in the books yet.
    pub fn next_block(&self) -> u64 {
        self.trail.next_block()
    }

    /// Reads until the newest block, through any reorganisation. Call it again after an error: nothing is skipped.
    pub async fn catch_up(&mut self, chain: &Chain) -> Result<(), Error> {
        let mut idle = 0;
        while idle < MAX_IDLE {
            let head = chain.block_number().await?;
            let (step, trail) = self.trail.step(chain).await?;
            match step {
                Step::Forward(events) => {
                    idle += usize::from(trail == self.trail);
                    self.ledger.advance(events)?;
                    self.trail = trail;
                    if self.trail.next_block() > head {
                        return Ok(());
                    }
                }
                Step::Reorganised { from_block } => {
                    idle += 1;
                    tracing::info!(from_block, "the chain was reorganised, its events are read again");
                    self.trail = match self.ledger.rewind(from_block)? {
                        true => trail,
                        false => Trail::starting_at(self.first),
                    };
                }
            }
        }
        Err(Error::Unreachable {
            reason: "the chain changes faster than it can be read".into(),
        })
    }
}
