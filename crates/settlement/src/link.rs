//! A node and the one chain that is expected behind it: calls, blocks, fees.

use std::time::Duration;

use alloy::{
    primitives::{Address as EvmAddress, Bytes, U64, U128, U256},
    rpc::types::{Block, Header, TransactionRequest},
    sol_types::SolCall,
};
use tokio::sync::OnceCell;

use crate::{
    Error,
    abi::from_evm,
    rpc::{Failure, Rpc},
};

/// How to deal with a node.
#[derive(Debug, Clone)]
pub struct Options {
    /// The chain's id, when it is known from elsewhere (a ticket): a node of another chain is then refused.
    pub chain_id: Option<u64>,
    /// Longest wait for one answer of the node.
    pub call_timeout: Duration,
    /// Longest wait for a transaction to be in a block.
    pub receipt_timeout: Duration,
    /// Most that is ever offered for a unit of gas, in wei: a node cannot make a wallet burn its coins.
    pub max_fee_per_gas: u128,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            chain_id: None,
            call_timeout: Duration::from_secs(10),
            receipt_timeout: Duration::from_secs(90),
            max_fee_per_gas: 1_000_000_000_000,
        }
    }
}

/// What is offered for gas (EIP-1559), in wei for each unit.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Fees {
    pub(crate) max: u128,
    pub(crate) priority: u128,
}

pub(crate) struct Link {
    pub(crate) rpc: Rpc,
    pub(crate) options: Options,
    verified: OnceCell<u64>,
}

impl Link {
    pub(crate) fn new(rpc_url: &str, options: Options) -> Result<Self, Error> {
        Ok(Self {
            rpc: Rpc::new(rpc_url, options.call_timeout)?,
            options,
            verified: OnceCell::new(),
        })
    }

    /// The chain's id; asks the node once and compares with what is expected.
    pub(crate) async fn chain_id(&self) -> Result<u64, Error> {
        let ask = async {
            let found: U64 = self.rpc.request("eth_chainId", ()).await?;
            let found: u64 = found.to();
            match self.options.chain_id {
                Some(expected) if expected != found => Err(Error::WrongChain { expected, found }),
                _ => Ok(found),
            }
        };
        self.verified.get_or_try_init(|| ask).await.copied()
    }

    /// Calls a contract's function on the newest state, without a transaction.
    pub(crate) async fn call<C: SolCall>(&self, to: EvmAddress, call: &C) -> Result<C::Return, Error> {
        self.call_from(None, to, call).await
    }

    /// As [`Self::call`], with a sender.
    pub(crate) async fn call_from<C: SolCall>(
        &self,
        from: Option<EvmAddress>,
        to: EvmAddress,
        call: &C,
    ) -> Result<C::Return, Error> {
        self.chain_id().await?;
        let mut request = TransactionRequest::default().to(to).input(call.abi_encode().into());
        request.from = from;
        let answer: Bytes = self.rpc.request("eth_call", (request, "latest")).await?;
        if answer.is_empty() {
            return Err(Error::NoContract { address: from_evm(to) });
        }
        let result = C::abi_decode_returns_validate(&answer).ok();
        result
            // One encoding only: nothing may follow, or hide in, what was read.
            .filter(|result| C::abi_encode_returns(result) == answer)
            .ok_or_else(|| Error::corrupt(format!("the result of {}", C::SIGNATURE)))
    }

    /// Whether a contract lives at an address.
    pub(crate) async fn has_code(&self, address: EvmAddress) -> Result<bool, Error> {
        self.chain_id().await?;
        let code: Bytes = self.rpc.request("eth_getCode", (address, "latest")).await?;
        Ok(!code.is_empty())
    }

    /// The newest block's header.
    pub(crate) async fn newest(&self) -> Result<Header, Error> {
        self.chain_id().await?;
        let block: Option<Block> = self.rpc.request("eth_getBlockByNumber", ("latest", false)).await?;
        Ok(block.ok_or_else(|| Error::corrupt("there is no newest block"))?.header)
    }

    /// The newest block's number.
    pub(crate) async fn block_number(&self) -> Result<u64, Error> {
        self.chain_id().await?;
        let number: U64 = self.rpc.request("eth_blockNumber", ()).await?;
        Ok(number.to())
    }

    /// What to offer for gas: room for the base fee to double, and the tip that the node suggests.
    pub(crate) async fn fees(&self) -> Result<Fees, Error> {
        let header = self.newest().await?;
        let base = header.base_fee_per_gas.map(u128::from);
        let base = base.ok_or_else(|| Error::corrupt("a chain without EIP-1559 fees"))?;
        let priority = match self.rpc.request::<_, U128>("eth_maxPriorityFeePerGas", ()).await {
            Ok(tip) => tip.to::<u128>(),
            // Not every node has it; a gwei is enough wherever the market is likely to run.
            Err(Failure::Refused { .. }) => 1_000_000_000,
            Err(failure) => return Err(failure.into()),
        };
        let max = base.saturating_mul(2).saturating_add(priority);
        if max > self.options.max_fee_per_gas {
            return Err(Error::corrupt(format!(
                "gas at {max} wei a unit is above the limit of this wallet"
            )));
        }
        Ok(Fees { max, priority })
    }

    /// An account's balance of the chain's own coin, in wei.
    pub(crate) async fn native_balance(&self, address: EvmAddress) -> Result<u128, Error> {
        self.chain_id().await?;
        let balance: U256 = self.rpc.request("eth_getBalance", (address, "latest")).await?;
        u128::try_from(balance).map_err(|_| Error::corrupt("a balance of more than 128 bits"))
    }
}
