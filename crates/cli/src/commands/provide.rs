//! `rialto provide`: the seller's room.

mod bids;
mod limits;
mod pricing;
mod upstream;

use std::{collections::BTreeMap, path::PathBuf, sync::Arc, time::Duration};

use anyhow::{Context, Result, bail};
use prometheus_client::registry::Registry;
use rialto_engine::{Engine, LoadOptions, Mode};
use rialto_machine::{Hardware, Meter};
use rialto_network::{Node, NodeConfig};
use rialto_protocol::{
    Address, MicroDollars, ModelId, Price, Region, SigningKey,
    manifest::Manifest,
    wire::{OffersRequest, OffersResponse},
};
use rialto_provider::{Config, Listing, Metrics, Parts, Provider, RedeemPolicy, RelayPolicy, Trust};
use rialto_settlement::Wallet;
use serde_json::json;

use super::{
    bench::{Bench, Benchmark},
    metrics,
    price::Terms,
};
use crate::{
    args, flow, keys,
    market::{Market, Record},
    models::Found,
    output,
    settings::{Reach, Settings},
    setup,
};

/// What a provider stakes unless its configuration says otherwise.
const DEFAULT_STAKE: MicroDollars = MicroDollars::new(100_000_000);

/// Where this role's store is, in the data directory.
pub(crate) const STORE: &str = "provider/provider.sqlite";

/// Sells until it is stopped.
pub(crate) async fn run(settings: &Settings, options: &args::Provide) -> Result<()> {
    let _lock = settings.dir.lock_after("provider", options.place.supervised).await?;
    let market = Market::find(settings, &options.place)?;
    market.remember(settings)?;
    let key = keys::account(&settings.dir, "provider/account.json")?;
    let node = node(settings, options).await?;
    let region = region(settings, options)?;
    let wallet = Wallet::new(market.chain.clone(), SigningKey::from_bytes(&key.to_bytes())?);
    let stake = match &settings.file.provider.stake {
        Some(text) => MicroDollars::from_dollars(text).context("`provider.stake`: dollars, such as 100")?,
        None => DEFAULT_STAKE,
    };
    let newcomer = setup::Newcomer {
        node: node.key(),
        region,
        is_new: !settings.dir.path(STORE).exists(),
        move_here: options.move_here,
    };
    setup::enrol(&market, &wallet, newcomer, stake).await?;
    let hardware = Hardware::detect();
    let meter = Arc::new(Meter::new(&hardware));
    let bench = Bench::new(hardware, meter.clone());
    let mut costs = BTreeMap::new();
    let listings = listings(settings, options, &market, &node, &wallet, &bench, &mut costs).await?;
    let names: Vec<String> = listings.iter().map(|listing| listing.manifest.listing()).collect();

    let config = Config {
        region,
        redeem: redeem_policy(settings, options, &market)?,
        trust: trust(settings, &market)?,
        relay: relay_policy(settings)?,
        bids: bids::policy(&settings.file.provider.bids, costs),
        ..limits::config(&settings.file.provider.limits)
    };
    let mut registry = Registry::default();
    let parts = Parts {
        node: node.clone(),
        wallet,
        key: Arc::new(key),
        listings,
        meeting: market.ticket.meeting.clone(),
        store: settings.dir.path(STORE),
        meter: Some(meter),
        config,
        metrics: Metrics::register(&mut registry),
    };
    let account = parts.key.address();
    let provider = Provider::start(parts).await?;
    if let Some(address) = options.metrics_listen.or(settings.file.provider.metrics_listen) {
        metrics::serve(address, registry).await?;
    }
    let ready = json!({ "ready": "provider", "provider": account, "node": node.peer(), "models": names });
    output::either(settings.json, &ready, || {
        output::line(format_args!("selling {} as {account}", names.join(", ")));
    })?;
    flow::until_stopped(options.place.supervised).await;
    provider.shutdown().await;
    Ok(())
}

async fn node(settings: &Settings, options: &args::Provide) -> Result<Node> {
    let secret = keys::node_secret(&settings.dir, "provider/node.key")?;
    let Reach { relay, default_listen } = settings.reach(&options.place);
    let given = options.place.node_listen.or(settings.file.provider.node_listen);
    let listen = given.unwrap_or(default_listen);
    Ok(Node::bind(NodeConfig { secret, listen, relay }).await?)
}

fn region(settings: &Settings, options: &args::Provide) -> Result<Region> {
    let Some(name) = options.region.as_ref().or(settings.file.provider.region.as_ref()) else {
        return Ok(Region::default());
    };
    Region::from_name(name).with_context(|| format!("the region `{name}`: at most eight printable characters"))
}

/// How far money on chain is trusted. On a development chain blocks are replaced only by whoever plays with it.
fn trust(settings: &Settings, market: &Market) -> Result<Trust> {
    let file = &settings.file.provider;
    let default = match setup::is_development(market.ticket.chain_id) {
        true => 0,
        false => Trust::default().confirmations,
    };
    Ok(Trust {
        confirmations: file.confirmations.unwrap_or(default),
        unconfirmed: match &file.unconfirmed {
            Some(text) => MicroDollars::from_dollars(text).context("`provider.unconfirmed`: dollars, such as 1")?,
            None => Trust::default().unconfirmed,
        },
    })
}

fn relay_policy(settings: &Settings) -> Result<RelayPolicy> {
    let file = &settings.file.provider;
    let default = RelayPolicy::default();
    let dollars = |text: &Option<String>, name: &str, usual| match text {
        Some(text) => {
            MicroDollars::from_dollars(text).with_context(|| format!("`provider.{name}`: dollars, such as 1"))
        }
        None => Ok(usual),
    };
    Ok(RelayPolicy {
        min_amount: dollars(&file.relay_minimum, "relay_minimum", default.min_amount)?,
        credit: dollars(&file.relay_credit, "relay_credit", default.credit)?,
        credit_in_all: dollars(&file.relay_credit_in_all, "relay_credit_in_all", default.credit_in_all)?,
        max_cost: match file.relay_max_gwei {
            Some(gwei) => u128::from(gwei) * 1_000_000_000,
            None => default.max_cost,
        },
        ..default
    })
}

fn redeem_policy(settings: &Settings, options: &args::Provide, market: &Market) -> Result<RedeemPolicy> {
    let file = &settings.file.provider;
    let after = options.redeem_after.or(file.redeem_after);
    let default = RedeemPolicy::default();
    let coin_price = file.coin_price.as_ref().map(|text| {
        MicroDollars::from_dollars(text).context("`provider.coin_price`: dollars for one coin, such as 3000")
    });
    let default = RedeemPolicy {
        coin_price: coin_price.transpose()?,
        gas_multiple: file.gas_multiple.unwrap_or(default.gas_multiple),
        ..default
    };
    if setup::is_development(market.ticket.chain_id) && after.is_none() {
        // Gas costs nothing here, and a newcomer wants to see the money move.
        let interval = Duration::from_millis(200);
        return Ok(RedeemPolicy {
            min_value: MicroDollars::new(1),
            max_age: Duration::from_secs(1),
            interval,
            ..default
        });
    }
    Ok(RedeemPolicy {
        max_age: after.map_or(default.max_age, Duration::from_secs),
        ..default
    })
}

/// The models to sell, loaded.
async fn listings(
    settings: &Settings,
    options: &args::Provide,
    market: &Market,
    node: &Node,
    wallet: &Wallet,
    bench: &Bench,
    costs: &mut BTreeMap<ModelId, Price>,
) -> Result<Vec<Listing>> {
    let file = &settings.file.provider;
    let named: &[PathBuf] = if options.models.is_empty() {
        &file.models
    } else {
        &options.models
    };
    let sold = upstream::sold(named, &file.upstream)?;
    let pricing = pricing::Pricing::new(settings, options, market, node, wallet.address()).await?;
    let load = load_options(settings, options.slots, options.threads);
    let mut listings = Vec::new();
    for (model, server) in sold {
        let publisher = publisher(settings, options, market, node, &model.manifest).await?;
        if !is_registered(market, publisher, &model.manifest).await {
            bail!(
                "{} is not registered on chain by {publisher}: `rialto model publish {}` does that",
                model.manifest.listing(),
                model.path.display()
            );
        }
        let (engine, measured) = match server {
            // What it draws is not known here, and its work may cost money.
            Some(server) => (upstream::connect(&model, server).await?, None),
            None => {
                let engine = self::load(&model, &load).await?;
                let measured = measured(settings, options, bench, &model, engine.as_ref(), &load).await;
                (engine, measured)
            }
        };
        if let Some(measured) = &measured {
            let cost = bids::cost(&Terms::new(settings, None, None)?, measured);
            costs.insert(model.manifest.model_id(publisher), cost);
        }
        listings.push(Listing {
            price: pricing.of(&model, measured.as_ref())?,
            energy_millijoules: measured.as_ref().map_or(0, Benchmark::millijoules),
            manifest: model.manifest,
            publisher,
            engine,
        });
    }
    tracing::info!(account = %wallet.address(), models = listings.len(), "models loaded");
    Ok(listings)
}

/// Whether the chain knows the model; while it cannot be asked, what was sold before is sold on.
async fn is_registered(market: &Market, publisher: Address, manifest: &Manifest) -> bool {
    let known = market.chain.royalty_of(manifest.model_id(publisher)).await;
    known.map_or_else(|error| error.is_retryable(), |royalty| royalty.is_some())
}

/// Who published a model: as said, as founded here, as others sell it, or this machine's own publisher.
async fn publisher(
    settings: &Settings,
    options: &args::Provide,
    market: &Market,
    node: &Node,
    manifest: &Manifest,
) -> Result<Address> {
    if let Some(text) = &options.publisher {
        return text.parse().with_context(|| format!("the publisher `{text}`"));
    }
    if let Some(record) = Record::load(settings)? {
        return Ok(record.publisher);
    }
    if let Some(key) = keys::existing(&settings.dir, "publisher/account.json")? {
        return Ok(key.address());
    }
    for peer in &market.ticket.meeting {
        let Ok(OffersResponse::Book(book)) = node.offers(peer, &OffersRequest::Browse).await else {
            continue;
        };
        if let Some(known) = book.iter().find(|one| *one.manifest == *manifest) {
            return Ok(known.offer.publisher);
        }
    }
    bail!(
        "nobody sells {} in this market yet: name its publisher with --publisher ADDRESS",
        manifest.listing()
    )
}

/// How models are loaded here.
pub(super) fn load_options(settings: &Settings, slots: Option<u32>, threads: Option<u32>) -> LoadOptions {
    let file = &settings.file.provider;
    let default = LoadOptions::default();
    LoadOptions {
        slots: slots.or(file.slots).unwrap_or(default.slots),
        threads: threads.or(file.threads),
        mode: if file.exact { Mode::Exact } else { Mode::Fast },
        ..default
    }
}

/// Loads a model, and says so.
pub(super) async fn load(model: &Found, options: &LoadOptions) -> Result<Arc<dyn Engine>> {
    let step = output::step(format!("loading {}", model.manifest.listing()));
    let loaded = rialto_engine::load(&model.manifest, model.folder(), options).await;
    let engine = loaded.with_context(|| model.manifest.listing())?;
    step.done(&engine.info().class);
    Ok(engine)
}

/// What was measured of a model here, now or before. A model that cannot be measured is sold all the same.
async fn measured(
    settings: &Settings,
    options: &args::Provide,
    bench: &Bench,
    model: &Found,
    engine: &dyn Engine,
    load: &LoadOptions,
) -> Option<Benchmark> {
    let kept = bench.kept(&settings.dir, model, engine, load);
    // A supervisor waits for a market to be up, not for figures.
    if kept.is_some() || options.no_bench || options.place.supervised {
        return kept;
    }
    match bench.measure(&settings.dir, model, engine, load).await {
        Ok(measured) => {
            output::say(format_args!("  {}: {}", measured.model, measured.said()));
            Some(measured)
        }
        Err(error) => {
            tracing::warn!(error = format!("{error:#}"), "the model was not measured");
            None
        }
    }
}
