//! Transactions that get stuck, are left behind, or compete for a nonce: each ends up on the chain once, or never.

#![expect(clippy::unwrap_used, clippy::panic, reason = "a test ends where it cannot go on")]

use std::{
    collections::BTreeSet,
    time::{Duration, Instant},
};

use crate::anvil::{Anvil, NOBODY, key};
use crate::patience::{Impatient, LONG, PATIENCE, pass, timed_out};
use crate::proxy::Proxy;
use rialto_protocol::{Address, Digest, ticket::Contracts};
use rialto_settlement::{Chain, Error, Options, Wallet};
use serde_json::{Value, json};

const GWEI: u128 = 1_000_000_000;

fn nowhere() -> Contracts {
    let address = |byte| Address([byte; 20]);
    Contracts {
        token: address(1),
        escrow: address(2),
        providers: address(3),
        models: address(4),
    }
}

/// Replaces soon, and waits for long.
fn patient() -> Options {
    Options {
        replace_after: Duration::from_millis(400),
        receipt_timeout: LONG,
        call_timeout: PATIENCE,
        ..Options::default()
    }
}

/// As a process of its own that sends with the first test key, replaces soon, and gives up when it is told to.
async fn impatient(url: &str) -> Impatient {
    Impatient::new(url, nowhere(), key(1), patient()).await
}

/// As a process of its own that sends with the first test key.
fn process(url: &str, options: Options) -> Wallet {
    Wallet::new(Chain::connect_with(url, nowhere(), options).unwrap(), key(1))
}

/// A chain that mines when it is told to, and an account with coins.
async fn by_hand() -> Anvil {
    let anvil = Anvil::start();
    let account = key(1).address().to_string();
    anvil
        .rpc("anvil_setBalance", json!([account, "0x56bc75e2d63100000"]))
        .await;
    anvil.rpc("evm_setAutomine", json!([false])).await;
    anvil
}

/// The transaction of the account that waits with a nonce.
async fn waiting(anvil: &Anvil, nonce: u64) -> Value {
    let pool = anvil.rpc("txpool_content", json!([])).await;
    for part in ["pending", "queued"] {
        for (account, transactions) in pool.get(part).and_then(Value::as_object).unwrap() {
            if account.eq_ignore_ascii_case(&key(1).address().to_string())
                && let Some(found) = transactions.get(nonce.to_string())
            {
                return found.clone();
            }
        }
    }
    Value::Null
}

/// Waits until the transaction that waits with a nonce is as wanted.
async fn until_waiting(anvil: &Anvil, nonce: u64, wanted: impl Fn(&Value) -> bool) -> Value {
    let until = Instant::now() + PATIENCE;
    while Instant::now() < until {
        let found = waiting(anvil, nonce).await;
        if !found.is_null() && wanted(&found) {
            return found;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    panic!("no such transaction came to wait with nonce {nonce}")
}

fn number(value: &Value) -> u128 {
    u128::from_str_radix(value.as_str().unwrap().trim_start_matches("0x"), 16).unwrap()
}

fn hash(value: &Value) -> Digest {
    let bytes = hex::decode(value.as_str().unwrap().trim_start_matches("0x")).unwrap();
    Digest(bytes.try_into().unwrap())
}

async fn mine(anvil: &Anvil) {
    anvil.rpc("evm_mine", json!([])).await;
}

async fn received(anvil: &Anvil) -> u128 {
    number(&anvil.rpc("eth_getBalance", json!([NOBODY.to_string(), "latest"])).await)
}

async fn count(anvil: &Anvil) -> u128 {
    let account = key(1).address().to_string();
    number(&anvil.rpc("eth_getTransactionCount", json!([account, "latest"])).await)
}

/// Sends in a task of its own.
fn send(wallet: &Wallet, wei: u128) -> tokio::task::JoinHandle<Result<rialto_settlement::Confirmed, Error>> {
    let wallet = wallet.clone();
    tokio::spawn(async move { wallet.send_native(NOBODY, wei).await })
}

/// Sends and gives up.
async fn send_in_vain(impatient: &Impatient, wei: u128) -> Digest {
    let wallet = impatient.wallet.clone();
    impatient
        .gives_up(async move { wallet.send_native(NOBODY, wei).await })
        .await
}

#[tokio::test]
async fn a_stuck_transaction_is_replaced_at_its_nonce_and_pays_once() {
    let anvil = by_hand().await;
    let wallet = process(&anvil.url(), patient());
    let sent = send(&wallet, 7);
    let mut fees = Vec::new();
    for _ in 0..3 {
        let above = fees.last().copied().unwrap_or_default();
        let found = until_waiting(&anvil, 0, |found| number(&found["maxFeePerGas"]) > above).await;
        fees.push(number(&found["maxFeePerGas"]));
    }
    for pair in fees.windows(2) {
        assert!(pair[1] * 8 >= pair[0] * 9, "{fees:?}");
    }
    mine(&anvil).await;
    let confirmed = sent.await.unwrap().unwrap();
    assert_eq!((received(&anvil).await, count(&anvil).await), (7, 1));
    // Whichever of its hashes is asked for, it is this transaction that counts.
    assert_eq!(
        wallet.chain().outcome(confirmed.transaction).await.unwrap(),
        Some(confirmed)
    );
}

#[tokio::test]
async fn whichever_of_the_issued_transactions_is_in_a_block_counts() {
    let anvil = by_hand().await;
    let proxy = Proxy::start(&anvil.url()).await;
    let wallet = process(&proxy.url(), patient());
    let sent = send(&wallet, 7);
    let first = until_waiting(&anvil, 0, |_| true).await;
    // From now on the node says that it takes transactions, and does not.
    proxy.say(|method, _| (method == "eth_sendRawTransaction").then(|| json!(Digest::default().to_string())));
    let before = proxy.calls("eth_sendRawTransaction");
    while proxy.calls("eth_sendRawTransaction") < before + 3 {
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    mine(&anvil).await;
    assert_eq!(sent.await.unwrap().unwrap().transaction, hash(&first["hash"]));
    assert_eq!((received(&anvil).await, count(&anvil).await), (7, 1));
}

#[tokio::test]
async fn the_same_call_goes_on_with_what_was_given_up() {
    let anvil = by_hand().await;
    let impatient = impatient(&anvil.url()).await;
    let wallet = &impatient.wallet;
    let given_up = send_in_vain(&impatient, 7).await;
    assert_eq!(wallet.chain().outcome(given_up).await.unwrap(), None);
    let again = send_in_vain(&impatient, 7).await;
    // A caller that stops waiting leaves its transaction in the same way.
    let dropped = tokio::time::timeout(Duration::from_millis(200), wallet.send_native(NOBODY, 7)).await;
    assert!(dropped.is_err());
    let before = number(&waiting(&anvil, 0).await["maxFeePerGas"]);
    let last = send(wallet, 7);
    until_waiting(&anvil, 0, |found| number(&found["maxFeePerGas"]) > before).await;
    mine(&anvil).await;
    let confirmed = last.await.unwrap().unwrap();
    assert_eq!((received(&anvil).await, count(&anvil).await), (7, 1));
    for transaction in [given_up, again] {
        assert_eq!(wallet.chain().outcome(transaction).await.unwrap(), Some(confirmed));
    }
    // It is decided: the next is another one.
    let next = send(wallet, 7);
    until_waiting(&anvil, 1, |_| true).await;
    mine(&anvil).await;
    next.await.unwrap().unwrap();
    assert_eq!((received(&anvil).await, count(&anvil).await), (14, 2));
}

#[tokio::test]
async fn what_was_given_up_is_pushed_by_what_comes_later() {
    let anvil = by_hand().await;
    let impatient = impatient(&anvil.url()).await;
    let wallet = &impatient.wallet;
    let given_up = send_in_vain(&impatient, 7).await;
    // The node forgets it: everything that comes after waits for a nonce that nobody sends.
    anvil.rpc("anvil_dropTransaction", json!([given_up.to_string()])).await;
    assert!(waiting(&anvil, 0).await.is_null());
    let next = send(wallet, 100);
    until_waiting(&anvil, 0, |found| number(&found["value"]) == 7).await;
    until_waiting(&anvil, 1, |found| number(&found["value"]) == 100).await;
    mine(&anvil).await;
    next.await.unwrap().unwrap();
    assert_eq!((received(&anvil).await, count(&anvil).await), (107, 2));
    assert!(wallet.chain().outcome(given_up).await.unwrap().is_some());
}

#[tokio::test]
async fn what_a_process_left_behind_is_cancelled_after_its_restart() {
    let anvil = by_hand().await;
    // It was sent when gas was dear: another price must be found by trying.
    anvil
        .rpc(
            "anvil_setNextBlockBaseFeePerGas",
            json!([format!("0x{:x}", 100 * GWEI)]),
        )
        .await;
    mine(&anvil).await;
    send_in_vain(&impatient(&anvil.url()).await, 7).await;
    send_in_vain(&impatient(&anvil.url()).await, 8).await;
    let account = key(1).address().to_string();
    let left = anvil.rpc("eth_getTransactionCount", json!([account, "pending"])).await;
    assert_eq!(number(&left), 2);

    let wallet = process(&anvil.url(), patient());
    let sent = send(&wallet, 100);
    until_waiting(&anvil, 0, |found| number(&found["value"]) == 0).await;
    anvil
        .rpc("anvil_setNextBlockBaseFeePerGas", json!([format!("0x{GWEI:x}")]))
        .await;
    mine(&anvil).await;
    sent.await.unwrap().unwrap();
    // The second was not in the way any more.
    assert_eq!((received(&anvil).await, count(&anvil).await), (108, 3));
}

#[tokio::test]
async fn a_transaction_whose_nonce_another_process_used_is_made_anew() {
    let anvil = by_hand().await;
    let sent = send(&process(&anvil.url(), Options::default()), 7);
    until_waiting(&anvil, 0, |_| true).await;
    // The other process does not see what waits, and offers more.
    let proxy = Proxy::start(&anvil.url()).await;
    proxy.say(|method, params| match method {
        "eth_getTransactionCount" if params[1] == "pending" => Some(json!("0x0")),
        "eth_maxPriorityFeePerGas" => Some(json!(format!("0x{:x}", 50 * GWEI))),
        _ => None,
    });
    let other = send(&process(&proxy.url(), Options::default()), 100);
    until_waiting(&anvil, 0, |found| number(&found["value"]) == 100).await;
    mine(&anvil).await;
    other.await.unwrap().unwrap();
    until_waiting(&anvil, 1, |found| number(&found["value"]) == 7).await;
    mine(&anvil).await;
    sent.await.unwrap().unwrap();
    assert_eq!((received(&anvil).await, count(&anvil).await), (107, 2));
}

/// Fifty transactions of two processes, each with two wallets of the same key.
async fn compete(anvil: &Anvil) {
    let mut tasks = Vec::new();
    for process_number in 0..2u32 {
        let one = process(&anvil.url(), patient());
        let other = Wallet::new(one.chain().clone(), key(1));
        for (wallet, part) in [(one, 0), (other, 1)] {
            let first = process_number * 26 + part * 13;
            for bit in first..(first + 13).min(50) {
                tasks.push(send(&wallet, 1u128 << bit));
            }
        }
    }
    assert_eq!(tasks.len(), 50);
    let mut hashes = BTreeSet::new();
    for task in tasks {
        hashes.insert(task.await.unwrap().unwrap().transaction);
    }
    assert_eq!(hashes.len(), 50);
    // Each amount is a bit of the sum: none is missing, and none came twice.
    assert_eq!((received(anvil).await, count(anvil).await), ((1 << 50) - 1, 50));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_processes_and_four_wallets_of_one_key_send_everything_once() {
    let anvil = by_hand().await;
    anvil.rpc("evm_setIntervalMining", json!([1])).await;
    compete(&anvil).await;
    let anvil = by_hand().await;
    anvil.rpc("evm_setAutomine", json!([true])).await;
    compete(&anvil).await;
}

#[tokio::test]
async fn what_is_offered_ends_at_the_limit_and_the_way_is_free_once_gas_is_cheap() {
    let anvil = by_hand().await;
    let options = Options {
        max_fee_per_gas: 4 * GWEI,
        ..patient()
    };
    let wallet = process(&anvil.url(), options);
    let sent = send(&wallet, 7);
    let highest = until_waiting(&anvil, 0, |found| number(&found["maxFeePerGas"]) > 3_500_000_000).await;
    assert!(number(&highest["maxFeePerGas"]) <= 4 * GWEI);
    pass(LONG).await;
    let transaction = timed_out(sent.await.unwrap());
    let newest = waiting(&anvil, 0).await;
    assert_eq!(transaction, hash(&newest["hash"]));
    assert!(number(&newest["maxFeePerGas"]) <= 4 * GWEI);

    anvil
        .rpc(
            "anvil_setNextBlockBaseFeePerGas",
            json!([format!("0x{:x}", 5_000 * GWEI)]),
        )
        .await;
    mine(&anvil).await;
    assert_eq!(received(&anvil).await, 0);
    let dear = wallet.send_native(NOBODY, 100).await.unwrap_err();
    assert!(
        matches!(dear, Error::TooExpensive { limit, .. } if limit == 4 * GWEI),
        "{dear}"
    );
    assert!(dear.is_retryable() && dear.to_string().contains("raise the limit"));

    anvil
        .rpc("anvil_setNextBlockBaseFeePerGas", json!([format!("0x{GWEI:x}")]))
        .await;
    mine(&anvil).await;
    let sent = send(&wallet, 100);
    until_waiting(&anvil, 1, |_| true).await;
    until_waiting(&anvil, 0, |_| true).await;
    mine(&anvil).await;
    sent.await.unwrap().unwrap();
    assert_eq!((received(&anvil).await, count(&anvil).await), (107, 2));
}

#[tokio::test]
async fn the_cost_of_a_transaction_is_bounded() {
    let anvil = by_hand().await;
    let options = Options {
        max_cost: 21_000 * GWEI,
        ..patient()
    };
    let error = process(&anvil.url(), options).send_native(NOBODY, 7).await.unwrap_err();
    assert!(matches!(error, Error::TooExpensive { .. }), "{error}");
    assert!(waiting(&anvil, 0).await.is_null());
}
