//! `rialto model`: what models are here, whether their files are whole, and what the chain knows of them.

use std::path::Path;

use anyhow::{Context, Result, bail};
use rialto_protocol::{MicroDollars, ModelId, SigningKey};
use rialto_settlement::Wallet;
use serde_json::json;

use crate::{
    args::{self, Place},
    keys,
    market::{Market, Record},
    models::{self, Found},
    output,
    settings::Settings,
    setup,
};

/// Does what was asked for.
pub(crate) async fn run(settings: &Settings, action: &args::Model) -> Result<()> {
    match action {
        args::Model::List => list(settings).await,
        args::Model::Verify { manifest } => verify(settings, manifest).await,
        args::Model::Bench { manifests } => super::bench::run(settings, manifests).await,
        args::Model::Publish { manifest, ticket } => publish(settings, manifest, ticket.as_ref()).await,
        args::Model::Royalty { id, basis_points } => royalty(settings, id, *basis_points).await,
    }
}

async fn list(settings: &Settings) -> Result<()> {
    let found = models::find(&settings.file.provider.models)?;
    let record = Record::load(settings)?;
    let mut rows = Vec::new();
    let mut values = Vec::new();
    for model in &found {
        let manifest = &model.manifest;
        let id = record.as_ref().map(|record| manifest.model_id(record.publisher));
        let size: u64 = manifest.artifacts.iter().map(|artifact| artifact.size).sum();
        values.push(json!({
            "model": manifest.listing(), "id": id, "manifest": manifest.hash(), "task": manifest.task,
            "quantisation": manifest.quantisation, "licence": manifest.licence, "royalty_bps": manifest.royalty_bps,
            "bytes": size, "path": model.path,
        }));
        rows.push(vec![
            manifest.listing(),
            manifest.quantisation.clone(),
            format!(
                "{:.1} MB",
                f64::from(u32::try_from(size / 1_000).unwrap_or(u32::MAX)) / 1_000.0
            ),
            format!("{}.{:02} %", manifest.royalty_bps / 100, manifest.royalty_bps % 100),
            manifest.licence.clone(),
            id.map_or_else(|| "not in a market yet".into(), |id| id.to_string()),
        ]);
    }
    output::either(settings.json, &values, || {
        output::table(&["MODEL", "QUANTISATION", "SIZE", "ROYALTY", "LICENCE", "ID"], &rows);
    })
}

async fn verify(settings: &Settings, path: &Path) -> Result<()> {
    let model = Found::read(path)?;
    let step = output::step(format!("hashing {}", model.manifest.listing()));
    let load = rialto_engine::LoadOptions::default();
    let loaded = rialto_engine::load(&model.manifest, model.folder(), &load).await;
    let class = loaded.with_context(|| model.manifest.listing())?.info().class.clone();
    step.done("whole, and an engine loads it");
    let value = json!({ "model": model.manifest.listing(), "manifest": model.manifest.hash(), "engine": class });
    output::either(settings.json, &value, || {
        output::line(format_args!("{} {}", model.manifest.listing(), model.manifest.hash()));
    })
}

async fn publish(settings: &Settings, path: &Path, ticket: Option<&String>) -> Result<()> {
    let model = Found::read(path)?;
    let market = Market::find(
        settings,
        &Place {
            ticket: ticket.cloned(),
            ..Place::default()
        },
    )?;
    let key = keys::account(&settings.dir, "publisher/account.json")?;
    let account = key.address();
    let chain_id = market.ticket.chain_id;
    setup::fund(
        &market.chain,
        chain_id,
        account,
        MicroDollars::ZERO,
        setup::Faucet::Founder,
    )
    .await?;
    let wallet = Wallet::new(market.chain.clone(), SigningKey::from_bytes(&key.to_bytes())?);
    let id = wallet.register_model(&model.manifest).await?;
    let Some((holder, royalty)) = market.chain.royalty_of(id).await? else {
        bail!("the chain does not know the model that was just registered: was it reset meanwhile?");
    };
    let value = json!({ "model": model.manifest.listing(), "id": id, "publisher": account, "holder": holder, "royalty_bps": royalty });
    output::either(settings.json, &value, || {
        output::line(format_args!(
            "{} is published as {id}; {holder} earns {royalty} basis points",
            model.manifest.listing()
        ));
    })
}

async fn royalty(settings: &Settings, id: &str, basis_points: u16) -> Result<()> {
    let id: ModelId = id.parse().context("the model's id")?;
    let market = Market::find(settings, &Place::default())?;
    let key = keys::existing(&settings.dir, "publisher/account.json")?;
    let key = key.context("this data directory has no publisher account: publish a model first")?;
    let wallet = Wallet::new(market.chain.clone(), key);
    let done = wallet.set_royalty(id, basis_points).await?;
    let Some((holder, now)) = market.chain.royalty_of(id).await? else {
        bail!("the chain does not know the model whose rate was just set: was it reset meanwhile?");
    };
    let pending = market.chain.pending_royalty_of(id).await?;
    let value = json!({
        "id": id, "holder": holder, "royalty_bps": now, "transaction": done.transaction, "block": done.block,
        "pending": pending.map(|(rate, from)| json!({ "royalty_bps": rate, "from": from })),
    });
    output::either(settings.json, &value, || match pending {
        Some((rate, from)) => output::line(format_args!(
            "{now} basis points go on until {from} (seconds since 1970), then {rate}"
        )),
        None => output::line(format_args!("{now} basis points from now on")),
    })
}
