//! Batches and their state. What they cost is not kept here: it is what their receipts add up to.

use rialto_api::openai::{BatchCounts, BatchEndpoint, BatchError, BatchStatus, BatchTimes};
use rialto_protocol::{NanoDollars, Price, Usage};
use sqlx::{Row as _, sqlite::SqliteRow};

use super::{
    FileRow, Store, Wanted, count_to_sql,
    files::{insert, page},
    from_sql, to_sql,
};
use crate::Error;

/// What the store knows of a batch.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct BatchRow {
    /// `batch_…`.
    pub(crate) id: String,
    /// The API key that pays: its public part.
    pub(crate) key: String,
    pub(crate) endpoint: BatchEndpoint,
    pub(crate) input_file: String,
    /// JSON.
    pub(crate) metadata: Option<String>,
    pub(crate) status: BatchStatus,
    pub(crate) times: BatchTimes,
    pub(crate) output_file: Option<String>,
    pub(crate) error_file: Option<String>,
    pub(crate) errors: Vec<BatchError>,
    pub(crate) model: Option<String>,
    pub(crate) counts: BatchCounts,
    /// Seconds after which its output's files are gone.
    pub(crate) output_seconds: Option<u64>,
    /// Bytes of its output and of its errors that outcomes in the store account for.
    pub(crate) written: Written,
}

/// Lengths of what was written for a batch.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Written {
    pub(crate) output: u64,
    pub(crate) errors: u64,
}

/// What a batch's receipts add up to.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Spent {
    pub(crate) usage: Usage,
    pub(crate) cost: NanoDollars,
    /// The same units at the lowest posted price of the time.
    pub(crate) posted: NanoDollars,
}

fn batch_row(row: &SqliteRow) -> Result<BatchRow, Error> {
    let time = |name: &str| row.try_get::<Option<i64>, _>(name).map(|time| time.map(from_sql));
    let count = |name: &str| row.try_get::<i64, _>(name).map(from_sql);
    let corrupt = || Error::BadStore("a batch's row".into());
    let status: String = row.try_get("status")?;
    let status = BatchStatus::ALL.into_iter().find(|one| one.name() == status);
    let errors: String = row.try_get("errors")?;
    Ok(BatchRow {
        id: row.try_get("id")?,
        key: row.try_get("key")?,
        endpoint: BatchEndpoint::of(&row.try_get::<String, _>("endpoint")?).ok_or_else(corrupt)?,
        input_file: row.try_get("input_file")?,
        metadata: row.try_get("metadata")?,
        status: status.ok_or_else(corrupt)?,
        times: BatchTimes {
            created_at: count("created_at")?,
            in_progress_at: time("in_progress_at")?,
            expires_at: time("expires_at")?,
            finalizing_at: time("finalizing_at")?,
            completed_at: time("completed_at")?,
            failed_at: time("failed_at")?,
            expired_at: time("expired_at")?,
            cancelling_at: time("cancelling_at")?,
            cancelled_at: time("cancelled_at")?,
        },
        output_file: row.try_get("output_file")?,
        error_file: row.try_get("error_file")?,
        errors: serde_json::from_str(&errors).map_err(|_| corrupt())?,
        model: row.try_get("model")?,
        counts: BatchCounts {
            total: count("total")?,
            completed: count("completed")?,
            failed: count("failed")?,
        },
        output_seconds: time("output_seconds")?,
        written: Written {
            output: count("output_bytes")?,
            errors: count("error_bytes")?,
        },
    })
}

impl Store {
    /// Notes a new batch. Returns false if its key, or the gateway, has as many unfinished ones as it may have.
    pub(crate) async fn add_batch(&self, batch: &BatchRow, of_key: u32, in_all: u32) -> Result<bool, Error> {
        let mut transaction = self.transaction().await?;
        let (own, all): (i64, i64) = sqlx::query_as(
            "SELECT COUNT(*) FILTER (WHERE key = ?), COUNT(*) FROM batches
             WHERE status IN ('validating', 'in_progress', 'finalizing', 'cancelling')",
        )
        .bind(&batch.key)
        .fetch_one(&mut *transaction)
        .await?;
        if own >= i64::from(of_key) || all >= i64::from(in_all) {
            return Ok(false);
        }
        sqlx::query(
            "INSERT INTO batches (id, key, endpoint, input_file, metadata, status, created_at, expires_at,
             output_seconds) VALUES (?, ?, ?, ?, ?, 'validating', ?, ?, ?)",
        )
        .bind(&batch.id)
        .bind(&batch.key)
        .bind(batch.endpoint.path())
        .bind(&batch.input_file)
        .bind(&batch.metadata)
        .bind(count_to_sql(batch.times.created_at))
        .bind(batch.times.expires_at.map(count_to_sql))
        .bind(batch.output_seconds.map(count_to_sql))
        .execute(&mut *transaction)
        .await?;
        transaction.commit().await?;
        Ok(true)
    }

    /// A batch, whoever owns it.
    pub(crate) async fn any_batch(&self, id: &str) -> Result<Option<BatchRow>, Error> {
        let query = sqlx::query("SELECT * FROM batches WHERE id = ?").bind(id);
        let row = query.fetch_optional(&self.readers).await?;
        row.as_ref().map(batch_row).transpose()
    }

    /// A key's batch.
    pub(crate) async fn batch(&self, key: &str, id: &str) -> Result<Option<BatchRow>, Error> {
        let batch = self.any_batch(id).await?;
        Ok(batch.filter(|batch| batch.key == key))
    }

    /// A key's batches, newest first, and whether there are more.
    pub(crate) async fn batches(&self, key: &str, wanted: &Wanted) -> Result<(Vec<BatchRow>, bool), Error> {
        let sql = "SELECT * FROM batches WHERE key = ?1
                   AND (?2 IS NULL OR (created_at, id) < (SELECT created_at, id FROM batches WHERE id = ?2 AND key = ?1))
                   ORDER BY created_at DESC, id DESC LIMIT ?3";
        let rows = sqlx::query(sql)
            .bind(key)
            .bind(wanted.after.as_deref())
            .bind(i64::from(wanted.limit) + 1)
            .fetch_all(&self.readers)
            .await?;
        let list = rows.iter().map(batch_row).collect::<Result<Vec<_>, _>>()?;
        Ok(page(list, wanted))
    }

    /// Batches that something is still to be done for.
    pub(crate) async fn unfinished_batches(&self) -> Result<Vec<String>, Error> {
        let sql = "SELECT id FROM batches WHERE status IN ('validating', 'in_progress', 'finalizing', 'cancelling')
                   ORDER BY created_at, id";
        let rows: Vec<(String,)> = sqlx::query_as(sql).fetch_all(&self.readers).await?;
        Ok(rows.into_iter().map(|(id,)| id).collect())
    }

    /// Moves a batch on from one state to the next. Returns false if it is in another meanwhile.
    pub(crate) async fn move_batch(
        &self,
        id: &str,
        from: BatchStatus,
        to: BatchStatus,
        now: u64,
    ) -> Result<bool, Error> {
        let sql = match to {
            BatchStatus::Validating => return Ok(false),
            BatchStatus::InProgress => "UPDATE batches SET status = ?, in_progress_at = ? WHERE id = ? AND status = ?",
            BatchStatus::Finalizing => "UPDATE batches SET status = ?, finalizing_at = ? WHERE id = ? AND status = ?",
            BatchStatus::Completed => "UPDATE batches SET status = ?, completed_at = ? WHERE id = ? AND status = ?",
            BatchStatus::Failed => "UPDATE batches SET status = ?, failed_at = ? WHERE id = ? AND status = ?",
            BatchStatus::Expired => "UPDATE batches SET status = ?, expired_at = ? WHERE id = ? AND status = ?",
            BatchStatus::Cancelling => "UPDATE batches SET status = ?, cancelling_at = ? WHERE id = ? AND status = ?",
            BatchStatus::Cancelled => "UPDATE batches SET status = ?, cancelled_at = ? WHERE id = ? AND status = ?",
        };
        let query = sqlx::query(sql).bind(to.name()).bind(count_to_sql(now)).bind(id);
        let done = query.bind(from.name()).execute(&mut *self.write().await?).await?;
        Ok(done.rows_affected() > 0)
    }

    /// Notes what is wrong with a batch's file.
    pub(crate) async fn fail_batch(&self, id: &str, errors: &[BatchError], now: u64) -> Result<(), Error> {
        let text = serde_json::to_string(errors).map_err(|error| Error::BadStore(error.to_string()))?;
        sqlx::query("UPDATE batches SET errors = ?, status = 'failed', failed_at = ? WHERE id = ?")
            .bind(text)
            .bind(count_to_sql(now))
            .bind(id)
            .execute(&mut *self.write().await?)
            .await?;
        Ok(())
    }

    /// Notes that requests of a batch remained when its time ran out.
    pub(crate) async fn mark_expired(&self, id: &str, now: u64) -> Result<(), Error> {
        let query = sqlx::query("UPDATE batches SET expired_at = ? WHERE id = ?").bind(count_to_sql(now));
        query.bind(id).execute(&mut *self.write().await?).await?;
        Ok(())
    }

    /// Ends a batch: its files are there from now on.
    pub(crate) async fn end_batch(
        &self,
        id: &str,
        status: BatchStatus,
        output: Option<&FileRow>,
        errors: Option<&FileRow>,
        now: u64,
    ) -> Result<(), Error> {
        let mut transaction = self.transaction().await?;
        for file in [output, errors].into_iter().flatten() {
            insert(&mut transaction, file).await?;
        }
        sqlx::query(
            "UPDATE batches SET status = ?1, output_file = ?2, error_file = ?3,
             completed_at = CASE ?1 WHEN 'completed' THEN ?4 ELSE completed_at END,
             expired_at = CASE ?1 WHEN 'expired' THEN ?4 ELSE expired_at END,
             cancelled_at = CASE ?1 WHEN 'cancelled' THEN ?4 ELSE cancelled_at END WHERE id = ?5",
        )
        .bind(status.name())
        .bind(output.map(|file| &file.id))
        .bind(errors.map(|file| &file.id))
        .bind(count_to_sql(now))
        .bind(id)
        .execute(&mut *transaction)
        .await?;
        transaction.commit().await?;
        Ok(())
    }

    /// What a batch's receipts add up to: those that were accepted, also when they came late.
    pub(crate) async fn batch_spent(&self, id: &str) -> Result<Spent, Error> {
        let rows = sqlx::query(
            "SELECT l.posted_input, l.posted_output, l.posted_request, COUNT(DISTINCT l.number) AS requests,
             SUM(r.input) AS input, SUM(r.output) AS output, SUM(r.cost_nano) AS cost
             FROM batch_lines l JOIN receipts r ON r.idempotency = l.id
             WHERE l.batch = ? AND r.complaint IS NULL GROUP BY 1, 2, 3",
        )
        .bind(id)
        .fetch_all(&self.readers)
        .await?;
        let mut spent = Spent::default();
        for row in &rows {
            let number = |name: &str| row.try_get::<i64, _>(name).map(from_sql);
            let usage = Usage {
                input: number("input")?,
                output: number("output")?,
            };
            let units = Price {
                input: number("posted_input")?,
                output: number("posted_output")?,
                request: 0,
            };
            let requests = u128::from(number("posted_request")?) * u128::from(number("requests")?);
            spent.usage.input = spent.usage.input.saturating_add(usage.input);
            spent.usage.output = spent.usage.output.saturating_add(usage.output);
            spent.cost = spent.cost.plus(NanoDollars(number("cost")?.into()));
            spent.posted = spent.posted.plus(units.cost(usage)).plus(NanoDollars(requests));
        }
        Ok(spent)
    }

    /// Forgets batches that ended before this time, with their requests. Their receipts stay.
    pub(crate) async fn prune_batches(&self, before: u64) -> Result<(), Error> {
        let old = "SELECT id FROM batches WHERE created_at < ?
                   AND status IN ('failed', 'completed', 'expired', 'cancelled') LIMIT 1";
        let found: Option<(String,)> = sqlx::query_as(old)
            .bind(count_to_sql(before))
            .fetch_optional(&self.readers)
            .await?;
        if let Some((id,)) = found {
            let mut transaction = self.transaction().await?;
            for sql in [
                "DELETE FROM batch_lines WHERE batch = ?",
                "DELETE FROM batches WHERE id = ?",
            ] {
                sqlx::query(sql).bind(&id).execute(&mut *transaction).await?;
            }
            transaction.commit().await?;
        }
        Ok(())
    }
}

/// A price's parts as SQLite keeps them.
pub(super) fn parts(price: Price) -> [i64; 3] {
    [price.input, price.output, price.request].map(|part| to_sql(part.into()))
}
