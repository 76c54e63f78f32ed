-- Bids that were made for work that can wait, and what requests have drawn from them: a restart honours them.
CREATE TABLE bids (
    id BLOB PRIMARY KEY,
    body BLOB NOT NULL,
    drawn_input INTEGER NOT NULL DEFAULT 0,
    drawn_output INTEGER NOT NULL DEFAULT 0,
    expires_at INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

CREATE INDEX bids_by_end ON bids (expires_at);
