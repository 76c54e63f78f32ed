//! The tables, and their versions.

use sqlx::SqlitePool;

use crate::Error;

/// The version that this software writes.
const VERSION: i64 = 4;

/// What the second version added: when a channel was found closed, in seconds since 1970, because a reorganisation may
/// open it again; and structures that outlive the process, such as the trail of blocks.
const SECOND: &str = "
ALTER TABLE channels ADD COLUMN closed_at INTEGER NOT NULL DEFAULT 0;
CREATE TABLE notes (
    name TEXT PRIMARY KEY,
    body BLOB NOT NULL
) STRICT, WITHOUT ROWID;
PRAGMA user_version = 2;
";

/// What the third version added: files, batches and their requests; and of which request with an idempotency id a receipt
/// is, so that what a batch cost is what its receipts add up to.
const THIRD: &str = "
ALTER TABLE receipts ADD COLUMN idempotency BLOB;
CREATE INDEX receipts_idempotency ON receipts(idempotency) WHERE idempotency IS NOT NULL;
CREATE TABLE files (
    id TEXT PRIMARY KEY,
    key TEXT NOT NULL,
    purpose TEXT NOT NULL,
    name TEXT NOT NULL,
    bytes INTEGER NOT NULL,
    created_at INTEGER NOT NULL,
    expires_at INTEGER
) STRICT;
CREATE INDEX files_key ON files(key, created_at, id);
CREATE INDEX files_end ON files(expires_at) WHERE expires_at IS NOT NULL;
CREATE TABLE batches (
    id TEXT PRIMARY KEY,
    key TEXT NOT NULL,
    endpoint TEXT NOT NULL,
    input_file TEXT NOT NULL,
    metadata TEXT,
    status TEXT NOT NULL,
    created_at INTEGER NOT NULL,
    expires_at INTEGER,
    in_progress_at INTEGER,
    finalizing_at INTEGER,
    completed_at INTEGER,
    failed_at INTEGER,
    expired_at INTEGER,
    cancelling_at INTEGER,
    cancelled_at INTEGER,
    output_file TEXT,
    error_file TEXT,
    errors TEXT NOT NULL DEFAULT '[]',
    model TEXT,
    total INTEGER NOT NULL DEFAULT 0,
    completed INTEGER NOT NULL DEFAULT 0,
    failed INTEGER NOT NULL DEFAULT 0,
    output_bytes INTEGER NOT NULL DEFAULT 0,
    error_bytes INTEGER NOT NULL DEFAULT 0,
    output_seconds INTEGER
) STRICT;
CREATE INDEX batches_key ON batches(key, created_at, id);
CREATE INDEX batches_input ON batches(input_file);
CREATE TABLE batch_lines (
    batch TEXT NOT NULL,
    number INTEGER NOT NULL,
    id BLOB NOT NULL UNIQUE,
    custom_id TEXT NOT NULL,
    offset INTEGER NOT NULL,
    length INTEGER NOT NULL,
    model TEXT NOT NULL,
    input INTEGER NOT NULL,
    output INTEGER NOT NULL,
    state TEXT NOT NULL,
    posted_input INTEGER NOT NULL DEFAULT 0,
    posted_output INTEGER NOT NULL DEFAULT 0,
    posted_request INTEGER NOT NULL DEFAULT 0,
    PRIMARY KEY (batch, number),
    UNIQUE (batch, custom_id)
) STRICT, WITHOUT ROWID;
PRAGMA user_version = 3;
";

/// What the fourth version added: what a key may use in a stretch of time, what it wants of sellers, and what it used lately.
const FOURTH: &str = "
ALTER TABLE keys ADD COLUMN limits TEXT;
ALTER TABLE keys ADD COLUMN provider TEXT;
ALTER TABLE requests ADD COLUMN hold_units INTEGER NOT NULL DEFAULT 0;
CREATE TABLE uses (
    key TEXT NOT NULL,
    span INTEGER NOT NULL,
    start INTEGER NOT NULL,
    units INTEGER NOT NULL,
    nano INTEGER NOT NULL,
    PRIMARY KEY (key, span, start)
) STRICT, WITHOUT ROWID;
PRAGMA user_version = 4;
";

const TABLES: &str = "
CREATE TABLE keys (
    id TEXT PRIMARY KEY,
    name TEXT NOT NULL,
    hash BLOB NOT NULL,
    budget_micro INTEGER,
    spent_nano INTEGER NOT NULL DEFAULT 0,
    created_at INTEGER NOT NULL,
    revoked_at INTEGER
) STRICT;
CREATE TABLE channels (
    id BLOB PRIMARY KEY,
    params BLOB NOT NULL,
    provider BLOB NOT NULL,
    model BLOB NOT NULL,
    listing TEXT NOT NULL,
    status TEXT NOT NULL,
    funded_micro INTEGER NOT NULL,
    signed_micro INTEGER NOT NULL DEFAULT 0,
    opened_at INTEGER NOT NULL,
    used_at INTEGER NOT NULL,
    closes_at INTEGER NOT NULL DEFAULT 0
) STRICT;
CREATE TABLE requests (
    id BLOB PRIMARY KEY,
    channel BLOB NOT NULL REFERENCES channels(id),
    key TEXT,
    idempotency BLOB,
    price BLOB NOT NULL,
    request_hash BLOB NOT NULL,
    max_input INTEGER NOT NULL,
    covered_output INTEGER NOT NULL,
    received_input INTEGER NOT NULL DEFAULT 0,
    received_output INTEGER NOT NULL DEFAULT 0,
    reserved_nano INTEGER NOT NULL,
    hold_nano INTEGER NOT NULL,
    state TEXT NOT NULL,
    started_at INTEGER NOT NULL
) STRICT;
CREATE INDEX requests_open ON requests(state) WHERE state IN ('open', 'interrupted');
CREATE INDEX requests_key ON requests(key) WHERE state IN ('open', 'interrupted');
CREATE INDEX requests_idempotency ON requests(idempotency) WHERE idempotency IS NOT NULL;
CREATE TABLE receipts (
    channel BLOB NOT NULL REFERENCES channels(id),
    sequence INTEGER NOT NULL,
    request BLOB NOT NULL,
    key TEXT,
    signed BLOB NOT NULL,
    input INTEGER NOT NULL,
    output INTEGER NOT NULL,
    cost_nano INTEGER NOT NULL,
    finished_at INTEGER NOT NULL,
    complaint TEXT,
    PRIMARY KEY (channel, sequence)
) STRICT, WITHOUT ROWID;
CREATE INDEX receipts_time ON receipts(finished_at);
CREATE TABLE idempotency (
    id BLOB PRIMARY KEY,
    key TEXT NOT NULL,
    body_hash BLOB NOT NULL,
    boot BLOB NOT NULL,
    status INTEGER,
    headers BLOB,
    body BLOB,
    created_at INTEGER NOT NULL
) STRICT;
CREATE INDEX idempotency_age ON idempotency(created_at);
CREATE INDEX idempotency_key ON idempotency(key);
";

/// Creates the tables in a new file and adds what an older one lacks; refuses a file of a newer version.
pub(super) async fn prepare(pool: &SqlitePool) -> Result<(), Error> {
    let mut connection = pool.acquire().await?;
    let mut transaction = sqlx::Connection::begin_with(&mut *connection, "BEGIN IMMEDIATE").await?;
    let (version,): (i64,) = sqlx::query_as("PRAGMA user_version")
        .fetch_one(&mut *transaction)
        .await?;
    let missing: &[&'static str] = match version {
        0 => &[TABLES, SECOND, THIRD, FOURTH],
        1 => &[SECOND, THIRD, FOURTH],
        2 => &[THIRD, FOURTH],
        3 => &[FOURTH],
        VERSION => &[],
        other => return Err(wrong_version(other)),
    };
    for step in missing {
        sqlx::raw_sql(*step).execute(&mut *transaction).await?;
    }
    transaction.commit().await?;
    Ok(())
}

/// Refuses a file of a newer version. What an older one lacks is not read by those who only read.
pub(super) async fn check(pool: &SqlitePool) -> Result<(), Error> {
    let (version,): (i64,) = sqlx::query_as("PRAGMA user_version").fetch_one(pool).await?;
    if (1..=VERSION).contains(&version) {
        Ok(())
    } else {
        Err(wrong_version(version))
    }
}

fn wrong_version(found: i64) -> Error {
    Error::BadStore(format!(
        "its version is {found}, and this software knows version {VERSION}"
    ))
}
