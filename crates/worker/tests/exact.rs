//! Exact mode: reading an answer again gives the very numbers that writing it gave, whatever the threads, the batch, the
//! engine's past, and the process.

#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test fails by panicking")]

#[expect(dead_code, reason = "what other tests need too is used there")]
#[path = "../../engine/tests/support/mod.rs"]
mod support;

use rialto_engine::{Engine, LoadOptions, Mode, Scope};
use rialto_protocol::{
    Digest,
    fingerprint::Fingerprint,
    job::{Generation, Job},
    manifest::{Artifact, TaskKind},
};
use support::{Told, completion, manifest, model_folder, read};
use tokio::sync::watch;

const FILES: [&str; 2] = ["manifest-q8_0.toml", "manifest-q4_0.toml"];

const PROMPTS: [&str; 8] = [
    "ROMEO:\n",
    "To be, or not to be",
    "KING RICHARD III:\nMy lord, ",
    "The quality of mercy",
    "First Citizen:\nWe are accounted poor citizens, the patricians good.",
    "O, she doth teach the torches",
    "JULIET:\nWherefore",
    "Enter ",
];

fn options(threads: u32, slots: u32) -> LoadOptions {
    LoadOptions {
        mode: Mode::Exact,
        threads: Some(threads),
        slots,
        worker: Some(env!("CARGO_BIN_EXE_rialto-worker").into()),
        ..LoadOptions::default()
    }
}

/// A second architecture: random weights, written by `exact/make.py`.
async fn another(options: &LoadOptions) -> std::sync::Arc<dyn Engine> {
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/exact");
    let content = std::fs::read(folder.join("qwen2.gguf")).unwrap();
    let mut manifest = manifest(&model_folder("shakespeare"), FILES[0]);
    manifest.task = TaskKind::Completion;
    manifest.artifacts[0] = Artifact {
        path: "qwen2.gguf".into(),
        blake3: Digest(rialto_engine::artifact::hash(&content)),
        size: content.len() as u64,
    };
    rialto_engine::load(&manifest, &folder, options).await.unwrap()
}

async fn load(file: &str, options: &LoadOptions) -> std::sync::Arc<dyn Engine> {
    let folder = model_folder("shakespeare");
    rialto_engine::load(&manifest(&folder, file), &folder, options)
        .await
        .unwrap()
}

fn job(prompt: &str, seed: u64) -> Job {
    let generation = Generation {
        max_tokens: 64,
        seed,
        ..Generation::default()
    };
    completion(prompt, generation)
}

/// All prompts at once.
async fn together(engine: &dyn Engine, seed: u64) -> Vec<Told> {
    let (_grant, paid) = watch::channel(u64::MAX);
    let mut answers = vec![];
    for prompt in PROMPTS {
        let prepared = engine.prepare(job(prompt, seed), Scope::Of([1; 32])).await.unwrap();
        answers.push(prepared.start(paid.clone()));
    }
    let mut told = vec![];
    for answer in &mut answers {
        told.push(read(answer).await.unwrap());
    }
    told
}

/// The marks of a generation must be among those of its repetition, to the last bit.
fn same(written: &Fingerprint, read: &Fingerprint) {
    assert!(!written.marks.is_empty());
    for mark in &written.marks {
        let place = usize::try_from(mark.position).unwrap();
        assert_eq!(*mark, read.marks[place], "place {place}");
    }
}

/// What eight at once wrote on one thread is read by the writer, and by another process on two threads.
async fn reads_the_same(writer: &dyn Engine, reader: &dyn Engine) {
    for seed in [1, 2] {
        for (prompt, told) in PROMPTS.iter().zip(together(writer, seed).await) {
            assert!(!told.ids.is_empty(), "{told:?}");
            for engine in [writer, reader] {
                let replay = engine.replay(job(prompt, seed), told.ids.clone()).await.unwrap();
                assert_eq!(replay.margins, vec![0.0; told.ids.len()], "{prompt}");
                same(&told.fingerprint, &replay.fingerprint);
            }
        }
    }
}

#[tokio::test]
async fn reading_again_gives_the_same_bits_over_threads_batches_and_restarts() {
    for file in FILES {
        let (writer, reader) = (load(file, &options(1, 8)).await, load(file, &options(2, 1)).await);
        reads_the_same(writer.as_ref(), reader.as_ref()).await;
    }
}

#[tokio::test]
async fn so_it_does_with_another_architecture() {
    let (writer, reader) = (another(&options(1, 8)).await, another(&options(2, 1)).await);
    reads_the_same(writer.as_ref(), reader.as_ref()).await;
}

#[tokio::test]
async fn another_seed_and_another_model_are_noticed_at_once() {
    let (honest, cheat) = (
        load(FILES[0], &options(1, 2)).await,
        load(FILES[1], &options(1, 2)).await,
    );
    let told = read_one(cheat.as_ref(), 5).await;
    let replay = honest.replay(job(PROMPTS[1], 5), told.ids.clone()).await.unwrap();
    assert!(replay.margins.iter().any(|margin| *margin > 0.0));
    assert!(told.fingerprint.distance(&replay.fingerprint).unwrap() > 0.05);

    let told = read_one(honest.as_ref(), 5).await;
    let replay = honest.replay(job(PROMPTS[1], 6), told.ids.clone()).await.unwrap();
    assert_eq!(
        told.fingerprint.distance(&replay.fingerprint),
        Some(0.0),
        "it is the right model"
    );
    let off = replay.margins.iter().filter(|margin| **margin > 0.0).count();
    assert!(off * 2 > told.ids.len(), "and not what the seed says: {off}");
}

async fn read_one(engine: &dyn Engine, seed: u64) -> Told {
    support::run(engine, job(PROMPTS[1], seed)).await.unwrap()
}

#[tokio::test]
async fn a_remembered_prompt_changes_nothing() {
    let engine = load(FILES[0], &options(1, 1)).await;
    let long = "Speak, speak. ".repeat(30);
    let fresh = support::run(engine.as_ref(), job(&long, 3)).await.unwrap();
    for _ in 0..2 {
        let (grant, paid) = watch::channel(u64::MAX);
        let prepared = engine.prepare(job(&long, 3), Scope::Of([7; 32])).await.unwrap();
        let told = read(&mut prepared.start(paid)).await.unwrap();
        drop(grant);
        assert_eq!((&told.ids, &told.fingerprint), (&fresh.ids, &fresh.fingerprint));
    }
}
