//! What a provider reads back: at its start, and when a buyer has to catch up.

use std::sync::PoisonError;

use rialto_protocol::{
    ChannelId, ChannelParams, ModelId, RequestId, SignedReceipt, SignedVoucher, channel::ChannelState,
};
use rialto_settlement::Trail;
use rusqlite::params;
use sqlx::{Row, sqlite::SqliteRow};

use super::{OpenRequest, Store, row};
use crate::{Error, price::Quote};

/// Under this name the store keeps how far the chain was followed.
pub(super) const TRAIL: &str = "trail";

/// Most closed channels that a reorganisation is feared to have opened again.
const MAX_CLOSED: i64 = 10_000;

/// Receipts of a channel that a restart needs: as many as the heads that the account remembers.
const RECENT: i64 = 256;

/// A channel as the store has it.
#[derive(Debug, Clone)]
pub(crate) struct StoredChannel {
    pub(crate) params: ChannelParams,
    pub(crate) state: ChannelState,
    pub(crate) best: Option<SignedVoucher>,
    /// The latest, oldest first.
    pub(crate) receipts: Vec<SignedReceipt>,
    pub(crate) open: Vec<OpenRequest>,
}

impl Store {
    /// All channels that were not closed, with what they need to go on.
    pub(crate) async fn channels(&self) -> Result<Vec<StoredChannel>, Error> {
        let sql = "SELECT id, params, funded, redeemed, closes_at, closed, voucher FROM channels WHERE closed = 0 \
                   OR EXISTS (SELECT 1 FROM requests WHERE requests.channel = channels.id)";
        let rows = sqlx::query(sql).fetch_all(&self.pool).await?;
        self.stored_channels(&rows).await
    }

    /// The channels that were found closed at or after a time in seconds since 1970, the latest first.
    pub(crate) async fn closed_since(&self, time: u64) -> Result<Vec<StoredChannel>, Error> {
        let sql = "SELECT id, params, funded, redeemed, closes_at, closed, voucher FROM channels \
                   WHERE closed != 0 AND closed_at >= ? ORDER BY closed_at DESC LIMIT ?";
        let query = sqlx::query(sql).bind(row::number(time)).bind(MAX_CLOSED);
        let rows = query.fetch_all(&self.pool).await?;
        self.stored_channels(&rows).await
    }

    /// One channel, closed or not.
    pub(crate) async fn stored_channel(&self, id: &ChannelId) -> Result<Option<StoredChannel>, Error> {
        let sql = "SELECT id, params, funded, redeemed, closes_at, closed, voucher FROM channels WHERE id = ?";
        let query = sqlx::query(sql).bind(id.0.to_vec());
        let rows = query.fetch_all(&self.pool).await?;
        Ok(self.stored_channels(&rows).await?.pop())
    }

    async fn stored_channels(&self, rows: &[SqliteRow]) -> Result<Vec<StoredChannel>, Error> {
        let mut channels = Vec::new();
        for row in rows {
            let id: ChannelId = row::id(row, "id")?;
            let params: ChannelParams = row::unpacked(row, "params")?;
            if params.id() != id {
                return Err(Error::Corrupt("a channel's id is not made of its parts"));
            }
            let voucher: Option<Vec<u8>> = row.try_get("voucher")?;
            channels.push(StoredChannel {
                params,
                state: state(row)?,
                best: voucher.map(|bytes| row::unpack(&bytes)).transpose()?,
                receipts: self.recent(&id).await?,
                open: self.open_requests(&id).await?,
            });
        }
        Ok(channels)
    }

    /// How far the chain was followed; `None` if it never was.
    pub(crate) async fn trail(&self) -> Result<Option<Trail>, Error> {
        let query = sqlx::query("SELECT body FROM notes WHERE name = ?").bind(TRAIL);
        let row = query.fetch_optional(&self.pool).await?;
        row.map(|row| row::unpacked(&row, "body")).transpose()
    }

    async fn recent(&self, channel: &ChannelId) -> Result<Vec<SignedReceipt>, Error> {
        let rows = sqlx::query("SELECT body FROM receipts WHERE channel = ? ORDER BY sequence DESC LIMIT ?")
            .bind(channel.0.to_vec())
            .bind(RECENT)
            .fetch_all(&self.pool)
            .await?;
        let mut receipts = bodies(&rows)?;
        receipts.reverse();
        Ok(receipts)
    }

    async fn open_requests(&self, channel: &ChannelId) -> Result<Vec<OpenRequest>, Error> {
        let rows = sqlx::query("SELECT body FROM requests WHERE channel = ?")
            .bind(channel.0.to_vec())
            .fetch_all(&self.pool)
            .await?;
        rows.iter().map(|row| row::unpacked(row, "body")).collect()
    }

    /// Receipts of a channel after a number, oldest first.
    pub(crate) async fn receipts_after(
        &self,
        channel: &ChannelId,
        sequence: u64,
        limit: usize,
    ) -> Result<Vec<SignedReceipt>, Error> {
        let sql = "SELECT body FROM receipts WHERE channel = ? AND sequence > ? ORDER BY sequence LIMIT ?";
        let rows = sqlx::query(sql)
            .bind(channel.0.to_vec())
            .bind(row::number(sequence))
            .bind(i64::try_from(limit).unwrap_or(i64::MAX))
            .fetch_all(&self.pool)
            .await?;
        bodies(&rows)
    }

    /// Whether a request has a receipt. It is looked up at once: finding it in an index takes less time than another
    /// thread takes to wake up.
    pub(crate) fn has_receipt(&self, channel: &ChannelId, request: &RequestId) -> Result<bool, Error> {
        let sql = "SELECT 1 FROM receipts WHERE request = ? AND channel = ? LIMIT 1";
        let connection = self.lookups.lock().unwrap_or_else(PoisonError::into_inner);
        Ok(connection.prepare_cached(sql)?.exists(params![request.0, channel.0])?)
    }

    /// The prices that were promised for a model; some may not hold any more.
    pub(crate) async fn quotes(&self, model: &ModelId) -> Result<Vec<Quote>, Error> {
        let rows = sqlx::query("SELECT price, expires_at FROM quotes WHERE model = ?")
            .bind(model.0.to_vec())
            .fetch_all(&self.pool)
            .await?;
        let quote = |row: &SqliteRow| {
            Ok(Quote {
                price: row::unpacked(row, "price")?,
                expires_at: row::count(row, "expires_at")?,
            })
        };
        rows.iter().map(quote).collect()
    }

    /// A number kept under a name; zero when there is none.
    pub(crate) async fn mark(&self, name: &str) -> Result<u64, Error> {
        let row = sqlx::query("SELECT value FROM marks WHERE name = ?")
            .bind(name.to_owned())
            .fetch_optional(&self.pool)
            .await?;
        row.map_or(Ok(0), |row| row::count(&row, "value"))
    }
}

pub(super) fn state(row: &SqliteRow) -> Result<ChannelState, Error> {
    Ok(ChannelState {
        funded: row::amount(row, "funded")?,
        redeemed: row::amount(row, "redeemed")?,
        closes_at: row::count(row, "closes_at")?,
        closed: row.try_get::<i64, _>("closed")? != 0,
    })
}

pub(super) fn bodies(rows: &[SqliteRow]) -> Result<Vec<SignedReceipt>, Error> {
    rows.iter().map(|row| row::unpacked(row, "body")).collect()
}
