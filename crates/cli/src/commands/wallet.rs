//! `rialto wallet`: the accounts of this machine and what they hold.

use std::{io::Read, path::Path};

use anyhow::{Context, Result, bail};
use rialto_protocol::{MicroDollars, SigningKey, order::SignedOrder};
use rialto_settlement::{Chain, Confirmed, Mirror, Wallet};
use serde_json::json;

use crate::{
    args::{Place, WalletAction},
    keys,
    market::{Market, Record},
    output,
    settings::Settings,
};

/// For how long an order that is printed can be sent, in seconds.
const GOOD_FOR: u64 = 24 * 3_600;

/// Most that sending somebody's order may cost, in wei: a hundredth of a coin.
const MAX_RELAY_COST: u128 = 10_000_000_000_000_000;

/// Longest file of an order.
const MAX_ORDER_BYTES: u64 = 1 << 16;

/// Roles and their key files.
pub(super) const ROLES: [(&str, &str); 4] = [
    ("buyer", "gateway/owner.json"),
    ("session", "gateway/session.json"),
    ("provider", "provider/account.json"),
    ("publisher", "publisher/account.json"),
];

/// Does what was asked for.
pub(crate) async fn run(settings: &Settings, action: Option<&WalletAction>) -> Result<()> {
    match action {
        None => show(settings).await,
        Some(WalletAction::Withdraw { dollars, sign }) => withdraw(settings, dollars, *sign).await,
        Some(WalletAction::Claim { role, fees }) => claim(settings, role, *fees).await,
        Some(WalletAction::Relay { order, role }) => relay(settings, order, role).await,
    }
}

/// The last second in which an order that is signed now is good.
pub(super) async fn good_until(chain: &Chain) -> Result<u64> {
    let clock = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH)?;
    // A chain that nobody uses has an old newest block.
    Ok(chain.block_time().await?.max(clock.as_secs()).saturating_add(GOOD_FOR))
}

/// Prints a signed order as JSON, whatever the output's form: it is for `rialto wallet relay`.
pub(super) fn print(order: &SignedOrder) -> Result<()> {
    output::json(order)
}

async fn withdraw(settings: &Settings, dollars: &str, sign: bool) -> Result<()> {
    let market = Market::find(settings, &Place::default())?;
    let wallet = Wallet::new(market.chain, account(settings, "buyer")?);
    let amount = match dollars {
        "all" => wallet.chain().free_balance(wallet.address()).await?,
        text => MicroDollars::from_dollars(text).context("dollars, such as 100 or 2.5, or `all`")?,
    };
    anyhow::ensure!(amount > MicroDollars::ZERO, "there is nothing to take out");
    if sign {
        let until = good_until(wallet.chain()).await?;
        return print(&wallet.sign_withdraw(amount, until).await?);
    }
    said(settings, wallet.withdraw(amount).await?)
}

async fn claim(settings: &Settings, role: &str, fees: bool) -> Result<()> {
    let market = Market::find(settings, &Place::default())?;
    let first = Record::load(settings)?.map_or(0, |record| record.block);
    let wallet = Wallet::new(market.chain, account(settings, role)?);
    if !fees {
        let credit = wallet.chain().credit_of(wallet.address()).await?;
        anyhow::ensure!(
            credit > MicroDollars::ZERO,
            "no royalties are credited to {}",
            wallet.address()
        );
        return said(settings, wallet.claim_credit().await?);
    }
    // Whom the fees are beside is in the escrow's events alone.
    let mut mirror = Mirror::begin(wallet.chain(), first).await?;
    mirror.catch_up(wallet.chain()).await?;
    let holders: Vec<_> = mirror.books().fees.keys().copied().collect();
    anyhow::ensure!(!holders.is_empty(), "there are no fees to take out");
    said(settings, wallet.claim_fees(&holders).await?)
}

async fn relay(settings: &Settings, file: &Path, role: &str) -> Result<()> {
    let mut text = String::new();
    if file == Path::new("-") {
        std::io::stdin().take(MAX_ORDER_BYTES).read_to_string(&mut text)?;
    } else {
        let opened = std::fs::File::open(file).with_context(|| format!("{}", file.display()))?;
        opened.take(MAX_ORDER_BYTES).read_to_string(&mut text)?;
    }
    let order: SignedOrder = serde_json::from_str(&text).context("this is no signed order")?;
    let market = Market::find(settings, &Place::default())?;
    let wallet = Wallet::new(market.chain, account(settings, role)?);
    said(settings, wallet.relay(&order, MAX_RELAY_COST).await?)
}

fn account(settings: &Settings, role: &str) -> Result<SigningKey> {
    let known = ROLES.iter().find(|(name, _)| *name == role && role != "session");
    let Some((_, file)) = known else {
        bail!("there is no account `{role}`: it is buyer, provider or publisher");
    };
    keys::existing(&settings.dir, file)?.with_context(|| format!("this machine has no {role} yet"))
}

fn said(settings: &Settings, done: Confirmed) -> Result<()> {
    let value = json!({ "transaction": done.transaction, "block": done.block, "gas_used": done.gas_used });
    output::either(settings.json, &value, || {
        output::line(format_args!("done in transaction {}", done.transaction));
    })
}

/// Prints every account with its balances.
async fn show(settings: &Settings) -> Result<()> {
    let market = Market::find(settings, &Place::default())?;
    let (mut rows, mut values) = (Vec::new(), Vec::new());
    for (role, file) in ROLES {
        let Some(key) = keys::existing(&settings.dir, file)? else {
            continue;
        };
        let account = key.address();
        let token = market.chain.token_balance(account).await?;
        let free = market.chain.free_balance(account).await?;
        let credit = market.chain.credit_of(account).await?;
        let wei = market.chain.native_balance(account).await?;
        values.push(json!({
            "role": role, "account": account, "key_file": settings.dir.path(file),
            "stablecoin": token, "in_escrow": free, "credit": credit, "wei": wei.to_string(),
        }));
        rows.push(vec![
            role.to_owned(),
            account.to_string(),
            token.to_string(),
            free.to_string(),
            credit.to_string(),
        ]);
    }
    output::either(settings.json, &values, || {
        output::table(&["ROLE", "ACCOUNT", "STABLECOIN", "IN ESCROW", "CREDIT"], &rows);
    })
}
