//! `rialto gateway`: the buyer's room.

use std::{net::SocketAddr, sync::Arc};

use anyhow::{Context, Result};
use rialto_engine::{ApiKey, server_root};
use rialto_gateway::{Config, Gas, Gateway, OwnServer, Parts};
use rialto_network::{Node, NodeConfig};
use rialto_protocol::{Address, MicroDollars, SigningKey};
use rialto_settlement::{Error, Wallet};
use serde_json::json;

use crate::{
    args, flow, keys,
    market::Market,
    output,
    settings::{OwnFile, Reach, Settings},
    setup,
};

/// Where it answers when nothing else is said.
pub(crate) const DEFAULT_LISTEN: ([u8; 4], u16) = ([127, 0, 0, 1], 8080);

/// Where this role's store is, in the data directory.
pub(crate) const STORE: &str = "gateway/gateway.sqlite";

/// The file with the owner's API key.
pub(crate) const API_KEY: &str = "gateway/api-key";

/// The file with the base URL of the gateway that ran last.
pub(crate) const ADDRESS: &str = "gateway/base-url";

/// The file with the UDP address of its node: those who joined by a ticket find it there again after a restart.
const NODE_ADDRESS: &str = "gateway/node-listen";

/// Requests that a server of the owner's is given at the same time when nothing else is said: it queues by itself.
const OWN_SLOTS: usize = 256;

/// Serves until it is stopped.
pub(crate) async fn run(settings: &Settings, options: &args::Gateway) -> Result<()> {
    let _lock = settings.dir.lock_after("gateway", options.place.supervised).await?;
    let market = Market::find(settings, &options.place)?;
    market.remember(settings)?;
    let owner = keys::account(&settings.dir, "gateway/owner.json")?;
    let session = Arc::new(keys::account(&settings.dir, "gateway/session.json")?);
    let node = node(settings, options).await?;
    let wallet = Wallet::new(market.chain.clone(), SigningKey::from_bytes(&owner.to_bytes())?);
    let config = config(settings, options)?;
    match fund(&market, owner.address(), &config).await {
        Ok(()) => {}
        // Trades go on within open channels while the chain is away.
        Err(error) if is_unreachable(&error) => tracing::warn!(%error, "the buyer's balance was not checked"),
        Err(error) => return Err(error),
    }

    let listen = options
        .listen
        .or(settings.file.gateway.listen)
        .unwrap_or_else(|| DEFAULT_LISTEN.into());
    let gateway = Gateway::start(Parts {
        node: node.clone(),
        wallet,
        session,
        domain: market.domain(),
        store: settings.dir.path(STORE),
        listen,
        meeting: market
            .ticket
            .meeting
            .iter()
            .filter(|peer| peer.node != node.key())
            .cloned()
            .collect(),
        own: own(&settings.file.gateway.own)?,
        config,
    })
    .await?;
    let base_url = format!("http://{}/v1", gateway.local_addr());
    settings.dir.write(ADDRESS, &base_url)?;
    let ready = json!({ "ready": "gateway", "base_url": base_url, "payer": owner.address(), "node": node.peer() });
    output::either(settings.json, &ready, || {
        output::line(format_args!("gateway at {base_url}, paying from {}", owner.address()));
    })?;
    flow::until_stopped(options.place.supervised).await;
    gateway.shutdown().await;
    Ok(())
}

/// The stablecoin for a first channel, and coins unless the sellers send what the buyer signs.
async fn fund(market: &Market, owner: Address, config: &Config) -> Result<()> {
    let chain_id = market.ticket.chain_id;
    let needs_coin = match config.gas {
        Gas::Wallet => true,
        Gas::Seller => false,
        Gas::Auto => setup::is_development(chain_id),
    };
    let (needed, faucet) = (config.channel_deposit, setup::Faucet::Gateway);
    if needs_coin {
        setup::fund(&market.chain, chain_id, owner, needed, faucet).await
    } else {
        setup::fund_token(&market.chain, chain_id, owner, needed, faucet).await
    }
}

fn is_unreachable(error: &anyhow::Error) -> bool {
    error.downcast_ref::<Error>().is_some_and(Error::is_retryable)
}

/// The node listens where it listened last, unless told otherwise.
async fn node(settings: &Settings, options: &args::Gateway) -> Result<Node> {
    let Reach { relay, default_listen } = settings.reach(&options.place);
    let given = options.place.node_listen.or(settings.file.gateway.node_listen);
    let kept: Option<SocketAddr> = settings
        .dir
        .read(NODE_ADDRESS)?
        .and_then(|text| text.trim().parse().ok());
    let kept = kept.map(|kept| SocketAddr::new(default_listen.ip(), kept.port()));
    let listen = given.or(kept).unwrap_or(default_listen);
    let bind = |listen| {
        let secret = keys::node_secret(&settings.dir, "gateway/node.key");
        let relay = relay.clone();
        async move {
            anyhow::Ok(
                Node::bind(NodeConfig {
                    secret: secret?,
                    listen,
                    relay,
                })
                .await?,
            )
        }
    };
    let node = match bind(listen).await {
        Ok(node) => node,
        Err(_) if given.is_none() => bind(default_listen).await?,
        Err(error) => return Err(error),
    };
    if let Some(address) = node.peer().addresses.first() {
        settings.dir.write(NODE_ADDRESS, address)?;
    }
    Ok(node)
}

/// The owner's own servers, with their keys.
fn own(files: &[OwnFile]) -> Result<Vec<OwnServer>> {
    let server = |file: &OwnFile| -> Result<OwnServer> {
        let key = file.api_key_file.as_deref().map(ApiKey::read).transpose()?;
        Ok(OwnServer {
            root: server_root(&file.url, key.is_some())?,
            key: key.as_ref().and_then(ApiKey::header),
            models: file.models.clone(),
            slots: file.slots.unwrap_or(OWN_SLOTS),
            overflow: file.overflow,
        })
    };
    let server = |file| server(file).with_context(|| format!("`gateway.own` at {}", file.url));
    files.iter().map(server).collect()
}

fn config(settings: &Settings, options: &args::Gateway) -> Result<Config> {
    let file = &settings.file.gateway;
    let mut config = Config {
        aliases: file.aliases.clone(),
        list_prices: file.list_prices.clone(),
        gas: file.gas,
        batches: file.batches.clone(),
        connections: file.connections,
        ..Config::default()
    };
    config.neighbours = file.neighbours.unwrap_or(config.neighbours);
    config.standby_channels = file.standby_channels.unwrap_or(config.standby_channels);
    if let Some(text) = options.channel_deposit.as_ref().or(file.channel_deposit.as_ref()) {
        config.channel_deposit =
            MicroDollars::from_dollars(text).context("the channel's deposit: dollars, such as 1")?;
    }
    Ok(config)
}
