//! What keys with limits used lately, in buckets of time.

use rialto_protocol::NanoDollars;
use sqlx::{Row as _, SqliteConnection, sqlite::SqliteRow};

use super::{Store, count_to_sql, from_sql, now, writer::Statements};
use crate::{
    Error,
    limits::{Bucket, DAY, MINUTE, State, Use},
};

/// What a key with limits used lately, and what its requests under way have reserved.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
pub struct Used {
    /// Units within the last minute.
    pub tokens_in_minute: u64,
    /// Units within the last day.
    pub tokens_in_day: u64,
    /// Money within the last minute.
    pub cost_in_minute: NanoDollars,
    /// Money within the last day.
    pub cost_in_day: NanoDollars,
}

impl Store {
    /// What counts now of a key's limits.
    pub async fn used_now(&self, key: &str) -> Result<Used, Error> {
        let state = self.used(key).await?;
        let (minute, day) = (state.taken(MINUTE, now()), state.taken(DAY, now()));
        Ok(Used {
            tokens_in_minute: minute.tokens,
            tokens_in_day: day.tokens,
            cost_in_minute: minute.cost,
            cost_in_day: day.cost,
        })
    }

    /// Counts units that cost nothing, if the key has limits.
    pub(crate) async fn count_tokens(&self, key: &str, tokens: u64) -> Result<(), Error> {
        let count = at_this_time(Statements::new(&[COUNT]))
            .bind(key.to_owned())
            .bind(count_to_sql(tokens));
        self.changes.change(count).await?;
        Ok(())
    }

    /// What a key used lately, and what its requests under way may use.
    pub(crate) async fn used(&self, key: &str) -> Result<State, Error> {
        state(&mut *self.readers.acquire().await?, key).await
    }
}

/// Counts units of a key that no request in the store stands for.
const COUNT: &str = "INSERT INTO uses (key, span, start, units, nano)
    SELECT k.id, spans.column1, spans.column2, $6, 0 FROM keys k, (VALUES ($1, $2), ($3, $4)) AS spans
    WHERE k.id = $5 AND k.limits IS NOT NULL ON CONFLICT DO UPDATE SET units = units + excluded.units";

/// What a key used lately, and what its requests under way may use.
pub(super) async fn state(connection: &mut SqliteConnection, key: &str) -> Result<State, Error> {
    let mut state = State::default();
    let buckets = sqlx::query("SELECT span, start, units AS tokens, nano FROM uses WHERE key = ? ORDER BY start")
        .bind(key)
        .fetch_all(&mut *connection)
        .await?;
    for row in &buckets {
        let bucket = Bucket {
            start: from_sql(row.try_get("start")?),
            used: used(row)?,
        };
        if from_sql(row.try_get("span")?) == MINUTE.seconds {
            state.minute.push(bucket);
        } else {
            state.day.push(bucket);
        }
    }
    let held = sqlx::query(
        "SELECT COALESCE(SUM(hold_units), 0) AS tokens, COALESCE(SUM(hold_nano), 0) AS nano
         FROM requests WHERE key = ? AND state = 'open'",
    )
    .bind(key)
    .fetch_one(connection)
    .await?;
    state.held = used(&held)?;
    Ok(state)
}

fn used(row: &SqliteRow) -> Result<Use, Error> {
    Ok(Use {
        tokens: from_sql(row.try_get("tokens")?),
        cost: NanoDollars(from_sql(row.try_get("nano")?).into()),
    })
}

/// Counts what open requests used that are ending, if their keys have limits. The first four parameters are those of
/// [`at_this_time`].
macro_rules! count_uses {
    ($units:literal, $nano:literal, $which:literal) => {
        concat!(
            "INSERT INTO uses (key, span, start, units, nano)
             SELECT k.id, spans.column1, spans.column2, SUM(",
            $units,
            "), SUM(",
            $nano,
            ") FROM requests r JOIN keys k ON k.id = r.key, (VALUES ($1, $2), ($3, $4)) AS spans
             WHERE ",
            $which,
            " AND r.state = 'open' AND k.limits IS NOT NULL GROUP BY k.id, spans.column1
             ON CONFLICT DO UPDATE SET units = units + excluded.units, nano = nano + excluded.nano"
        )
    };
}
pub(super) use count_uses;

/// The buckets of now.
pub(super) fn at_this_time(statements: Statements) -> Statements {
    let now = now();
    statements
        .bind(count_to_sql(MINUTE.seconds))
        .bind(count_to_sql(MINUTE.bucket_of(now)))
        .bind(count_to_sql(DAY.seconds))
        .bind(count_to_sql(DAY.bucket_of(now)))
}

/// Forgets what is too old to count.
pub(super) async fn forget(connection: &mut SqliteConnection, key: &str) -> Result<(), Error> {
    let now = now();
    sqlx::query("DELETE FROM uses WHERE key = ?1 AND (span = ?2 AND start <= ?3 OR span = ?4 AND start <= ?5)")
        .bind(key)
        .bind(count_to_sql(MINUTE.seconds))
        .bind(count_to_sql(MINUTE.forgotten(now)))
        .bind(count_to_sql(DAY.seconds))
        .bind(count_to_sql(DAY.forgotten(now)))
        .execute(connection)
        .await?;
    Ok(())
}
