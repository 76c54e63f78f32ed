//! Buyers without coins ask the provider to send what they signed: what it gains from it sends, and nothing else.

#![expect(clippy::unwrap_used, clippy::panic, reason = "a test ends where it cannot go on")]

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crate::market::{Buyer, CHUNK, End, Market, PATIENCE, config, usd};
use rialto_engine::SimulatedConfig;
use rialto_protocol::{
    Address, ChannelParams, ModelId, NanoDollars, SigningKey,
    order::SignedOrder,
    wire::{OffersRequest, OffersResponse, Refusal, RefusalCode},
};
use rialto_provider::{Config, Provider, RelayPolicy};
use rialto_settlement::{Funds, Wallet};

/// The least that a channel must hold here.
const LEAST: u64 = 500;

fn relaying(orders_of_payer: usize) -> Config {
    Config {
        relay: RelayPolicy {
            min_amount: usd(LEAST),
            orders_of_payer,
            ..RelayPolicy::default()
        },
        ..config()
    }
}

/// A payer with stablecoin in its account, some more in the escrow, and no coin.
async fn pauper(market: &Market) -> Wallet {
    let payer = Wallet::new(market.chain.clone(), SigningKey::from_bytes(&[9; 32]).unwrap());
    market.buyer.mint(payer.address(), usd(10_000)).await.unwrap();
    payer
}

fn soon() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs() + 600
}

fn refusal(answer: OffersResponse) -> Refusal {
    match answer {
        OffersResponse::NotRelayed(refusal) => refusal,
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn a_channel_with_this_provider_is_opened_and_asked_to_close_and_nothing_else_is_sent() {
    let market = Market::open(SimulatedConfig::default()).await;
    let (provider, peer) = market.sell(&market.store(), relaying(100)).await;
    let node = market.buyer(1, 10_000 * CHUNK, peer.clone()).await.node;
    let payer = pauper(&market).await;
    let ask = async |order: SignedOrder| {
        let request = OffersRequest::Relay(Box::new(order));
        node.offers(&peer, &request).await.unwrap()
    };
    let params = ChannelParams {
        payer: payer.address(),
        ..market.params(7)
    };
    let sign = async |params: ChannelParams, amount| {
        let signed = payer.sign_open(&params, usd(amount), Funds::Account, soon()).await;
        signed.unwrap()
    };

    let other = ChannelParams {
        provider: Address([8; 20]),
        ..params
    };
    let unsold = ChannelParams {
        model: ModelId([8; 32]),
        ..params
    };
    let mut forged = sign(params, LEAST).await;
    forged.order = sign(params, LEAST + 1).await.order;
    let before = market.chain.block_number().await.unwrap();
    for (order, code) in [
        (sign(other, LEAST).await, RefusalCode::BadRequest),
        (sign(unsold, LEAST).await, RefusalCode::UnknownModel),
        (sign(params, LEAST - 1).await, RefusalCode::BadRequest),
        (sign(params, 10_001).await, RefusalCode::BadRequest),
        (forged, RefusalCode::BadRequest),
        (
            payer.sign_deposit(usd(900), soon()).await.unwrap(),
            RefusalCode::BadRequest,
        ),
    ] {
        let refused = refusal(ask(order).await);
        assert_eq!(refused.code, code, "{order:?}: {refused}");
    }
    assert_eq!(market.chain.block_number().await.unwrap(), before, "nothing was sent");

    let order = sign(params, LEAST).await;
    let OffersResponse::Relayed { transaction } = ask(order).await else {
        panic!("it was not relayed");
    };
    assert!(market.chain.outcome(transaction).await.unwrap().is_some());
    assert_eq!(market.chain.channel(params.id()).await.unwrap().funded, usd(LEAST));
    refusal(ask(order).await);

    let close = payer.sign_request_close(&params, soon()).await.unwrap();
    assert!(matches!(ask(close).await, OffersResponse::Relayed { .. }));
    assert!(market.chain.channel(params.id()).await.unwrap().closes_at > 0);
    let early = payer.sign_request_close(&params, soon()).await.unwrap();
    refusal(ask(early).await);
    market.anvil.rpc("evm_increaseTime", &["3601"]);
    market.anvil.rpc("evm_mine", &[]);
    let due = payer.sign_request_close(&params, soon() + 3_601).await.unwrap();
    assert!(matches!(ask(due).await, OffersResponse::Relayed { .. }));
    assert!(market.chain.channel(params.id()).await.unwrap().closed);
    assert_eq!(market.chain.free_balance(payer.address()).await.unwrap(), usd(LEAST));
    assert_eq!(market.chain.native_balance(payer.address()).await.unwrap(), 0);
    provider.shutdown().await;
}

#[tokio::test]
async fn one_payer_cannot_spend_the_providers_coins_without_end() {
    let market = Market::open(SimulatedConfig::default()).await;
    let (provider, peer) = market.sell(&market.store(), relaying(2)).await;
    let node = market.buyer(1, 10_000 * CHUNK, peer.clone()).await.node;
    let payer = pauper(&market).await;
    let mut relayed = 0;
    for salt in 10..14 {
        let params = ChannelParams {
            payer: payer.address(),
            ..market.params(salt)
        };
        let order = payer
            .sign_open(&params, usd(LEAST), Funds::Account, soon())
            .await
            .unwrap();
        match node
            .offers(&peer, &OffersRequest::Relay(Box::new(order)))
            .await
            .unwrap()
        {
            OffersResponse::Relayed { .. } => relayed += 1,
            answer => {
                let refused = refusal(answer);
                assert_eq!(refused.code, RefusalCode::Busy, "{refused}");
                assert!(refused.retry_after_ms.is_some());
            }
        }
    }
    assert_eq!(relayed, 2);
    provider.shutdown().await;
}

/// What is lent in these tests: a chunk costs 50,000 nano-dollars and its input a little.
const CREDIT: u64 = 400;

/// What the channels hold that are lent on.
const AMOUNT: u64 = 1_000 * CHUNK;

fn lending() -> Config {
    let mut config = relaying(100);
    (config.relay.credit, config.relay.credit_in_all) = (usd(CREDIT), usd(CREDIT + 1));
    config
}

async fn begin(market: &Market, buyer: &Buyer, payer: &Wallet, amount: u64, later: u64) -> OffersResponse {
    let params = buyer.account.params();
    let funds = match payer.address() == market.buyer.address() {
        true => Funds::FreeBalance,
        false => Funds::Account,
    };
    let order = payer
        .sign_open(params, usd(amount), funds, soon() + later)
        .await
        .unwrap();
    let request = OffersRequest::Begin(Box::new(order));
    buyer.node.offers(&buyer.to, &request).await.unwrap()
}

/// A buyer whose order is with the seller while blocks are held back.
async fn begun() -> (Market, Provider, Buyer) {
    let market = Market::open(SimulatedConfig::default()).await;
    let (provider, peer) = market.sell(&market.store(), lending()).await;
    let buyer = market.spender(market.params(1), AMOUNT, peer).await;
    market.anvil.rpc("evm_setAutomine", &["false"]);
    let begun = begin(&market, &buyer, &market.buyer, AMOUNT, 0).await;
    assert_eq!(begun, OffersResponse::Begun { credit: usd(CREDIT) });
    (market, provider, buyer)
}

#[tokio::test]
async fn a_channel_is_worked_for_before_its_block_up_to_what_is_lent() {
    let (market, provider, mut buyer) = begun().await;
    let peer = buyer.to.clone();
    let receipt = buyer.whole(CHUNK).await.receipt().receipt;
    assert!(receipt.cost > NanoDollars::ZERO);
    assert!(
        !market
            .chain
            .channel(buyer.account.params().id())
            .await
            .unwrap()
            .is_open()
    );
    // More than what is lent has to wait for the block; the buyer is told, and owes nothing for it.
    let refused = loop {
        match buyer.whole(CHUNK).await {
            End::Finished { .. } => assert!(buyer.account.signed() <= usd(CREDIT)),
            End::Refused(refusal) => break refusal,
        }
    };
    assert_eq!(refused.code, RefusalCode::ChannelExhausted, "{refused}");
    let claimed = provider.redeem_now().await.unwrap();
    assert!(
        claimed.is_empty(),
        "a channel that is not there was claimed: {claimed:?}"
    );
    market.anvil.rpc("evm_setAutomine", &["true"]);
    market.anvil.rpc("evm_mine", &[]);
    let paid = async {
        while buyer.account.spent() <= usd(CREDIT).to_nano() {
            if matches!(buyer.whole(CHUNK).await, End::Refused(_)) {
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    };
    tokio::time::timeout(PATIENCE, paid).await.unwrap();
    // The same channel is not begun twice, and the next one is lent to again.
    refusal(begin(&market, &buyer, &market.buyer, AMOUNT, 0).await);
    let next = market.spender(market.params(2), AMOUNT, peer).await;
    let begun = begin(&market, &next, &market.buyer, AMOUNT, 0).await;
    assert_eq!(begun, OffersResponse::Begun { credit: usd(CREDIT) });
    provider.shutdown().await;
}

#[tokio::test]
async fn whose_order_fails_is_worked_for_no_more() {
    let (market, provider, mut buyer) = begun().await;
    let peer = buyer.to.clone();
    // It is too late when its block comes.
    market.anvil.rpc("evm_increaseTime", &["700"]);
    market.anvil.rpc("evm_mine", &[]);
    market.anvil.rpc("evm_setAutomine", &["true"]);
    let refused = async {
        loop {
            match buyer.whole(1).await {
                End::Refused(refusal) => return refusal,
                End::Finished { .. } => tokio::time::sleep(Duration::from_millis(100)).await,
            }
        }
    };
    let refused = tokio::time::timeout(PATIENCE, refused).await.unwrap();
    assert_eq!(refused.code, RefusalCode::UnknownChannel, "{refused}");
    let next = market.spender(market.params(2), AMOUNT, peer.clone()).await;
    let refused = refusal(begin(&market, &next, &market.buyer, AMOUNT, 700).await);
    assert_eq!(refused.code, RefusalCode::Busy, "{refused}");
    // Another one is lent what is left of all; who pays with an account waits as well as it can.
    let payer = pauper(&market).await;
    let params = ChannelParams {
        payer: payer.address(),
        ..market.params(3)
    };
    let other = market.spender(params, 1, peer).await;
    let begun = begin(&market, &other, &payer, LEAST, 700).await;
    assert_eq!(begun, OffersResponse::Begun { credit: usd(1) });
    provider.shutdown().await;
}
