//! `rialto doctor`: what is wrong here, and how to mend it.

use std::net::TcpListener;

use anyhow::{Result, bail};
use serde::Serialize;

use crate::{args::Place, market::Market, models, output, settings::Settings};

/// One thing that was looked at.
#[derive(Debug, Serialize)]
struct Finding {
    what: &'static str,
    ok: bool,
    said: String,
}

/// Looks at everything; fails when something is wrong.
pub(crate) async fn run(settings: &Settings) -> Result<()> {
    let mut findings = vec![data_dir(settings), shipped(settings).await];
    findings.extend(market(settings).await);
    findings.extend(ports(settings));
    let wrong = findings.iter().filter(|finding| !finding.ok).count();
    output::either(settings.json, &findings, || {
        for finding in &findings {
            let mark = if finding.ok { "✓" } else { "✗" };
            output::line(format_args!("{mark} {:<16} {}", finding.what, finding.said));
        }
    })?;
    if wrong > 0 {
        bail!(
            "{wrong} of {} checks failed: each line above says what to do",
            findings.len()
        );
    }
    Ok(())
}

fn found(what: &'static str, result: Result<String>) -> Finding {
    match result {
        Ok(said) => Finding { what, ok: true, said },
        Err(error) => Finding {
            what,
            ok: false,
            said: format!("{error:#}"),
        },
    }
}

fn data_dir(settings: &Settings) -> Finding {
    let check = || {
        settings.dir.write("doctor", "")?;
        std::fs::remove_file(settings.dir.path("doctor"))?;
        Ok(format!("{} can be written", settings.dir.root().display()))
    };
    found("data directory", check())
}

/// Loads every model that would be sold: files, hashes and engines.
async fn shipped(settings: &Settings) -> Finding {
    let check = async {
        let models = models::find(&settings.file.provider.models)?;
        for model in &models {
            rialto_engine::load(&model.manifest, model.folder(), &rialto_engine::LoadOptions::default()).await?;
        }
        Ok(format!("{} load, their hashes are right", models.len()))
    };
    found("models", check.await)
}

async fn market(settings: &Settings) -> Vec<Finding> {
    let market = match Market::find(settings, &Place::default()) {
        Ok(market) => market,
        Err(error) => {
            return vec![Finding {
                what: "market",
                ok: true,
                said: format!("{error:#}"),
            }];
        }
    };
    let deployed = async {
        let number = market.chain.block_number().await?;
        anyhow::ensure!(
            market.chain.chain_id().await? == market.ticket.chain_id && market.chain.is_deployed().await?,
            "the chain at {} is not this market's: start the right one, or begin anew with `rialto reset`",
            market.ticket.rpc_url
        );
        Ok(format!("block {number} at {}", market.ticket.rpc_url))
    };
    vec![
        found(
            "market",
            Ok(format!(
                "chain {}, escrow {}",
                market.ticket.chain_id, market.ticket.contracts.escrow
            )),
        ),
        found("chain", deployed.await),
    ]
}

/// Whether the ports are free, or held by ourselves.
fn ports(settings: &Settings) -> Vec<Finding> {
    let gateway = settings
        .file
        .gateway
        .listen
        .unwrap_or_else(|| super::gateway::DEFAULT_LISTEN.into());
    let chain = settings
        .file
        .chain
        .listen
        .unwrap_or_else(|| super::chain::DEFAULT_LISTEN.into());
    let running = settings.dir.lock("market").is_err() || settings.dir.lock("gateway").is_err();
    let check = |address: std::net::SocketAddr| match TcpListener::bind(address) {
        Ok(_) => Ok(format!("{address} is free")),
        Err(_) if running => Ok(format!(
            "{address} is in use; a market of this data directory is running"
        )),
        Err(error) => Err(anyhow::anyhow!(
            "{address}: {error}: stop what uses it, or choose another address"
        )),
    };
    vec![found("gateway port", check(gateway)), found("chain port", check(chain))]
}
