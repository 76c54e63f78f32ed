-- The marks whose Merkle root stands in a receipt: whoever is challenged opens them. Kept for three days.
CREATE TABLE fingerprints (
    channel BLOB NOT NULL,
    sequence INTEGER NOT NULL,
    body BLOB NOT NULL,
    finished_at INTEGER NOT NULL,
    PRIMARY KEY (channel, sequence)
) STRICT, WITHOUT ROWID;

CREATE INDEX fingerprints_by_age ON fingerprints (finished_at);
