//! One story on the devchain and on anvil. Every answer must be the same; gas estimates within one percent.
//!
//! Where anvil is not installed the story still runs on the devchain, with the assertions inside it.

use crate::support::{ALICE, Anvil, BOB, Rpc, artifact, devchain, number};
use alloy::{
    network::TransactionBuilder,
    primitives::{Address, B256, Bytes, U256, address},
    providers::{Provider, ProviderBuilder},
    rpc::types::{Filter, TransactionReceipt, TransactionRequest},
    signers::local::PrivateKeySigner,
    sol,
    sol_types::{SolCall, SolError, SolEvent},
};
use serde_json::{Value, json};
use std::time::Duration;

sol! {
    interface Dollar {
        event Transfer(address indexed from, address indexed to, uint256 value);
        error ERC20InsufficientBalance(address sender, uint256 balance, uint256 needed);
        function mint(address to, uint256 amount) external;
        function transfer(address to, uint256 value) external returns (bool);
        function balanceOf(address account) external view returns (uint256);
    }
}

const GWEI: u128 = 1_000_000_000;
const CAROL: Address = address!("00000000000000000000000000000000000ca401");
/// Creation code of a contract that calls itself as deep as its input says, with all the gas it has, and stores
/// one word at the bottom: each level keeps back one 64th of the gas, so gas used is far from gas needed.
const NESTED: &str = concat!(
    "60248060095f395ff3",                         // return the 0x24 bytes that follow
    "5f358015601e57",                             // 00: depth = input; if depth == 0 goto 1e
    "600190035f525f5f60205f5f305af1601c575f5ffd", // 07: if call(self, depth - 1) goto 1c, else revert
    "5b00",                                       // 1c: stop
    "5b6001435500",                               // 1e: store 1 under the block's number; stop
);

/// What a story saw.
#[derive(Default)]
struct Seen {
    exact: Vec<(String, String)>,
    gas: Vec<(String, u128)>,
}

impl Seen {
    fn note(&mut self, what: &str, value: impl std::fmt::Debug) {
        self.exact.push((what.to_owned(), format!("{value:?}")));
    }

    fn receipt(&mut self, what: &str, receipt: &TransactionReceipt) {
        // Everything but what depends on time and state root: block hash.
        let shape = json!({
            "hash": receipt.transaction_hash, "index": receipt.transaction_index, "number": receipt.block_number,
            "gas": receipt.gas_used, "price": receipt.effective_gas_price.to_string(), "from": receipt.from,
            "to": receipt.to, "created": receipt.contract_address, "status": receipt.status(),
            "type": receipt.inner.tx_type() as u8, "cumulative": receipt.inner.cumulative_gas_used(),
            "bloom": receipt.inner.logs_bloom(),
            "logs": receipt.inner.logs().iter().map(|log| json!([
                log.inner, log.block_number, log.transaction_hash, log.transaction_index, log.log_index, log.removed,
            ])).collect::<Vec<_>>(),
        });
        self.note(what, shape.to_string());
    }
}

fn wallet() -> PrivateKeySigner {
    let [first, ..] = rialto_devchain::development_keys();
    PrivateKeySigner::from_slice(first.secret.as_slice()).unwrap()
}

/// Fees and gas are fixed, so that transactions are the same to the last bit on both chains.
fn request() -> TransactionRequest {
    TransactionRequest::default()
        .with_gas_limit(5_000_000)
        .with_max_fee_per_gas(20 * GWEI)
        .with_max_priority_fee_per_gas(GWEI)
}

async fn send(provider: &impl Provider, request: TransactionRequest) -> TransactionReceipt {
    provider
        .send_transaction(request)
        .await
        .unwrap()
        .get_receipt()
        .await
        .unwrap()
}

async fn story(url: &str, ours: bool) -> Seen {
    let rpc = Rpc::new(url);
    let provider = ProviderBuilder::new()
        .wallet(wallet())
        .connect_http(url.parse().unwrap());
    let mut seen = Seen::default();
    identity(&rpc, &mut seen).await;
    transfers(&rpc, &provider, &mut seen).await;
    let dollar = contract(&rpc, &provider, &mut seen).await;
    logs(&rpc, &provider, &mut seen, dollar).await;
    reverts(&rpc, &provider, &mut seen, dollar).await;
    estimates(&rpc, &provider, &mut seen, dollar, ours).await;
    refusals(&rpc, &mut seen).await;
    snapshots(&rpc, &mut seen).await;
    time(&rpc, &mut seen, ours).await;
    history(&rpc, &mut seen, dollar).await;
    seen
}

async fn identity(rpc: &Rpc, seen: &mut Seen) {
    for method in [
        "eth_chainId",
        "net_version",
        "eth_accounts",
        "eth_blockNumber",
        "eth_syncing",
        "eth_gasPrice",
    ] {
        seen.note(method, rpc.call(method, json!([])).await.to_string().to_lowercase());
    }
    seen.note("funds", rpc.call("eth_getBalance", json!([BOB, "latest"])).await);
    seen.note(
        "no receipt",
        rpc.call("eth_getTransactionReceipt", json!([B256::ZERO])).await,
    );
    seen.note(
        "no block",
        rpc.call("eth_getBlockByNumber", json!(["0xffff", false])).await,
    );
    let genesis = rpc.call("eth_getBlockByNumber", json!(["earliest", false])).await;
    assert_eq!(genesis["number"], "0x0");
}

async fn transfers(rpc: &Rpc, provider: &impl Provider, seen: &mut Seen) {
    let ether = U256::from(10).pow(U256::from(18));
    let receipt = send(provider, request().with_to(CAROL).with_value(ether)).await;
    assert!(receipt.status() && receipt.gas_used == 21_000);
    seen.receipt("1559 transfer", &receipt);
    let legacy = TransactionRequest::default()
        .with_gas_limit(21_000)
        .with_to(CAROL)
        .with_value(ether)
        .with_gas_price(3 * GWEI);
    seen.receipt("legacy transfer", &send(provider, legacy.clone()).await);
    let mut listed = legacy;
    listed.access_list = Some(Default::default());
    seen.receipt("2930 transfer", &send(provider, listed).await);

    assert_eq!(provider.get_balance(CAROL).await.unwrap(), ether * U256::from(3));
    seen.note(
        "sender's balance",
        provider.get_balance(ALICE.parse().unwrap()).await.unwrap(),
    );
    for tag in ["latest", "pending"] {
        let nonce = rpc.number("eth_getTransactionCount", json!([ALICE, tag])).await;
        assert_eq!(nonce, 3, "{tag}");
    }
    let fee = format!("{:#x}", 9 * GWEI);
    let sent = json!({ "from": BOB, "to": ALICE, "value": "0x1", "maxFeePerGas": fee, "maxPriorityFeePerGas": "0x1" });
    let hash = rpc.send(sent).await;
    seen.note("node-signed transfer", &hash);
    let mut transaction = mined(rpc, &hash).await;
    for gone in ["blockHash", "blockTimestamp"] {
        transaction.as_object_mut().unwrap().remove(gone);
    }
    seen.note("transaction", transaction);
    let block = rpc.call("eth_getBlockByNumber", json!(["latest", true])).await;
    for field in [
        "number",
        "transactionsRoot",
        "receiptsRoot",
        "logsBloom",
        "gasUsed",
        "gasLimit",
        "baseFeePerGas",
        "sha3Uncles",
        "withdrawalsRoot",
        "requestsHash",
        "difficulty",
        "miner",
    ] {
        seen.note(field, &block[field]);
    }
    let same = rpc.call("eth_getBlockByHash", json!([block["hash"], true])).await;
    assert_eq!(same, block);
}

async fn contract(rpc: &Rpc, provider: &impl Provider, seen: &mut Seen) -> Address {
    let code: Bytes = artifact("TestDollar").parse().unwrap();
    let receipt = send(provider, request().with_deploy_code(code)).await;
    seen.receipt("deployment", &receipt);
    let dollar = receipt.contract_address.unwrap();
    seen.note("code", rpc.call("eth_getCode", json!([dollar, "latest"])).await);
    let mint = Dollar::mintCall {
        to: ALICE.parse().unwrap(),
        amount: U256::from(1_000_000),
    };
    seen.receipt(
        "mint",
        &send(provider, request().with_to(dollar).with_input(mint.abi_encode())).await,
    );
    let pay = Dollar::transferCall {
        to: CAROL,
        value: U256::from(400_000),
    };
    seen.receipt(
        "pay",
        &send(provider, request().with_to(dollar).with_input(pay.abi_encode())).await,
    );
    for slot in [
        "0x0",
        "0x0000000000000000000000000000000000000000000000000000000000000002",
    ] {
        seen.note(
            "storage",
            rpc.call("eth_getStorageAt", json!([dollar, slot, "latest"])).await,
        );
    }
    assert_eq!(balance(rpc, dollar, CAROL, "latest").await, 400_000);
    dollar
}

async fn balance(rpc: &Rpc, dollar: Address, of: Address, at: &str) -> u128 {
    let call = Dollar::balanceOfCall { account: of }.abi_encode();
    number(
        &rpc.call("eth_call", json!([{ "to": dollar, "data": Bytes::from(call) }, at]))
            .await,
    )
}

async fn logs(rpc: &Rpc, provider: &impl Provider, seen: &mut Seen, dollar: Address) {
    let filter = rpc.call("eth_newFilter", json!([{ "address": dollar }])).await;
    let blocks = rpc.call("eth_newBlockFilter", json!([])).await;
    assert_eq!(rpc.call("eth_getFilterChanges", json!([filter])).await, json!([]));
    let pay = Dollar::transferCall {
        to: CAROL,
        value: U256::from(1),
    };
    let receipt = send(provider, request().with_to(dollar).with_input(pay.abi_encode())).await;
    assert_eq!(
        rpc.call("eth_getFilterChanges", json!([filter]))
            .await
            .as_array()
            .unwrap()
            .len(),
        1
    );
    assert_eq!(rpc.call("eth_getFilterChanges", json!([filter])).await, json!([]));
    assert_eq!(
        rpc.call("eth_getFilterChanges", json!([blocks])).await,
        json!([receipt.block_hash.unwrap()])
    );
    seen.note(
        "filter logs",
        rpc.call("eth_getFilterLogs", json!([filter]))
            .await
            .as_array()
            .unwrap()
            .len(),
    );
    seen.note("uninstalled", rpc.call("eth_uninstallFilter", json!([filter])).await);
    seen.note(
        "uninstalled twice",
        rpc.call("eth_uninstallFilter", json!([filter])).await,
    );
    assert!(rpc.try_call("eth_getFilterChanges", json!([filter])).await.is_err());

    let all = Filter::new()
        .from_block(0)
        .address(dollar)
        .event_signature(Dollar::Transfer::SIGNATURE_HASH);
    let carols = all.clone().topic2(CAROL.into_word());
    for (what, filter) in [("all", all), ("carol's", carols)] {
        let found = provider.get_logs(&filter).await.unwrap();
        let shapes: Vec<_> = found
            .iter()
            .map(|log| (log.inner.clone(), log.block_number, log.log_index))
            .collect();
        seen.note(what, shapes);
    }
    let nobody = Filter::new().from_block(0).address(CAROL);
    assert!(provider.get_logs(&nobody).await.unwrap().is_empty());
    let at = Filter::new().at_block_hash(receipt.block_hash.unwrap());
    assert_eq!(provider.get_logs(&at).await.unwrap().len(), 1);
}

async fn reverts(rpc: &Rpc, provider: &impl Provider, seen: &mut Seen, dollar: Address) {
    let greedy = Bytes::from(
        Dollar::transferCall {
            to: CAROL,
            value: U256::from(u64::MAX),
        }
        .abi_encode(),
    );
    let call = json!({ "from": ALICE, "to": dollar, "data": greedy });
    for method in ["eth_call", "eth_estimateGas"] {
        let error = rpc.try_call(method, json!([call, "latest"])).await.unwrap_err();
        assert_eq!(error["code"], 3, "{error}");
        let data: Bytes = error["data"].as_str().unwrap().parse().unwrap();
        let reason = Dollar::ERC20InsufficientBalance::abi_decode(&data).unwrap();
        seen.note(method, (reason.sender, reason.balance, reason.needed));
    }
    // A client that names its gas may send what fails: it is mined and says so.
    let failing = request().with_to(dollar).with_input(greedy).with_gas_limit(100_000);
    let receipt = send(provider, failing).await;
    assert!(!receipt.status() && receipt.inner.logs().is_empty());
    seen.receipt("failed transaction", &receipt);
    // `Error(string)` with "no", from creation code written by hand: fill memory, revert with 100 bytes of it.
    let word = |start: &str| format!("7f{start:0<64}");
    let text = [
        &word("08c379a0"),
        "5f52",
        "6020600452",
        "6002602452",
        &word("6e6f"),
        "604452",
        "60645ffd",
    ]
    .concat();
    let error = rpc
        .try_call("eth_call", json!([{ "data": format!("0x{text}") }, "latest"]))
        .await
        .unwrap_err();
    assert!(
        error["message"].as_str().unwrap().ends_with("execution reverted: no"),
        "{error}"
    );
    seen.note("string revert", error["data"].clone());
    let error = rpc
        .try_call("eth_call", json!([{ "data": "0xfe" }, "latest"]))
        .await
        .unwrap_err();
    assert!(error["data"].is_null() && error["code"] != 3, "{error}");
}

async fn estimates(rpc: &Rpc, provider: &impl Provider, seen: &mut Seen, dollar: Address, ours: bool) {
    let deploy = request().with_deploy_code(NESTED.parse::<Bytes>().unwrap());
    let nested = send(provider, deploy).await.contract_address.unwrap();
    let depth = Bytes::from(U256::from(20).to_be_bytes_vec());

    let mint = Bytes::from(
        Dollar::mintCall {
            to: BOB.parse().unwrap(),
            amount: U256::from(7),
        }
        .abi_encode(),
    );
    let pay = Bytes::from(
        Dollar::transferCall {
            to: BOB.parse().unwrap(),
            value: U256::from(7),
        }
        .abi_encode(),
    );
    let cases = [
        ("transfer", json!({ "from": ALICE, "to": BOB, "value": "0x1" })),
        ("mint", json!({ "from": ALICE, "to": dollar, "data": mint })),
        ("pay", json!({ "from": ALICE, "to": dollar, "input": pay })),
        (
            "priced",
            json!({ "from": ALICE, "to": dollar, "input": pay, "maxFeePerGas": format!("{:#x}", 9 * GWEI) }),
        ),
        ("nested", json!({ "from": ALICE, "to": nested, "data": depth })),
        ("deploy", json!({ "from": ALICE, "data": artifact("TestDollar") })),
        ("deploy models", json!({ "from": ALICE, "data": artifact("Models") })),
    ];
    for (what, call) in cases {
        let estimate = rpc.number("eth_estimateGas", json!([call])).await;
        seen.gas.push((what.to_owned(), estimate));
        // Enough to succeed, and not one gas more than that.
        let mut exact = call.clone();
        exact["gas"] = json!(format!("{estimate:#x}"));
        rpc.call("eth_call", json!([exact, "latest"])).await;
    }
    let receipt = send(provider, request().with_to(nested).with_input(depth)).await;
    assert!(receipt.status(), "an estimated transaction must succeed");
    let broke = json!({ "from": "0x00000000000000000000000000000000000000b0", "to": BOB, "value": "0x1" });
    // Anvil estimates for a sender who cannot pay what it sends; most nodes do not.
    assert!(!ours || rpc.try_call("eth_estimateGas", json!([broke])).await.is_err());
}

async fn refusals(rpc: &Rpc, seen: &mut Seen) {
    let send = |fields: Value| {
        let mut transaction = json!({ "from": ALICE, "to": BOB, "value": "0x1", "gas": "0x5208" });
        transaction
            .as_object_mut()
            .unwrap()
            .extend(fields.as_object().unwrap().clone());
        rpc.try_call("eth_sendTransaction", json!([transaction]))
    };
    let low = send(json!({ "nonce": "0x0" })).await.unwrap_err();
    assert!(low["message"].as_str().unwrap().starts_with("nonce too low"), "{low}");
    seen.note("nonce too low", &low["code"]);
    let poor = send(json!({ "value": "0xffffffffffffffffffffffff" }))
        .await
        .unwrap_err();
    assert!(
        poor["message"]
            .as_str()
            .unwrap()
            .to_lowercase()
            .starts_with("insufficient funds"),
        "{poor}"
    );
    seen.note("insufficient funds", &poor["code"]);
    assert!(
        send(json!({ "maxFeePerGas": "0x1", "maxPriorityFeePerGas": "0x1" }))
            .await
            .is_err()
    );
    assert!(send(json!({ "gas": "0x5207" })).await.is_err());
    let unknown = rpc.try_call("eth_nonsense", json!([])).await.unwrap_err();
    seen.note("unknown method", &unknown["code"]);
    let missing = rpc.try_call("eth_getBalance", json!([])).await.unwrap_err();
    seen.note("missing parameter", &missing["code"]);
    assert!(rpc.try_call("eth_sendRawTransaction", json!(["0x1234"])).await.is_err());
    assert!(
        rpc.try_call("eth_getBalance", json!([ALICE, "0xffffff"]))
            .await
            .is_err()
    );
}

async fn snapshots(rpc: &Rpc, seen: &mut Seen) {
    let before = (
        rpc.call("eth_blockNumber", json!([])).await,
        rpc.call("eth_getBalance", json!([BOB, "latest"])).await,
    );
    let id = rpc.call("evm_snapshot", json!([])).await;
    rpc.call("anvil_setBalance", json!([BOB, "0x64"])).await;
    assert_eq!(rpc.number("eth_getBalance", json!([BOB, "latest"])).await, 100);
    let hash = rpc.pay(5).await;
    assert_eq!(rpc.number("eth_getBalance", json!([BOB, "latest"])).await, 105);
    seen.note("reverted", rpc.call("evm_revert", json!([id])).await);
    let after = (
        rpc.call("eth_blockNumber", json!([])).await,
        rpc.call("eth_getBalance", json!([BOB, "latest"])).await,
    );
    assert_eq!(after, before);
    assert!(rpc.call("eth_getTransactionReceipt", json!([hash])).await.is_null());
    seen.note(
        "nonce after revert",
        rpc.call("eth_getTransactionCount", json!([ALICE, "latest"])).await,
    );
    seen.note("reverted twice", rpc.call("evm_revert", json!([id])).await);
}

/// A transaction that has a receipt, with its block: anvil has the receipt a moment before it takes the transaction out
/// of its pool, and answers from the pool until then.
async fn mined(rpc: &Rpc, hash: &Value) -> Value {
    loop {
        let transaction = rpc.call("eth_getTransactionByHash", json!([hash])).await;
        if !transaction["blockNumber"].is_null() {
            return transaction;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

async fn time(rpc: &Rpc, seen: &mut Seen, ours: bool) {
    let timestamp = || async { number(&rpc.call("eth_getBlockByNumber", json!(["latest", false])).await["timestamp"]) };
    // Anvil counts from the wall clock, which many quick blocks run ahead of; this chain counts from the newest block.
    let before = timestamp().await;
    rpc.call("evm_increaseTime", json!([10_000])).await;
    rpc.call("evm_mine", json!([])).await;
    let travelled = timestamp().await;
    let earliest = before + 10_000 - if ours { 0 } else { 1_000 };
    assert!((earliest..before + 11_000).contains(&travelled), "{before} {travelled}");
    rpc.call(
        "evm_setNextBlockTimestamp",
        json!([format!("{:#x}", travelled + 5_000)]),
    )
    .await;
    rpc.pay(1).await;
    assert_eq!(timestamp().await, travelled + 5_000);
    rpc.pay(1).await;
    assert!((travelled + 5_000..travelled + 6_000).contains(&timestamp().await));
    assert!(rpc.try_call("evm_setNextBlockTimestamp", json!([1])).await.is_err());
    let height = rpc.number("eth_blockNumber", json!([])).await;
    rpc.call("anvil_mine", json!(["0x3"])).await;
    rpc.call("anvil_mine", json!([])).await;
    assert_eq!(rpc.number("eth_blockNumber", json!([])).await, height + 4);
    seen.note("height", height);
}

async fn history(rpc: &Rpc, seen: &mut Seen, dollar: Address) {
    seen.note("old balance", rpc.call("eth_getBalance", json!([CAROL, "0x1"])).await);
    seen.note(
        "old nonce",
        rpc.call("eth_getTransactionCount", json!([ALICE, "0x2"])).await,
    );
    seen.note("no code then", rpc.call("eth_getCode", json!([dollar, "0x4"])).await);
    assert_eq!(balance(rpc, dollar, CAROL, "0x7").await, 400_000);
    assert_eq!(balance(rpc, dollar, CAROL, "latest").await, 400_001);
    let fees = rpc.call("eth_feeHistory", json!(["0x4", "0x5", [10, 90]])).await;
    // The fee predicted after the last block is left out: anvil predicts it for the newest block, whichever was asked.
    let paid = &fees["baseFeePerGas"].as_array().unwrap()[..4];
    seen.note("fee history", (paid, &fees["oldestBlock"], &fees["reward"]));
    let receipts = rpc.call("eth_getBlockReceipts", json!(["0x5"])).await;
    let single = rpc
        .call("eth_getTransactionReceipt", json!([receipts[0]["transactionHash"]]))
        .await;
    assert_eq!(receipts[0], single);
    let batch = rpc.raw(json!([
        { "jsonrpc": "2.0", "id": "a", "method": "eth_chainId", "params": [] },
        { "jsonrpc": "2.0", "id": 2, "method": "eth_blockNumber" },
    ]));
    seen.note("batch", batch.await);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_same_story_ends_the_same_on_anvil() {
    let chain = devchain(None).await;
    let ours = story(&chain.rpc_url(), true).await;
    chain.shutdown().await.unwrap();
    let Some(anvil) = Anvil::start() else { return };
    let theirs = story(&anvil.url, false).await;

    assert_eq!(ours.exact.len(), theirs.exact.len());
    let pairs = ours
        .exact
        .iter()
        .zip(&theirs.exact)
        .filter(|(ours, theirs)| ours != theirs);
    let different: Vec<_> = pairs
        .map(|((what, ours), (_, theirs))| format!("{what}:\n  ours {ours}\n anvil {theirs}"))
        .collect();
    assert!(different.is_empty(), "{}", different.join("\n"));
    for ((what, ours), (_, theirs)) in ours.gas.iter().zip(&theirs.gas) {
        println!("gas estimate {what}: {ours}, anvil {theirs}");
        let allowed = theirs / 100;
        assert!(
            ours.abs_diff(*theirs) <= allowed,
            "{what}: {ours} differs from anvil's {theirs}"
        );
    }
}
