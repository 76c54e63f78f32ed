//! Processor time of a paid request: gateway, provider, network, signatures and stores, against the same engine called
//! directly and against an HTTP client that asks for nothing. Everything runs in this process but the model, which is
//! simulated and answers at once.

use anyhow::{Context, Result};
use futures::{StreamExt, stream};
use rialto_benches::{Report, median, processor_nanos};
use rialto_engine::{Engine, Piece, Scope};
use rialto_protocol::job::{Generation, Job, Message, Tools};
use rialto_testkit::market::{MODEL, Market, Plan};
use tokio::sync::watch;

const REQUESTS: u32 = 1_000;
const ROUNDS: usize = 5;
const PARALLEL: usize = 8;
const TOKENS: u64 = 8;

#[tokio::main]
async fn main() -> Result<()> {
    let market = Market::start(Plan::default()).await?;
    let client = market.client();
    for _ in 0..100 {
        client.chat(MODEL, "warm up", TOKENS).await?;
    }
    let (mut paid, mut direct, mut http) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        paid.push(micros(|| async { client.chat(MODEL, "a question", TOKENS).await.map(drop) }).await?);
        let engine = market.engines().first().context("no engine")?.as_ref();
        direct.push(micros(|| ask(engine)).await?);
        http.push(micros(|| async { client.get("/healthz").await.map(drop) }).await?);
    }
    let (paid, direct, http) = (median(paid), median(direct), median(http));
    let mut report = Report::new("paid_request");
    report.row("paid request, client included", paid, "CPU-µs");
    report.row("the same engine called directly", direct, "CPU-µs");
    report.row(
        "an HTTP request that is answered at once, client included",
        http,
        "CPU-µs",
    );
    report.row("paid request without engine and HTTP", paid - direct - http, "CPU-µs");
    report.row("paid request against the engine directly", paid / direct, "times");
    report.finish()?;
    market.stop().await
}

/// Processor time of one request, in microseconds, over many of them.
async fn micros<F: Future<Output = Result<()>>>(mut request: impl FnMut() -> F) -> Result<f64> {
    let before = processor_nanos()?;
    let outcomes: Vec<Result<()>> = stream::iter((0..REQUESTS).map(|_| request()))
        .buffer_unordered(PARALLEL)
        .collect()
        .await;
    outcomes.into_iter().collect::<Result<()>>()?;
    let spent = processor_nanos()?.saturating_sub(before);
    Ok(std::time::Duration::from_nanos(spent).as_secs_f64() * 1e6 / f64::from(REQUESTS))
}

async fn ask(engine: &dyn Engine) -> Result<()> {
    let messages = vec![Message::text("user", "a question")];
    let generation = Generation {
        max_tokens: TOKENS,
        ..Generation::default()
    };
    let prepared = engine
        .prepare(
            Job::Chat {
                messages,
                tools: Tools::default(),
                generation,
            },
            Scope::Alone,
        )
        .await?;
    let (_grant, granted) = watch::channel(TOKENS);
    let mut answer = prepared.start(granted);
    while let Some(piece) = answer.pieces.recv().await {
        if matches!(piece?, Piece::Finished(_)) {
            return Ok(());
        }
    }
    anyhow::bail!("the engine went away")
}
