//! Bad requests get an answer that says what is wrong, and spoil nothing.

use crate::support::{ALICE, BOB, Rpc, devchain};
use alloy::{
    consensus::{SignableTransaction, TxEip1559, TxEnvelope, TxLegacy},
    eips::eip2718::Encodable2718,
    primitives::{Bytes, Signature, TxKind, U256},
    signers::{SignerSync, local::PrivateKeySigner},
};
use proptest::{
    prelude::*,
    strategy::ValueTree,
    test_runner::{Config as RunnerConfig, TestRunner},
};
use serde_json::{Value, json};

const METHODS: [&str; 30] = [
    "eth_getBalance",
    "eth_getTransactionCount",
    "eth_getCode",
    "eth_getStorageAt",
    "eth_call",
    "eth_estimateGas",
    "eth_feeHistory",
    "eth_sendRawTransaction",
    "eth_sendTransaction",
    "eth_getTransactionByHash",
    "eth_getTransactionReceipt",
    "eth_getBlockByNumber",
    "eth_getBlockByHash",
    "eth_getBlockReceipts",
    "eth_getTransactionByBlockNumberAndIndex",
    "eth_getLogs",
    "eth_newFilter",
    "eth_getFilterChanges",
    "eth_getFilterLogs",
    "eth_uninstallFilter",
    "evm_increaseTime",
    "evm_setNextBlockTimestamp",
    "evm_mine",
    "evm_revert",
    "evm_snapshot",
    "anvil_setBalance",
    "anvil_setNonce",
    "anvil_setCode",
    "anvil_setStorageAt",
    "web3_sha3",
];

/// JSON as a confused or hostile client might send it.
fn nonsense() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<u64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        "[ -~]{0,12}".prop_map(Value::from),
        "0x[0-9a-f]{0,70}".prop_map(Value::from),
        Just(json!(ALICE)),
        Just(json!("latest")),
        Just(json!("0x1")),
        Just(json!({ "from": ALICE, "to": BOB, "value": "0x1" })),
        Just(json!({ "data": "0x5b5f56" })),
    ];
    leaf.prop_recursive(3, 12, 4, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::btree_map("(from|to|data|gas|nonce|topics|address|fromBlock|x)", inner, 0..4)
                .prop_map(|map| Value::Object(map.into_iter().collect())),
        ]
    })
}

fn samples<S: Strategy>(count: usize, strategy: S) -> Vec<S::Value> {
    let mut runner = TestRunner::new(RunnerConfig::default());
    (0..count)
        .map(|_| strategy.new_tree(&mut runner).unwrap().current())
        .collect()
}

fn is_response(value: &Value) -> bool {
    value["jsonrpc"] == "2.0" && (value.get("result").is_some() ^ value["error"]["code"].is_i64())
}

#[tokio::test(flavor = "multi_thread")]
async fn random_bytes_get_an_error_each() {
    let chain = devchain(None).await;
    let rpc = Rpc::new(chain.rpc_url());
    for body in samples(300, prop::collection::vec(any::<u8>(), 0..200)) {
        let (status, answer) = rpc.post(body.clone(), &[]).await;
        let answer: Value = serde_json::from_slice(&answer).unwrap();
        assert_eq!(status, 200);
        assert!(answer["error"]["code"].is_i64(), "{body:?}: {answer}");
    }
    assert_eq!(rpc.number("eth_blockNumber", json!([])).await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn every_method_survives_nonsense() {
    let chain = devchain(None).await;
    let rpc = Rpc::new(chain.rpc_url());
    for method in METHODS {
        for params in samples(40, prop::collection::vec(nonsense(), 0..4)) {
            let request = json!({ "jsonrpc": "2.0", "id": 1, "method": method, "params": params });
            let answer = rpc.raw(request.clone()).await;
            assert!(is_response(&answer), "{request}: {answer}");
            assert_ne!(answer["error"]["code"], -32603, "{request}: {answer}");
        }
    }
    for body in samples(200, nonsense()) {
        let answer = rpc.raw(body.clone()).await;
        let answers = answer.as_array().cloned().unwrap_or(vec![answer]);
        assert!(answers.iter().all(|answer| answer["error"]["code"].is_i64()), "{body}");
    }
    // Time may have been moved far, but the chain lives.
    rpc.call("eth_getBlockByNumber", json!(["latest", true])).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn too_much_is_refused() {
    let chain = devchain(None).await;
    let rpc = Rpc::new(chain.rpc_url());
    // More than once: the refusal has to reach the client, and leave a connection that goes on.
    for _ in 0..20 {
        let (status, answer) = rpc.post(vec![b' '; 5 << 20], &[]).await;
        assert_eq!(status, 413);
        assert!(serde_json::from_slice::<Value>(&answer).unwrap()["error"]["message"].is_string());
    }
    let batch = vec![json!({ "jsonrpc": "2.0", "id": 1, "method": "eth_chainId" }); 1001];
    assert_eq!(rpc.raw(json!(batch)).await["error"]["code"], -32600);
    let deep = [vec![b'['; 100_000], vec![b']'; 100_000]].concat();
    let (_, answer) = rpc.post(deep, &[]).await;
    assert_eq!(
        serde_json::from_slice::<Value>(&answer).unwrap()["error"]["code"],
        -32700
    );
    assert!(rpc.try_call("anvil_mine", json!([1_000_000])).await.is_err());
    let endless = json!([{ "data": "0x5b5f56", "gas": "0xffffffffffffffff" }, "latest"]);
    assert!(
        rpc.try_call("eth_call", endless).await.is_err(),
        "an endless loop ends at the gas limit"
    );
    assert!(
        rpc.try_call(
            "eth_call",
            json!([{ "to": BOB }, "latest", { ALICE: { "balance": "0x0" } }])
        )
        .await
        .is_err()
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn foreign_web_pages_are_refused_and_local_ones_are_not() {
    let chain = devchain(None).await;
    let rpc = Rpc::new(chain.rpc_url());
    let body = json!({ "jsonrpc": "2.0", "id": 1, "method": "evm_mine" })
        .to_string()
        .into_bytes();
    let (status, _) = rpc.post(body.clone(), &[("origin", "https://example.com")]).await;
    assert_eq!(status, 403);
    assert_eq!(
        rpc.number("eth_blockNumber", json!([])).await,
        0,
        "the write of a foreign page was done"
    );
    let (status, _) = rpc.post(body, &[("origin", "http://localhost:3000")]).await;
    assert_eq!(status, 200);
    assert_eq!(rpc.number("eth_blockNumber", json!([])).await, 1);
    let preflight = |origin: &'static str| {
        let client = reqwest::Client::new();
        let request = client
            .request(reqwest::Method::OPTIONS, chain.rpc_url())
            .header("origin", origin);
        request.header("access-control-request-method", "POST").send()
    };
    let allowed = preflight("http://localhost:3000").await.unwrap();
    assert_eq!(
        allowed.headers()["access-control-allow-origin"],
        "http://localhost:3000"
    );
    let refused = preflight("https://example.com").await.unwrap();
    assert!(refused.headers().get("access-control-allow-origin").is_none());
}

fn signer(index: usize) -> PrivateKeySigner {
    PrivateKeySigner::from_slice(rialto_devchain::development_keys()[index].secret.as_slice()).unwrap()
}

fn transfer(nonce: u64) -> TxEip1559 {
    TxEip1559 {
        chain_id: 31_337,
        nonce,
        gas_limit: 21_000,
        max_fee_per_gas: 20_000_000_000,
        max_priority_fee_per_gas: 1,
        to: TxKind::Call(BOB.parse().unwrap()),
        value: U256::from(1),
        ..TxEip1559::default()
    }
}

fn signed(transaction: TxEip1559) -> TxEnvelope {
    let signature = signer(0).sign_hash_sync(&transaction.signature_hash()).unwrap();
    transaction.into_signed(signature).into()
}

fn raw(envelope: &TxEnvelope) -> Value {
    json!([Bytes::from(envelope.encoded_2718())])
}

async fn refused(rpc: &Rpc, params: Value) -> String {
    rpc.try_call("eth_sendRawTransaction", params).await.unwrap_err()["message"]
        .as_str()
        .unwrap()
        .to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn bad_raw_transactions_are_named() {
    let chain = devchain(None).await;
    let rpc = Rpc::new(chain.rpc_url());
    let good = signed(transfer(0));
    rpc.call("eth_sendRawTransaction", raw(&good)).await;
    assert!(refused(&rpc, raw(&good)).await.starts_with("nonce too low"));

    let other = signed(TxEip1559 {
        chain_id: 1,
        ..transfer(1)
    });
    assert!(refused(&rpc, raw(&other)).await.starts_with("invalid chain id"));
    let cheap = signed(TxEip1559 {
        max_fee_per_gas: 1,
        ..transfer(1)
    });
    assert!(refused(&rpc, raw(&cheap)).await.contains("less than block base fee"));
    let upside_down = signed(TxEip1559 {
        max_priority_fee_per_gas: 30_000_000_000,
        ..transfer(1)
    });
    assert!(refused(&rpc, raw(&upside_down)).await.contains("priority fee"));
    let hungry = signed(TxEip1559 {
        gas_limit: 1 << 25,
        ..transfer(1)
    });
    assert!(refused(&rpc, raw(&hungry)).await.contains("gas limit too high"));
    let rich = signed(TxEip1559 {
        value: U256::MAX >> 100,
        ..transfer(1)
    });
    assert!(refused(&rpc, raw(&rich)).await.starts_with("insufficient funds"));
    let far = signed(transfer(1_000));
    assert!(refused(&rpc, raw(&far)).await.starts_with("nonce too high"));

    // The same signature with the other s: the sender would be the same, the hash would not.
    let signature = *signed(transfer(1)).signature();
    let order = U256::from_str_radix("fffffffffffffffffffffffffffffffebaaedce6af48a03bbfd25e8cd0364141", 16).unwrap();
    let high = Signature::new(signature.r(), order - signature.s(), !signature.v());
    let twisted: TxEnvelope = transfer(1).into_signed(high).into();
    assert!(refused(&rpc, raw(&twisted)).await.starts_with("invalid sender"));

    let mut long = good.encoded_2718();
    long.push(0);
    assert!(
        refused(&rpc, json!([Bytes::from(long)]))
            .await
            .starts_with("failed to decode")
    );
    assert!(refused(&rpc, json!([Bytes::from(vec![3; 500])])).await.contains("blob"));
    assert!(
        refused(&rpc, json!([Bytes::from(vec![2; 200_000])]))
            .await
            .starts_with("transaction too large")
    );
    assert_eq!(
        rpc.number("eth_blockNumber", json!([])).await,
        1,
        "a refused transaction made a block"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn transactions_without_chain_id_deploy() {
    let chain = devchain(None).await;
    let rpc = Rpc::new(chain.rpc_url());
    let old = TxLegacy {
        gas_price: 2_000_000_000,
        gas_limit: 21_000,
        to: TxKind::Call(BOB.parse().unwrap()),
        ..TxLegacy::default()
    };
    let signature = signer(0).sign_hash_sync(&old.signature_hash()).unwrap();
    let envelope: TxEnvelope = old.into_signed(signature).into();
    rpc.call("eth_sendRawTransaction", raw(&envelope)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn transactions_that_arrive_out_of_order_are_all_mined() {
    let chain = devchain(None).await;
    let url = chain.rpc_url();
    let mut tasks = Vec::new();
    for nonce in (0..20).rev() {
        let rpc = Rpc::new(&url);
        tasks.push(tokio::spawn(async move {
            rpc.call("eth_sendRawTransaction", raw(&signed(transfer(nonce)))).await
        }));
    }
    for task in tasks {
        task.await.unwrap();
    }
    let rpc = Rpc::new(&url);
    assert_eq!(
        rpc.number("eth_getTransactionCount", json!([ALICE, "latest"])).await,
        20
    );
    assert_eq!(rpc.number("eth_blockNumber", json!([])).await, 20);
}

#[tokio::test(flavor = "multi_thread")]
async fn transactions_sent_through_the_node_at_once_get_a_nonce_each() {
    let chain = devchain(None).await;
    let url = chain.rpc_url();
    let tasks: Vec<_> = (0..20)
        .map(|value| {
            let rpc = Rpc::new(&url);
            tokio::spawn(async move { rpc.pay(value).await })
        })
        .collect();
    for task in tasks {
        task.await.unwrap();
    }
    let rpc = Rpc::new(&url);
    assert_eq!(
        rpc.number("eth_getTransactionCount", json!([ALICE, "latest"])).await,
        20
    );
}
