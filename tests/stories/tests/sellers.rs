//! More than one seller, and sellers that are not what they should be.

use std::collections::BTreeSet;

use anyhow::{Context, Result, ensure};
use futures::future::join_all;
use rialto_testkit::{
    PATIENCE,
    process::{Joined, Up, repository},
};
use serde_json::Value;

use crate::{bill, lives::MODEL};

/// Providers named by the channels that the gateway pays on.
fn providers(up: &Up) -> Result<BTreeSet<String>> {
    let channels = up.ask(&["channel", "list"])?;
    let used = channels
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(|row| row.get("channel"));
    let spent = used.filter(|channel| {
        channel
            .get("signed")
            .and_then(Value::as_u64)
            .is_some_and(|signed| signed > 0)
    });
    let named = spent.filter_map(|channel| channel.pointer("/params/provider").and_then(Value::as_str));
    Ok(named.map(str::to_owned).collect())
}

#[tokio::test]
async fn a_second_provider_joins_by_a_ticket_and_takes_its_share() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let up = Up::on_devchain(&folder.path().join("market"))?;
    let second = Joined::start(&folder.path().join("second"), &up.said("ticket")?, &[])?;
    let client = up.client()?;
    let both = async {
        loop {
            let asked = (0..8).map(|_| client.chat(MODEL, "Who is there?", 24));
            for answer in join_all(asked).await {
                answer?;
            }
            let sellers = providers(&up)?;
            if sellers.len() == 2 {
                return anyhow::Ok(sellers);
            }
        }
    };
    let sellers = tokio::time::timeout(PATIENCE, both).await;
    let sellers = sellers.context("the second provider got no trade")??;
    ensure!(sellers.contains(second.account()), "{sellers:?}");
    bill::settles(&up, false).await?;

    // When one seller is gone, the other serves: its client notices nothing.
    drop(second);
    for _ in 0..4 {
        client.chat(MODEL, "Who is there?", 8).await?;
    }
    up.stop()
}

#[tokio::test]
async fn a_changed_model_file_is_refused_by_its_hash() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let up = Up::on_devchain(&folder.path().join("market"))?;
    let copy = folder.path().join("model");
    std::fs::create_dir(&copy)?;
    for name in ["manifest-q8_0.toml", "shakespeare-q8_0.gguf"] {
        std::fs::copy(repository().join("models/shakespeare").join(name), copy.join(name))?;
    }
    let path = copy.join("shakespeare-q8_0.gguf");
    let mut bytes = std::fs::read(&path)?;
    let last = bytes.last_mut().context("an empty model")?;
    *last ^= 1;
    std::fs::write(&path, bytes)?;
    let manifest = copy.join("manifest-q8_0.toml");
    let model = ["--model", manifest.to_str().context("a path")?];
    let refused = Joined::start(&folder.path().join("cheat"), &up.said("ticket")?, &model);
    let error = format!("{:#}", refused.err().context("it was sold all the same")?);
    ensure!(error.contains("BLAKE3"), "{error}");
    up.stop()
}
