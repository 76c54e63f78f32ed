//! `rialto channel`: the gateway's payment channels.

mod on_chain;

use anyhow::{Context, Result};
use rialto_gateway::Store;
use rialto_protocol::{Address, ChannelId, ChannelParams};
use rialto_settlement::Wallet;
use serde_json::json;

use crate::{args, args::Place, keys, market::Market, output, settings::Settings};

/// Does what was asked for.
pub(crate) async fn run(settings: &Settings, action: &args::Channel) -> Result<()> {
    match action {
        args::Channel::List {
            from_chain: true,
            account,
        } => on_chain::list(settings, *account).await,
        args::Channel::List { .. } => list(settings).await,
        args::Channel::Close { id, sign: true } => act(settings, id, Step::Sign).await,
        args::Channel::Close { id, .. } => act(settings, id, Step::Request).await,
        args::Channel::Finalize { id } => act(settings, id, Step::Finalize).await,
    }
}

enum Step {
    Sign,
    Request,
    Finalize,
}

async fn list(settings: &Settings) -> Result<()> {
    let store = store(settings).await?;
    let market = Market::find(settings, &Place::default())?;
    let (mut rows, mut values) = (Vec::new(), Vec::new());
    for channel in store.channels().await? {
        // The chain may be away; what the gateway itself knows is shown all the same.
        let state = market.chain.channel(channel.id).await.ok();
        let redeemed = state.map(|state| state.redeemed);
        rows.push(vec![
            channel.id.to_string(),
            channel.listing.clone(),
            channel.status.name().to_owned(),
            channel.funded.to_string(),
            channel.signed.to_string(),
            redeemed.map_or_else(|| "?".into(), |amount| amount.to_string()),
        ]);
        values.push(json!({ "channel": channel, "on_chain": state }));
    }
    output::either(settings.json, &values, || {
        output::table(&["CHANNEL", "MODEL", "STATUS", "FUNDED", "SIGNED", "REDEEMED"], &rows);
    })
}

async fn act(settings: &Settings, id: &str, step: Step) -> Result<()> {
    let id: ChannelId = id.parse().context("the channel's id")?;
    let market = Market::find(settings, &Place::default())?;
    let owner = keys::existing(&settings.dir, "gateway/owner.json")?;
    let owner = owner.context("this data directory has no gateway's account")?;
    let params = params(settings, &market, owner.address(), id).await?;
    let wallet = Wallet::new(market.chain, owner);
    let done = match step {
        Step::Sign => {
            let until = super::wallet::good_until(wallet.chain()).await?;
            return super::wallet::print(&wallet.sign_request_close(&params, until).await?);
        }
        Step::Request => wallet.request_close(&params).await?,
        Step::Finalize => wallet.finalize_close(&params).await?,
    };
    let value = json!({ "channel": id, "transaction": done.transaction, "block": done.block });
    output::either(settings.json, &value, || {
        output::line(format_args!("done in transaction {}", done.transaction))
    })
}

/// What a channel's id is made of: from the gateway's store, or from the chain's events if the store does not know it.
async fn params(settings: &Settings, market: &Market, payer: Address, id: ChannelId) -> Result<ChannelParams> {
    if settings.dir.path(super::gateway::STORE).exists()
        && let Some(row) = store(settings).await?.channel(id).await?
    {
        return Ok(row.params);
    }
    let found = on_chain::params_of(settings, market, payer, id).await?;
    found.with_context(|| {
        format!(
            "neither the gateway nor the chain knows such a channel of {payer}: see `rialto channel list` and `rialto \
             channel list --from-chain`"
        )
    })
}

async fn store(settings: &Settings) -> Result<Store> {
    let path = settings.dir.path(super::gateway::STORE);
    anyhow::ensure!(
        path.exists(),
        "no gateway was started from this data directory yet: run `rialto up`"
    );
    Ok(Store::open_read_only(&path).await?)
}
