//! A market's ordinary life, on each chain.

use anyhow::{Context, Result, ensure};
use rialto_testkit::{
    PATIENCE,
    client::Client,
    process::{Anvil, Up, cast, repository, rialto},
};
use serde_json::{Value, json};

use crate::bill;

pub(crate) const MODEL: &str = "rialto/shakespeare:q8_0";

#[tokio::test]
async fn a_market_lives_on_the_embedded_chain() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let up = Up::on_devchain(&folder.path().join("market"))?;
    ordinary_life(&up).await?;
    up.stop()
}

#[tokio::test]
async fn a_market_lives_on_anvil() -> Result<()> {
    let (folder, anvil) = (tempfile::tempdir()?, Anvil::start()?);
    let up = Up::start(&folder.path().join("market"), &["--rpc-url", anvil.rpc_url()])?;
    ordinary_life(&up).await?;
    up.stop()
}

async fn ordinary_life(up: &Up) -> Result<()> {
    first_trade_adds_up(&up.first_trade()?)?;
    let client = up.client()?;
    chats(&client).await?;
    predicts(&client).await?;
    pays_once(&client).await?;
    let totals = bill::settles(up, true).await?;
    cast_reads_the_same(up, &totals)
}

fn first_trade_adds_up(trade: &Value) -> Result<()> {
    let part = |name: &str| {
        trade
            .pointer(&format!("/redemption/{name}"))
            .and_then(Value::as_u64)
            .context("a part")
    };
    let total = trade
        .pointer("/receipt/total")
        .and_then(Value::as_u64)
        .context("the total")?;
    let paid = part("provider")? + part("royalty")? + part("fee")?;
    ensure!(
        paid == total.div_ceil(1_000),
        "{paid} of {total} nano-dollars were paid"
    );
    ensure!(
        part("royalty")? > 0 && part("fee")? > 0,
        "the publisher or the protocol earned nothing: {trade}"
    );
    Ok(())
}

async fn chats(client: &Client) -> Result<()> {
    let whole = client.chat(MODEL, "What is love?", 40).await?;
    let text = whole
        .pointer("/choices/0/message/content")
        .and_then(Value::as_str)
        .context("no text")?;
    let streamed = client.stream(MODEL, "What is love?", 40, |_| true).await?;
    ensure!(streamed.text == text, "streamed {:?}, whole {text:?}", streamed.text);
    ensure!(
        streamed.done && streamed.error.is_none() && streamed.deltas > 1,
        "{streamed:?}"
    );
    let tokens = |usage: &Value| usage.get("completion_tokens").and_then(Value::as_u64);
    let usage = streamed.usage.context("no usage")?;
    ensure!(tokens(&usage) == whole.get("usage").and_then(tokens), "{usage}");
    Ok(())
}

pub(crate) async fn predicts(client: &Client) -> Result<()> {
    let example = std::fs::read(repository().join("models/breast-cancer/example.json"))?;
    let example: Value = serde_json::from_slice(&example)?;
    let request = example.get("request").context("a request")?;
    let url = "/../v2/models/rialto%2Fbreast-cancer:f32/infer";
    let (status, _, answer) = client.post(url, request, &[]).await?;
    ensure!(status == 200, "{status}: {answer}");
    let outputs = answer.get("outputs").and_then(Value::as_array).context("no outputs")?;
    ensure!(!outputs.is_empty(), "{answer}");
    Ok(())
}

async fn pays_once(client: &Client) -> Result<()> {
    let body = Client::chat_body(MODEL, "To be, or not to be?", 16);
    let headers = [("Idempotency-Key", "a-story")];
    let (status, _, first) = client.post("/chat/completions", &body, &headers).await?;
    ensure!(status == 200, "{first}");
    let (_, _, second) = client.post("/chat/completions", &body, &headers).await?;
    ensure!(first == second, "the replay differs");
    let other = Client::chat_body(MODEL, "Something else", 16);
    let (status, _, refused) = client.post("/chat/completions", &other, &headers).await?;
    ensure!(status == 422, "{status}: {refused}");
    Ok(())
}

/// Foundry's `cast`, which shares no code with us, reads the same from the chain.
fn cast_reads_the_same(up: &Up, totals: &bill::Totals) -> Result<()> {
    let ticket = up.ticket()?;
    let escrow = ticket.contracts.escrow.to_string();
    let call =
        |signature: &str, argument: &str| cast(&["call", "--rpc-url", &ticket.rpc_url, &escrow, signature, argument]);
    for (channel, nano) in totals {
        let state = call("channel(bytes32)((uint96,uint96,uint40,uint24))", channel)?;
        let numbers = state.replace(['(', ')'], "");
        let redeemed = numbers
            .split(',')
            .nth(1)
            .and_then(|text| text.split_whitespace().next())
            .context("redeemed")?;
        ensure!(
            redeemed.parse::<u128>()? == nano.div_ceil(1_000),
            "cast reads {state}, receipts say {nano}"
        );
    }
    let wallet = up.ask(&["wallet"])?;
    for account in wallet.as_array().context("accounts")? {
        let text = |name: &str| account.get(name).and_then(Value::as_str).context("text");
        let token = ticket.contracts.token.to_string();
        let balance = cast(&[
            "call",
            "--rpc-url",
            &ticket.rpc_url,
            &token,
            "balanceOf(address)(uint256)",
            text("account")?,
        ])?;
        let balance = balance.split_whitespace().next().context("a balance")?.to_owned();
        ensure!(
            Some(balance.as_str()) == account.get("stablecoin").map(Value::to_string).as_deref(),
            "{account}"
        );
    }
    Ok(())
}

#[tokio::test]
async fn a_market_goes_on_after_a_restart() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let place = folder.path().join("market");
    let up = Up::on_devchain(&place)?;
    let (key, contracts) = (up.said("api_key")?, up.ticket()?.contracts);
    let before = bill::settles(&up, true).await?;
    let wallet = up.ask(&["wallet"])?;
    up.stop()?;

    let up = Up::on_devchain(&place)?;
    ensure!(
        up.said("api_key")? == key && up.ticket()?.contracts == contracts,
        "another market"
    );
    let accounts = |wallet: &Value| -> Vec<Value> {
        wallet
            .as_array()
            .into_iter()
            .flatten()
            .map(|one| json!([one.get("role"), one.get("account")]))
            .collect()
    };
    ensure!(accounts(&wallet) == accounts(&up.ask(&["wallet"])?), "other accounts");
    let after = bill::settles(&up, true).await?;
    ensure!(
        before.keys().eq(after.keys()),
        "the same channels pay: {before:?} {after:?}"
    );
    ensure!(
        before.iter().all(|(id, total)| after.get(id) > Some(total)),
        "the second first trade was not paid"
    );

    // The supervisor itself may die too: its parts end, and the next start finds everything.
    up.kill()?;
    let up = Up::on_devchain(&place)?;
    bill::settles(&up, true).await?;
    up.ask(&["doctor"])?;
    up.stop()?;

    reset(&place)?;
    let up = Up::on_devchain(&place)?;
    ensure!(up.said("api_key")? != key, "a key outlived the reset");
    up.stop()
}

fn reset(place: &std::path::Path) -> Result<()> {
    let done = std::process::Command::new(rialto()?)
        .args(["reset", "--yes", "--data-dir"])
        .arg(place)
        .status()?;
    ensure!(done.success(), "the reset failed");
    ensure!(
        !place.join("chain").exists() && !place.join("market.json").exists(),
        "something was left"
    );
    Ok(())
}

#[tokio::test]
async fn a_channel_is_topped_up_closed_and_followed_by_another() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let config = folder.path().join("config.toml");
    // A tenth of a cent: two answers long.
    std::fs::write(&config, "[gateway]\nchannel_deposit = \"0.001\"\n")?;
    let config = config.to_str().context("a path")?;
    let place = folder.path().join("market");
    let up = Up::start(&place, &["--chain-listen", "127.0.0.1:0", "--config", config])?;
    let client = up.client()?;
    for _ in 0..4 {
        let answer = client.continue_text(MODEL, "PROSPERO:\n", 120, |_| true).await?;
        ensure!(answer.done, "{answer:?}");
    }
    let channels = up.ask(&["channel", "list"])?;
    let row = channels.pointer("/0/channel").context("a channel")?;
    let number = |name: &str| row.get(name).and_then(Value::as_u64).context("a number");
    ensure!(
        number("funded")? > 1_000 && number("signed")? > 1_000,
        "it was never topped up: {row}"
    );
    let id = row.get("id").and_then(Value::as_str).context("an id")?;

    // Until both sides have noticed, the old channel goes on paying; then another is opened.
    up.ask(&["channel", "close", id])?;
    let moved = async {
        loop {
            drop(client.chat(MODEL, "Shall we begin anew?", 8).await);
            let channels = up.ask(&["channel", "list"])?;
            if channels.as_array().is_some_and(|rows| rows.len() > 1) {
                return anyhow::Ok(());
            }
            tokio::time::sleep(std::time::Duration::from_millis(100)).await;
        }
    };
    let moved = tokio::time::timeout(PATIENCE, moved).await;
    moved.context("no other channel was opened")??;
    client.chat(MODEL, "And again?", 8).await?;
    let before = bill::settles(&up, true).await?;
    ensure!(before.len() == 2, "two channels pay: {before:?}");

    let rpc_url = up.said("rpc_url")?;
    cast(&["rpc", "--rpc-url", &rpc_url, "evm_increaseTime", "90000"])?;
    cast(&["rpc", "--rpc-url", &rpc_url, "evm_mine"])?;
    // The gateway may have been faster.
    drop(up.ask(&["channel", "finalize", id]));
    ensure!(
        up.chain()?.channel(id.parse()?).await?.closed,
        "the channel is still open"
    );
    ensure!(
        bill::settles(&up, true).await? == before,
        "the close changed what was paid"
    );
    up.stop()
}
