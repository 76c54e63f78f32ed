//! Bids in the store: kept until they expire, with what was drawn from them.

use rialto_protocol::{Usage, tender::SignedBid};

use super::{
    Store,
    row::{self, number},
};
use crate::Error;

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
