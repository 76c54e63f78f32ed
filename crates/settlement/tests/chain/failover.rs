//! Several nodes: calls go on when one fails, lies about its chain or is behind, and what was read never goes back.

#![expect(clippy::unwrap_used, reason = "a test ends where it cannot go on")]

use std::time::Duration;

use crate::anvil::{Anvil, NOBODY, key, rich};
use crate::patience::{LONG, PATIENCE, pass, until};
use crate::proxy::{Mode, Proxy};
use rialto_protocol::{Address, Digest, ticket::Contracts};
use rialto_settlement::{Chain, Error, Options, Wallet};
use serde_json::json;

fn nowhere() -> Contracts {
    let address = |byte| Address([byte; 20]);
    Contracts {
        token: address(1),
        escrow: address(2),
        providers: address(3),
        models: address(4),
    }
}

/// However slow the machine is: the time for an answer and the pause of a node are over when a test says so.
fn options() -> Options {
    Options {
        call_timeout: PATIENCE,
        node_pause: PATIENCE,
        receipt_timeout: LONG,
        replace_after: Duration::from_millis(500),
        ..Options::default()
    }
}

/// How long nodes that are behind are waited for.
const CATCH_UP: Duration = Duration::from_secs(5);

/// Two proxies before one node, and a chain behind both.
async fn pair(anvil: &Anvil) -> (Proxy, Proxy, Chain) {
    let (first, second) = (Proxy::start(&anvil.url()).await, Proxy::start(&anvil.url()).await);
    let urls = vec![first.url(), second.url()];
    let chain = Chain::connect_with(&urls, nowhere(), options()).unwrap();
    (first, second, chain)
}

async fn mine(anvil: &Anvil, blocks: u64) {
    anvil.rpc("anvil_mine", json!([blocks])).await;
}

#[tokio::test]
async fn calls_and_transactions_go_to_the_next_node_when_one_fails() {
    let anvil = Anvil::start();
    let mut sent = 0;
    for mode in [
        Mode::Cut,
        Mode::Hang,
        Mode::Status(429),
        Mode::Status(503),
        Mode::Nonsense,
        Mode::Say(Box::new(|_, _| Some(json!({"surprise": 1})))),
    ] {
        let (first, second, chain) = pair(&anvil).await;
        let wallet = Wallet::new(chain.clone(), rich());
        assert_eq!(chain.block_number().await.unwrap(), sent);
        assert_eq!(second.calls(""), 0, "the first one serves");
        let (hangs, before) = (matches!(mode, Mode::Hang), first.calls(""));
        first.set(mode);
        let asking = {
            let chain = chain.clone();
            tokio::spawn(async move { chain.block_number().await })
        };
        if hangs {
            until(|| first.calls("") > before).await;
            pass(options().call_timeout).await;
        }
        assert_eq!(asking.await.unwrap().unwrap(), sent);
        let asked = first.calls("");
        wallet.send_native(NOBODY, 1).await.unwrap();
        sent += 1;
        assert_eq!(chain.native_balance(NOBODY).await.unwrap(), u128::from(sent));
        assert_eq!(first.calls(""), asked, "it is left alone for a while");

        // The second one fails, and the first has recovered: it is found again.
        first.set(Mode::Pass);
        second.set(Mode::Cut);
        pass(options().node_pause).await;
        wallet.send_native(NOBODY, 1).await.unwrap();
        sent += 1;
        assert!(first.calls("") > asked);
    }
}

#[tokio::test]
async fn nobody_left_is_unreachable_and_nothing_was_sent() {
    let anvil = Anvil::start();
    let (first, second, chain) = pair(&anvil).await;
    let wallet = Wallet::new(chain.clone(), rich());
    first.set(Mode::Status(429));
    second.set(Mode::Cut);
    let error = wallet.send_native(NOBODY, 1).await.unwrap_err();
    assert!(matches!(error, Error::Unreachable { .. }), "{error}");
    assert_eq!(
        first.calls("eth_sendRawTransaction") + second.calls("eth_sendRawTransaction"),
        0
    );
    // No pause keeps the last hope from being asked.
    second.set(Mode::Pass);
    wallet.send_native(NOBODY, 1).await.unwrap();
}

#[tokio::test]
async fn a_node_that_fails_while_a_transaction_waits_is_replaced_by_another() {
    let anvil = Anvil::start();
    anvil.rpc("evm_setAutomine", json!([false])).await;
    let (first, second, chain) = pair(&anvil).await;
    let wallet = Wallet::new(chain.clone(), rich());
    let sending = tokio::spawn(async move { wallet.send_native(NOBODY, 1).await });
    until(|| first.calls("eth_getTransactionReceipt") > 0).await;
    let asked = first.calls("");
    first.set(Mode::Hang);
    until(|| first.calls("") > asked).await;
    pass(options().call_timeout).await;
    until(|| second.calls("eth_getTransactionReceipt") > 0).await;
    mine(&anvil, 1).await;
    sending.await.unwrap().unwrap();
    assert_eq!(chain.native_balance(NOBODY).await.unwrap(), 1);
}

#[tokio::test]
async fn transactions_go_to_all_nodes_so_one_that_swallows_them_does_no_harm() {
    let anvil = Anvil::start();
    let (first, second, chain) = pair(&anvil).await;
    first.say(|method, _| (method == "eth_sendRawTransaction").then(|| json!(Digest::default().to_string())));
    Wallet::new(chain.clone(), rich()).send_native(NOBODY, 1).await.unwrap();
    assert_eq!(chain.native_balance(NOBODY).await.unwrap(), 1);
    assert!(first.calls("eth_sendRawTransaction") > 0 && second.calls("eth_sendRawTransaction") > 0);
}

#[tokio::test]
async fn a_node_of_another_chain_is_not_asked_anything_else() {
    let anvil = Anvil::start();
    let (first, second, _) = pair(&anvil).await;
    let another = |method: &str, _: &serde_json::Value| (method == "eth_chainId").then(|| json!("0x1"));
    first.say(another);
    let options = Options {
        chain_id: Some(31_337),
        ..options()
    };
    let urls = vec![first.url(), second.url()];
    let chain = Chain::connect_with(&urls, nowhere(), options).unwrap();
    Wallet::new(chain.clone(), rich()).send_native(NOBODY, 1).await.unwrap();
    assert_eq!(chain.chain_id().await.unwrap(), 31_337);
    assert_eq!(first.calls(""), first.calls("eth_chainId"));
    // A node that becomes another chain's while it was away is found out.
    second.set(Mode::Cut);
    assert!(chain.block_number().await.is_err());
    second.say(another);
    let error = chain.block_number().await.unwrap_err();
    assert_eq!(
        error,
        Error::WrongChain {
            expected: 31_337,
            found: 1
        }
    );
}

#[tokio::test]
async fn a_node_that_is_behind_is_not_believed_until_it_has_caught_up() {
    let anvil = Anvil::start();
    let (first, second, chain) = pair(&anvil).await;
    second.say(|method, _| (method == "eth_blockNumber").then(|| json!("0x2")));
    mine(&anvil, 5).await;
    assert_eq!(chain.block_number().await.unwrap(), 5);
    first.set(Mode::Cut);
    let ask = || {
        let chain = chain.clone();
        tokio::spawn(async move { chain.native_balance(NOBODY).await })
    };
    let (asking, asked) = (ask(), second.calls("eth_blockNumber"));
    until(|| second.calls("eth_blockNumber") > asked).await;
    pass(CATCH_UP).await;
    let error = asking.await.unwrap().unwrap_err();
    assert!(matches!(error, Error::Unreachable { .. }), "{error}");
    assert_eq!(second.calls("eth_getBalance"), 0, "an old balance is worse than none");

    // It catches up while somebody waits for it.
    let (waiting, asked) = (ask(), second.calls("eth_blockNumber"));
    until(|| second.calls("eth_blockNumber") > asked).await;
    second.set(Mode::Pass);
    assert_eq!(waiting.await.unwrap().unwrap(), 0);
    assert!(second.calls("eth_getBalance") > 0);
}

#[tokio::test]
async fn a_node_that_stands_still_is_found_out() {
    let anvil = Anvil::start();
    let (first, second) = (Proxy::start(&anvil.url()).await, Proxy::start(&anvil.url()).await);
    first.say(|method, _| (method == "eth_blockNumber").then(|| json!("0x0")));
    mine(&anvil, 5).await;
    let options = Options {
        node_pause: Duration::from_millis(300),
        ..options()
    };
    let urls = vec![first.url(), second.url()];
    let chain = Chain::connect_with(&urls, nowhere(), options).unwrap();
    assert_eq!(chain.block_number().await.unwrap(), 0);
    while chain.block_number().await.unwrap() != 5 {
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    chain.native_balance(NOBODY).await.unwrap();
    assert_eq!(first.calls("eth_getBalance"), 0);
}

#[tokio::test]
async fn a_chain_that_takes_blocks_back_is_still_followed() {
    let anvil = Anvil::start();
    let (first, _second, chain) = pair(&anvil).await;
    mine(&anvil, 9).await;
    assert_eq!(chain.block_number().await.unwrap(), 9);
    anvil.rpc("anvil_rollback", json!([4])).await;
    // The node that showed block 9 takes it back itself, so the other one is believed too.
    while chain.block_number().await.unwrap() != 5 {
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    pass(Duration::from_secs(3)).await;
    assert_eq!(chain.native_balance(NOBODY).await.unwrap(), 0);
    first.set(Mode::Cut);
    assert_eq!(chain.block_number().await.unwrap(), 5);
}

#[tokio::test]
async fn a_password_is_in_no_error() {
    let urls = vec![
        "http://me:secret@127.0.0.1:1/secret".to_owned(),
        "http://me:secret@127.0.0.1:2".to_owned(),
    ];
    let chain = Chain::connect_with(&urls, nowhere(), options()).unwrap();
    let error = Wallet::new(chain, key(1)).send_native(NOBODY, 1).await.unwrap_err();
    assert!(!format!("{error} {error:?}").contains("secret"), "{error:?}");
    let bad = Chain::connect("ftp://me:secret@127.0.0.1", nowhere()).err().unwrap();
    assert!(!format!("{bad} {bad:?}").contains("secret"), "{bad:?}");
    let none: Vec<String> = Vec::new();
    assert!(matches!(Chain::connect(&none, nowhere()), Err(Error::Invalid { .. })));
}
