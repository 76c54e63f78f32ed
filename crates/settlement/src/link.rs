//! The one chain that is expected behind the nodes: calls, blocks, what gas costs.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use alloy::{
    primitives::{Address as EvmAddress, B256, Bytes, U64, U128, U256},
    rpc::types::{Block, Header, TransactionRequest},
    sol_types::SolCall,
};
use serde::Serialize;

use crate::{
    Error,
    abi::from_evm,
    nodes::{Endpoints, Nodes},
    rpc::Failure,
    sender::Queue,
};

/// How to deal with a chain and its nodes.
#[derive(Debug, Clone)]
pub struct Options {
    /// The chain's id, when it is known from elsewhere (a ticket): a node of another chain is then refused. When it is
    /// not, the first node that answers says it.
    pub chain_id: Option<u64>,
    /// Longest wait for one answer of a node.
    pub call_timeout: Duration,
    /// For how long a node that failed is left alone, when there are others. One whose chain has not grown for six
    /// times as long is compared with the others.
    pub node_pause: Duration,
    /// Longest wait for a transaction to be in a block.
    pub receipt_timeout: Duration,
    /// After so long without a block a transaction is replaced by one that offers more.
    pub replace_after: Duration,
    /// Most that is ever offered for a unit of gas, in wei: a node cannot make a wallet burn its coins.
    pub max_fee_per_gas: u128,
    /// Most that the gas of one transaction may ever cost, in wei, replacements included.
    pub max_cost: u128,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            chain_id: None,
            call_timeout: Duration::from_secs(10),
            node_pause: Duration::from_secs(10),
            receipt_timeout: Duration::from_secs(90),
            replace_after: Duration::from_secs(15),
            max_fee_per_gas: 1_000_000_000_000,
            max_cost: 1_000_000_000_000_000_000,
        }
    }
}

/// What the newest block says about gas.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Market {
    /// Its number.
    pub(crate) block: u64,
    /// Gas that a block holds.
    pub(crate) gas_limit: u64,
    /// The base fee, in wei.
    pub(crate) base: u128,
    /// The tip that the node suggests, in wei.
    pub(crate) tip: u128,
}

pub(crate) struct Link {
    pub(crate) rpc: Nodes,
    pub(crate) options: Options,
    /// One for every account that sends.
    queues: Mutex<BTreeMap<EvmAddress, Arc<Queue>>>,
}

impl Link {
    pub(crate) fn new(endpoints: &Endpoints, options: Options) -> Result<Self, Error> {
        Ok(Self {
            rpc: Nodes::new(endpoints, &options)?,
            options,
            queues: Mutex::default(),
        })
    }

    /// The chain's id; asks until a node has said it.
    pub(crate) async fn chain_id(&self) -> Result<u64, Error> {
        Ok(self.rpc.chain_id().await?)
    }

    /// The queue of an account's transactions.
    pub(crate) fn queue(&self, account: EvmAddress) -> Arc<Queue> {
        let mut queues = self.queues.lock().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(queues.entry(account).or_default())
    }

    /// All hashes under which a transaction was issued: more than one if it was replaced here.
    pub(crate) fn siblings(&self, hash: B256) -> Vec<B256> {
        let queues = self.queues.lock().unwrap_or_else(PoisonError::into_inner);
        let mut found = queues.values().filter_map(|queue| queue.siblings(hash));
        found.next().unwrap_or_else(|| vec![hash])
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
        self.call_on("latest", from, to, call).await
    }

    /// As [`Self::call`], on the state after an earlier block.
    pub(crate) async fn call_at<C: SolCall>(&self, to: EvmAddress, call: &C, block: u64) -> Result<C::Return, Error> {
        self.call_on(U64::from(block), None, to, call).await
    }

    async fn call_on<C: SolCall>(
        &self,
        block: impl Serialize,
        from: Option<EvmAddress>,
        to: EvmAddress,
        call: &C,
    ) -> Result<C::Return, Error> {
        let mut request = TransactionRequest::default().to(to).input(call.abi_encode().into());
        request.from = from;
        let answer: Bytes = self.rpc.request("eth_call", (request, block)).await?;
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
        let code: Bytes = self.rpc.request("eth_getCode", (address, "latest")).await?;
        Ok(!code.is_empty())
    }

    /// The newest block's header.
    pub(crate) async fn newest(&self) -> Result<Header, Error> {
        let block: Option<Block> = self.rpc.request("eth_getBlockByNumber", ("latest", false)).await?;
        let header = block.ok_or_else(|| Error::corrupt("there is no newest block"))?.header;
        self.rpc.saw(header.number);
        Ok(header)
    }

    /// The newest block's number.
    pub(crate) async fn block_number(&self) -> Result<u64, Error> {
        let number: U64 = self.rpc.request("eth_blockNumber", ()).await?;
        self.rpc.saw(number.to());
        Ok(number.to())
    }

    /// What gas costs now.
    pub(crate) async fn market(&self) -> Result<Market, Error> {
        let header = self.newest().await?;
        let base = header.base_fee_per_gas.map(u128::from);
        let tip = match self.rpc.request::<_, U128>("eth_maxPriorityFeePerGas", ()).await {
            Ok(tip) => tip.to::<u128>(),
            // Not every node has it; a gwei is enough wherever the market is likely to run.
            Err(Failure::Refused { .. }) => 1_000_000_000,
            Err(failure) => return Err(failure.into()),
        };
        Ok(Market {
            block: header.number,
            gas_limit: header.gas_limit,
            base: base.ok_or_else(|| Error::corrupt("a chain without EIP-1559 fees"))?,
            tip,
        })
    }

    /// An account's balance of the chain's own coin, in wei.
    pub(crate) async fn native_balance(&self, address: EvmAddress) -> Result<u128, Error> {
        let balance: U256 = self.rpc.request("eth_getBalance", (address, "latest")).await?;
        u128::try_from(balance).map_err(|_| Error::corrupt("a balance of more than 128 bits"))
    }
}
