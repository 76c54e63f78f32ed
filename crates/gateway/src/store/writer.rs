//! The task that writes what requests need: everything that waits goes into one transaction, and each change is one visit
//! of SQLite's thread.

use sqlx::{
    AssertSqlSafe, Execute as _, Sqlite, SqliteConnection, SqlitePool,
    query::Query,
    sqlite::{SqliteArguments, SqliteRow},
};
use tokio::sync::{mpsc, oneshot};

use crate::Error;

/// Most changes in one transaction, so that the first does not wait for an endless queue.
const MAX_GROUP: usize = 256;

/// Statements that are carried out together or not at all. Parameters are numbered, `$1`, over all of them.
pub(super) type Statements = Query<'static, Sqlite, SqliteArguments>;

type Outcome = Result<Vec<SqliteRow>, Error>;

/// A change, and who waits for it.
pub(super) struct Change {
    sql: String,
    arguments: SqliteArguments,
    done: oneshot::Sender<Outcome>,
}

/// Where changes are handed in.
#[derive(Debug, Clone)]
pub(super) struct Writer(mpsc::UnboundedSender<Change>);

impl Writer {
    /// Starts the task. It ends with the last of those who can hand in.
    pub(super) fn start(pool: SqlitePool) -> Self {
        let (sender, mut inbox) = mpsc::unbounded_channel();
        tokio::spawn(async move {
            let mut group = Vec::new();
            while inbox.recv_many(&mut group, MAX_GROUP).await > 0 {
                commit(&pool, std::mem::take(&mut group)).await;
            }
        });
        Self(sender)
    }

    /// Carries statements out; returns the rows of all of them once they are on disk. They are carried out even if nobody
    /// waits any more.
    pub(super) async fn change(&self, mut statements: Statements) -> Outcome {
        let arguments = statements.take_arguments().map_err(sqlx::Error::Encode)?;
        let (done, outcome) = oneshot::channel();
        let change = Change {
            sql: statements.sql().as_str().to_owned(),
            arguments: arguments.unwrap_or_default(),
            done,
        };
        let closed = || Error::Store(sqlx::Error::PoolClosed);
        self.0.send(change).map_err(|_| closed())?;
        outcome.await.map_err(|_| closed())?
    }
}

async fn commit(pool: &SqlitePool, group: Vec<Change>) {
    let mut connection = match pool.acquire().await {
        Ok(connection) => connection,
        // Whoever waits hears that the store is closed.
        Err(error) => return tracing::error!(%error, "the store cannot be written"),
    };
    if let Ok(outcomes) = together(&mut connection, &group).await {
        for (change, rows) in group.into_iter().zip(outcomes) {
            // Whoever asked may have given up waiting; the write stands.
            drop(change.done.send(Ok(rows)));
        }
        return;
    }
    // One of them cannot be carried out: it is told why, and the others do not suffer from it.
    for change in group {
        let rows = together(&mut connection, std::slice::from_ref(&change)).await;
        let outcome = rows.map(|rows| rows.into_iter().flatten().collect());
        drop(change.done.send(outcome.map_err(Error::Store)));
    }
}

/// Carries changes out in one transaction, or none of them; the rows of each.
async fn together(connection: &mut SqliteConnection, changes: &[Change]) -> Result<Vec<Vec<SqliteRow>>, sqlx::Error> {
    let done = write(connection, changes).await;
    if done.is_err() {
        // A transaction that stays open would take in the next one, and lose it.
        if let Err(error) = sqlx::raw_sql("ROLLBACK").execute(&mut *connection).await {
            tracing::debug!(%error, "nothing to take back");
        }
    }
    done
}

async fn write(connection: &mut SqliteConnection, changes: &[Change]) -> Result<Vec<Vec<SqliteRow>>, sqlx::Error> {
    let mut outcomes = Vec::with_capacity(changes.len());
    for (index, change) in changes.iter().enumerate() {
        let begin = if index == 0 { "BEGIN IMMEDIATE; " } else { "" };
        let commit = if index + 1 == changes.len() { "; COMMIT" } else { "" };
        let sql = format!("{begin}{}{commit}", change.sql);
        outcomes.push(run(connection, sql, change.arguments.clone()).await?);
    }
    Ok(outcomes)
}

async fn run(
    connection: &mut SqliteConnection,
    sql: String,
    arguments: SqliteArguments,
) -> Result<Vec<SqliteRow>, sqlx::Error> {
    // The texts are constants of this room: nothing of a request is in them.
    sqlx::query_with(AssertSqlSafe(sql), arguments)
        .fetch_all(connection)
        .await
}

#[cfg(test)]
mod tests {
    use crate::Store;

    const ADD: &str = "INSERT INTO notes (name, body) VALUES ($1, x'00'); INSERT INTO notes (name, body) VALUES ($2, x'01') RETURNING name";

    async fn names(store: &Store) -> Vec<String> {
        let rows: Vec<(String,)> = sqlx::query_as("SELECT name FROM notes ORDER BY name")
            .fetch_all(&store.readers)
            .await
            .unwrap();
        rows.into_iter().map(|(name,)| name).collect()
    }

    #[tokio::test]
    async fn one_that_fails_changes_nothing_and_spoils_no_other() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(&folder.path().join("gateway.db")).await.unwrap();
        let add = |first: &str, second: &str| {
            let statements = sqlx::query(ADD).bind(first.to_owned()).bind(second.to_owned());
            store.changes.change(statements)
        };
        for round in 0..4 {
            let name = |letter: char| format!("{letter}{round}");
            let (one, two, three) = tokio::join!(
                add(&name('a'), &name('b')),
                // The second statement fails; the first is taken back.
                add(&name('c'), &name('c')),
                add(&name('d'), &name('e')),
            );
            assert_eq!((one.unwrap().len(), three.unwrap().len()), (1, 1));
            assert!(two.is_err());
            // Alone as well, and a transaction of another kind goes on after it.
            assert!(add(&name('f'), &name('f')).await.is_err());
            store.create_key("after", None).await.unwrap();
        }
        let found = names(&store).await;
        assert_eq!(found.len(), 16, "{found:?}");
        assert!(!found.iter().any(|name| name.starts_with(['c', 'f'])), "{found:?}");
    }

    #[tokio::test]
    async fn a_change_is_carried_out_though_nobody_waits_for_it() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(&folder.path().join("gateway.db")).await.unwrap();
        let statements = sqlx::query(ADD).bind("a").bind("b");
        drop(tokio::time::timeout(std::time::Duration::ZERO, store.changes.change(statements)).await);
        while names(&store).await.len() < 2 {
            tokio::task::yield_now().await;
        }
    }
}
