//! The one thread that writes: everything that waits goes into one transaction. SQLite has no other way than to block its
//! thread; on one of its own a group costs one switch of threads, and its statements are compiled once.

use std::{
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::Duration,
};

use rialto_protocol::{
    ChannelId, ChannelParams, ModelId, Receipt, SignedReceipt, channel::ChannelState, fingerprint::Fingerprint,
    offer::MAX_LIFETIME, tender::SignedBid,
};
use rusqlite::{Connection, OpenFlags, Params, params};
use tokio::sync::{mpsc, oneshot};
use tracing::error;

use super::{
    BUSY, Batch, Order, PRAGMAS, Redemption, Write,
    restore::TRAIL,
    row::{number, pack, wide},
};
use crate::{Error, clock, price::Quote};

/// Seconds for which an answer's marks are kept.
const CHALLENGEABLE: u64 = 72 * 3_600;

/// Most batches in one transaction, so that the first does not wait for an endless queue.
const MAX_GROUP: usize = 512;

/// When requests come side by side, a transaction waits so long for more of them: a sync to disk for each one costs more
/// than it waits. Whoever is alone does not wait.
const LINGER: Duration = Duration::from_micros(500);

/// Compiled statements that are kept: more than this file has.
const STATEMENTS: usize = 64;

/// Starts the thread. It ends after [`Order::Close`], or with the last of those who can send orders; what is returned
/// resolves then, to an error if it panicked.
pub(super) fn start(
    path: &Path,
    inbox: mpsc::UnboundedReceiver<Order>,
    failed: Arc<AtomicBool>,
) -> Result<oneshot::Receiver<()>, Error> {
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(path, flags)?;
    connection.busy_timeout(BUSY)?;
    for (name, value) in PRAGMAS {
        connection.pragma_update(None, name, value)?;
    }
    connection.set_prepared_statement_cache_capacity(STATEMENTS);
    let (done, ended) = oneshot::channel();
    thread::Builder::new()
        .name("provider-store".into())
        .spawn(move || {
            run(connection, inbox, &failed);
            let _ = done.send(());
        })
        .map_err(sqlx::Error::from)?;
    Ok(ended)
}

fn run(mut connection: Connection, mut inbox: mpsc::UnboundedReceiver<Order>, failed: &AtomicBool) {
    let mut orders = Vec::new();
    // Whether more than one was written the last time.
    let mut crowded = false;
    let mut open = true;
    while open && inbox.blocking_recv_many(&mut orders, MAX_GROUP) > 0 {
        if crowded {
            thread::sleep(LINGER);
            let more = std::iter::from_fn(|| inbox.try_recv().ok());
            orders.extend(more.take(MAX_GROUP));
        }
        crowded = orders.len() > 1;
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
            commit(&mut connection, &group)
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
    if let Err((_, error)) = connection.close() {
        error!(%error, "the store did not close cleanly");
    }
}

/// Carries out all batches in one transaction, or none of them.
fn commit(connection: &mut Connection, group: &[Batch]) -> Result<(), Error> {
    if group.iter().all(|batch| batch.writes.is_empty()) {
        return Ok(());
    }
    // Taken back when it is dropped without a commit.
    let transaction = connection.transaction_with_behavior(rusqlite::TransactionBehavior::Immediate)?;
    let writing = Writing(&transaction);
    for write in group.iter().flat_map(|batch| &batch.writes) {
        writing.add(write)?;
    }
    transaction.commit()?;
    Ok(())
}

/// A transaction that writes.
struct Writing<'a>(&'a Connection);

impl Writing<'_> {
    /// Carries out a statement; the rows that it changed.
    fn statement(&self, sql: &'static str, parameters: impl Params) -> Result<usize, Error> {
        Ok(self.0.prepare_cached(sql)?.execute(parameters)?)
    }

    /// Carries out a statement that must change something.
    fn change(&self, sql: &'static str, parameters: impl Params) -> Result<(), Error> {
        match self.statement(sql, parameters)? {
            0 => Err(Error::Corrupt("a channel that should be known is not")),
            _ => Ok(()),
        }
    }

    fn add(&self, write: &Write) -> Result<(), Error> {
        match write {
            Write::Channel { params, state, seen } => self.channel(params, state, *seen)?,
            Write::State(channel, state) => self.state(channel, state)?,
            Write::Voucher(voucher) => self.change(
                "UPDATE channels SET voucher = ?, promised = ? WHERE id = ?",
                params![
                    pack(voucher)?,
                    voucher.voucher.cumulative.get().to_string(),
                    voucher.voucher.channel.0
                ],
            )?,
            Write::Open(channel, open) => {
                let sql = "INSERT OR REPLACE INTO requests (channel, request, body) VALUES (?, ?, ?)";
                self.statement(sql, params![channel.0, open.request.0, pack(open)?])?;
            }
            Write::Receipt(receipt) => self.receipt(receipt)?,
            Write::Fingerprint(pair) => self.fingerprint(&pair.0, &pair.1)?,
            Write::Redemption(redemption) => self.redemption(redemption)?,
            Write::Unredeem(from_block) => {
                self.statement("DELETE FROM redemptions WHERE block >= ?", params![number(*from_block)])?;
            }
            Write::Trail(trail) => {
                let sql = "INSERT OR REPLACE INTO notes (name, body) VALUES (?, ?)";
                self.statement(sql, params![TRAIL, pack(trail)?])?;
            }
            Write::Bid(signed) => self.bid(signed)?,
            Write::Drawn(bid, drawn) => {
                // One that has expired meanwhile is gone.
                let sql = "UPDATE bids SET drawn_input = ?, drawn_output = ? WHERE id = ?";
                self.statement(sql, params![number(drawn.input), number(drawn.output), bid.0])?;
            }
            Write::Quote(model, quote) => self.quote(model, quote)?,
            Write::Mark(name, value) => {
                let sql = "INSERT OR REPLACE INTO marks (name, value) VALUES (?, ?)";
                self.statement(sql, params![name, number(*value)])?;
            }
        }
        Ok(())
    }

    fn channel(&self, params: &ChannelParams, state: &ChannelState, seen: u64) -> Result<(), Error> {
        let sql = "INSERT INTO channels (id, params, model, payer, funded, redeemed, closes_at, closed, first_seen) \
                   VALUES (?, ?, ?, ?, '0', '0', 0, 0, ?) ON CONFLICT (id) DO NOTHING";
        let id = params.id();
        self.statement(
            sql,
            params![id.0, pack(params)?, params.model.0, params.payer.0, number(seen)],
        )?;
        self.state(&id, state)
    }

    fn state(&self, channel: &ChannelId, state: &ChannelState) -> Result<(), Error> {
        let sql = "UPDATE channels SET funded = ?, redeemed = ?, closes_at = ?, closed = ?, \
                   closed_at = CASE WHEN closed = 0 THEN ? ELSE closed_at END WHERE id = ?";
        self.change(
            sql,
            params![
                state.funded.get().to_string(),
                state.redeemed.get().to_string(),
                number(state.closes_at),
                state.closed,
                if state.closed { number(clock::now()) } else { 0 },
                channel.0
            ],
        )
    }

    /// Keeps a bid, and forgets those that have expired.
    fn bid(&self, signed: &SignedBid) -> Result<(), Error> {
        let bid = &signed.bid;
        self.statement(
            "INSERT INTO bids (id, body, expires_at) VALUES (?, ?, ?)",
            params![bid.digest().0, pack(signed)?, number(bid.expires_at)],
        )?;
        self.statement("DELETE FROM bids WHERE expires_at <= ?", params![number(clock::now())])?;
        Ok(())
    }

    /// Notes a promised price, and forgets those that do not hold any more.
    fn quote(&self, model: &ModelId, quote: &Quote) -> Result<(), Error> {
        let sql = "INSERT INTO quotes (model, price, expires_at) VALUES (?, ?, ?) \
                   ON CONFLICT (model, price) DO UPDATE SET expires_at = MAX(expires_at, excluded.expires_at)";
        self.statement(sql, params![model.0, pack(&quote.price)?, number(quote.expires_at)])?;
        let old = clock::now().saturating_sub(MAX_LIFETIME);
        self.statement("DELETE FROM quotes WHERE expires_at < ?", params![number(old)])?;
        Ok(())
    }

    /// Notes an answer's marks, and forgets those that nobody can be challenged for any more.
    fn fingerprint(&self, receipt: &Receipt, fingerprint: &Fingerprint) -> Result<(), Error> {
        let sql = "INSERT OR REPLACE INTO fingerprints (channel, sequence, body, finished_at) VALUES (?, ?, ?, ?)";
        self.statement(
            sql,
            params![
                receipt.channel.0,
                number(receipt.sequence),
                pack(fingerprint)?,
                number(receipt.finished_at)
            ],
        )?;
        let old = clock::now().saturating_sub(CHALLENGEABLE);
        self.statement("DELETE FROM fingerprints WHERE finished_at < ?", params![number(old)])?;
        Ok(())
    }

    /// A plain insert: a second receipt with the same number must fail, never replace the first.
    fn receipt(&self, signed: &SignedReceipt) -> Result<(), Error> {
        let receipt = &signed.receipt;
        let sql = "INSERT INTO receipts (channel, sequence, request, model, finished_at, status, input_units, \
                   output_units, cost_nano, body) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)";
        self.statement(
            sql,
            params![
                receipt.channel.0,
                number(receipt.sequence),
                receipt.request.0,
                receipt.model.0,
                number(receipt.finished_at),
                receipt.status as u8,
                number(receipt.usage.input),
                number(receipt.usage.output),
                wide(receipt.cost.0),
                pack(signed)?
            ],
        )?;
        self.statement(
            "DELETE FROM requests WHERE channel = ? AND request = ?",
            params![receipt.channel.0, receipt.request.0],
        )?;
        Ok(())
    }

    /// The same redemption may be told twice: by the transaction's receipt, and by the chain's events. After a
    /// reorganisation the later one knows the block.
    fn redemption(&self, redemption: &Redemption) -> Result<(), Error> {
        let channels = serde_json::to_string(&redemption.channels).map_err(|_| Error::Corrupt("a list of channels"))?;
        let sql = "INSERT INTO redemptions (tx, block, redeemed_at, provider, royalty, fee, channels) \
                   VALUES (?, ?, ?, ?, ?, ?, ?) ON CONFLICT (tx) DO UPDATE SET block = excluded.block, \
                   provider = excluded.provider, royalty = excluded.royalty, fee = excluded.fee, \
                   channels = excluded.channels";
        self.statement(
            sql,
            params![
                redemption.transaction.0,
                number(redemption.block),
                number(redemption.redeemed_at),
                redemption.provider.get().to_string(),
                redemption.royalty.get().to_string(),
                redemption.fee.get().to_string(),
                channels
            ],
        )?;
        Ok(())
    }
}
