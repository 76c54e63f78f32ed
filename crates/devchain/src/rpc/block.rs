//! Blocks.

use super::{Answer, params::Params, show};
use crate::{block::Block, chain::Chain, node::Node, receipt};
use alloy::{
    consensus::Sealed,
    eips::{BlockId, BlockNumberOrTag, eip4895::Withdrawals},
    network::primitives::BlockTransactions,
    primitives::{B256, U64, U256},
    rpc::types::Header,
};
use serde_json::Value;

pub(super) fn call(node: &Node, method: &str, params: &Params) -> Option<Answer> {
    let answer = match method {
        "eth_blockNumber" => node.read().and_then(|chain| show(U64::from(chain.height()))),
        "eth_getBlockByNumber" | "eth_getBlockByHash" => with_block(node, method, params, |block| {
            show_block(block, params.optional(1, "full transactions")?.unwrap_or(false))
        }),
        "eth_getHeaderByNumber" | "eth_getHeaderByHash" => {
            with_block(node, method, params, |block| show(header(block)))
        }
        "eth_getBlockReceipts" => with_block(node, method, params, |block| {
            let receipts = (0..block.transactions().len()).filter_map(|index| receipt::show(block, index));
            show(receipts.collect::<Vec<_>>())
        }),
        "eth_getBlockTransactionCountByNumber" | "eth_getBlockTransactionCountByHash" => {
            with_block(node, method, params, |block| {
                show(U64::from(block.transactions().len()))
            })
        }
        "eth_getUncleCountByBlockNumber" | "eth_getUncleCountByBlockHash" => {
            with_block(node, method, params, |_| show(U64::ZERO))
        }
        "eth_getTransactionByBlockNumberAndIndex" | "eth_getTransactionByBlockHashAndIndex" => {
            let index = params.number(1, "index");
            with_block(node, method, params, |block| {
                let index = usize::try_from(index?).unwrap_or(usize::MAX);
                show(receipt::transaction(block, index))
            })
        }
        _ => return None,
    };
    Some(answer)
}

/// Answers from the block in parameter 0; null for a block that is not there.
fn with_block(node: &Node, method: &str, params: &Params, answer: impl FnOnce(&Block) -> Answer) -> Answer {
    let id = if method.contains("Hash") {
        BlockId::from(params.get::<B256>(0, "block hash")?)
    } else if method == "eth_getBlockReceipts" {
        params.get::<BlockId>(0, "block")?
    } else {
        BlockId::Number(params.get::<BlockNumberOrTag>(0, "block")?)
    };
    let chain = node.read()?;
    find(&chain, id).map_or(Ok(Value::Null), answer)
}

fn find(chain: &Chain, id: BlockId) -> Option<&Block> {
    chain.resolve(id).ok().and_then(|number| chain.block(number))
}

fn header(block: &Block) -> Header {
    let sealed = Sealed::new_unchecked(block.header().clone(), block.hash());
    Header::from_consensus(sealed, Some(U256::ZERO), Some(U256::from(block.size())))
}

fn show_block(block: &Block, full: bool) -> Answer {
    let indices = 0..block.transactions().len();
    let transactions = if full {
        BlockTransactions::Full(indices.filter_map(|index| receipt::transaction(block, index)).collect())
    } else {
        BlockTransactions::Hashes(block.transactions().iter().map(|mined| mined.hash()).collect())
    };
    let block = alloy::rpc::types::Block::new(header(block), transactions);
    show(block.with_withdrawals(Some(Withdrawals::default())))
}
