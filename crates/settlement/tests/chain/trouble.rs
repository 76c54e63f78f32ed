//! Nodes that go away, dawdle, or serve another chain, and many senders at once.

use crate::anvil::{Anvil, Market, key, options, rich, usd};
use crate::proxy::Proxy;
use rialto_protocol::{Address, ReceiptsHead, Voucher, claim::Claim, ticket::Contracts};
use rialto_settlement::{Chain, Error, Options, Wallet, deploy, ensure_deployed};
use serde_json::json;

#[tokio::test]
async fn a_chain_that_was_away_is_found_again_and_no_claim_is_lost() {
    let market = Market::open().await;
    let params = market.params(1);
    market.buyer.deposit_and_open(&params, usd(1_000)).await.unwrap();
    let voucher = Voucher {
        channel: params.id(),
        cumulative: usd(700),
        receipts_head: ReceiptsHead::default(),
    };
    let claim = Claim {
        channel: params,
        voucher: voucher.sign(&market.chain.domain().await.unwrap(), &market.session),
        amount: usd(700),
    };
    let state = market.anvil.rpc("anvil_dumpState", json!([])).await;
    // Its address stays what it is; what is behind that goes away and comes back.
    let proxy = Proxy::start(&market.anvil.url()).await;
    let chain = Chain::connect(&proxy.url(), market.contracts()).unwrap();
    let provider = Wallet::new(chain.clone(), key(2));
    assert!(chain.channel(params.id()).await.unwrap().is_open());
    drop(market.anvil);

    assert!(matches!(
        chain.channel(params.id()).await,
        Err(Error::Unreachable { .. })
    ));
    let away = provider.redeem(&[claim]).await;
    assert_eq!(away.failed.len(), 1);
    assert_eq!(away.failed[0].channels, vec![params.id()]);
    assert!(away.first_error().unwrap().is_retryable());

    let anvil = Anvil::start();
    anvil.rpc("anvil_loadState", json!([state])).await;
    proxy.stand_before(&anvil.url());
    let back = provider.redeem(&[claim]).await;
    assert_eq!(back.redeemed[0].channels, vec![(params.id(), usd(700))]);
    assert_eq!(chain.channel(params.id()).await.unwrap().redeemed, usd(700));
}

#[tokio::test]
async fn a_transaction_whose_block_does_not_come_is_unknown_until_it_does() {
    let market = Market::open().await;
    let impatient = market.impatient(1).await;
    let buyer = impatient.wallet.clone();
    let mint = move || {
        let buyer = buyer.clone();
        async move { buyer.mint(buyer.address(), usd(7)).await }
    };
    market.anvil.rpc("evm_setAutomine", json!([false])).await;
    let transaction = impatient.gives_up(mint()).await;
    assert!(!Error::Timeout { transaction }.is_retryable());
    assert_eq!(market.chain.outcome(transaction).await.unwrap(), None);
    market.anvil.rpc("evm_mine", json!([])).await;
    let known = market.chain.outcome(transaction).await.unwrap().unwrap();
    assert_eq!(known.transaction, transaction);
    market.anvil.rpc("evm_setAutomine", json!([true])).await;
    mint().await.unwrap();
}

#[tokio::test]
async fn one_wallet_sends_many_transactions_at_once() {
    let market = Market::open().await;
    // Blocks at an interval, so that many transactions wait for one.
    market.anvil.rpc("evm_setAutomine", json!([false])).await;
    market.anvil.rpc("evm_setIntervalMining", json!([1])).await;
    let receiver = Address([0xaa; 20]);
    let tasks: Vec<_> = (0..20u64)
        .map(|i| {
            let buyer = market.buyer.clone();
            tokio::spawn(async move { buyer.mint(receiver, usd(1 << i)).await })
        })
        .collect();
    let mut blocks = Vec::new();
    for task in tasks {
        blocks.push(task.await.unwrap().unwrap().block);
    }
    blocks.dedup();
    assert!(blocks.len() < 20, "they did not wait for one another's blocks");
    assert_eq!(market.chain.token_balance(receiver).await.unwrap(), usd((1 << 20) - 1));
}

#[tokio::test]
async fn deposits_at_once_do_not_take_each_others_approval() {
    let market = Market::open().await;
    let tasks: Vec<_> = (1..=6u64)
        .map(|i| {
            let buyer = Wallet::new(market.chain.clone(), key(1));
            tokio::spawn(async move { buyer.deposit(usd(i)).await })
        })
        .collect();
    for task in tasks {
        task.await.unwrap().unwrap();
    }
    assert_eq!(
        market.chain.free_balance(market.buyer.address()).await.unwrap(),
        usd(21)
    );
}

#[tokio::test]
async fn wallets_of_one_key_do_not_take_each_others_nonce() {
    let market = Market::open().await;
    let receiver = Address([0xbb; 20]);
    let tasks: Vec<_> = (0..8u64)
        .map(|_| {
            let other = Wallet::new(market.chain.clone(), key(1));
            tokio::spawn(async move { other.mint(receiver, usd(1)).await })
        })
        .collect();
    for task in tasks {
        task.await.unwrap().unwrap();
    }
    assert_eq!(market.chain.token_balance(receiver).await.unwrap(), usd(8));
}

#[tokio::test]
async fn a_deposit_whose_outcome_was_not_known_is_not_made_twice() {
    let market = Market::open().await;
    let buyer = market.impatient(1).await;
    // The approval first, so that the deposit alone is in question.
    market.buyer.deposit(usd(5)).await.unwrap();
    market.approve(usd(5)).await;
    market.anvil.rpc("evm_setAutomine", json!([false])).await;
    for _ in 0..3 {
        let wallet = buyer.wallet.clone();
        buyer.gives_up(async move { wallet.deposit(usd(5)).await }).await;
    }
    let deposited = async || market.chain.free_balance(buyer.wallet.address()).await.unwrap();
    assert_eq!(deposited().await, usd(5));
    market.anvil.rpc("anvil_mine", json!([3])).await;
    assert_eq!(deposited().await, usd(10));
}

#[tokio::test]
async fn contracts_are_used_again_until_the_chain_is_reset() {
    let anvil = Anvil::start();
    let first = deploy(&anvil.url(), &rich(), &options()).await.unwrap();
    assert!(first.created);
    let again = ensure_deployed(&anvil.url(), &rich(), &options(), Some(first))
        .await
        .unwrap();
    assert_eq!((again.contracts, again.created), (first.contracts, false));
    let chain = Chain::connect(&anvil.url(), first.contracts).unwrap();
    assert!(chain.is_deployed().await.unwrap());
    let strange = Contracts {
        models: first.contracts.token,
        ..first.contracts
    };
    let strange = Chain::connect(&anvil.url(), strange).unwrap();
    assert!(!strange.is_deployed().await.unwrap());

    anvil.rpc("anvil_reset", json!([])).await;
    assert!(!chain.is_deployed().await.unwrap());
    let gone = chain.fee_bps().await.unwrap_err();
    assert_eq!(
        gone,
        Error::NoContract {
            address: first.contracts.escrow
        }
    );
    let anew = ensure_deployed(&anvil.url(), &rich(), &options(), Some(first))
        .await
        .unwrap();
    assert!(anew.created);
}

#[tokio::test]
async fn another_chain_is_refused() {
    let anvil = Anvil::start();
    let options = Options {
        chain_id: Some(1),
        ..Options::default()
    };
    let nowhere = Contracts {
        token: Address([1; 20]),
        escrow: Address([2; 20]),
        providers: Address([3; 20]),
        models: Address([4; 20]),
    };
    let chain = Chain::connect_with(&anvil.url(), nowhere, options).unwrap();
    let domain = chain.domain().await.unwrap();
    assert_eq!(
        (domain.chain_id, domain.escrow),
        (1, nowhere.escrow),
        "known without the node"
    );
    let error = chain.block_time().await.unwrap_err();
    assert_eq!(
        error,
        Error::WrongChain {
            expected: 1,
            found: 31_337
        }
    );
    let sent = Wallet::new(chain, rich()).send_native(nowhere.token, 1).await;
    assert_eq!(sent, Err(error));
    for bad in ["127.0.0.1:8545", "ws://127.0.0.1:1", "no address"] {
        assert!(
            matches!(Chain::connect(bad, nowhere), Err(Error::Invalid { .. })),
            "{bad}"
        );
    }
}
