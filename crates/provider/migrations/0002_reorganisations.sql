-- When a channel was found closed, in seconds since 1970: a reorganisation may open it again. Zero for those before.
ALTER TABLE channels ADD COLUMN closed_at INTEGER NOT NULL DEFAULT 0;

-- Structures that outlive the process: the trail of blocks by which the chain is followed.
CREATE TABLE notes (
    name TEXT NOT NULL PRIMARY KEY,
    body BLOB NOT NULL
) STRICT, WITHOUT ROWID;
