//! Our language engine against llama.cpp's own server and Python library: the same file, the same threads, in turns in one
//! run. `engines [MODEL.gguf] [THREADS]`; without a model, the shipped one.
//!
//! Both are built for this machine by `benches/python/install.sh`; what is not there does not take part.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
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

const ROUNDS: usize = 7;
const SLOTS: u32 = 8;

/// What is asked: a name, how often the sentence stands in the prompt, tokens, and answers at once.
#[derive(Debug, Clone, Copy)]
struct Workload {
    name: &'static str,
    unit: &'static str,
    sentences: usize,
    tokens: u64,
    times: u64,
    figure: fn(&[Timed]) -> f64,
}

const WORKLOADS: [Workload; 4] = [
    Workload {
        name: "prefill",
        unit: "tokens/s",
        sentences: 40,
        tokens: 1,
        times: 1,
        figure: |timed| sum(timed, |one| one.prompt) / sum(timed, |one| one.first),
    },
    Workload {
        name: "decode",
        unit: "tokens/s",
        sentences: 1,
        tokens: 128,
        times: 1,
        figure: |timed| (sum(timed, |one| one.tokens) - 1.0) / sum(timed, |one| one.all - one.first),
    },
    Workload {
        name: "8 at once",
        unit: "tokens/s",
        sentences: 1,
        tokens: 64,
        times: 8,
        figure: |timed| sum(timed, |one| one.tokens) / timed.iter().map(|one| one.all).fold(0.0, f64::max),
    },
    Workload {
        name: "first token",
        unit: "ms",
        sentences: 2,
        tokens: 1,
        times: 1,
        figure: |timed| sum(timed, |one| one.first) * 1e3,
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
    let mut contestants = contestants(&model, threads, context).await?;
    let mut report = Report::new("engines");
    for workload in WORKLOADS {
        let prompt = "The quality of mercy is not strained. ".repeat(workload.sentences);
        let mut figures: Vec<Vec<f64>> = vec![Vec::new(); contestants.len()];
        for round in 0..=ROUNDS {
            for ((_, contestant), figures) in contestants.iter_mut().zip(&mut figures) {
                if workload.times > 1 && matches!(contestant, Contestant::Library(_)) {
                    continue;
                }
                let timed = contestant.answer(&prompt, workload.tokens, workload.times).await?;
                if round > 0 {
                    figures.push((workload.figure)(&timed));
                }
            }
        }
        for ((name, _), figures) in contestants
            .iter()
            .zip(figures)
            .filter(|(_, figures)| !figures.is_empty())
        {
            report.row(format!("{}: {name}", workload.name), median(figures), workload.unit);
        }
    }
    report.finish()
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
