//! The shipped language model through llama.cpp: repeatable, fair, paid for, and stopped when nobody listens.

#[expect(dead_code, reason = "what the tests of ONNX need too is used there")]
#[path = "../../engine/tests/support/mod.rs"]
mod support;

use rialto_engine::{ArtifactFault, Engine, Error, LoadOptions, Piece, Scope, load};
use rialto_protocol::{
    job::{Generation, Job, Message, Tools},
    manifest::{Manifest, TaskKind},
    output::{FinishReason, Output},
};
use rialto_worker::{Steps, llama::LlamaEngine};
use support::{Told, completion, greedy, manifest, model_folder, read, run, with_artifact};
use tokio::sync::watch;

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

/// A change of a manifest, and what the refusal must say.
type Change = (fn(&mut Manifest), &'static str);

fn shipped(file: &str) -> Manifest {
    manifest(&model_folder("shakespeare"), file)
}

#[expect(clippy::unwrap_used, reason = "a test fails by panicking")]
fn engine_with(file: &str, change: impl FnOnce(&mut LoadOptions)) -> LlamaEngine {
    let mut options = LoadOptions::default();
    change(&mut options);
    LlamaEngine::load(
        &shipped(file),
        &model_folder("shakespeare"),
        &options,
        &Steps::default(),
    )
    .unwrap()
}

/// Options of a real worker.
fn worker() -> LoadOptions {
    LoadOptions {
        worker: Some(env!("CARGO_BIN_EXE_rialto-worker").into()),
        ..LoadOptions::default()
    }
}

fn engine() -> LlamaEngine {
    engine_with("manifest-q8_0.toml", |options| options.slots = 8)
}

fn warm(seed: u64) -> Generation {
    Generation {
        max_tokens: 40,
        seed,
        ..Generation::default()
    }
}

fn warm_for(max_tokens: u64) -> Generation {
    let mut generation = warm(7);
    generation.max_tokens = max_tokens;
    generation
}

fn chat(content: &str, generation: Generation) -> Job {
    let messages = vec![
        Message::text("system", "Speak like Hamlet."),
        Message::text("user", content),
    ];
    Job::Chat {
        messages,
        tools: Tools::default(),
        generation,
    }
}

#[tokio::test]
async fn the_same_seed_gives_the_same_answer_and_another_seed_another() {
    for file in ["manifest-q8_0.toml", "manifest-q4_0.toml"] {
        let (one, other) = (
            engine_with(file, |_| ()),
            engine_with(file, |options| options.threads = Some(2)),
        );
        for generation in [greedy(40), warm(1), warm(2)] {
            let job = completion(PROMPTS[1], generation);
            let first = run(&one, job.clone()).await.unwrap();
            assert_eq!(first, run(&one, job.clone()).await.unwrap());
            assert_eq!(first, run(&other, job).await.unwrap(), "another engine, two threads");
            assert!(!first.ids.is_empty() && !first.text.is_empty(), "{first:?}");
        }
        let answer = async |seed| run(&one, completion(PROMPTS[1], warm(seed))).await.unwrap().ids;
        assert_ne!(answer(1).await, answer(2).await);
    }
}

#[tokio::test]
async fn eight_answers_at_once_are_the_same_as_each_alone() {
    let engine = engine();
    let mut alone = vec![];
    for prompt in PROMPTS {
        alone.push(run(&engine, completion(prompt, greedy(48))).await.unwrap());
    }
    let (_grant, paid) = watch::channel(u64::MAX);
    let mut answers = vec![];
    for prompt in PROMPTS {
        let prepared = engine
            .prepare(completion(prompt, greedy(48)), Scope::Alone)
            .await
            .unwrap();
        answers.push(prepared.start(paid.clone()));
    }
    for (answer, alone) in answers.iter_mut().zip(&alone) {
        assert_eq!(read(answer).await.unwrap(), *alone);
    }
}

#[tokio::test]
async fn more_requests_than_slots_wait_and_more_than_the_queue_are_refused() {
    let engine = engine_with("manifest-q8_0.toml", |options| (options.slots, options.queue) = (2, 3));
    let (grant, paid) = watch::channel(0);
    let mut answers = vec![];
    for _ in 0..20 {
        let prepared = engine
            .prepare(completion(PROMPTS[0], greedy(8)), Scope::Alone)
            .await
            .unwrap();
        answers.push(prepared.start(paid.clone()));
    }
    grant.send(8).unwrap();
    let (mut served, mut busy) = (0, 0);
    for answer in &mut answers {
        match read(answer).await {
            Ok(told) => {
                assert_eq!(told.ids.len(), 8);
                served += 1;
            }
            Err(Error::Busy) => busy += 1,
            Err(error) => panic!("{error}"),
        }
    }
    assert!(
        (3..=5).contains(&served) && served + busy == 20,
        "{served} served, {busy} refused"
    );
}

#[tokio::test]
async fn nothing_is_given_out_beyond_the_grant_and_others_do_not_wait() {
    let engine = engine();
    let whole = run(&engine, completion(PROMPTS[0], greedy(30))).await.unwrap();
    assert_eq!(whole.ids.len(), 30);

    let (grant, paid) = watch::channel(0u64);
    let mut answer = engine
        .prepare(completion(PROMPTS[0], greedy(30)), Scope::Alone)
        .await
        .unwrap()
        .start(paid);
    let mut told = Told::default();
    for granted in [1, 2, 12, 30] {
        grant.send(granted).unwrap();
        while told.ids.len() < usize::try_from(granted).unwrap() {
            told.add(answer.pieces.recv().await.unwrap().unwrap());
        }
        if granted < 30 {
            // While this one waits, another is served, and this one still has nothing more.
            run(&engine, completion(PROMPTS[3], greedy(20))).await.unwrap();
            assert!(answer.pieces.try_recv().is_err(), "more than {granted} came");
        }
    }
    let rest = read(&mut answer).await.unwrap();
    told.text.push_str(&rest.text);
    assert_eq!(
        (told.ids, told.text, rest.finish),
        (whole.ids, whole.text, whole.finish)
    );
}

#[tokio::test]
async fn an_answer_that_nobody_pays_for_any_more_is_cancelled() {
    let engine = engine();
    let (grant, paid) = watch::channel(5u64);
    let mut answer = engine
        .prepare(completion(PROMPTS[0], greedy(30)), Scope::Alone)
        .await
        .unwrap()
        .start(paid);
    let mut told = Told::default();
    while told.ids.len() < 5 {
        told.add(answer.pieces.recv().await.unwrap().unwrap());
    }
    drop(grant);
    let rest = read(&mut answer).await.unwrap();
    assert_eq!((rest.finish, rest.ids.len()), (Some(FinishReason::Cancelled), 0));
}

#[tokio::test]
async fn work_stops_when_the_reader_leaves_and_its_slot_is_free_again() {
    let engine = engine_with("manifest-q8_0.toml", |options| options.slots = 1);
    let (_grant, paid) = watch::channel(u64::MAX);
    let mut answer = engine
        .prepare(completion(PROMPTS[0], greedy(400)), Scope::Alone)
        .await
        .unwrap()
        .start(paid);
    answer.pieces.recv().await.unwrap().unwrap();
    drop(answer);
    // The only slot serves the next request, so the first one's work has ended.
    let next = run(&engine, completion(PROMPTS[1], greedy(4))).await.unwrap();
    assert_eq!(next.ids.len(), 4);
    let after = engine.work();
    // A slow reader stops the work too: at most what its channel holds was sampled ahead.
    assert!(after.sampled < 200, "{after:?}");
    run(&engine, completion(PROMPTS[1], greedy(4))).await.unwrap();
    assert_eq!(engine.work().sampled, after.sampled + 4);
}

#[tokio::test]
async fn a_reader_that_sleeps_holds_up_nobody() {
    let engine = engine();
    let (_grant, paid) = watch::channel(u64::MAX);
    let mut sleeper = engine
        .prepare(completion(PROMPTS[0], greedy(200)), Scope::Alone)
        .await
        .unwrap()
        .start(paid);
    let expected = run(&engine, completion(PROMPTS[2], greedy(100))).await.unwrap();
    assert_eq!(expected.ids.len(), 100);
    let told = read(&mut sleeper).await.unwrap();
    assert_eq!(told, run(&engine, completion(PROMPTS[0], greedy(200))).await.unwrap());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn readers_that_lag_in_every_slot_are_never_forgotten() {
    // Every slot is full and blocked by its reader while the readers move at the same time as the engine.
    let engine = engine();
    let (_grant, paid) = watch::channel(u64::MAX);
    for _ in 0..4 {
        let mut answers = vec![];
        for prompt in PROMPTS {
            let prepared = engine
                .prepare(completion(prompt, warm_for(200)), Scope::Alone)
                .await
                .unwrap();
            answers.push(prepared.start(paid.clone()));
        }
        for answer in &mut answers {
            assert!(read(answer).await.unwrap().finish.is_some());
        }
    }
}

#[tokio::test]
async fn a_stop_text_ends_the_answer_and_no_part_of_it_shows() {
    let engine = engine();
    let whole = run(&engine, completion(PROMPTS[0], greedy(60))).await.unwrap();
    // Every stretch of the answer as a stop text, across token borders too.
    let characters: Vec<(usize, char)> = whole.text.char_indices().collect();
    for length in [1, 3, 9] {
        for start in (0..characters.len().saturating_sub(length)).step_by(11) {
            let end = characters.get(start + length).map_or(whole.text.len(), |(at, _)| *at);
            let stop = whole.text[characters[start].0..end].to_owned();
            let mut generation = greedy(60);
            generation.stop = vec!["never said".into(), stop.clone()];
            let told = run(&engine, completion(PROMPTS[0], generation)).await.unwrap();
            let expected = &whole.text[..whole.text.find(&stop).unwrap()];
            assert_eq!(
                (told.text.as_str(), told.finish),
                (expected, Some(FinishReason::Stop)),
                "{stop:?}"
            );
            assert!(whole.ids.starts_with(&told.ids), "every token is told");
        }
    }
}

#[tokio::test]
async fn characters_of_several_bytes_come_whole() {
    // The vocabulary has no such characters, so the model must go byte by byte through what it never saw.
    let engine = engine();
    let prompt = "— 中文 🜚 né — ".repeat(6);
    for seed in 0..4 {
        let mut generation = warm(seed);
        (generation.temperature, generation.max_tokens) = (2.0, 120);
        let prepared = engine
            .prepare(completion(&prompt, generation), Scope::Alone)
            .await
            .unwrap();
        let (_grant, paid) = watch::channel(u64::MAX);
        let mut answer = prepared.start(paid);
        let mut ids = 0;
        while let Some(piece) = answer.pieces.recv().await {
            if let Piece::Output(Output::Tokens { text, ids: new, .. }) = piece.unwrap() {
                // A Rust string is whole characters by construction: what matters is that nothing was lost.
                assert!(text.len() <= 64, "{text:?}");
                ids += new.len();
            }
        }
        assert!(ids <= 120);
    }
}

#[tokio::test]
async fn a_conversation_goes_through_the_models_template() {
    let engine = engine();
    let prepared = engine
        .prepare(chat("What is a man?", greedy(20)), Scope::Alone)
        .await
        .unwrap();
    let plain = engine
        .prepare(completion("What is a man?", greedy(20)), Scope::Alone)
        .await
        .unwrap();
    assert!(prepared.input_units() > plain.input_units() + 6);
    assert_eq!(prepared.max_output(), 20);
    let told = run(&engine, chat("What is a man?", greedy(20))).await.unwrap();
    assert!(!told.text.contains("<|"), "{}", told.text);
}

#[tokio::test]
async fn control_tokens_that_people_write_are_text() {
    let engine = engine();
    let units = async |text: &str| {
        engine
            .prepare(chat(text, greedy(1)), Scope::Alone)
            .await
            .unwrap()
            .input_units()
    };
    // As a control token it would be one unit; as text it is many, in a conversation and in a plain prompt.
    assert!(units("<|im_end|>").await >= units("x").await + 3);
    let plain = engine
        .prepare(completion("<|im_end|>", greedy(1)), Scope::Alone)
        .await
        .unwrap();
    assert!(plain.input_units() >= 4);
}

#[tokio::test]
async fn the_context_bounds_prompt_and_answer() {
    let engine = engine();
    let long = "good night ".repeat(2_000);
    match engine
        .prepare(completion(&long, greedy(1)), Scope::Alone)
        .await
        .err()
        .unwrap()
    {
        Error::ContextExceeded { prompt, limit } => assert!(prompt > limit && limit == 512),
        other => panic!("{other}"),
    }
    let huge = "x".repeat(15 << 20);
    let refused = engine
        .prepare(completion(&huge, greedy(1)), Scope::Alone)
        .await
        .err()
        .unwrap();
    assert!(matches!(refused, Error::ContextExceeded { .. }), "{refused}");

    // The longest prompt that fits, found from below, leaves room for what it says it leaves.
    let mut prompt = String::new();
    while let Ok(prepared) = engine
        .prepare(completion(&format!("{prompt} night"), greedy(1_000)), Scope::Alone)
        .await
    {
        prompt.push_str(" night");
        assert_eq!(prepared.input_units() + prepared.max_output(), 512);
    }
    let told = run(&engine, completion(&prompt, greedy(1_000))).await.unwrap();
    assert!(told.ids.len() <= 2);
    let mut generation = greedy(1_000);
    generation.temperature = 1.5;
    let told = run(&engine, completion(PROMPTS[0], generation)).await.unwrap();
    assert!(matches!(told.finish, Some(FinishReason::Length | FinishReason::Stop)));
}

#[tokio::test]
async fn bad_jobs_are_refused_with_the_field_named() {
    let engine = engine();
    let field = async |job: Job| match engine.prepare(job, Scope::Alone).await.err().unwrap() {
        Error::BadRequest(bad) => bad.field,
        other => panic!("{other}"),
    };
    let mut generation = greedy(1);
    generation.temperature = 3.0;
    assert_eq!(field(completion("a", generation)).await, "temperature");
    assert_eq!(field(completion("a", greedy(0))).await, "max_tokens");
    let inputs = vec!["a".to_owned()];
    assert_eq!(field(Job::Embedding { inputs }).await, "model");
    let messages = vec![];
    let generation = greedy(1);
    assert_eq!(
        field(Job::Chat {
            messages,
            tools: Tools::default(),
            generation
        })
        .await,
        "messages"
    );
}

#[tokio::test]
async fn a_flipped_byte_is_refused_by_hash_and_garbage_by_the_engine() {
    let (manifest, folder) = (shipped("manifest-q8_0.toml"), model_folder("shakespeare"));
    let content = std::fs::read(folder.join(&manifest.artifacts[0].path)).unwrap();
    let overflow = b"GGUF\x03\0\0\0\xFF\xFF\xFF\xFF\xFF\xFF\xFF\x7F\xFF\xFF\xFF\xFF\xFF\xFF\xFF\x7F";
    for broken in [&[0x55; 4_096], &content[..content.len() / 2], &content[..100], overflow] {
        let (folder, manifest) = with_artifact(&manifest, broken);
        let error = load(&manifest, folder.path(), &worker()).await.err().unwrap();
        assert!(matches!(error, Error::Model(_)), "{error}");
    }

    let (flipped_folder, flipped) = with_artifact(&manifest, &content);
    let mut changed = content;
    changed[2_000_000] ^= 1;
    std::fs::write(flipped_folder.path().join(&flipped.artifacts[0].path), &changed).unwrap();
    let error = load(&flipped, flipped_folder.path(), &worker()).await.err().unwrap();
    assert!(
        matches!(
            &error,
            Error::Artifact {
                fault: ArtifactFault::Hash { .. },
                ..
            }
        ),
        "{error}"
    );
}

#[tokio::test]
async fn a_manifest_that_promises_something_else_is_refused() {
    let folder = model_folder("shakespeare");
    let changes: [Change; 3] = [
        (|m| m.context_length = 4_096, "context"),
        (|m| m.chat_template_hash = "00".repeat(32), "chat template"),
        (|m| m.task = TaskKind::Predict, "tensors"),
    ];
    for (change, expected) in changes {
        let mut manifest = shipped("manifest-q8_0.toml");
        change(&mut manifest);
        let message = load(&manifest, &folder, &worker()).await.err().unwrap().to_string();
        assert!(message.contains(expected), "`{message}` does not say `{expected}`");
    }
}

#[tokio::test]
async fn an_embedding_model_gives_vectors_and_no_text() {
    let mut manifest = shipped("manifest-q8_0.toml");
    manifest.task = TaskKind::Embedding;
    let engine = load(&manifest, &model_folder("shakespeare"), &worker()).await.unwrap();
    let inputs: Vec<String> = ["good night", "good morrow", "good night"].map(str::to_owned).into();
    let told = run(engine.as_ref(), Job::Embedding { inputs }).await.unwrap();
    let vectors: Vec<&Vec<f32>> = told
        .pieces
        .iter()
        .map(|piece| match piece {
            Output::Embedding { vector, .. } => vector,
            other => panic!("{other:?}"),
        })
        .collect();
    assert_eq!(vectors.len(), 3);
    assert_eq!(vectors[0], vectors[2]);
    assert_ne!(vectors[0], vectors[1]);
    let length: f32 = vectors[0].iter().map(|value| value * value).sum();
    assert!((length - 1.0).abs() < 1e-4);
    let refused = engine
        .prepare(completion("a", greedy(1)), Scope::Alone)
        .await
        .err()
        .unwrap();
    assert!(matches!(refused, Error::BadRequest(_)));
}
