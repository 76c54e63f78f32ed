//! A node that lies: nothing it says makes a panic, fills the memory or spends a coin.

#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a test ends where it cannot go on"
)]

use std::time::Duration;

use crate::patience::PATIENCE;
use rialto_protocol::{Address, ChannelId, ModelId, SigningKey, ticket::Contracts};
use rialto_settlement::{Chain, Error, Options, Wallet};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
};

/// What the node says to a method: a result, an error object under `error`, or raw bytes under `raw`.
type Say = fn(&str) -> Value;

/// A node that says what a test wants.
async fn node(say: Say) -> Chain {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(serve(stream, say));
        }
    });
    let address = |byte| Address([byte; 20]);
    let contracts = Contracts {
        token: address(1),
        escrow: address(2),
        providers: address(3),
        models: address(4),
    };
    let options = Options {
        call_timeout: PATIENCE,
        receipt_timeout: Duration::from_millis(200),
        ..Options::default()
    };
    Chain::connect_with(&url, contracts, options).unwrap()
}

async fn serve(mut stream: TcpStream, say: Say) {
    let mut request = Vec::new();
    loop {
        let mut part = [0; 65_536];
        let Ok(length @ 1..) = stream.read(&mut part).await else {
            return;
        };
        request.extend_from_slice(&part[..length]);
        let text = String::from_utf8_lossy(&request).into_owned();
        let Some((_, body)) = text.split_once("\r\n\r\n") else {
            continue;
        };
        let Ok(call) = serde_json::from_str::<Value>(body) else {
            continue;
        };
        request.clear();
        let said = match call["method"].as_str() {
            Some("eth_chainId") => json!("0x7a69"),
            method => say(method.unwrap_or_default()),
        };
        let answer = match (said.get("raw"), said.get("error")) {
            (Some(raw), _) => raw.as_str().unwrap().to_owned(),
            (_, Some(error)) => json!({"jsonrpc": "2.0", "id": call["id"], "error": error}).to_string(),
            _ => json!({"jsonrpc": "2.0", "id": call["id"], "result": said}).to_string(),
        };
        let status = if said.get("busy").is_some() {
            "503 Busy"
        } else {
            "200 OK"
        };
        let head = format!("HTTP/1.1 {status}\r\ncontent-length: {}\r\n\r\n", answer.len());
        if stream.write_all(format!("{head}{answer}").as_bytes()).await.is_err() {
            return;
        }
    }
}

fn is_corrupt<T: std::fmt::Debug>(answer: Result<T, Error>) -> bool {
    let corrupt = matches!(answer, Err(Error::Corrupt { .. }));
    assert!(corrupt, "{answer:?}");
    corrupt
}

const SOMEBODY: Address = Address([9; 20]);

#[tokio::test]
async fn amounts_beyond_96_bits_are_corrupt() {
    let chain = node(|method| match method {
        "eth_call" => json!(format!("0x{}", "ff".repeat(32))),
        _ => json!(format!("0x{}", "f".repeat(64))),
    })
    .await;
    assert!(is_corrupt(chain.token_balance(SOMEBODY).await));
    assert!(is_corrupt(chain.free_balance(SOMEBODY).await));
    assert!(is_corrupt(chain.credit_of(SOMEBODY).await));
    assert!(is_corrupt(chain.native_balance(SOMEBODY).await));
    assert!(is_corrupt(chain.channel(ChannelId([1; 32])).await));
    assert!(is_corrupt(chain.royalty_of(ModelId([1; 32])).await));
    assert!(is_corrupt(chain.provider_of(SOMEBODY).await));
    assert!(is_corrupt(chain.fee_bps().await));
}

#[tokio::test]
async fn a_channel_that_paid_more_than_it_held_is_corrupt() {
    let chain = node(|_| json!(format!("0x{:064x}{:064x}{:064x}{:064x}", 5, 6, 0, 1))).await;
    assert!(is_corrupt(chain.channel(ChannelId([1; 32])).await));
    let chain = node(|_| json!(format!("0x{:064x}{:064x}{:064x}{:064x}", 5, 5, 0, 2))).await;
    assert!(is_corrupt(chain.channel(ChannelId([1; 32])).await));
}

#[tokio::test]
async fn answers_that_are_no_answers_are_corrupt() {
    for say in [
        (|_| json!("0x01")) as Say,
        |_| json!({"raw": "<html>"}),
        |_| json!({"raw": "[]"}),
        |_| json!(null),
        |_| json!({"a": 1}),
        |_| json!(format!("0x{}", "00".repeat(1 << 20))),
    ] {
        let chain = node(say).await;
        assert!(is_corrupt(chain.channel(ChannelId([1; 32])).await));
        assert!(is_corrupt(chain.model_of(ModelId([1; 32])).await));
        assert!(is_corrupt(chain.events(0).await));
    }
}

#[tokio::test]
async fn an_endless_answer_is_cut_off() {
    let chain = node(|_| json!({"raw": " ".repeat(40 << 20)})).await;
    assert!(is_corrupt(chain.token_balance(SOMEBODY).await));
}

#[tokio::test]
async fn a_busy_node_is_unreachable_and_a_refusal_is_the_nodes() {
    let chain = node(|_| json!({"raw": "try later", "busy": true})).await;
    assert!(matches!(chain.fee_bps().await, Err(Error::Unreachable { .. })));
    let chain = node(|_| json!({"error": {"code": -32005, "message": "limit\nexceeded"}})).await;
    let error = chain.fee_bps().await.unwrap_err();
    assert_eq!(
        error,
        Error::Rejected {
            reason: "limit exceeded (code -32005)".into()
        }
    );
    let chain = node(|_| json!({"error": {"code": 3, "message": "execution reverted", "data": "0x08c379a0ff"}})).await;
    assert!(matches!(chain.fee_bps().await, Err(Error::Reverted { .. })));
}

#[tokio::test]
async fn a_node_that_never_answers_is_unreachable() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let contracts = node(|_| json!(null)).await.contracts();
    let options = Options {
        call_timeout: Duration::from_millis(100),
        ..Options::default()
    };
    let chain = Chain::connect_with(&url, contracts, options).unwrap();
    assert!(matches!(chain.block_number().await, Err(Error::Unreachable { .. })));
}

fn block(base_fee: &str) -> Value {
    let zero = format!("0x{}", "00".repeat(32));
    json!({
        "hash": zero, "parentHash": zero, "sha3Uncles": zero, "miner": format!("0x{}", "00".repeat(20)),
        "stateRoot": zero, "transactionsRoot": zero, "receiptsRoot": zero, "mixHash": zero,
        "logsBloom": format!("0x{}", "00".repeat(256)), "difficulty": "0x0", "number": "0x1", "gasLimit": "0x1c9c380",
        "gasUsed": "0x0", "timestamp": "0x1", "extraData": "0x", "nonce": "0x0000000000000000",
        "baseFeePerGas": base_fee, "transactions": [], "uncles": [], "size": "0x1"
    })
}

#[tokio::test]
async fn a_wallet_does_not_burn_its_coins_because_a_node_says_so() {
    let key = || SigningKey::from_bytes(&[7; 32]).unwrap();
    let chain = node(|method| match method {
        "eth_estimateGas" => json!("0xffffffffffff"),
        _ => block("0x1"),
    })
    .await;
    assert!(is_corrupt(Wallet::new(chain, key()).send_native(SOMEBODY, 1).await));
    let chain = node(|method| match method {
        "eth_estimateGas" => json!("0x5208"),
        "eth_getBlockByNumber" => block("0xffffffffffffff"),
        _ => json!("0x1"),
    })
    .await;
    let dear = Wallet::new(chain, key()).send_native(SOMEBODY, 1).await.unwrap_err();
    assert!(matches!(dear, Error::TooExpensive { .. }), "{dear}");
    // Too little gas would only burn what it costs.
    let chain = node(|method| match method {
        "eth_estimateGas" => json!("0x5207"),
        _ => block("0x1"),
    })
    .await;
    assert!(is_corrupt(Wallet::new(chain, key()).send_native(SOMEBODY, 1).await));
}

#[tokio::test]
async fn a_tip_that_a_node_suggests_is_bounded() {
    // 2^60 wei a unit as a tip: the offer stays at a hundred gwei of tip, and the node is believed in nothing more.
    let chain = node(|method| match method {
        "eth_estimateGas" => json!("0x5208"),
        "eth_getBlockByNumber" => block("0x1"),
        "eth_maxPriorityFeePerGas" => json!("0x1000000000000000"),
        "eth_getTransactionCount" => json!("0x0"),
        "eth_sendRawTransaction" => json!({"error": {"code": -32003, "message": "insufficient funds for gas"}}),
        _ => json!("0x1"),
    })
    .await;
    let refused = Wallet::new(chain, SigningKey::from_bytes(&[7; 32]).unwrap())
        .send_native(SOMEBODY, 1)
        .await;
    assert!(matches!(refused, Err(Error::InsufficientFunds { .. })), "{refused:?}");
}

#[tokio::test]
async fn nonces_that_are_always_taken_end_in_a_refusal() {
    let chain = node(|method| match method {
        "eth_estimateGas" => json!("0x5208"),
        "eth_getBlockByNumber" => block("0x1"),
        "eth_sendRawTransaction" => {
            json!({"error": {"code": -32000, "message": "replacement transaction underpriced"}})
        }
        _ => json!("0x1"),
    })
    .await;
    let wallet = Wallet::new(chain, SigningKey::from_bytes(&[7; 32]).unwrap());
    let refused = wallet.send_native(SOMEBODY, 1).await;
    assert!(matches!(refused, Err(Error::Rejected { .. })), "{refused:?}");
}

#[tokio::test]
async fn a_node_that_takes_a_transaction_and_shows_no_sound_receipt_leaves_it_unknown() {
    let chain = node(|method| match method {
        "eth_estimateGas" => json!("0x5208"),
        "eth_getBlockByNumber" => block("0x1"),
        // An answer that cannot be read, so that it is not known whether the transaction was taken.
        "eth_sendRawTransaction" => json!({"raw": "<html>"}),
        "eth_getTransactionReceipt" => json!({"status": "0x1"}),
        _ => json!("0x1"),
    })
    .await;
    let wallet = Wallet::new(chain, SigningKey::from_bytes(&[7; 32]).unwrap());
    let sent = wallet.send_native(SOMEBODY, 1).await;
    assert!(matches!(sent, Err(Error::Timeout { .. })), "{sent:?}");
}
