//! Wires the gateway's parts, in reading order, and ends them.

use std::{net::SocketAddr, path::PathBuf, sync::Arc, time::Duration};

use futures::{FutureExt as _, future::BoxFuture};
use rialto_network::{Neighbours, Node};
use rialto_protocol::{ChannelId, Domain, SigningKey, ticket::Peer};
use rialto_settlement::Wallet;
use tokio::{
    net::TcpListener,
    sync::Semaphore,
    task::JoinHandle,
    time::{Instant, timeout},
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::{
    Book, Config, Error, OwnServer, Store,
    batch::{self, Batches},
    book::{Door, Spread, Stakes, answer_peers, browse, keep_book, meet_registered, restore, spread},
    buying::{Uses, stand_by},
    config::ms,
    desk::Desk,
    http::{self, Attempts, Bells},
    metrics::Metrics,
    own::{self, Own},
    paying::{Ledger, Sellers},
    routing::Prefixes,
    store::now,
};

/// Time between two looks at what changed in the book.
const SORTING: Duration = Duration::from_millis(100);

/// The folder of files, beside the store.
const FILES: &str = "files";

/// What a gateway is made of.
pub struct Parts {
    /// The node that dials providers and receives offers. Nobody else may accept its calls.
    pub node: Node,
    /// The payer: its key deposits, opens, tops up and closes.
    pub wallet: Wallet,
    /// The session key that signs vouchers.
    pub session: Arc<SigningKey>,
    /// The domain of all signatures in this market.
    pub domain: Domain,
    /// The store's file.
    pub store: PathBuf,
    /// Where HTTP is served; port 0 for any.
    pub listen: SocketAddr,
    /// Nodes whose books of offers are read.
    pub meeting: Vec<Peer>,
    /// The owner's own servers.
    pub own: Vec<OwnServer>,
    /// What the owner set.
    pub config: Config,
}

/// A running gateway.
pub struct Gateway {
    desk: Arc<Desk>,
    address: SocketAddr,
    stop: CancellationToken,
    server: JoinHandle<()>,
    tasks: Vec<JoinHandle<()>>,
}

impl Gateway {
    /// Opens the store, restores the channels, and begins to serve. The chain need not answer.
    ///
    /// The future is boxed: what it calls is then compiled here, once, and not in every program that calls it.
    pub fn start(parts: Parts) -> BoxFuture<'static, Result<Self, Error>> {
        Self::begin(parts).boxed()
    }

    async fn begin(parts: Parts) -> Result<Self, Error> {
        let listen_error = |error: std::io::Error| Error::Listen {
            address: parts.listen,
            reason: error.to_string(),
        };
        let listener = TcpListener::bind(parts.listen).await.map_err(listen_error)?;
        let address = listener.local_addr().map_err(listen_error)?;
        let config = Arc::new(parts.config);
        let store = Store::open(&parts.store).await?;
        let stakes = Stakes::new(parts.wallet.chain().clone(), config.trusted_providers.clone());
        let book = Arc::new(Book::new(config.aliases.clone()));
        let sellers = Sellers {
            node: parts.node.clone(),
            book: Arc::clone(&book),
        };
        let ledger = Ledger::restore(
            sellers,
            store.clone(),
            parts.wallet,
            parts.session,
            parts.domain,
            Arc::clone(&config),
        )
        .await?;
        let batches = Batches::open(&parts.store.with_file_name(FILES), &config.batches).await?;
        let left = store
            .left_open_since(now().saturating_sub(config.timeouts.retry_seconds))
            .await?;
        let neighbours = Arc::new(Neighbours::new(
            parts.node.clone(),
            parts.domain,
            true,
            config.neighbours,
        ));
        neighbours.meet(parts.meeting.iter().cloned().chain(store.contacts().await?));
        let desk = Arc::new(Desk {
            node: parts.node,
            neighbours,
            door: Door::new(),
            spread: Spread::default(),
            book,
            own: Own::new(parts.own, config.aliases.clone())?,
            stakes,
            store,
            ledger: Arc::new(ledger),
            prefixes: Prefixes::default(),
            uses: Uses::default(),
            metrics: Metrics::new(),
            tasks: TaskTracker::new(),
            halt: CancellationToken::new(),
            places: Arc::new(Semaphore::new(config.max_requests)),
            bells: Bells::default(),
            batches,
            turnstile: Arc::default(),
            attempts: Attempts::new(left),
            boot: rand::random(),
            config,
        });
        batch::clear(&desk).await;
        restore(&desk).await;
        let stop = CancellationToken::new();
        let tasks = tend(&desk, parts.meeting, &stop);
        let server = tokio::spawn(http::serve(listener, Arc::clone(&desk), stop.clone()));
        tracing::info!(%address, "the gateway serves");
        Ok(Self {
            desk,
            address,
            stop,
            server,
            tasks,
        })
    }

    /// Where HTTP is served.
    pub fn local_addr(&self) -> SocketAddr {
        self.address
    }

    /// The store: keys are created and receipts are read through it.
    pub fn store(&self) -> &Store {
        &self.desk.store
    }

    /// The book of offers.
    pub fn book(&self) -> &Book {
        &self.desk.book
    }

    /// Requests that a channel closes; returns when that can be finalised, in seconds since 1970 by the chain's clock.
    /// The gateway finalises it by itself.
    pub fn request_close(&self, channel: ChannelId) -> BoxFuture<'_, Result<u64, Error>> {
        async move {
            let found = self.desk.ledger.find(channel);
            let found = found.ok_or_else(|| Error::Settlement(format!("there is no open channel {channel}")))?;
            self.desk.ledger.close(&found).await
        }
        .boxed()
    }

    /// Looks after the channels at once instead of at the next turn: finalises closes that are due.
    pub fn tend_channels(&self) -> BoxFuture<'_, Result<(), Error>> {
        self.desk.ledger.tend().boxed()
    }

    /// Stops taking requests, lets those under way end for a while, and closes the store.
    pub fn shutdown(self) -> BoxFuture<'static, ()> {
        self.end().boxed()
    }

    async fn end(self) {
        self.stop.cancel();
        let patience = ms(self.desk.config.timeouts.shutdown_ms);
        let mut server = self.server;
        if timeout(patience, &mut server).await.is_err() {
            self.desk.halt.cancel();
            server.abort();
        }
        self.desk.attempts.give_up();
        self.desk.tasks.close();
        let receipts = ms(self.desk.config.timeouts.cancel_ms).saturating_mul(2);
        if timeout(receipts, self.desk.tasks.wait()).await.is_err() {
            tracing::warn!("some requests did not end in time; their receipts come with the next requests");
        }
        for task in self.tasks {
            let _ = timeout(patience, task).await;
        }
        self.desk.node.close().await;
        self.desk.store.close().await;
    }
}

/// Starts what a gateway does besides answering requests.
fn tend(desk: &Arc<Desk>, meeting: Vec<Peer>, stop: &CancellationToken) -> Vec<JoinHandle<()>> {
    vec![
        tokio::spawn(answer_peers(Arc::clone(desk), stop.clone())),
        tokio::spawn(browse(Arc::clone(desk), meeting, stop.clone())),
        tokio::spawn(keep_book(Arc::clone(desk), stop.clone())),
        tokio::spawn(meet_registered(Arc::clone(desk), stop.clone())),
        tokio::spawn(spread(Arc::clone(desk), stop.clone())),
        tokio::spawn(mingle(Arc::clone(&desk.neighbours), stop.clone())),
        tokio::spawn(stand_by(Arc::clone(desk), stop.clone())),
        tokio::spawn(sort_book(Arc::clone(desk), stop.clone())),
        tokio::spawn(own::watch(Arc::clone(desk), stop.clone())),
        tokio::spawn(batch::run(Arc::clone(desk), stop.clone())),
        tokio::spawn(keep_house(Arc::clone(desk), stop.clone())),
    ]
}

async fn mingle(neighbours: Arc<Neighbours>, stop: CancellationToken) {
    tokio::select! {
        () = stop.cancelled() => {}
        () = neighbours.run() => {}
    }
}

/// Sorts the book anew, so that no request waits for it. A large book is sorted so seldom that it takes a twentieth of a
/// core.
async fn sort_book(desk: Arc<Desk>, stop: CancellationToken) {
    let mut took = Duration::ZERO;
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(SORTING.max(took.saturating_mul(20))) => {}
        }
        let (book, started) = (Arc::clone(&desk.book), Instant::now());
        if tokio::task::spawn_blocking(move || book.sort()).await.is_err() {
            tracing::error!("the book could not be sorted");
        }
        took = started.elapsed();
    }
}

/// Channels and old records, again and again.
async fn keep_house(desk: Arc<Desk>, stop: CancellationToken) {
    let timeouts = &desk.config.timeouts;
    let pause = ms(timeouts.follow_ms.clamp(1, timeouts.closing_ms.max(1)));
    let mut tended = Instant::now();
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(pause) => {}
        }
        let replaced = desk.ledger.follow().await.unwrap_or_else(|error| {
            tracing::debug!(%error, "the chain cannot be followed");
            false
        });
        if !replaced && !desk.ledger.has_lost() && tended.elapsed() < ms(timeouts.closing_ms) {
            continue;
        }
        tended = Instant::now();
        if let Err(error) = desk.ledger.tend().await {
            tracing::debug!(%error, "channels were not looked after");
        }
        desk.attempts.prune(Duration::from_secs(timeouts.retry_seconds));
        let before = now().saturating_sub(timeouts.idempotency_seconds);
        let pruned = async {
            desk.store.prune_answers(before).await?;
            desk.store.prune_requests(before).await
        };
        if let Err(error) = pruned.await {
            tracing::warn!(%error, "old records were not pruned");
        }
    }
}
