-- Prices that stood in offers which have not expired: whoever read one pays no more, also after a restart.
CREATE TABLE quotes (
    model BLOB NOT NULL,
    price BLOB NOT NULL,
    expires_at INTEGER NOT NULL,
    PRIMARY KEY (model, price)
) STRICT, WITHOUT ROWID;
