//! Our language engine against llama.cpp's own server and Python library: the same file, the same threads, in turns in one
//! run. `engines [MODEL.gguf] [THREADS] [ROUNDS]`; without a model, the shipped one. `benches/python/model.py` makes larger
//! ones. Ratios are medians over rounds of the two figures of a round, above one where ours is better.
//!
//! Both are built for this machine by `benches/python/install.sh`; what is not there does not take part.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use anyhow::{Context, Result};
use rialto_benches::{
    Report,
    contestants::{Contestant, Library, Server, Timed, found},
    median,
};
use rialto_engine::{LoadOptions, Mode, Sandboxed};
use rialto_protocol::{
    Digest,
    manifest::{Artifact, Format, Manifest, TaskKind},
};
use rialto_testkit::process::repository;
use rialto_worker::{Steps, llama::LlamaEngine};

const SLOTS: u32 = 8;

/// Between two turns.
const REST: Duration = Duration::from_millis(200);

/// What is asked: a name, how often the sentence stands in the prompt, tokens, and answers at once.
#[derive(Debug, Clone, Copy)]
struct Workload {
    name: &'static str,
    unit: &'static str,
    sentences: usize,
    tokens: u64,
    times: u64,
    figure: fn(&[Timed]) -> f64,
    /// Whether less is better.
    is_time: bool,
}

const WORKLOADS: [Workload; 4] = [
    Workload {
        name: "prefill",
        unit: "tokens/s",
        sentences: 20,
        tokens: 1,
        times: 1,
        figure: |timed| sum(timed, |one| one.prompt) / sum(timed, |one| one.first),
        is_time: false,
    },
    Workload {
        name: "decode",
        unit: "tokens/s",
        sentences: 1,
        tokens: 48,
        times: 1,
        figure: |timed| (sum(timed, |one| one.tokens) - 1.0) / sum(timed, |one| one.all - one.first),
        is_time: false,
    },
    Workload {
        name: "8 at once",
        unit: "tokens/s",
        sentences: 1,
        tokens: 24,
        times: 8,
        figure: |timed| sum(timed, |one| one.tokens) / timed.iter().map(|one| one.all).fold(0.0, f64::max),
        is_time: false,
    },
    Workload {
        name: "first token",
        unit: "ms",
        sentences: 2,
        tokens: 1,
        times: 1,
        figure: |timed| sum(timed, |one| one.first) * 1e3,
        is_time: true,
    },
];

fn sum(timed: &[Timed], part: impl Fn(&Timed) -> f64) -> f64 {
    timed.iter().map(part).sum()
}

#[tokio::main]
async fn main() -> Result<()> {
    let mut arguments = std::env::args().skip(1);
    let shipped = || repository().join("models/shakespeare/shakespeare-q8_0.gguf");
    let model = arguments.next().map_or_else(shipped, PathBuf::from).canonicalize()?;
    let threads: u32 = arguments.next().map_or(Ok(2), |text| text.parse())?;
    let context = if model == shipped().canonicalize()? { 512 } else { 1_024 };
    let rounds: usize = arguments.next().map_or(Ok(25), |text| text.parse())?;
    let mut contestants = contestants(&model, threads, context).await?;
    let names: Vec<&'static str> = contestants.iter().map(|(name, _)| *name).collect();
    let mut report = Report::new("engines");
    for workload in WORKLOADS {
        let figures = measure(&workload, &mut contestants, rounds).await?;
        report_on(&mut report, &workload, &names, &figures);
    }
    report.finish()
}

/// The figures of each contestant, a round each; none of those that cannot do this.
async fn measure(
    workload: &Workload,
    contestants: &mut [(&'static str, Contestant)],
    rounds: usize,
) -> Result<Vec<Vec<f64>>> {
    let prompt = "The quality of mercy is not strained. ".repeat(workload.sentences);
    let count = contestants.len();
    let mut figures: Vec<Vec<f64>> = vec![Vec::new(); count];
    for round in 0..=rounds {
        // Nobody always comes first, or after the same other.
        for turn in 0..count {
            let place = (turn * (1 + round % 2 * (count - 2)) + round) % count;
            let (Some((_, contestant)), Some(figures)) = (contestants.get_mut(place), figures.get_mut(place)) else {
                continue;
            };
            if workload.times > 1 && matches!(contestant, Contestant::Library(_)) {
                continue;
            }
            // Threads of the one before go on spinning for a while after their work.
            tokio::time::sleep(REST).await;
            let timed = contestant.answer(&prompt, workload.tokens, workload.times).await?;
            // The first round warms up.
            if round > 0 {
                figures.push((workload.figure)(&timed));
            }
        }
    }
    Ok(figures)
}

fn report_on(report: &mut Report, workload: &Workload, names: &[&str], figures: &[Vec<f64>]) {
    let took_part = || names.iter().zip(figures).filter(|(_, figures)| !figures.is_empty());
    for (name, figures) in took_part() {
        report.row(
            format!("{}: {name}", workload.name),
            median(figures.clone()),
            workload.unit,
        );
    }
    let (ours, others): (Vec<_>, Vec<_>) = took_part().partition(|(name, _)| name.starts_with("ours"));
    for (name, figures) in &ours {
        // Beside the others, what the worker costs and what exactness does.
        for (other, theirs) in others.iter().chain(ours.first()).filter(|(other, _)| other != name) {
            let pairs = figures.iter().zip(*theirs);
            let ratios = pairs.map(|(ours, theirs)| if workload.is_time { theirs / ours } else { ours / theirs });
            let what = format!("{}: {name}, to {other}", workload.name);
            report.row(what, median(ratios.collect()), "x");
        }
    }
}

async fn contestants(model: &Path, threads: u32, context: u32) -> Result<Vec<(&'static str, Contestant)>> {
    let manifest = manifest(model, context)?;
    let folder = model.parent().context("a model has a folder")?;
    let options = |mode| LoadOptions {
        mode,
        slots: SLOTS,
        threads: Some(threads),
        context: Some(context),
        ..LoadOptions::default()
    };
    let direct = LlamaEngine::load(&manifest, folder, &options(Mode::Fast), &Steps::default())?;
    let mut contestants = vec![
        ("ours, in this process", Contestant::Ours(Arc::new(direct))),
        (
            "ours, in a worker",
            Contestant::Ours(Arc::new(
                Sandboxed::load(&manifest, folder, &options(Mode::Fast)).await?,
            )),
        ),
        (
            "ours, exact, in a worker",
            Contestant::Ours(Arc::new(
                Sandboxed::load(&manifest, folder, &options(Mode::Exact)).await?,
            )),
        ),
    ];
    let target = repository().join("target");
    if let Some(program) = found(&[target.join("bench/llama.cpp/llama-server")]) {
        let server = Server::start(&program, model, threads, SLOTS, context).await?;
        contestants.push(("llama.cpp's server", Contestant::Server(server)));
    }
    if let Some(python) = found(&[target.join("bench/venv/bin/python")]) {
        let script = repository().join("benches/python/llama.py");
        let library = Library::start(&python, &script, model, threads)?;
        contestants.push(("llama.cpp's Python library", Contestant::Library(Box::new(library))));
    }
    Ok(contestants)
}

/// A manifest of a file that has none.
fn manifest(model: &Path, context: u32) -> Result<Manifest> {
    let name = model
        .file_name()
        .and_then(|name| name.to_str())
        .context("a file's name")?;
    let content = std::fs::read(model)?;
    Ok(Manifest {
        schema: 1,
        publisher_name: "bench".into(),
        name: "model".into(),
        tag: "v1".into(),
        task: TaskKind::Completion,
        description: String::new(),
        quantisation: String::new(),
        licence: "MIT".into(),
        royalty_bps: 0,
        context_length: context.into(),
        format: Format::Gguf,
        chat_template_hash: String::new(),
        tokenizer_hash: String::new(),
        artifacts: vec![Artifact {
            path: name.into(),
            blake3: Digest(rialto_engine::artifact::hash(&content)),
            size: u64::try_from(content.len())?,
        }],
        inputs: vec![],
        outputs: vec![],
    })
}
