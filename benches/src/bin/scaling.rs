//! Throughput with 1, 2, 4 and 8 providers, and what a request costs the gateway. The providers' engines are simulated and
//! have a fixed pace, so that two cores suffice: only the market can be what does not scale.

use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use futures::future::try_join_all;
use rialto_benches::{Report, processor_nanos, processor_nanos_of};
use rialto_engine::SimulatedConfig;
use rialto_testkit::market::{MODEL, Market, Plan};

const SLOTS: u32 = 4;
const TOKENS: u64 = 16;
const PACE: Duration = Duration::from_millis(20);
const MEASURED: Duration = Duration::from_secs(8);
/// Clients for each slot: a seller that has ended one answer has the next request at hand.
const CLIENTS: usize = 2;

#[tokio::main]
async fn main() -> Result<()> {
    let mut report = Report::new("scaling");
    let mut single = None;
    for providers in [1u32, 2, 4, 8] {
        let (throughput, gateway, all) = measure(usize::try_from(providers)?).await?;
        let first = *single.get_or_insert(throughput);
        report.row(format!("{providers} providers"), throughput, "requests/s");
        report.row(
            format!("{providers} providers against {providers} times one"),
            throughput / (first * f64::from(providers)),
            "times",
        );
        report.row(format!("{providers} providers, gateway"), gateway, "CPU-µs a request");
        report.row(format!("{providers} providers, everything"), all, "CPU-µs a request");
    }
    report.finish()
}

/// Requests a second, and the processor time of one, of the gateway and of all, in microseconds.
async fn measure(providers: usize) -> Result<(f64, f64, f64)> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .thread_name("gateway")
        .enable_all()
        .build()?;
    let market = Market::start(Plan {
        providers,
        engine: SimulatedConfig {
            slots: SLOTS,
            queue: 64,
            first_token: PACE,
            token_interval: PACE,
            ..SimulatedConfig::default()
        },
        gateway_runs_on: Some(runtime.handle().clone()),
        ..Plan::default()
    })
    .await?;
    let count = providers * usize::try_from(SLOTS)? * CLIENTS;
    // Every channel is open, and everything was measured once, before the clock starts.
    ask(&market, count, Duration::from_secs(3)).await?;
    let before = (processor_nanos_of("gateway")?, processor_nanos()?);
    let started = Instant::now();
    let done = ask(&market, count, MEASURED).await?;
    let seconds = started.elapsed().as_secs_f64();
    let each = |before: u64, after: u64| Duration::from_nanos(after - before).as_secs_f64() * 1e6 / f64::from(done);
    let gateway = each(before.0, processor_nanos_of("gateway")?);
    let all = each(before.1, processor_nanos()?);
    market.stop().await?;
    runtime.shutdown_background();
    Ok((f64::from(done) / seconds, gateway, all))
}

/// Asks again and again for a time; returns how many answers came.
async fn ask(market: &Market, clients: usize, time: Duration) -> Result<u32> {
    let until = Instant::now() + time;
    let loops = (0..clients).map(|number| {
        let client = market.client();
        async move {
            let mut done = 0u32;
            while Instant::now() < until {
                let answer = client.chat(MODEL, &format!("question {number}"), TOKENS).await;
                answer.with_context(|| format!("client {number}"))?;
                done += 1;
            }
            anyhow::Ok(done)
        }
    });
    Ok(try_join_all(loops).await?.into_iter().sum())
}
