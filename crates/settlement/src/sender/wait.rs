//! From the pool to a block: looking for receipts, replacing what is stuck, and clearing the way.

use std::time::Duration;

use alloy::{
    primitives::{Address as EvmAddress, B256, TxKind, U64, U256},
    rpc::types::TransactionReceipt,
};
use serde::Deserialize;
use tokio::time::{Instant, sleep};

use super::{
    POLL, Sender,
    fees::{self, Fees},
    give::Submitted,
    queue::{Content, Flight, Pending},
};
use crate::{Error, abi};

/// How often a transaction that is in no block is given to the nodes once more, at least.
const REBROADCAST: Duration = Duration::from_secs(5);
/// How often an offer is raised to replace a transaction whose price is not known.
const LEAPS: usize = 64;

/// How a transaction ended.
pub(super) enum Outcome {
    /// It is in a block.
    Landed(Box<TransactionReceipt>),
    /// It never will be: another one with its nonce is in a block.
    Lost,
}

/// How many transactions of the account are in blocks, and since when.
struct Progress {
    count: u64,
    since: Instant,
}

/// What is read of a block to find who used a nonce.
#[derive(Deserialize)]
struct Block {
    transactions: Vec<Used>,
}

#[derive(Deserialize)]
struct Used {
    hash: B256,
    from: EvmAddress,
    nonce: U64,
}

impl Sender {
    /// Waits until a transaction is in a block, and does what helps it there.
    pub(super) async fn wait(&self, flight: &mut Flight) -> Result<Outcome, Error> {
        let deadline = Instant::now() + self.link.options.receipt_timeout;
        let interval = (self.link.options.replace_after / 2).clamp(POLL.0, REBROADCAST);
        let mut tended = Instant::now();
        let mut progress = Progress {
            count: 0,
            since: tended,
        };
        let mut pause = POLL.0;
        loop {
            for hash in flight.pending.hashes.iter().rev() {
                match super::receipt(&self.link, *hash).await {
                    Ok(Some(receipt)) => return Ok(Outcome::Landed(Box::new(receipt))),
                    Ok(None) | Err(Error::Unreachable { .. } | Error::Rejected { .. }) => {}
                    Err(error) => tracing::debug!(%error, "receipt cannot be read"),
                }
            }
            if Instant::now() >= deadline {
                return Err(Error::Timeout {
                    transaction: abi::digest(flight.pending.newest.hash),
                });
            }
            if tended.elapsed() >= interval {
                tended = Instant::now();
                match self.tend(flight, &mut progress).await {
                    Ok(Some(lost)) => return Ok(lost),
                    Ok(None) => {}
                    Err(error) => tracing::debug!(%error, "a waiting transaction cannot be looked after"),
                }
            }
            sleep(pause).await;
            pause = (pause * 3 / 2).min(POLL.1);
        }
    }

    /// Does what is needed for a transaction that is in no block yet.
    async fn tend(&self, flight: &mut Flight, progress: &mut Progress) -> Result<Option<Outcome>, Error> {
        let count = self.count("latest").await?;
        if count > progress.count {
            *progress = Progress {
                count,
                since: Instant::now(),
            };
        }
        let nonce = flight.pending.nonce();
        if count > nonce {
            let user = self.user_of(nonce, flight.pending.since).await?;
            let lost = user.is_some_and(|user| !flight.pending.hashes.contains(&user));
            return Ok(lost.then_some(Outcome::Lost));
        }
        self.push(flight, count == nonce).await;
        if count < nonce {
            self.clear(count, progress.since.elapsed()).await?;
        }
        Ok(None)
    }

    /// Gives a transaction to the nodes again; one that is next and has waited long, with a higher offer.
    async fn push(&self, flight: &mut Flight, next: bool) {
        let old = flight.pending.newest.clone();
        let options = &self.link.options;
        if next && flight.pending.given.elapsed() >= options.replace_after {
            let market = self.link.market().await.ok();
            let limit = fees::limit(options, old.transaction.gas_limit);
            if let Some(fees) = flight.pending.offered().raise(market.as_ref(), limit) {
                return self.replace(flight, fees).await;
            }
            tracing::warn!(
                nonce = old.transaction.nonce,
                limit,
                "a stuck transaction already offers all it may"
            );
        }
        // One answer or another: the receipt decides.
        drop(self.link.rpc.broadcast(&old.raw).await);
    }

    /// Issues a transaction again with another offer.
    async fn replace(&self, flight: &mut Flight, fees: Fees) {
        let old = flight.pending.newest.clone();
        let mut transaction = old.transaction.clone();
        transaction.max_fee_per_gas = fees.max;
        transaction.max_priority_fee_per_gas = fees.priority;
        let signed = match self.sign(transaction) {
            Ok(signed) => signed,
            Err(error) => return tracing::warn!(%error, "a replacement cannot be signed"),
        };
        let (nonce, hash) = (old.transaction.nonce, signed.hash);
        flight.replace(signed);
        match self.give(&flight.pending.newest.raw).await {
            Ok(Submitted::Perhaps) => {
                tracing::info!(nonce, transaction = %hash, max_fee = fees.max, "a stuck transaction was replaced");
            }
            // The next offer must be above this one, which was not enough.
            Ok(Submitted::Occupied | Submitted::TooCheap) => flight.withdraw(old, Some(fees)),
            Ok(Submitted::Past) => flight.withdraw(old, None),
            Err(error) => {
                tracing::debug!(%error, nonce, "a replacement was refused");
                flight.withdraw(old, None);
            }
        }
    }

    /// Clears the way for what waits behind a nonce: what was given up here is pushed, and what nobody here knows is
    /// cancelled once it has been in the way for long.
    async fn clear(&self, nonce: u64, blocked: Duration) -> Result<(), Error> {
        // Whoever else has a transaction behind it does the same.
        let Ok(_turn) = self.queue.turn.try_lock() else {
            return Ok(());
        };
        if self.queue.flies(nonce) {
            return Ok(());
        }
        if let Some(mut stuck) = self.queue.take_up(nonce) {
            self.push(&mut stuck, true).await;
            return Ok(());
        }
        // Another process may be at it: it has the time to replace it first.
        if blocked < self.link.options.replace_after * 2 {
            return Ok(());
        }
        self.cancel(nonce).await
    }

    /// Puts a transaction that does nothing in the place of one that nobody here knows, or of none.
    async fn cancel(&self, nonce: u64) -> Result<(), Error> {
        let nothing = Content {
            to: TxKind::Call(self.account()),
            input: Default::default(),
            value: U256::ZERO,
        };
        let market = self.link.market().await?;
        let gas_limit = self.gas(&self.request(&nothing), &market).await?;
        let limit = fees::limit(&self.link.options, gas_limit);
        let chain_id = self.link.chain_id().await?;
        let mut fees = Fees::offer(&market, limit)?.made_unique(limit);
        for _ in 0..LEAPS {
            let signed = self.sign(alloy::consensus::TxEip1559 {
                chain_id,
                nonce,
                gas_limit,
                max_fee_per_gas: fees.max,
                max_priority_fee_per_gas: fees.priority,
                to: nothing.to,
                ..Default::default()
            })?;
            let flight = self.queue.board(Pending::new(signed, market.block));
            let given = self.give(&flight.pending.newest.raw).await;
            if matches!(given, Ok(Submitted::Perhaps)) {
                tracing::warn!(
                    nonce,
                    "a transaction that this process does not know was in the way and is cancelled"
                );
                // Nobody waits for it, and whatever is blocked by it pushes it.
                return Ok(());
            }
            flight.decide();
            match (given?, fees.leap(limit)) {
                (Submitted::Occupied | Submitted::TooCheap, Some(higher)) => fees = higher,
                _ => break,
            }
        }
        Ok(())
    }

    /// The hash of this account's transaction with a nonce that is in a block. `None` if it is not found: nothing
    /// follows from that.
    async fn user_of(&self, nonce: u64, since: u64) -> Result<Option<B256>, Error> {
        let (mut before, mut after) = (since, self.link.block_number().await?);
        if self.count_at(before).await? > nonce || self.count_at(after).await? <= nonce {
            return Ok(None);
        }
        while after.saturating_sub(before) > 1 {
            let middle = before + (after - before) / 2;
            if self.count_at(middle).await? > nonce {
                after = middle;
            } else {
                before = middle;
            }
        }
        let asked = (U64::from(after), true);
        let block: Option<Block> = self.link.rpc.request("eth_getBlockByNumber", asked).await?;
        let account = self.account();
        let mut used = block.into_iter().flat_map(|block| block.transactions);
        let used = used.find(|used| used.from == account && used.nonce.to::<u64>() == nonce);
        Ok(used.map(|used| used.hash))
    }

    async fn count_at(&self, block: u64) -> Result<u64, Error> {
        let asked = (self.account(), U64::from(block));
        let count: U64 = self.link.rpc.request("eth_getTransactionCount", asked).await?;
        Ok(count.to())
    }
}
