//! `rialto stake`: a provider's stake, and what becomes of others'.

use std::{io::Read, path::Path};

use anyhow::{Context, Result, bail};
use rialto_protocol::{MicroDollars, SignedReceipt, SigningKey};
use rialto_settlement::{Confirmed, Wallet};
use serde_json::json;

use super::wallet::ROLES;
use crate::{
    args::{self, Place},
    keys,
    market::Market,
    output,
    settings::Settings,
};

/// Longest file of a receipt.
const MAX_RECEIPT_BYTES: u64 = 1 << 16;

/// Does what was asked for.
pub(crate) async fn run(settings: &Settings, action: &args::Stake) -> Result<()> {
    match action {
        args::Stake::Show => show(settings).await,
        args::Stake::Add { dollars } => {
            let amount = amount(dollars)?;
            said(settings, provider(settings)?.add_stake(amount).await?)
        }
        args::Stake::Request { dollars } => request(settings, amount(dollars)?).await,
        args::Stake::Complete => said(settings, provider(settings)?.complete_unstake().await?),
        args::Stake::Prove { first, second } => prove(settings, first, second).await,
        args::Stake::Claim => claim(settings).await,
    }
}

async fn show(settings: &Settings) -> Result<()> {
    let chain = Market::find(settings, &Place::default())?.chain;
    let mut credits = Vec::new();
    for (role, file) in ROLES {
        if let Some(key) = keys::existing(&settings.dir, file)? {
            let credit = chain.stake_credit_of(key.address()).await?;
            credits.push((role, key.address(), credit));
        }
    }
    let mut stake = None;
    if let Some(key) = keys::existing(&settings.dir, PROVIDER)? {
        let account = key.address();
        if let Some(record) = chain.provider_of(account).await? {
            stake = Some((account, record, chain.unstaking_of(account).await?));
        }
    }
    let delay = chain.unstake_delay().await?;
    let value = json!({
        "provider": stake.as_ref().map(|(account, record, leaving)| json!({
            "account": account, "stake": record.stake, "active": record.active, "convicted": record.convicted,
            "frozen_until": record.frozen_until, "leaving": leaving.amount, "available_at": leaving.available_at,
        })),
        "unstake_delay": delay,
        "credits": credits.iter().map(|(role, account, credit)| json!({
            "role": role, "account": account, "credit": credit,
        })).collect::<Vec<_>>(),
    });
    output::either(settings.json, &value, || {
        match &stake {
            Some((account, record, leaving)) => output::table(
                &["PROVIDER", "STAKE", "LEAVING", "AVAILABLE AT", "FROZEN UNTIL", "STATE"],
                &[vec![
                    account.to_string(),
                    record.stake.to_string(),
                    leaving.amount.to_string(),
                    date(leaving.available_at),
                    date(record.frozen_until),
                    state(record.active, record.convicted).to_owned(),
                ]],
            ),
            None => output::line("no provider of this data directory is registered"),
        }
        for (role, account, credit) in credits.iter().filter(|(_, _, credit)| *credit > MicroDollars::ZERO) {
            output::line(format_args!(
                "{role} {account} was credited {credit}: take it with `rialto stake claim`"
            ));
        }
    })
}

async fn request(settings: &Settings, amount: MicroDollars) -> Result<()> {
    let wallet = provider(settings)?;
    let done = wallet.request_unstake(amount).await?;
    let leaving = wallet.chain().unstaking_of(wallet.address()).await?;
    let value = json!({
        "transaction": done.transaction, "block": done.block,
        "leaving": leaving.amount, "available_at": leaving.available_at,
    });
    output::either(settings.json, &value, || {
        output::line(format_args!(
            "{} is leaving; take it with `rialto stake complete` from {} on (seconds since 1970)",
            leaving.amount, leaving.available_at
        ));
    })
}

async fn prove(settings: &Settings, first: &Path, second: &Path) -> Result<()> {
    let (first, second) = (receipt(first)?, receipt(second)?);
    let market = Market::find(settings, &Place::default())?;
    let mut reporter = None;
    for (_, file) in ROLES {
        reporter = match reporter {
            Some(key) => Some(key),
            None => keys::existing(&settings.dir, file)?,
        };
    }
    let Some(reporter) = reporter else {
        bail!("this data directory has no account that could pay for the transaction");
    };
    let wallet = Wallet::new(market.chain, reporter);
    let done = wallet.prove_equivocation(&first, &second).await?;
    let credit = wallet.chain().stake_credit_of(wallet.address()).await?;
    let value = json!({
        "transaction": done.transaction, "block": done.block, "reporter": wallet.address(), "credit": credit,
    });
    output::either(settings.json, &value, || {
        output::line(format_args!(
            "proven in transaction {}; {} is credited {credit}: take it with `rialto stake claim`",
            done.transaction,
            wallet.address()
        ));
    })
}

async fn claim(settings: &Settings) -> Result<()> {
    let market = Market::find(settings, &Place::default())?;
    let mut values = Vec::new();
    for (role, file) in ROLES {
        let Some(key) = keys::existing(&settings.dir, file)? else {
            continue;
        };
        let account = key.address();
        let credit = market.chain.stake_credit_of(account).await?;
        if credit > MicroDollars::ZERO {
            let done = Wallet::new(market.chain.clone(), key).claim_stake_credit().await?;
            values.push(json!({
                "role": role, "account": account, "amount": credit,
                "transaction": done.transaction, "block": done.block,
            }));
            output::say(format_args!("{role} {account} received {credit}"));
        }
    }
    output::either(settings.json, &values, || {
        if values.is_empty() {
            output::line("nothing was credited");
        }
    })
}

/// The key file of this machine's provider.
const PROVIDER: &str = "provider/account.json";

fn provider(settings: &Settings) -> Result<Wallet> {
    let market = Market::find(settings, &Place::default())?;
    let key: Option<SigningKey> = keys::existing(&settings.dir, PROVIDER)?;
    let key = key.context("no provider was started from this data directory yet: run `rialto provide`")?;
    Ok(Wallet::new(market.chain, key))
}

fn said(settings: &Settings, done: Confirmed) -> Result<()> {
    let value = json!({ "transaction": done.transaction, "block": done.block });
    output::either(settings.json, &value, || {
        output::line(format_args!("done in transaction {}", done.transaction));
    })
}

fn amount(dollars: &str) -> Result<MicroDollars> {
    let amount = MicroDollars::from_dollars(dollars).context("dollars, such as 100 or 2.5")?;
    anyhow::ensure!(
        amount > MicroDollars::ZERO,
        "nothing would change: give an amount above zero"
    );
    Ok(amount)
}

fn receipt(path: &Path) -> Result<SignedReceipt> {
    let name = || format!("the receipt {}", path.display());
    let mut text = String::new();
    let file = std::fs::File::open(path).with_context(name)?;
    file.take(MAX_RECEIPT_BYTES)
        .read_to_string(&mut text)
        .with_context(name)?;
    serde_json::from_str(&text).with_context(name)
}

fn date(seconds: u64) -> String {
    if seconds == 0 {
        "–".into()
    } else {
        seconds.to_string()
    }
}

fn state(active: bool, convicted: bool) -> &'static str {
    match (active, convicted) {
        (_, true) => "convicted",
        (true, false) => "active",
        (false, false) => "not active",
    }
}
