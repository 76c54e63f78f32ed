//! Requests under way and the receipts that settle them. A request is on disk before its first voucher leaves.

use rialto_protocol::{ChannelId, Digest, MicroDollars, NanoDollars, Price, RequestId, SignedReceipt, Usage};
use sqlx::{Row as _, SqliteConnection};

use super::{
    Store, count_to_sql, from_sql, id,
    keys::read_json,
    now, pack, to_sql, unpack,
    uses::{self, at_this_time, count_uses},
    writer::Statements,
};
use crate::{
    Error, Limits,
    limits::{self, Use},
};

/// Notes a request, from these values or rows, and what its channel's total is then.
macro_rules! begin {
    ($values:literal) => {
        &[
            concat!(
                "INSERT INTO requests (id, channel, key, idempotency, price, request_hash, max_input, covered_output,
                 reserved_nano, hold_nano, hold_units, state, started_at) ",
                $values,
                " RETURNING 1"
            ),
            "UPDATE channels SET signed_micro = MAX(signed_micro, $12), used_at = $13
             WHERE id = $2 AND EXISTS (SELECT 1 FROM requests WHERE id = $1)",
        ]
    };
}

/// Begins a request if its key is valid, has no limits, and its budget covers the most that it can cost.
const BEGIN_WITHOUT_LIMITS: &[&str] = begin!(
    "SELECT $1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, 'open', $13 FROM keys k WHERE k.id = $3
     AND k.revoked_at IS NULL AND k.limits IS NULL AND (k.budget_micro IS NULL OR k.budget_micro * 1000 >= k.spent_nano + $10
     + (SELECT COALESCE(SUM(r.hold_nano), 0) FROM requests r WHERE r.key = k.id AND r.state IN ('open', 'interrupted')))"
);

/// Begins a request whose key was checked.
const BEGIN_CHECKED: &[&str] = begin!("VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, 'open', $13)");

const EXTEND: &[&str] = &[
    "UPDATE requests SET covered_output = MAX(covered_output, $3), received_input = $4, received_output = $5,
     reserved_nano = MAX(reserved_nano, $6) WHERE id = $1",
    "UPDATE channels SET signed_micro = MAX(signed_micro, $7), used_at = $8 WHERE id = $2",
];

/// What a request used that is cut off is not known, and not waited for: its most counts.
const INTERRUPT: &[&str] = &[
    count_uses!("r.hold_units", "MIN(r.hold_nano, r.reserved_nano)", "r.id = $5"),
    "UPDATE requests SET state = 'interrupted', received_input = $6, received_output = $7,
     hold_nano = MIN(hold_nano, reserved_nano) WHERE id = $5 AND state = 'open'",
];

const INTERRUPT_ALL: &[&str] = &[
    count_uses!("r.hold_units", "MIN(r.hold_nano, r.reserved_nano)", "TRUE"),
    "UPDATE requests SET state = 'interrupted', hold_nano = MIN(hold_nano, reserved_nano) WHERE state = 'open'
     RETURNING 1",
];

/// Keeps a receipt, and charges the key of a request that was not settled before.
const SETTLE: &[&str] = &[
    "INSERT INTO receipts (channel, sequence, request, key, signed, input, output, cost_nano, finished_at, complaint,
     idempotency) VALUES ($6, $7, $5, (SELECT key FROM requests WHERE id = $5), $8, $9, $10, $11, $12, $13,
     (SELECT idempotency FROM requests WHERE id = $5)) ON CONFLICT DO NOTHING",
    "UPDATE keys SET spent_nano = spent_nano + $14
     WHERE id = (SELECT key FROM requests WHERE id = $5 AND state IN ('open', 'interrupted'))",
    // One that was cut off was counted with its most when that happened.
    count_uses!("$9 + $10", "$14", "r.id = $5"),
    "UPDATE requests SET state = 'settled', hold_nano = 0 WHERE id = $5 AND state IN ('open', 'interrupted')",
];

/// A request that is about to be sent.
#[derive(Debug, Clone)]
pub(crate) struct Begin {
    pub(crate) request: RequestId,
    pub(crate) channel: ChannelId,
    /// The API key that pays.
    pub(crate) key: String,
    /// The idempotency record that it belongs to, or the purchase for a client that retries.
    pub(crate) idempotency: Option<[u8; 32]>,
    pub(crate) price: Price,
    pub(crate) request_hash: Digest,
    pub(crate) max_input: u64,
    /// Units of output that the first voucher pays for.
    pub(crate) covered_output: u64,
    pub(crate) reserved: NanoDollars,
    /// The most that it can cost: held back from the key's budget.
    pub(crate) hold: NanoDollars,
    /// The most units of input and output that it can use: held back from the key's limits.
    pub(crate) hold_units: u64,
    /// The channel's total after the first voucher.
    pub(crate) signed: MicroDollars,
}

impl Begin {
    fn bind(&self, begin: Statements) -> Result<Statements, Error> {
        Ok(begin
            .bind(self.request.0.to_vec())
            .bind(self.channel.0.to_vec())
            .bind(self.key.clone())
            .bind(self.idempotency.map(|id| id.to_vec()))
            .bind(pack(&self.price)?)
            .bind(self.request_hash.0.to_vec())
            .bind(count_to_sql(self.max_input))
            .bind(count_to_sql(self.covered_output))
            .bind(to_sql(self.reserved.0))
            .bind(to_sql(self.hold.0))
            .bind(count_to_sql(self.hold_units))
            .bind(to_sql(self.signed.get()))
            .bind(count_to_sql(now())))
    }
}

/// What the store knows of a request that has no receipt, or had none when it was written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct OpenRequest {
    pub(crate) channel: ChannelId,
    pub(crate) price: Price,
    pub(crate) request_hash: Digest,
    pub(crate) max_input: u64,
    /// The provider's own count of the input; zero if it is not known to have accepted.
    pub(crate) received_input: u64,
    pub(crate) covered_output: u64,
}

impl Store {
    /// Notes a request and the total signed for it, and holds its most from the key's budget and limits: all or nothing.
    pub(crate) async fn begin_request(&self, begin: &Begin) -> Result<(), Error> {
        let begun = self.changes.change(begin.bind(Statements::new(BEGIN_WITHOUT_LIMITS))?);
        if begun.await? > 0 {
            return Ok(());
        }
        // The key has limits, or cannot pay.
        let mut transaction = self.transaction().await?;
        check_key(&mut transaction, begin).await?;
        let checked = begin.bind(Statements::new(BEGIN_CHECKED))?;
        checked.execute(&mut transaction).await?;
        transaction.commit().await?;
        Ok(())
    }

    /// Notes a further voucher and what had arrived before it.
    pub(crate) async fn extend_request(
        &self,
        request: RequestId,
        channel: ChannelId,
        covered_output: u64,
        received: Usage,
        reserved: NanoDollars,
        signed: MicroDollars,
    ) -> Result<(), Error> {
        let extend = Statements::new(EXTEND)
            .bind(request.0.to_vec())
            .bind(channel.0.to_vec())
            .bind(count_to_sql(covered_output))
            .bind(count_to_sql(received.input))
            .bind(count_to_sql(received.output))
            .bind(to_sql(reserved.0))
            .bind(to_sql(signed.get()))
            .bind(count_to_sql(now()));
        self.changes.change(extend).await?;
        Ok(())
    }

    /// Whether anything was bought, or may have been, under this name.
    pub(crate) async fn bought_under(&self, id: [u8; 32]) -> Result<bool, Error> {
        let row = sqlx::query("SELECT 1 FROM requests WHERE idempotency = ? AND state <> 'void' LIMIT 1")
            .bind(id.to_vec())
            .fetch_optional(&self.readers)
            .await?;
        Ok(row.is_some())
    }

    /// Whether something may still be billed under this name.
    pub(crate) async fn may_bill_under(&self, id: [u8; 32]) -> Result<bool, Error> {
        let row =
            sqlx::query("SELECT 1 FROM requests WHERE idempotency = ? AND state IN ('open', 'interrupted') LIMIT 1")
                .bind(id.to_vec())
                .fetch_optional(&self.readers)
                .await?;
        Ok(row.is_some())
    }

    /// The names under which something was begun since this time, in seconds since 1970, and not ended.
    pub(crate) async fn left_open_since(&self, since: u64) -> Result<Vec<[u8; 32]>, Error> {
        let rows: Vec<(Vec<u8>,)> = sqlx::query_as(
            "SELECT DISTINCT idempotency FROM requests
             WHERE state IN ('open', 'interrupted') AND idempotency IS NOT NULL AND started_at >= ?",
        )
        .bind(count_to_sql(since))
        .fetch_all(&self.readers)
        .await?;
        Ok(rows.into_iter().filter_map(|(name,)| name.try_into().ok()).collect())
    }

    /// Forgets a request that was refused before any work.
    pub(crate) async fn forget_request(&self, request: RequestId) -> Result<(), Error> {
        sqlx::query("DELETE FROM requests WHERE id = ? AND state = 'open'")
            .bind(request.0.to_vec())
            .execute(&mut *self.write().await?)
            .await?;
        Ok(())
    }

    /// Notes that a request ended without a receipt; what it had reserved stays held.
    pub(crate) async fn interrupt_request(&self, request: RequestId, received: Usage) -> Result<(), Error> {
        let interrupt = at_this_time(Statements::new(INTERRUPT))
            .bind(request.0.to_vec())
            .bind(count_to_sql(received.input))
            .bind(count_to_sql(received.output));
        self.changes.change(interrupt).await?;
        Ok(())
    }

    /// Marks every request that an earlier run of the gateway left open.
    pub(crate) async fn interrupt_all(&self) -> Result<u64, Error> {
        let rows = self
            .changes
            .change(at_this_time(Statements::new(INTERRUPT_ALL)))
            .await?;
        Ok(u64::try_from(rows).unwrap_or(u64::MAX))
    }

    /// What is known of a request, for checking a receipt that comes late.
    pub(crate) async fn request(&self, request: RequestId) -> Result<Option<OpenRequest>, Error> {
        let row = sqlx::query(
            "SELECT channel, price, request_hash, max_input, received_input, covered_output FROM requests WHERE id = ?",
        )
        .bind(request.0.to_vec())
        .fetch_optional(&self.readers)
        .await?;
        let Some(row) = row else { return Ok(None) };
        Ok(Some(OpenRequest {
            channel: ChannelId(id(row.try_get("channel")?)?),
            price: unpack(row.try_get("price")?)?,
            request_hash: Digest(id(row.try_get("request_hash")?)?),
            max_input: from_sql(row.try_get("max_input")?),
            received_input: from_sql(row.try_get("received_input")?),
            covered_output: from_sql(row.try_get("covered_output")?),
        }))
    }

    /// Keeps a receipt and charges its cost to the key of its request, once.
    pub(crate) async fn settle_request(&self, signed: &SignedReceipt) -> Result<(), Error> {
        self.keep_receipt(signed, signed.receipt.cost, None).await
    }

    /// Keeps a receipt that was not accepted, as evidence, and charges the key what the request should have cost.
    pub(crate) async fn settle_disputed(
        &self,
        signed: &SignedReceipt,
        cost: NanoDollars,
        complaint: &str,
    ) -> Result<(), Error> {
        self.keep_receipt(signed, cost, Some(complaint)).await
    }

    async fn keep_receipt(
        &self,
        signed: &SignedReceipt,
        cost: NanoDollars,
        complaint: Option<&str>,
    ) -> Result<(), Error> {
        let receipt = &signed.receipt;
        let keep = at_this_time(Statements::new(SETTLE))
            .bind(receipt.request.0.to_vec())
            .bind(receipt.channel.0.to_vec())
            .bind(count_to_sql(receipt.sequence))
            .bind(pack(signed)?)
            .bind(count_to_sql(receipt.usage.input))
            .bind(count_to_sql(receipt.usage.output))
            .bind(to_sql(receipt.cost.0))
            .bind(count_to_sql(receipt.finished_at))
            .bind(complaint.map(str::to_owned))
            .bind(to_sql(cost.0));
        self.changes.change(keep).await?;
        Ok(())
    }

    /// Frees what the requests of a channel hold: it is closed, and no receipt can come any more.
    pub(crate) async fn void_requests(&self, channel: ChannelId) -> Result<(), Error> {
        sqlx::query(
            "UPDATE requests SET state = 'void', hold_nano = 0 WHERE channel = ? AND state IN ('open', 'interrupted')",
        )
        .bind(channel.0.to_vec())
        .execute(&mut *self.write().await?)
        .await?;
        Ok(())
    }

    /// Forgets settled requests that began before this time.
    pub(crate) async fn prune_requests(&self, before: u64) -> Result<u64, Error> {
        let done = sqlx::query("DELETE FROM requests WHERE state IN ('settled', 'void') AND started_at < ?")
            .bind(count_to_sql(before))
            .execute(&mut *self.write().await?)
            .await?;
        Ok(done.rows_affected())
    }
}

/// Refuses a request that its key cannot pay for, or that does not fit into the key's limits.
async fn check_key(transaction: &mut SqliteConnection, begin: &Begin) -> Result<(), Error> {
    let row = sqlx::query(
        "SELECT k.budget_micro, k.spent_nano, k.revoked_at, k.limits,
         (SELECT COALESCE(SUM(r.hold_nano), 0) FROM requests r
          WHERE r.key = k.id AND r.state IN ('open', 'interrupted')) AS held
         FROM keys k WHERE k.id = ?",
    )
    .bind(&begin.key)
    .fetch_optional(&mut *transaction)
    .await?;
    let row = row.ok_or(Error::BadKey)?;
    if row.try_get::<Option<i64>, _>("revoked_at")?.is_some() {
        return Err(Error::BadKey);
    }
    if let Some(budget) = row.try_get::<Option<i64>, _>("budget_micro")? {
        let used = u128::from(from_sql(row.try_get("spent_nano")?)) + u128::from(from_sql(row.try_get("held")?));
        let left = MicroDollars::new(from_sql(budget))
            .to_nano()
            .saturating_sub(NanoDollars(used));
        if begin.hold > left {
            return Err(budget_error(begin.hold, left));
        }
    }
    if let Some(limits) = read_json::<Limits>(row.try_get("limits")?)? {
        let wanted = Use {
            tokens: begin.hold_units,
            cost: begin.hold,
        };
        uses::forget(transaction, &begin.key).await?;
        let state = uses::state(transaction, &begin.key).await?;
        limits::check(&limits, &state, wanted, now()).map_err(Error::LimitReached)?;
    }
    Ok(())
}

/// The error for a request that may cost more than is left.
pub(crate) fn budget_error(needed: NanoDollars, left: NanoDollars) -> Error {
    Error::BudgetExhausted {
        needed: needed.round_up().unwrap_or(MicroDollars::MAX),
        // Rounded down: what is shown as left can be spent.
        left: MicroDollars::try_from(left.0 / 1_000).unwrap_or(MicroDollars::MAX),
    }
}
