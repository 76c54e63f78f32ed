//! What the gateway keeps: channels, signed totals, requests, receipts, keys, idempotent answers,
//! files and batches, in one SQLite file.
//!
//! A signed total is on disk before its voucher is sent. Several processes may have the file open: the command line
//! creates keys and reads receipts while the gateway runs.

mod batch_lines;
mod batches;
mod channels;
mod clock;
mod files;
mod idempotency;
mod keys;
mod notes;
mod read;
mod remembered;
mod requests;
mod schema;
#[cfg(test)]
pub(crate) mod tests;
mod uses;
mod writer;

use std::{
    ops::{Deref, DerefMut},
    path::Path,
    sync::Arc,
    time::Duration,
};

pub(crate) use batch_lines::{Ended, LineRow};
pub(crate) use batches::{BatchRow, Written};
pub(crate) use channels::Parties;
pub use channels::{ChannelRow, ChannelStatus};
pub use clock::now;
pub(crate) use files::{FileRow, Wanted};
use futures::{FutureExt as _, future::BoxFuture};
pub(crate) use idempotency::{Claim, StoredAnswer};
pub use keys::{KeyRow, NewKey};
pub use read::{ReceiptRow, Spend};
use remembered::Remembered;
pub(crate) use requests::{Begin, OpenRequest, budget_error};
use sqlx::{
    Sqlite, SqliteConnection, SqlitePool, Transaction,
    pool::PoolConnection,
    sqlite::{SqliteConnectOptions, SqlitePoolOptions},
};
use tokio::sync::{Mutex, OwnedMutexGuard};
pub use uses::Used;
use writer::Writer;

use crate::Error;

/// How long another process may hold the file.
const BUSY: Duration = Duration::from_secs(10);

/// How the file is written. FULL: a voucher may only leave once its total would survive a loss of power. The last two are
/// for where the system's own flush stops at the drive's cache, as on macOS; elsewhere they mean nothing.
const PRAGMAS: [(&str, &str); 5] = [
    ("journal_mode", "WAL"),
    ("synchronous", "FULL"),
    ("foreign_keys", "ON"),
    ("fullfsync", "1"),
    ("checkpoint_fullfsync", "1"),
];

/// The gateway's store. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Store {
    /// What is written seldom: one connection, in turn with the other writer.
    writer: SqlitePool,
    /// Held by whoever writes.
    turn: Arc<Mutex<()>>,
    /// Changes that requests wait for, put together.
    changes: Writer,
    readers: SqlitePool,
    /// Keys that were found a moment ago.
    remembered: Remembered,
}

impl Store {
    /// Opens the file, and creates it when it does not exist.
    pub fn open(path: &Path) -> BoxFuture<'_, Result<Self, Error>> {
        Self::open_file(path).boxed()
    }

    async fn open_file(path: &Path) -> Result<Self, Error> {
        let mut options = SqliteConnectOptions::new()
            .filename(path)
            .create_if_missing(true)
            .busy_timeout(BUSY);
        for (name, value) in PRAGMAS {
            options = options.pragma(name, value);
        }
        // A connection to a file does not break while it rests: none is tried before it is used.
        let pool = || SqlitePoolOptions::new().test_before_acquire(false);
        let writer = pool().max_connections(1).connect_with(options.clone()).await?;
        schema::prepare(&writer).await?;
        let readers = pool()
            .max_connections(4)
            .connect_with(options.read_only(true).create_if_missing(false))
            .await?;
        restrict(path);
        let turn = Arc::default();
        let changes = Writer::start(path, Arc::clone(&turn))?;
        Ok(Self {
            writer,
            turn,
            changes,
            readers,
            remembered: Remembered::default(),
        })
    }

    /// Opens an existing file for reading alone, whether or not a gateway runs.
    pub async fn open_read_only(path: &Path) -> Result<Self, Error> {
        let options = SqliteConnectOptions::new()
            .filename(path)
            .read_only(true)
            .busy_timeout(BUSY);
        let readers = SqlitePoolOptions::new()
            .max_connections(1)
            .connect_with(options)
            .await?;
        schema::check(&readers).await?;
        Ok(Self {
            writer: readers.clone(),
            turn: Arc::default(),
            changes: Writer::none(),
            readers,
            remembered: Remembered::default(),
        })
    }

    /// A connection that may write.
    async fn write(&self) -> Result<Alone<PoolConnection<Sqlite>>, Error> {
        let turn = Arc::clone(&self.turn).lock_owned().await;
        let inner = self.writer.acquire().await?;
        Ok(Alone { inner, _turn: turn })
    }

    /// A transaction that writes. It takes the write lock at once: one that reads first and writes later fails when
    /// another process wrote in between.
    async fn transaction(&self) -> Result<Alone<Transaction<'static, Sqlite>>, Error> {
        let turn = Arc::clone(&self.turn).lock_owned().await;
        let inner = self.writer.begin_with("BEGIN IMMEDIATE").await?;
        Ok(Alone { inner, _turn: turn })
    }

    /// Ends all connections; what was written is in the file.
    pub async fn close(&self) {
        self.changes.close().await;
        self.readers.close().await;
        self.writer.close().await;
    }
}

/// What writes, and the turn that it has.
struct Alone<T> {
    inner: T,
    _turn: OwnedMutexGuard<()>,
}

impl Alone<Transaction<'static, Sqlite>> {
    async fn commit(self) -> Result<(), sqlx::Error> {
        self.inner.commit().await
    }
}

impl<T: Deref<Target = SqliteConnection>> Deref for Alone<T> {
    type Target = SqliteConnection;

    fn deref(&self) -> &SqliteConnection {
        &self.inner
    }
}

impl<T: DerefMut<Target = SqliteConnection>> DerefMut for Alone<T> {
    fn deref_mut(&mut self) -> &mut SqliteConnection {
        &mut self.inner
    }
}

/// The file names who bought what: only its owner may read it. A file system without modes is not an error.
#[cfg(unix)]
fn restrict(path: &Path) {
    use std::os::unix::fs::PermissionsExt as _;
    if let Err(error) = std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600)) {
        tracing::warn!(%error, "cannot restrict the store to its owner");
    }
}

#[cfg(not(unix))]
fn restrict(_: &Path) {}

/// An amount as SQLite keeps it; amounts past 9 billion dollars are cut, which no channel reaches.
fn to_sql(amount: u128) -> i64 {
    i64::try_from(amount).unwrap_or(i64::MAX)
}

/// A count as SQLite keeps it.
fn count_to_sql(count: u64) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}

/// A number that was written by [`to_sql`] or [`count_to_sql`].
fn from_sql(number: i64) -> u64 {
    u64::try_from(number).unwrap_or(0)
}

/// A structure as the store keeps it.
fn pack<T: serde::Serialize + ?Sized>(value: &T) -> Result<Vec<u8>, Error> {
    postcard::to_stdvec(value).map_err(|error| Error::BadStore(error.to_string()))
}

/// A structure that was written by [`pack`].
fn unpack<T: serde::de::DeserializeOwned>(bytes: &[u8]) -> Result<T, Error> {
    postcard::from_bytes(bytes).map_err(|error| Error::BadStore(error.to_string()))
}

/// An id that was written as its bytes.
fn id<const N: usize>(bytes: &[u8]) -> Result<[u8; N], Error> {
    <[u8; N]>::try_from(bytes).map_err(|_| Error::BadStore("an id has the wrong length".into()))
}
