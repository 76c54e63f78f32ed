//! What streaming through the market costs in tokens a second: the shipped language model called directly in this
//! process, against the same model bought by a client through gateway and provider, each a process of its own.

use std::time::Instant;

use anyhow::{Context, Result};
use rialto_benches::{Report, median};
use rialto_engine::{Engine, LoadOptions, Piece, Scope};
use rialto_protocol::{
    job::{Generation, Job},
    manifest::Manifest,
};
use rialto_testkit::process::{Up, repository};
use serde_json::Value;
use tokio::sync::watch;

const MODEL: &str = "rialto/shakespeare:q8_0";
const PROMPT: &str = "KING HENRY V:\n";
const TOKENS: u32 = 400;
const ROUNDS: usize = 9;

#[tokio::main]
async fn main() -> Result<()> {
    let folder = repository().join("models/shakespeare");
    let manifest = Manifest::from_toml(&std::fs::read_to_string(folder.join("manifest-q8_0.toml"))?)?;
    let engine = rialto_engine::load(&manifest, &folder, &LoadOptions::default()).await?;
    let place = tempfile::tempdir()?;
    let up = Up::on_devchain(&place.path().join("market"))?;
    let client = up.client()?;
    let (mut direct, mut bought, mut first) = (Vec::new(), Vec::new(), Vec::new());
    for round in 0..ROUNDS {
        let speed = generate(engine.as_ref()).await?;
        let (mut begun, started) = (None, Instant::now());
        let streamed = client
            .continue_text(MODEL, PROMPT, TOKENS.into(), |so_far| {
                if so_far.deltas == 1 && begun.is_none() {
                    begun = Some(started.elapsed().as_secs_f64());
                }
                true
            })
            .await?;
        let spent = started.elapsed().as_secs_f64();
        let tokens = streamed
            .usage
            .as_ref()
            .and_then(|usage| usage.get("completion_tokens"))
            .and_then(Value::as_f64);
        if round > 0 {
            direct.push(speed);
            bought.push(tokens.context("no usage")? / spent);
            first.push(begun.context("no text")? * 1e3);
        }
    }
    let (direct, bought) = (median(direct), median(bought));
    let mut report = Report::new("streaming");
    report.row("engine called directly", direct, "tokens/s");
    report.row("streamed through gateway and provider, paid", bought, "tokens/s");
    report.row("streaming overhead", (1.0 - bought / direct) * 100.0, "%");
    report.row("first token of a paid stream", median(first), "ms");
    report.finish()?;
    up.stop()
}

async fn generate(engine: &dyn Engine) -> Result<f64> {
    let generation = Generation {
        max_tokens: TOKENS.into(),
        temperature: 0.8,
        seed: 7,
        ..Generation::default()
    };
    let started = Instant::now();
    let prepared = engine
        .prepare(
            Job::Completion {
                prompt: PROMPT.into(),
                generation,
            },
            Scope::Alone,
        )
        .await?;
    let (_grant, granted) = watch::channel(u64::from(TOKENS));
    let mut answer = prepared.start(granted);
    let mut tokens = 0u64;
    while let Some(piece) = answer.pieces.recv().await {
        match piece? {
            Piece::Output(output) => tokens += output.units(),
            Piece::Finished(_) => break,
        }
    }
    let tokens = u32::try_from(tokens)?;
    Ok(f64::from(tokens) / started.elapsed().as_secs_f64())
}
