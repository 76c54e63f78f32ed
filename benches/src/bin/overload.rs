//! A provider that is asked for twice of what it can do: how much of its capacity still becomes answers, what becomes of
//! every request, whether refused callers get in when they come back as they were told, and what a payer gets that asks
//! for little while another floods the provider. Real QUIC, real vouchers and receipts; the engine keeps a fixed pace.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use rialto_benches::{
    Report,
    buyer::{Buyer, End},
    median,
};
use rialto_engine::SimulatedConfig;
use rialto_protocol::wire::RefusalCode;
use rialto_testkit::market::{Market, Plan};

const SLOTS: u32 = 8;
const QUEUE: usize = 32;
const TOKENS: u64 = 16;
const PATIENCE: Duration = Duration::from_secs(10);
/// How long each part runs.
const LONG: Duration = Duration::from_secs(15);
/// The first answers fill the queue and are not counted.
const START: Duration = Duration::from_secs(3);

/// What became of the requests of one payer.
#[derive(Debug, Default)]
struct Tally {
    /// Answers that ended while it was counted.
    served: u32,
    /// Requests that ended, whenever that was.
    ended: u32,
    /// Requests that had not been served when time was up.
    left: u32,
    /// Requests without an outcome.
    lost: u32,
    refusals: BTreeMap<String, u32>,
    /// Refusals as busy that did not say when to come back.
    silent: u32,
    /// Callers that came back as they were told, and were not refused again.
    kept: u32,
    /// Those that were.
    broken: u32,
    firsts: Vec<f64>,
}

type Shared = Arc<Mutex<Tally>>;

impl Tally {
    /// Notes how an attempt ended. Returns how long its caller is to wait; `None` when it is over.
    fn note(&mut self, outcome: Result<End>, attempt: Attempt) -> Option<Duration> {
        let now = Instant::now();
        let wait = match outcome {
            Ok(End::Served { first, .. }) => {
                self.kept += u32::from(attempt.told);
                self.served += u32::from(now >= attempt.start && now < attempt.end);
                if attempt.asked >= attempt.start && !attempt.told {
                    self.firsts.push(first.as_secs_f64() * 1e3);
                }
                None
            }
            Ok(End::Refused(refusal)) => {
                *self.refusals.entry(format!("{:?}", refusal.code)).or_default() += 1;
                self.broken += u32::from(attempt.told);
                let busy = refusal.code == RefusalCode::Busy;
                self.silent += u32::from(busy && refusal.retry_after_ms.is_none());
                Some(Duration::from_millis(refusal.retry_after_ms.unwrap_or(1_000)))
            }
            Err(_) => {
                self.lost += 1;
                None
            }
        };
        let late = wait.is_some_and(|wait| now + wait >= attempt.end);
        self.left += u32::from(late);
        self.ended += u32::from(late || wait.is_none());
        wait.filter(|_| !late)
    }
}

/// One attempt of a caller.
#[derive(Debug, Clone, Copy)]
struct Attempt {
    asked: Instant,
    /// Whether it comes back as it was told.
    told: bool,
    /// What ends in between is counted.
    start: Instant,
    end: Instant,
}

/// Asks until it is served, coming back as it is told, or until `end`.
async fn caller(buyer: Buyer, text: String, tally: Shared, start: Instant, end: Instant) {
    let asked = Instant::now();
    let mut attempt = Attempt {
        asked,
        told: false,
        start,
        end,
    };
    loop {
        let outcome = buyer.ask(&text, TOKENS, PATIENCE).await;
        let wait = tally
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .note(outcome, attempt);
        let Some(wait) = wait else { return };
        attempt.told = true;
        tokio::time::sleep(wait).await;
    }
}

/// Callers of one payer, so many a second.
async fn crowd(buyer: Buyer, name: &'static str, a_second: f64, start: Instant, end: Instant) -> Result<Tally> {
    let tally = Shared::default();
    let mut beat = tokio::time::interval(Duration::from_secs_f64(1.0 / a_second));
    let mut callers = tokio::task::JoinSet::new();
    while Instant::now() < end {
        beat.tick().await;
        let text = format!("{name} asks {:?}", Instant::now());
        callers.spawn(caller(buyer.clone(), text, tally.clone(), start, end));
    }
    let came = u32::try_from(callers.len())?;
    while let Some(ended) = callers.join_next().await {
        ended?;
    }
    let tally = std::mem::take(&mut *tally.lock().unwrap_or_else(PoisonError::into_inner));
    ensure!(
        tally.ended == came,
        "{} of {came} requests have no outcome",
        came - tally.ended
    );
    Ok(tally)
}

/// Answers a second with all slots and a part of the queue always taken.
async fn capacity(buyer: &Buyer) -> Result<f64> {
    let (start, end) = (Instant::now() + START, Instant::now() + START + LONG);
    let mut workers = tokio::task::JoinSet::new();
    for number in 0..2 * SLOTS {
        let buyer = buyer.clone();
        workers.spawn(async move {
            let mut served = 0u32;
            while Instant::now() < end {
                let text = format!("worker {number}");
                let outcome = buyer.ask(&text, TOKENS, PATIENCE).await?;
                ensure!(matches!(outcome, End::Served { .. }), "{outcome:?}");
                let now = Instant::now();
                served += u32::from(now >= start && now < end);
            }
            Ok(served)
        });
    }
    let mut served = 0;
    while let Some(worker) = workers.join_next().await {
        served += worker??;
    }
    Ok(f64::from(served) / LONG.as_secs_f64())
}

fn rows(report: &mut Report, who: &str, tally: &Tally) {
    let mut row = |what: &str, figure: f64, unit| report.row(format!("{who}: {what}"), figure, unit);
    row("requests", f64::from(tally.ended), "");
    row("without an outcome", f64::from(tally.lost), "");
    row("still told to wait at the end", f64::from(tally.left), "");
    for (code, count) in &tally.refusals {
        row(&format!("refused: {code}"), f64::from(*count), "times");
    }
    row("refused as busy without a time", f64::from(tally.silent), "times");
    let back = tally.kept + tally.broken;
    let share = f64::from(tally.kept) / f64::from(back.max(1)) * 100.0;
    row("came back as told", f64::from(back), "times");
    if back > 0 {
        row("of these served", share, "%");
    }
}

fn percentile(mut figures: Vec<f64>, percent: usize) -> f64 {
    figures.sort_by(f64::total_cmp);
    let place = figures.len().saturating_sub(1) * percent / 100;
    figures.get(place).copied().unwrap_or(f64::NAN)
}

#[tokio::main]
async fn main() -> Result<()> {
    let market = Market::start(Plan {
        engine: SimulatedConfig {
            slots: SLOTS,
            first_token: Duration::from_millis(40),
            token_interval: Duration::from_millis(4),
            ..Plan::default().engine
        },
        queue: QUEUE,
        ..Plan::default()
    })
    .await?;
    let peer = market.peers().first().context("no provider")?;
    let flood = Buyer::open(market.chain(), peer, 5).await?;
    let modest = Buyer::open(market.chain(), peer, 6).await?;
    let mut report = Report::new("overload");

    let capacity = capacity(&flood).await?;
    report.row("capacity", capacity, "answers/s");

    let times = || (Instant::now() + START, Instant::now() + START + LONG);
    let (start, end) = times();
    let tally = crowd(flood.clone(), "all", 2.0 * capacity, start, end).await?;
    let goodput = f64::from(tally.served) / LONG.as_secs_f64();
    report.row("at twice the capacity: answers", goodput, "answers/s");
    report.row(
        "at twice the capacity: goodput",
        goodput / capacity * 100.0,
        "% of capacity",
    );
    rows(&mut report, "at twice the capacity", &tally);

    let (start, end) = times();
    let alone = crowd(modest.clone(), "alone", 0.2 * capacity, start, end).await?;
    let (start, end) = times();
    let (flooding, beside) = tokio::join!(
        crowd(flood.clone(), "flood", 3.0 * capacity, start, end),
        crowd(modest.clone(), "modest", 0.2 * capacity, start, end),
    );
    let (flooding, beside) = (flooding?, beside?);
    let all = f64::from(flooding.served + beside.served) / LONG.as_secs_f64();
    report.row(
        "beside a flood of 3 times the capacity: goodput",
        all / capacity * 100.0,
        "% of capacity",
    );
    let asked = 0.2 * capacity * LONG.as_secs_f64();
    report.row(
        "the modest payer: served at once",
        f64::from(beside.served) / asked * 100.0,
        "% of what it asked",
    );
    rows(&mut report, "the modest payer", &beside);
    report.row("its first output, alone, median", median(alone.firsts.clone()), "ms");
    report.row("its first output, alone, p99", percentile(alone.firsts, 99), "ms");
    report.row(
        "its first output, beside the flood, median",
        median(beside.firsts.clone()),
        "ms",
    );
    report.row(
        "its first output, beside the flood, p99",
        percentile(beside.firsts, 99),
        "ms",
    );
    rows(&mut report, "the flood", &flooding);
    report.finish()?;
    market.stop().await
}
