//! Transactions of one key: one after another into the pool, side by side from there to their receipts.
//!
//! All wallets of a key behind one [`crate::Chain`] share a [`Queue`] of nonces. Another process with the same key is
//! reckoned with: a nonce that it was quicker to take is left to it.
//!
//! A transaction that does not get into a block is replaced: the same nonce, the same content, a higher offer. As a
//! nonce has one content for ever, it cannot happen twice, however often it was issued. One that was given up
//! ([`Error::Timeout`]) keeps its nonce: the very same call goes on with it, and whatever else is sent later pushes it
//! on, or what a process left behind that is gone, so that nothing is blocked for ever.

mod fees;
mod give;
mod queue;
mod wait;

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use alloy::{
    consensus::{SignableTransaction, TxEip1559},
    eips::eip2718::Encodable2718,
    primitives::{Address as EvmAddress, B256, Bytes, Signature, TxKind, U64, U256, keccak256},
    rpc::types::{TransactionInput, TransactionReceipt, TransactionRequest},
};
use futures::{FutureExt as _, future::BoxFuture};
use rialto_protocol::{Address, Digest, SigningKey};
use tokio::sync::Mutex;

pub(crate) use self::queue::Queue;
use self::{
    fees::Fees,
    give::Submitted,
    queue::{Content, Flight, Pending, Signed},
    wait::Outcome,
};
use crate::{
    Error, abi,
    link::{Link, Market},
    revert,
};

/// Gas on top of the estimate, in percent: the state may change before the block.
const GAS_MARGIN_PERCENT: u64 = 25;
/// No transaction of ours comes near; a node that estimates more is wrong or malicious.
const MAX_GAS: u64 = 30_000_000;
/// What any transaction needs; a node that estimates less is wrong or malicious.
const MIN_GAS: u64 = 21_000;
/// How many nonces are tried when other processes take them.
const NONCE_ATTEMPTS: usize = 16;
/// How often a transaction is made anew after another one took its place in the chain.
const LOSSES: usize = 8;
/// First and longest pause between two looks for a receipt.
const POLL: (Duration, Duration) = (Duration::from_millis(4), Duration::from_millis(500));

/// A transaction that is in a block and succeeded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Confirmed {
    /// Its hash.
    pub transaction: Digest,
    /// Its block.
    pub block: u64,
    /// Gas it used.
    pub gas_used: u64,
}

/// Sends the transactions of one key.
pub(crate) struct Sender {
    link: Arc<Link>,
    key: SigningKey,
    queue: Arc<Queue>,
}

impl Sender {
    pub(crate) fn new(link: Arc<Link>, key: SigningKey) -> Self {
        Self {
            queue: link.queue(abi::to_evm(key.address())),
            link,
            key,
        }
    }

    pub(crate) fn address(&self) -> Address {
        self.key.address()
    }

    /// Signs what is not a transaction.
    pub(crate) fn sign_digest(&self, digest: &Digest) -> rialto_protocol::Signature {
        self.key.sign(digest)
    }

    /// Held from an approval until what it approves was pulled.
    pub(crate) fn approving(&self) -> &Mutex<()> {
        &self.queue.approving
    }

    /// Sends a transaction and waits until it is in a block.
    ///
    /// `Unreachable`, `Reverted` before a block, `InsufficientFunds`, `TooExpensive` and `Rejected` mean that it was
    /// not sent, or that another transaction took its nonce in a block.
    ///
    /// The future is boxed: what it calls is then compiled here, once, and not in every program that sends something.
    pub(crate) fn send(
        &self,
        to: TxKind,
        input: Bytes,
        value: U256,
    ) -> BoxFuture<'_, Result<TransactionReceipt, Error>> {
        self.see_through(to, input, value).boxed()
    }

    async fn see_through(&self, to: TxKind, input: Bytes, value: U256) -> Result<TransactionReceipt, Error> {
        let content = Content { to, input, value };
        for _ in 0..LOSSES {
            let mut flight = self.launch(&content).await?;
            let outcome = self.wait(&mut flight).await?;
            flight.decide();
            match outcome {
                Outcome::Landed(receipt) if receipt.status() => return Ok(*receipt),
                Outcome::Landed(receipt) => return Err(self.reason(self.request(&content), &receipt).await),
                Outcome::Lost => tracing::info!("another transaction took the nonce, this one is made anew"),
            }
        }
        Err(Error::Rejected {
            reason: "other transactions took every nonce: do other processes send with the same key?".into(),
        })
    }

    /// Gives a transaction to the nodes, or goes on with the same one that was given up earlier.
    async fn launch(&self, content: &Content) -> Result<Flight, Error> {
        // Before anything is estimated: some nodes estimate on top of what waits, which would be this very call.
        if self.queue.has_stuck()
            && let Some(flight) = self.queue.resume(self.count("latest").await?, content)
        {
            return Ok(flight);
        }
        let request = self.request(content);
        let mut market = self.link.market().await?;
        let gas = self.gas(&request, &market).await?;
        let chain_id = self.link.chain_id().await?;
        let limit = fees::limit(&self.link.options, gas);
        let _turn = self.queue.turn.lock().await;
        let latest = self.count("latest").await?;
        let mut taken = BTreeSet::new();
        for _ in 0..NONCE_ATTEMPTS {
            let fees = Fees::offer(&market, limit)?.made_unique(limit);
            let pending = self.count("pending").await?;
            let nonce = self.queue.free(pending.max(latest), &taken);
            let signed = self.sign(TxEip1559 {
                chain_id,
                nonce,
                gas_limit: gas,
                max_fee_per_gas: fees.max,
                max_priority_fee_per_gas: fees.priority,
                to: content.to,
                value: content.value,
                access_list: Default::default(),
                input: content.input.clone(),
            })?;
            // Before a node has it: whoever stops waiting in between leaves it where it is found again.
            let flight = self.queue.board(Pending::new(signed, market.block));
            let given = self.give(&flight.pending.newest.raw).await;
            match given {
                Ok(Submitted::Perhaps) => return Ok(flight),
                Ok(Submitted::Past | Submitted::Occupied) => {
                    tracing::debug!(nonce, "nonce was taken by another process");
                    taken.insert(nonce);
                }
                Ok(Submitted::TooCheap) => market = self.link.market().await?,
                Err(_) => {}
            }
            flight.decide();
            given?;
        }
        Err(Error::Rejected {
            reason: "every nonce was taken: does another process send with the same key?".into(),
        })
    }

    fn request(&self, content: &Content) -> TransactionRequest {
        TransactionRequest {
            from: Some(self.account()),
            to: Some(content.to),
            input: TransactionInput::new(content.input.clone()),
            value: Some(content.value),
            ..Default::default()
        }
    }

    fn account(&self) -> EvmAddress {
        abi::to_evm(self.address())
    }

    /// How many transactions of the account there are, in blocks (`latest`) or with those that wait (`pending`).
    async fn count(&self, block: &'static str) -> Result<u64, Error> {
        let count: U64 = self
            .link
            .rpc
            .request("eth_getTransactionCount", (self.account(), block))
            .await?;
        Ok(count.to())
    }

    /// What a transaction needs, with a margin, within what any can need.
    async fn gas(&self, request: &TransactionRequest, market: &Market) -> Result<u64, Error> {
        let estimate: U64 = self.link.rpc.request("eth_estimateGas", (request,)).await?;
        let estimate: u64 = estimate.to();
        let most = MAX_GAS.min(market.gas_limit);
        if !(MIN_GAS..=most).contains(&estimate) {
            return Err(Error::corrupt(format!("an estimate of {estimate} gas")));
        }
        Ok((estimate + estimate * GAS_MARGIN_PERCENT / 100).min(market.gas_limit))
    }

    fn sign(&self, transaction: TxEip1559) -> Result<Signed, Error> {
        let digest = abi::digest(transaction.signature_hash());
        let signature = Signature::from_raw_array(&self.key.sign(&digest).to_bytes())
            .map_err(|_| Error::invalid("the key cannot sign"))?;
        let raw = Bytes::from(transaction.clone().into_signed(signature).encoded_2718());
        Ok(Signed {
            transaction,
            hash: keccak256(&raw),
            raw,
        })
    }

    /// Why a transaction failed in its block: it is called again on that block's state.
    async fn reason(&self, request: TransactionRequest, receipt: &TransactionReceipt) -> Error {
        let block = U64::from(receipt.block_number.unwrap_or_default());
        let again = self.link.rpc.request::<_, Bytes>("eth_call", (request, block)).await;
        match again.map_err(Error::from) {
            Err(error @ (Error::Reverted { .. } | Error::InsufficientFunds { .. })) => error,
            _ => revert::reverted("the state had changed, or the gas was used up".into()),
        }
    }
}

/// A transaction's receipt, once it is in a block.
pub(crate) async fn receipt(link: &Link, hash: B256) -> Result<Option<TransactionReceipt>, Error> {
    let receipt: Option<TransactionReceipt> = link.rpc.request("eth_getTransactionReceipt", (hash,)).await?;
    let Some(receipt) = receipt else { return Ok(None) };
    if receipt.transaction_hash != hash {
        return Err(Error::corrupt("the receipt of another transaction"));
    }
    let Some(block) = receipt.block_number else {
        return Ok(None);
    };
    link.rpc.saw(block);
    Ok(Some(receipt))
}

/// The receipt of a transaction, or of whichever was issued for the same nonce here, once one is in a block.
pub(crate) async fn receipt_of_any(link: &Link, hash: B256) -> Result<Option<TransactionReceipt>, Error> {
    for hash in link.siblings(hash) {
        if let Some(receipt) = receipt(link, hash).await? {
            return Ok(Some(receipt));
        }
    }
    Ok(None)
}

/// The receipt of a transaction that succeeded.
pub(crate) fn confirmed(receipt: &TransactionReceipt) -> Result<Confirmed, Error> {
    if !receipt.status() {
        return Err(revert::reverted("the transaction failed".into()));
    }
    Ok(Confirmed {
        transaction: abi::digest(receipt.transaction_hash),
        block: receipt.block_number.unwrap_or_default(),
        gas_used: receipt.gas_used,
    })
}
