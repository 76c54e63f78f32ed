//! The compiled contracts in an EVM of this process: no node, no network, no disk.

use std::{collections::HashMap, path::Path};

use alloy::{
    primitives::{
        Address, B256, Bytes, Log, TxKind, U256,
        aliases::{U40, U96},
        keccak256,
    },
    sol_types::{SolCall, SolConstructor, SolValue},
};
use anyhow::{Context as _, Result, bail, ensure};
use revm::{
    Context, ExecuteCommitEvm, ExecuteEvm, MainBuilder, MainContext,
    context::{TxEnv, result::ExecutionResult},
    database::{CacheDB, EmptyDB},
    handler::{MainnetContext, MainnetEvm},
    primitives::hardfork::SpecId,
};

use rialto_protocol::{ChannelParams, Domain, MicroDollars, ReceiptsHead, Voucher};

use crate::{
    abi::{Escrow, Models, Token},
    ops::evm,
};

/// The chain's id.
pub(crate) const CHAIN_ID: u64 = 31_337;

/// Below the most that one transaction may take (EIP-7825).
const GAS: u64 = 16_000_000;

/// Slots of the contracts' mappings, as the compiler laid them out. A test of the views finds out if they moved.
mod slots {
    pub(super) const TOKEN_BALANCES: u64 = 0;
    pub(super) const PURSES: u64 = 5;
    pub(super) const SHARES: u64 = 6;
    pub(super) const BOXES: u64 = 7;
}

/// What a call did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// It succeeded and returned this.
    Returned(Bytes),
    /// It was refused, with this error of the ABI.
    Refused(Bytes),
}

/// Where the contracts are.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Contracts {
    pub(crate) token: Address,
    pub(crate) models: Address,
    pub(crate) escrow: Address,
}

/// What the escrow is created with.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Terms {
    pub(crate) guardian: Address,
    pub(crate) fee_recipient: Address,
    pub(crate) fee_bps: u16,
    pub(crate) challenge: u64,
}

/// The EVM with the contracts in it.
pub(crate) struct Evm {
    inner: MainnetEvm<MainnetContext<CacheDB<EmptyDB>>>,
    /// Keys of storage slots, which are hashes: computed once for each.
    keys: HashMap<(u64, B256), U256>,
    /// What the escrow logged in the latest transaction.
    pub(crate) logs: Vec<Log>,
    pub(crate) contracts: Contracts,
}

impl Evm {
    /// Deploys the contracts of `contracts/artifacts`.
    pub(crate) fn deploy(terms: &Terms, now: u64) -> Result<Self> {
        let context = Context::mainnet().with_db(CacheDB::new(EmptyDB::default()));
        let context = context.modify_cfg_chained(|cfg| {
            cfg.set_spec_and_mainnet_gas_params(SpecId::OSAKA);
            cfg.chain_id = CHAIN_ID;
            cfg.disable_nonce_check = true;
        });
        let mut evm = Self {
            inner: context.build_mainnet(),
            keys: HashMap::new(),
            logs: Vec::new(),
            contracts: Contracts {
                token: Address::ZERO,
                models: Address::ZERO,
                escrow: Address::ZERO,
            },
        };
        evm.travel_to(now);
        evm.contracts.token = evm.create("TestDollar", &[])?;
        evm.contracts.models = evm.create("Models", &[])?;
        let constructor = Escrow::constructorCall {
            token: evm.contracts.token,
            models: evm.contracts.models,
            guardian: terms.guardian,
            feeRecipient: terms.fee_recipient,
            feeBps: terms.fee_bps,
            challengePeriod: U40::from(terms.challenge),
        };
        evm.contracts.escrow = evm.create("Escrow", &constructor.abi_encode())?;
        Ok(evm)
    }

    /// From now on transactions are in blocks of this time.
    pub(crate) fn travel_to(&mut self, now: u64) {
        self.inner.ctx.block.timestamp = U256::from(now);
    }

    fn create(&mut self, name: &str, arguments: &[u8]) -> Result<Address> {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("../../contracts/artifacts/{name}.json"));
        let artifact: serde_json::Value = serde_json::from_slice(&std::fs::read(&path)?)?;
        let code = artifact.get("bytecode").and_then(|code| code.as_str());
        let mut code = hex::decode(code.context("an artifact without bytecode")?.trim_start_matches("0x"))?;
        code.extend(arguments);
        // A deployer of its own for each: the address follows from its nonce, which is not kept here.
        let deployer = Address::from_word(keccak256(name));
        match self.run(deployer, TxKind::Create, code.into())? {
            ExecutionResult::Success { output, .. } => output.address().copied().context("nothing was created"),
            other => bail!("{name} was not created: {other:?}"),
        }
    }

    /// Sends a transaction.
    pub(crate) fn call(&mut self, from: Address, to: Address, data: Vec<u8>) -> Result<Outcome> {
        self.logs.clear();
        match self.run(from, TxKind::Call(to), data.into())? {
            ExecutionResult::Success { output, logs, .. } => {
                self.logs = logs;
                self.logs.retain(|log| log.address == self.contracts.escrow);
                Ok(Outcome::Returned(output.into_data()))
            }
            ExecutionResult::Revert { output, .. } => Ok(Outcome::Refused(output)),
            ExecutionResult::Halt { reason, .. } => bail!("the EVM stopped: {reason:?}"),
        }
    }

    fn run(&mut self, caller: Address, kind: TxKind, data: Bytes) -> Result<ExecutionResult> {
        let transaction = transaction(caller, kind, data);
        self.inner
            .transact_commit(transaction)
            .map_err(|error| anyhow::anyhow!("{error:?}"))
    }

    /// Asks a contract.
    pub(crate) fn view<C: SolCall>(&mut self, to: Address, call: &C) -> Result<C::Return> {
        let transaction = transaction(Address::ZERO, TxKind::Call(to), call.abi_encode().into());
        let ran = self.inner.transact(transaction);
        match ran.map_err(|error| anyhow::anyhow!("{error:?}"))?.result {
            ExecutionResult::Success { output, .. } => Ok(C::abi_decode_returns(&output.into_data())?),
            other => bail!("a view failed: {other:?}"),
        }
    }

    /// A word of a contract's storage, without running anything.
    fn word(&mut self, contract: Address, mapping: u64, key: B256) -> U256 {
        let slot = *self
            .keys
            .entry((mapping, key))
            .or_insert_with(|| U256::from_be_bytes(keccak256((key, U256::from(mapping)).abi_encode()).0));
        let accounts = &self.inner.ctx.journaled_state.database.cache.accounts;
        let account = accounts.get(&contract);
        account
            .and_then(|account| account.storage.get(&slot).copied())
            .unwrap_or_default()
    }

    /// A channel's slot.
    pub(crate) fn channel_word(&mut self, id: B256) -> U256 {
        self.word(self.contracts.escrow, slots::BOXES, id)
    }

    /// A payer's free balance.
    pub(crate) fn purse(&mut self, account: Address) -> U256 {
        self.word(self.contracts.escrow, slots::PURSES, account.into_word())
    }

    /// Royalty (lower half) and fee beside it (upper half).
    pub(crate) fn share(&mut self, account: Address) -> U256 {
        self.word(self.contracts.escrow, slots::SHARES, account.into_word())
    }

    /// What an account holds of the token.
    pub(crate) fn tokens(&mut self, account: Address) -> U256 {
        self.word(self.contracts.token, slots::TOKEN_BALANCES, account.into_word())
    }

    /// How many words of the escrow's storage are not zero: none but the expected ones may be.
    pub(crate) fn escrow_words(&self) -> usize {
        let accounts = &self.inner.ctx.journaled_state.database.cache.accounts;
        let account = accounts.get(&self.contracts.escrow);
        account.map_or(0, |account| {
            account.storage.values().filter(|word| !word.is_zero()).count()
        })
    }

    /// Mints, approves and registers: what a trace begins with.
    pub(crate) fn must<C: SolCall>(&mut self, from: Address, to: Address, call: &C) -> Result<C::Return> {
        match self.call(from, to, call.abi_encode())? {
            Outcome::Returned(data) => Ok(C::abi_decode_returns(&data)?),
            Outcome::Refused(data) => bail!("refused: {data}"),
        }
    }

    /// Compares the views with the slots for one account and one channel.
    pub(crate) fn check_views(&mut self, account: Address, channel: Option<B256>) -> Result<()> {
        let Contracts { token, escrow, .. } = self.contracts;
        let purse = self.view(escrow, &Escrow::balanceOfCall { payer: account })?;
        let royalty = self.view(escrow, &Escrow::creditOfCall { account })?;
        let fee = self.view(escrow, &Escrow::feesOfCall { holder: account })?;
        let tokens = self.view(token, &Token::balanceOfCall { account })?;
        ensure!(purse == self.purse(account), "the slot of a balance is elsewhere");
        ensure!(
            (fee << 128) | royalty == self.share(account),
            "the slot of a credit is elsewhere"
        );
        ensure!(
            tokens == self.tokens(account),
            "the slot of a token's balance is elsewhere"
        );
        if let Some(id) = channel {
            let seen = self.view(escrow, &Escrow::channelCall { channelId: id })?;
            let word = U256::from(seen.funded)
                | U256::from(seen.redeemed) << 96
                | U256::from(seen.closeAt) << 192
                | U256::from(seen.flags) << 232;
            ensure!(word == self.channel_word(id), "the slot of a channel is elsewhere");
        }
        Ok(())
    }

    /// What `Models` says of a model now.
    pub(crate) fn royalty(&mut self, model: B256) -> Result<(Address, u16)> {
        let seen = self.view(self.contracts.models, &Models::royaltyOfCall { modelId: model })?;
        Ok((seen.holder, seen.royaltyBps))
    }
}

impl Evm {
    /// Nonces of relayed orders and of permits.
    pub(crate) fn check_nonces(&mut self, owner: Address, orders: u64, permits: u64) -> Result<()> {
        let Contracts { token, escrow, .. } = self.contracts;
        let seen = self.view(escrow, &Escrow::noncesCall { owner })?;
        ensure!(
            seen == U256::from(orders),
            "the nonce of {owner} is {seen}, and not {orders}"
        );
        let seen = self.view(token, &Token::noncesCall { owner })?;
        ensure!(
            seen == U256::from(permits),
            "the permit nonce of {owner} is {seen}, and not {permits}"
        );
        Ok(())
    }

    /// Until when deposits are refused, and when they may be again.
    pub(crate) fn check_pauses(&mut self, until: u64, next: u64) -> Result<()> {
        let seen = self.view(self.contracts.escrow, &Escrow::pausesCall {})?;
        let seen: (u64, u64) = (seen.pausedUntil.to(), seen.nextPauseAt.to());
        ensure!(seen == (until, next), "pauses are {seen:?}");
        Ok(())
    }

    /// A channel's id and the digest of a voucher on it.
    pub(crate) fn check_digests(
        &mut self,
        domain: &Domain,
        params: &ChannelParams,
        total: MicroDollars,
        head: [u8; 32],
    ) -> Result<()> {
        let voucher = Voucher {
            channel: params.id(),
            cumulative: total,
            receipts_head: ReceiptsHead(head),
        };
        let call = Escrow::channelIdOfCall {
            payer: evm(params.payer),
            signer: evm(params.signer),
            provider: evm(params.provider),
            modelId: params.model.0.into(),
            salt: U96::from(params.salt),
        };
        let id = self.view(self.contracts.escrow, &call)?;
        ensure!(id.0 == voucher.channel.0, "the id of {params:?} is {id}");
        let call = Escrow::voucherHashCall {
            channelId: id,
            cumulative: U96::from(total.get()),
            receiptsHead: head.into(),
        };
        let digest = self.view(self.contracts.escrow, &call)?;
        ensure!(
            digest.0 == voucher.digest(domain).0,
            "the digest of {voucher:?} is {digest}"
        );
        Ok(())
    }
}

fn transaction(caller: Address, kind: TxKind, data: Bytes) -> TxEnv {
    TxEnv {
        caller,
        kind,
        data,
        gas_limit: GAS,
        chain_id: Some(CHAIN_ID),
        ..TxEnv::default()
    }
}
