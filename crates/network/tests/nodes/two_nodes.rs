//! Two nodes over real sockets on this machine.

#![expect(clippy::unwrap_used, reason = "a failed step of a test ends it")]

use std::time::Duration;

use rialto_network::{FrameReceiver, Incoming, Node, NodeConfig};
use rialto_protocol::wire::{BuyerFrame, OffersRequest, OffersResponse, Refusal, RefusalCode, SellerFrame};
use zeroize::Zeroizing;

async fn node(secret: u8) -> Node {
    let listen = "127.0.0.1:0".parse().unwrap();
    Node::bind(NodeConfig {
        secret: Zeroizing::new([secret; 32]),
        listen,
        relay: None,
    })
    .await
    .unwrap()
}

fn refusal() -> SellerFrame {
    SellerFrame::Refused(Refusal::new(RefusalCode::Busy, "come back later"))
}

#[tokio::test]
async fn a_node_on_loopback_tells_its_loopback_address_alone() {
    let peer = node(1).await.peer();
    assert!(!peer.addresses.is_empty());
    assert!(
        peer.addresses.iter().all(|address| address.starts_with("127.0.0.1:")),
        "{:?}",
        peer.addresses
    );
}

#[tokio::test]
async fn many_trades_share_a_connection() {
    let (buyer, seller) = (node(1).await, node(2).await);
    let peer = seller.peer();
    tokio::spawn(async move {
        while let Some(Incoming::Trade(_, trade)) = seller.accept().await {
            tokio::spawn(async move {
                let (mut sender, mut receiver) = trade.split();
                assert_eq!(receiver.next().await.unwrap(), Some(BuyerFrame::Cancel));
                sender.send(&refusal()).await.unwrap();
                sender.finish().await;
            });
        }
    });
    let trades = (0..64).map(|_| {
        let (buyer, peer) = (buyer.clone(), peer.clone());
        tokio::spawn(async move {
            let (mut sender, mut receiver) = buyer.trade(&peer).await.unwrap().split();
            sender.send(&BuyerFrame::Cancel).await.unwrap();
            assert_eq!(receiver.next().await.unwrap(), Some(refusal()));
            assert_eq!(receiver.next().await.unwrap(), None);
        })
    });
    for trade in trades.collect::<Vec<_>>() {
        trade.await.unwrap();
    }
}

#[tokio::test]
async fn offers_are_asked_for_and_answered() {
    let (buyer, seller) = (node(3).await, node(4).await);
    let peer = seller.peer();
    tokio::spawn(async move {
        while let Some(Incoming::Offers(_, call)) = seller.accept().await {
            assert_eq!(call.request(), &OffersRequest::Browse);
            call.answer(&OffersResponse::Book(Vec::new())).await.unwrap();
        }
    });
    let answer = buyer.offers(&peer, &OffersRequest::Browse).await.unwrap();
    assert_eq!(answer, OffersResponse::Book(Vec::new()));
}

#[tokio::test]
async fn a_seller_that_comes_back_is_dialled_anew() {
    let (buyer, seller) = (node(5).await, node(6).await);
    let peer = seller.peer();
    buyer.trade(&peer).await.unwrap();
    seller.close().await;
    drop(seller);
    let listen = peer.addresses[0].parse().unwrap();
    let seller = loop {
        // The old socket may take a moment to be given back.
        match Node::bind(NodeConfig {
            secret: Zeroizing::new([6; 32]),
            listen,
            relay: None,
        })
        .await
        {
            Ok(node) => break node,
            Err(_) => tokio::time::sleep(Duration::from_millis(20)).await,
        }
    };
    let (mut sender, _receiver) = buyer.trade(&peer).await.unwrap().split();
    sender.send(&BuyerFrame::Cancel).await.unwrap();
    assert!(matches!(seller.accept().await, Some(Incoming::Trade(..))));
}

#[tokio::test]
async fn a_peer_that_is_not_there_is_unreachable() {
    let buyer = node(7).await;
    let mut peer = node(8).await.peer();
    peer.node = rialto_protocol::NodeKey([0xff; 32]);
    assert!(buyer.trade(&peer).await.is_err());
}

/// A node on a runtime of its own, which can be taken away without a word to anybody, as a power cut does.
fn node_to_kill(secret: u8) -> (tokio::runtime::Runtime, Node) {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()
        .unwrap();
    let node = runtime.block_on(node(secret));
    (runtime, node)
}

/// A seller that was killed while a buyer's trade with it was open, and the one that came back elsewhere and announced itself
/// before the connection to the old one had timed out.
async fn killed_and_back(buyer: &Node, secret: u8) -> (FrameReceiver<SellerFrame>, Node) {
    let (meeting, announcer) = (buyer.peer(), buyer.clone());
    tokio::spawn(async move {
        while let Some(Incoming::Offers(_, call)) = announcer.accept().await {
            call.answer(&OffersResponse::Book(Vec::new())).await.unwrap();
        }
    });
    let (runtime, seller) = std::thread::spawn(move || node_to_kill(secret)).join().unwrap();
    seller.offers(&meeting, &OffersRequest::Browse).await.unwrap();
    let (mut sender, receiver) = buyer.trade(&seller.peer()).await.unwrap().split();
    sender.send(&BuyerFrame::Cancel).await.unwrap();
    let held = seller.accept().await;
    assert!(matches!(held, Some(Incoming::Trade(..))));
    runtime.shutdown_background();
    std::mem::forget((sender, seller, held));
    let again = node(secret).await;
    again.offers(&meeting, &OffersRequest::Browse).await.unwrap();
    (receiver, again)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_seller_that_was_killed_is_reached_at_its_new_address() {
    let buyer = node(9).await;
    let (mut receiver, again) = killed_and_back(&buyer, 10).await;
    assert!(
        receiver.next().await.is_err(),
        "the end of a killed peer goes unnoticed"
    );
    let (mut sender, _receiver) = buyer.trade(&again.peer()).await.unwrap().split();
    sender.send(&BuyerFrame::Cancel).await.unwrap();
    assert!(matches!(again.accept().await, Some(Incoming::Trade(..))));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_seller_that_says_it_is_elsewhere_is_left_where_it_gives_no_sign_of_life() {
    let buyer = node(11).await;
    let (mut receiver, again) = killed_and_back(&buyer, 12).await;
    buyer.look_after(&again.peer()).await;
    // What waits for it where it was knows; and nothing is sent there any more, before the connection has timed out.
    assert!(receiver.next().await.is_err());
    let (mut sender, _receiver) = buyer.trade(&again.peer()).await.unwrap().split();
    sender.send(&BuyerFrame::Cancel).await.unwrap();
    assert!(matches!(again.accept().await, Some(Incoming::Trade(..))));
}

#[tokio::test]
async fn who_lies_about_where_a_seller_is_does_not_cut_it_off() {
    let (buyer, seller) = (node(13).await, node(14).await);
    let (mut sender, mut receiver) = buyer.trade(&seller.peer()).await.unwrap().split();
    sender.send(&BuyerFrame::Cancel).await.unwrap();
    let Some(Incoming::Trade(_, trade)) = seller.accept().await else {
        panic!("no trade")
    };
    let mut lie = seller.peer();
    lie.addresses = vec!["127.0.0.1:9".into()];
    buyer.look_after(&lie).await;
    let (mut answers, _requests) = trade.split();
    answers.send(&refusal()).await.unwrap();
    assert_eq!(receiver.next().await.unwrap(), Some(refusal()));
}
