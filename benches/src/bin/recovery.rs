//! How long a model is away when its worker is killed, and when it hangs: from the signal to the first token of the next
//! answer.

use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use rialto_benches::{Report, median};
use rialto_engine::{Engine, LoadOptions, Piece, Sandboxed, Scope};
use rialto_protocol::{
    job::{Generation, Job},
    manifest::Manifest,
};
use rialto_testkit::process::repository;
use tokio::sync::watch;

const ROUNDS: usize = 9;

#[tokio::main]
async fn main() -> Result<()> {
    let folder = repository().join("models/shakespeare");
    let manifest = Manifest::from_toml(&std::fs::read_to_string(folder.join("manifest-q8_0.toml"))?)?;
    let mut report = Report::new("recovery");
    for (signal, what) in [("KILL", "killed"), ("STOP", "stopped, as if it hung")] {
        let mut times = Vec::new();
        for _ in 0..ROUNDS {
            // One that dies again and again is started again later and later.
            let engine = Sandboxed::load(&manifest, &folder, &LoadOptions::default()).await?;
            times.push(away(&engine, signal).await?);
        }
        let worst = times.iter().copied().fold(0.0, f64::max);
        report.row(
            format!("worker {what}: until the next first token, median"),
            median(times),
            "s",
        );
        report.row(format!("worker {what}: the longest of {ROUNDS}"), worst, "s");
    }
    report.finish()
}

async fn away(engine: &Sandboxed, signal: &str) -> Result<f64> {
    first_token(engine).await?;
    let process = engine.process_id().context("no worker")?;
    let begun = Instant::now();
    let sent = std::process::Command::new("kill")
        .args(["-s", signal, &process.to_string()])
        .status()?;
    anyhow::ensure!(sent.success(), "kill failed");
    loop {
        if first_token(engine).await.is_ok() && engine.process_id() != Some(process) {
            return Ok(begun.elapsed().as_secs_f64());
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

async fn first_token(engine: &Sandboxed) -> Result<()> {
    let generation = Generation {
        max_tokens: 1,
        ..Generation::default()
    };
    let job = Job::Completion {
        prompt: "HAMLET:\n".into(),
        generation,
    };
    let prepared = engine.prepare(job, Scope::Alone).await?;
    let (_grant, paid) = watch::channel(1);
    let mut answer = prepared.start(paid);
    match answer.pieces.recv().await.context("the engine ended")?? {
        Piece::Output(_) => Ok(()),
        Piece::Finished(_) => anyhow::bail!("it ended at once"),
    }
}
