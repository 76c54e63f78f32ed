//! The thread that writes what requests need: everything that waits goes into one transaction. SQLite has no other way
//! than to block its thread; on one of its own a group costs one switch of threads, and its statements are compiled once.

use std::{path::Path, sync::Arc, thread, time::Duration};

use rusqlite::{CachedStatement, Connection, OpenFlags, TransactionBehavior, types::Value};
use sqlx::{AssertSqlSafe, SqliteConnection};
use tokio::sync::{Mutex, mpsc, oneshot};

use super::{BUSY, PRAGMAS};
use crate::Error;

/// Most changes in one transaction, so that the first does not wait for an endless queue.
const MAX_GROUP: usize = 256;

/// When requests come side by side, a transaction waits so long for more of them: a sync to disk for each one costs more
/// than it waits. Whoever is alone does not wait.
const LINGER: Duration = Duration::from_micros(500);

/// Compiled statements that are kept: more than there are.
const STATEMENTS: usize = 64;

/// Statements that are carried out together or not at all. Parameters are numbered, `$1`, over all of them.
pub(super) struct Statements {
    texts: &'static [&'static str],
    values: Vec<Value>,
}

impl Statements {
    pub(super) fn new(texts: &'static [&'static str]) -> Self {
        let values = Vec::new();
        Self { texts, values }
    }

    /// The value of the next parameter.
    pub(super) fn bind(mut self, value: impl Into<Value>) -> Self {
        self.values.push(value.into());
        self
    }

    /// Carries them out in a transaction that goes on.
    pub(super) async fn execute(self, transaction: &mut SqliteConnection) -> Result<(), Error> {
        let text = self.texts.join("; ");
        // The texts are constants of this room: nothing of a request is in them.
        let mut query = sqlx::query(AssertSqlSafe(text));
        for value in self.values {
            query = match value {
                Value::Null => query.bind(None::<i64>),
                Value::Integer(value) => query.bind(value),
                Value::Real(value) => query.bind(value),
                Value::Text(value) => query.bind(value),
                Value::Blob(value) => query.bind(value),
            };
        }
        query.execute(transaction).await?;
        Ok(())
    }

    /// Carries them out; the rows that they return in all.
    fn run(&self, connection: &Connection) -> rusqlite::Result<usize> {
        let mut rows = 0;
        for text in self.texts {
            let mut statement = connection.prepare_cached(text)?;
            self.give(&mut statement)?;
            let mut returned = statement.raw_query();
            while returned.next()?.is_some() {
                rows += 1;
            }
        }
        Ok(rows)
    }

    /// Gives a statement the values that it names.
    fn give(&self, statement: &mut CachedStatement<'_>) -> rusqlite::Result<()> {
        for index in 1..=statement.parameter_count() {
            let name = statement.parameter_name(index).unwrap_or_default();
            let number: Option<usize> = name.strip_prefix('$').and_then(|number| number.parse().ok());
            let value = number.and_then(|number| self.values.get(number.checked_sub(1)?));
            let value = value.ok_or_else(|| rusqlite::Error::InvalidParameterName(name.to_owned()))?;
            statement.raw_bind_parameter(index, value)?;
        }
        Ok(())
    }
}

type Outcome = Result<usize, Error>;

/// A change, and who waits for it.
struct Change {
    statements: Statements,
    done: oneshot::Sender<Outcome>,
}

/// What the thread is told.
enum Order {
    Change(Change),
    /// Write what came before this, then end.
    Close(oneshot::Sender<()>),
}

/// Where changes are handed in.
#[derive(Debug, Clone)]
pub(super) struct Writer(mpsc::UnboundedSender<Order>);

impl Writer {
    /// Starts the thread. It ends with the last of those who can hand in, or when it is closed. Whoever else writes in this
    /// process does so in turn: SQLite has one writer, and waiting for it here is fairer than in its busy loop.
    pub(super) fn start(path: &Path, turn: Arc<Mutex<()>>) -> Result<Self, Error> {
        let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let connection = Connection::open_with_flags(path, flags)?;
        connection.busy_timeout(BUSY)?;
        for (name, value) in PRAGMAS {
            connection.pragma_update(None, name, value)?;
        }
        connection.set_prepared_statement_cache_capacity(STATEMENTS);
        let (sender, inbox) = mpsc::unbounded_channel();
        thread::Builder::new()
            .name("gateway-store".into())
            .spawn(move || run(connection, inbox, &turn))
            .map_err(sqlx::Error::from)?;
        Ok(Self(sender))
    }

    /// Of a store that is only read.
    pub(super) fn none() -> Self {
        Self(mpsc::unbounded_channel().0)
    }

    /// Carries statements out; returns how many rows all of them returned, once they are on disk. They are carried out even
    /// if nobody waits any more.
    pub(super) async fn change(&self, statements: Statements) -> Outcome {
        let (done, outcome) = oneshot::channel();
        let closed = || Error::Store(sqlx::Error::PoolClosed);
        self.0
            .send(Order::Change(Change { statements, done }))
            .map_err(|_| closed())?;
        outcome.await.map_err(|_| closed())?
    }

    /// Ends the thread once what was handed in is written.
    pub(super) async fn close(&self) {
        let (done, ended) = oneshot::channel();
        if self.0.send(Order::Close(done)).is_ok() {
            // Fails when it had ended before.
            drop(ended.await);
        }
    }
}

fn run(mut connection: Connection, mut inbox: mpsc::UnboundedReceiver<Order>, turn: &Mutex<()>) {
    let mut orders = Vec::new();
    // Whether more than one was written the last time.
    let mut crowded = false;
    let mut closed = None;
    while closed.is_none() && inbox.blocking_recv_many(&mut orders, MAX_GROUP) > 0 {
        if crowded {
            thread::sleep(LINGER);
            let more = std::iter::from_fn(|| inbox.try_recv().ok());
            orders.extend(more.take(MAX_GROUP));
        }
        crowded = orders.len() > 1;
        let mut group = Vec::with_capacity(orders.len());
        for order in orders.drain(..) {
            match order {
                Order::Change(change) if closed.is_none() => group.push(change),
                // Whoever waits hears that the store is closed.
                Order::Change(_) => {}
                Order::Close(done) => closed = Some(done),
            }
        }
        let turn = turn.blocking_lock();
        commit(&mut connection, group);
        drop(turn);
    }
    if let Err((_, error)) = connection.close() {
        tracing::error!(%error, "the store did not close cleanly");
    }
    if let Some(closed) = closed {
        let _ = closed.send(());
    }
}

fn commit(connection: &mut Connection, group: Vec<Change>) {
    if let Ok(outcomes) = together(connection, &group) {
        for (change, rows) in group.into_iter().zip(outcomes) {
            // Whoever asked may have given up waiting; the write stands.
            drop(change.done.send(Ok(rows)));
        }
        return;
    }
    // One of them cannot be carried out: it is told why, and the others do not suffer from it.
    for change in group {
        let rows = together(connection, std::slice::from_ref(&change));
        let outcome = rows.map(|rows| rows.into_iter().sum()).map_err(Error::Write);
        drop(change.done.send(outcome));
    }
}

/// Carries changes out in one transaction, or none of them; how many rows each returned.
fn together(connection: &mut Connection, changes: &[Change]) -> rusqlite::Result<Vec<usize>> {
    // Taken back when it is dropped without a commit.
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    let rows = changes.iter().map(|change| change.statements.run(&transaction));
    let rows = rows.collect::<rusqlite::Result<_>>()?;
    transaction.commit()?;
    Ok(rows)
}

#[cfg(test)]
mod tests {
    use super::Statements;
    use crate::Store;

    const ADD: &[&str] = &[
        "INSERT INTO notes (name, body) VALUES ($1, x'00')",
        "INSERT INTO notes (name, body) VALUES ($2, x'01') RETURNING name",
    ];

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
            let statements = Statements::new(ADD).bind(first.to_owned()).bind(second.to_owned());
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
            assert_eq!((one.unwrap(), three.unwrap()), (1, 1));
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
        let statements = Statements::new(ADD).bind("a".to_owned()).bind("b".to_owned());
        drop(tokio::time::timeout(std::time::Duration::ZERO, store.changes.change(statements)).await);
        while names(&store).await.len() < 2 {
            tokio::task::yield_now().await;
        }
    }
}
