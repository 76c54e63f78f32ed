//! Read models for the command line. They work while the gateway runs and while it does not.

use rialto_protocol::{NanoDollars, SignedReceipt};
use serde::Serialize;
use sqlx::Row as _;

use super::{Store, count_to_sql, from_sql, unpack};
use crate::Error;

/// A receipt with what only the buyer knows.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ReceiptRow {
    /// The receipt and its signature.
    pub signed: SignedReceipt,
    /// The model's name.
    pub listing: String,
    /// The API key that paid: its public part.
    pub key: Option<String>,
    /// Why the receipt was not accepted; `None` for one that was.
    pub complaint: Option<String>,
}

/// What one API key bought.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Spend {
    /// The key's public part; `None` when it is not known any more.
    pub key: Option<String>,
    /// Requests with an accepted receipt.
    pub requests: u64,
    /// Units of input.
    pub input: u64,
    /// Units of output.
    pub output: u64,
    /// What they cost.
    pub cost: NanoDollars,
}

impl Store {
    /// The latest receipts, newest first.
    pub async fn receipts(&self, limit: u32) -> Result<Vec<ReceiptRow>, Error> {
        let rows = sqlx::query(
            "SELECT r.signed, r.key, r.complaint, c.listing FROM receipts r JOIN channels c ON c.id = r.channel
             ORDER BY r.finished_at DESC, r.channel, r.sequence DESC LIMIT ?",
        )
        .bind(i64::from(limit))
        .fetch_all(&self.readers)
        .await?;
        rows.iter()
            .map(|row| {
                Ok(ReceiptRow {
                    signed: unpack(row.try_get("signed")?)?,
                    listing: row.try_get("listing")?,
                    key: row.try_get("key")?,
                    complaint: row.try_get("complaint")?,
                })
            })
            .collect()
    }

    /// What each API key bought since a time in seconds since 1970.
    pub async fn spend(&self, since: u64) -> Result<Vec<Spend>, Error> {
        let rows = sqlx::query(
            "SELECT key, COUNT(*) AS requests, SUM(input) AS input, SUM(output) AS output, SUM(cost_nano) AS cost
             FROM receipts WHERE complaint IS NULL AND finished_at >= ? GROUP BY key ORDER BY cost DESC",
        )
        .bind(count_to_sql(since))
        .fetch_all(&self.readers)
        .await?;
        rows.iter()
            .map(|row| {
                let number = |name: &str| row.try_get::<i64, _>(name).map(from_sql);
                Ok(Spend {
                    key: row.try_get("key")?,
                    requests: number("requests")?,
                    input: number("input")?,
                    output: number("output")?,
                    cost: NanoDollars(number("cost")?.into()),
                })
            })
            .collect()
    }
}
