//! Before and after a deployment: what it will cost, what is there, and whether it is what was asked for.

use std::collections::BTreeMap;

use alloy::{
    primitives::{Address as EvmAddress, Bytes, U256, keccak256},
    rpc::types::TransactionRequest,
    sol_types::SolCall,
};
use rialto_protocol::{Address, Digest, ticket::Contracts};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::{
    Chain, DeployOptions, Deployment, Endpoints, Error, abi,
    bindings::{Providers, TestDollar},
    deploy::{self, ESCROW, MODELS, PROVIDERS, TEST_DOLLAR},
    link::Link,
};

/// Gas that a creation costs whatever the contract.
const CREATION_GAS: u64 = 53_000;
/// Gas for each byte of creation code: as data of the transaction, as code that is stored, and for being hashed.
const GAS_A_BYTE: u64 = 16 + 200 + 1;
/// Gas for what a constructor does; ours write a few slots at most.
const CONSTRUCTOR_GAS: u64 = 200_000;

/// A contract that will be created.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Planned {
    /// Its name in `contracts/src`.
    pub contract: &'static str,
    /// Size of the code that creates it, in bytes.
    pub creation_bytes: u64,
    /// At most this much gas.
    pub gas_at_most: u64,
}

/// What a deployment will do, and what it costs at most.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Plan {
    /// The chain.
    pub chain_id: u64,
    /// Who pays for it.
    pub deployer: Address,
    /// Whether the stablecoin is one that anybody mints: worth nothing.
    pub test_dollar: bool,
    /// What the deployer has, in wei.
    #[serde(serialize_with = "as_text")]
    pub balance_wei: u128,
    /// What is created, in order.
    pub contracts: Vec<Planned>,
    /// All gas together, at most.
    pub gas_at_most: u64,
    /// What is offered at most for a unit of gas, in wei.
    #[serde(serialize_with = "as_text")]
    pub fee_per_gas_at_most: u128,
    /// What it costs at most, in wei.
    #[serde(serialize_with = "as_text")]
    pub cost_wei_at_most: u128,
}

impl Plan {
    /// Whether the deployer can pay for it in any case.
    pub fn is_affordable(&self) -> bool {
        self.balance_wei >= self.cost_wei_at_most
    }
}

/// A contract of a market, as it is kept in a file and as it was found on the chain.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RecordedContract {
    /// Where it is.
    pub address: Address,
    /// keccak-256 of its code there.
    pub code_hash: Digest,
    /// What its constructor was given, by name, as the contract itself says it.
    pub constructor: BTreeMap<String, Value>,
}

/// A market's contracts on one chain: what a deployment leaves behind, for people and for tools.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeploymentRecord {
    /// The chain.
    pub chain_id: u64,
    /// A block before which nothing of the market happened: where to read events from.
    pub block: u64,
    /// Who created them; the account has no power over them, unless it is named in a constructor.
    pub deployer: Address,
    /// Whether the stablecoin is one that anybody mints.
    pub test_dollar: bool,
    /// `Escrow`, `Models`, `Providers` and `Token`.
    pub contracts: BTreeMap<String, RecordedContract>,
}

/// What a deployment by this account would cost, without sending anything. [`Error::NoContract`] if the stablecoin that it
/// names is none on this chain.
pub async fn plan(nodes: impl Into<Endpoints>, deployer: Address, options: &DeployOptions) -> Result<Plan, Error> {
    options.check()?;
    let nowhere = Contracts {
        token: options.token.unwrap_or_default(),
        escrow: Address::default(),
        providers: Address::default(),
        models: Address::default(),
    };
    let chain = Chain::connect(nodes, nowhere)?;
    let chain_id = chain.chain_id().await?;
    let created = [
        ("TestDollar", TEST_DOLLAR),
        ("Models", MODELS),
        ("Escrow", ESCROW),
        ("Providers", PROVIDERS),
    ];
    let mut contracts = Vec::new();
    for (contract, artifact) in created {
        if contract == "TestDollar" && options.token.is_some() {
            continue;
        }
        let bytes = u64::try_from(deploy::creation_code(artifact)?.len()).unwrap_or(u64::MAX);
        contracts.push(Planned {
            contract,
            creation_bytes: bytes,
            gas_at_most: bytes.saturating_mul(GAS_A_BYTE) + CREATION_GAS + CONSTRUCTOR_GAS,
        });
    }
    let mut test_dollar = true;
    if let Some(token) = options.token {
        // Anything that is no token at all is found out before money is spent on it.
        chain.token_balance(deployer).await?;
        test_dollar = is_test_dollar(&chain.link, token).await?;
    }
    let gas_at_most = contracts.iter().map(|planned| planned.gas_at_most).sum();
    // Room for the price to double, as the transactions have it.
    let fee_per_gas_at_most = chain.gas_price().await?.saturating_mul(2);
    Ok(Plan {
        chain_id,
        deployer,
        test_dollar,
        balance_wei: chain.native_balance(deployer).await?,
        contracts,
        gas_at_most,
        fee_per_gas_at_most,
        cost_wei_at_most: u128::from(gas_at_most).saturating_mul(fee_per_gas_at_most),
    })
}

/// What is on the chain at these addresses, by the contracts' own words.
pub async fn inspect(
    nodes: impl Into<Endpoints>,
    deployment: &Deployment,
    deployer: Address,
) -> Result<DeploymentRecord, Error> {
    let chain = Chain::connect(nodes, deployment.contracts)?;
    let chain_id = chain.chain_id().await?;
    if chain_id != deployment.chain_id {
        return Err(Error::WrongChain {
            expected: deployment.chain_id,
            found: chain_id,
        });
    }
    let Contracts {
        token,
        escrow,
        providers,
        models,
    } = deployment.contracts;
    let mut contracts = BTreeMap::new();
    let constructors = [
        ("Token", token, BTreeMap::new()),
        ("Models", models, BTreeMap::new()),
        ("Escrow", escrow, escrow_terms(&chain).await?),
        ("Providers", providers, staking_terms(&chain).await?),
    ];
    for (name, address, constructor) in constructors {
        let recorded = RecordedContract {
            address,
            code_hash: code_hash(&chain, address).await?,
            constructor,
        };
        contracts.insert(name.to_owned(), recorded);
    }
    Ok(DeploymentRecord {
        chain_id,
        block: deployment.block,
        deployer,
        test_dollar: is_test_dollar(&chain.link, token).await?,
        contracts,
    })
}

/// Whether the contracts of a deployment are on the chain, belong together, and were given what was asked for: the record
/// of them, or [`Error::Corrupt`] with what is different.
pub async fn verify(
    nodes: impl Into<Endpoints>,
    deployment: &Deployment,
    options: &DeployOptions,
    deployer: Address,
) -> Result<DeploymentRecord, Error> {
    let nodes = nodes.into();
    let chain = Chain::connect(nodes.clone(), deployment.contracts)?;
    if !chain.is_deployed().await? {
        return Err(Error::corrupt("the contracts are not there, or do not belong together"));
    }
    let record = inspect(nodes, deployment, deployer).await?;
    for (contract, wanted) in [
        ("Escrow", wanted_escrow(deployment, options)),
        ("Providers", wanted_staking(deployment, options, deployer)),
    ] {
        let found = record.contracts.get(contract).map(|recorded| &recorded.constructor);
        if found != Some(&wanted) {
            return Err(Error::corrupt(format!("{contract} was not given what was asked for")));
        }
    }
    let asked = options.token.is_none_or(|token| token == deployment.contracts.token);
    if !asked {
        return Err(Error::corrupt(
            "the market's stablecoin is not the one that was asked for",
        ));
    }
    Ok(record)
}

async fn escrow_terms(chain: &Chain) -> Result<BTreeMap<String, Value>, Error> {
    let terms = chain.terms().await?;
    Ok(named([
        ("token", json!(terms.token)),
        ("models", json!(terms.models)),
        ("guardian", json!(terms.guardian)),
        ("feeRecipient", json!(terms.fee_recipient)),
        ("feeBps", json!(terms.fee_bps)),
        ("challengePeriod", json!(terms.challenge_period)),
    ]))
}

fn wanted_escrow(deployment: &Deployment, options: &DeployOptions) -> BTreeMap<String, Value> {
    named([
        ("token", json!(deployment.contracts.token)),
        ("models", json!(deployment.contracts.models)),
        ("guardian", json!(options.guardian)),
        ("feeRecipient", json!(options.fee_recipient)),
        ("feeBps", json!(options.fee_bps)),
        ("challengePeriod", json!(options.challenge_period)),
    ])
}

async fn staking_terms(chain: &Chain) -> Result<BTreeMap<String, Value>, Error> {
    let token = chain.providers(&Providers::tokenCall {}).await?;
    let escrow = chain.providers(&Providers::escrowCall {}).await?;
    Ok(named([
        ("token", json!(abi::from_evm(token))),
        ("escrow", json!(abi::from_evm(escrow))),
        ("disputes", json!(chain.disputes().await?)),
        ("slashRecipient", json!(chain.slash_recipient().await?)),
        ("unstakeDelay", json!(chain.unstake_delay().await?)),
    ]))
}

fn wanted_staking(deployment: &Deployment, options: &DeployOptions, deployer: Address) -> BTreeMap<String, Value> {
    named([
        ("token", json!(deployment.contracts.token)),
        ("escrow", json!(deployment.contracts.escrow)),
        ("disputes", json!(options.disputes)),
        ("slashRecipient", json!(options.slash_recipient(deployer))),
        // Evidence window and margin are the contract's own: 72 and 48 hours.
        ("unstakeDelay", json!(options.dispute_window + 120 * 3_600)),
    ])
}

fn named<const N: usize>(entries: [(&str, Value); N]) -> BTreeMap<String, Value> {
    entries
        .into_iter()
        .map(|(name, value)| (name.to_owned(), value))
        .collect()
}

async fn code_hash(chain: &Chain, address: Address) -> Result<Digest, Error> {
    let code: Bytes = chain
        .link
        .rpc
        .request("eth_getCode", (abi::to_evm(address), "latest"))
        .await?;
    if code.is_empty() {
        return Err(Error::NoContract { address });
    }
    Ok(abi::digest(keccak256(&code)))
}

/// Whether anybody can mint this token: tried by minting nothing as nobody, without a transaction.
async fn is_test_dollar(link: &Link, token: Address) -> Result<bool, Error> {
    let mint = TestDollar::mintCall {
        to: EvmAddress::repeat_byte(0xee),
        amount: U256::ZERO,
    };
    let request = TransactionRequest::default()
        .from(EvmAddress::repeat_byte(0xee))
        .to(abi::to_evm(token))
        .input(mint.abi_encode().into());
    let answer: Result<Bytes, Error> = link
        .rpc
        .request("eth_call", (request, "latest"))
        .await
        .map_err(Into::into);
    match answer {
        Ok(_) => Ok(true),
        Err(Error::Reverted { .. } | Error::Rejected { .. }) => Ok(false),
        Err(error) => Err(error),
    }
}

fn as_text<S: serde::Serializer>(value: &u128, serializer: S) -> Result<S::Ok, S::Error> {
    // JSON's readers lose digits of numbers above 2^53.
    serializer.collect_str(value)
}
