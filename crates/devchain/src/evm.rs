//! Running one transaction or call in the EVM.

use crate::{transaction::Refusal, view::View};
use alloy::{
    consensus::TxType,
    primitives::{Bytes, TxKind, U256},
    rpc::types::TransactionRequest,
    sol_types::decode_revert_reason,
};
use revm::{
    Context, ExecuteEvm, MainBuilder, MainContext,
    context::{
        BlockEnv, TxEnv,
        result::{EVMError, ExecutionResult, HaltReason, ResultAndState},
    },
    context_interface::either::Either,
    database_interface::WrapDatabaseRef,
    primitives::hardfork::SpecId,
};

/// The rules that blocks follow. The newest that public chains had when this was written.
const RULES: SpecId = SpecId::OSAKA;

/// Whether a run ends in a block, or only answers a question.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mode {
    /// Every rule holds.
    Transaction,
    /// Nonce, sender's code and gas caps do not matter, and gas is free unless the caller named a price.
    Call,
}

/// Why a call gave no answer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum CallFailure {
    /// The contract reverted. The reason is decoded when it is one of the standard forms.
    #[error("execution reverted{}", reason.as_ref().map(|reason| format!(": {reason}")).unwrap_or_default())]
    Reverted { reason: Option<String>, data: Bytes },
    /// The EVM stopped: out of gas, invalid instruction and the like.
    #[error("EVM error: {0}")]
    Halted(String),
    /// More gas than may be given would be needed.
    #[error("gas required exceeds allowance ({0})")]
    Allowance(u64),
    /// The call could not begin.
    #[error(transparent)]
    Refused(#[from] Refusal),
}

impl CallFailure {
    /// The output of a run that succeeded, or why it did not.
    pub(crate) fn check(result: ExecutionResult) -> Result<Bytes, Self> {
        match result {
            ExecutionResult::Success { output, .. } => Ok(output.into_data()),
            ExecutionResult::Revert { output, .. } => {
                // The decoder names the form before a plain message; clients expect the message alone.
                let reason = decode_revert_reason(&output);
                let reason = reason.map(|text| text.trim_start_matches("revert: ").trim().to_owned());
                Err(Self::Reverted { reason, data: output })
            }
            ExecutionResult::Halt {
                reason: HaltReason::OutOfGas(_),
                ..
            } => Err(Self::Halted("out of gas".to_owned())),
            ExecutionResult::Halt { reason, .. } => Err(Self::Halted(format!("{reason:?}"))),
        }
    }
}

/// Runs `transaction` on `view` inside `block`. Nothing is changed: the result carries the changes.
pub(crate) fn run(
    chain_id: u64,
    view: &View<'_>,
    block: BlockEnv,
    transaction: TxEnv,
    mode: Mode,
) -> Result<ResultAndState, Refusal> {
    let (gas_limit, base_fee) = (transaction.gas_limit, block.basefee);
    let free = transaction.gas_price == 0;
    let mut evm = Context::mainnet()
        .with_db(WrapDatabaseRef::from(view))
        .with_block(block)
        .modify_cfg_chained(|cfg| {
            cfg.set_spec_and_mainnet_gas_params(RULES);
            cfg.chain_id = chain_id;
            if mode == Mode::Call {
                cfg.disable_nonce_check = true;
                // Callers rarely name a chain.
                cfg.tx_chain_id_check = false;
                cfg.disable_eip3607 = true;
                cfg.disable_block_gas_limit = true;
                cfg.disable_base_fee = free;
                cfg.tx_gas_limit_cap = Some(u64::MAX);
            }
        })
        .build_mainnet();
    evm.transact(transaction).map_err(|error| match error {
        EVMError::Transaction(error) => Refusal::from_evm(error, gas_limit, base_fee),
        EVMError::Header(error) => Refusal::Other(error.to_string()),
        EVMError::Database(never) => match never {},
        EVMError::Custom(text) => Refusal::Other(text),
        EVMError::CustomAny(error) => Refusal::Other(error.to_string()),
    })
}

/// What the EVM needs to know of a call request; `gas` is used when the request names none, and bounds it.
pub(crate) fn call_environment(request: &TransactionRequest, gas: u64) -> Result<TxEnv, Refusal> {
    if request.blob_versioned_hashes.is_some() || request.sidecar.is_some() {
        return Err(Refusal::Blob);
    }
    if request.gas_price.is_some() && request.max_fee_per_gas.is_some() {
        return Err(Refusal::Other("both gasPrice and maxFeePerGas are given".to_owned()));
    }
    let data = request
        .input
        .clone()
        .try_into_unique_input()
        .map_err(|error| Refusal::Other(error.to_string()))?;
    let access_list = request.access_list.clone().unwrap_or_default();
    let authorizations = request.authorization_list.clone().unwrap_or_default();
    let priority_fee = request
        .max_priority_fee_per_gas
        .filter(|_| request.max_fee_per_gas.is_some());
    let tx_type = if !authorizations.is_empty() {
        TxType::Eip7702
    } else if request.max_fee_per_gas.is_some() {
        TxType::Eip1559
    } else if !access_list.0.is_empty() {
        TxType::Eip2930
    } else {
        TxType::Legacy
    };
    Ok(TxEnv {
        tx_type: tx_type.into(),
        caller: request.from.unwrap_or_default(),
        gas_limit: request.gas.unwrap_or(gas).min(gas),
        gas_price: request.gas_price.or(request.max_fee_per_gas).unwrap_or_default(),
        kind: request.to.unwrap_or(TxKind::Create),
        value: request.value.unwrap_or(U256::ZERO),
        data: data.unwrap_or_default(),
        nonce: request.nonce.unwrap_or_default(),
        chain_id: request.chain_id,
        access_list,
        gas_priority_fee: priority_fee,
        blob_hashes: vec![],
        max_fee_per_blob_gas: 0,
        authorization_list: authorizations.into_iter().map(Either::Left).collect(),
    })
}
