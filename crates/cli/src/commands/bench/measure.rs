//! Measuring one loaded model, within some seconds however slow it is.

use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use indicatif::ProgressBar;
use rialto_engine::{Engine, Piece, Scope};
use rialto_machine::Meter;
use rialto_protocol::{
    job::{Generation, Job, Tensor},
    manifest::{Manifest, TaskKind},
};
use tokio::sync::watch;

/// Steps of the progress bar.
pub(super) const STEPS: u64 = 3;

/// What each part may take once its speed is about known.
const BUDGET: Duration = Duration::from_millis(1_200);

/// Longest that the first look at a slow model may take; a model that is slower is not worth selling.
const LONGEST: Duration = Duration::from_secs(60);

/// Most tokens of a prompt, and of an answer.
const MOST_INPUT: u64 = 1_024;
const MOST_OUTPUT: u64 = 256;

/// Most rows at once, and most bytes of them.
const MOST_ROWS: u64 = 4_096;
const MOST_BYTES: u64 = 4 << 20;

/// A text of about ten tokens.
const SENTENCE: &str = "The quick brown fox jumps over the lazy dog, again. ";

/// Units, and what they took.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Part {
    pub(super) units: u64,
    pub(super) time: Duration,
    /// Of all threads together.
    pub(super) cpu: Duration,
}

/// What was measured of a model.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Measured {
    pub(super) input: Part,
    /// `None` where nothing is generated.
    pub(super) output: Option<Part>,
}

/// One request, from its start to its end.
#[derive(Debug, Default)]
struct Run {
    input: u64,
    output: u64,
    total: Duration,
    /// Units after the first piece, and the time from it to the last.
    later: u64,
    later_time: Duration,
    cpu: Duration,
}

impl Part {
    /// Units a second.
    pub(super) fn per_second(&self) -> f64 {
        #[expect(clippy::cast_precision_loss, reason = "units of a few seconds are exact in a float")]
        let units = self.units as f64;
        units / self.time.as_secs_f64().max(1e-9)
    }

    fn add(&mut self, units: u64, time: Duration, cpu: Duration) {
        self.units += units;
        self.time += time;
        self.cpu += cpu;
    }

    /// Units that this speed makes in a time.
    fn within(&self, time: Duration) -> u64 {
        let micros = u128::from(self.units).saturating_mul(time.as_micros());
        let units = micros.checked_div(self.time.as_micros().max(1)).unwrap_or(0);
        u64::try_from(units).unwrap_or(u64::MAX)
    }
}

/// Measures input and output.
pub(super) async fn all(
    engine: &dyn Engine,
    manifest: &Manifest,
    meter: &Meter,
    bar: &ProgressBar,
) -> Result<Measured> {
    meter.sample();
    let measured = match manifest.task {
        TaskKind::Chat | TaskKind::Completion => generation(engine, manifest, meter, bar).await?,
        TaskKind::Embedding => Measured {
            input: repeated(engine, meter, bar, MOST_INPUT / 16, |count| Some(texts(count))).await?,
            output: None,
        },
        TaskKind::Predict => Measured {
            input: repeated(engine, meter, bar, most_rows(manifest), |rows| rows_of(manifest, rows)).await?,
            output: None,
        },
    };
    meter.sample();
    Ok(measured)
}

async fn generation(engine: &dyn Engine, manifest: &Manifest, meter: &Meter, bar: &ProgressBar) -> Result<Measured> {
    bar.set_message("warming up");
    // A quarter of the context for the first prompt, so that an answer fits behind it.
    let context = manifest.context_length.max(64);
    let mut sentences = 8;
    let mut first = engine.prepare(completion(sentences, 1, 0), Scope::Alone).await;
    while sentences > 1
        && first
            .as_ref()
            .map_or(true, |prepared| prepared.input_units() > context / 4)
    {
        sentences /= 2;
        first = engine.prepare(completion(sentences, 1, 0), Scope::Alone).await;
    }
    drop(first?);
    // The first run pages the weights in; it is the second that tells the speed.
    run(engine, completion(sentences, 1, 0), LONGEST).await?;
    let probe = run(engine, completion(sentences, 1, 1), LONGEST).await?;
    let mut input = Part::default();
    input.add(probe.input, probe.total, probe.cpu);
    bar.inc(1);

    bar.set_message("reading a prompt");
    let most = input.within(BUDGET).min(context / 2).min(MOST_INPUT);
    let longer = sentences.saturating_mul(most) / probe.input.max(1);
    if longer > sentences {
        let read = run(engine, completion(longer, 1, 2), LONGEST).await?;
        input = Part::default();
        input.add(read.input, read.total, read.cpu);
    }
    meter.sample();
    bar.inc(1);

    bar.set_message("writing an answer");
    let output = answers(engine, context, &input).await?;
    bar.inc(1);
    Ok(Measured {
        input,
        output: Some(output),
    })
}

/// Generates until the time is over or enough is generated. An answer may end early by the model's own will.
async fn answers(engine: &dyn Engine, context: u64, input: &Part) -> Result<Part> {
    let most = MOST_OUTPUT.min(context / 2).max(2);
    let started = Instant::now();
    let mut output = Part::default();
    for seed in 0..64 {
        let answered = run(engine, completion(1, most, seed), BUDGET).await?;
        // What reading its prompt took is taken off.
        let read = input
            .cpu
            .saturating_mul(u32::try_from(answered.input).unwrap_or(u32::MAX));
        let read = read / u32::try_from(input.units.max(1)).unwrap_or(u32::MAX);
        let cpu = answered.cpu.saturating_sub(read);
        let share = share(cpu, answered.later, answered.output);
        output.add(answered.later, answered.later_time, share);
        if output.units >= most / 2 || started.elapsed() >= BUDGET {
            break;
        }
    }
    if output.units == 0 {
        bail!("it ends every answer at once");
    }
    Ok(output)
}

/// A part of a time, by units.
fn share(time: Duration, part: u64, whole: u64) -> Duration {
    let nanos = time.as_nanos().saturating_mul(u128::from(part)) / u128::from(whole.max(1));
    Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX))
}

/// Runs jobs without output: one to warm up, one to tell the speed, and then as large ones as fit.
async fn repeated(
    engine: &dyn Engine,
    meter: &Meter,
    bar: &ProgressBar,
    most: u64,
    job: impl Fn(u64) -> Option<Job>,
) -> Result<Part> {
    let make = |count: u64| job(count).ok_or_else(|| anyhow::anyhow!("its inputs cannot be made up"));
    bar.set_message("warming up");
    let few = 16.min(most);
    run(engine, make(few)?, LONGEST).await?;
    bar.inc(1);
    bar.set_message("working");
    let probe = run(engine, make(few)?, LONGEST).await?;
    let mut part = Part::default();
    part.add(few, probe.total, probe.cpu);
    let count = part.within(BUDGET / 4).clamp(1, most);
    meter.sample();
    bar.inc(1);
    let started = Instant::now();
    let mut part = Part::default();
    loop {
        let ran = run(engine, make(count)?, LONGEST).await?;
        part.add(ran.input, ran.total, ran.cpu);
        if started.elapsed() >= BUDGET {
            break;
        }
    }
    bar.inc(1);
    Ok(part)
}

/// Runs a job, and lets it end once `limit` is over: the engine says what it took only at the end.
async fn run(engine: &dyn Engine, job: Job, limit: Duration) -> Result<Run> {
    let prepared = engine.prepare(job, Scope::Alone).await?;
    let mut ran = Run {
        input: prepared.input_units(),
        ..Run::default()
    };
    let (grant, granted) = watch::channel(prepared.max_output());
    let mut grant = Some(grant);
    let started = Instant::now();
    let mut first: Option<Instant> = None;
    let mut answer = prepared.start(granted);
    let mut over = std::pin::pin!(tokio::time::sleep(limit));
    loop {
        let piece = tokio::select! {
            piece = answer.pieces.recv() => piece,
            () = &mut over, if grant.is_some() => {
                grant = None;
                continue;
            }
        };
        match piece {
            Some(Ok(Piece::Output(output))) => {
                let units = output.units();
                ran.output += units;
                match first {
                    None => first = Some(Instant::now()),
                    Some(first) => {
                        ran.later += units;
                        ran.later_time = first.elapsed();
                    }
                }
            }
            Some(Ok(Piece::Finished(ending))) => {
                ran.total = started.elapsed();
                ran.cpu = Duration::from_micros(ending.cpu_micros);
                return Ok(ran);
            }
            Some(Err(error)) => return Err(error.into()),
            None => bail!("the engine died"),
        }
    }
}

fn completion(sentences: u64, max_tokens: u64, seed: u64) -> Job {
    Job::Completion {
        prompt: SENTENCE.repeat(usize::try_from(sentences).unwrap_or(1)),
        generation: Generation {
            max_tokens,
            seed,
            ..Generation::default()
        },
    }
}

fn texts(count: u64) -> Job {
    let text = SENTENCE.repeat(2);
    Job::Embedding {
        inputs: vec![text; usize::try_from(count).unwrap_or(1).max(1)],
    }
}

/// Elements of one row of a tensor; extents that are not fixed count one.
fn elements(shape: &[i64]) -> u64 {
    let extents = shape
        .iter()
        .skip(1)
        .map(|extent| u64::try_from(*extent).unwrap_or(1).max(1));
    extents.fold(1, u64::saturating_mul)
}

/// Rows that may be asked for at once: as many as the model fixes, or as fit.
fn most_rows(manifest: &Manifest) -> u64 {
    let fixed = manifest
        .inputs
        .iter()
        .filter_map(|input| u64::try_from(*input.shape.first()?).ok());
    let width = |datatype: rialto_protocol::job::Datatype| u64::try_from(datatype.width().unwrap_or(4)).unwrap_or(8);
    let row: u64 = manifest
        .inputs
        .iter()
        .map(|input| elements(&input.shape) * width(input.datatype))
        .sum();
    fixed
        .min()
        .unwrap_or_else(|| MOST_BYTES / row.max(1))
        .clamp(1, MOST_ROWS)
}

/// Rows of zeros and empty strings: how long a model takes hardly depends on what it reads.
fn rows_of(manifest: &Manifest, rows: u64) -> Option<Job> {
    let mut inputs = Vec::new();
    for input in &manifest.inputs {
        let extent = |extent: &i64| u64::try_from(*extent).unwrap_or(1).max(1);
        let mut shape: Vec<u64> = input.shape.iter().map(extent).collect();
        if let (Some(first), Some(-1)) = (shape.first_mut(), input.shape.first()) {
            *first = rows;
        }
        let count: u64 = shape.iter().product();
        // A string begins with the four bytes of its length.
        let width = input.datatype.width().unwrap_or(4);
        let bytes = usize::try_from(count).ok()?.checked_mul(width)?;
        inputs.push(Tensor {
            name: input.name.clone(),
            datatype: input.datatype,
            shape,
            data: vec![0; bytes],
        });
    }
    (!inputs.is_empty()).then_some(Job::Predict {
        inputs,
        outputs: Vec::new(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_speed_tells_how_much_fits() {
        let part = Part {
            units: 100,
            time: Duration::from_millis(500),
            cpu: Duration::from_secs(1),
        };
        assert!((part.per_second() - 200.0).abs() < 1e-6);
        assert_eq!(part.within(Duration::from_secs(2)), 400);
        assert_eq!(Part::default().within(BUDGET), 0);
    }

    #[test]
    fn rows_of_any_signature_are_well_formed() {
        let mut manifest = manifest();
        manifest.inputs.push(rialto_protocol::manifest::TensorSpec {
            name: "words".into(),
            datatype: rialto_protocol::job::Datatype::Bytes,
            shape: vec![-1, 3],
        });
        let job = rows_of(&manifest, 7).unwrap();
        job.check().unwrap();
        assert_eq!(job.max_input(), 7);
        assert!(most_rows(&manifest) > 7);

        // A model that wants two rows gets two.
        for input in &mut manifest.inputs {
            input.shape[0] = 2;
        }
        assert_eq!(most_rows(&manifest), 2);
        rows_of(&manifest, 2).unwrap().check().unwrap();
        manifest.inputs.clear();
        assert!(rows_of(&manifest, 2).is_none());
    }

    fn manifest() -> Manifest {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../models/breast-cancer/manifest.toml");
        Manifest::from_toml(&std::fs::read_to_string(path).unwrap()).unwrap()
    }
}
