//! Bad input gets a clear error, and nothing is lost.

use anyhow::{Context, Result, ensure};
use rialto_testkit::{
    PATIENCE,
    client::Client,
    process::{Up, rialto},
};
use serde_json::{Value, json};

use crate::{bill, lives::MODEL};

/// Posts a body and checks status, code and field of the error.
async fn refused(client: &Client, body: &Value, status: u16, param: Option<&str>) -> Result<Value> {
    let (found, _, answer) = client.post("/chat/completions", body, &[]).await?;
    ensure!(found == status, "{found} instead of {status}: {answer}");
    let error = answer.get("error").with_context(|| format!("not an error: {answer}"))?;
    for field in ["message", "type", "param", "code"] {
        ensure!(error.get(field).is_some(), "no `{field}` in {error}");
    }
    if let Some(param) = param {
        ensure!(error.get("param").and_then(Value::as_str) == Some(param), "{error}");
    }
    Ok(error.clone())
}

#[tokio::test]
async fn bad_requests_are_answered_clearly_and_cost_nothing() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let up = Up::on_devchain(&folder.path().join("market"))?;
    let client = up.client()?;
    let before = bill::settles(&up, true).await?;
    let chat = |text: &str| Client::chat_body(MODEL, text, 16);

    refused(&client, &Client::chat_body("nobody/nothing:v1", "a", 1), 404, None).await?;
    refused(&client, &json!({ "model": MODEL }), 400, Some("messages")).await?;
    let mut hot = chat("a");
    if let Some(fields) = hot.as_object_mut() {
        fields.insert("temperature".into(), json!(9));
    }
    refused(&client, &hot, 400, Some("temperature")).await?;
    refused(&client, &chat(&"word ".repeat(4_000)), 400, None).await?;
    refused(&client, &chat(&"x".repeat(20 << 20)), 413, None).await?;
    refused(&client.with_key("rk-000000000000-wrong"), &chat("a"), 401, None).await?;

    let key = up.ask(&["key", "create", "poor", "--budget", "0.000001"])?;
    let poor = client.with_key(key.get("key").and_then(Value::as_str).context("a key")?);
    let error = refused(&poor, &chat("a"), 402, None).await?;
    ensure!(
        error.to_string().contains("budget"),
        "how to mend it is not said: {error}"
    );

    ensure!(bill::bought(&up)? == before, "a refused request was billed");
    up.stop()
}

#[tokio::test]
async fn a_market_without_sellers_says_when_to_come_back() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let up = Up::on_devchain(&folder.path().join("market"))?;
    let client = up.client()?;
    // A stopped process holds its connections and says nothing.
    let provider = up.pid_of("provider")?.to_string();
    signal("-STOP", &provider)?;
    let body = Client::chat_body(MODEL, "Is anybody there?", 8);
    let gone = async {
        loop {
            let (status, headers, answer) = client.post("/chat/completions", &body, &[]).await?;
            if status == 503 {
                let after = headers
                    .get("retry-after")
                    .and_then(|value| value.to_str().ok()?.parse::<u64>().ok());
                ensure!(after.is_some(), "no Retry-After: {answer}");
                return anyhow::Ok(());
            }
            ensure!(status == 502 || status == 504 || status == 404, "{status}: {answer}");
        }
    };
    let gone = tokio::time::timeout(PATIENCE, gone).await;
    signal("-CONT", &provider)?;
    gone.context("the offers of a silent seller never ran out")??;
    let back = async {
        while client.chat(MODEL, "Is anybody there?", 8).await.is_err() {
            tokio::time::sleep(std::time::Duration::from_millis(100)).await;
        }
    };
    tokio::time::timeout(PATIENCE, back)
        .await
        .context("the seller did not come back")?;
    bill::settles(&up, true).await?;
    up.stop()
}

#[tokio::test]
async fn trades_go_on_while_the_chain_is_away_and_claims_wait() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let up = Up::on_devchain(&folder.path().join("market"))?;
    let client = up.client()?;
    let chain = up.pid_of("chain")?.to_string();
    signal("-STOP", &chain)?;
    let mut outcome = Ok(());
    for _ in 0..4 {
        outcome = outcome.and(client.chat(MODEL, "Will they pay?", 16).await.map(drop));
    }
    signal("-CONT", &chain)?;
    outcome.context("a trade failed while the chain was away")?;
    bill::settles(&up, true).await?;
    up.stop()
}

#[tokio::test]
async fn a_port_or_folder_in_use_is_one_line_that_says_what_to_do() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let place = folder.path().join("market");
    let up = Up::on_devchain(&place)?;
    let error = |arguments: &[&str], dir: &std::path::Path| -> Result<String> {
        let output = std::process::Command::new(rialto()?)
            .args(arguments)
            .arg("--data-dir")
            .arg(dir)
            .output()?;
        ensure!(!output.status.success(), "{arguments:?} worked");
        let text = String::from_utf8(output.stderr)?;
        Ok(text
            .lines()
            .find(|line| line.starts_with("error: "))
            .with_context(|| text.clone())?
            .to_owned())
    };
    ensure!(error(&["up"], &place)?.contains("--data-dir"), "the folder is in use");
    let taken = up.said("base_url")?.replace("http://", "").replace("/v1", "");
    let other = folder.path().join("other");
    ensure!(
        error(&["up", "--listen", &taken, "--chain-listen", "127.0.0.1:0"], &other)?.contains("--listen"),
        "port"
    );
    let away = error(&["up", "--rpc-url", "http://127.0.0.1:9"], &other)?;
    ensure!(away.contains("unreachable"), "{away}");
    ensure!(
        error(&["gateway"], &folder.path().join("third"))?.contains("rialto up"),
        "no market"
    );
    up.stop()
}

fn signal(name: &str, pid: &str) -> Result<()> {
    let status = std::process::Command::new("kill").args([name, pid]).status()?;
    ensure!(status.success(), "kill {name} {pid}");
    Ok(())
}
