//! What an audit sees: a model is sold as another, a prompt is cut, a seed is another one, or nothing is wrong; each answer
//! is read again by the model that was promised, with the engine's own calls. The table of the design, on the shipped
//! model, in fast mode and in exact mode.

use std::sync::Arc;

use anyhow::{Context, Result};
use rialto_benches::Report;
use rialto_engine::{Engine, LoadOptions, Mode, Piece, Scope};
use rialto_protocol::{
    fingerprint::Fingerprint,
    job::{Generation, Job},
    manifest::Manifest,
    output::Output,
};
use rialto_testkit::process::repository;
use tokio::sync::watch;

/// Answers of each kind.
const ANSWERS: usize = 192;

/// Tokens of each.
const TOKENS: u64 = 64;

/// Bytes of each prompt; about 32 tokens.
const PROMPT: usize = 96;

/// Answers generated at a time.
const PARALLEL: usize = 8;

#[derive(Debug, Clone)]
struct Written {
    /// What the buyer asked.
    asked: Job,
    ids: Vec<u32>,
    fingerprint: Fingerprint,
}

/// What an audit found of one answer.
#[derive(Debug, Clone)]
struct Audited {
    /// The distance of each mark.
    marks: Vec<f32>,
    margins: Vec<f32>,
}

#[tokio::main]
async fn main() -> Result<()> {
    let mut report = Report::new("detection");
    for mode in [Mode::Fast, Mode::Exact] {
        let name = match mode {
            Mode::Fast => "fast",
            Mode::Exact => "exact",
        };
        let (promised, cheaper) = (
            load("manifest-q8_0.toml", mode).await?,
            load("manifest-q4_0.toml", mode).await?,
        );
        let jobs = jobs()?;
        let honest = audit(&promised, write(&promised, &jobs, |job| job.clone()).await?).await?;
        let cheat = audit(&promised, write(&cheaper, &jobs, |job| job.clone()).await?).await?;
        let cut = audit(&promised, write(&promised, &jobs, half).await?).await?;
        let other = audit(&promised, write(&promised, &jobs, reseeded).await?).await?;
        for (what, answers) in [
            ("honest", &honest),
            ("Q4_0 sold as Q8_0", &cheat),
            ("half of the prompt dropped", &cut),
            ("another seed", &other),
        ] {
            describe(&mut report, name, what, answers);
        }
        for marks in [1, 2, 4, 8] {
            let distances =
                |answers: &[Audited]| -> Vec<f64> { answers.iter().map(|one| mean(&one.marks, marks)).collect() };
            let (good, bad) = (distances(&honest), distances(&cheat));
            report.row(
                format!("{name}: AUC of Q4_0 by {marks} fingerprint marks"),
                auc(&good, &bad),
                "",
            );
        }
        for tokens in [32, 64] {
            let margins =
                |answers: &[Audited]| -> Vec<f64> { answers.iter().map(|one| mean(&one.margins, tokens)).collect() };
            report.row(
                format!("{name}: AUC of Q4_0 by margins of {tokens} tokens alone"),
                auc(&margins(&honest), &margins(&cheat)),
                "",
            );
        }
    }
    report.finish()
}

async fn load(file: &str, mode: Mode) -> Result<Arc<dyn Engine>> {
    let folder = repository().join("models/shakespeare");
    let manifest = Manifest::from_toml(&std::fs::read_to_string(folder.join(file))?)?;
    let options = LoadOptions {
        mode,
        slots: u32::try_from(PARALLEL)?,
        ..LoadOptions::default()
    };
    Ok(rialto_engine::load(&manifest, &folder, &options).await?)
}

/// Prompts out of the text that the model has not seen in training.
fn jobs() -> Result<Vec<Job>> {
    let text = std::fs::read_to_string(repository().join("models/shakespeare/held-out.txt"))?;
    let step = text.len() / (ANSWERS + 1);
    (0..ANSWERS)
        .map(|index| {
            let from = (index * step..)
                .find(|at| text.is_char_boundary(*at))
                .context("no text")?;
            let to = (from + PROMPT..)
                .find(|at| text.is_char_boundary(*at))
                .context("no text")?;
            let generation = Generation {
                max_tokens: TOKENS,
                seed: u64::try_from(index)?,
                ..Generation::default()
            };
            let prompt = text.get(from..to).context("the text is too short")?.to_owned();
            Ok(Job::Completion { prompt, generation })
        })
        .collect()
}

fn half(job: &Job) -> Job {
    let mut job = job.clone();
    if let Job::Completion { prompt, .. } = &mut job {
        let middle = (prompt.len() / 2..)
            .find(|at| prompt.is_char_boundary(*at))
            .unwrap_or(0);
        prompt.drain(..middle);
    }
    job
}

fn reseeded(job: &Job) -> Job {
    let mut job = job.clone();
    if let Job::Completion { generation, .. } = &mut job {
        generation.seed += 1_000_000;
    }
    job
}

/// Has every job answered as the provider chooses.
async fn write(engine: &Arc<dyn Engine>, jobs: &[Job], done: impl Fn(&Job) -> Job) -> Result<Vec<Written>> {
    let mut written = Vec::new();
    for group in jobs.chunks(PARALLEL) {
        let (_grant, paid) = watch::channel(u64::MAX);
        let mut answers = Vec::new();
        for job in group {
            let prepared = engine.prepare(done(job), Scope::Alone).await?;
            answers.push((job.clone(), prepared.start(paid.clone())));
        }
        for (asked, mut answer) in answers {
            let mut ids = Vec::new();
            let fingerprint = loop {
                match answer.pieces.recv().await.context("the engine ended")?? {
                    Piece::Output(Output::Tokens { ids: new, .. }) => ids.extend(new),
                    Piece::Output(_) => {}
                    Piece::Finished(ending) => break ending.fingerprint,
                }
            };
            if !ids.is_empty() {
                written.push(Written {
                    asked,
                    ids,
                    fingerprint,
                });
            }
        }
    }
    Ok(written)
}

/// Reads every answer again as the buyer asked for it.
async fn audit(engine: &Arc<dyn Engine>, written: Vec<Written>) -> Result<Vec<Audited>> {
    let mut audited = Vec::with_capacity(written.len());
    for one in written {
        let replay = engine.replay(one.asked, one.ids).await?;
        let marks = one.fingerprint.marks.iter().filter_map(|mark| {
            let place = usize::try_from(mark.position).ok()?;
            Some(mark.distance(replay.fingerprint.marks.get(place)?))
        });
        audited.push(Audited {
            marks: marks.collect(),
            margins: replay.margins,
        });
    }
    Ok(audited)
}

fn describe(report: &mut Report, mode: &str, what: &str, answers: &[Audited]) {
    let mut marks: Vec<f64> = answers
        .iter()
        .flat_map(|one| &one.marks)
        .map(|mark| f64::from(*mark))
        .collect();
    marks.sort_by(f64::total_cmp);
    let margins: Vec<f64> = answers
        .iter()
        .flat_map(|one| &one.margins)
        .map(|one| f64::from(*one))
        .collect();
    let off = margins.iter().filter(|margin| **margin > 0.0).count();
    let row = |report: &mut Report, which: &str, figure: f64, unit: &'static str| {
        report.row(format!("{mode}: {what}: {which}"), figure, unit);
    };
    row(report, "fingerprint distance, mean", average(&marks), "");
    row(report, "fingerprint distance, p99", quantile(&marks, 0.99), "");
    row(
        report,
        "tokens off the seed",
        100.0 * count(off) / count(margins.len()),
        "%",
    );
    let finite: Vec<f64> = margins.into_iter().filter(|margin| margin.is_finite()).collect();
    row(report, "mean margin", average(&finite), "");
}

#[expect(clippy::cast_precision_loss, reason = "a few thousands")]
fn count(number: usize) -> f64 {
    number as f64
}

fn average(figures: &[f64]) -> f64 {
    figures.iter().sum::<f64>() / count(figures.len().max(1))
}

fn mean(figures: &[f32], first: usize) -> f64 {
    let figures: Vec<f64> = figures
        .iter()
        .take(first)
        .map(|one| f64::from(*one))
        .filter(|one| one.is_finite())
        .collect();
    average(&figures)
}

fn quantile(sorted: &[f64], part: f64) -> f64 {
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "a place in the list"
    )]
    let place = (count(sorted.len()) * part) as usize;
    sorted
        .get(place.min(sorted.len().saturating_sub(1)))
        .copied()
        .unwrap_or(f64::NAN)
}

/// The part of all pairs in which the cheat lies further off than the honest answer; half for ties.
fn auc(honest: &[f64], cheat: &[f64]) -> f64 {
    let mut won = 0.0;
    for bad in cheat {
        for good in honest {
            won += match bad.total_cmp(good) {
                std::cmp::Ordering::Greater => 1.0,
                std::cmp::Ordering::Equal => 0.5,
                std::cmp::Ordering::Less => 0.0,
            };
        }
    }
    won / count(honest.len()) / count(cheat.len())
}
