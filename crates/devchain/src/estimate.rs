//! Gas estimation: the least gas with which a transaction succeeds.

use crate::{
    evm::{self, CallFailure, Mode},
    fees::TRANSACTION_GAS_LIMIT,
    transaction::Refusal,
    view::View,
};
use alloy::primitives::U256;
use revm::{
    context::{BlockEnv, TxEnv, result::ExecutionResult},
    context_interface::result::HaltReason,
};

/// Gas that a call with value hands to the callee for free, which must be there before it is handed over.
const CALL_STIPEND: u64 = 2_300;

/// The least gas limit with which `transaction` succeeds in `block`, found by bisection.
///
/// Contracts keep back one 64th of the gas at each call (EIP-150), so the gas used is often not enough: the
/// search begins with the least limit that covers one such level and goes on from there.
pub(crate) fn estimate(
    chain_id: u64,
    view: &View<'_>,
    block: &BlockEnv,
    transaction: TxEnv,
) -> Result<u64, CallFailure> {
    let allowance = allowance(view, &transaction)?;
    let highest = transaction.gas_limit.min(allowance);
    let try_with = |gas_limit: u64| {
        let attempt = TxEnv {
            gas_limit,
            ..transaction.clone()
        };
        evm::run(chain_id, view, block.clone(), attempt, Mode::Call)
    };

    let first = match try_with(highest) {
        Ok(outcome) => outcome.result,
        Err(Refusal::IntrinsicGas { .. }) => return Err(CallFailure::Allowance(highest)),
        Err(refusal) => return Err(refusal.into()),
    };
    if let ExecutionResult::Halt {
        reason: HaltReason::OutOfGas(_),
        ..
    } = &first
    {
        return Err(CallFailure::Allowance(highest));
    }
    let (used, spent) = (first.tx_gas_used(), first.gas().total_gas_spent());
    CallFailure::check(first)?;

    let mut low = used.saturating_sub(1);
    let mut high = highest;
    let likely = spent.saturating_add(CALL_STIPEND).saturating_mul(64) / 63;
    let mut next = used;
    while low + 1 < high {
        if sufficient(try_with(next))? {
            high = next;
        } else {
            low = next;
        }
        // After the gas used itself, the likely bound; then halves.
        let middle = low + (high - low) / 2;
        next = if likely > low && likely < middle {
            likely
        } else {
            middle
        };
    }
    Ok(high)
}

/// Whether a run with less gas still succeeded.
fn sufficient(outcome: Result<revm::context::result::ResultAndState, Refusal>) -> Result<bool, CallFailure> {
    match outcome {
        Ok(outcome) => Ok(outcome.result.is_success()),
        Err(Refusal::IntrinsicGas { .. }) => Ok(false),
        Err(refusal) => Err(refusal.into()),
    }
}

/// The gas that a transaction may have: the rules' cap, and what its sender can pay when it names a price.
fn allowance(view: &View<'_>, transaction: &TxEnv) -> Result<u64, Refusal> {
    if transaction.gas_price == 0 {
        return Ok(TRANSACTION_GAS_LIMIT);
    }
    let (balance, value) = (view.account(&transaction.caller).balance, transaction.value);
    let short = || Refusal::Funds {
        balance: balance.to_string(),
        cost: value.to_string(),
    };
    let left = balance.checked_sub(value).ok_or_else(short)?;
    let affordable = left / U256::from(transaction.gas_price);
    Ok(u64::try_from(affordable).unwrap_or(u64::MAX).min(TRANSACTION_GAS_LIMIT))
}
