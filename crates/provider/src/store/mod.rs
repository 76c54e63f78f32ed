//! What must outlive the process: channels with their best vouchers, open requests, receipts, redemptions.
//!
//! One thread writes; it takes everything that waits and commits it in one transaction, so that many requests share the
//! cost of one sync to disk. The order of writes is the order of [`Store::submit`].

mod bids;
mod migrate;
pub mod read;
mod restore;
mod row;
mod writer;

use std::{
    path::Path,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use rialto_protocol::{
    ChannelId, ChannelParams, Digest, MicroDollars, ModelId, Price, Receipt, RequestId, SignedReceipt, SignedVoucher,
    Usage, channel::ChannelState, fingerprint::Fingerprint, tender::SignedBid,
};
use rialto_settlement::Trail;
use rusqlite::OpenFlags;
use serde::{Deserialize, Serialize};
use sqlx::{
    SqlitePool,
    sqlite::{SqliteConnectOptions, SqlitePoolOptions},
};
use tokio::sync::{mpsc, oneshot};

use crate::{Error, price::Quote};

pub(crate) use restore::StoredChannel;

/// A request that is being worked on: what a receipt needs to know of it if a crash cuts it off.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct OpenRequest {
    /// The buyer's id.
    pub(crate) request: RequestId,
    /// [`rialto_protocol::job::Job::hash`].
    pub(crate) request_hash: Digest,
    /// The price agreed on.
    pub(crate) price: Price,
    /// Units of input.
    pub(crate) input: u64,
    /// Units of output that a voucher covers.
    pub(crate) covered: u64,
    /// Units of output that the buyer has for certain, because it paid for more after them.
    pub(crate) floor: u64,
}

/// A redemption as the chain confirmed it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Redemption {
    /// The transaction's hash.
    pub transaction: Digest,
    /// The block it is in.
    pub block: u64,
    /// Seconds since 1970, by the provider's clock.
    pub redeemed_at: u64,
    /// What the provider received.
    pub provider: MicroDollars,
    /// What the holders of the models received.
    pub royalty: MicroDollars,
    /// What the protocol received.
    pub fee: MicroDollars,
    /// Each channel with its total redeemed so far.
    pub channels: Vec<(ChannelId, MicroDollars)>,
}

/// One thing to write.
#[derive(Debug, Clone)]
pub(crate) enum Write {
    /// A channel seen for the first time.
    Channel {
        /// What its id is made of.
        params: ChannelParams,
        /// As the chain has it.
        state: ChannelState,
        /// Seconds since 1970.
        seen: u64,
    },
    /// What the chain says of a channel now.
    State(ChannelId, ChannelState),
    /// A voucher that is the best so far.
    Voucher(SignedVoucher),
    /// A request that is covered further.
    Open(ChannelId, OpenRequest),
    /// A receipt; its request is no longer open.
    Receipt(Box<SignedReceipt>),
    /// What an answer's receipt has the root of.
    Fingerprint(Box<(Receipt, Fingerprint)>),
    /// A redemption.
    Redemption(Box<Redemption>),
    /// Redemptions in this block and later ones are not on the chain any more.
    Unredeem(u64),
    /// How far the chain was followed.
    Trail(Box<Trail>),
    /// A bid that is about to be made.
    Bid(Box<SignedBid>),
    /// What was drawn from a bid in all.
    Drawn(Digest, Usage),
    /// A price that was promised for a model.
    Quote(ModelId, Quote),
    /// A number to remember under a name.
    Mark(&'static str, u64),
}

/// Writes that are submitted together and committed together.
pub(crate) struct Batch {
    writes: Vec<Write>,
    done: oneshot::Sender<Result<(), Error>>,
}

/// What the writing thread is told.
pub(crate) enum Order {
    /// Write these.
    Write(Batch),
    /// Write what came before this, then end.
    Close,
}

/// Resolves when the writes are on disk.
#[must_use = "nothing may be released before its writes are on disk"]
#[derive(Debug)]
pub(crate) struct Commit(oneshot::Receiver<Result<(), Error>>);

impl Commit {
    /// Waits until the writes are on disk. An error means that they may not be, and that the store takes no more.
    pub(crate) async fn durable(mut self) -> Result<(), Error> {
        self.wait().await
    }

    /// As [`Self::durable`], for a wait that may be given up and begun again.
    pub(crate) async fn wait(&mut self) -> Result<(), Error> {
        (&mut self.0).await.unwrap_or(Err(Error::StoreFailed))
    }
}

/// The provider's store.
#[derive(Debug, Clone)]
pub(crate) struct Store {
    // Unbounded on purpose: whoever submits waits for the commit, so no more can wait here than there are trades, and a
    // submission must not wait while a channel's lock is held.
    orders: mpsc::UnboundedSender<Order>,
    pool: SqlitePool,
    lookups: Arc<Mutex<rusqlite::Connection>>,
    failed: Arc<AtomicBool>,
}

/// The writing thread, to be awaited at shutdown.
#[derive(Debug)]
pub(crate) struct Writer(oneshot::Receiver<()>);

/// How long another process may hold the file.
const BUSY: Duration = Duration::from_secs(10);

/// How the file is written. FULL, not NORMAL: after a power cut NORMAL may lose the last commits. A lost receipt's number
/// would be used again, and two receipts with one number are proof of fraud. One sync serves all writes that wait.
/// Without the last two macOS leaves what was synced in the disk's own cache; elsewhere they do nothing.
const PRAGMAS: [(&str, &str); 5] = [
    ("journal_mode", "WAL"),
    ("synchronous", "FULL"),
    ("foreign_keys", "ON"),
    ("fullfsync", "1"),
    ("checkpoint_fullfsync", "1"),
];

impl Store {
    /// Opens the store, creates it when it is missing, and starts its writing thread.
    pub(crate) async fn open(path: &Path) -> Result<(Self, Writer), Error> {
        let mut options = SqliteConnectOptions::new().filename(path).busy_timeout(BUSY);
        for (name, value) in PRAGMAS {
            options = options.pragma(name, value);
        }
        create(path).map_err(sqlx::Error::from)?;
        let mut connection = sqlx::ConnectOptions::connect(&options).await?;
        migrate::run(&mut connection).await?;
        sqlx::Connection::close(connection).await?;
        // A connection to a file does not break while it rests: none is tried before it is used.
        let pool = SqlitePoolOptions::new()
            .test_before_acquire(false)
            .max_connections(4)
            .connect_with(options)
            .await?;
        let (orders, inbox) = mpsc::unbounded_channel();
        let failed = Arc::new(AtomicBool::new(false));
        let writer = Writer(writer::start(path, inbox, failed.clone())?);
        let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let lookups = rusqlite::Connection::open_with_flags(path, flags)?;
        lookups.busy_timeout(BUSY)?;
        let store = Self {
            orders,
            pool,
            lookups: Arc::new(Mutex::new(lookups)),
            failed,
        };
        Ok((store, writer))
    }

    /// Hands writes to the writing thread. They are committed together, after everything submitted before.
    pub(crate) fn submit(&self, writes: Vec<Write>) -> Commit {
        let (done, commit) = oneshot::channel();
        // A send fails only when the writer has ended; then the commit resolves to an error by itself.
        drop(self.orders.send(Order::Write(Batch { writes, done })));
        Commit(commit)
    }

    /// Waits until everything submitted so far is on disk.
    pub(crate) async fn flush(&self) -> Result<(), Error> {
        self.submit(Vec::new()).durable().await
    }

    /// Whether a write failed; nothing may be sold then.
    pub(crate) fn has_failed(&self) -> bool {
        self.failed.load(Ordering::Relaxed)
    }

    /// Writes what was submitted, then closes. Whatever is submitted later fails.
    pub(crate) async fn close(&self, writer: Writer) {
        drop(self.orders.send(Order::Close));
        self.pool.close().await;
        if writer.0.await.is_err() {
            tracing::error!("the store's writing thread panicked");
        }
    }
}

/// Creates the file when it is missing, for its owner alone; SQLite gives the files beside it the same mode. An existing
/// file is not opened, because closing it again would drop the locks that SQLite holds on it.
fn create(path: &Path) -> std::io::Result<()> {
    let mut options = std::fs::OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    match options.open(path) {
        Err(error) if error.kind() != std::io::ErrorKind::AlreadyExists => Err(error),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests;
