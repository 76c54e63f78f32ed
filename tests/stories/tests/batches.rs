//! Batches and power cuts: the gateway and the provider are killed while a batch runs, and no line is bought twice.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use rialto_testkit::{PATIENCE, client::Client, process::Up};
use serde_json::{Value, json};

use crate::{bill, lives::MODEL};

const LINES: usize = 60;

/// Asks again while the part that was killed is not there.
async fn patiently<T, F: Future<Output = Result<T>>>(what: &str, ask: impl Fn() -> F) -> Result<T> {
    let wait = async {
        loop {
            match ask().await {
                Ok(answer) => return answer,
                Err(_) => tokio::time::sleep(Duration::from_millis(100)).await,
            }
        }
    };
    let waited = tokio::time::timeout(PATIENCE, wait).await;
    waited.with_context(|| what.to_owned())
}

/// What is at a path; anything but 200 is an error.
async fn look(client: &Client, path: &str) -> Result<Value> {
    let (status, body) = client.get(path).await?;
    ensure!(status == 200, "{path}: {status} {body}");
    Ok(body)
}

fn text<'a>(value: &'a Value, field: &str) -> Result<&'a str> {
    value
        .get(field)
        .and_then(Value::as_str)
        .with_context(|| format!("{field} of {value}"))
}

/// The `custom_id`s in a batch's output or among its errors, with what stands there.
async fn outcomes(client: &Client, batch: &Value, file: &str) -> Result<BTreeMap<String, Value>> {
    let Some(id) = batch.get(file).and_then(Value::as_str) else {
        return Ok(BTreeMap::new());
    };
    let content = look(client, &format!("/v1/files/{id}/content")).await?;
    // A file of one line is read as the object that it is.
    let content = content.as_str().map_or_else(|| content.to_string(), str::to_owned);
    let mut read = BTreeMap::new();
    for line in content.lines() {
        let line: Value = serde_json::from_str(line)?;
        let before = read.insert(text(&line, "custom_id")?.to_owned(), line.clone());
        ensure!(before.is_none(), "an outcome comes twice: {line}");
    }
    Ok(read)
}

#[tokio::test]
async fn a_batch_outlives_the_kill_of_every_part_and_costs_what_its_receipts_say() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let up = Up::on_devchain(&folder.path().join("market"))?;
    let key = up.ask(&["key", "create", "batches"])?;
    let (secret, id) = (
        text(&key, "key")?.to_owned(),
        key.pointer("/row/id")
            .and_then(Value::as_str)
            .context("the key's id")?
            .to_owned(),
    );
    let client = || anyhow::Ok(up.client()?.with_key(&secret));
    let lines: String = (0..LINES)
        .map(|number| {
            let body = Client::chat_body(MODEL, &format!("Speak, thou {number}."), 60);
            let line = json!({
                "custom_id": format!("r{number}"), "method": "POST", "url": "/v1/chat/completions", "body": body
            });
            format!("{line}\n")
        })
        .collect();
    let file = client()?.upload("lines.jsonl", &lines).await?;
    let asked = json!({
        "input_file_id": text(&file, "id")?, "endpoint": "/v1/chat/completions", "completion_window": "24h"
    });
    let (status, _, batch) = client()?.post("/batches", &asked, &[]).await?;
    ensure!(status == 200, "{batch}");
    let path = format!("/v1/batches/{}", text(&batch, "id")?);
    // While nothing is killed there are bids: a line at least is bought at one.
    patiently("a first line is answered", || async {
        let batch = look(&client()?, &path).await?;
        let answered = batch.pointer("/request_counts/completed").and_then(Value::as_u64);
        ensure!(answered > Some(0), "not yet");
        Ok(())
    })
    .await?;
    for (round, part) in ["gateway", "gateway", "provider", "gateway"].into_iter().enumerate() {
        tokio::time::sleep(Duration::from_millis(150 + 90 * u64::try_from(round)?)).await;
        up.kill_and_wait(part)?;
    }
    let ended = || async {
        let batch = look(&client()?, &path).await?;
        ensure!(batch.get("completed_at").is_some_and(|at| !at.is_null()), "not yet");
        Ok(batch)
    };
    patiently("the batch ends", ended).await?;
    // A request settles what the kills cut off.
    patiently("the market answers again", || async {
        up.client()?.chat(MODEL, "Art thou there?", 8).await
    })
    .await?;
    bill::settles(&up, true).await?;

    let batch = look(&client()?, &path).await?;
    let good = outcomes(&client()?, &batch, "output_file_id").await?;
    let bad = outcomes(&client()?, &batch, "error_file_id").await?;
    let all: BTreeSet<&String> = good.keys().chain(bad.keys()).collect();
    ensure!(
        all.len() == LINES && good.len() + bad.len() == LINES,
        "{} answered, {} failed: {batch}",
        good.len(),
        bad.len()
    );
    let receipts = up.ask(&["receipts", "--limit", "10000"])?;
    let own = receipts.as_array().context("receipts")?.iter();
    let own: Vec<&Value> = own
        .filter(|row| row.get("key").and_then(Value::as_str) == Some(&id))
        .collect();
    // A line whose answer was lost has at most the one receipt of what arrived of it.
    ensure!(
        (good.len()..=LINES).contains(&own.len()),
        "{} answers, {} receipts",
        good.len(),
        own.len()
    );
    let mut sum = 0u128;
    for row in own {
        let cost = row.pointer("/signed/receipt/cost").context("a cost")?;
        sum += cost.to_string().parse::<u128>()?;
    }
    let cost = batch.pointer("/trade/cost_nanodollars").and_then(Value::as_str);
    ensure!(
        cost == Some(sum.to_string().as_str()),
        "the receipts add up to {sum}: {batch}"
    );
    let saved = batch
        .pointer("/trade/savings_nanodollars")
        .and_then(Value::as_str)
        .context("savings")?;
    ensure!(saved.parse::<i128>()? > 0, "nothing was saved: {batch}");
    up.stop()
}
