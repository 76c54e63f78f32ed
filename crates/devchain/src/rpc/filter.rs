//! Logs, and filters to poll.

use super::{Answer, error::RpcError, params::Params, show};
use crate::{chain::Chain, filters::Watched, logs, node::Node};
use alloy::{
    primitives::{B256, U64},
    rpc::types::{Filter, FilterBlockOption, Log},
};

pub(super) fn call(node: &Node, method: &str, params: &Params) -> Option<Answer> {
    let answer = match method {
        "eth_getLogs" => params
            .get::<Filter>(0, "filter")
            .and_then(|filter| show(query(&*node.read()?, &filter)?)),
        "eth_newFilter" => params.get::<Filter>(0, "filter").and_then(|filter| {
            // A range that can never match is told now, not at the first poll.
            logs::range(&*node.read()?, &filter)?;
            install(node, Watched::Logs(Box::new(filter)))
        }),
        "eth_newBlockFilter" => install(node, Watched::Blocks),
        "eth_newPendingTransactionFilter" => install(node, Watched::Transactions),
        "eth_getFilterChanges" => params.get(0, "filter id").and_then(|id| changes(node, id)),
        "eth_getFilterLogs" => params.get(0, "filter id").and_then(|id| all_logs(node, id)),
        "eth_uninstallFilter" => params
            .get(0, "filter id")
            .and_then(|id| show(node.filters().uninstall(id))),
        _ => return None,
    };
    Some(answer)
}

fn query(chain: &Chain, filter: &Filter) -> Result<Vec<Log>, RpcError> {
    let (from, to) = logs::range(chain, filter)?;
    Ok(logs::find(chain, filter, from, to)?)
}

fn install(node: &Node, watched: Watched) -> Answer {
    let next = node.read()?.height().saturating_add(1);
    show(node.filters().install(watched, next))
}

fn changes(node: &Node, id: U64) -> Answer {
    let chain = node.read()?;
    let height = chain.height();
    let (watched, from) = node.filters().poll(id, height).ok_or_else(unknown)?;
    let blocks = chain.blocks(from, height);
    match watched {
        Watched::Blocks => show(blocks.iter().map(|block| block.hash()).collect::<Vec<B256>>()),
        Watched::Transactions => {
            let transactions = blocks.iter().flat_map(|block| block.transactions());
            show(transactions.map(|mined| mined.hash()).collect::<Vec<B256>>())
        }
        Watched::Logs(filter) => {
            let (low, high) = bounds(&filter);
            show(logs::find(&chain, &filter, from.max(low), height.min(high))?)
        }
    }
}

/// The numbers that a filter's range names; tags do not bound what is new.
fn bounds(filter: &Filter) -> (u64, u64) {
    match filter.block_option {
        FilterBlockOption::Range { from_block, to_block } => (
            from_block.and_then(|tag| tag.as_number()).unwrap_or(0),
            to_block.and_then(|tag| tag.as_number()).unwrap_or(u64::MAX),
        ),
        // One named block is old, so nothing about it is new.
        FilterBlockOption::AtBlockHash(_) => (u64::MAX, 0),
    }
}

fn all_logs(node: &Node, id: U64) -> Answer {
    match node.filters().watched(id).ok_or_else(unknown)? {
        Watched::Logs(filter) => show(query(&*node.read()?, &filter)?),
        Watched::Blocks | Watched::Transactions => Err(RpcError::invalid_params("not a filter of logs")),
    }
}

fn unknown() -> RpcError {
    RpcError::not_found("filter not found")
}
