//! Following a chain that may change its mind.
//!
//! A block's number says nothing about which block it is. A [`Trail`] remembers the hashes of blocks that were read, so
//! that a follower notices when the chain that it followed was replaced by another, finds the last block that both have
//! in common, and reads again from there. It is plain data: a follower keeps it where it keeps what it learnt from the
//! events, and writes both together.

use alloy::{primitives::U64, rpc::types::Block};
use rialto_protocol::Digest;
use serde::{Deserialize, Serialize};

use crate::{
    Chain, ChainEvent, Error, MAX_EVENT_BLOCKS, abi,
    events::{self},
};

/// The latest blocks of which every one that was looked at is remembered.
const DENSE: usize = 64;
/// Most blocks that are remembered; the older ones are further and further apart.
const MAX_MARKS: usize = 128;

/// A block that was read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
struct Mark {
    block: u64,
    hash: Digest,
}

/// How far a chain was followed, and by which blocks.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Trail {
    /// The first block of all.
    first: u64,
    /// The next block to read.
    next: u64,
    /// Blocks that were read, oldest first.
    marks: Vec<Mark>,
}

/// What a look at the chain brought.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// What the escrow did in the blocks that were added, in order. Empty when nothing happened, and when the node is
    /// behind what was read already.
    Forward(Vec<ChainEvent>),
    /// The blocks from this one on, of which events were given earlier, are not on the chain any more. Whatever was
    /// learnt from them is void; the blocks that replaced them come with the next steps.
    ///
    /// The block may be a little older than the oldest that was really replaced: then events that still stand come
    /// again.
    Reorganised {
        /// The first block of which nothing is to be believed any more.
        from_block: u64,
    },
}

impl Trail {
    /// A trail that begins at a block, nothing of which was read.
    pub fn starting_at(block: u64) -> Self {
        Self {
            first: block,
            next: block,
            marks: Vec::new(),
        }
    }

    /// The first block of all.
    pub fn first_block(&self) -> u64 {
        self.first
    }

    /// The next block to read.
    pub fn next_block(&self) -> u64 {
        self.next
    }

    /// The newest block that was read; `None` before the first.
    pub fn end(&self) -> Option<u64> {
        self.marks.last().map(|mark| mark.block)
    }

    /// Looks at the chain once; returns what happened and the trail to go on with. At most
    /// [`MAX_EVENT_BLOCKS`] blocks are read.
    ///
    /// The caller keeps the new trail only once it has dealt with the step: then nothing is skipped, whatever fails.
    /// Events may come twice, in the order of the chain. Fails as reading does; then nothing has changed.
    pub async fn step(&self, chain: &Chain) -> Result<(Step, Self), Error> {
        self.look(chain, true).await
    }

    /// As [`Self::step`] for those who read the state of contracts instead of their events: no events are fetched, and
    /// the whole way to the newest block is gone at once.
    pub async fn step_over(&self, chain: &Chain) -> Result<(Step, Self), Error> {
        self.look(chain, false).await
    }

    async fn look(&self, chain: &Chain, with_events: bool) -> Result<(Step, Self), Error> {
        let stay = || (Step::Forward(Vec::new()), self.clone());
        let head = chain.link.newest().await?;
        let head = Mark {
            block: head.number,
            hash: abi::digest(head.hash),
        };
        if self.marks.last() == Some(&head) {
            return Ok(stay());
        }
        // A chain that is shorter may only be a node that is behind. It was replaced if a block that both have differs.
        let comparable = self.marks.partition_point(|mark| mark.block <= head.block);
        let newest = self.marks.get(..comparable).and_then(<[Mark]>::last);
        if let Some(mark) = newest {
            match hash_at(chain, mark.block).await? {
                Some(hash) if hash != mark.hash => return self.fork(chain, comparable).await,
                Some(_) if comparable == self.marks.len() => {}
                _ => return Ok(stay()),
            }
        } else if !self.marks.is_empty() || head.block < self.next {
            return Ok(stay());
        }
        let most = if with_events { MAX_EVENT_BLOCKS } else { u64::MAX };
        let last = head.block.min(self.next.saturating_add(most - 1));
        let end = match last == head.block {
            true => head,
            false => match hash_at(chain, last).await? {
                Some(hash) => Mark { block: last, hash },
                None => return Ok(stay()),
            },
        };
        let events = match with_events {
            true => events::read_range(chain, self.next, last).await?,
            false => Vec::new(),
        };
        // If it changed while it was read, nobody knows of which chain the events are: the next look sees it.
        if let Some(mark) = self.marks.last()
            && hash_at(chain, mark.block).await? != Some(mark.hash)
        {
            return Ok(stay());
        }
        if hash_at(chain, end.block).await? != Some(end.hash) {
            return Ok(stay());
        }
        Ok((Step::Forward(events), self.with(end)))
    }

    /// Goes back to the newest block that is remembered and still on the chain; `wrong` counts the marks up to one
    /// that is not.
    async fn fork(&self, chain: &Chain, wrong: usize) -> Result<(Step, Self), Error> {
        let (mut kept, mut lost) = (0, wrong.saturating_sub(1));
        // If a block is on the chain, those before it are too.
        while kept < lost {
            let middle = kept.midpoint(lost);
            let Some(mark) = self.marks.get(middle) else { break };
            if hash_at(chain, mark.block).await? == Some(mark.hash) {
                kept = middle + 1;
            } else {
                lost = middle;
            }
        }
        let marks: Vec<Mark> = self.marks.iter().take(kept).copied().collect();
        let next = marks.last().map_or(self.first, |mark| mark.block.saturating_add(1));
        let trail = Self {
            first: self.first,
            next,
            marks,
        };
        Ok((Step::Reorganised { from_block: next }, trail))
    }

    /// The trail after this block.
    fn with(&self, end: Mark) -> Self {
        let mut trail = self.clone();
        trail.next = end.block.saturating_add(1);
        trail.marks.push(end);
        if trail.marks.len() > MAX_MARKS {
            // Every second of the old ones goes; the older a mark, the oftener that happened around it.
            let old = trail.marks.len() - DENSE;
            let mut index = 0;
            trail.marks.retain(|_| {
                index += 1;
                index > old || index % 2 == 1
            });
        }
        trail
    }
}

/// The hash of a block; `None` if the node does not have it.
async fn hash_at(chain: &Chain, number: u64) -> Result<Option<Digest>, Error> {
    let asked = (U64::from(number), false);
    let block: Option<Block> = chain.link.rpc.request("eth_getBlockByNumber", asked).await?;
    match block {
        Some(block) if block.header.number != number => Err(Error::corrupt("another block than was asked for")),
        found => Ok(found.map(|block| abi::digest(block.header.hash))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mark(block: u64) -> Mark {
        Mark {
            block,
            hash: Digest([7; 32]),
        }
    }

    #[test]
    fn a_trail_stays_short_dense_at_its_end_and_reaches_far_back() {
        let mut trail = Trail::starting_at(5);
        for block in 5..20_000 {
            trail = trail.with(mark(block));
            assert!(trail.marks.len() <= MAX_MARKS);
            assert_eq!(trail.next_block(), block + 1);
        }
        assert_eq!(
            trail.marks.first().unwrap().block,
            5,
            "the first block is remembered for ever"
        );
        let dense: Vec<u64> = trail.marks.iter().rev().take(DENSE).map(|mark| mark.block).collect();
        let expected: Vec<u64> = (20_000 - DENSE as u64..20_000).rev().collect();
        assert_eq!(dense, expected);
        assert!(trail.marks.windows(2).all(|pair| pair[0].block < pair[1].block));
    }
}
