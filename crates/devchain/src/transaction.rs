//! Transactions: reading raw ones, refusing bad ones, and keeping mined ones.

use alloy::{
    consensus::{
        ReceiptEnvelope, Transaction, TxEnvelope, Typed2718,
        transaction::{Recovered, SignerRecoverable},
    },
    eips::eip2718::{Decodable2718, Encodable2718},
    primitives::{Address, B256, Bytes},
};
use revm::{
    context::{TxEnv, result::InvalidTransaction},
    context_interface::either::Either,
};
use serde::{Deserialize, Serialize};

/// The most bytes of a raw transaction, as public nodes have it.
pub(crate) const MAX_RAW_LENGTH: usize = 128 * 1024;

/// Why a transaction was not accepted. The text is what the client reads, and begins as clients expect.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Refusal {
    #[error("failed to decode transaction: {0}")]
    Malformed(String),
    #[error("transaction too large: {length} bytes, limit {MAX_RAW_LENGTH}")]
    TooLarge { length: usize },
    #[error("transaction type not supported: blob transactions are not accepted by a development chain")]
    Blob,
    #[error("invalid sender: the signature is not valid, or its s value is high")]
    Signature,
    #[error("invalid chain id for signer: have {found}, want {expected}")]
    ChainId { found: u64, expected: u64 },
    #[error("nonce too low: next nonce {state}, tx nonce {transaction}")]
    NonceTooLow { transaction: u64, state: u64 },
    #[error("nonce too high: next nonce {state}, tx nonce {transaction}; nothing waits in a queue here")]
    NonceTooHigh { transaction: u64, state: u64 },
    #[error("insufficient funds for gas * price + value: balance {balance}, tx cost {cost}")]
    Funds { balance: String, cost: String },
    #[error("max fee per gas less than block base fee: base fee {base_fee}")]
    FeeBelowBase { base_fee: u64 },
    #[error("intrinsic gas too low: have {limit}, want {needed}")]
    IntrinsicGas { limit: u64, needed: u64 },
    #[error("transaction gas limit too high: have {limit}, cap {cap}")]
    GasLimit { limit: u64, cap: u64 },
    #[error("invalid transaction: {0}")]
    Other(String),
}

impl Refusal {
    /// Puts the EVM's refusal into the words that clients know.
    pub(crate) fn from_evm(error: InvalidTransaction, gas_limit: u64, base_fee: u64) -> Self {
        match error {
            InvalidTransaction::NonceTooLow { tx, state } => Self::NonceTooLow { transaction: tx, state },
            InvalidTransaction::NonceTooHigh { tx, state } => Self::NonceTooHigh { transaction: tx, state },
            InvalidTransaction::LackOfFundForMaxFee { fee, balance } => Self::Funds {
                balance: balance.to_string(),
                cost: fee.to_string(),
            },
            InvalidTransaction::GasPriceLessThanBasefee => Self::FeeBelowBase { base_fee },
            InvalidTransaction::CallGasCostMoreThanGasLimit { initial_gas, gas_limit } => Self::IntrinsicGas {
                limit: gas_limit,
                needed: initial_gas,
            },
            InvalidTransaction::GasFloorMoreThanGasLimit { gas_floor, gas_limit } => Self::IntrinsicGas {
                limit: gas_limit,
                needed: gas_floor,
            },
            InvalidTransaction::TxGasLimitGreaterThanCap { gas_limit, cap } => Self::GasLimit { limit: gas_limit, cap },
            InvalidTransaction::CallerGasLimitMoreThanBlock => Self::GasLimit {
                limit: gas_limit,
                cap: crate::fees::BLOCK_GAS_LIMIT,
            },
            other => Self::Other(other.to_string()),
        }
    }
}

/// Reads a signed EIP-2718 transaction and finds its sender.
///
/// Legacy, EIP-2930, EIP-1559 and EIP-7702 transactions are read. A legacy transaction without a chain id is
/// accepted, because deterministic deployments rely on it.
pub(crate) fn decode(raw: &[u8], chain_id: u64) -> Result<Recovered<TxEnvelope>, Refusal> {
    if raw.len() > MAX_RAW_LENGTH {
        return Err(Refusal::TooLarge { length: raw.len() });
    }
    // The first byte is looked at before decoding, so that blobs are never unpacked.
    if raw.first() == Some(&3) {
        return Err(Refusal::Blob);
    }
    let envelope = TxEnvelope::decode_2718_exact(raw).map_err(|error| Refusal::Malformed(error.to_string()))?;
    recover(envelope, chain_id)
}

/// Checks the chain id and the signature.
pub(crate) fn recover(envelope: TxEnvelope, chain_id: u64) -> Result<Recovered<TxEnvelope>, Refusal> {
    if matches!(envelope, TxEnvelope::Eip4844(_)) {
        return Err(Refusal::Blob);
    }
    if let Some(found) = envelope.chain_id().filter(|found| *found != chain_id) {
        return Err(Refusal::ChainId {
            found,
            expected: chain_id,
        });
    }
    envelope.try_into_recovered().map_err(|_| Refusal::Signature)
}

/// What the EVM needs to know of a signed transaction.
pub(crate) fn environment(transaction: &Recovered<TxEnvelope>) -> TxEnv {
    let envelope = transaction.inner();
    let authorizations = envelope.authorization_list().unwrap_or_default();
    TxEnv {
        tx_type: envelope.ty(),
        caller: transaction.signer(),
        gas_limit: envelope.gas_limit(),
        gas_price: envelope.max_fee_per_gas(),
        kind: envelope.kind(),
        value: envelope.value(),
        data: envelope.input().clone(),
        nonce: envelope.nonce(),
        chain_id: envelope.chain_id(),
        access_list: envelope.access_list().cloned().unwrap_or_default(),
        gas_priority_fee: envelope.max_priority_fee_per_gas(),
        blob_hashes: vec![],
        max_fee_per_blob_gas: 0,
        authorization_list: authorizations.iter().cloned().map(Either::Left).collect(),
    }
}

/// A transaction in a block, with its receipt.
#[derive(Clone, Debug)]
pub(crate) struct Mined {
    transaction: Recovered<TxEnvelope>,
    receipt: ReceiptEnvelope,
    gas_used: u64,
    created: Option<Address>,
}

impl Mined {
    pub(crate) fn new(
        transaction: Recovered<TxEnvelope>,
        receipt: ReceiptEnvelope,
        gas_used: u64,
        created: Option<Address>,
    ) -> Self {
        Self {
            transaction,
            receipt,
            gas_used,
            created,
        }
    }

    /// The signed transaction with its sender.
    pub(crate) fn transaction(&self) -> &Recovered<TxEnvelope> {
        &self.transaction
    }

    /// The signed transaction.
    pub(crate) fn envelope(&self) -> &TxEnvelope {
        self.transaction.inner()
    }

    /// The transaction's hash.
    pub(crate) fn hash(&self) -> B256 {
        *self.envelope().hash()
    }

    /// The receipt as consensus has it.
    pub(crate) fn receipt(&self) -> &ReceiptEnvelope {
        &self.receipt
    }

    /// Gas this transaction alone paid for.
    pub(crate) fn gas_used(&self) -> u64 {
        self.gas_used
    }

    /// The contract that a deployment created.
    pub(crate) fn created(&self) -> Option<Address> {
        self.created
    }

    /// How the journal keeps this transaction.
    pub(crate) fn record(&self) -> MinedRecord {
        MinedRecord {
            raw: self.envelope().encoded_2718().into(),
            sender: self.transaction.signer(),
            receipt: self.receipt.encoded_2718().into(),
            gas_used: self.gas_used,
            created: self.created,
        }
    }
}

/// A mined transaction as the journal keeps it. The sender is kept so that a start recovers no signatures.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct MinedRecord {
    raw: Bytes,
    sender: Address,
    receipt: Bytes,
    gas_used: u64,
    created: Option<Address>,
}

impl MinedRecord {
    /// Reads the transaction back.
    ///
    /// # Errors
    /// Says which part is unreadable.
    pub(crate) fn decode(self) -> Result<Mined, String> {
        let envelope = TxEnvelope::decode_2718_exact(&self.raw).map_err(|error| format!("transaction: {error}"))?;
        let receipt = ReceiptEnvelope::decode_2718_exact(&self.receipt).map_err(|error| format!("receipt: {error}"))?;
        let transaction = Recovered::new_unchecked(envelope, self.sender);
        Ok(Mined {
            transaction,
            receipt,
            gas_used: self.gas_used,
            created: self.created,
        })
    }
}
