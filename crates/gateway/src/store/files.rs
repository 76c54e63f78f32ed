//! Files of API keys: their rows. What is in them is on disk, beside the store.

use sqlx::{Row as _, sqlite::SqliteRow};

use super::{Store, count_to_sql, from_sql};
use crate::Error;

/// Most files of one API key.
const MAX_OF_KEY: i64 = 10_000;

/// What the store knows of a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct FileRow {
    /// `file-…`; also its name on disk.
    pub(crate) id: String,
    /// The API key that owns it: its public part.
    pub(crate) key: String,
    /// `batch` or `batch_output`.
    pub(crate) purpose: String,
    /// What its owner calls it.
    pub(crate) name: String,
    pub(crate) bytes: u64,
    /// Seconds since 1970.
    pub(crate) created_at: u64,
    /// Seconds since 1970.
    pub(crate) expires_at: Option<u64>,
}

/// Which part of a list is wanted.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Wanted {
    /// After the object with this id.
    pub(crate) after: Option<String>,
    /// At most so many; one more is read to see whether there is more.
    pub(crate) limit: u32,
    /// Oldest first.
    pub(crate) ascending: bool,
}

fn file_row(row: &SqliteRow) -> Result<FileRow, sqlx::Error> {
    Ok(FileRow {
        id: row.try_get("id")?,
        key: row.try_get("key")?,
        purpose: row.try_get("purpose")?,
        name: row.try_get("name")?,
        bytes: from_sql(row.try_get("bytes")?),
        created_at: from_sql(row.try_get("created_at")?),
        expires_at: row.try_get::<Option<i64>, _>("expires_at")?.map(from_sql),
    })
}

impl Store {
    /// Notes a file that is whole and on disk. Returns false if its key has as much as it may have.
    pub(crate) async fn add_file(&self, file: &FileRow, most_bytes: u64) -> Result<bool, Error> {
        let mut transaction = self.transaction().await?;
        let (count, bytes): (i64, i64) =
            sqlx::query_as("SELECT COUNT(*), COALESCE(SUM(bytes), 0) FROM files WHERE key = ? AND purpose = 'batch'")
                .bind(&file.key)
                .fetch_one(&mut *transaction)
                .await?;
        if count >= MAX_OF_KEY || from_sql(bytes).saturating_add(file.bytes) > most_bytes {
            return Ok(false);
        }
        insert(&mut transaction, file).await?;
        transaction.commit().await?;
        Ok(true)
    }

    /// A key's file, unless it has expired.
    pub(crate) async fn file(&self, key: &str, id: &str, now: u64) -> Result<Option<FileRow>, Error> {
        let sql = "SELECT * FROM files WHERE id = ? AND key = ? AND (expires_at IS NULL OR expires_at > ?)";
        let query = sqlx::query(sql).bind(id).bind(key).bind(count_to_sql(now));
        let row = query.fetch_optional(&self.readers).await?;
        Ok(row.as_ref().map(file_row).transpose()?)
    }

    /// A key's files, newest first or oldest first, and whether there are more.
    pub(crate) async fn files(
        &self,
        key: &str,
        purpose: Option<&str>,
        wanted: &Wanted,
        now: u64,
    ) -> Result<(Vec<FileRow>, bool), Error> {
        let sql = if wanted.ascending {
            "SELECT * FROM files WHERE key = ?1 AND (?2 IS NULL OR purpose = ?2)
             AND (expires_at IS NULL OR expires_at > ?3)
             AND (?4 IS NULL OR (created_at, id) > (SELECT created_at, id FROM files WHERE id = ?4 AND key = ?1))
             ORDER BY created_at, id LIMIT ?5"
        } else {
            "SELECT * FROM files WHERE key = ?1 AND (?2 IS NULL OR purpose = ?2)
             AND (expires_at IS NULL OR expires_at > ?3)
             AND (?4 IS NULL OR (created_at, id) < (SELECT created_at, id FROM files WHERE id = ?4 AND key = ?1))
             ORDER BY created_at DESC, id DESC LIMIT ?5"
        };
        let rows = sqlx::query(sql)
            .bind(key)
            .bind(purpose)
            .bind(count_to_sql(now))
            .bind(wanted.after.as_deref())
            .bind(i64::from(wanted.limit) + 1)
            .fetch_all(&self.readers)
            .await?;
        let list = rows.iter().map(file_row).collect::<Result<Vec<_>, _>>()?;
        Ok(page(list, wanted))
    }

    /// Forgets a key's file. Returns whether there was one; one that an unfinished batch reads stays.
    pub(crate) async fn delete_file(&self, key: &str, id: &str) -> Result<bool, Error> {
        let sql = "DELETE FROM files WHERE id = ?1 AND key = ?2 AND NOT EXISTS (SELECT 1 FROM batches
                   WHERE input_file = ?1 AND status IN ('validating', 'in_progress', 'finalizing', 'cancelling'))";
        let done = sqlx::query(sql)
            .bind(id)
            .bind(key)
            .execute(&mut *self.write().await?)
            .await?;
        Ok(done.rows_affected() > 0)
    }

    /// Forgets files that have expired, unless an unfinished batch reads them.
    pub(crate) async fn expire_files(&self, now: u64) -> Result<(), Error> {
        let sql = "DELETE FROM files WHERE expires_at <= ? AND NOT EXISTS (SELECT 1 FROM batches
                   WHERE input_file = files.id AND status IN ('validating', 'in_progress', 'finalizing', 'cancelling'))";
        sqlx::query(sql)
            .bind(count_to_sql(now))
            .execute(&mut *self.write().await?)
            .await?;
        Ok(())
    }

    /// The ids of all files: what else is in their folder is a left-over.
    pub(crate) async fn file_ids(&self) -> Result<Vec<String>, Error> {
        let rows: Vec<(String,)> = sqlx::query_as("SELECT id FROM files").fetch_all(&self.readers).await?;
        Ok(rows.into_iter().map(|(id,)| id).collect())
    }
}

/// Adds a row.
pub(super) async fn insert(connection: &mut sqlx::SqliteConnection, file: &FileRow) -> Result<(), Error> {
    let sql = "INSERT INTO files (id, key, purpose, name, bytes, created_at, expires_at) VALUES (?, ?, ?, ?, ?, ?, ?)";
    sqlx::query(sql)
        .bind(&file.id)
        .bind(&file.key)
        .bind(&file.purpose)
        .bind(&file.name)
        .bind(count_to_sql(file.bytes))
        .bind(count_to_sql(file.created_at))
        .bind(file.expires_at.map(count_to_sql))
        .execute(connection)
        .await?;
    Ok(())
}

/// Cuts a list to the page that was wanted; says whether there was more.
pub(super) fn page<T>(mut list: Vec<T>, wanted: &Wanted) -> (Vec<T>, bool) {
    let limit = usize::try_from(wanted.limit).unwrap_or(usize::MAX);
    let more = list.len() > limit;
    list.truncate(limit);
    (list, more)
}
