//! Everything that can happen to a chain, as the journal records it.

use crate::{
    block::{Block, BlockRecord},
    clock::Clock,
    diff::Diff,
};
use serde::{Deserialize, Serialize};

/// One step in the life of a chain. The same value is written to the journal and applied to memory.
#[derive(Debug)]
pub(crate) enum Change {
    /// A block was made; the clock is the one after it.
    Block {
        block: Box<Block>,
        diff: Diff,
        clock: Clock,
    },
    /// A test control set something outside of any block.
    Patch { diff: Diff },
    /// Time was moved.
    Clock { clock: Clock },
    /// All but the first `kept` blocks and patches were taken back, and the clock was set.
    Revert { kept: u64, clock: Clock },
}

/// [`Change`] in the form that is serialised. Variants may be added at the end, never moved.
#[derive(Serialize, Deserialize)]
enum Record {
    Block {
        block: BlockRecord,
        diff: Diff,
        clock: Clock,
    },
    Patch {
        diff: Diff,
    },
    Clock {
        clock: Clock,
    },
    Revert {
        kept: u64,
        clock: Clock,
    },
}

impl Change {
    /// The journal's payload for this change.
    ///
    /// # Errors
    /// None that is known of: every part serialises.
    pub(crate) fn encode(&self) -> Result<Vec<u8>, String> {
        let record = match self {
            Self::Block { block, diff, clock } => Record::Block {
                block: block.record(),
                diff: diff.clone(),
                clock: *clock,
            },
            Self::Patch { diff } => Record::Patch { diff: diff.clone() },
            Self::Clock { clock } => Record::Clock { clock: *clock },
            Self::Revert { kept, clock } => Record::Revert {
                kept: *kept,
                clock: *clock,
            },
        };
        postcard::to_allocvec(&record).map_err(|error| error.to_string())
    }

    /// Reads a payload back.
    ///
    /// # Errors
    /// Says which part is unreadable.
    pub(crate) fn decode(payload: &[u8]) -> Result<Self, String> {
        let (record, rest) = postcard::take_from_bytes::<Record>(payload).map_err(|error| error.to_string())?;
        if !rest.is_empty() {
            return Err("bytes after the end of the record".to_owned());
        }
        Ok(match record {
            Record::Block { block, diff, clock } => Self::Block {
                block: Box::new(block.decode()?),
                diff,
                clock,
            },
            Record::Patch { diff } => Self::Patch { diff },
            Record::Clock { clock } => Self::Clock { clock },
            Record::Revert { kept, clock } => Self::Revert { kept, clock },
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn random_payloads_never_panic(payload: Vec<u8>) {
            let _ = Change::decode(&payload);
        }
    }

    #[test]
    fn a_clock_survives_the_journal() {
        let clock = Clock::default().advance(77, 0).unwrap().fix(9_000_000_000, 3).unwrap();
        let payload = Change::Clock { clock }.encode().unwrap();
        let Change::Clock { clock: read } = Change::decode(&payload).unwrap() else {
            panic!("another change")
        };
        assert_eq!(read, clock);
    }
}
