//! `rialto channel`: the gateway's payment channels.

mod on_chain;

use anyhow::{Context, Result};
use rialto_gateway::Store;
use rialto_protocol::ChannelId;
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
    let store = store(settings).await?;
    let channels = store.channels().await?;
    let channel = channels.iter().find(|channel| channel.id == id);
    let channel = channel.context("the gateway has no such channel: see `rialto channel list`")?;
    let market = Market::find(settings, &Place::default())?;
    let wallet = Wallet::new(market.chain, keys::account(&settings.dir, "gateway/owner.json")?);
    let done = match step {
        Step::Sign => {
            let until = super::wallet::good_until(wallet.chain()).await?;
            return super::wallet::print(&wallet.sign_request_close(&channel.params, until).await?);
        }
        Step::Request => wallet.request_close(&channel.params).await?,
        Step::Finalize => wallet.finalize_close(&channel.params).await?,
    };
    let value = json!({ "channel": id, "transaction": done.transaction, "block": done.block });
    output::either(settings.json, &value, || {
        output::line(format_args!("done in transaction {}", done.transaction))
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
