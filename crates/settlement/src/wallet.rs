//! A key that acts on chain.

use std::sync::Arc;

use alloy::{
    primitives::{B256, Bytes, FixedBytes, TxKind, U256},
    rpc::types::TransactionReceipt,
    sol_types::SolCall,
};
use rialto_protocol::{
    Address, ChannelParams, Digest, MicroDollars, ModelId, NodeKey, Region, SigningKey, manifest::Manifest,
};

use crate::{
    Chain, Confirmed, Error, abi,
    bindings::{Escrow, Models, Providers, TestDollar},
    sender::{Sender, confirmed},
};

/// A key with transactions. Cheap to clone. All wallets of a key behind one [`Chain`] and its clones share one queue, so
/// that they never take each other's nonce; other processes with the same key are reckoned with.
///
/// Every function waits until its transaction is in a block, and fails as [`Error`] says.
#[derive(Clone)]
pub struct Wallet {
    chain: Chain,
    pub(crate) sender: Arc<Sender>,
}

impl Wallet {
    /// A wallet of this key.
    pub fn new(chain: Chain, key: SigningKey) -> Self {
        Self {
            sender: Arc::new(Sender::new(Arc::clone(&chain.link), key)),
            chain,
        }
    }

    /// The key's account.
    pub fn address(&self) -> Address {
        self.sender.address()
    }

    /// The chain it acts on.
    pub fn chain(&self) -> &Chain {
        &self.chain
    }

    /// Creates test dollars. Only where the market's stablecoin is `TestDollar`; a real one refuses.
    pub async fn mint(&self, to: Address, amount: MicroDollars) -> Result<Confirmed, Error> {
        let call = TestDollar::mintCall {
            to: abi::to_evm(to),
            amount: U256::from(amount.get()),
        };
        self.act(self.chain.contracts().token, &call).await
    }

    /// Moves stablecoin from the account into its free balance in the escrow.
    ///
    /// The escrow is approved for exactly this amount first, in a transaction of its own, unless it already is.
    pub async fn deposit(&self, amount: MicroDollars) -> Result<Confirmed, Error> {
        let call = Escrow::depositCall {
            amount: abi::to_u96(amount),
        };
        self.pulled_by(self.chain.contracts().escrow, amount, &call).await
    }

    /// Opens a channel with money of the free balance.
    pub async fn open(&self, params: &ChannelParams, amount: MicroDollars) -> Result<Confirmed, Error> {
        self.check_own(params)?;
        let call = Escrow::openCall {
            signer: abi::to_evm(params.signer),
            provider: abi::to_evm(params.provider),
            modelId: B256::from(params.model.0),
            salt: abi::salt(params)?,
            amount: abi::to_u96(amount),
        };
        self.act(self.chain.contracts().escrow, &call).await
    }

    /// Opens a channel with money of the account, approved as in [`Self::deposit`].
    pub async fn deposit_and_open(&self, params: &ChannelParams, amount: MicroDollars) -> Result<Confirmed, Error> {
        self.check_own(params)?;
        let call = Escrow::depositAndOpenCall {
            signer: abi::to_evm(params.signer),
            provider: abi::to_evm(params.provider),
            modelId: B256::from(params.model.0),
            salt: abi::salt(params)?,
            amount: abi::to_u96(amount),
        };
        self.pulled_by(self.chain.contracts().escrow, amount, &call).await
    }

    /// Adds money of the free balance to an open channel.
    pub async fn top_up(&self, params: &ChannelParams, amount: MicroDollars) -> Result<Confirmed, Error> {
        self.check_own(params)?;
        let call = Escrow::topUpCall {
            signer: abi::to_evm(params.signer),
            provider: abi::to_evm(params.provider),
            modelId: B256::from(params.model.0),
            salt: abi::salt(params)?,
            amount: abi::to_u96(amount),
        };
        self.act(self.chain.contracts().escrow, &call).await
    }

    /// Announces that a channel of this payer shall close after the challenge period.
    pub async fn request_close(&self, params: &ChannelParams) -> Result<Confirmed, Error> {
        self.check_own(params)?;
        let call = Escrow::requestCloseCall {
            signer: abi::to_evm(params.signer),
            provider: abi::to_evm(params.provider),
            modelId: B256::from(params.model.0),
            salt: abi::salt(params)?,
        };
        self.act(self.chain.contracts().escrow, &call).await
    }

    /// Takes back a request to close.
    pub async fn cancel_close(&self, params: &ChannelParams) -> Result<Confirmed, Error> {
        self.check_own(params)?;
        let call = Escrow::cancelCloseCall {
            signer: abi::to_evm(params.signer),
            provider: abi::to_evm(params.provider),
            modelId: B256::from(params.model.0),
            salt: abi::salt(params)?,
        };
        self.act(self.chain.contracts().escrow, &call).await
    }

    /// Closes a channel whose challenge period has passed; anybody may.
    pub async fn finalize_close(&self, params: &ChannelParams) -> Result<Confirmed, Error> {
        let params = self.of_market(params)?;
        let call = Escrow::finalizeCloseCall { params };
        self.act(self.chain.contracts().escrow, &call).await
    }

    /// Closes a channel at once, as its provider. Redeem first: afterwards nothing can be.
    pub async fn close_by_provider(&self, params: &ChannelParams) -> Result<Confirmed, Error> {
        let params = self.of_market(params)?;
        let call = Escrow::closeByProviderCall { params };
        self.act(self.chain.contracts().escrow, &call).await
    }

    /// Takes money out of the free balance into the account.
    pub async fn withdraw(&self, amount: MicroDollars) -> Result<Confirmed, Error> {
        let call = Escrow::withdrawCall {
            amount: abi::to_u96(amount),
        };
        self.act(self.chain.contracts().escrow, &call).await
    }

    /// Takes out all royalties that were credited to the account. Refused with `ZeroAmount` if there are none.
    pub async fn claim_credit(&self) -> Result<Confirmed, Error> {
        self.claim_credit_of(self.address()).await
    }

    /// Sends an account all royalties that were credited to it; anybody may pay the gas for that.
    pub async fn claim_credit_of(&self, account: Address) -> Result<Confirmed, Error> {
        let account = abi::to_evm(account);
        self.act(self.chain.contracts().escrow, &Escrow::claimCreditCall { account })
            .await
    }

    /// Sends the fee recipient the fees that were credited beside these holders of models; anybody may. Events say who
    /// they are: [`crate::EscrowBooks::fees`]. Refused with `ZeroAmount` if there are none.
    pub async fn claim_fees(&self, holders: &[Address]) -> Result<Confirmed, Error> {
        let holders = holders.iter().map(|holder| abi::to_evm(*holder)).collect();
        self.act(self.chain.contracts().escrow, &Escrow::claimFeesCall { holders })
            .await
    }

    /// As the escrow's guardian: refuses deposits and opens for 7 days.
    pub async fn pause(&self) -> Result<Confirmed, Error> {
        self.act(self.chain.contracts().escrow, &Escrow::pauseCall {}).await
    }

    /// As the escrow's guardian: ends a pause early.
    pub async fn end_pause(&self) -> Result<Confirmed, Error> {
        self.act(self.chain.contracts().escrow, &Escrow::endPauseCall {}).await
    }

    /// Registers the account as a provider with a first stake, approved as in [`Self::deposit`].
    pub async fn register_provider(
        &self,
        stake: MicroDollars,
        node: NodeKey,
        region: Region,
        metadata: Digest,
    ) -> Result<Confirmed, Error> {
        let call = Providers::registerCall {
            stake: abi::to_u96(stake),
            nodeKey: B256::from(node.0),
            region: FixedBytes(region.0),
            metadataHash: B256::from(metadata.0),
        };
        self.pulled_by(self.chain.contracts().providers, stake, &call).await
    }

    /// Replaces what a registered provider says about itself.
    pub async fn update_provider(&self, node: NodeKey, region: Region, metadata: Digest) -> Result<Confirmed, Error> {
        let call = Providers::updateCall {
            nodeKey: B256::from(node.0),
            region: FixedBytes(region.0),
            metadataHash: B256::from(metadata.0),
        };
        self.act(self.chain.contracts().providers, &call).await
    }

    /// Registers a model with this account as its publisher and first holder. If it is registered already, nothing is
    /// sent.
    pub async fn register_model(&self, manifest: &Manifest) -> Result<ModelId, Error> {
        let model = manifest.model_id(self.address());
        if self.chain.royalty_of(model).await?.is_some() {
            return Ok(model);
        }
        let call = Models::registerCall {
            manifestHash: B256::from(manifest.hash().0),
            quantisation: manifest.quantisation.clone(),
            licence: manifest.licence.clone(),
            royaltyBps: manifest.royalty_bps,
        };
        self.act(self.chain.contracts().models, &call).await?;
        Ok(model)
    }

    /// Sends coins of the chain itself, in wei.
    pub async fn send_native(&self, to: Address, wei: u128) -> Result<Confirmed, Error> {
        let to = TxKind::Call(abi::to_evm(to));
        let receipt = self.sender.send(to, Bytes::new(), U256::from(wei)).await?;
        confirmed(&receipt)
    }

    pub(crate) async fn transact<C: SolCall>(&self, to: Address, call: &C) -> Result<TransactionReceipt, Error> {
        let to = TxKind::Call(abi::to_evm(to));
        self.sender.send(to, call.abi_encode().into(), U256::ZERO).await
    }

    /// Sends a call that is encoded already.
    pub(crate) async fn send_raw(&self, to: Address, input: Bytes) -> Result<Confirmed, Error> {
        let to = TxKind::Call(abi::to_evm(to));
        confirmed(&self.sender.send(to, input, U256::ZERO).await?)
    }

    pub(crate) async fn act<C: SolCall>(&self, to: Address, call: &C) -> Result<Confirmed, Error> {
        confirmed(&self.transact(to, call).await?)
    }

    /// Sends a call in which `spender` pulls `amount`, after approving exactly that.
    ///
    /// Exactly, because an unlimited approval would put the whole account at the mercy of the contract for ever.
    pub(crate) async fn pulled_by<C: SolCall>(
        &self,
        spender: Address,
        amount: MicroDollars,
        call: &C,
    ) -> Result<Confirmed, Error> {
        let _held = self.sender.approving().lock().await;
        if self.chain.allowance(self.address(), spender).await? < amount {
            let approve = TestDollar::approveCall {
                spender: abi::to_evm(spender),
                value: U256::from(amount.get()),
            };
            self.act(self.chain.contracts().token, &approve).await?;
        }
        self.act(spender, call).await
    }

    pub(crate) fn check_own(&self, params: &ChannelParams) -> Result<(), Error> {
        self.of_market(params)?;
        if params.payer == self.address() {
            return Ok(());
        }
        Err(Error::invalid("the channel's payer is another account"))
    }

    pub(crate) fn of_market(&self, params: &ChannelParams) -> Result<crate::bindings::ChannelParams, Error> {
        if params.token != self.chain.contracts().token {
            return Err(Error::invalid("the channel is in another stablecoin than the market's"));
        }
        abi::channel_params(params)
    }
}

/// Sends coins for gas from a funded account, such as a development chain's, in wei.
pub async fn fund_native(chain: &Chain, from: &SigningKey, to: Address, wei: u128) -> Result<Confirmed, Error> {
    let key = SigningKey::from_bytes(&from.to_bytes()).map_err(|_| Error::invalid("the key is not valid"))?;
    Wallet::new(chain.clone(), key).send_native(to, wei).await
}
