//! Who this is: chain id, version, accounts.

use super::{Answer, params::Params, show};
use crate::{account, node::Node};
use alloy::primitives::{Bytes, U64, keccak256};
use serde_json::json;

/// How the node calls itself.
const CLIENT_VERSION: &str = concat!("rialto-devchain/v", env!("CARGO_PKG_VERSION"));

pub(super) fn call(node: &Node, method: &str, params: &Params) -> Option<Answer> {
    let answer = match method {
        "eth_chainId" => node.read().and_then(|chain| show(U64::from(chain.chain_id()))),
        "net_version" => node.read().and_then(|chain| show(chain.chain_id().to_string())),
        "web3_clientVersion" => show(CLIENT_VERSION),
        "web3_sha3" => params.get::<Bytes>(0, "data").and_then(|data| show(keccak256(data))),
        "net_listening" => show(true),
        "net_peerCount" => show(U64::ZERO),
        // Nothing to catch up with.
        "eth_syncing" => show(false),
        "eth_mining" => show(false),
        "eth_hashrate" => show(U64::ZERO),
        "eth_protocolVersion" => Ok(json!("0x44")),
        "eth_accounts" | "eth_requestAccounts" => show(account::addresses()),
        _ => return None,
    };
    Some(answer)
}
