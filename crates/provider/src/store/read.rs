//! The read model: what command line and console show of a provider, read from its store while it runs.

use std::{path::Path, time::Duration};

use rialto_protocol::{
    Address, ChannelId, ChannelParams, MicroDollars, ModelId, NanoDollars, SignedReceipt, SignedVoucher,
    channel::ChannelState, fingerprint::Fingerprint,
};
use serde::Serialize;
use sqlx::{
    Row, SqlitePool,
    sqlite::{SqliteConnectOptions, SqlitePoolOptions},
};

pub use super::Redemption;
use super::{restore, row};
use crate::Error;

/// Most rows that one call returns.
pub const MAX_ROWS: u32 = 10_000;

/// Seconds in a day.
const DAY: u64 = 86_400;

/// A provider's store, opened for reading only.
#[derive(Debug, Clone)]
pub struct Reader {
    pool: SqlitePool,
}

/// Which receipts to list.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ReceiptFilter {
    /// Of this channel alone.
    pub channel: Option<ChannelId>,
    /// Finished at or after this time, in seconds since 1970.
    pub since: u64,
    /// Most receipts; zero for [`MAX_ROWS`].
    pub limit: u32,
}

/// A channel as the provider sees it.
#[derive(Debug, Clone, Serialize)]
pub struct ChannelRow {
    /// Its id.
    pub id: ChannelId,
    /// What the id is made of.
    pub params: ChannelParams,
    /// As last seen on chain.
    pub state: ChannelState,
    /// The best voucher.
    pub voucher: Option<SignedVoucher>,
    /// What its receipts add up to.
    pub earned: NanoDollars,
    /// Its receipts.
    pub receipts: u64,
    /// Requests being worked on.
    pub open_requests: u64,
}

/// What a model earned on one day (UTC).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct DayEarnings {
    /// The day's first second, since 1970.
    pub day: u64,
    /// The model.
    pub model: ModelId,
    /// Requests with a receipt.
    pub requests: u64,
    /// Units of input billed.
    pub input_units: u64,
    /// Units of output billed.
    pub output_units: u64,
    /// Earned, before royalty and fee.
    pub earned: NanoDollars,
}

impl Reader {
    /// Opens a store that a provider created. Fails when there is none.
    pub async fn open(path: &Path) -> Result<Self, Error> {
        let options = SqliteConnectOptions::new()
            .filename(path)
            .read_only(true)
            .create_if_missing(false)
            .busy_timeout(Duration::from_secs(5));
        let pool = SqlitePoolOptions::new()
            .max_connections(2)
            .connect_with(options)
            .await?;
        Ok(Self { pool })
    }

    /// The marks whose root stands in a receipt, for as long as they are kept.
    pub async fn fingerprint(&self, channel: ChannelId, sequence: u64) -> Result<Option<Fingerprint>, Error> {
        let row = sqlx::query("SELECT body FROM fingerprints WHERE channel = ? AND sequence = ?")
            .bind(channel.0.to_vec())
            .bind(row::number(sequence))
            .fetch_optional(&self.pool)
            .await?;
        row.map(|row| row::unpacked(&row, "body")).transpose()
    }

    /// Receipts, newest first.
    pub async fn receipts(&self, filter: &ReceiptFilter) -> Result<Vec<SignedReceipt>, Error> {
        let sql = "SELECT body FROM receipts WHERE finished_at >= ?1 AND (?2 IS NULL OR channel = ?2) \
                   ORDER BY finished_at DESC, sequence DESC LIMIT ?3";
        let limit = if filter.limit == 0 {
            MAX_ROWS
        } else {
            filter.limit.min(MAX_ROWS)
        };
        let rows = sqlx::query(sql)
            .bind(row::number(filter.since))
            .bind(filter.channel.map(|channel| channel.0.to_vec()))
            .bind(i64::from(limit))
            .fetch_all(&self.pool)
            .await?;
        restore::bodies(&rows)
    }

    /// Redemptions, newest first.
    pub async fn redemptions(&self, limit: u32) -> Result<Vec<Redemption>, Error> {
        let rows = sqlx::query("SELECT * FROM redemptions ORDER BY id DESC LIMIT ?")
            .bind(i64::from(limit.min(MAX_ROWS)))
            .fetch_all(&self.pool)
            .await?;
        rows.iter().map(redemption).collect()
    }

    /// All channels, the latest seen first.
    pub async fn channels(&self) -> Result<Vec<ChannelRow>, Error> {
        let sql = "SELECT id, params, funded, redeemed, closes_at, closed, voucher, \
                   (SELECT COUNT(*) FROM receipts WHERE channel = channels.id) AS receipts, \
                   (SELECT COUNT(*) FROM requests WHERE channel = channels.id) AS open_requests, \
                   (SELECT body FROM receipts WHERE channel = channels.id ORDER BY sequence DESC LIMIT 1) AS last \
                   FROM channels ORDER BY first_seen DESC, id LIMIT ?";
        let rows = sqlx::query(sql).bind(i64::from(MAX_ROWS)).fetch_all(&self.pool).await?;
        rows.iter().map(channel).collect()
    }

    /// What was earned on each day since a time in seconds since 1970, newest first.
    pub async fn earnings(&self, since: u64) -> Result<Vec<DayEarnings>, Error> {
        let sql = "SELECT finished_at / 86400 AS day, model, COUNT(*) AS requests, SUM(input_units) AS input_units, \
                   SUM(output_units) AS output_units, SUM(cost_nano) AS cost_nano FROM receipts \
                   WHERE finished_at >= ? GROUP BY day, model ORDER BY day DESC, model LIMIT ?";
        let rows = sqlx::query(sql)
            .bind(row::number(since))
            .bind(i64::from(MAX_ROWS))
            .fetch_all(&self.pool)
            .await?;
        rows.iter()
            .map(|row| {
                Ok(DayEarnings {
                    day: row::count(row, "day")?.saturating_mul(DAY),
                    model: row::id(row, "model")?,
                    requests: row::count(row, "requests")?,
                    input_units: row::count(row, "input_units")?,
                    output_units: row::count(row, "output_units")?,
                    earned: NanoDollars(row::count(row, "cost_nano")?.into()),
                })
            })
            .collect()
    }
}

impl ChannelRow {
    /// Whose money it is.
    pub fn payer(&self) -> Address {
        self.params.payer
    }

    /// What is earned and not redeemed yet.
    pub fn unclaimed(&self) -> MicroDollars {
        let promised = self
            .voucher
            .map_or(MicroDollars::ZERO, |voucher| voucher.voucher.cumulative);
        let earned = self.earned.round_up().unwrap_or(MicroDollars::MAX);
        earned.min(promised).saturating_sub(self.state.redeemed)
    }
}

fn channel(row: &sqlx::sqlite::SqliteRow) -> Result<ChannelRow, Error> {
    let voucher: Option<Vec<u8>> = row.try_get("voucher")?;
    let last: Option<Vec<u8>> = row.try_get("last")?;
    let last: Option<SignedReceipt> = last.map(|bytes| row::unpack(&bytes)).transpose()?;
    Ok(ChannelRow {
        id: row::id(row, "id")?,
        params: row::unpacked(row, "params")?,
        state: restore::state(row)?,
        voucher: voucher.map(|bytes| row::unpack(&bytes)).transpose()?,
        earned: last.map_or(NanoDollars::ZERO, |signed| signed.receipt.total),
        receipts: row::count(row, "receipts")?,
        open_requests: row::count(row, "open_requests")?,
    })
}

fn redemption(row: &sqlx::sqlite::SqliteRow) -> Result<Redemption, Error> {
    let channels: String = row.try_get("channels")?;
    Ok(Redemption {
        transaction: row::id(row, "tx")?,
        block: row::count(row, "block")?,
        redeemed_at: row::count(row, "redeemed_at")?,
        provider: row::amount(row, "provider")?,
        royalty: row::amount(row, "royalty")?,
        fee: row::amount(row, "fee")?,
        channels: serde_json::from_str(&channels).map_err(|_| Error::Corrupt("a list of channels"))?,
    })
}
