//! Blocks: drafting the next one, sealing it, writing it down and reading it back.

use crate::{
    fees::{self, BLOCK_GAS_LIMIT, INITIAL_BASE_FEE},
    transaction::{Mined, MinedRecord},
};
use alloy::{
    consensus::{
        BlockBody, EMPTY_OMMER_ROOT_HASH, EMPTY_ROOT_HASH, Header,
        constants::EMPTY_WITHDRAWALS,
        proofs::{calculate_receipt_root, calculate_transaction_root},
    },
    eips::{eip4895::Withdrawals, eip7685::EMPTY_REQUESTS_HASH},
    primitives::{Address, B64, B256, Bloom, Bytes, U256, keccak256},
    rlp::{Decodable, Encodable},
};
use revm::{
    context::BlockEnv, context_interface::block::BlobExcessGasAndPrice,
    primitives::eip4844::BLOB_BASE_FEE_UPDATE_FRACTION_PRAGUE,
};
use serde::{Deserialize, Serialize};

/// A sealed block with what its transactions did.
#[derive(Clone, Debug)]
pub(crate) struct Block {
    header: Header,
    hash: B256,
    transactions: Vec<Mined>,
}

/// A block as the journal keeps it.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct BlockRecord {
    /// RLP, so that the hash needs no second encoding to agree with.
    header: Bytes,
    transactions: Vec<MinedRecord>,
}

/// The parts of a block that are known before its transaction runs.
#[derive(Clone, Debug)]
pub(crate) struct Draft {
    pub(crate) number: u64,
    pub(crate) timestamp: u64,
    pub(crate) base_fee: u64,
    parent_hash: B256,
    randomness: B256,
}

impl Draft {
    /// The first block, at `timestamp` (seconds).
    pub(crate) fn genesis(timestamp: u64) -> Self {
        Self {
            number: 0,
            timestamp,
            base_fee: INITIAL_BASE_FEE,
            parent_hash: B256::ZERO,
            randomness: B256::ZERO,
        }
    }

    /// The block after `parent`, at `timestamp` (seconds).
    pub(crate) fn after(parent: &Block, timestamp: u64) -> Self {
        Self {
            number: parent.header.number.saturating_add(1),
            timestamp,
            base_fee: parent.next_base_fee(),
            parent_hash: parent.hash,
            // Nobody may rely on this being unpredictable; it is only different in each block.
            randomness: keccak256(parent.hash),
        }
    }

    /// What the EVM sees of the block.
    pub(crate) fn environment(&self) -> BlockEnv {
        BlockEnv {
            number: U256::from(self.number),
            beneficiary: Address::ZERO,
            timestamp: U256::from(self.timestamp),
            gas_limit: BLOCK_GAS_LIMIT,
            basefee: self.base_fee,
            difficulty: U256::ZERO,
            prevrandao: Some(self.randomness),
            blob_excess_gas_and_price: Some(BlobExcessGasAndPrice::new(0, BLOB_BASE_FEE_UPDATE_FRACTION_PRAGUE)),
            slot_num: 0,
        }
    }

    /// Closes the block over its transactions and the state commitment after them.
    pub(crate) fn seal(self, transactions: Vec<Mined>, commitment: B256) -> Block {
        let mut logs_bloom = Bloom::ZERO;
        for mined in &transactions {
            logs_bloom.accrue_bloom(mined.receipt().logs_bloom());
        }
        let header = Header {
            parent_hash: self.parent_hash,
            ommers_hash: EMPTY_OMMER_ROOT_HASH,
            beneficiary: Address::ZERO,
            state_root: commitment,
            transactions_root: transactions_root(&transactions),
            receipts_root: receipts_root(&transactions),
            logs_bloom,
            difficulty: U256::ZERO,
            number: self.number,
            gas_limit: BLOCK_GAS_LIMIT,
            gas_used: transactions.iter().map(Mined::gas_used).sum(),
            timestamp: self.timestamp,
            extra_data: Bytes::new(),
            mix_hash: self.randomness,
            nonce: B64::ZERO,
            base_fee_per_gas: Some(self.base_fee),
            withdrawals_root: Some(EMPTY_WITHDRAWALS),
            blob_gas_used: Some(0),
            excess_blob_gas: Some(0),
            parent_beacon_block_root: Some(B256::ZERO),
            requests_hash: Some(EMPTY_REQUESTS_HASH),
            ..Header::default()
        };
        Block {
            hash: header.hash_slow(),
            header,
            transactions,
        }
    }
}

impl Block {
    /// The header.
    pub(crate) fn header(&self) -> &Header {
        &self.header
    }

    /// Keccak-256 of the header's RLP.
    pub(crate) fn hash(&self) -> B256 {
        self.hash
    }

    /// The transactions, in order.
    pub(crate) fn transactions(&self) -> &[Mined] {
        &self.transactions
    }

    /// This block's base fee, wei per gas.
    pub(crate) fn base_fee(&self) -> u64 {
        self.header.base_fee_per_gas.unwrap_or_default()
    }

    /// The next block's base fee, wei per gas.
    pub(crate) fn next_base_fee(&self) -> u64 {
        fees::next_base_fee(self.header.gas_used, self.base_fee())
    }

    /// The header and body as consensus encodes them, in bytes.
    pub(crate) fn size(&self) -> usize {
        let transactions = self.transactions.iter().map(|mined| mined.envelope().clone()).collect();
        let body = BlockBody {
            transactions,
            ommers: vec![],
            withdrawals: Some(Withdrawals::default()),
        };
        alloy::consensus::Block::new(self.header.clone(), body).length()
    }

    /// How the journal keeps this block.
    pub(crate) fn record(&self) -> BlockRecord {
        BlockRecord {
            header: alloy::rlp::encode(&self.header).into(),
            transactions: self.transactions.iter().map(Mined::record).collect(),
        }
    }

    /// Checks that this block can follow `parent` and that its body is the one its header names.
    ///
    /// # Errors
    /// Says which rule is broken; only a damaged or forged journal breaks one.
    pub(crate) fn check(&self, parent: Option<&Self>) -> Result<(), &'static str> {
        let expected = parent.map_or(0, |parent| parent.header.number.saturating_add(1));
        if self.header.number != expected {
            return Err("block number out of sequence");
        }
        if self.header.parent_hash != parent.map(Self::hash).unwrap_or_default() {
            return Err("block does not follow its parent");
        }
        if parent.is_some_and(|parent| parent.header.timestamp >= self.header.timestamp) {
            return Err("block is not younger than its parent");
        }
        if self.header.transactions_root != transactions_root(&self.transactions) {
            return Err("transactions do not match the header");
        }
        if self.header.receipts_root != receipts_root(&self.transactions) {
            return Err("receipts do not match the header");
        }
        Ok(())
    }
}

impl BlockRecord {
    /// Reads the block back.
    ///
    /// # Errors
    /// Says which part is unreadable.
    pub(crate) fn decode(self) -> Result<Block, String> {
        let mut bytes: &[u8] = &self.header;
        let header = Header::decode(&mut bytes).map_err(|error| format!("header: {error}"))?;
        if !bytes.is_empty() {
            return Err("header: bytes after its end".to_owned());
        }
        let transactions = self
            .transactions
            .into_iter()
            .map(MinedRecord::decode)
            .collect::<Result<Vec<_>, _>>()?;
        Ok(Block {
            hash: keccak256(&self.header),
            header,
            transactions,
        })
    }
}

fn transactions_root(transactions: &[Mined]) -> B256 {
    if transactions.is_empty() {
        return EMPTY_ROOT_HASH;
    }
    let envelopes: Vec<_> = transactions.iter().map(Mined::envelope).collect();
    calculate_transaction_root(&envelopes)
}

fn receipts_root(transactions: &[Mined]) -> B256 {
    if transactions.is_empty() {
        return EMPTY_ROOT_HASH;
    }
    let receipts: Vec<_> = transactions.iter().map(Mined::receipt).collect();
    calculate_receipt_root(&receipts)
}
