//! Gas and fee rules: EIP-1559 base fee, suggested tip, fee history.

use crate::block::Block;
use alloy::{
    consensus::Transaction,
    eips::eip1559::{BaseFeeParams, calc_next_block_base_fee},
    rpc::types::FeeHistory,
};

/// Gas a block may hold.
pub(crate) const BLOCK_GAS_LIMIT: u64 = 30_000_000;
/// Gas a transaction may ask for since Osaka (EIP-7825).
pub(crate) const TRANSACTION_GAS_LIMIT: u64 = 1 << 24;
/// The base fee of the genesis block, in wei per gas. It is empty, so the first block after it has 1 gwei by the
/// ordinary rule, which is what other development chains begin with.
pub(crate) const INITIAL_BASE_FEE: u64 = 1_142_857_142;
/// The tip suggested to clients, in wei per gas: 1 gwei.
pub(crate) const SUGGESTED_TIP: u64 = 1_000_000_000;
/// The most blocks a fee history covers.
pub(crate) const MAX_FEE_HISTORY: u64 = 1024;

/// The base fee of the block after one that used `gas_used`, by the rule of EIP-1559.
pub(crate) fn next_base_fee(gas_used: u64, base_fee: u64) -> u64 {
    calc_next_block_base_fee(gas_used, BLOCK_GAS_LIMIT, base_fee, BaseFeeParams::ethereum())
}

/// Fee history of `blocks` (oldest first, at least one), with the tips paid at `percentiles` when asked for.
pub(crate) fn history(blocks: &[Block], percentiles: Option<&[f64]>) -> FeeHistory {
    let oldest = blocks.first().map_or(0, |block| block.header().number);
    let mut base_fees: Vec<u128> = blocks.iter().map(|block| u128::from(block.base_fee())).collect();
    base_fees.extend(blocks.last().map(|block| u128::from(block.next_base_fee())));
    let rewards = percentiles.map(|percentiles| {
        let row = |block: &Block| percentiles.iter().map(|_| tip(block)).collect();
        blocks.iter().map(row).collect()
    });
    FeeHistory {
        gas_used_ratio: blocks.iter().map(gas_used_ratio).collect(),
        base_fee_per_blob_gas: vec![1; base_fees.len()],
        blob_gas_used_ratio: vec![0.0; blocks.len()],
        base_fee_per_gas: base_fees,
        oldest_block: oldest,
        reward: rewards,
    }
}

/// The tip per gas paid in a block. A block holds at most one transaction, so every percentile is the same.
fn tip(block: &Block) -> u128 {
    let transaction = block.transactions().first();
    transaction
        .and_then(|mined| mined.envelope().effective_tip_per_gas(block.base_fee()))
        .unwrap_or_default()
}

fn gas_used_ratio(block: &Block) -> f64 {
    let exact = |gas: u64| f64::from(u32::try_from(gas).unwrap_or(u32::MAX));
    exact(block.header().gas_used) / exact(block.header().gas_limit.max(1))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn base_fee_follows_the_rule_of_eip_1559() {
        let gwei = 1_000_000_000;
        assert_eq!(next_base_fee(0, INITIAL_BASE_FEE), gwei);
        assert_eq!(next_base_fee(BLOCK_GAS_LIMIT / 2, gwei), gwei);
        assert_eq!(next_base_fee(BLOCK_GAS_LIMIT, gwei), gwei + gwei / 8);
        assert_eq!(next_base_fee(0, gwei), gwei - gwei / 8);
        // A plain transfer, computed by hand: 1e9 - 1e9 * (15e6 - 21000) / 15e6 / 8.
        assert_eq!(next_base_fee(21_000, gwei), 875_175_000);
    }
}
