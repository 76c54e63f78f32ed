//! What an answer's fingerprint costs beside the answer: the time of a mark, by the size of the vocabulary, and its share
//! of the time of a token of the shipped model, which is far smaller and faster than any that people use.

use std::{hint::black_box, sync::Arc};

use anyhow::{Context, Result};
use rialto_benches::{
    Report,
    contestants::{Contestant, Timed},
    median, seconds,
};
use rialto_engine::LoadOptions;
use rialto_protocol::{
    fingerprint::{Mark, STRIDE},
    job::Generation,
    manifest::Manifest,
    sampler::Sampler,
};
use rialto_testkit::process::repository;
use rialto_worker::{Steps, llama::LlamaEngine};

const ROUNDS: usize = 15;
const TOKENS: u64 = 256;

/// Vocabularies: of the shipped model, of Llama 2, of Llama 3, of Qwen 3.
const VOCABULARIES: [u32; 4] = [2_048, 32_000, 128_256, 151_936];

#[tokio::main]
async fn main() -> Result<()> {
    let folder = repository().join("models/shakespeare");
    let manifest = Manifest::from_toml(&std::fs::read_to_string(folder.join("manifest-q8_0.toml"))?)?;
    let options = LoadOptions {
        threads: Some(1),
        ..LoadOptions::default()
    };
    let engine = LlamaEngine::load(&manifest, &folder, &options, &Steps::default())?;
    let mut engine = Contestant::Ours(Arc::new(engine));
    let mut report = Report::new("fingerprint");
    let (mut tokens, mut shares) = (Vec::new(), Vec::new());
    let own = logits(*VOCABULARIES.first().context("a vocabulary")?);
    for _ in 0..ROUNDS {
        let timed = engine.answer("KING HENRY V:\n", TOKENS, 1).await?;
        let Some(Timed {
            tokens: count,
            first,
            all,
            ..
        }) = timed.first().copied()
        else {
            continue;
        };
        let token = (all - first) / (count - 1.0);
        shares.push(mark(&own) / f64::from(STRIDE) / token * 100.0);
        tokens.push(token * 1e6);
    }
    report.row("a token of the shipped model", median(tokens), "µs");
    report.row("its share for the fingerprint", median(shares), "%");
    for size in VOCABULARIES {
        let logits = logits(size);
        let each: Vec<f64> = (0..ROUNDS).map(|_| mark(&logits) * 1e6).collect();
        report.row(format!("a mark, {} tokens", logits.len()), median(each), "µs");
        let each: Vec<f64> = (0..ROUNDS).map(|_| draw(&logits) * 1e6).collect();
        report.row(format!("a draw, {} tokens", logits.len()), median(each), "µs");
    }
    report.finish()
}

/// Logits that spread as a model's do: most far below the best.
fn logits(size: u32) -> Vec<f32> {
    let mut random = 0x2545_f491u32;
    let mut next = || {
        random ^= random << 13;
        random ^= random >> 17;
        random ^= random << 5;
        // Six bits of chance, four times: a bell.
        (0..4)
            .map(|part| f32::from(u8::try_from(random >> (part * 6) & 63).unwrap_or(0)))
            .sum::<f32>()
            / 8.0
    };
    (0..size).map(|_| next()).collect()
}

/// Seconds of one mark.
fn mark(logits: &[f32]) -> f64 {
    const TIMES: u32 = 50;
    let (all, ()) = seconds(|| {
        for place in 0..TIMES {
            black_box(Mark::of(place, black_box(logits)));
        }
    });
    all / f64::from(TIMES)
}

/// Seconds of one draw.
fn draw(logits: &[f32]) -> f64 {
    const TIMES: u32 = 50;
    let mut sampler = Sampler::new(&Generation::default());
    let (all, ()) = seconds(|| {
        for _ in 0..TIMES {
            let _ = black_box(sampler.choose(black_box(logits), None));
        }
    });
    all / f64::from(TIMES)
}
