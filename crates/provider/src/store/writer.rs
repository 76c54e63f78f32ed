//! The one task that writes: everything that waits goes into one transaction.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

use rialto_protocol::{
    ChannelId, ModelId, Receipt, SignedReceipt, channel::ChannelState, fingerprint::Fingerprint, offer::MAX_LIFETIME,
};
use sqlx::{Connection, SqliteConnection};
use tokio::sync::mpsc;
use tracing::error;

use super::{
    Batch, Order, Redemption, Write, bids,
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
    if group.iter().all(|batch| batch.writes.is_empty()) {
        return Ok(());
    }
    let mut transaction = connection.begin().await?;
    for write in group.iter().flat_map(|batch| &batch.writes) {
        apply(&mut transaction, write).await?;
    }
    transaction.commit().await?;
    Ok(())
}

async fn apply(connection: &mut SqliteConnection, write: &Write) -> Result<(), Error> {
    match write {
        Write::Channel { params, state, seen } => {
            let sql = "INSERT INTO channels (id, params, model, payer, funded, redeemed, closes_at, closed, first_seen) \
                       VALUES (?, ?, ?, ?, '0', '0', 0, 0, ?) ON CONFLICT (id) DO NOTHING";
            let query = sqlx::query(sql)
                .bind(params.id().0.to_vec())
                .bind(pack(params)?)
                .bind(params.model.0.to_vec())
                .bind(params.payer.0.to_vec())
                .bind(number(*seen));
            query.execute(&mut *connection).await?;
            write_state(connection, &params.id(), state).await
        }
        Write::State(channel, state) => write_state(connection, channel, state).await,
        Write::Voucher(voucher) => {
            let query = sqlx::query("UPDATE channels SET voucher = ?, promised = ? WHERE id = ?")
                .bind(pack(voucher)?)
                .bind(voucher.voucher.cumulative.get().to_string())
                .bind(voucher.voucher.channel.0.to_vec());
            must_change(query.execute(connection).await?.rows_affected())
        }
        Write::Open(channel, open) => {
            let query = sqlx::query("INSERT OR REPLACE INTO requests (channel, request, body) VALUES (?, ?, ?)")
                .bind(channel.0.to_vec())
                .bind(open.request.0.to_vec())
                .bind(pack(open)?);
            query.execute(connection).await?;
            Ok(())
        }
        Write::Receipt(receipt) => write_receipt(connection, receipt).await,
        Write::Fingerprint(pair) => write_fingerprint(connection, &pair.0, &pair.1).await,
        Write::Redemption(redemption) => write_redemption(connection, redemption).await,
        Write::Unredeem(from_block) => {
            let query = sqlx::query("DELETE FROM redemptions WHERE block >= ?").bind(number(*from_block));
            query.execute(connection).await?;
            Ok(())
        }
        Write::Trail(trail) => {
            let query = sqlx::query("INSERT OR REPLACE INTO notes (name, body) VALUES (?, ?)")
                .bind(TRAIL)
                .bind(pack(trail)?);
            query.execute(connection).await?;
            Ok(())
        }
        Write::Bid(signed) => bids::write(connection, signed).await,
        Write::Drawn(bid, usage) => bids::write_drawn(connection, bid, *usage).await,
        Write::Quote(model, quote) => write_quote(connection, model, quote).await,
        Write::Mark(name, value) => {
            let query = sqlx::query("INSERT OR REPLACE INTO marks (name, value) VALUES (?, ?)")
                .bind(*name)
                .bind(number(*value));
            query.execute(connection).await?;
            Ok(())
        }
    }
}

async fn write_state(
    connection: &mut SqliteConnection,
    channel: &ChannelId,
    state: &ChannelState,
) -> Result<(), Error> {
    let sql = "UPDATE channels SET funded = ?, redeemed = ?, closes_at = ?, closed = ?, \
               closed_at = CASE WHEN closed = 0 THEN ? ELSE closed_at END WHERE id = ?";
    let query = sqlx::query(sql)
        .bind(state.funded.get().to_string())
        .bind(state.redeemed.get().to_string())
        .bind(number(state.closes_at))
        .bind(i64::from(state.closed))
        .bind(if state.closed { number(clock::now()) } else { 0 })
        .bind(channel.0.to_vec());
    must_change(query.execute(connection).await?.rows_affected())
}

/// Notes a promised price, and forgets those that do not hold any more.
async fn write_quote(connection: &mut SqliteConnection, model: &ModelId, quote: &Quote) -> Result<(), Error> {
    let sql = "INSERT INTO quotes (model, price, expires_at) VALUES (?, ?, ?) \
               ON CONFLICT (model, price) DO UPDATE SET expires_at = MAX(expires_at, excluded.expires_at)";
    let query = sqlx::query(sql)
        .bind(model.0.to_vec())
        .bind(pack(&quote.price)?)
        .bind(number(quote.expires_at));
    query.execute(&mut *connection).await?;
    let old = clock::now().saturating_sub(MAX_LIFETIME);
    let query = sqlx::query("DELETE FROM quotes WHERE expires_at < ?").bind(number(old));
    query.execute(connection).await?;
    Ok(())
}

/// A plain insert: a second receipt with the same number must fail, never replace the first.
/// Notes an answer's marks, and forgets those that nobody can be challenged for any more.
async fn write_fingerprint(
    connection: &mut SqliteConnection,
    receipt: &Receipt,
    fingerprint: &Fingerprint,
) -> Result<(), Error> {
    let sql = "INSERT OR REPLACE INTO fingerprints (channel, sequence, body, finished_at) VALUES (?, ?, ?, ?)";
    let query = sqlx::query(sql)
        .bind(receipt.channel.0.to_vec())
        .bind(number(receipt.sequence))
        .bind(pack(fingerprint)?)
        .bind(number(receipt.finished_at));
    query.execute(&mut *connection).await?;
    let old = clock::now().saturating_sub(CHALLENGEABLE);
    let query = sqlx::query("DELETE FROM fingerprints WHERE finished_at < ?").bind(number(old));
    query.execute(connection).await?;
    Ok(())
}

async fn write_receipt(connection: &mut SqliteConnection, signed: &SignedReceipt) -> Result<(), Error> {
    let receipt = &signed.receipt;
    let sql = "INSERT INTO receipts (channel, sequence, request, model, finished_at, status, input_units, output_units, \
               cost_nano, body) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)";
    let query = sqlx::query(sql)
        .bind(receipt.channel.0.to_vec())
        .bind(number(receipt.sequence))
        .bind(receipt.request.0.to_vec())
        .bind(receipt.model.0.to_vec())
        .bind(number(receipt.finished_at))
        .bind(i64::from(receipt.status as u8))
        .bind(number(receipt.usage.input))
        .bind(number(receipt.usage.output))
        .bind(wide(receipt.cost.0))
        .bind(pack(signed)?);
    query.execute(&mut *connection).await?;
    let query = sqlx::query("DELETE FROM requests WHERE channel = ? AND request = ?")
        .bind(receipt.channel.0.to_vec())
        .bind(receipt.request.0.to_vec());
    query.execute(connection).await?;
    Ok(())
}

/// The same redemption may be told twice: by the transaction's receipt, and by the chain's events. After a
/// reorganisation the later one knows the block.
async fn write_redemption(connection: &mut SqliteConnection, redemption: &Redemption) -> Result<(), Error> {
    let channels = serde_json::to_string(&redemption.channels).map_err(|_| Error::Corrupt("a list of channels"))?;
    let sql = "INSERT INTO redemptions (tx, block, redeemed_at, provider, royalty, fee, channels) \
               VALUES (?, ?, ?, ?, ?, ?, ?) ON CONFLICT (tx) DO UPDATE SET block = excluded.block, \
               provider = excluded.provider, royalty = excluded.royalty, fee = excluded.fee, channels = excluded.channels";
    let query = sqlx::query(sql)
        .bind(redemption.transaction.0.to_vec())
        .bind(number(redemption.block))
        .bind(number(redemption.redeemed_at))
        .bind(redemption.provider.get().to_string())
        .bind(redemption.royalty.get().to_string())
        .bind(redemption.fee.get().to_string())
        .bind(channels);
    query.execute(connection).await?;
    Ok(())
}

fn must_change(rows: u64) -> Result<(), Error> {
    if rows == 1 {
        Ok(())
    } else {
        Err(Error::Corrupt("a channel that should be known is not"))
    }
}
