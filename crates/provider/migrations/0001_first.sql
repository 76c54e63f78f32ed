-- Amounts that may exceed 64 bits are decimal text; the numbers beside a receipt are for sums and saturate.

CREATE TABLE channels (
    id BLOB NOT NULL PRIMARY KEY,
    params BLOB NOT NULL,
    model BLOB NOT NULL,
    payer BLOB NOT NULL,
    funded TEXT NOT NULL,
    redeemed TEXT NOT NULL,
    closes_at INTEGER NOT NULL,
    closed INTEGER NOT NULL,
    voucher BLOB,
    promised TEXT NOT NULL DEFAULT '0',
    first_seen INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

-- Requests that are being worked on, or were when the provider stopped.
CREATE TABLE requests (
    channel BLOB NOT NULL,
    request BLOB NOT NULL,
    body BLOB NOT NULL,
    PRIMARY KEY (channel, request)
) STRICT, WITHOUT ROWID;

CREATE TABLE receipts (
    channel BLOB NOT NULL,
    sequence INTEGER NOT NULL,
    request BLOB NOT NULL,
    model BLOB NOT NULL,
    finished_at INTEGER NOT NULL,
    status INTEGER NOT NULL,
    input_units INTEGER NOT NULL,
    output_units INTEGER NOT NULL,
    cost_nano INTEGER NOT NULL,
    body BLOB NOT NULL,
    PRIMARY KEY (channel, sequence)
) STRICT, WITHOUT ROWID;

CREATE INDEX receipts_by_time ON receipts (finished_at);
CREATE INDEX receipts_by_request ON receipts (request);

CREATE TABLE redemptions (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    tx BLOB NOT NULL UNIQUE,
    block INTEGER NOT NULL,
    redeemed_at INTEGER NOT NULL,
    provider TEXT NOT NULL,
    royalty TEXT NOT NULL,
    fee TEXT NOT NULL,
    channels TEXT NOT NULL
) STRICT;

-- Numbers that outlive the process: the last offer's sequence, the next block to read events from.
CREATE TABLE marks (
    name TEXT NOT NULL PRIMARY KEY,
    value INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
