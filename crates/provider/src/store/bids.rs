//! Bids in the store: kept until they expire, with what was drawn from them.

use rialto_protocol::{Digest, Usage, tender::SignedBid};
use sqlx::SqliteConnection;

use super::{
    Store,
    row::{self, number, pack},
};
use crate::{Error, clock};

impl Store {
    /// The bids that are still valid, each with what was drawn from it.
    pub(crate) async fn bids(&self, now: u64) -> Result<Vec<(SignedBid, Usage)>, Error> {
        let rows = sqlx::query("SELECT body, drawn_input, drawn_output FROM bids WHERE expires_at > ?")
            .bind(number(now))
            .fetch_all(&self.pool)
            .await?;
        let read = rows.iter().map(|row| {
            let drawn = Usage {
                input: row::count(row, "drawn_input")?,
                output: row::count(row, "drawn_output")?,
            };
            Ok((row::unpacked(row, "body")?, drawn))
        });
        read.collect()
    }
}

/// Keeps a bid, and forgets those that have expired.
pub(super) async fn write(connection: &mut SqliteConnection, signed: &SignedBid) -> Result<(), Error> {
    let query = sqlx::query("INSERT INTO bids (id, body, expires_at) VALUES (?, ?, ?)")
        .bind(signed.bid.digest().0.to_vec())
        .bind(pack(signed)?)
        .bind(number(signed.bid.expires_at));
    query.execute(&mut *connection).await?;
    let query = sqlx::query("DELETE FROM bids WHERE expires_at <= ?").bind(number(clock::now()));
    query.execute(connection).await?;
    Ok(())
}

/// Notes what was drawn from a bid in all; one that has expired meanwhile is gone.
pub(super) async fn write_drawn(connection: &mut SqliteConnection, bid: &Digest, drawn: Usage) -> Result<(), Error> {
    let query = sqlx::query("UPDATE bids SET drawn_input = ?, drawn_output = ? WHERE id = ?")
        .bind(number(drawn.input))
        .bind(number(drawn.output))
        .bind(bid.0.to_vec());
    query.execute(connection).await?;
    Ok(())
}
