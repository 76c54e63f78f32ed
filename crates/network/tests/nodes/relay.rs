//! Nodes that reach each other through a relay alone: nobody dials an address of theirs.

#![expect(clippy::unwrap_used, reason = "a failed step of a test ends it")]

use std::{net::SocketAddr, num::NonZeroU32, time::Duration};

use rialto_network::{Error, Incoming, Node, NodeConfig, Relay, RelayConfig};
use rialto_protocol::{
    ticket::Peer,
    wire::{OffersRequest, OffersResponse},
};
use tokio::net::TcpSocket;
use zeroize::Zeroizing;

/// How long anything is waited for that must happen: only a hang takes so long, also on a busy machine.
const PATIENCE: Duration = Duration::from_secs(120);

async fn relay(listen: SocketAddr) -> Result<Relay, Error> {
    let bytes_per_second = NonZeroU32::new(1_000_000).unwrap();
    Relay::start(RelayConfig {
        listen,
        bytes_per_second,
    })
    .await
}

async fn node(secret: u8, relay: &Relay) -> Node {
    Node::bind(NodeConfig {
        secret: Zeroizing::new([secret; 32]),
        listen: "127.0.0.1:0".parse().unwrap(),
        relay: Some(relay.url()),
    })
    .await
    .unwrap()
}

/// As others know a node whose addresses lead nowhere.
fn behind_nat(node: &Node) -> Peer {
    Peer {
        addresses: Vec::new(),
        ..node.peer()
    }
}

fn answer_offers(node: Node) {
    tokio::spawn(async move {
        while let Some(Incoming::Offers(_, call)) = node.accept().await {
            drop(call.answer(&OffersResponse::Book(Vec::new())).await);
        }
    });
}

/// Asks until there is an answer: a node takes a moment to be at its relay.
async fn ask(from: &Node, peer: &Peer) {
    let asked = async {
        while from.offers(peer, &OffersRequest::Browse).await.is_err() {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    tokio::time::timeout(PATIENCE, asked).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_without_an_address_is_reached_through_its_relay_also_after_that_was_killed() {
    // Bound and not listened on: the relay's address is its own also while it is away.
    let held = TcpSocket::new_v4().unwrap();
    held.set_reuseaddr(true).unwrap();
    held.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let address = held.local_addr().unwrap();
    let _held = cfg!(target_os = "linux").then_some(held);
    let first = relay(address).await.unwrap();
    let (buyer, seller) = (node(1, &first).await, node(2, &first).await);
    let peer = behind_nat(&seller);
    assert!(peer.relay.is_some());
    answer_offers(seller);
    ask(&buyer, &peer).await;

    drop(first);
    let _second = loop {
        match relay(address).await {
            Ok(relay) => break relay,
            Err(_) => tokio::time::sleep(Duration::from_millis(20)).await,
        }
    };
    ask(&buyer, &peer).await;
    buyer.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn another_relay_is_not_contacted_because_a_peer_names_it() {
    let anywhere = "127.0.0.1:0".parse().unwrap();
    let (own, other) = (relay(anywhere).await.unwrap(), relay(anywhere).await.unwrap());
    let (buyer, seller) = (node(3, &own).await, node(4, &other).await);
    let neighbour = node(5, &other).await;
    let peer = behind_nat(&seller);
    answer_offers(seller);
    ask(&neighbour, &peer).await;
    assert!(buyer.offers(&peer, &OffersRequest::Browse).await.is_err());
}

#[tokio::test]
async fn a_relay_is_a_url_of_http() {
    for url in ["", "relay.example.org", "ftp://relay.example.org", "data:,relay"] {
        let bound = Node::bind(NodeConfig {
            secret: Zeroizing::new([6; 32]),
            listen: "127.0.0.1:0".parse().unwrap(),
            relay: Some(url.into()),
        });
        assert!(matches!(bound.await, Err(Error::BadPeer(_))), "{url}");
    }
}
