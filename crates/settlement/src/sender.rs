//! Transactions of one key: one after another into the pool, side by side from there to their receipts.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use alloy::{
    consensus::{SignableTransaction, TxEip1559},
    eips::eip2718::Encodable2718,
    primitives::{B256, Bytes, Signature, TxKind, U64, U256, keccak256},
    rpc::types::{TransactionInput, TransactionReceipt, TransactionRequest},
};
use rialto_protocol::{Address, Digest, SigningKey};
use tokio::{
    sync::Mutex,
    time::{Instant, sleep},
};

use crate::{Error, abi, link::Link, revert, rpc::Failure};

/// Gas on top of the estimate, in percent: the state may change before the block.
const GAS_MARGIN_PERCENT: u64 = 25;
/// No transaction of ours comes near; a node that estimates more is wrong or malicious.
const MAX_GAS: u64 = 30_000_000;
/// How often a transaction is made anew with a fresh nonce, when another process took the first one's.
const NONCE_ATTEMPTS: usize = 4;
/// First and longest pause between two looks for a receipt.
const POLL: (Duration, Duration) = (Duration::from_millis(4), Duration::from_millis(500));
/// A transaction that is not in a block by then is given to the node once more.
const REBROADCAST: Duration = Duration::from_secs(5);

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
    /// The nonce after the last one that was used here, as long as the node may not know of it.
    queue: Mutex<Option<u64>>,
    in_flight: AtomicUsize,
}

/// Counts a transaction between the pool and its receipt, also when its waiting is dropped.
struct InFlight<'a>(&'a AtomicUsize);

impl<'a> InFlight<'a> {
    fn new(counter: &'a AtomicUsize) -> Self {
        counter.fetch_add(1, Ordering::SeqCst);
        Self(counter)
    }
}

impl Drop for InFlight<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

/// A signed transaction.
struct Signed {
    raw: Bytes,
    hash: B256,
}

/// What became of giving a transaction to the node.
enum Submitted {
    /// The node has it, or may have it.
    Perhaps,
    /// Its nonce is taken: make it anew.
    NonceTaken,
}

impl Sender {
    pub(crate) fn new(link: Arc<Link>, key: SigningKey) -> Self {
        Self {
            link,
            key,
            queue: Mutex::new(None),
            in_flight: AtomicUsize::new(0),
        }
    }

    pub(crate) fn address(&self) -> Address {
        self.key.address()
    }

    /// Sends a transaction and waits until it is in a block.
    ///
    /// `Unreachable`, `Reverted` before a block, `InsufficientFunds` and `Rejected` mean that it was not sent.
    pub(crate) async fn send(&self, to: TxKind, input: Bytes, value: U256) -> Result<TransactionReceipt, Error> {
        let (request, signed, _guard) = {
            let mut next = self.queue.lock().await;
            let request = TransactionRequest {
                from: Some(abi::to_evm(self.address())),
                to: Some(to),
                input: TransactionInput::new(input),
                value: Some(value),
                ..Default::default()
            };
            let (signed, guard) = self.submit(&request, to, &mut next).await?;
            (request, signed, guard)
        };
        let outcome = self.wait(&signed).await;
        if matches!(outcome, Err(Error::Timeout { .. })) {
            // It may never come; what follows must not wait behind it.
            *self.queue.lock().await = None;
        }
        let receipt = outcome?;
        if receipt.status() {
            return Ok(receipt);
        }
        Err(self.reason(request, &receipt).await)
    }

    async fn submit(
        &self,
        request: &TransactionRequest,
        to: TxKind,
        next: &mut Option<u64>,
    ) -> Result<(Signed, InFlight<'_>), Error> {
        let chain_id = self.link.chain_id().await?;
        let gas_limit = self.estimate(request).await?;
        let fees = self.link.fees().await?;
        for attempt in 0..NONCE_ATTEMPTS {
            let nonce = self.nonce(*next).await?;
            let transaction = TxEip1559 {
                chain_id,
                nonce,
                gas_limit,
                max_fee_per_gas: fees.max,
                max_priority_fee_per_gas: fees.priority,
                to,
                value: request.value.unwrap_or_default(),
                access_list: Default::default(),
                input: request.input.input().cloned().unwrap_or_default(),
            };
            let signed = self.sign(transaction)?;
            let guard = InFlight::new(&self.in_flight);
            match self.give(&signed).await {
                Ok(Submitted::Perhaps) => {
                    *next = Some(nonce.saturating_add(1));
                    return Ok((signed, guard));
                }
                Ok(Submitted::NonceTaken) => {
                    tracing::debug!(nonce, attempt, "nonce was taken by another process");
                    *next = None;
                    sleep(POLL.1.min(POLL.0 * 8)).await;
                }
                Err(error) => return Err(error),
            }
        }
        Err(Error::Rejected {
            reason: "every nonce was taken: does another process send with the same key?".into(),
        })
    }

    /// The node's count, or ours while transactions are on their way that the node may not count yet.
    async fn nonce(&self, next: Option<u64>) -> Result<u64, Error> {
        let address = abi::to_evm(self.address());
        let count: U64 = self
            .link
            .rpc
            .request("eth_getTransactionCount", (address, "pending"))
            .await?;
        let count: u64 = count.to();
        Ok(match next {
            Some(next) if self.in_flight.load(Ordering::SeqCst) > 0 => count.max(next),
            _ => count,
        })
    }

    async fn estimate(&self, request: &TransactionRequest) -> Result<u64, Error> {
        let estimate: U64 = self.link.rpc.request("eth_estimateGas", (request,)).await?;
        let estimate: u64 = estimate.to();
        if estimate > MAX_GAS {
            return Err(Error::corrupt(format!("an estimate of {estimate} gas")));
        }
        Ok(estimate + estimate * GAS_MARGIN_PERCENT / 100)
    }

    fn sign(&self, transaction: TxEip1559) -> Result<Signed, Error> {
        let digest = abi::digest(transaction.signature_hash());
        let signature = Signature::from_raw_array(&self.key.sign(&digest).to_bytes())
            .map_err(|_| Error::invalid("the key cannot sign"))?;
        let raw = Bytes::from(transaction.into_signed(signature).encoded_2718());
        Ok(Signed {
            hash: keccak256(&raw),
            raw,
        })
    }

    /// Gives a transaction to the node; the same again is harmless, so a lost answer is asked for once more.
    async fn give(&self, signed: &Signed) -> Result<Submitted, Error> {
        let mut perhaps = false;
        for pause in [POLL.0, POLL.1, POLL.1] {
            let answer = self
                .link
                .rpc
                .request::<_, B256>("eth_sendRawTransaction", (&signed.raw,))
                .await;
            match answer {
                // Whatever hash the node says: the receipt is asked for by ours.
                Ok(_) => return Ok(Submitted::Perhaps),
                Err(failure) => match refusal(&failure) {
                    Refusal::Known | Refusal::Nonce if perhaps => return Ok(Submitted::Perhaps),
                    // Known before it was sent: another process made the very same, which must not count twice.
                    Refusal::Known | Refusal::Nonce => return Ok(Submitted::NonceTaken),
                    Refusal::Other if perhaps => return Ok(Submitted::Perhaps),
                    Refusal::Other => return Err(failure.into()),
                    Refusal::Lost => perhaps = true,
                    Refusal::NotDelivered if !perhaps => return Err(failure.into()),
                    Refusal::NotDelivered => {}
                },
            }
            sleep(pause).await;
        }
        Ok(Submitted::Perhaps)
    }

    async fn wait(&self, signed: &Signed) -> Result<TransactionReceipt, Error> {
        let deadline = Instant::now() + self.link.options.receipt_timeout;
        let mut given = Instant::now();
        let mut pause = POLL.0;
        loop {
            match receipt(&self.link, signed.hash).await {
                Ok(Some(receipt)) => return Ok(receipt),
                Ok(None) | Err(Error::Unreachable { .. } | Error::Rejected { .. }) => {}
                Err(error) => tracing::debug!(%error, "receipt cannot be read"),
            }
            if Instant::now() >= deadline {
                return Err(Error::Timeout {
                    transaction: abi::digest(signed.hash),
                });
            }
            if given.elapsed() >= REBROADCAST {
                given = Instant::now();
                let again = self
                    .link
                    .rpc
                    .request::<_, B256>("eth_sendRawTransaction", (&signed.raw,))
                    .await;
                tracing::debug!(known = again.is_err(), "transaction was sent again");
            }
            sleep(pause).await;
            pause = (pause * 3 / 2).min(POLL.1);
        }
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

/// What a failure says about a transaction that was given to the node.
enum Refusal {
    Known,
    Nonce,
    NotDelivered,
    Lost,
    Other,
}

fn refusal(failure: &Failure) -> Refusal {
    let message = match failure {
        Failure::NotDelivered(_) => return Refusal::NotDelivered,
        // An answer that cannot be read may still be the answer of a node that took it.
        Failure::NoAnswer(_) | Failure::Corrupt(_) => return Refusal::Lost,
        Failure::Refused { message, .. } => message.to_lowercase(),
    };
    let says = |words: &[&str]| words.iter().any(|words| message.contains(words));
    if says(&["already known", "already imported", "known transaction"]) {
        Refusal::Known
    } else if says(&[
        "nonce too low",
        "replacement transaction underpriced",
        "nonce has already been used",
    ]) {
        Refusal::Nonce
    } else {
        Refusal::Other
    }
}

/// A transaction's receipt, once it is in a block.
pub(crate) async fn receipt(link: &Link, hash: B256) -> Result<Option<TransactionReceipt>, Error> {
    let receipt: Option<TransactionReceipt> = link.rpc.request("eth_getTransactionReceipt", (hash,)).await?;
    match receipt {
        Some(receipt) if receipt.transaction_hash != hash => Err(Error::corrupt("the receipt of another transaction")),
        Some(receipt) if receipt.block_number.is_none() => Ok(None),
        other => Ok(other),
    }
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
