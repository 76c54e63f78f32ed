//! The provider as a whole: its parts, wired in reading order.

use std::{
    collections::BTreeMap,
    path::PathBuf,
    sync::{Arc, Mutex},
    time::Duration,
};

use futures::{
    FutureExt as _,
    future::{BoxFuture, LocalBoxFuture},
};
use rialto_machine::Meter;
use rialto_network::{Neighbours, Node};
use rialto_protocol::{
    Address, ChannelId, Domain, EnergySource, MicroDollars, ModelId, NanoDollars, SigningKey, ticket::Peer,
};
use rialto_settlement::Wallet;
use serde::Serialize;
use tokio::sync::Notify;
use tokio_util::{
    sync::{CancellationToken, DropGuard},
    task::TaskTracker,
};
use tracing::{info, warn};

use crate::{
    Error,
    bids::Bids,
    channel::Seller,
    channels::Channels,
    claim::{Claimer, Orders},
    clock,
    config::Config,
    courier::Courier,
    energy::{self, Tally},
    limits::Limiter,
    metrics::Metrics,
    offers::Herald,
    price::Tag,
    queue::Queue,
    room::{Listing, Room, Shelf},
    serve,
    store::{Redemption, Store, Writer},
    watch::Watcher,
};

/// How long cut-off work may take to write its receipts.
const LAST_WORDS: Duration = Duration::from_secs(10);

/// Neighbours that it looks for.
const NEIGHBOURS: usize = 8;

/// Everything that a provider is made of.
pub struct Parts {
    /// Where buyers reach it. The provider takes its incoming calls and closes it at shutdown.
    pub node: Node,
    /// Redeems; its key is the provider's account.
    pub wallet: Wallet,
    /// The provider's account: signs receipts and offers.
    pub key: Arc<SigningKey>,
    /// What it sells; each model once.
    pub listings: Vec<Listing>,
    /// Nodes that keep a book of offers.
    pub meeting: Vec<Peer>,
    /// The SQLite file; created when missing. One provider at a time may use it.
    pub store: PathBuf,
    /// Knows what the machine's work draws; `None` leaves energy to what the listings say.
    pub meter: Option<Arc<Meter>>,
    /// How it behaves.
    pub config: Config,
    /// Made by [`Metrics::register`].
    pub metrics: Metrics,
}

/// A running provider. Dropping it cuts everything off; [`Self::shutdown`] is kinder.
#[derive(Debug)]
pub struct Provider {
    room: Arc<Room>,
    node: Node,
    orders: Orders,
    writer: Writer,
    trades: TaskTracker,
    background: TaskTracker,
    stop: CancellationToken,
    address: Address,
    _guards: [DropGuard; 3],
}

/// What a provider is doing.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Stats {
    /// Its account.
    pub provider: Address,
    /// The models, each with its load.
    pub models: Vec<ModelStats>,
    /// Trades that are open.
    pub trades: usize,
    /// The channels that it serves.
    pub channels: Vec<ChannelStats>,
    /// Whether the store failed, and nothing is sold until a restart.
    pub store_failed: bool,
}

/// What one model is doing.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ModelStats {
    /// Its id.
    pub model: ModelId,
    /// `publisher/name:tag`.
    pub listing: String,
    /// The class of its engine.
    pub engine: String,
    /// Requests worked on at a time.
    pub capacity: u32,
    /// Requests being worked on or waiting.
    pub load: usize,
    /// Units of output a second of one request; zero when not measured.
    pub speed: u32,
    /// Millijoules a unit of output, of input where output is not counted; zero when not known.
    pub energy_millijoules: u64,
    /// How that is known.
    pub energy_source: EnergySource,
}

/// What one channel has earned.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ChannelStats {
    /// Its id.
    pub channel: ChannelId,
    /// What all receipts add up to.
    pub earned: NanoDollars,
    /// What was paid out on chain.
    pub redeemed: MicroDollars,
    /// Earned, promised and not redeemed.
    pub unclaimed: MicroDollars,
}

impl Provider {
    /// Opens the store, restores every channel and begins to sell.
    ///
    /// Fails when the configuration is out of bounds, the store cannot be used, or the chain's id is neither configured
    /// nor to be had. Otherwise the chain may be away: open channels are served, and claims wait.
    ///
    /// The future is boxed: what it calls is then compiled here, once, and not in every program that calls it.
    pub fn start(parts: Parts) -> LocalBoxFuture<'static, Result<Self, Error>> {
        Self::begin(parts).boxed_local()
    }

    async fn begin(parts: Parts) -> Result<Self, Error> {
        check(&parts)?;
        let address = parts.key.address();
        let chain = parts.wallet.chain().clone();
        let domain = chain.domain().await?;
        let seller = Arc::new(Seller {
            key: parts.key.clone(),
            domain,
            region: parts.config.region,
        });
        let (store, writer) = Store::open(&parts.store).await?;
        let channels = Arc::new(Channels::restore(chain.clone(), store.clone(), seller, parts.config.trust).await?);
        channels.be_born().await?;
        let changed = Arc::new(Notify::new());
        let room = Arc::new(room(&parts, &store, &channels, &changed).await?);
        let (closing, cut, stop) = (room.closing.clone(), room.cut.clone(), CancellationToken::new());
        let (orders, inbox) = Orders::new();
        let (trades, background) = (TaskTracker::new(), TaskTracker::new());
        let claimer = Claimer {
            wallet: parts.wallet.clone(),
            channels: channels.clone(),
            store: store.clone(),
            policy: room.config.redeem,
            metrics: parts.metrics.clone(),
        };
        background.spawn(claimer.run(inbox, stop.clone()));
        background.spawn(energy::watch(parts.meter, stop.clone()));
        let watcher = Watcher {
            chain,
            channels,
            store,
            orders: orders.clone(),
            provider: address,
            interval: room.config.watch_interval,
            metrics: parts.metrics,
            checked: Mutex::default(),
        };
        background.spawn(watcher.run(stop.clone()));
        let herald = Arc::new(Herald {
            neighbours: mingle(&parts.node, &parts.meeting, domain, &background, &stop),
            node: parts.node.clone(),
            room: room.clone(),
            key: parts.key,
            meeting: parts.meeting,
            changed,
            latest: Mutex::new(Vec::new()),
        });
        let courier = Arc::new(Courier::new(parts.wallet, room.clone(), orders.clone()));
        let (node, served) = (parts.node.clone(), trades.clone());
        background.spawn(serve::run(
            room.clone(),
            node,
            herald.clone(),
            courier,
            served,
            stop.clone(),
        ));
        background.spawn(herald.run(closing.clone()));
        info!(provider = %address, models = room.shelves.len(), "selling");
        Ok(Self {
            room,
            node: parts.node,
            orders,
            writer,
            trades,
            background,
            address,
            _guards: [closing.drop_guard(), cut.drop_guard(), stop.clone().drop_guard()],
            stop,
        })
    }

    /// The account that is paid.
    pub fn address(&self) -> Address {
        self.address
    }

    /// What it is doing now.
    pub fn stats(&self) -> Stats {
        let now = clock::now();
        let model = |shelf: &Arc<Shelf>| {
            let (energy_millijoules, energy_source) = shelf.energy.per_unit();
            ModelStats {
                model: shelf.model,
                listing: shelf.listing.manifest.listing(),
                engine: shelf.listing.engine.info().class.clone(),
                capacity: shelf.queue.capacity(),
                load: shelf.queue.load(),
                speed: shelf.queue.speed(),
                energy_millijoules,
                energy_source,
            }
        };
        let channels = self.room.channels.all();
        let channels = channels.iter().map(|channel| ChannelStats {
            channel: channel.id(),
            earned: channel.earned(),
            redeemed: channel.state().redeemed,
            unclaimed: channel.pending(now).unclaimed,
        });
        Stats {
            provider: self.address,
            models: self.room.shelves.values().map(model).collect(),
            trades: self.trades.len(),
            channels: channels.collect(),
            store_failed: self.room.store.has_failed(),
        }
    }

    /// Claims everything that can be claimed now, whatever the policy says. An empty list means that there was nothing.
    pub async fn redeem_now(&self) -> Result<Vec<Redemption>, Error> {
        self.orders.now().await
    }

    /// Stops admitting, lets running work finish for the configured time, cuts the rest off with a receipt for what was
    /// delivered, and closes store and node.
    pub fn shutdown(self) -> BoxFuture<'static, ()> {
        self.end().boxed()
    }

    async fn end(self) {
        self.room.closing.cancel();
        self.trades.close();
        if tokio::time::timeout(self.room.config.grace, self.trades.wait())
            .await
            .is_err()
        {
            warn!(running = self.trades.len(), "cutting off work that runs on");
        }
        self.room.cut.cancel();
        if tokio::time::timeout(LAST_WORDS, self.trades.wait()).await.is_err() {
            warn!(
                running = self.trades.len(),
                "work did not end in time, its buyers settle it later"
            );
        }
        self.stop.cancel();
        self.background.close();
        if tokio::time::timeout(LAST_WORDS, self.background.wait()).await.is_err() {
            warn!("a background task did not end in time");
        }
        self.node.close().await;
        self.room.store.close(self.writer).await;
        info!(provider = %self.address, "stopped");
    }
}

/// Looks for neighbours until `stop`.
fn mingle(
    node: &Node,
    meeting: &[Peer],
    market: Domain,
    background: &TaskTracker,
    stop: &CancellationToken,
) -> Arc<Neighbours> {
    let neighbours = Arc::new(Neighbours::new(node.clone(), market, false, NEIGHBOURS));
    neighbours.meet(meeting.iter().cloned());
    background.spawn(stop.clone().run_until_cancelled_owned(Arc::clone(&neighbours).run()));
    neighbours
}

fn check(parts: &Parts) -> Result<(), Error> {
    parts.config.check()?;
    if parts.wallet.address() != parts.key.address() {
        return Err(Error::Config(
            "the wallet and the provider's key are different accounts".to_owned(),
        ));
    }
    for listing in &parts.listings {
        let name = listing.manifest.listing();
        let checked = listing.manifest.check();
        checked.map_err(|error| Error::Config(format!("model {name}: {error}")))?;
        let priced = listing.price.check();
        priced.map_err(|error| Error::Config(format!("model {name}: {error}")))?;
    }
    Ok(())
}

/// Everything that trades share, with what the store remembers.
async fn room(parts: &Parts, store: &Store, channels: &Arc<Channels>, changed: &Arc<Notify>) -> Result<Room, Error> {
    Ok(Room {
        shelves: shelves(parts, store, changed).await?,
        channels: channels.clone(),
        bids: Arc::new(Bids::restore(store.clone()).await?),
        store: store.clone(),
        metrics: parts.metrics.clone(),
        payers: Limiter::new(parts.config.payer_limits),
        peers: Limiter::new(parts.config.peer_limits),
        closing: CancellationToken::new(),
        cut: CancellationToken::new(),
        config: parts.config.clone(),
    })
}

async fn shelves(parts: &Parts, store: &Store, changed: &Arc<Notify>) -> Result<BTreeMap<ModelId, Arc<Shelf>>, Error> {
    let mut shelves = BTreeMap::new();
    for listing in &parts.listings {
        let model = listing.model();
        let slots = listing.engine.info().slots;
        let queue = Arc::new(Queue::new(slots, parts.config.queue, changed.clone()));
        let shelf = Arc::new(Shelf {
            model,
            energy: Tally::new(parts.meter.clone(), listing.energy_millijoules),
            tag: Tag::new(listing.price, store.quotes(&model).await?, clock::now()),
            listing: listing.clone(),
            queue,
        });
        if shelves.insert(model, shelf).is_some() {
            let name = listing.manifest.listing();
            return Err(Error::Config(format!("model {name} is listed twice")));
        }
    }
    Ok(shelves)
}
