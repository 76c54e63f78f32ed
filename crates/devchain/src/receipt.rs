//! Receipts: made from what the EVM did, and shown as JSON-RPC has them.

use crate::{block::Block, transaction::Mined};
use alloy::{
    consensus::{
        Eip658Value, Receipt, ReceiptEnvelope, Transaction, TxEnvelope,
        transaction::{Recovered, TransactionInfo},
    },
    primitives::Address,
    rpc::types::{Log, TransactionReceipt},
};
use revm::context::result::ExecutionResult;

/// Joins a transaction with what its execution did. It is the only one of its block, so the cumulative gas is
/// its own.
pub(crate) fn mined(transaction: Recovered<TxEnvelope>, result: ExecutionResult) -> Mined {
    let gas_used = result.tx_gas_used();
    let created = created(&transaction, &result);
    let succeeded = result.is_success();
    // Logs of a failed transaction are rolled back with everything else it did.
    let logs = if succeeded { result.into_logs() } else { vec![] };
    let receipt = Receipt {
        status: Eip658Value::Eip658(succeeded),
        cumulative_gas_used: gas_used,
        logs,
    };
    let envelope = ReceiptEnvelope::from_typed(transaction.tx_type(), receipt);
    Mined::new(transaction, envelope, gas_used, created)
}

/// The address of a deployment, also of one that failed: that is what other nodes answer.
fn created(transaction: &Recovered<TxEnvelope>, result: &ExecutionResult) -> Option<Address> {
    let deploys = transaction.kind().is_create();
    let planned = || transaction.signer().create(transaction.nonce());
    deploys.then(|| result.created_address().unwrap_or_else(planned))
}

/// The receipt of the transaction at `index` of `block`.
pub(crate) fn show(block: &Block, index: usize) -> Option<TransactionReceipt> {
    let mined = block.transactions().get(index)?;
    let mut logs = logs(block, index).into_iter();
    // `map_logs` asks for one log after the other, in the order of the receipt that `logs` was made from.
    let inner = mined.receipt().clone().map_logs(|inner| {
        logs.next().unwrap_or(Log {
            inner,
            ..Log::default()
        })
    });
    Some(TransactionReceipt {
        inner,
        transaction_hash: mined.hash(),
        transaction_index: u64::try_from(index).ok(),
        block_hash: Some(block.hash()),
        block_number: Some(block.header().number),
        gas_used: mined.gas_used(),
        effective_gas_price: mined.envelope().effective_gas_price(Some(block.base_fee())),
        blob_gas_used: None,
        blob_gas_price: None,
        from: mined.transaction().signer(),
        to: mined.envelope().to(),
        contract_address: mined.created(),
    })
}

/// The logs of the transaction at `index` of `block`, with their place in the chain.
pub(crate) fn logs(block: &Block, index: usize) -> Vec<Log> {
    let before = block
        .transactions()
        .iter()
        .take(index)
        .map(|mined| mined.receipt().logs().len())
        .sum::<usize>();
    let Some(mined) = block.transactions().get(index) else {
        return vec![];
    };
    let place = |(position, inner): (usize, &alloy::primitives::Log)| Log {
        inner: inner.clone(),
        block_hash: Some(block.hash()),
        block_number: Some(block.header().number),
        block_timestamp: Some(block.header().timestamp),
        transaction_hash: Some(mined.hash()),
        transaction_index: u64::try_from(index).ok(),
        log_index: u64::try_from(before + position).ok(),
        removed: false,
    };
    mined.receipt().logs().iter().enumerate().map(place).collect()
}

/// The transaction at `index` of `block`.
pub(crate) fn transaction(block: &Block, index: usize) -> Option<alloy::rpc::types::Transaction> {
    let mined = block.transactions().get(index)?;
    let info = TransactionInfo {
        hash: Some(mined.hash()),
        index: u64::try_from(index).ok(),
        block_hash: Some(block.hash()),
        block_number: Some(block.header().number),
        base_fee: Some(block.base_fee()),
        block_timestamp: Some(block.header().timestamp),
    };
    Some(alloy::rpc::types::Transaction::from_transaction(
        mined.transaction().clone(),
        info,
    ))
}
