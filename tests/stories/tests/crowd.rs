//! Many clients of one model at once.

use std::{
    io::Read as _,
    process::{Command, Stdio},
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use futures::future::join_all;
use rialto_testkit::{PATIENCE, process::Up};
use serde_json::{Value, json};

use crate::{bill, lives::MODEL};

/// What each asks for that reads to the end.
const TOKENS: u64 = 300;

/// What those ask for that leave: all that the model's context holds, so that they are gone long before their answers end.
const MORE: u64 = 480;

#[tokio::test]
async fn of_eight_streaming_clients_one_cancels_and_one_is_killed_and_no_other_notices() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let up = Up::on_devchain(&folder.path().join("market"))?;
    let client = up.client()?;
    up.first_trade()?;
    let before = receipts(&up)?.len();
    let others = join_all((0..6).map(|_| client.continue_text(MODEL, "KING HENRY V:\n", TOKENS, |_| true)));
    let cancels = client.continue_text(MODEL, "KING HENRY V:\n", MORE, |so_far| so_far.deltas < 3);
    let (url, key) = (up.said("base_url")?, up.said("api_key")?);
    let killed = tokio::task::spawn_blocking(move || killed_after_its_first_bytes(&url, &key));
    let (others, cancelled, killed) = tokio::join!(others, cancels, killed);
    killed??;
    ensure!(!cancelled?.done, "it was over before it was cancelled");
    for other in others {
        let other = other?;
        ensure!(other.done && other.error.is_none(), "{other:?}");
        let tokens = other.usage.as_ref().and_then(|usage| usage.get("completion_tokens"));
        ensure!(tokens.and_then(Value::as_u64) == Some(TOKENS), "{other:?}");
    }
    // The receipts of those who left are on their way, or come with the next request.
    let all = async {
        let mut more = 0;
        while receipts(&up)?.len() < before + 8 + more {
            tokio::time::sleep(Duration::from_millis(100)).await;
            client.chat(MODEL, "Is that all?", 8).await?;
            more += 1;
        }
        anyhow::Ok(8 + more)
    };
    let all = tokio::time::timeout(PATIENCE, all).await;
    let all = all.context("a receipt is missing")??;
    bill::settles(&up, true).await?;
    let receipts = receipts(&up)?;
    let outputs = receipts.iter().take(all);
    let outputs = outputs.filter_map(|one| one.pointer("/signed/receipt/usage/output")?.as_u64());
    let (whole, cut): (Vec<u64>, Vec<u64>) = outputs.partition(|units| *units == TOKENS);
    // Nobody pays for what was never sent, and nothing was computed for nobody.
    ensure!(
        whole.len() >= 6 && whole.len() + cut.len() == all && cut.iter().all(|units| *units < MORE),
        "{receipts:?}"
    );
    up.stop()
}

/// The buyer's receipts, the newest first.
fn receipts(up: &Up) -> Result<Vec<Value>> {
    let receipts = up.ask(&["receipts", "--limit", "100"])?;
    Ok(receipts.as_array().context("receipts")?.clone())
}

/// A client in a process of its own, which dies without a word.
fn killed_after_its_first_bytes(base_url: &str, key: &str) -> Result<()> {
    let body = json!({ "model": MODEL, "prompt": "KING HENRY V:\n", "max_tokens": MORE, "stream": true });
    let mut child = Command::new("curl")
        .args(["--silent", "--no-buffer", "--json", &body.to_string()])
        .args(["--header", &format!("Authorization: Bearer {key}")])
        .arg(format!("{base_url}/completions"))
        .stdout(Stdio::piped())
        .spawn()?;
    let mut first = [0; 64];
    child.stdout.as_mut().context("its output")?.read_exact(&mut first)?;
    child.kill()?;
    child.wait()?;
    ensure!(first.starts_with(b"data: "), "{}", String::from_utf8_lossy(&first));
    Ok(())
}
