//! An answer that one process began goes on in another: in exact mode with the very tokens, text, marks and margins that
//! would have followed where it broke off, wherever that was.

#![expect(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test fails by panicking"
)]

#[path = "continuation/hostile.rs"]
mod hostile;
#[expect(dead_code, reason = "what other tests need too is used there")]
#[path = "../../engine/tests/support/mod.rs"]
mod support;

use std::sync::Arc;

use rialto_engine::{Engine, LoadOptions, Mode, Piece, Scope};
use rialto_protocol::{
    Digest, RequestId,
    job::{AnswerFormat, Generation, Job, Message, SoFar, Tool, ToolChoice, Tools},
    manifest::{Artifact, TaskKind},
    output::{FinishReason, Output},
};
use rialto_worker::{Steps, llama::LlamaEngine};
use support::{Told, completion, greedy, manifest, model_folder, run};
use tokio::sync::watch;

const SHIPPED: &str = "manifest-q8_0.toml";

/// Answers whose characters have several bytes, which the shipped vocabulary only has byte by byte.
const STRANGE: &str = r#"{"type":"object","properties":{"who":{"enum":["née 中文 🜚","Óðinn — 雨"]},"age":{"type":"integer",
    "minimum":10,"maximum":120}},"required":["who","age"],"additionalProperties":false}"#;

fn options(threads: u32) -> LoadOptions {
    LoadOptions {
        mode: Mode::Exact,
        threads: Some(threads),
        slots: 2,
        worker: Some(env!("CARGO_BIN_EXE_rialto-worker").into()),
        ..LoadOptions::default()
    }
}

/// The shipped model in a process of its own.
async fn exact(threads: u32) -> Arc<dyn Engine> {
    let folder = model_folder("shakespeare");
    let loaded = rialto_engine::load(&manifest(&folder, SHIPPED), &folder, &options(threads)).await;
    loaded.unwrap()
}

/// A second architecture.
async fn another(threads: u32) -> Arc<dyn Engine> {
    random_weights("exact/qwen2.gguf", threads).await
}

/// A model that a `make.py` wrote.
async fn random_weights(file: &str, threads: u32) -> Arc<dyn Engine> {
    let file = std::path::Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests")
        .join(file);
    let content = std::fs::read(&file).unwrap();
    let mut manifest = manifest(&model_folder("shakespeare"), SHIPPED);
    manifest.task = TaskKind::Completion;
    manifest.artifacts[0] = Artifact {
        path: file.file_name().unwrap().to_str().unwrap().into(),
        blake3: Digest(rialto_engine::artifact::hash(&content)),
        size: content.len() as u64,
    };
    rialto_engine::load(&manifest, file.parent().unwrap(), &options(threads))
        .await
        .unwrap()
}

/// The shipped model in fast mode, in this process.
fn fast() -> LlamaEngine {
    let folder = model_folder("shakespeare");
    let manifest = manifest(&folder, SHIPPED);
    LlamaEngine::load(&manifest, &folder, &LoadOptions::default(), &Steps::default()).unwrap()
}

/// Sampling with everything that has a memory of what was said.
fn seeded(max_tokens: u64) -> Generation {
    Generation {
        max_tokens,
        seed: 11,
        temperature: 0.9,
        top_p: 0.95,
        top_k: 200,
        frequency_penalty: 0.7,
        presence_penalty: 0.4,
        logprobs: Some(2),
        ..Generation::default()
    }
}

fn chat(tools: Tools, generation: Generation) -> Job {
    Job::Chat {
        messages: vec![Message::text("user", "What weather is in Verona?")],
        tools,
        generation,
    }
}

fn tools(choice: ToolChoice) -> Tools {
    let fate = Tool {
        name: "fate".into(),
        parameters: r#"{"type":"object","properties":{"sure":{"type":"boolean"}},"required":["sure"],"additionalProperties":false}"#.into(),
        ..Tool::default()
    };
    Tools {
        offered: vec![fate],
        choice,
    }
}

fn generation(job: &mut Job) -> &mut Generation {
    match job {
        Job::Chat { generation, .. } | Job::Completion { generation, .. } => generation,
        other => panic!("{other:?}"),
    }
}

/// A whole answer, and what of it had come after each of its pieces but the last.
async fn pieces(engine: &dyn Engine, job: Job) -> (Told, Vec<SoFar>) {
    let prepared = engine.prepare(job, Scope::Alone).await.unwrap();
    let (_grant, paid) = watch::channel(u64::MAX);
    let mut answer = prepared.start(paid);
    let (mut told, mut cuts) = (Told::default(), vec![]);
    while told.finish.is_none() {
        let piece = answer.pieces.recv().await.unwrap().unwrap();
        let is_more = matches!(&piece, Piece::Output(Output::Tokens { ids, .. }) if !ids.is_empty());
        told.add(piece);
        if !told.pieces.is_empty() {
            // A call was complete with the token before it.
            cuts.pop();
        } else if is_more {
            cuts.push(SoFar {
                ids: told.ids.clone(),
                text: told.text.clone(),
                request: RequestId([9; 32]),
            });
        }
    }
    if told.finish == Some(FinishReason::Length) {
        // With the last token all text comes, whatever it waited for, and nothing is left to ask for.
        cuts.pop();
    }
    (told, cuts)
}

/// The job of whoever goes on.
fn after(job: &Job, so_far: &SoFar) -> Job {
    let mut job = job.clone();
    let generation = generation(&mut job);
    generation.max_tokens -= so_far.ids.len() as u64;
    generation.so_far = so_far.clone();
    job
}

/// Some of the cuts: the first, the last, those after a token without text, and a few of the others.
fn chosen(cuts: &[SoFar]) -> Vec<&SoFar> {
    let waits = |place: usize| place > 0 && cuts[place].text == cuts[place - 1].text;
    let places = (0..cuts.len()).filter(|place| place % 11 == 0 || place + 1 == cuts.len());
    let waiting = (0..cuts.len()).filter(|place| waits(*place) && waits(*place - 1) || waits(*place) && place % 3 == 0);
    let places: std::collections::BTreeSet<usize> = places.chain(waiting.take(5)).collect();
    places.into_iter().map(|place| &cuts[place]).collect()
}

/// What one process writes goes on in another wherever it is cut. Gives the whole answer and its cuts.
async fn goes_on(writer: &dyn Engine, next: &dyn Engine, job: Job) -> (Told, Vec<SoFar>) {
    let (whole, cuts) = pieces(writer, job.clone()).await;
    let every = writer.replay(job.clone(), whole.ids.clone()).await.unwrap();
    assert!(cuts.len() > 3, "{whole:?}");
    for so_far in chosen(&cuts) {
        let (job, cut) = (after(&job, so_far), so_far.ids.len());
        let prepared = next.prepare(job.clone(), Scope::Alone).await.unwrap();
        assert_eq!(prepared.input_units(), every.input_units + cut as u64);
        let told = run(next, job.clone()).await.unwrap();
        assert_eq!(told.ids, whole.ids[cut..], "after {so_far:?}");
        assert_eq!(so_far.text.clone() + &told.text, whole.text, "after {so_far:?}");
        assert_eq!((told.finish, &told.pieces), (whole.finish, &whole.pieces));
        assert_eq!(told.logprobs, whole.logprobs[cut.min(whole.logprobs.len())..]);
        if told.ids.is_empty() {
            continue;
        }
        // An audit reads the part of each seller by itself, and its marks count from where that seller began.
        let replay = writer.replay(job, told.ids.clone()).await.unwrap();
        assert_eq!(replay.input_units, every.input_units + cut as u64);
        assert_eq!(replay.margins, vec![0.0; told.ids.len()]);
        assert_eq!(told.fingerprint.marks.len(), told.ids.len().div_ceil(8));
        for (place, mark) in told.fingerprint.marks.iter().enumerate() {
            assert_eq!(mark.position as usize, place * 8);
            assert_eq!(*mark, replay.fingerprint.marks[place * 8]);
            assert_eq!(mark.top, every.fingerprint.marks[cut + place * 8].top);
        }
    }
    (whole, cuts)
}

/// Whether there is a cut between a token and its text.
fn lag(cuts: &[SoFar]) -> bool {
    cuts.windows(2).any(|pair| pair[0].text == pair[1].text)
}

#[tokio::test]
async fn text_goes_on_with_the_very_tokens_that_would_have_followed() {
    let (writer, next) = (exact(1).await, exact(2).await);
    for job in [
        completion("ROMEO:\n", greedy(40)),
        completion("The quality of mercy", seeded(40)),
        chat(Tools::default(), seeded(40)),
        chat(tools(ToolChoice::Auto), seeded(40)),
    ] {
        goes_on(writer.as_ref(), next.as_ref(), job).await;
    }
}

#[tokio::test]
async fn so_it_does_with_another_architecture() {
    let (writer, next) = (another(1).await, another(1).await);
    for generation in [greedy(30), seeded(30)] {
        goes_on(writer.as_ref(), next.as_ref(), completion("ROMEO:\n", generation)).await;
    }
}

#[tokio::test]
async fn a_cut_inside_a_character_or_inside_a_form_is_no_cut() {
    let (writer, next) = (exact(1).await, exact(1).await);
    let generation = Generation {
        format: AnswerFormat::JsonSchema(STRANGE.into()),
        ..seeded(100)
    };
    for job in [
        completion("HAMLET:\n", generation.clone()),
        chat(Tools::default(), generation),
    ] {
        let (whole, cuts) = goes_on(writer.as_ref(), next.as_ref(), job).await;
        assert!(!whole.text.is_ascii() && lag(&cuts), "{whole:?}");
        serde_json::from_str::<serde_json::Value>(&whole.text).unwrap();
    }
    // Bytes that make no character, wherever a seed brings some.
    for seed in 0..40 {
        let wild = Generation {
            seed,
            temperature: 2.0,
            logprobs: None,
            ..greedy(60)
        };
        let job = completion(&"— 中文 🜚 né — ".repeat(6), wild);
        if lag(&pieces(writer.as_ref(), job.clone()).await.1) {
            goes_on(writer.as_ref(), next.as_ref(), job).await;
            return;
        }
    }
    panic!("no seed gives half a character");
}

#[tokio::test]
async fn a_cut_inside_a_stop_text_is_no_cut() {
    let (writer, next) = (exact(1).await, exact(1).await);
    let plain = run(writer.as_ref(), completion("ROMEO:\n", greedy(40))).await.unwrap();
    let characters: Vec<(usize, char)> = plain.text.char_indices().collect();
    for begin in [12, 25, 41] {
        let (from, to) = (characters[begin].0, characters[begin + 9].0);
        let stop = plain.text[from..to].to_owned();
        let generation = Generation {
            // The second only ever begins.
            stop: vec![stop.clone(), format!("{}#", &stop[..stop.len() - 1])],
            ..greedy(40)
        };
        let job = completion("ROMEO:\n", generation);
        let (whole, cuts) = pieces(writer.as_ref(), job.clone()).await;
        assert_eq!(whole.finish, Some(FinishReason::Stop));
        // After its last token it has ended.
        let (_, before) = cuts.split_last().unwrap();
        assert!(lag(before), "{stop:?} is in one token");
        for so_far in chosen(before) {
            let told = run(next.as_ref(), after(&job, so_far)).await.unwrap();
            assert_eq!(told.ids, whole.ids[so_far.ids.len()..], "{stop:?} after {so_far:?}");
            assert_eq!(so_far.text.clone() + &told.text, whole.text);
            assert_eq!(told.finish, whole.finish);
        }
    }
}

#[tokio::test]
async fn half_a_call_goes_on_and_is_the_same_call() {
    let (writer, next) = (exact(1).await, exact(1).await);
    let generation = Generation {
        logprobs: None,
        ..seeded(120)
    };
    let job = chat(tools(ToolChoice::Required), generation);
    let (whole, cuts) = goes_on(writer.as_ref(), next.as_ref(), job.clone()).await;
    assert_eq!((whole.finish, whole.pieces.len()), (Some(FinishReason::ToolCalls), 1));
    assert!(cuts.iter().all(|so_far| so_far.text.is_empty()));
}

#[tokio::test]
async fn text_without_tokens_goes_on_after_the_tokens_of_that_text() {
    let engine = exact(1).await;
    let job = completion("ROMEO:\n", greedy(40));
    let whole = run(engine.as_ref(), job.clone()).await.unwrap();
    let so_far = SoFar {
        text: whole.text.chars().take(30).collect(),
        ..SoFar::default()
    };
    let mut job = job;
    generation(&mut job).so_far = so_far.clone();
    let units = async |job: Job| engine.prepare(job, Scope::Alone).await.unwrap().input_units();
    // The same as a longer prompt, as long as no token reaches over the seam.
    let longer = completion(&format!("ROMEO:\n{}", so_far.text), greedy(40));
    assert_eq!(units(job.clone()).await, units(longer.clone()).await);
    let (told, plain) = (
        run(engine.as_ref(), job.clone()).await.unwrap(),
        run(engine.as_ref(), longer).await.unwrap(),
    );
    assert_eq!((&told.ids, &told.text), (&plain.ids, &plain.text));
    // Ids that a seller made up, because its server tells none, are no tokens.
    generation(&mut job).so_far.ids = vec![u32::MAX, 1 << 31];
    assert_eq!(told, run(engine.as_ref(), job.clone()).await.unwrap());
    let replay = engine.replay(job.clone(), told.ids.clone()).await.unwrap();
    assert_eq!(replay.margins, vec![0.0; told.ids.len()]);

    // The seed goes on where the text's tokens end.
    *generation(&mut job) = Generation { so_far, ..seeded(20) };
    let told = run(engine.as_ref(), job.clone()).await.unwrap();
    let replay = engine.replay(job, told.ids.clone()).await.unwrap();
    assert_eq!(replay.margins, vec![0.0; told.ids.len()]);
}

#[tokio::test]
async fn a_vocabulary_that_puts_a_space_before_a_text_puts_none_inside_an_answer() {
    let engine = random_weights("continuation/spaced.gguf", 1).await;
    let units = async |prompt: &str, text: &str| {
        let mut job = completion(prompt, greedy(8));
        generation(&mut job).so_far.text = text.into();
        let prepared = engine.prepare(job.clone(), Scope::Alone).await.unwrap();
        run(engine.as_ref(), job).await.unwrap();
        prepared.input_units()
    };
    let before = units("to", "").await;
    assert_eq!(before, 2, "one begins every prompt");
    for (text, tokens) in [("be", 1), (" be", 1), (" be or no", 4), ("\nbe", 2), ("be é", 4)] {
        assert_eq!(units("to", text).await, before + tokens, "{text:?}");
    }
    let job = completion("to be", greedy(30));
    goes_on(engine.as_ref(), engine.as_ref(), job).await;
}

#[tokio::test]
async fn an_answer_goes_on_from_seller_to_seller() {
    let engines = [exact(1).await, exact(1).await];
    let job = completion("KING RICHARD III:\nMy lord, ", seeded(48));
    let whole = run(engines[0].as_ref(), job.clone()).await.unwrap();
    let mut so_far = SoFar::default();
    for turn in 0..4 {
        // Each gives twelve tokens, as if it broke off after them.
        let engine = engines[turn % 2].as_ref();
        let prepared = engine.prepare(after(&job, &so_far), Scope::Alone).await.unwrap();
        let (_grant, paid) = watch::channel(12);
        let mut answer = prepared.start(paid);
        let mut told = Told::default();
        while told.ids.len() < 12 {
            told.add(answer.pieces.recv().await.unwrap().unwrap());
        }
        so_far.ids.extend(told.ids);
        so_far.text.push_str(&told.text);
    }
    assert_eq!(so_far.ids, whole.ids);
    assert!(whole.text.starts_with(&so_far.text));
}

#[tokio::test]
async fn in_fast_mode_an_answer_goes_on_too() {
    let engine = fast();
    let (mut same, mut all) = (0, 0);
    for prompt in ["ROMEO:\n", "The quality of mercy", "Enter "] {
        let job = completion(prompt, greedy(40));
        let (whole, cuts) = pieces(&engine, job.clone()).await;
        for so_far in cuts.iter().step_by(5) {
            let told = run(&engine, after(&job, so_far)).await.unwrap();
            assert!(!told.text.is_empty() && told.ids.len() <= 40 - so_far.ids.len());
            all += 1;
            same += u32::from(so_far.text.clone() + &told.text == whole.text);
        }
    }
    // A last bit of a logit may differ, because the beginning was read in one piece.
    assert!(same * 2 > all, "{same} of {all} are the same");
}
