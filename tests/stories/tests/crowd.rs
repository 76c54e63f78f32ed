//! Many clients of one model at once.

use std::{
    io::Read as _,
    process::{Command, Stdio},
};

use anyhow::{Context, Result, ensure};
use futures::future::join_all;
use rialto_testkit::process::Up;
use serde_json::{Value, json};

use crate::{bill, lives::MODEL};

/// What each asks for.
const TOKENS: u64 = 300;

#[tokio::test]
async fn of_eight_streaming_clients_one_cancels_and_one_is_killed_and_no_other_notices() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let up = Up::on_devchain(&folder.path().join("market"))?;
    let client = up.client()?;
    let others = join_all((0..6).map(|_| client.continue_text(MODEL, "KING HENRY V:\n", TOKENS, |_| true)));
    let cancels = client.continue_text(MODEL, "KING HENRY V:\n", TOKENS, |so_far| so_far.deltas < 3);
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
    bill::settles(&up, true).await?;
    let receipts = up.ask(&["receipts", "--limit", "8"])?;
    let outputs = receipts.as_array().context("receipts")?.iter();
    let outputs = outputs.filter_map(|one| one.pointer("/signed/receipt/usage/output")?.as_u64());
    let cut: Vec<u64> = outputs.filter(|units| *units < TOKENS).collect();
    // Nobody pays for what was never sent, and nothing was computed for nobody.
    ensure!(cut.len() == 2, "{receipts}");
    up.stop()
}

/// A client in a process of its own, which dies without a word.
fn killed_after_its_first_bytes(base_url: &str, key: &str) -> Result<()> {
    let body = json!({ "model": MODEL, "prompt": "KING HENRY V:\n", "max_tokens": TOKENS, "stream": true });
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
