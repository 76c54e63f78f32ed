//! What a router costs: our market against vLLM's router, SGLang's router and LiteLLM's proxy, all in front of one server
//! that answers with OpenAI's protocol at once. Every contestant takes its turn in every round.
//!
//! Ours takes two turns. Once each request crosses two processes, gateway and provider, over QUIC, with vouchers signed,
//! checked and stored, and a receipt; both ends are in the table, and the provider's part has the engine's adapter in it,
//! which talks to the server. And once as the others do it: the gateway alone, in front of the server as its owner's own.
//! `benches/python/routers/install.sh` installs the others.

use std::collections::BTreeMap;

use anyhow::{Context, Result};
use rialto_benches::{
    Report, median,
    routers::{Contestant, Load, Target, Upstream, pass_on, percentile, serve},
};

const ROUNDS: usize = 5;

/// Whole answers one after another: what is added to each.
const ALONE: Load = Load {
    requests: 300,
    parallel: 1,
    tokens: 16,
    pace: None,
};

/// Whole answers, many at a time: what each costs.
const BUSY: Load = Load {
    requests: 4_000,
    parallel: 16,
    tokens: 16,
    pace: None,
};

/// Streams, a few at a time: the first token, and what each further one costs.
const STREAMS: Load = Load {
    requests: 160,
    parallel: 8,
    tokens: 64,
    pace: Some(2),
};

/// Streams, very many at a time.
const CROWD: Load = Load {
    requests: 512,
    parallel: 512,
    tokens: 32,
    pace: Some(100),
};

/// What LiteLLM gets of the loads whose number of requests decides only how well they are measured.
const SLOW: usize = 10;

/// Figures of each round, by what they are.
type Figures = BTreeMap<(usize, String), Vec<f64>>;

#[tokio::main]
async fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match arguments.iter().map(String::as_str).collect::<Vec<_>>().as_slice() {
        ["upstream"] => return serve().await,
        ["bare", port, upstream] => return pass_on(port.parse()?, upstream).await,
        _ => {}
    }
    let folder = tempfile::tempdir()?;
    let upstream = Upstream::start()?;
    let mut report = Report::new("router");
    let mut contestants = Vec::from(Contestant::rialto(&upstream, folder.path()).await?);
    contestants.push(Contestant::bare(&upstream, folder.path()).await?);
    let others = [
        ("vllm-router", Contestant::vllm(&upstream, folder.path()).await?),
        ("sglang-router", Contestant::sglang(&upstream, folder.path()).await?),
        ("litellm", Contestant::litellm(&upstream, folder.path()).await?),
    ];
    for (name, other) in others {
        match other {
            Some(other) => contestants.push(other),
            None => report.row(format!("{name} is not installed"), f64::NAN, ""),
        }
    }
    let direct = upstream.target()?;
    let mut figures = Figures::new();
    for (place, contestant) in contestants.iter().enumerate() {
        contestant.target.bear(scaled(contestant, BUSY, SLOW)).await?;
        note_memory(&mut figures, place, contestant, "memory before the streams")?;
    }
    direct.bear(BUSY).await?;
    for round in 0..ROUNDS {
        let base = alone(&direct).await?;
        for turn in 0..contestants.len() {
            let place = (turn + round) % contestants.len();
            let contestant = contestants.get(place).context("a contestant")?;
            measure(&mut figures, place, contestant, base).await?;
        }
    }
    tell(&mut report, &contestants, &figures);
    report.finish()
}

/// What the server itself takes, in microseconds.
#[derive(Debug, Clone, Copy)]
struct Base {
    whole: [f64; 2],
    stream: [f64; 2],
    crowd: [f64; 2],
}

const PERCENTILES: [usize; 2] = [50, 99];

async fn alone(direct: &Target) -> Result<Base> {
    let mut middle = Vec::new();
    for load in [ALONE, STREAMS, CROWD] {
        let measured = direct.bear(load).await?;
        anyhow::ensure!(measured.failed == 0, "the server itself: {:?}", measured.reason);
        middle.push(PERCENTILES.map(|percent| percentile(&measured.firsts, percent)));
    }
    match middle.as_slice() {
        [whole, stream, crowd] => Ok(Base {
            whole: *whole,
            stream: *stream,
            crowd: *crowd,
        }),
        _ => anyhow::bail!("three loads have three figures"),
    }
}

/// One contestant's turn.
async fn measure(figures: &mut Figures, place: usize, contestant: &Contestant, base: Base) -> Result<()> {
    let mut note = |what: String, figure: f64| figures.entry((place, what)).or_default().push(figure);
    let loads = [
        ("whole answer, one at a time", scaled(contestant, ALONE, 3), base.whole),
        (
            "whole answer, 16 at a time",
            scaled(contestant, BUSY, SLOW),
            [f64::NAN; 2],
        ),
        ("stream of 64 tokens, 8 at a time", STREAMS, base.stream),
        ("stream of 32 tokens, 512 at a time", CROWD, base.crowd),
    ];
    for (what, load, base) in loads {
        let before = spent(contestant)?;
        let measured = contestant.target.bear(load).await?;
        let asked = f64::from(u32::try_from(load.requests)?);
        for ((part, after), before) in contestant.parts.iter().zip(spent(contestant)?).zip(before) {
            note(format!("{what}: processor {}", part.name), (after - before) / asked);
        }
        for (percent, base) in PERCENTILES.into_iter().zip(base) {
            note(
                format!("{what}: added p{percent}"),
                percentile(&measured.firsts, percent) - base,
            );
        }
        note(format!("{what}: failed"), f64::from(measured.failed));
        note(format!("{what}: a second"), asked / measured.seconds);
        if let Some(reason) = measured.reason {
            complain(contestant.name, what, &reason);
        }
    }
    note_memory(figures, place, contestant, "memory at most")
}

#[expect(clippy::print_stderr, reason = "why an answer failed stands in no table")]
fn complain(name: &str, what: &str, reason: &str) {
    eprintln!("{name}, {what}: {reason}");
}

fn spent(contestant: &Contestant) -> Result<Vec<f64>> {
    contestant
        .parts
        .iter()
        .map(|part| part.tree.processor_micros())
        .collect()
}

fn note_memory(figures: &mut Figures, place: usize, contestant: &Contestant, what: &str) -> Result<()> {
    for part in &contestant.parts {
        let (now, most) = part.tree.memory()?;
        let figure = if what.ends_with("most") { most } else { now };
        figures
            .entry((place, format!("{what} {}", part.name)))
            .or_default()
            .push(figure);
    }
    Ok(())
}

/// The same load with fewer requests for a contestant that would take minutes for it.
fn scaled(contestant: &Contestant, load: Load, by: usize) -> Load {
    let by = if contestant.name == "litellm" { by } else { 1 };
    Load {
        requests: load.requests / by,
        ..load
    }
}

/// The rows of the table: medians over the rounds, and the medians of the rounds' ratios.
fn tell(report: &mut Report, contestants: &[Contestant], figures: &Figures) {
    let of = |place: usize, what: &str| figures.get(&(place, what.to_owned())).cloned().unwrap_or_default();
    for (place, contestant) in contestants.iter().enumerate() {
        for ((_, what), each) in figures.range((place, String::new())..(place + 1, String::new())) {
            let unit = match what.as_str() {
                what if what.contains("processor") => "CPU-µs a request",
                what if what.contains("added") => "µs",
                what if what.contains("memory") => "MiB",
                what if what.ends_with("a second") => "answers",
                _ => "answers",
            };
            if each.iter().all(|figure| figure.is_finite()) {
                report.row(
                    format!("{}: {}", contestant.name, what.trim()),
                    median(each.clone()),
                    unit,
                );
            }
        }
    }
    let parts: Vec<&str> = contestants
        .first()
        .map(|ours| ours.parts.iter().map(|part| part.name).collect())
        .unwrap_or_default();
    for (place, other) in contestants.iter().enumerate().skip(2) {
        for what in [
            "whole answer, 16 at a time: processor",
            "stream of 64 tokens, 8 at a time: processor",
            "stream of 32 tokens, 512 at a time: processor",
        ] {
            let theirs = of(place, &format!("{what} "));
            let mut both = vec![0.0; theirs.len()];
            for part in &parts {
                let ours = of(0, &format!("{what} {part}"));
                for (sum, figure) in both.iter_mut().zip(ours) {
                    *sum += figure;
                }
            }
            let gateway = of(0, &format!("{what} gateway"));
            let ratio = |ours: Vec<f64>| {
                median(
                    ours.into_iter()
                        .zip(&theirs)
                        .map(|(ours, theirs)| ours / theirs)
                        .collect(),
                )
            };
            report.row(
                format!("{what}, our gateway against {}", other.name),
                ratio(gateway),
                "times",
            );
            report.row(
                format!("{what}, gateway and provider against {}", other.name),
                ratio(both),
                "times",
            );
            report.row(
                format!("{what}, own server against {}", other.name),
                ratio(of(1, &format!("{what} gateway"))),
                "times",
            );
        }
    }
}
