//! Channels and the highest totals ever signed on them.

use rialto_protocol::{Address, ChannelId, ChannelParams, MicroDollars, ModelId, NanoDollars, Receipt, SignedReceipt};
use rialto_protocol::{RequestId, Usage, account::Interruption};
use serde::Serialize;
use sqlx::{Row as _, sqlite::SqliteRow};

use super::{Store, count_to_sql, from_sql, id, now, pack, to_sql, unpack};
use crate::Error;

/// Where a channel stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum ChannelStatus {
    /// Its transaction was or may have been sent; the chain knows whether it exists. Also of a channel that was open
    /// until a reorganisation dropped it.
    Opening,
    /// It pays for requests.
    Open,
    /// Its provider sent a receipt that does not fit: nothing more is signed on it.
    Disputed,
    /// A close was requested.
    Closing,
    /// It is closed and its remainder is back.
    Closed,
}

impl ChannelStatus {
    const ALL: [(Self, &'static str); 5] = [
        (Self::Opening, "opening"),
        (Self::Open, "open"),
        (Self::Disputed, "disputed"),
        (Self::Closing, "closing"),
        (Self::Closed, "closed"),
    ];

    /// As the store and the command line spell it.
    pub fn name(self) -> &'static str {
        Self::ALL
            .iter()
            .find(|(one, _)| *one == self)
            .map_or("", |(_, name)| name)
    }

    fn from_name(name: &str) -> Result<Self, Error> {
        let known = Self::ALL.iter().find(|(_, one)| *one == name);
        known
            .map(|(one, _)| *one)
            .ok_or_else(|| Error::BadStore(format!("channel status `{name}`")))
    }
}

/// What the store knows of a channel.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ChannelRow {
    /// Its id.
    pub id: ChannelId,
    /// What its id is made of.
    pub params: ChannelParams,
    /// The model's name when it was opened.
    pub listing: String,
    /// Where it stands.
    pub status: ChannelStatus,
    /// What it holds.
    pub funded: MicroDollars,
    /// The highest total ever signed.
    pub signed: MicroDollars,
    /// Seconds since 1970.
    pub opened_at: u64,
    /// Seconds since 1970.
    pub used_at: u64,
    /// When a requested close can be finalised, in seconds since 1970; zero while none is requested.
    pub closes_at: u64,
}

fn channel_row(row: &SqliteRow) -> Result<ChannelRow, Error> {
    let number = |name: &str| row.try_get::<i64, _>(name).map(from_sql);
    Ok(ChannelRow {
        id: ChannelId(id(row.try_get("id")?)?),
        params: unpack(row.try_get("params")?)?,
        listing: row.try_get("listing")?,
        status: ChannelStatus::from_name(row.try_get("status")?)?,
        funded: MicroDollars::new(number("funded_micro")?),
        signed: MicroDollars::new(number("signed_micro")?),
        opened_at: number("opened_at")?,
        used_at: number("used_at")?,
        closes_at: number("closes_at")?,
    })
}

/// What a ledger is restored from.
#[derive(Debug, Default)]
pub(crate) struct History {
    pub(crate) receipts: Vec<Receipt>,
    pub(crate) interrupted: Vec<(Interruption, NanoDollars)>,
}

impl Store {
    /// Notes a channel before its transaction is sent, so that a crash cannot lose it.
    pub(crate) async fn begin_channel(
        &self,
        params: &ChannelParams,
        listing: &str,
        funded: MicroDollars,
    ) -> Result<(), Error> {
        sqlx::query(
            "INSERT INTO channels (id, params, provider, model, listing, status, funded_micro, opened_at, used_at)
             VALUES (?, ?, ?, ?, ?, 'opening', ?, ?, ?)",
        )
        .bind(params.id().0.to_vec())
        .bind(pack(params)?)
        .bind(params.provider.0.to_vec())
        .bind(params.model.0.to_vec())
        .bind(listing)
        .bind(to_sql(funded.get()))
        .bind(count_to_sql(now()))
        .bind(count_to_sql(now()))
        .execute(&mut *self.write().await?)
        .await?;
        Ok(())
    }

    /// Adds an open channel that this store does not know, for example after the file was lost.
    pub async fn import_channel(
        &self,
        params: &ChannelParams,
        listing: &str,
        funded: MicroDollars,
    ) -> Result<(), Error> {
        self.begin_channel(params, listing, funded).await?;
        self.set_channel(params.id(), ChannelStatus::Open, 0).await
    }

    /// Forgets a channel that nothing was sent for, and no order was given away for.
    pub(crate) async fn forget_channel(&self, channel: ChannelId) -> Result<(), Error> {
        sqlx::query("DELETE FROM channels WHERE id = ? AND status = 'opening' AND signed_micro = 0")
            .bind(channel.0.to_vec())
            .execute(&mut *self.write().await?)
            .await?;
        Ok(())
    }

    /// Notes where a channel stands.
    pub(crate) async fn set_channel(
        &self,
        channel: ChannelId,
        status: ChannelStatus,
        closes_at: u64,
    ) -> Result<(), Error> {
        sqlx::query("UPDATE channels SET status = ?, closes_at = ?, closed_at = ? WHERE id = ?")
            .bind(status.name())
            .bind(count_to_sql(closes_at))
            .bind(match status {
                ChannelStatus::Closed => count_to_sql(now()),
                _ => 0,
            })
            .bind(channel.0.to_vec())
            .execute(&mut *self.write().await?)
            .await?;
        Ok(())
    }

    /// Notes a top-up; what a channel holds never falls.
    pub(crate) async fn set_funded(&self, channel: ChannelId, funded: MicroDollars) -> Result<(), Error> {
        sqlx::query("UPDATE channels SET funded_micro = MAX(funded_micro, ?) WHERE id = ?")
            .bind(to_sql(funded.get()))
            .bind(channel.0.to_vec())
            .execute(&mut *self.write().await?)
            .await?;
        Ok(())
    }

    /// Notes what a channel holds after a reorganisation, which may be less than before.
    pub(crate) async fn correct_funded(&self, channel: ChannelId, funded: MicroDollars) -> Result<(), Error> {
        sqlx::query("UPDATE channels SET funded_micro = ? WHERE id = ?")
            .bind(to_sql(funded.get()))
            .bind(channel.0.to_vec())
            .execute(&mut *self.write().await?)
            .await?;
        Ok(())
    }

    /// Channels that were found closed at or after a time in seconds since 1970, the latest first.
    pub(crate) async fn closed_since(&self, time: u64) -> Result<Vec<ChannelRow>, Error> {
        let sql =
            "SELECT * FROM channels WHERE status = 'closed' AND closed_at >= ? ORDER BY closed_at DESC LIMIT 10000";
        let query = sqlx::query(sql).bind(count_to_sql(time));
        let rows = query.fetch_all(&self.readers).await?;
        rows.iter().map(channel_row).collect()
    }

    /// All channels, the latest used first.
    pub async fn channels(&self) -> Result<Vec<ChannelRow>, Error> {
        let rows = sqlx::query("SELECT * FROM channels ORDER BY used_at DESC, id")
            .fetch_all(&self.readers)
            .await?;
        rows.iter().map(channel_row).collect()
    }

    /// One channel.
    pub async fn channel(&self, channel: ChannelId) -> Result<Option<ChannelRow>, Error> {
        let row = sqlx::query("SELECT * FROM channels WHERE id = ?")
            .bind(channel.0.to_vec())
            .fetch_optional(&self.readers)
            .await?;
        row.as_ref().map(channel_row).transpose()
    }

    /// What the ledger of a channel is restored from.
    pub(crate) async fn history(&self, channel: ChannelId) -> Result<History, Error> {
        let mut history = History::default();
        let rows = sqlx::query("SELECT signed FROM receipts WHERE channel = ? AND complaint IS NULL ORDER BY sequence")
            .bind(channel.0.to_vec())
            .fetch_all(&self.readers)
            .await?;
        for row in &rows {
            history
                .receipts
                .push(unpack::<SignedReceipt>(row.try_get("signed")?)?.receipt);
        }
        let rows = sqlx::query(
            "SELECT id, received_input, received_output, reserved_nano FROM requests
             WHERE channel = ? AND state = 'interrupted' ORDER BY started_at, id",
        )
        .bind(channel.0.to_vec())
        .fetch_all(&self.readers)
        .await?;
        for row in &rows {
            let interruption = Interruption {
                request: RequestId(id(row.try_get("id")?)?),
                usage: Usage {
                    input: from_sql(row.try_get("received_input")?),
                    output: from_sql(row.try_get("received_output")?),
                },
            };
            let reserved = NanoDollars(from_sql(row.try_get("reserved_nano")?).into());
            history.interrupted.push((interruption, reserved));
        }
        Ok(history)
    }

    /// The channels of one provider and model that may still pay, the fullest first.
    pub(crate) async fn live_channels(&self) -> Result<Vec<ChannelRow>, Error> {
        let rows = sqlx::query("SELECT * FROM channels WHERE status != 'closed' ORDER BY opened_at")
            .fetch_all(&self.readers)
            .await?;
        rows.iter().map(channel_row).collect()
    }
}

/// The parties of a channel, for look-ups.
pub(crate) type Parties = (Address, ModelId);
