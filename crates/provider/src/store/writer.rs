//! The one task that writes: everything that waits goes into one transaction.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

use rialto_protocol::{
    ChannelId, ModelId, Receipt, SignedReceipt, channel::ChannelState, fingerprint::Fingerprint, offer::MAX_LIFETIME,
    tender::SignedBid,
};
use sqlx::{
    AssertSqlSafe, Connection as _, Executor as _, Sqlite, SqliteConnection, query::Query, sqlite::SqliteArguments,
};
use tokio::sync::mpsc;
use tracing::error;

use super::{
    Batch, Order, Redemption, Write,
    restore::TRAIL,
    row::{number, pack, wide},
};
use crate::{Error, clock, price::Quote};

/// Seconds for which an answer's marks are kept.
const CHALLENGEABLE: u64 = 72 * 3_600;

/// Most batches in one transaction, so that the first does not wait for an endless queue.
const MAX_GROUP: usize = 512;

pub(super) async fn run(
    mut connection: SqliteConnection,
    mut inbox: mpsc::UnboundedReceiver<Order>,
    failed: Arc<AtomicBool>,
) {
    let mut orders = Vec::new();
    let mut open = true;
    while open && inbox.recv_many(&mut orders, MAX_GROUP).await > 0 {
        let mut group = Vec::with_capacity(orders.len());
        for order in orders.drain(..) {
            match order {
                Order::Write(batch) if open => group.push(batch),
                Order::Write(_) => {}
                Order::Close => open = false,
            }
        }
        let result = if failed.load(Ordering::Relaxed) {
            Err(Error::StoreFailed)
        } else {
            commit(&mut connection, &group).await
        };
        if let Err(error) = &result
            && !failed.swap(true, Ordering::Relaxed)
        {
            error!(%error, "the store cannot be written, nothing more is sold");
        }
        for batch in group {
            let answer = if result.is_ok() {
                Ok(())
            } else {
                Err(Error::StoreFailed)
            };
            // Whoever asked may have given up waiting; the write stands.
            drop(batch.done.send(answer));
        }
    }
    if let Err(error) = connection.close().await {
        error!(%error, "the store did not close cleanly");
    }
}

async fn commit(connection: &mut SqliteConnection, group: &[Batch]) -> Result<(), Error> {
    let writes: Vec<&[Write]> = group.iter().map(|batch| batch.writes.as_slice()).collect();
    let writes: Vec<&[Write]> = writes.into_iter().filter(|writes| !writes.is_empty()).collect();
    if writes.is_empty() {
        return Ok(());
    }
    let done = write_all(connection, &writes).await;
    if done.is_err() {
        // What stays open would be committed with the next.
        if let Err(error) = connection.execute("ROLLBACK").await {
            tracing::debug!(%error, "nothing to take back");
        }
    }
    done
}

/// Carries out all batches in one transaction, each in one visit of SQLite's thread.
async fn write_all(connection: &mut SqliteConnection, batches: &[&[Write]]) -> Result<(), Error> {
    for (index, writes) in batches.iter().enumerate() {
        let mut visit = Visit::default();
        if index == 0 {
            visit.sql.push_str("BEGIN IMMEDIATE; ");
        }
        for write in *writes {
            visit.add(write)?;
        }
        visit.make(connection).await?;
    }
    connection.execute("COMMIT").await?;
    Ok(())
}

type Statement = Query<'static, Sqlite, SqliteArguments>;

/// Statements that are handed to SQLite's thread together.
#[derive(Default)]
struct Visit {
    sql: String,
    arguments: SqliteArguments,
    /// Rows that must come back: one for each change of a row that has to be there.
    rows: usize,
}

impl Visit {
    /// Adds a statement. Its parameters are bound in the order of their question marks.
    fn statement(&mut self, sql: &'static str, bind: impl FnOnce(Statement) -> Statement) -> Result<(), Error> {
        let mut bound = bind(sqlx::query_with(sql, std::mem::take(&mut self.arguments)));
        let arguments = sqlx::Execute::take_arguments(&mut bound).map_err(sqlx::Error::Encode)?;
        self.arguments = arguments.unwrap_or_default();
        self.sql.push_str(sql);
        self.sql.push_str("; ");
        Ok(())
    }

    /// Adds a statement that returns a row for what it changes, and must change something.
    fn change(&mut self, sql: &'static str, bind: impl FnOnce(Statement) -> Statement) -> Result<(), Error> {
        self.rows += 1;
        self.statement(sql, bind)
    }

    async fn make(self, connection: &mut SqliteConnection) -> Result<(), Error> {
        // The texts are constants of this room: nothing of a request is in them.
        let rows = sqlx::query_with(AssertSqlSafe(self.sql), self.arguments)
            .fetch_all(connection)
            .await?;
        if rows.len() == self.rows {
            Ok(())
        } else {
            Err(Error::Corrupt("a channel that should be known is not"))
        }
    }

    fn add(&mut self, write: &Write) -> Result<(), Error> {
        match write {
            Write::Channel { params, state, seen } => {
                let sql = "INSERT INTO channels (id, params, model, payer, funded, redeemed, closes_at, closed, first_seen) \
                           VALUES (?, ?, ?, ?, '0', '0', 0, 0, ?) ON CONFLICT (id) DO NOTHING";
                let packed = pack(params)?;
                self.statement(sql, |query| {
                    query
                        .bind(params.id().0.to_vec())
                        .bind(packed)
                        .bind(params.model.0.to_vec())
                        .bind(params.payer.0.to_vec())
                        .bind(number(*seen))
                })?;
                self.state(&params.id(), state)
            }
            Write::State(channel, state) => self.state(channel, state),
            Write::Voucher(voucher) => {
                let packed = pack(voucher)?;
                self.change(
                    "UPDATE channels SET voucher = ?, promised = ? WHERE id = ? RETURNING 1",
                    |query| {
                        query
                            .bind(packed)
                            .bind(voucher.voucher.cumulative.get().to_string())
                            .bind(voucher.voucher.channel.0.to_vec())
                    },
                )
            }
            Write::Open(channel, open) => {
                let packed = pack(open)?;
                self.statement(
                    "INSERT OR REPLACE INTO requests (channel, request, body) VALUES (?, ?, ?)",
                    |query| {
                        query
                            .bind(channel.0.to_vec())
                            .bind(open.request.0.to_vec())
                            .bind(packed)
                    },
                )
            }
            Write::Receipt(receipt) => self.receipt(receipt),
            Write::Fingerprint(pair) => self.fingerprint(&pair.0, &pair.1),
            Write::Redemption(redemption) => self.redemption(redemption),
            Write::Unredeem(from_block) => self.statement("DELETE FROM redemptions WHERE block >= ?", |query| {
                query.bind(number(*from_block))
            }),
            Write::Trail(trail) => {
                let packed = pack(trail)?;
                self.statement("INSERT OR REPLACE INTO notes (name, body) VALUES (?, ?)", |query| {
                    query.bind(TRAIL).bind(packed)
                })
            }
            Write::Bid(signed) => self.bid(signed),
            // One that has expired meanwhile is gone.
            Write::Drawn(bid, drawn) => self.statement(
                "UPDATE bids SET drawn_input = ?, drawn_output = ? WHERE id = ?",
                |query| {
                    query
                        .bind(number(drawn.input))
                        .bind(number(drawn.output))
                        .bind(bid.0.to_vec())
                },
            ),
            Write::Quote(model, quote) => self.quote(model, quote),
            Write::Mark(name, value) => self
                .statement("INSERT OR REPLACE INTO marks (name, value) VALUES (?, ?)", |query| {
                    query.bind(*name).bind(number(*value))
                }),
        }
    }

    fn state(&mut self, channel: &ChannelId, state: &ChannelState) -> Result<(), Error> {
        let sql = "UPDATE channels SET funded = ?, redeemed = ?, closes_at = ?, closed = ?, \
                   closed_at = CASE WHEN closed = 0 THEN ? ELSE closed_at END WHERE id = ? RETURNING 1";
        self.change(sql, |query| {
            query
                .bind(state.funded.get().to_string())
                .bind(state.redeemed.get().to_string())
                .bind(number(state.closes_at))
                .bind(i64::from(state.closed))
                .bind(if state.closed { number(clock::now()) } else { 0 })
                .bind(channel.0.to_vec())
        })
    }

    /// Keeps a bid, and forgets those that have expired.
    fn bid(&mut self, signed: &SignedBid) -> Result<(), Error> {
        let packed = pack(signed)?;
        self.statement("INSERT INTO bids (id, body, expires_at) VALUES (?, ?, ?)", |query| {
            query
                .bind(signed.bid.digest().0.to_vec())
                .bind(packed)
                .bind(number(signed.bid.expires_at))
        })?;
        self.statement("DELETE FROM bids WHERE expires_at <= ?", |query| {
            query.bind(number(clock::now()))
        })
    }

    /// Notes a promised price, and forgets those that do not hold any more.
    fn quote(&mut self, model: &ModelId, quote: &Quote) -> Result<(), Error> {
        let sql = "INSERT INTO quotes (model, price, expires_at) VALUES (?, ?, ?) \
                   ON CONFLICT (model, price) DO UPDATE SET expires_at = MAX(expires_at, excluded.expires_at)";
        let packed = pack(&quote.price)?;
        self.statement(sql, |query| {
            query.bind(model.0.to_vec()).bind(packed).bind(number(quote.expires_at))
        })?;
        let old = clock::now().saturating_sub(MAX_LIFETIME);
        self.statement("DELETE FROM quotes WHERE expires_at < ?", |query| {
            query.bind(number(old))
        })
    }

    /// Notes an answer's marks, and forgets those that nobody can be challenged for any more.
    fn fingerprint(&mut self, receipt: &Receipt, fingerprint: &Fingerprint) -> Result<(), Error> {
        let sql = "INSERT OR REPLACE INTO fingerprints (channel, sequence, body, finished_at) VALUES (?, ?, ?, ?)";
        let packed = pack(fingerprint)?;
        self.statement(sql, |query| {
            query
                .bind(receipt.channel.0.to_vec())
                .bind(number(receipt.sequence))
                .bind(packed)
                .bind(number(receipt.finished_at))
        })?;
        let old = clock::now().saturating_sub(CHALLENGEABLE);
        self.statement("DELETE FROM fingerprints WHERE finished_at < ?", |query| {
            query.bind(number(old))
        })
    }

    /// A plain insert: a second receipt with the same number must fail, never replace the first.
    fn receipt(&mut self, signed: &SignedReceipt) -> Result<(), Error> {
        let receipt = &signed.receipt;
        let sql = "INSERT INTO receipts (channel, sequence, request, model, finished_at, status, input_units, \
                   output_units, cost_nano, body) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)";
        let packed = pack(signed)?;
        self.statement(sql, |query| {
            query
                .bind(receipt.channel.0.to_vec())
                .bind(number(receipt.sequence))
                .bind(receipt.request.0.to_vec())
                .bind(receipt.model.0.to_vec())
                .bind(number(receipt.finished_at))
                .bind(i64::from(receipt.status as u8))
                .bind(number(receipt.usage.input))
                .bind(number(receipt.usage.output))
                .bind(wide(receipt.cost.0))
                .bind(packed)
        })?;
        self.statement("DELETE FROM requests WHERE channel = ? AND request = ?", |query| {
            query.bind(receipt.channel.0.to_vec()).bind(receipt.request.0.to_vec())
        })
    }

    /// The same redemption may be told twice: by the transaction's receipt, and by the chain's events. After a
    /// reorganisation the later one knows the block.
    fn redemption(&mut self, redemption: &Redemption) -> Result<(), Error> {
        let channels = serde_json::to_string(&redemption.channels).map_err(|_| Error::Corrupt("a list of channels"))?;
        let sql = "INSERT INTO redemptions (tx, block, redeemed_at, provider, royalty, fee, channels) \
                   VALUES (?, ?, ?, ?, ?, ?, ?) ON CONFLICT (tx) DO UPDATE SET block = excluded.block, \
                   provider = excluded.provider, royalty = excluded.royalty, fee = excluded.fee, \
                   channels = excluded.channels";
        self.statement(sql, |query| {
            query
                .bind(redemption.transaction.0.to_vec())
                .bind(number(redemption.block))
                .bind(number(redemption.redeemed_at))
                .bind(redemption.provider.get().to_string())
                .bind(redemption.royalty.get().to_string())
                .bind(redemption.fee.get().to_string())
                .bind(channels)
        })
    }
}
