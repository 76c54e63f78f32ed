//! The chain at its worst: closes that race claims, a node that is away, blocks that are replaced. Nobody loses money.

use std::{path::Path, time::Duration};

use anyhow::{Context, Result, ensure};
use futures::future::join_all;
use rialto_protocol::{ChannelId, MicroDollars, channel::ChannelState};
use rialto_settlement::{Chain, EventKind, Mirror};
use rialto_testkit::{
    PATIENCE,
    process::{Anvil, Joined, Proxy, Up, cast},
};
use serde_json::Value;

use crate::{bill, lives::MODEL};

/// A seller that claims by itself only after an hour, and reaches the chain by this address.
fn patient_seller(place: &Path, up: &Up, rpc_url: &str) -> Result<Joined> {
    let flags = ["--redeem-after", "3600", "--rpc-url", rpc_url];
    Joined::start(place, &up.said("ticket")?, &flags)
}

/// The channel on which the gateway pays this seller, once it has bought something there.
async fn buy_from(up: &Up, seller: &str) -> Result<ChannelId> {
    let client = up.client()?;
    let bought = async {
        loop {
            let asked = (0..8).map(|_| client.chat(MODEL, "Who is there?", 16));
            for answer in join_all(asked).await {
                answer?;
            }
            let channels = up.ask(&["channel", "list"])?;
            let rows = channels.as_array().into_iter().flatten();
            let paying = rows.filter_map(|row| row.get("channel")).find(|row| {
                row.pointer("/params/provider").and_then(Value::as_str) == Some(seller)
                    && row
                        .get("signed")
                        .and_then(Value::as_u64)
                        .is_some_and(|signed| signed > 0)
            });
            if let Some(id) = paying.and_then(|row| row.get("id")).and_then(Value::as_str) {
                return anyhow::Ok(id.parse()?);
            }
        }
    };
    tokio::time::timeout(PATIENCE, bought)
        .await
        .context("the second provider got no trade")?
}

/// What the buyer's receipts say that a channel owes.
fn owed(up: &Up, channel: ChannelId) -> Result<MicroDollars> {
    let totals = bill::bought(up)?;
    let nano = totals.get(&channel.to_string()).copied().unwrap_or_default();
    Ok(MicroDollars::try_from(nano.div_ceil(1_000))?)
}

async fn until(chain: &Chain, channel: ChannelId, what: &str, holds: impl Fn(&ChannelState) -> bool) -> Result<()> {
    let wait = async {
        while !holds(&chain.channel(channel).await?) {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        anyhow::Ok(())
    };
    let waited = tokio::time::timeout(PATIENCE, wait).await;
    waited.with_context(|| format!("{what}: it did not happen"))?
}

/// The escrow's books, rebuilt from its events alone, say what the escrow says.
async fn mirror_agrees(chain: &Chain) -> Result<()> {
    loop {
        let mut mirror = Mirror::begin(chain, 0).await?;
        mirror.catch_up(chain).await?;
        let (found, books) = (differences(chain, &mirror).await?, mirror.books());
        let held = chain.token_balance(chain.contracts().escrow).await?;
        // Another block may have come in between.
        if chain.block_number().await? < mirror.next_block() {
            ensure!(found.is_empty(), "{found:?}: {books:?}");
            ensure!(books.owed() == held.get(), "{held} held: {books:?}");
            return Ok(());
        }
    }
}

async fn differences(chain: &Chain, mirror: &Mirror) -> Result<Vec<String>> {
    let (books, mut found) = (mirror.books(), Vec::new());
    for (id, channel) in &books.channels {
        if chain.channel(*id).await? != channel.state {
            found.push(format!("channel {id}"));
        }
    }
    for (account, balance) in &books.balances {
        if chain.free_balance(*account).await? != *balance {
            found.push(format!("balance of {account}"));
        }
    }
    for (account, credit) in &books.credits {
        if chain.credit_of(*account).await? != *credit {
            found.push(format!("credit of {account}"));
        }
    }
    Ok(found)
}

fn travel(rpc_url: &str, seconds: u64) -> Result<()> {
    cast(&["rpc", "--rpc-url", rpc_url, "evm_increaseTime", &seconds.to_string()])?;
    cast(&["rpc", "--rpc-url", rpc_url, "evm_mine"])?;
    Ok(())
}

#[tokio::test]
async fn a_provider_is_paid_in_full_when_a_close_races_its_claim() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let up = Up::on_devchain(&folder.path().join("market"))?;
    let (chain, rpc_url) = (up.chain()?, up.said("rpc_url")?);
    let seller = patient_seller(&folder.path().join("seller"), &up, &rpc_url)?;
    let channel = buy_from(&up, seller.account()).await?;
    let due = owed(&up, channel)?;
    ensure!(due > MicroDollars::ZERO, "nothing was bought");
    let before = chain.channel(channel).await?;
    ensure!(
        before.redeemed == MicroDollars::ZERO,
        "it was claimed before the close: {before:?}"
    );

    up.ask(&["channel", "close", &channel.to_string()])?;
    until(&chain, channel, "the claim", |state| state.redeemed >= due).await?;
    bill::settles(&up, false).await?;
    travel(&rpc_url, 90_000)?;
    // The gateway may have been faster.
    drop(up.ask(&["channel", "finalize", &channel.to_string()]));
    until(&chain, channel, "the close", |state| state.closed).await?;
    ensure!(
        chain.channel(channel).await?.redeemed == owed(&up, channel)?,
        "paid another sum"
    );

    // Whoever lost its records finds on the chain alone what it has.
    let told = up.ask(&["channel", "list", "--from-chain"])?;
    let rows = told.get("channels").and_then(Value::as_array).context("channels")?;
    let row = rows
        .iter()
        .find(|row| row.get("id").and_then(Value::as_str) == Some(&channel.to_string()));
    let row = row.context("the channel is not on the chain")?;
    ensure!(
        row.pointer("/channel/state/closed") == Some(&Value::Bool(true)),
        "{row}"
    );
    let books = bill::settles(&up, false).await?;
    ensure!(books.len() <= rows.len(), "channels are missing: {told}");
    mirror_agrees(&chain).await?;
    up.stop()
}

#[tokio::test]
async fn a_provider_whose_node_is_away_until_the_last_minute_of_a_close_is_paid_in_full() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let up = Up::on_devchain(&folder.path().join("market"))?;
    let (chain, rpc_url) = (up.chain()?, up.said("rpc_url")?);
    let proxy = Proxy::to(&rpc_url)?;
    let seller = patient_seller(&folder.path().join("seller"), &up, proxy.rpc_url())?;
    let channel = buy_from(&up, seller.account()).await?;
    let due = owed(&up, channel)?;

    proxy.cut();
    up.ask(&["channel", "close", &channel.to_string()])?;
    let closes_at = chain.channel(channel).await?.closes_at;
    let left = closes_at.saturating_sub(chain.block_time().await?);
    travel(&rpc_url, left.saturating_sub(60))?;
    let state = chain.channel(channel).await?;
    ensure!(
        state.redeemed == MicroDollars::ZERO && !state.closed && state.closes_at == closes_at,
        "{state:?}"
    );
    proxy.mend();
    until(&chain, channel, "the claim", |state| state.redeemed >= due).await?;
    travel(&rpc_url, 120)?;
    drop(up.ask(&["channel", "finalize", &channel.to_string()]));
    until(&chain, channel, "the close", |state| state.closed).await?;
    ensure!(chain.channel(channel).await?.redeemed == due, "paid another sum");
    bill::settles(&up, false).await?;
    up.stop()
}

#[tokio::test]
async fn an_open_that_a_reorganisation_drops_is_noticed_by_both_sides_and_nothing_is_lost() -> Result<()> {
    let (folder, anvil) = (tempfile::tempdir()?, Anvil::start()?);
    let up = Up::start(&folder.path().join("market"), &["--rpc-url", anvil.rpc_url()])?;
    let (chain, client) = (up.chain()?, up.client()?);
    client.chat(MODEL, "What is in a name?", 16).await?;
    let before = bill::settles(&up, true).await?;
    ensure!(before.len() == 1, "one channel pays: {before:?}");
    let channel: ChannelId = before.keys().next().context("a channel")?.parse()?;
    let opened = opened_in(&chain, channel).await?;
    // All blocks from the open on are replaced by as many empty ones: the open and every claim are gone.
    let depth = chain.block_number().await? + 1 - opened;
    cast(&[
        "rpc",
        "--rpc-url",
        anvil.rpc_url(),
        "anvil_reorg",
        &depth.to_string(),
        "[]",
    ])?;
    ensure!(!chain.channel(channel).await?.is_open(), "the open was not dropped");

    let answered = async {
        while client.chat(MODEL, "Art thou there?", 8).await.is_err() {
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    };
    tokio::time::timeout(PATIENCE, answered)
        .await
        .context("the market does not answer any more")?;
    // The old earnings are claimed again, from the same channel, together with the new ones.
    let after = bill::settles(&up, true).await?;
    ensure!(after.len() == 1, "the same channel pays: {after:?}");
    ensure!(
        before.iter().all(|(id, total)| after.get(id) > Some(total)),
        "{before:?} {after:?}"
    );
    let sold = up.ask(&["receipts", "--sold", "--limit", "100"])?;
    let redemptions = sold
        .get("redemptions")
        .and_then(Value::as_array)
        .context("redemptions")?;
    let newest = chain.block_number().await?;
    for redemption in redemptions {
        let block = redemption.get("block").and_then(Value::as_u64).context("a block")?;
        ensure!(
            block > opened && block <= newest,
            "booked and not on the chain: {redemption}"
        );
    }
    mirror_agrees(&chain).await?;
    up.stop()
}

async fn opened_in(chain: &Chain, channel: ChannelId) -> Result<u64> {
    let (events, _) = chain.events(0).await?;
    let opened = events
        .iter()
        .find(|event| matches!(&event.kind, EventKind::Opened { params, .. } if params.id() == channel));
    Ok(opened.context("no such channel")?.block)
}
