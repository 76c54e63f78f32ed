//! Transactions: sending them, and finding them again.

use super::{Answer, error::RpcError, params::Params, show};
use crate::{account, chain::Chain, fees::SUGGESTED_TIP, node::Node, receipt, transaction};
use alloy::{
    eips::eip2718::Encodable2718,
    primitives::{Address, B256, Bytes, TxKind},
    rpc::types::TransactionRequest,
};
use serde_json::Value;

pub(super) fn call(node: &Node, method: &str, params: &Params) -> Option<Answer> {
    let answer = match method {
        "eth_sendRawTransaction" => send_raw(node, params),
        "eth_sendTransaction" => send_unsigned(node, params),
        "eth_getTransactionByHash" => find(node, params, |block, index| show(receipt::transaction(block, index))),
        "eth_getTransactionReceipt" => find(node, params, |block, index| show(receipt::show(block, index))),
        "eth_getRawTransactionByHash" => find(node, params, |block, index| {
            let mined = block.transactions().get(index);
            show(mined.map(|mined| Bytes::from(mined.envelope().encoded_2718())))
        }),
        _ => return None,
    };
    Some(answer)
}

/// Answers from the transaction in parameter 0; null for one that is not there.
fn find(node: &Node, params: &Params, answer: impl FnOnce(&crate::block::Block, usize) -> Answer) -> Answer {
    let hash = params.get::<B256>(0, "transaction hash")?;
    let chain = node.read()?;
    chain
        .find_transaction(&hash)
        .map_or(Ok(Value::Null), |(block, index)| answer(block, index))
}

fn send_raw(node: &Node, params: &Params) -> Answer {
    let raw = params.get::<Bytes>(0, "raw transaction")?;
    let chain_id = node.read()?.chain_id();
    let transaction = transaction::decode(&raw, chain_id)?;
    let hash = node.write(|chain| chain.submit(transaction))?;
    tracing::debug!(%hash, "transaction mined");
    show(hash)
}

/// Signs with a development account's key and sends.
fn send_unsigned(node: &Node, params: &Params) -> Answer {
    let request = params.get::<TransactionRequest>(0, "transaction")?;
    let from = request
        .from
        .ok_or_else(|| RpcError::invalid_params("missing field from"))?;
    // Under one lock: two requests at the same time get two nonces.
    let hash = node.write(|chain| -> Result<_, RpcError> {
        let request = complete(chain, request, from)?;
        let unsigned = request.build_typed_tx();
        let unsigned = unsigned.map_err(|_| RpcError::invalid_params("transaction fields do not fit together"))?;
        let signed = account::sign(from, unsigned)
            .ok_or_else(|| RpcError::invalid_params(format!("no key for {from}: not a development account")))?;
        Ok(chain.submit(transaction::recover(signed, chain.chain_id())?)?)
    })?;
    tracing::debug!(%hash, "transaction signed and mined");
    show(hash)
}

/// Fills in whatever the request leaves open.
fn complete(chain: &Chain, mut request: TransactionRequest, from: Address) -> Result<TransactionRequest, RpcError> {
    let height = chain.height();
    let base_fee = u128::from(chain.draft().base_fee);
    request.input.normalize_input();
    request.to.get_or_insert(TxKind::Create);
    request.chain_id.get_or_insert(chain.chain_id());
    request
        .nonce
        .get_or_insert_with(|| chain.view(height).account(&from).nonce);
    if request.gas_price.is_none() {
        let tip = *request.max_priority_fee_per_gas.get_or_insert(SUGGESTED_TIP.into());
        request
            .max_fee_per_gas
            .get_or_insert(base_fee.saturating_mul(2).saturating_add(tip));
    }
    if request.gas.is_none() {
        // The price is left out, so that a sender who can pay for what the transaction needs is not refused
        // because it could not pay for the search's upper bound.
        let mut free = request.clone();
        (free.gas_price, free.max_fee_per_gas, free.max_priority_fee_per_gas) = (None, None, None);
        request.gas = Some(chain.estimate(&free, height)?);
    }
    Ok(request)
}
