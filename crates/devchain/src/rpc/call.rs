//! Questions to contracts.

use super::{Answer, error::RpcError, params::Params, show};
use crate::node::Node;
use alloy::{primitives::U64, rpc::types::TransactionRequest};
use serde_json::Value;

pub(super) fn call(node: &Node, method: &str, params: &Params) -> Option<Answer> {
    let answer = match method {
        "eth_call" => run(node, params),
        "eth_estimateGas" => estimate(node, params),
        _ => return None,
    };
    Some(answer)
}

fn run(node: &Node, params: &Params) -> Answer {
    let request = params.get::<TransactionRequest>(0, "call")?;
    let block = params.block(1)?;
    refuse_overrides(params)?;
    let chain = node.read()?;
    show(chain.call(&request, chain.resolve(block)?)?)
}

fn estimate(node: &Node, params: &Params) -> Answer {
    let request = params.get::<TransactionRequest>(0, "call")?;
    let block = params.block(1)?;
    refuse_overrides(params)?;
    let chain = node.read()?;
    show(U64::from(chain.estimate(&request, chain.resolve(block)?)?))
}

/// An override that was silently ignored would give a wrong answer.
fn refuse_overrides(params: &Params) -> Result<(), RpcError> {
    for index in [2, 3] {
        let given = params.optional::<Value>(index, "overrides")?;
        if given.is_some_and(|value| value.as_object().is_none_or(|object| !object.is_empty())) {
            return Err(RpcError::invalid_params("state and block overrides are not supported"));
        }
    }
    Ok(())
}
