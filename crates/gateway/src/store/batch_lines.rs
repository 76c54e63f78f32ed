//! The requests of batches. A request is marked before it is sent, so that after a crash it is known which may have been.

use rialto_protocol::Price;
use sqlx::{Row as _, sqlite::SqliteRow};

use super::{Store, Written, batches::parts, count_to_sql, from_sql, id};
use crate::Error;

/// One request of a batch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct LineRow {
    /// Its line in the file; the first is 1.
    pub(crate) number: u64,
    /// By which its receipts are known: the idempotency id of what is sent for it.
    pub(crate) id: [u8; 32],
    pub(crate) custom_id: String,
    /// Where it is in the file.
    pub(crate) offset: u64,
    pub(crate) length: u64,
    /// The model that it names; empty where its body cannot be read.
    pub(crate) model: String,
    /// Units that it is likely to need at most.
    pub(crate) input: u64,
    pub(crate) output: u64,
}

/// What is still to be done for a model.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Outstanding {
    pub(crate) input: u64,
    pub(crate) output: u64,
}

/// How one request ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Ended {
    pub(crate) number: u64,
    /// Whether its answer is in the output; otherwise it is among the errors.
    pub(crate) good: bool,
}

fn line_row(row: &SqliteRow) -> Result<LineRow, Error> {
    let count = |name: &str| row.try_get::<i64, _>(name).map(from_sql);
    Ok(LineRow {
        number: count("number")?,
        id: id(&row.try_get::<Vec<u8>, _>("id")?)?,
        custom_id: row.try_get("custom_id")?,
        offset: count("offset")?,
        length: count("length")?,
        model: row.try_get("model")?,
        input: count("input")?,
        output: count("output")?,
    })
}

impl Store {
    /// Forgets the requests of a batch whose file is read again from its beginning.
    pub(crate) async fn clear_lines(&self, batch: &str) -> Result<(), Error> {
        let query = sqlx::query("DELETE FROM batch_lines WHERE batch = ?").bind(batch);
        query.execute(&mut *self.write().await?).await?;
        Ok(())
    }

    /// Notes some requests of a batch. Returns the first whose `custom_id` is taken.
    pub(crate) async fn add_lines(&self, batch: &str, lines: &[LineRow]) -> Result<Option<u64>, Error> {
        let mut transaction = self.transaction().await?;
        for line in lines {
            let done = sqlx::query(
                "INSERT INTO batch_lines (batch, number, id, custom_id, offset, length, model, input, output, state)
                 VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, 'waiting') ON CONFLICT (batch, custom_id) DO NOTHING",
            )
            .bind(batch)
            .bind(count_to_sql(line.number))
            .bind(line.id.to_vec())
            .bind(&line.custom_id)
            .bind(count_to_sql(line.offset))
            .bind(count_to_sql(line.length))
            .bind(&line.model)
            .bind(count_to_sql(line.input))
            .bind(count_to_sql(line.output))
            .execute(&mut *transaction)
            .await?;
            if done.rows_affected() == 0 {
                return Ok(Some(line.number));
            }
        }
        transaction.commit().await?;
        Ok(None)
    }

    /// Notes how many requests a batch has, and their model if all name the same.
    pub(crate) async fn set_total(&self, batch: &str, total: u64) -> Result<(), Error> {
        sqlx::query(
            "UPDATE batches SET total = ?1, model = (SELECT CASE COUNT(DISTINCT model) WHEN 1 THEN MAX(model) END
             FROM batch_lines WHERE batch = ?2) WHERE id = ?2",
        )
        .bind(count_to_sql(total))
        .bind(batch)
        .execute(&mut *self.write().await?)
        .await?;
        Ok(())
    }

    /// Requests of a batch that nothing was sent for, after a line, in order.
    pub(crate) async fn waiting_lines(&self, batch: &str, after: u64, most: u32) -> Result<Vec<LineRow>, Error> {
        let sql =
            "SELECT * FROM batch_lines WHERE batch = ? AND state = 'waiting' AND number > ? ORDER BY number LIMIT ?";
        let query = sqlx::query(sql).bind(batch).bind(count_to_sql(after)).bind(most);
        let rows = query.fetch_all(&self.readers).await?;
        rows.iter().map(line_row).collect()
    }

    /// What is still to be bought of a model for a batch.
    pub(crate) async fn outstanding(&self, batch: &str, model: &str) -> Result<Outstanding, Error> {
        let sql = "SELECT COALESCE(SUM(input), 0), COALESCE(SUM(output), 0) FROM batch_lines
                   WHERE batch = ? AND model = ? AND state = 'waiting'";
        let query = sqlx::query_as(sql).bind(batch).bind(model);
        let (input, output): (i64, i64) = query.fetch_one(&self.readers).await?;
        Ok(Outstanding {
            input: from_sql(input),
            output: from_sql(output),
        })
    }

    /// Marks a request before anything is sent for it, with the lowest posted price of the moment.
    pub(crate) async fn begin_line(&self, line: [u8; 32], posted: Price) -> Result<(), Error> {
        let [input, output, request] = parts(posted);
        let sql = "UPDATE batch_lines SET state = 'running', posted_input = ?, posted_output = ?, posted_request = ?
                   WHERE id = ? AND state = 'waiting'";
        let query = sqlx::query(sql).bind(input).bind(output).bind(request);
        query.bind(line.to_vec()).execute(&mut *self.write().await?).await?;
        Ok(())
    }

    /// Puts a request back for which nothing can be billed. Returns false if something was sent that may be: then it must
    /// not be sent again.
    pub(crate) async fn release_line(&self, line: [u8; 32]) -> Result<bool, Error> {
        let sql = "UPDATE batch_lines SET state = 'waiting' WHERE id = ?1 AND state = 'running'
                   AND NOT EXISTS (SELECT 1 FROM requests WHERE idempotency = ?1)
                   AND NOT EXISTS (SELECT 1 FROM receipts WHERE idempotency = ?1)";
        let done = sqlx::query(sql)
            .bind(line.to_vec())
            .execute(&mut *self.write().await?)
            .await?;
        Ok(done.rows_affected() > 0)
    }

    /// Whether nothing was sent for a request.
    pub(crate) async fn is_waiting(&self, line: [u8; 32]) -> Result<bool, Error> {
        let sql = "SELECT 1 FROM batch_lines WHERE id = ? AND state = 'waiting'";
        let query = sqlx::query(sql).bind(line.to_vec());
        Ok(query.fetch_optional(&self.readers).await?.is_some())
    }

    /// Puts back what an earlier run of the gateway had marked and nothing was sent for; returns the requests whose outcome
    /// is not known.
    pub(crate) async fn lost_lines(&self, batch: &str) -> Result<Vec<LineRow>, Error> {
        let sql = "SELECT * FROM batch_lines WHERE batch = ? AND state = 'running' ORDER BY number";
        let rows = sqlx::query(sql).bind(batch).fetch_all(&self.readers).await?;
        let mut lost = Vec::new();
        for row in &rows {
            let line = line_row(row)?;
            if !self.release_line(line.id).await? {
                lost.push(line);
            }
        }
        Ok(lost)
    }

    /// Notes outcomes that are on disk, and how long the files are with them: all or nothing.
    pub(crate) async fn end_lines(&self, batch: &str, ended: &[Ended], written: Written) -> Result<(), Error> {
        let mut transaction = self.transaction().await?;
        let (mut good, mut bad) = (0u64, 0u64);
        for one in ended {
            let sql =
                "UPDATE batch_lines SET state = ? WHERE batch = ? AND number = ? AND state IN ('waiting', 'running')";
            let query = sqlx::query(sql)
                .bind(if one.good { "done" } else { "failed" })
                .bind(batch);
            query.bind(count_to_sql(one.number)).execute(&mut *transaction).await?;
            let count = if one.good { &mut good } else { &mut bad };
            *count += 1;
        }
        sqlx::query(
            "UPDATE batches SET completed = completed + ?, failed = failed + ?, output_bytes = ?, error_bytes = ?
             WHERE id = ?",
        )
        .bind(count_to_sql(good))
        .bind(count_to_sql(bad))
        .bind(count_to_sql(written.output))
        .bind(count_to_sql(written.errors))
        .bind(batch)
        .execute(&mut *transaction)
        .await?;
        transaction.commit().await?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use rialto_api::openai::{BatchCounts, BatchEndpoint, BatchStatus, BatchTimes};
    use rialto_protocol::NanoDollars;

    use super::*;
    use crate::store::{BatchRow, tests};

    fn line(number: u8) -> LineRow {
        LineRow {
            number: number.into(),
            id: [number; 32],
            custom_id: format!("r{number}"),
            offset: 0,
            length: 1,
            model: "m".into(),
            input: 5,
            output: 7,
        }
    }

    async fn store() -> (tempfile::TempDir, Store) {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(&folder.path().join("gateway.db")).await.unwrap();
        let batch = BatchRow {
            id: "batch_1".into(),
            key: "key".into(),
            endpoint: BatchEndpoint::Chat,
            input_file: "file-1".into(),
            metadata: None,
            status: BatchStatus::Validating,
            times: BatchTimes::default(),
            output_file: None,
            error_file: None,
            errors: Vec::new(),
            model: None,
            counts: BatchCounts::default(),
            output_seconds: None,
            written: Written::default(),
        };
        assert!(store.add_batch(&batch, 1, 1).await.unwrap());
        assert!(
            !store.add_batch(&batch, 1, 9).await.unwrap(),
            "one unfinished batch is enough"
        );
        let lines: Vec<LineRow> = (1..=4).map(line).collect();
        assert_eq!(store.add_lines("batch_1", &lines).await.unwrap(), None);
        store.set_total("batch_1", 4).await.unwrap();
        (folder, store)
    }

    #[tokio::test]
    async fn after_a_crash_only_what_was_never_sent_is_asked_again() {
        let (folder, store) = store().await;
        for number in 1..=3 {
            store.begin_line([number; 32], Price::default()).await.unwrap();
        }
        // Something was sent for the second.
        tests::begin(&store, Some([2; 32])).await;
        store.close().await;
        let store = Store::open(&folder.path().join("gateway.db")).await.unwrap();
        let lost = store.lost_lines("batch_1").await.unwrap();
        assert_eq!(lost, [line(2)]);
        let waiting = store.waiting_lines("batch_1", 0, 10).await.unwrap();
        assert_eq!(waiting, [line(1), line(3), line(4)]);
        assert!(!store.release_line([2; 32]).await.unwrap(), "it may be billed");
        let written = Written { output: 0, errors: 9 };
        let ended = Ended { number: 2, good: false };
        store.end_lines("batch_1", &[ended], written).await.unwrap();
        assert!(store.lost_lines("batch_1").await.unwrap().is_empty());
        let batch = store.any_batch("batch_1").await.unwrap().unwrap();
        let counts = BatchCounts {
            total: 4,
            completed: 0,
            failed: 1,
        };
        assert_eq!((batch.counts, batch.written), (counts, written));
        assert_eq!(batch.model.as_deref(), Some("m"));
        let rest = store.outstanding("batch_1", "m").await.unwrap();
        assert_eq!((rest.input, rest.output), (15, 21));
    }

    #[tokio::test]
    async fn a_receipt_that_comes_late_counts_for_the_batch_and_at_the_posted_price() {
        let (_folder, store) = store().await;
        let posted = Price {
            input: 200,
            output: 2_000,
            request: 5,
        };
        store.begin_line([2; 32], posted).await.unwrap();
        tests::begin(&store, Some([2; 32])).await;
        assert_eq!(store.batch_spent("batch_1").await.unwrap().cost, NanoDollars::ZERO);
        store.interrupt_all().await.unwrap();
        store.settle_request(&tests::receipt(1)).await.unwrap();
        let spent = store.batch_spent("batch_1").await.unwrap();
        let usage = spent.usage;
        assert_eq!((usage.input, usage.output), (10, 2));
        assert_eq!(
            (spent.cost, spent.posted),
            (tests::PRICE.cost(usage), posted.cost(usage))
        );
    }

    #[tokio::test]
    async fn a_custom_id_is_taken_once() {
        let (_folder, store) = store().await;
        let mut again = line(9);
        again.custom_id = "r2".into();
        assert_eq!(store.add_lines("batch_1", &[line(8), again]).await.unwrap(), Some(9));
    }
}
