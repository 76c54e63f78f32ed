//! A whole market in one process: a chain in memory, providers with simulated engines, a gateway. Real QUIC, real
//! signatures, real stores; only the model is pretended.

use std::{net::SocketAddr, path::PathBuf, sync::Arc, time::Duration};

use anyhow::{Context, Result};
use rialto_devchain::{Config as ChainConfig, DEFAULT_CHAIN_ID, Devchain, development_keys};
use rialto_engine::{SimulatedConfig, SimulatedEngine};
use rialto_gateway::{Config as GatewayConfig, Gateway, Store};
use rialto_network::{Node, NodeConfig};
use rialto_protocol::{
    Digest, MicroDollars, Price, Region, SigningKey,
    manifest::{Artifact, Format, Manifest, SCHEMA, TaskKind},
    ticket::{Peer, Ticket},
};
use rialto_provider::{Config as ProviderConfig, Listing, Metrics, Provider, RedeemPolicy};
use rialto_settlement::{Chain, DeployOptions, Wallet, deploy};
use tempfile::TempDir;
use tokio::runtime::Handle;
use zeroize::Zeroizing;

use crate::{PATIENCE, client::Client};

/// What the market sells.
pub const MODEL: &str = "rialto/simulated:v1";

/// What everybody is given, in micro-dollars.
const PLAY_MONEY: MicroDollars = MicroDollars::new(10_000_000_000);

/// How the market is built.
#[derive(Debug, Clone)]
pub struct Plan {
    /// Providers, each with an engine of its own.
    pub providers: usize,
    /// How the engines behave.
    pub engine: SimulatedConfig,
    /// When earnings are claimed.
    pub redeem: RedeemPolicy,
    /// Where the gateway runs, if not with everything else: then its processor time can be told from the others'.
    pub gateway_runs_on: Option<Handle>,
    /// Requests that may wait at a provider.
    pub queue: usize,
}

impl Default for Plan {
    fn default() -> Self {
        let interval = Duration::from_millis(200);
        Self {
            providers: 1,
            engine: SimulatedConfig {
                slots: 64,
                queue: 1_024,
                ..SimulatedConfig::default()
            },
            gateway_runs_on: None,
            redeem: RedeemPolicy {
                min_value: MicroDollars::new(1),
                max_age: Duration::from_secs(1),
                interval,
                ..RedeemPolicy::default()
            },
            queue: 1_024,
        }
    }
}

/// A running market.
pub struct Market {
    folder: TempDir,
    devchain: Devchain,
    gateway: Gateway,
    providers: Vec<Provider>,
    engines: Vec<Arc<SimulatedEngine>>,
    peers: Vec<Peer>,
    chain: Chain,
    api_key: String,
}

impl Market {
    /// Builds it, in the order in which a real one comes to be, and waits until every seller is known.
    pub async fn start(plan: Plan) -> Result<Self> {
        let folder = tempfile::tempdir()?;
        let listen = SocketAddr::from(([127, 0, 0, 1], 0));
        let devchain = Devchain::start(ChainConfig {
            data_dir: None,
            listen,
            chain_id: DEFAULT_CHAIN_ID,
        })
        .await?;
        let founder = development_key(0)?;
        let options = DeployOptions {
            fee_bps: 100,
            fee_recipient: founder.address(),
            ..DeployOptions::default()
        };
        let deployment = deploy(&devchain.rpc_url(), &founder, &options).await?;
        let chain = Chain::connect(&devchain.rpc_url(), deployment.contracts)?;
        let publisher = Wallet::new(chain.clone(), founder);
        publisher.register_model(&manifest()).await?;

        let buyer = development_key(1)?;
        publisher.mint(buyer.address(), PLAY_MONEY).await?;
        let runtime = plan.gateway_runs_on.clone().unwrap_or_else(Handle::current);
        let node = runtime.spawn(node(1)).await??;
        let ticket = Ticket {
            chain_id: deployment.chain_id,
            rpc_url: devchain.rpc_url(),
            contracts: deployment.contracts,
            meeting: vec![node.peer()],
        };
        let path = folder.path().join("gateway.sqlite");
        let api_key = Store::open(&path).await?.create_key("market", None).await?.secret;
        let parts = rialto_gateway::Parts {
            node,
            wallet: Wallet::new(chain.clone(), buyer),
            session: Arc::new(SigningKey::from_bytes(&[77; 32])?),
            domain: ticket.domain(),
            store: path,
            listen,
            meeting: Vec::new(),
            own: Vec::new(),
            config: GatewayConfig {
                channel_deposit: MicroDollars::new(100_000_000),
                ..GatewayConfig::default()
            },
        };
        let gateway = runtime.spawn(Gateway::start(parts)).await??;
        let mut market = Self {
            folder,
            devchain,
            gateway,
            providers: Vec::new(),
            engines: Vec::new(),
            peers: Vec::new(),
            chain,
            api_key,
        };
        for number in 0..plan.providers {
            market.join(&plan, &publisher, &ticket, number).await?;
        }
        market.wait_for_sellers().await?;
        Ok(market)
    }

    async fn join(&mut self, plan: &Plan, publisher: &Wallet, ticket: &Ticket, number: usize) -> Result<()> {
        let key = development_key(2 + number)?;
        publisher.mint(key.address(), PLAY_MONEY).await?;
        let wallet = Wallet::new(self.chain.clone(), SigningKey::from_bytes(&key.to_bytes())?);
        let node = node(u8::try_from(2 + number)?).await?;
        let peer = node.peer();
        let stake = MicroDollars::new(100_000_000);
        wallet
            .register_provider(stake, node.key(), Region::default(), Digest::default())
            .await?;
        let engine = Arc::new(SimulatedEngine::new(plan.engine.clone()));
        let listing = Listing {
            manifest: manifest(),
            publisher: publisher.address(),
            engine: engine.clone(),
            price: Price {
                input: 100,
                output: 400,
                request: 0,
            }
            .into(),
            energy_millijoules: 0,
        };
        let provider = Provider::start(rialto_provider::Parts {
            node,
            wallet,
            key: Arc::new(key),
            listings: vec![listing],
            meeting: ticket.meeting.clone(),
            store: self.path(&format!("provider-{number}.sqlite")),
            meter: None,
            config: ProviderConfig {
                redeem: plan.redeem,
                queue: plan.queue,
                ..ProviderConfig::default()
            },
            metrics: Metrics::register(&mut prometheus_client::registry::Registry::default()),
        })
        .await?;
        self.providers.push(provider);
        self.engines.push(engine);
        self.peers.push(peer);
        Ok(())
    }

    async fn wait_for_sellers(&self) -> Result<()> {
        let wait = async {
            while self
                .client()
                .get("/v1/models")
                .await
                .map(|(_, body)| !body.to_string().contains(MODEL))?
            {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
            anyhow::Ok(())
        };
        tokio::time::timeout(PATIENCE, wait).await.context("no offer arrived")?
    }

    /// A client of the gateway.
    pub fn client(&self) -> Client {
        Client::new(&format!("http://{}/v1", self.gateway.local_addr()), &self.api_key)
    }

    /// The gateway.
    pub fn gateway(&self) -> &Gateway {
        &self.gateway
    }

    /// The chain.
    pub fn chain(&self) -> &Chain {
        &self.chain
    }

    /// The providers.
    pub fn providers(&self) -> &[Provider] {
        &self.providers
    }

    /// Their engines, in the same order.
    pub fn engines(&self) -> &[Arc<SimulatedEngine>] {
        &self.engines
    }

    /// How their nodes are reached, in the same order.
    pub fn peers(&self) -> &[Peer] {
        &self.peers
    }

    /// A path in the market's folder.
    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// The API key of [`Self::client`].
    pub fn api_key(&self) -> &str {
        &self.api_key
    }

    /// Ends everything in order.
    pub async fn stop(self) -> Result<()> {
        self.gateway.shutdown().await;
        for provider in self.providers {
            provider.shutdown().await;
        }
        self.devchain.shutdown().await?;
        Ok(())
    }
}

/// The manifest of the simulated model; its file does not exist.
pub fn manifest() -> Manifest {
    Manifest {
        schema: SCHEMA,
        publisher_name: "rialto".into(),
        name: "simulated".into(),
        tag: "v1".into(),
        task: TaskKind::Chat,
        description: "a simulated model".into(),
        quantisation: "none".into(),
        licence: "MIT OR Apache-2.0".into(),
        royalty_bps: 500,
        context_length: 4_096,
        format: Format::Gguf,
        chat_template_hash: String::new(),
        tokenizer_hash: String::new(),
        artifacts: vec![Artifact {
            path: "none.gguf".into(),
            blake3: Digest::default(),
            size: 0,
        }],
        inputs: Vec::new(),
        outputs: Vec::new(),
    }
}

fn development_key(number: usize) -> Result<SigningKey> {
    let keys = development_keys();
    let key = keys.get(number).context("not so many development accounts")?;
    Ok(SigningKey::from_bytes(&key.secret)?)
}

async fn node(number: u8) -> Result<Node> {
    let listen = SocketAddr::from(([127, 0, 0, 1], 0));
    Ok(Node::bind(NodeConfig {
        secret: Zeroizing::new([number; 32]),
        listen,
        relay: None,
    })
    .await?)
}
