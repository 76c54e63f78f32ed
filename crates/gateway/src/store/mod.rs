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

use std::{path::Path, time::Duration};

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
    Sqlite, SqlitePool, Transaction,
    sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions, SqliteSynchronous},
};
pub use uses::Used;
use writer::Writer;

use crate::Error;

/// The gateway's store. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Store {
    /// One connection: SQLite has one writer, and waiting for it here is fairer than in its busy loop.
    writer: SqlitePool,
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
        let options = SqliteConnectOptions::new()
            .filename(path)
            .create_if_missing(true)
            .journal_mode(SqliteJournalMode::Wal)
            // A voucher may only leave once its total would survive a loss of power.
            .synchronous(SqliteSynchronous::Full)
            // Where the system's own flush stops at the drive's cache, as on macOS; elsewhere these mean nothing.
            .pragma("fullfsync", "1")
            .pragma("checkpoint_fullfsync", "1")
            .busy_timeout(Duration::from_secs(10))
            .foreign_keys(true);
        // A connection to a file does not break while it rests: none is tried before it is used.
        let pool = || SqlitePoolOptions::new().test_before_acquire(false);
        let writer = pool().max_connections(1).connect_with(options.clone()).await?;
        schema::prepare(&writer).await?;
        let readers = pool()
            .max_connections(4)
            .connect_with(options.read_only(true).create_if_missing(false))
            .await?;
        restrict(path);
        let changes = Writer::start(writer.clone());
        Ok(Self {
            writer,
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
            .busy_timeout(Duration::from_secs(10));
        let readers = SqlitePoolOptions::new()
            .max_connections(1)
            .connect_with(options)
            .await?;
        schema::check(&readers).await?;
        Ok(Self {
            writer: readers.clone(),
            changes: Writer::start(readers.clone()),
            readers,
            remembered: Remembered::default(),
        })
    }

    /// A transaction that writes. It takes the write lock at once: one that reads first and writes later fails when
    /// another process wrote in between.
    async fn transaction(&self) -> Result<Transaction<'static, Sqlite>, Error> {
        Ok(self.writer.begin_with("BEGIN IMMEDIATE").await?)
    }

    /// Ends all connections; what was written is in the file.
    pub async fn close(&self) {
        self.readers.close().await;
        self.writer.close().await;
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
