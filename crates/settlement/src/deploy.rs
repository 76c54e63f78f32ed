//! Putting the market's contracts on a chain.

use std::sync::Arc;

use alloy::{
    primitives::{Bytes, TxKind, U256},
    sol_types::SolValue,
};
use rialto_protocol::{Address, SigningKey, ticket::Contracts};
use serde::Deserialize;

use crate::{Chain, Endpoints, Error, Options, abi, link::Link, sender::Sender};

pub(crate) const ESCROW: &str = include_str!("../../../contracts/artifacts/Escrow.json");
pub(crate) const MODELS: &str = include_str!("../../../contracts/artifacts/Models.json");
pub(crate) const PROVIDERS: &str = include_str!("../../../contracts/artifacts/Providers.json");
pub(crate) const TEST_DOLLAR: &str = include_str!("../../../contracts/artifacts/TestDollar.json");

/// The compiled contracts.
pub(crate) const ARTIFACTS: [&str; 4] = [ESCROW, MODELS, PROVIDERS, TEST_DOLLAR];

/// What is decided for ever when the contracts are created.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DeployOptions {
    /// The protocol's fee in basis points, at most 1,000.
    pub fee_bps: u16,
    /// Who is credited the fee; may be zero only if there is no fee.
    pub fee_recipient: Address,
    /// Seconds between a payer's request to close and the close: 15 minutes to 30 days.
    pub challenge_period: u64,
    /// Who may pause deposits and opens for a while; zero for nobody, ever.
    pub guardian: Address,
    /// Who may freeze and slash providers; zero for nobody, ever.
    pub disputes: Address,
    /// Who is credited what is taken from providers, and may not be one itself. `None` is the fee recipient, or without
    /// one the account that deploys.
    pub slash_recipient: Option<Address>,
    /// Seconds that a dispute may take, at most 30 days; stake leaves only after it.
    pub dispute_window: u64,
    /// The stablecoin; `None` creates a `TestDollar`, which anybody can mint.
    pub token: Option<Address>,
}

impl Default for DeployOptions {
    fn default() -> Self {
        Self {
            fee_bps: 0,
            fee_recipient: Address::default(),
            challenge_period: 24 * 3_600,
            guardian: Address::default(),
            disputes: Address::default(),
            slash_recipient: None,
            dispute_window: 72 * 3_600,
            token: None,
        }
    }
}

impl DeployOptions {
    /// [`Error::Invalid`] for terms that a constructor would refuse: found out before anything is paid for.
    pub fn check(&self) -> Result<(), Error> {
        const DAYS: u64 = 86_400;
        let refused = if self.fee_bps > 1_000 {
            "the fee is more than a tenth"
        } else if self.fee_bps > 0 && self.fee_recipient.is_zero() {
            "a fee needs a recipient"
        } else if !(900..=30 * DAYS).contains(&self.challenge_period) {
            "the challenge period is not between 15 minutes and 30 days"
        } else if self.dispute_window > 30 * DAYS {
            "the dispute window is longer than 30 days"
        } else if self.slash_recipient.is_some_and(|recipient| recipient.is_zero()) {
            "what is taken from providers needs a recipient"
        } else if self.token.is_some_and(|token| token.is_zero()) {
            "the stablecoin's address is zero"
        } else {
            return Ok(());
        };
        Err(Error::invalid(refused))
    }

    /// Who is credited what is taken from providers, when this account deploys.
    pub fn slash_recipient(&self, deployer: Address) -> Address {
        let fee_recipient = Some(self.fee_recipient).filter(|recipient| !recipient.is_zero());
        self.slash_recipient.or(fee_recipient).unwrap_or(deployer)
    }
}

/// Contracts on a chain; the caller keeps a record of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Deployment {
    /// Their addresses.
    pub contracts: Contracts,
    /// The chain's id.
    pub chain_id: u64,
    /// A block before which nothing of the market happened: where to read events from.
    pub block: u64,
    /// Whether they were created by this call.
    pub created: bool,
}

/// Creates the contracts anew; the key pays for gas and keeps no power over them.
pub async fn deploy(
    nodes: impl Into<Endpoints>,
    key: &SigningKey,
    options: &DeployOptions,
) -> Result<Deployment, Error> {
    options.check()?;
    let link = Arc::new(Link::new(&nodes.into(), Options::default())?);
    let chain_id = link.chain_id().await?;
    let block = link.block_number().await?.saturating_add(1);
    let copy = SigningKey::from_bytes(&key.to_bytes()).map_err(|_| Error::invalid("the key is not valid"))?;
    let sender = Sender::new(link, copy);

    let token = match options.token {
        Some(token) => token,
        None => create(&sender, TEST_DOLLAR, Vec::new()).await?,
    };
    let models = create(&sender, MODELS, Vec::new()).await?;
    let terms = (
        abi::to_evm(token),
        abi::to_evm(models),
        abi::to_evm(options.guardian),
        abi::to_evm(options.fee_recipient),
        U256::from(options.fee_bps),
        U256::from(options.challenge_period),
    );
    let escrow = create(&sender, ESCROW, terms.abi_encode_params()).await?;
    let staking = (
        abi::to_evm(token),
        abi::to_evm(escrow),
        abi::to_evm(options.disputes),
        abi::to_evm(options.slash_recipient(sender.address())),
        U256::from(options.dispute_window),
    );
    let providers = create(&sender, PROVIDERS, staking.abi_encode_params()).await?;
    Ok(Deployment {
        contracts: Contracts {
            token,
            escrow,
            providers,
            models,
        },
        chain_id,
        block,
        created: true,
    })
}

/// The recorded contracts if they are still there, else new ones: the chain may have been reset since.
///
/// An earlier deployment that was cut off before it was recorded leaves contracts behind that nobody uses.
pub async fn ensure_deployed(
    nodes: impl Into<Endpoints>,
    key: &SigningKey,
    options: &DeployOptions,
    recorded: Option<Deployment>,
) -> Result<Deployment, Error> {
    let nodes = nodes.into();
    let Some(recorded) = recorded else {
        return deploy(nodes, key, options).await;
    };
    let chain = Chain::connect(nodes.clone(), recorded.contracts)?;
    if chain.chain_id().await? == recorded.chain_id && chain.is_deployed().await? {
        return Ok(Deployment {
            created: false,
            ..recorded
        });
    }
    deploy(nodes, key, options).await
}

#[derive(Deserialize)]
struct Artifact {
    bytecode: Bytes,
}

/// The code that creates a contract, without the constructor's arguments.
pub(crate) fn creation_code(artifact: &str) -> Result<Bytes, Error> {
    let artifact: Artifact =
        serde_json::from_str(artifact).map_err(|_| Error::invalid("a compiled contract of this build is damaged"))?;
    Ok(artifact.bytecode)
}

async fn create(sender: &Sender, artifact: &str, arguments: Vec<u8>) -> Result<Address, Error> {
    let code = [creation_code(artifact)?.as_ref(), &arguments].concat();
    let receipt = sender.send(TxKind::Create, code.into(), U256::ZERO).await?;
    let address = receipt
        .contract_address
        .ok_or_else(|| Error::corrupt("a created contract has no address"))?;
    Ok(abi::from_evm(address))
}
