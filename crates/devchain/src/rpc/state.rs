//! Balances, nonces, code and storage.

use super::{Answer, error::RpcError, params::Params, show};
use crate::{node::Node, view::View};
use alloy::{
    primitives::{Address, B256, U64, U256},
    rpc::types::serde_helpers::JsonStorageKey,
};

pub(super) fn call(node: &Node, method: &str, params: &Params) -> Option<Answer> {
    let answer = match method {
        "eth_getBalance" => account(node, params, 1, |view, address| show(view.account(&address).balance)),
        "eth_getTransactionCount" => account(node, params, 1, |view, address| {
            show(U64::from(view.account(&address).nonce))
        }),
        "eth_getCode" => account(node, params, 1, |view, address| {
            show(view.code(&address).original_bytes())
        }),
        "eth_getStorageAt" => params.get::<JsonStorageKey>(1, "slot").and_then(|slot| {
            let slot = U256::from_be_bytes(slot.as_b256().0);
            account(node, params, 2, |view, address| {
                show(B256::from(view.slot(&address, &slot)))
            })
        }),
        "eth_getProof" => Err(RpcError::method_not_found(
            "eth_getProof (a development chain keeps no Merkle trie; its state root is a commitment)",
        )),
        _ => return None,
    };
    Some(answer)
}

/// Reads something of the account in parameter 0 at the block in parameter `block`.
fn account(node: &Node, params: &Params, block: usize, read: impl FnOnce(View<'_>, Address) -> Answer) -> Answer {
    let address = params.get::<Address>(0, "address")?;
    let block = params.block(block)?;
    let chain = node.read()?;
    let height = chain.resolve(block)?;
    read(chain.view(height), address)
}
