//! Fees.

use super::{Answer, error::RpcError, params::Params, show};
use crate::{
    fees::{self, MAX_FEE_HISTORY, SUGGESTED_TIP},
    node::Node,
};
use alloy::{
    eips::{BlockId, BlockNumberOrTag},
    primitives::{U64, U128},
};

/// The most percentiles of a fee history.
const MAX_PERCENTILES: usize = 100;

pub(super) fn call(node: &Node, method: &str, params: &Params) -> Option<Answer> {
    let answer = match method {
        "eth_gasPrice" => gas_price(node),
        "eth_maxPriorityFeePerGas" => show(U64::from(SUGGESTED_TIP)),
        "eth_blobBaseFee" => show(U64::from(1)),
        "eth_feeHistory" => history(node, params),
        _ => return None,
    };
    Some(answer)
}

/// A price that the next block accepts: its base fee and a tip.
fn gas_price(node: &Node) -> Answer {
    let base_fee = node.read()?.draft().base_fee;
    show(U128::from(base_fee) + U128::from(SUGGESTED_TIP))
}

fn history(node: &Node, params: &Params) -> Answer {
    let count = params.number(0, "block count")?.clamp(1, MAX_FEE_HISTORY);
    let newest = BlockId::Number(params.get::<BlockNumberOrTag>(1, "newest block")?);
    let percentiles = params.optional::<Vec<f64>>(2, "percentiles")?;
    check_percentiles(percentiles.as_deref().unwrap_or_default())?;
    let chain = node.read()?;
    let newest = chain.resolve(newest)?;
    let oldest = newest.saturating_sub(count - 1);
    show(fees::history(chain.blocks(oldest, newest), percentiles.as_deref()))
}

fn check_percentiles(percentiles: &[f64]) -> Result<(), RpcError> {
    let ordered = percentiles
        .windows(2)
        .all(|pair| matches!(pair, [low, high] if low <= high));
    let bounded = percentiles.iter().all(|percentile| (0.0..=100.0).contains(percentile));
    if percentiles.len() > MAX_PERCENTILES || !ordered || !bounded {
        let message = format!("percentiles must be at most {MAX_PERCENTILES} rising numbers from 0 to 100");
        return Err(RpcError::invalid_params(message));
    }
    Ok(())
}
