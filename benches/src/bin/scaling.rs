//! Throughput with 1, 2, 4 and 8 providers, and what a request costs the gateway. The providers' engines are simulated and
//! have a fixed pace, so that two cores suffice: only the market can be what does not scale.

use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use futures::future::{try_join, try_join_all};
use rialto_benches::{Report, processor_nanos, processor_nanos_of};
use rialto_engine::SimulatedConfig;
use rialto_testkit::market::{MODEL, Market, Plan};
use tokio::time::sleep;

const SLOTS: u32 = 4;
const TOKENS: u32 = 16;
const PACE: Duration = Duration::from_millis(20);
const START: Duration = Duration::from_secs(3);
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
    let asked = ask(&market, count, START + MEASURED);
    let measured = async {
        // Every channel is open, everything was measured once, and every slot is taken.
        sleep(START).await;
        let before = Snapshot::take(&market)?;
        sleep(MEASURED).await;
        anyhow::Ok(Snapshot::take(&market)?.since(&before))
    };
    let ((), figures) = try_join(asked, measured).await?;
    market.stop().await?;
    runtime.shutdown_background();
    Ok(figures)
}

/// Where everything stands at a moment.
struct Snapshot {
    at: Instant,
    tokens: u64,
    gateway: u64,
    all: u64,
}

impl Snapshot {
    fn take(market: &Market) -> Result<Self> {
        Ok(Self {
            at: Instant::now(),
            tokens: market.engines().iter().map(|engine| engine.generated()).sum(),
            gateway: processor_nanos_of("gateway")?,
            all: processor_nanos()?,
        })
    }

    /// Requests a second, counted by their tokens so that those at the edges count in part, and the processor time of one,
    /// of the gateway and of all, in microseconds.
    fn since(&self, before: &Self) -> (f64, f64, f64) {
        let tokens = u32::try_from(self.tokens - before.tokens).unwrap_or(u32::MAX);
        let requests = f64::from(tokens) / f64::from(TOKENS);
        let each = |before: u64, after: u64| Duration::from_nanos(after - before).as_secs_f64() * 1e6 / requests;
        let seconds = self.at.duration_since(before.at).as_secs_f64();
        (
            requests / seconds,
            each(before.gateway, self.gateway),
            each(before.all, self.all),
        )
    }
}

/// Asks again and again for a time.
async fn ask(market: &Market, clients: usize, time: Duration) -> Result<()> {
    let until = Instant::now() + time;
    let loops = (0..clients).map(|number| {
        let client = market.client();
        async move {
            while Instant::now() < until {
                let answer = client.chat(MODEL, &format!("question {number}"), TOKENS.into()).await;
                answer.with_context(|| format!("client {number}"))?;
            }
            anyhow::Ok(())
        }
    });
    try_join_all(loops).await?;
    Ok(())
}
