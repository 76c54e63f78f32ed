//! Tenders: a bid is honoured, also after a restart, for its buyer alone and for no more than was bid.

#![expect(clippy::unwrap_used, clippy::panic, reason = "a test ends where it cannot go on")]

use std::time::{SystemTime, UNIX_EPOCH};

use crate::market::{CHUNK, End, Market, PRICE, config};
use rialto_engine::SimulatedConfig;
use rialto_network::Node;
use rialto_protocol::{
    Digest, Price, SigningKey, Usage,
    tender::{SignedBid, SignedTender, Tender},
    ticket::Peer,
    wire::{OffersRequest, OffersResponse, RefusalCode},
};
use rialto_provider::{BidPolicy, Config};

fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs()
}

fn tender(market: &Market, key: &SigningKey, output: u64, ceiling: Price) -> SignedTender {
    let tender = Tender {
        buyer: key.address(),
        models: vec![market.params(1).model],
        usage: Usage { input: 1_000, output },
        deadline: now() + 3_600,
        ceiling,
        salt: Digest([4; 32]),
        expires_at: now() + 60,
    };
    tender.sign(key)
}

async fn ask(node: &Node, to: &Peer, tender: &SignedTender) -> Result<SignedBid, RefusalCode> {
    let request = OffersRequest::Tender(Box::new(tender.clone()));
    match node.offers(to, &request).await.unwrap() {
        OffersResponse::Bid(bid) => Ok(*bid),
        OffersResponse::NoBid(refusal) => Err(refusal.code),
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn a_bid_is_honoured_after_a_restart_until_it_is_used_up() {
    let market = Market::open(SimulatedConfig::default()).await;
    let (provider, peer) = market.sell(&market.store(), config()).await;
    let mut buyer = market.buyer(1, 1_000_000, peer.clone()).await;
    let wanted = tender(&market, &buyer.session, 2 * CHUNK, PRICE);
    let bid = ask(&buyer.node, &peer, &wanted).await.unwrap();
    bid.check(&wanted.tender, market.provider().address(), now()).unwrap();
    assert_eq!((bid.bid.price.input, bid.bid.price.output), (167, 389));
    assert_eq!(
        ask(&buyer.node, &peer, &wanted).await.unwrap(),
        bid,
        "the same tender, the same bid"
    );
    buyer.price = bid.bid.price;
    let receipt = buyer.whole(CHUNK).await.receipt().receipt;
    assert_eq!(receipt.cost, bid.bid.price.cost(receipt.usage));

    provider.shutdown().await;
    let (provider, peer) = market.sell(&market.store(), config()).await;
    buyer.to = peer;
    let receipt = buyer.whole(CHUNK).await.receipt().receipt;
    assert_eq!(receipt.cost, bid.bid.price.cost(receipt.usage));
    let refusal = buyer.whole(CHUNK).await.refusal();
    assert_eq!(refusal.code, RefusalCode::PriceChanged, "{refusal}");
    buyer.price = PRICE;
    assert!(matches!(buyer.whole(CHUNK).await, End::Finished { .. }));
    provider.shutdown().await;
}

#[tokio::test]
async fn a_price_that_was_bid_to_nobody_or_to_somebody_else_is_refused() {
    let market = Market::open(SimulatedConfig::default()).await;
    let (provider, peer) = market.sell(&market.store(), config()).await;
    let mut buyer = market.buyer(1, 1_000_000, peer.clone()).await;
    let stranger = SigningKey::from_bytes(&[99; 32]).unwrap();
    let bid = ask(&buyer.node, &peer, &tender(&market, &stranger, 1_000, PRICE)).await;
    buyer.price = bid.unwrap().bid.price;
    assert_eq!(buyer.whole(1).await.refusal().code, RefusalCode::PriceChanged);
    // Signed by another key than it names.
    let mut forged = tender(&market, &stranger, 1_000, PRICE);
    forged.tender.buyer = buyer.session.address();
    assert_eq!(ask(&buyer.node, &peer, &forged).await, Err(RefusalCode::BadRequest));
    // Worth less to the buyer than the seller bids.
    let mean = Price { output: 100, ..PRICE };
    let low = tender(&market, &buyer.session, 1_000, mean);
    assert_eq!(ask(&buyer.node, &peer, &low).await, Err(RefusalCode::PriceChanged));
    provider.shutdown().await;
}

#[tokio::test]
async fn a_busy_seller_bids_nothing_and_its_slots_go_to_whoever_pays_the_posted_price() {
    let slow = SimulatedConfig {
        slots: 1,
        ..SimulatedConfig::default()
    };
    let market = Market::open(slow).await;
    let (provider, peer) = market.sell(&market.store(), config()).await;
    let mut buyer = market.buyer(1, 1_000_000, peer.clone()).await;
    let wanted = tender(&market, &buyer.session, 10_000, PRICE);
    let bid = ask(&buyer.node, &peer, &wanted).await.unwrap();
    // The slot is taken as long as its buyer does not pay on.
    let mut running = buyer.ask(4 * CHUNK).await;
    assert!(buyer.read(&mut running, 1).await.is_none());
    let mut other = tender(&market, &buyer.session, 10_000, PRICE).tender;
    other.salt = Digest([5; 32]);
    let other = other.sign(&buyer.session);
    assert_eq!(ask(&buyer.node, &peer, &other).await, Err(RefusalCode::Busy));
    buyer.price = bid.bid.price;
    let refusal = buyer.whole(1).await.refusal();
    assert_eq!(refusal.code, RefusalCode::Busy);
    assert!(refusal.retry_after_ms.is_some());
    buyer.price = PRICE;
    buyer.read(&mut running, u64::MAX).await.unwrap();
    buyer.price = bid.bid.price;
    assert!(
        matches!(buyer.whole(1).await, End::Finished { .. }),
        "nothing was used up"
    );
    provider.shutdown().await;
}

#[tokio::test]
async fn a_seller_may_make_no_bids() {
    let market = Market::open(SimulatedConfig::default()).await;
    let policy = Config {
        bids: BidPolicy {
            discount: 0,
            ..BidPolicy::default()
        },
        ..config()
    };
    let (provider, peer) = market.sell(&market.store(), policy).await;
    let buyer = market.buyer(1, 1_000_000, peer.clone()).await;
    let wanted = tender(&market, &buyer.session, 1, PRICE);
    assert_eq!(ask(&buyer.node, &peer, &wanted).await, Err(RefusalCode::BadRequest));
    provider.shutdown().await;
}
