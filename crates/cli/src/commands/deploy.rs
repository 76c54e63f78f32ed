//! `rialto chain deploy`: puts a market's contracts on a chain, checks them, and writes down where they are.

use std::{
    fs::OpenOptions,
    io::Write,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, bail};
use rialto_devchain::{DEFAULT_CHAIN_ID, development_keys};
use rialto_protocol::{Address, SigningKey, ticket::Contracts};
use rialto_settlement::{Chain, DeployOptions, DeploymentRecord, Plan, deploy, fund_native, plan, verify};
use serde_json::json;

use crate::{args, keys, output, settings::Settings};

/// The key file of the account that pays for deployments. It has no power over what it creates.
const DEPLOYER: &str = "deployer/account.json";

/// A whole coin of a development chain, in wei.
const PLAY_COIN: u128 = 1_000_000_000_000_000_000;

/// Shows what would be done and, with `--yes`, does it.
pub(crate) async fn run(settings: &Settings, options: &args::Deploy) -> Result<()> {
    let terms = terms(options)?;
    let key = keys::account(&settings.dir, DEPLOYER)?;
    let mut planned = plan(&options.rpc_url, key.address(), &terms).await?;
    if planned.test_dollar && !options.test_dollar {
        bail!("anybody can mint this stablecoin, so it is worth nothing: say --test-dollar if that is meant");
    }
    let out = options.out.clone();
    let out = out.unwrap_or_else(|| PathBuf::from(format!("deployments/{}.json", planned.chain_id)));
    if out.exists() {
        bail!(
            "{} holds the addresses of an earlier deployment, and money may be there: choose another file with --out",
            out.display()
        );
    }
    if !settings.json {
        show(&planned, &terms, &out);
    }
    if !options.yes {
        let value = json!({ "plan": planned, "sent": false, "file": out });
        return output::either(settings.json, &value, || {
            output::line("nothing was sent: say --yes to do it");
        });
    }
    if planned.chain_id == DEFAULT_CHAIN_ID && !planned.is_affordable() {
        fund(&options.rpc_url, key.address()).await?;
        planned = plan(&options.rpc_url, key.address(), &terms).await?;
    }
    if !planned.is_affordable() {
        bail!(
            "the account {} has {} wei on chain {} and may need {}: send it some, then start again",
            planned.deployer,
            planned.balance_wei,
            planned.chain_id,
            planned.cost_wei_at_most
        );
    }
    let record = send(&options.rpc_url, &key, &terms).await?;
    save(&out, &record)?;
    let value = json!({ "plan": planned, "sent": true, "file": out, "deployment": record });
    output::either(settings.json, &value, || {
        for (name, contract) in &record.contracts {
            output::line(format_args!("{name:<10} {}", contract.address));
        }
        output::line(format_args!("checked, and written to {}", out.display()));
    })
}

fn terms(options: &args::Deploy) -> Result<DeployOptions> {
    if options.token.is_none() && !options.test_dollar {
        bail!("name the market's stablecoin with --token, or say --test-dollar for one that is worth nothing");
    }
    let terms = DeployOptions {
        fee_bps: options.fee_bps,
        fee_recipient: options.fee_recipient.unwrap_or_default(),
        challenge_period: options.challenge_period,
        guardian: options.guardian.unwrap_or_default(),
        disputes: options.disputes.unwrap_or_default(),
        slash_recipient: Some(options.slash_recipient),
        dispute_window: options.dispute_window,
        token: options.token,
    };
    terms.check()?;
    Ok(terms)
}

fn show(planned: &Plan, terms: &DeployOptions, out: &Path) {
    let rows: Vec<Vec<String>> = planned
        .contracts
        .iter()
        .map(|contract| {
            vec![
                contract.contract.to_owned(),
                contract.creation_bytes.to_string(),
                contract.gas_at_most.to_string(),
            ]
        })
        .collect();
    output::say(format_args!("on chain {}, by {}:", planned.chain_id, planned.deployer));
    output::table(&["CONTRACT", "BYTES", "GAS AT MOST"], &rows);
    let nobody = |account: Address| {
        if account.is_zero() {
            "nobody, ever".to_owned()
        } else {
            account.to_string()
        }
    };
    let stablecoin = terms
        .token
        .map_or_else(|| "a new TestDollar".into(), |token| token.to_string());
    for (what, value) in [
        ("stablecoin", stablecoin),
        ("fee", format!("{} basis points", terms.fee_bps)),
        ("fee recipient", nobody(terms.fee_recipient)),
        ("challenge period", format!("{} s", terms.challenge_period)),
        ("dispute window", format!("{} s", terms.dispute_window)),
        ("may pause deposits", nobody(terms.guardian)),
        ("may freeze and slash", nobody(terms.disputes)),
        (
            "receives slashed stake",
            nobody(terms.slash_recipient.unwrap_or_default()),
        ),
        (
            "cost at most",
            format!(
                "{} wei ({} gas at {} wei); the deployer has {}",
                planned.cost_wei_at_most, planned.gas_at_most, planned.fee_per_gas_at_most, planned.balance_wei
            ),
        ),
        ("addresses go to", out.display().to_string()),
    ] {
        output::say(format_args!("  {what:<24}{value}"));
    }
}

async fn send(rpc_urls: &[String], key: &SigningKey, terms: &DeployOptions) -> Result<DeploymentRecord> {
    let deployment = deploy(rpc_urls, key, terms).await?;
    let Contracts {
        token,
        escrow,
        providers,
        models,
    } = deployment.contracts;
    // Said at once: whatever fails from here on, the addresses are known.
    output::say(format_args!(
        "created: token {token}, models {models}, escrow {escrow}, providers {providers}"
    ));
    verify(rpc_urls, &deployment, terms, key.address())
        .await
        .context("the contracts were created, but are not what was asked for, or could not be checked: do not use them")
}

async fn fund(rpc_urls: &[String], account: Address) -> Result<()> {
    let nowhere = Contracts {
        token: Address::default(),
        escrow: Address::default(),
        providers: Address::default(),
        models: Address::default(),
    };
    let chain = Chain::connect(rpc_urls, nowhere)?;
    let keys = development_keys();
    let rich = keys.first().context("no such development account")?;
    fund_native(&chain, &SigningKey::from_bytes(&rich.secret)?, account, PLAY_COIN).await?;
    Ok(())
}

/// Writes the record into a new file; an existing one is never replaced.
fn save(path: &Path, record: &DeploymentRecord) -> Result<()> {
    let name = || format!("the deployment's file {}", path.display());
    if let Some(folder) = path.parent() {
        std::fs::create_dir_all(folder).with_context(name)?;
    }
    let text = serde_json::to_string_pretty(record)?;
    let mut file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .open(path)
        .with_context(name)?;
    file.write_all(format!("{text}\n").as_bytes()).with_context(name)?;
    file.sync_all().with_context(name)
}
