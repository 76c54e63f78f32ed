//! Reading a market's contracts.

use std::sync::Arc;

use alloy::{
    primitives::{B256, U128, U256},
    sol_types::SolCall,
};
use rialto_protocol::{
    Address, ChannelId, Digest, Domain, ManifestHash, MicroDollars, ModelId, NodeKey, Region, Voucher,
    channel::ChannelState, ticket::Contracts,
};

use crate::{
    Confirmed, Endpoints, Error, Options, abi, bindings,
    events::{self, ChainEvent},
    link::Link,
    sender,
};

/// The escrow's mark of an open channel.
const OPEN: u32 = 1;
/// The escrow's mark of a closed one.
const CLOSED: u32 = 3;

/// What the `Providers` contract says about a provider.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ProviderRecord {
    /// Stake that stands for its work.
    pub stake: MicroDollars,
    /// The key by which it is dialled.
    pub node: NodeKey,
    /// Where it says it is.
    pub region: Region,
    /// keccak-256 of its metadata document; zero if it has none.
    pub metadata: Digest,
    /// Whether it has stake that is not leaving, and is neither frozen nor convicted.
    pub active: bool,
    /// Whether it was proven to have signed two receipts for one number; for ever.
    pub convicted: bool,
    /// When its freeze ends or ended, in seconds of the chain; zero if there was none.
    pub frozen_until: u64,
}

/// What was decided for ever when the escrow was created.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EscrowTerms {
    /// The stablecoin that it holds.
    pub token: Address,
    /// Where models and their royalties are registered.
    pub models: Address,
    /// Who may pause deposits and opens for a while; zero for nobody, ever.
    pub guardian: Address,
    /// Who is credited the protocol's fee.
    pub fee_recipient: Address,
    /// The fee in basis points of what a buyer pays.
    pub fee_bps: u16,
    /// Seconds between a payer's request to close and the close.
    pub challenge_period: u64,
}

/// What the `Models` contract says about a model.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ModelRecord {
    /// Who registered it.
    pub publisher: Address,
    /// The royalty in basis points.
    pub royalty_bps: u16,
    /// keccak-256 of the canonical manifest.
    pub manifest: ManifestHash,
    /// How the weights are stored.
    pub quantisation: String,
    /// SPDX expression.
    pub licence: String,
}

/// A market's contracts on a chain, behind one or several nodes. Cheap to clone; clones share connections, what is known of
/// the nodes, and the nonces of every key.
#[derive(Clone)]
pub struct Chain {
    pub(crate) link: Arc<Link>,
    contracts: Contracts,
}

impl Chain {
    /// For one or several nodes at `http` or `https` addresses. Nothing is contacted yet, so it does not matter whether the node
    /// is up; fails with [`Error::Invalid`] only for an address that can never work.
    pub fn connect(nodes: impl Into<Endpoints>, contracts: Contracts) -> Result<Self, Error> {
        Self::connect_with(nodes, contracts, Options::default())
    }

    /// As [`Self::connect`], with options.
    pub fn connect_with(nodes: impl Into<Endpoints>, contracts: Contracts, options: Options) -> Result<Self, Error> {
        Ok(Self {
            link: Arc::new(Link::new(&nodes.into(), options)?),
            contracts,
        })
    }

    /// The market's contracts.
    pub fn contracts(&self) -> Contracts {
        self.contracts
    }

    /// The chain's id, asked of the node once.
    pub async fn chain_id(&self) -> Result<u64, Error> {
        self.link.chain_id().await
    }

    /// The domain of the market's signatures. Needs no node when [`Options::chain_id`] is set.
    pub async fn domain(&self) -> Result<Domain, Error> {
        let chain_id = match self.link.options.chain_id {
            Some(known) => known,
            None => self.chain_id().await?,
        };
        Ok(Domain {
            chain_id,
            escrow: self.contracts.escrow,
        })
    }

    /// Whether all four contracts are there and belong together.
    pub async fn is_deployed(&self) -> Result<bool, Error> {
        let staking = (
            self.providers(&bindings::Providers::tokenCall {}).await,
            self.providers(&bindings::Providers::escrowCall {}).await,
        );
        let found = match (self.terms().await, staking.0, staking.1) {
            (Ok(terms), Ok(staked), Ok(judged)) => {
                [terms.token, terms.models, abi::from_evm(staked), abi::from_evm(judged)]
            }
            (Err(error), ..) | (_, Err(error), _) | (.., Err(error)) => {
                return match error {
                    Error::NoContract { .. } | Error::Reverted { .. } => Ok(false),
                    other => Err(other),
                };
            }
        };
        let Contracts {
            token, models, escrow, ..
        } = self.contracts;
        Ok(found == [token, models, token, escrow]
            && self.link.has_code(abi::to_evm(token)).await?
            && self.link.has_code(abi::to_evm(models)).await?)
    }

    /// A channel's state; all zero if it was never opened.
    pub async fn channel(&self, id: ChannelId) -> Result<ChannelState, Error> {
        let channel_id = B256::from(id.0);
        let call = bindings::Escrow::channelCall { channelId: channel_id };
        let slot = self.escrow(&call).await?;
        channel_state(id, &slot)
    }

    /// A channel's state after an earlier block, of the last hundred or so: nodes forget what is older.
    pub async fn channel_at(&self, id: ChannelId, block: u64) -> Result<ChannelState, Error> {
        let channel_id = B256::from(id.0);
        let call = bindings::Escrow::channelCall { channelId: channel_id };
        let escrow = abi::to_evm(self.contracts.escrow);
        let slot = self.link.call_at(escrow, &call, block).await?;
        channel_state(id, &slot)
    }

    /// What an account has in the escrow outside of channels.
    pub async fn free_balance(&self, account: Address) -> Result<MicroDollars, Error> {
        let payer = abi::to_evm(account);
        let balance = self.escrow(&bindings::Escrow::balanceOfCall { payer }).await?;
        abi::micro(balance, "a free balance")
    }

    /// An account's royalties that it has not taken out.
    pub async fn credit_of(&self, account: Address) -> Result<MicroDollars, Error> {
        let account = abi::to_evm(account);
        let credit = self.escrow(&bindings::Escrow::creditOfCall { account }).await?;
        abi::micro(credit, "a credit")
    }

    /// Fees that were credited beside the royalties of a holder of models, and not sent to the fee recipient yet. Fees of
    /// models that nobody holds are beside the fee recipient itself.
    pub async fn fees_of(&self, holder: Address) -> Result<MicroDollars, Error> {
        let holder = abi::to_evm(holder);
        let fees = self.escrow(&bindings::Escrow::feesOfCall { holder }).await?;
        abi::micro(fees, "fees")
    }

    /// An account's stablecoin.
    pub async fn token_balance(&self, account: Address) -> Result<MicroDollars, Error> {
        let account = abi::to_evm(account);
        let balance = self.token(&bindings::TestDollar::balanceOfCall { account }).await?;
        abi::micro(balance, "a token balance")
    }

    /// How much stablecoin `spender` may pull from `owner`; more than 96 bits count as the most.
    pub(crate) async fn allowance(&self, owner: Address, spender: Address) -> Result<MicroDollars, Error> {
        let (owner, spender) = (abi::to_evm(owner), abi::to_evm(spender));
        let allowance: U256 = self
            .token(&bindings::TestDollar::allowanceCall { owner, spender })
            .await?;
        Ok(abi::micro(allowance, "an allowance").unwrap_or(MicroDollars::MAX))
    }

    /// An account's coins of the chain itself, in wei; they pay for gas.
    pub async fn native_balance(&self, account: Address) -> Result<u128, Error> {
        self.link.native_balance(abi::to_evm(account)).await
    }

    /// What is registered about a provider; `None` if it never registered.
    pub async fn provider_of(&self, account: Address) -> Result<Option<ProviderRecord>, Error> {
        let provider = abi::to_evm(account);
        let record = self
            .providers(&bindings::Providers::providerOfCall { provider })
            .await?;
        let record = ProviderRecord {
            stake: abi::micro96(record.stake)?,
            node: NodeKey(record.nodeKey.0),
            region: Region(record.region.0),
            metadata: abi::digest(record.metadataHash),
            active: record.active,
            convicted: record.convicted,
            frozen_until: abi::seconds(record.frozenUntil),
        };
        Ok((!record.node.is_zero()).then_some(record))
    }

    /// Who earns from a model, and its rate in basis points; `None` if it is not registered.
    pub async fn royalty_of(&self, model: ModelId) -> Result<Option<(Address, u16)>, Error> {
        let model_id = B256::from(model.0);
        let royalty = self
            .models(&bindings::Models::royaltyOfCall { modelId: model_id })
            .await?;
        let holder = abi::from_evm(royalty.holder);
        Ok((!holder.is_zero()).then_some((holder, royalty.royaltyBps)))
    }

    /// What is registered about a model; `None` if it is not.
    pub async fn model_of(&self, model: ModelId) -> Result<Option<ModelRecord>, Error> {
        let model_id = B256::from(model.0);
        let found = self.models(&bindings::Models::modelOfCall { modelId: model_id }).await;
        match found {
            Ok(model) => Ok(Some(ModelRecord {
                publisher: abi::from_evm(model.publisher),
                royalty_bps: model.royaltyBps,
                manifest: ManifestHash(model.manifestHash.0),
                quantisation: model.quantisation,
                licence: model.licence,
            })),
            Err(error) if error.revert_name() == Some("UnknownModel") => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// What was decided for ever when the escrow was created.
    pub async fn terms(&self) -> Result<EscrowTerms, Error> {
        let terms = self.escrow(&bindings::Escrow::termsCall {}).await?;
        Ok(EscrowTerms {
            token: abi::from_evm(terms.token),
            models: abi::from_evm(terms.models),
            guardian: abi::from_evm(terms.guardian),
            fee_recipient: abi::from_evm(terms.feeRecipient),
            fee_bps: terms.feeBps,
            challenge_period: abi::seconds(terms.challengePeriod),
        })
    }

    /// The protocol's fee in basis points.
    pub async fn fee_bps(&self) -> Result<u16, Error> {
        Ok(self.terms().await?.fee_bps)
    }

    /// Who is credited the protocol's fee.
    pub async fn fee_recipient(&self) -> Result<Address, Error> {
        Ok(self.terms().await?.fee_recipient)
    }

    /// Seconds between a payer's request to close and the close.
    pub async fn challenge_period(&self) -> Result<u64, Error> {
        Ok(self.terms().await?.challenge_period)
    }

    /// The digest of a voucher as the escrow computes it; equals [`Voucher::digest`].
    pub async fn voucher_digest(&self, voucher: &Voucher) -> Result<Digest, Error> {
        let call = bindings::Escrow::voucherHashCall {
            channelId: B256::from(voucher.channel.0),
            cumulative: abi::to_u96(voucher.cumulative),
            receiptsHead: B256::from(voucher.receipts_head.0),
        };
        Ok(abi::digest(self.escrow(&call).await?))
    }

    /// The newest block's time in seconds since 1970: what the contracts' deadlines are compared with.
    pub async fn block_time(&self) -> Result<u64, Error> {
        Ok(self.link.newest().await?.timestamp)
    }

    /// The newest block's number.
    pub async fn block_number(&self) -> Result<u64, Error> {
        self.link.block_number().await
    }

    /// What a unit of gas costs now, in wei, as the node suggests it.
    pub async fn gas_price(&self) -> Result<u128, Error> {
        self.link.chain_id().await?;
        let price: U128 = self.link.rpc.request("eth_gasPrice", ()).await?;
        Ok(price.to())
    }

    /// What the escrow did from a block on, in order, and the block to go on from next time.
    ///
    /// One call covers at most [`crate::MAX_EVENT_BLOCKS`] blocks; call again until the second part is above
    /// [`Self::block_number`]. Nothing is skipped: on an error call again with the same block.
    pub async fn events(&self, from_block: u64) -> Result<(Vec<ChainEvent>, u64), Error> {
        events::read(self, from_block).await
    }

    /// How a transaction ended: `None` while it is in no block, and perhaps never will be; [`Error::Reverted`] if it
    /// failed. If it was issued several times with different offers, whichever is in a block counts.
    pub async fn outcome(&self, transaction: Digest) -> Result<Option<Confirmed>, Error> {
        let receipt = sender::receipt_of_any(&self.link, B256::from(transaction.0)).await?;
        receipt.map(|receipt| sender::confirmed(&receipt)).transpose()
    }

    pub(crate) async fn escrow<C: SolCall>(&self, call: &C) -> Result<C::Return, Error> {
        self.link.call(abi::to_evm(self.contracts.escrow), call).await
    }

    pub(crate) async fn token<C: SolCall>(&self, call: &C) -> Result<C::Return, Error> {
        self.link.call(abi::to_evm(self.contracts.token), call).await
    }

    pub(crate) async fn models<C: SolCall>(&self, call: &C) -> Result<C::Return, Error> {
        self.link.call(abi::to_evm(self.contracts.models), call).await
    }

    pub(crate) async fn providers<C: SolCall>(&self, call: &C) -> Result<C::Return, Error> {
        self.link.call(abi::to_evm(self.contracts.providers), call).await
    }
}

/// A channel as the escrow tells it.
fn channel_state(id: ChannelId, slot: &bindings::Channel) -> Result<ChannelState, Error> {
    let flags: u32 = slot.flags.to();
    let state = ChannelState {
        funded: abi::micro96(slot.funded)?,
        redeemed: abi::micro96(slot.redeemed)?,
        closes_at: abi::seconds(slot.closeAt),
        closed: flags == CLOSED,
    };
    let known = flags == OPEN || flags == CLOSED || (flags == 0 && state == ChannelState::default());
    if !known || state.redeemed > state.funded {
        return Err(Error::corrupt(format!("the state of channel {id}")));
    }
    Ok(state)
}
