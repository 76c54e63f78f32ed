//! Finding logs in a range of blocks.

use crate::{block::Block, chain::Chain, receipt};
use alloy::rpc::types::{Filter, FilterBlockOption, Log};

/// The most logs of one answer.
pub(crate) const MAX_LOGS: usize = 10_000;

/// Why logs could not be listed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum LogsError {
    #[error("query returned more than {MAX_LOGS} results: ask for fewer blocks")]
    TooMany,
    #[error("invalid block range: from {from} is after to {to}")]
    Range { from: u64, to: u64 },
    #[error(transparent)]
    UnknownBlock(#[from] crate::chain::UnknownBlock),
}

/// The blocks that a filter asks for, both included. The newest block stands for any later one.
pub(crate) fn range(chain: &Chain, filter: &Filter) -> Result<(u64, u64), LogsError> {
    match filter.block_option {
        FilterBlockOption::AtBlockHash(hash) => {
            let number = chain.resolve(hash.into())?;
            Ok((number, number))
        }
        FilterBlockOption::Range { from_block, to_block } => {
            let number = |tag: Option<alloy::eips::BlockNumberOrTag>| match tag {
                Some(alloy::eips::BlockNumberOrTag::Number(number)) => number,
                Some(alloy::eips::BlockNumberOrTag::Earliest) => 0,
                _ => chain.height(),
            };
            let (from, to) = (number(from_block), number(to_block));
            // A range that begins after the newest block is empty, not wrong: a poller asks for it all the time.
            if from > to && to_block.is_some_and(|tag| tag.is_number()) {
                return Err(LogsError::Range { from, to });
            }
            Ok((from, to))
        }
    }
}

/// The logs that match `filter`'s addresses and topics in blocks `from` to `to`.
pub(crate) fn find(chain: &Chain, filter: &Filter, from: u64, to: u64) -> Result<Vec<Log>, LogsError> {
    let mut found = Vec::new();
    for block in chain.blocks(from, to) {
        if filter.matches_bloom(block.header().logs_bloom) {
            append(block, filter, &mut found);
        }
        if found.len() > MAX_LOGS {
            return Err(LogsError::TooMany);
        }
    }
    Ok(found)
}

fn append(block: &Block, filter: &Filter, found: &mut Vec<Log>) {
    let logs = (0..block.transactions().len()).flat_map(|index| receipt::logs(block, index));
    found.extend(logs.filter(|log| filter.matches(&log.inner)));
}
