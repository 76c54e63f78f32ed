//! Offers that travel from gateway to gateway. No gateway knows more than two others, and none reads another's book: what
//! arrives was passed on.

use std::{
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
    time::Duration,
};

use rialto_gateway::{Config, Gateway, Parts, store::now};
use rialto_network::{Incoming, Node, NodeConfig};
use rialto_protocol::{
    EnergySource, Region, SigningKey,
    manifest::TaskKind,
    offer::{Announcement, Offer},
    ticket::Peer,
    wire::{Greeting, OffersRequest, OffersResponse},
};
use tokio::task::JoinHandle;

use reqwest::StatusCode;
use serde_json::json;

use super::{
    PATIENCE, World, gateway_node,
    seller::{CHUNK, Manner, PRICE, PUBLISHER, Seller, domain, manifest},
    session, wallet,
};

/// Whose stake is not asked for.
const HONEST: u8 = 200;
const UNSTAKED: u8 = 201;

async fn node(secret: u8) -> Node {
    let config = NodeConfig {
        secret: zeroize::Zeroizing::new([secret; 32]),
        listen: "127.0.0.1:0".parse().unwrap(),
        relay: None,
    };
    Node::bind(config).await.unwrap()
}

fn account(number: u8) -> SigningKey {
    SigningKey::from_bytes(&[number; 32]).unwrap()
}

fn offer(provider: u8, sequence: u64) -> Announcement {
    let manifest = manifest("talker", TaskKind::Chat);
    let key = account(provider);
    let offer = Offer {
        provider: key.address(),
        node: rialto_protocol::NodeKey([1; 32]),
        addresses: Vec::new(),
        relay: None,
        model: manifest.model_id(PUBLISHER),
        publisher: PUBLISHER,
        price: PRICE,
        chunk: CHUNK,
        capacity: 2,
        load: 0,
        speed: 0,
        region: Region::default(),
        energy_millijoules: 0,
        energy_source: EnergySource::Unknown,
        engine: "simulated".into(),
        retains_data: false,
        sequence,
        expires_at: now() + 300,
    };
    offer.announce(&key, manifest)
}

/// Gateways in a line: each is told of the one before it.
struct Line {
    folder: tempfile::TempDir,
    gateways: Vec<Gateway>,
    peers: Vec<Peer>,
}

impl Line {
    async fn new(length: u8) -> Self {
        let mut line = Self {
            folder: tempfile::tempdir().unwrap(),
            gateways: Vec::new(),
            peers: Vec::new(),
        };
        for number in 0..length {
            let before = line.peers.last().cloned();
            let (gateway, peer) = line.gateway(number, before.into_iter().collect()).await;
            line.gateways.push(gateway);
            line.peers.push(peer);
        }
        line
    }

    fn store(&self, number: u8) -> PathBuf {
        self.folder.path().join(format!("{number}.db"))
    }

    async fn gateway(&self, number: u8, meeting: Vec<Peer>) -> (Gateway, Peer) {
        let node = node(100 + number).await;
        let peer = node.peer();
        let mut config = Config {
            trusted_providers: vec![account(HONEST).address()],
            standby_channels: 0,
            neighbours: 2,
            ..Config::default()
        };
        config.timeouts.browse_ms = 3_600_000;
        let gateway = Gateway::start(Parts {
            node,
            wallet: wallet(),
            session: Arc::new(session()),
            domain: domain(),
            store: self.store(number),
            listen: "127.0.0.1:0".parse().unwrap(),
            meeting,
            own: Vec::new(),
            config,
        });
        (gateway.await.unwrap(), peer)
    }

    async fn stop(self) {
        for gateway in self.gateways {
            gateway.shutdown().await;
        }
    }
}

/// What a gateway's book says of a provider: its offer's sequence.
async fn sequence(from: &Node, peer: &Peer, provider: u8) -> Option<u64> {
    let book = from.offers(peer, &OffersRequest::Browse).await.unwrap();
    let OffersResponse::Book(book) = book else {
        panic!("a book was asked for");
    };
    let provider = account(provider).address();
    let known = book.into_iter().find(|known| known.offer.provider == provider);
    known.map(|known| known.offer.sequence)
}

async fn announce(from: &Node, to: &Peer, list: Vec<Announcement>) -> u32 {
    match from.offers(to, &OffersRequest::Announce(list)).await.unwrap() {
        OffersResponse::Noted { accepted, .. } => accepted,
        other => panic!("{other:?}"),
    }
}

/// Announces newer and newer offers to one gateway until a book has one that is at least as new as the first of them.
async fn spread(from: &Node, to: &Peer, at: &Peer, first: u64) {
    let spread = async {
        for sequence_now in first.. {
            assert_eq!(announce(from, to, vec![offer(HONEST, sequence_now)]).await, 1);
            if sequence(from, at, HONEST).await.is_some_and(|known| known >= first) {
                return;
            }
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    };
    tokio::time::timeout(PATIENCE, spread).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn an_offer_that_one_gateway_is_told_reaches_all() {
    let line = Line::new(6).await;
    let seller = node(1).await;
    for (round, at) in line.peers.iter().enumerate() {
        spread(&seller, &line.peers[0], at, 1_000 * (round as u64 + 1)).await;
    }
    let last = sequence(&seller, &line.peers[5], HONEST).await.unwrap();
    assert!(last >= 6_000, "the newest wins, and {last} is older");
    assert!(line.gateways.iter().all(|gateway| gateway.book().len() == 1));
    line.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_gateway_finds_its_neighbours_again_by_itself() {
    let mut line = Line::new(3).await;
    let seller = node(2).await;
    spread(&seller, &line.peers[0], &line.peers[2], 1_000).await;
    // It comes back elsewhere, and nobody tells it of anybody.
    line.gateways.pop().unwrap().shutdown().await;
    let before = line.peers.pop().unwrap();
    let (gateway, peer) = line.gateway(2, Vec::new()).await;
    assert_ne!(before.addresses, peer.addresses);
    line.gateways.push(gateway);
    spread(&seller, &line.peers[0], &peer, 2_000).await;
    line.stop().await;
}

/// A neighbour that notes what it is told, and counts.
struct Observer {
    told: AtomicUsize,
    newest: AtomicU64,
}

impl Observer {
    /// Greets a gateway until it is told of an offer.
    async fn start(gateway: &Peer) -> (Arc<Self>, JoinHandle<()>) {
        let observer = Arc::new(Self {
            told: AtomicUsize::new(0),
            newest: AtomicU64::new(0),
        });
        let node = node(3).await;
        let greeting = OffersRequest::Greet(Box::new(Greeting {
            market: domain(),
            own: node.peer(),
        }));
        let answer = node.offers(gateway, &greeting).await.unwrap();
        assert!(
            matches!(answer, OffersResponse::Greeted { listens: true, .. }),
            "{answer:?}"
        );
        let listening = tokio::spawn(Arc::clone(&observer).listen(node));
        (observer, listening)
    }

    async fn listen(self: Arc<Self>, node: Node) {
        while let Some(Incoming::Offers(_, call)) = node.accept().await {
            let response = match call.request() {
                OffersRequest::Announce(list) => {
                    for announcement in list {
                        announcement.check(now()).unwrap();
                        assert_eq!(announcement.offer.provider, account(HONEST).address());
                        // Both gateways may tell it.
                        let sequence = announcement.offer.sequence;
                        if self.newest.fetch_max(sequence, Ordering::SeqCst) < sequence {
                            self.told.fetch_add(1, Ordering::SeqCst);
                        }
                    }
                    OffersResponse::Noted {
                        accepted: 1,
                        complaint: None,
                    }
                }
                OffersRequest::Greet(_) => OffersResponse::Greeted {
                    listens: true,
                    contacts: Vec::new(),
                },
                _ => OffersResponse::Book(Vec::new()),
            };
            drop(call.answer(&response).await);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_forged_unstaked_stale_or_too_much_is_not_passed_on() {
    let line = Line::new(2).await;
    let (seller, gateway) = (node(4).await, &line.peers[0]);
    let (observer, listening) = Observer::start(gateway).await;
    spread(&seller, gateway, &line.peers[1], 1_000).await;
    while observer.told.load(Ordering::SeqCst) == 0 {
        announce(&seller, gateway, vec![offer(HONEST, now() << 10)]).await;
        tokio::time::sleep(Duration::from_millis(200)).await;
    }

    // Each liar comes with a key of its own, as this gateway does not listen to it any more.
    let forged = {
        let mut forged = offer(HONEST, u64::MAX);
        forged.offer.price.output = 1;
        forged
    };
    let mut of_another_model = offer(HONEST, u64::MAX);
    Arc::make_mut(&mut of_another_model.manifest).context_length = 1;
    for lie in [forged, of_another_model] {
        let liar = node(5).await;
        assert_eq!(announce(&liar, gateway, vec![lie; 256]).await, 0);
        let honest = offer(HONEST, now() << 11);
        assert_eq!(
            announce(&liar, gateway, vec![honest]).await,
            0,
            "who lied is not listened to"
        );
    }
    let mut stale = offer(HONEST, 1).offer;
    stale.expires_at = now() - 1;
    stale.sequence = u64::MAX;
    let stale = stale.announce(&account(HONEST), manifest("talker", TaskKind::Chat));
    assert_eq!(
        announce(&seller, gateway, vec![stale, offer(UNSTAKED, u64::MAX)]).await,
        0
    );

    // A provider that says something new all the time: most of it is not taken, and less is passed on.
    let before = observer.told.load(Ordering::SeqCst);
    let (first, mut taken, began) = (now() << 12, 0, std::time::Instant::now());
    for part in 0..8 {
        let flood = (0..256)
            .map(|number| offer(HONEST, first + part * 256 + number))
            .collect();
        taken += announce(&seller, gateway, flood).await;
    }
    // 512 at once and 128 a second, which is some of them unless the machine takes twelve seconds over all.
    let most = 512 + 128 * (began.elapsed().as_secs() + 1);
    assert!(
        u64::from(taken) <= most,
        "{taken} of 2,048, and no more than {most} may be"
    );
    let told = observer.told.load(Ordering::SeqCst) - before;
    assert!(
        told <= usize::try_from(taken).unwrap() / 4,
        "{told} of {taken} were passed on"
    );
    assert!(line.gateways.iter().all(|gateway| gateway.book().len() == 1));
    assert!(!listening.is_finished(), "it was told what is false");
    line.stop().await;
}

#[tokio::test]
async fn what_was_on_sale_before_a_restart_is_bought_at_once_after_it() {
    let mut world = World::new(&[Manner::Honest]).await;
    world.stop().await;
    // It meets nobody, and does not wait for anybody.
    let gateway = world.open(Vec::new()).await;
    assert_eq!(gateway.book().len(), 3);
    world.gateway = Some(gateway);
    assert_eq!(world.chat(json!({})).await.0, StatusCode::OK);
    world.stop().await;
}

#[tokio::test]
async fn a_seller_that_starts_again_elsewhere_is_reached_there_while_it_is_dialled_at_its_old_address() {
    let (mut world, peer) = world_whose_seller_left().await;
    let moves = async {
        // By then the request is on its way to where nobody is, as a rule; else it finds the seller at once.
        tokio::time::sleep(Duration::from_millis(300)).await;
        let again = Seller::start(1, Manner::Honest).await;
        assert_eq!(announce(&again.node, &peer, again.offers()).await, 3);
        again
    };
    let ((status, answer), again) = tokio::join!(world.chat(json!({})), moves);
    assert_eq!(status, StatusCode::OK, "{answer}");
    assert_eq!(again.requests.load(Ordering::SeqCst), 1);
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_that_waits_at_a_seller_that_was_killed_is_answered_once_it_is_back_elsewhere() {
    let (mut world, peer) = world_whose_seller_left().await;
    let moves = async {
        let (runtime, killed) = std::thread::spawn(seller_to_kill).join().unwrap();
        assert_eq!(announce(&killed.node, &peer, killed.offers()).await, 3);
        while killed.requests.load(Ordering::SeqCst) == 0 {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        runtime.shutdown_background();
        let again = Seller::start(1, Manner::Honest).await;
        // Its books are on disk.
        *again.account.lock().await = killed.account.lock().await.take();
        assert_eq!(announce(&again.node, &peer, again.offers()).await, 3);
        (killed, again)
    };
    let ((status, answer), (killed, again)) = tokio::join!(world.chat(json!({})), moves);
    assert_eq!(status, StatusCode::OK, "{answer}");
    assert_eq!(again.requests.load(Ordering::SeqCst), 1);
    assert_eq!(killed.sent.load(Ordering::SeqCst), 0);
    // Its sockets are as a power cut leaves them.
    std::mem::forget(killed);
    world.stop().await;
}

#[tokio::test]
async fn where_a_seller_went_is_kept_before_the_gateway_stops() {
    let (mut world, peer) = world_whose_seller_left().await;
    let again = Seller::start(1, Manner::Honest).await;
    assert_eq!(announce(&again.node, &peer, again.offers()).await, 3);
    let place = again.peer().addresses[0].clone().into_bytes();
    let kept = || {
        let store = rusqlite::Connection::open(world.path()).unwrap();
        let body = store.query_row("SELECT body FROM notes WHERE name = 'offers'", [], |row| row.get(0));
        let body: Vec<u8> = body.unwrap();
        body.windows(place.len()).any(|part| part == place)
    };
    let is_kept = async {
        while !kept() {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    // What changes nothing is kept once a minute. After a write there is a pause of fifty times what it took: three syncs and
    // what belongs to them.
    let patience = Duration::from_secs(40) + 200 * took_to_sync(&world.folder.path().join("synced"));
    tokio::time::timeout(patience, is_kept).await.unwrap();
    world.stop().await;
}

/// What it takes to write a little and sync it, three times.
fn took_to_sync(path: &std::path::Path) -> Duration {
    let began = std::time::Instant::now();
    for _ in 0..3 {
        std::fs::write(path, "x").unwrap();
        std::fs::File::open(path).unwrap().sync_all().unwrap();
    }
    began.elapsed()
}

/// A gateway that knows where its only seller was, and meets nobody; and where it can be told where the seller is.
async fn world_whose_seller_left() -> (World, Peer) {
    let mut world = World::new(&[Manner::Honest]).await;
    world.stop().await;
    world.sellers[0].node.close().await;
    let node = gateway_node().await;
    let peer = node.peer();
    world.gateway = Some(world.open_at(node, Vec::new()).await);
    (world, peer)
}

/// A seller on a runtime of its own, which can be taken away without a word to anybody, as a power cut does.
fn seller_to_kill() -> (tokio::runtime::Runtime, Arc<Seller>) {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()
        .unwrap();
    let seller = runtime.block_on(Seller::start(1, Manner::Slow(3_600_000)));
    (runtime, seller)
}
