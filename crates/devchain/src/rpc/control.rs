//! Test controls, as other development chains spell them.

use super::{Answer, error::RpcError, params::Params, show};
use crate::node::Node;
use alloy::{
    primitives::{Address, Bytes, U64, U256},
    rpc::types::serde_helpers::JsonStorageKey,
};
use serde::Deserialize;
use serde_json::{Value, json};

/// `evm_mine`'s argument in its object form.
#[derive(Deserialize)]
struct MineOptions {
    timestamp: Option<u64>,
    blocks: Option<u64>,
}

pub(super) fn call(node: &Node, method: &str, params: &Params) -> Option<Answer> {
    let answer = match method {
        "evm_increaseTime" | "anvil_increaseTime" => params
            .number(0, "seconds")
            .and_then(|seconds| show(node.write(|chain| chain.advance_time(seconds))?)),
        "evm_setNextBlockTimestamp" | "anvil_setNextBlockTimestamp" => params
            .number(0, "timestamp")
            .and_then(|at| done(node.write(|chain| chain.fix_time(at)))),
        "evm_mine" => mine_one(node, params),
        "anvil_mine" | "hardhat_mine" => mine_many(node, params),
        "evm_snapshot" | "anvil_snapshot" => node
            .write(|chain| Ok::<_, RpcError>(chain.snapshot()))
            .and_then(|id| show(U64::from(id))),
        "evm_revert" | "anvil_revert" => revert(node, params),
        "anvil_setBalance" | "hardhat_setBalance" => set_balance(node, params),
        "anvil_setNonce" | "hardhat_setNonce" => set_nonce(node, params),
        "anvil_setCode" | "hardhat_setCode" => set_code(node, params),
        "anvil_setStorageAt" | "hardhat_setStorageAt" => set_slot(node, params),
        "anvil_nodeInfo" => info(node),
        // Every transaction makes its block at once and no other way is offered, so this is true already.
        "evm_setAutomine" | "anvil_setAutomine" => match params.get::<bool>(0, "automine") {
            Ok(true) => Ok(Value::Null),
            Ok(false) => Err(RpcError::invalid_params("blocks are always made at once")),
            Err(error) => Err(error),
        },
        "anvil_getAutomine" | "hardhat_getAutomine" => show(true),
        _ => return None,
    };
    Some(answer)
}

fn done(outcome: Result<(), RpcError>) -> Answer {
    outcome.map(|()| Value::Null)
}

fn mine_one(node: &Node, params: &Params) -> Answer {
    let options = match params.optional::<Value>(0, "options")? {
        Some(Value::Object(object)) => {
            let options = MineOptions::deserialize(Value::Object(object));
            options.map_err(|error| RpcError::invalid_params(format!("invalid parameter 0: {error}")))?
        }
        _ => MineOptions {
            timestamp: params.optional_number(0, "timestamp")?,
            blocks: None,
        },
    };
    node.write(|chain| {
        if let Some(timestamp) = options.timestamp {
            chain.fix_time(timestamp)?;
        }
        chain.mine(options.blocks.unwrap_or(1), None)
    })?;
    show(U64::ZERO)
}

fn mine_many(node: &Node, params: &Params) -> Answer {
    let count = params.optional_number(0, "blocks")?.unwrap_or(1);
    let interval = params.optional_number(1, "interval")?;
    done(node.write(|chain| chain.mine(count, interval)))
}

fn revert(node: &Node, params: &Params) -> Answer {
    let id = params.number(0, "snapshot id")?;
    let known = node.write(|chain| chain.revert(id))?;
    let height = node.read()?.height();
    node.filters().rewind(height);
    show(known)
}

fn set_balance(node: &Node, params: &Params) -> Answer {
    let (address, balance) = (params.get::<Address>(0, "address")?, params.get::<U256>(1, "balance")?);
    done(node.write(|chain| chain.set_balance(address, balance)))
}

fn set_nonce(node: &Node, params: &Params) -> Answer {
    let (address, nonce) = (params.get::<Address>(0, "address")?, params.number(1, "nonce")?);
    done(node.write(|chain| chain.set_nonce(address, nonce)))
}

fn set_code(node: &Node, params: &Params) -> Answer {
    let (address, code) = (params.get::<Address>(0, "address")?, params.get::<Bytes>(1, "code")?);
    done(node.write(|chain| chain.set_code(address, code)))
}

fn set_slot(node: &Node, params: &Params) -> Answer {
    let address = params.get::<Address>(0, "address")?;
    let slot = params.get::<JsonStorageKey>(1, "slot")?.as_b256();
    let value = params.get::<JsonStorageKey>(2, "value")?.as_b256();
    let (slot, value) = (U256::from_be_bytes(slot.0), U256::from_be_bytes(value.0));
    node.write(|chain| chain.set_slot(address, slot, value))?;
    show(true)
}

fn info(node: &Node) -> Answer {
    let chain = node.read()?;
    let draft = chain.draft();
    Ok(json!({
        "currentBlockNumber": U64::from(chain.height()),
        "currentBlockTimestamp": chain.tip().map(|tip| tip.header().timestamp),
        "currentBlockHash": chain.tip().map(|tip| tip.hash()),
        "hardFork": "Osaka",
        "clockOffset": chain.clock_offset(),
        "environment": {
            "baseFee": U64::from(draft.base_fee),
            "chainId": chain.chain_id(),
            "gasLimit": U64::from(crate::fees::BLOCK_GAS_LIMIT),
        },
    }))
}
