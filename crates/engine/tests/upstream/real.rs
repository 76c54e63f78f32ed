//! A real server: llama.cpp's own, with a model that we ship. `tests/upstream/install.sh` installs it.

use std::{
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::Duration,
};

use rialto_engine::{Answer, Engine, Piece, Scope, Suspicions, UpstreamConfig, UpstreamEngine, UpstreamKind};
use rialto_protocol::{
    fingerprint::Fingerprint,
    job::{AnswerFormat, Generation, Job, Message, SoFar, Tool, ToolChoice, Tools},
    manifest::TaskKind,
    output::{FinishReason, Output},
};
use serde_json::Value;
use tokio::sync::watch;

use crate::{
    PATIENCE, chat, config,
    server::Place,
    support::{Told, completion, greedy, model_folder, read, run},
};

/// The server's program; `None` on machines for which there is none.
fn program() -> Option<PathBuf> {
    let program = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../target/upstream/bin/llama-server");
    if program.is_file() {
        return Some(program);
    }
    let has_wheel = cfg!(all(target_os = "linux", target_arch = "x86_64"));
    assert!(
        !has_wheel,
        "llama.cpp's server is missing: tests/upstream/install.sh fetches it"
    );
    None
}

/// A running server; dropping it kills it as a power cut does.
struct RealServer {
    child: Child,
    /// Kept by whoever starts it again there.
    place: Option<Place>,
    port: u16,
}

impl RealServer {
    fn start(program: &Path, extra: &[&str]) -> Self {
        Self::start_at(program, Place::reserve(), extra)
    }

    fn start_at(program: &Path, place: Place, extra: &[&str]) -> Self {
        let port = place.port();
        let child = Command::new(program)
            .args(["--host", "127.0.0.1", "--port", &port.to_string()])
            .args([
                "--alias",
                "m",
                "--parallel",
                "2",
                "--ctx-size",
                "1024",
                "--threads",
                "1",
            ])
            .arg("--model")
            .arg(model_folder("shakespeare").join("shakespeare-q8_0.gguf"))
            .args(extra)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let place = Some(place);
        Self { child, place, port }
    }

    fn config(&self) -> UpstreamConfig {
        config(&format!("http://127.0.0.1:{}", self.port))
    }

    /// Waits until the server is there.
    async fn connect(&mut self, config: UpstreamConfig) -> UpstreamEngine {
        let child = &mut self.child;
        let wait = async {
            loop {
                match UpstreamEngine::connect(config.clone()).await {
                    Ok(engine) => return engine,
                    Err(error) => assert!(error.retryable(), "{error}"),
                }
                let ended = child.try_wait().unwrap();
                assert!(ended.is_none(), "the server does not run on this machine: {ended:?}");
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        };
        tokio::time::timeout(PATIENCE, wait)
            .await
            .expect("the server does not start")
    }

    /// Waits until the server has nothing to do.
    async fn idle(&self) {
        let http = reqwest::Client::builder().no_proxy().build().unwrap();
        let url = format!("http://127.0.0.1:{}/slots", self.port);
        let wait = async {
            loop {
                let text = http.get(&url).send().await.unwrap().text().await.unwrap();
                let slots: Vec<Value> = serde_json::from_str(&text).unwrap();
                if slots.iter().all(|slot| slot["is_processing"] == false) {
                    return;
                }
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        tokio::time::timeout(PATIENCE, wait).await.expect("it works on");
    }
}

impl Drop for RealServer {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

/// Sampling at temperature 1 with this seed.
fn seeded(seed: u64, max_tokens: u64) -> Generation {
    Generation {
        seed,
        max_tokens,
        ..Generation::default()
    }
}

#[tokio::test]
async fn a_real_server_is_found_out_counted_and_marked() {
    let Some(program) = program() else { return };
    let mut server = RealServer::start(&program, &[]);
    let engine = server.connect(server.config()).await;
    assert_eq!((engine.kind(), engine.info().slots), (UpstreamKind::LlamaCpp, 2));
    for job in [
        completion("KING RICHARD III:\n", seeded(7, 40)),
        completion("né — 中 🜚", seeded(7, 40)),
        chat(seeded(7, 40)),
    ] {
        let prepared = engine.prepare(job.clone(), Scope::Alone).await.unwrap();
        assert!(prepared.input_units() <= job.max_input());
        let told = run(&engine, job.clone()).await.unwrap();
        assert!(!told.text.is_empty() && told.ids.len() <= 40, "{told:?}");
        assert!(told.ids.iter().all(|id| *id < 2_048), "{:?}", told.ids);
        assert_eq!(
            told,
            run(&engine, job).await.unwrap(),
            "another answer with the same seed"
        );
    }
    // The server's own counts, of prompts and of answers, were compared after each.
    assert_eq!(engine.suspicions(), Suspicions::default());
}

/// Reads an answer with its marks.
async fn marked(answer: &mut Answer) -> (Told, Fingerprint) {
    let (mut told, mut fingerprint) = (Told::default(), Fingerprint::default());
    while let Some(piece) = answer.pieces.recv().await {
        let piece = piece.unwrap();
        if let Piece::Finished(ending) = &piece {
            fingerprint = ending.fingerprint.clone();
        }
        told.add(piece);
    }
    (told, fingerprint)
}

#[tokio::test]
async fn every_eighth_token_of_a_real_server_is_marked_with_its_eight_likeliest() {
    let Some(program) = program() else { return };
    let mut server = RealServer::start(&program, &[]);
    let engine = server.connect(server.config()).await;
    let job = completion("KING RICHARD III:\n", greedy(33));
    let prepared = engine.prepare(job, Scope::Alone).await.unwrap();
    let (_grant, paid) = watch::channel(u64::MAX);
    let (told, fingerprint) = marked(&mut prepared.start(paid)).await;
    assert_eq!((told.ids.len(), told.finish), (33, Some(FinishReason::Length)));
    let places: Vec<u32> = fingerprint.marks.iter().map(|mark| mark.position).collect();
    assert_eq!(places, [0, 8, 16, 24, 32]);
    for mark in &fingerprint.marks {
        let chosen = told.ids[usize::try_from(mark.position).unwrap()];
        assert_eq!(
            (mark.top.len(), mark.top[0].0),
            (8, chosen),
            "at temperature 0 the likeliest is chosen"
        );
    }
}

#[tokio::test]
async fn a_real_server_obeys_schemas_tools_stops_and_limits() {
    let Some(program) = program() else { return };
    let mut server = RealServer::start(&program, &["--jinja"]);
    let engine = server.connect(server.config()).await;
    let schema =
        r#"{"type":"object","properties":{"a":{"type":"boolean"}},"required":["a"],"additionalProperties":false}"#;
    let generation = Generation {
        format: AnswerFormat::JsonSchema(schema.into()),
        ..seeded(3, 200)
    };
    let told = run(&engine, chat(generation)).await.unwrap();
    if told.finish == Some(FinishReason::Stop) {
        let value: Value = serde_json::from_str(&told.text).unwrap();
        assert!(value["a"].is_boolean(), "{value}");
    }

    let add = Tool {
        name: "add".into(),
        description: "adds".into(),
        parameters: r#"{"type":"object","properties":{"a":{"type":"boolean"}},"required":["a"]}"#.into(),
    };
    let job = Job::Chat {
        messages: vec![Message::text("user", "Add.")],
        tools: Tools {
            offered: vec![add],
            choice: ToolChoice::Required,
        },
        generation: seeded(3, 200),
    };
    let told = run(&engine, job).await.unwrap();
    // The model is too small to call anything by itself, and the server does not know the form of its calls: words come,
    // and are counted without log-probabilities, which this server does not tell beside tools.
    assert!(!told.ids.is_empty() && told.ids.len() <= 200, "{told:?}");

    let text = run(&engine, completion("ROMEO:\n", greedy(60))).await.unwrap().text;
    let stop: String = text.chars().skip(20).take(6).collect();
    let mut generation = greedy(60);
    generation.stop = vec![stop.clone()];
    let told = run(&engine, completion("ROMEO:\n", generation)).await.unwrap();
    let before = text.split(&stop).next().unwrap();
    assert_eq!((told.text.as_str(), told.finish), (before, Some(FinishReason::Stop)));
    assert!(told.ids.len() < 60);

    let long = completion(&"to be or not to be ".repeat(400), greedy(1));
    let refused = engine.prepare(long, Scope::Alone).await.err().unwrap();
    assert!(refused.to_string().contains("512"), "{refused}");
    assert_eq!(engine.suspicions().output, 0);
}

#[tokio::test]
async fn a_real_server_goes_on_with_an_answer_that_another_began() {
    let Some(program) = program() else { return };
    let mut server = RealServer::start(&program, &["--jinja"]);
    let engine = server.connect(server.config()).await;
    for job in [completion("KING RICHARD III:\n", greedy(48)), chat(greedy(48))] {
        let prepared = engine.prepare(job.clone(), Scope::Alone).await.unwrap();
        let input = prepared.input_units();
        let (_grant, paid) = watch::channel(u64::MAX);
        let mut answer = prepared.start(paid);
        let (mut whole, mut cuts) = (Told::default(), vec![]);
        while let Some(piece) = answer.pieces.recv().await {
            cuts.push((whole.ids.clone(), whole.text.clone()));
            whole.add(piece.unwrap());
        }
        let (mut same, mut all) = (0, 0);
        for (ids, text) in cuts
            .into_iter()
            .filter(|(ids, text)| ids.len() < 48 && !text.is_empty())
        {
            let rest = goes_on(&engine, &job, &ids, &text).await;
            // Where the text is cut into other tokens than it came in, other text may follow.
            if rest.input == input + ids.len() as u64 {
                all += 1;
                same += u32::from(text + &rest.told.text == whole.text);
            }
        }
        // The last bits of what the model computes depend on how much of it is computed at once.
        assert!(all >= 5 && same * 10 >= all * 9, "{same} of {all} are the same");
    }
    // The server's counts of these prompts and answers were compared too.
    assert_eq!(engine.suspicions(), Suspicions::default());
}

/// What follows after a part of an answer.
struct Rest {
    input: u64,
    told: Told,
}

async fn goes_on(engine: &UpstreamEngine, job: &Job, ids: &[u32], text: &str) -> Rest {
    let mut job = job.clone();
    let (Job::Chat { generation, .. } | Job::Completion { generation, .. }) = &mut job else {
        panic!("a generation")
    };
    generation.max_tokens -= ids.len() as u64;
    generation.so_far = SoFar {
        ids: ids.to_vec(),
        text: text.into(),
        ..SoFar::default()
    };
    let left = generation.max_tokens;
    let input = engine.prepare(job.clone(), Scope::Alone).await.unwrap().input_units();
    assert!(input <= job.max_input());
    let told = run(engine, job).await.unwrap();
    assert!(told.ids.len() as u64 <= left, "{told:?}");
    Rest { input, told }
}

#[tokio::test]
async fn a_real_servers_work_ends_when_nobody_wants_it() {
    let Some(program) = program() else { return };
    let mut server = RealServer::start(&program, &[]);
    let engine = server.connect(server.config()).await;
    let job = completion("KING HENRY V:\n", seeded(1, 480));
    let prepared = engine.prepare(job, Scope::Alone).await.unwrap();
    let (grant, paid) = watch::channel(3);
    let mut answer = prepared.start(paid);
    answer.pieces.recv().await.unwrap().unwrap();
    drop(grant);
    let told = read(&mut answer).await.unwrap();
    assert!(told.ids.len() <= 2, "{told:?}");
    assert_eq!(told.finish, Some(FinishReason::Cancelled));
    server.idle().await;
}

#[tokio::test]
async fn a_real_server_that_is_killed_and_started_again_serves_again() {
    let Some(program) = program() else { return };
    let mut server = RealServer::start(&program, &[]);
    let engine = server.connect(server.config()).await;
    let job = completion("KING HENRY V:\n", seeded(1, 480));
    let prepared = engine.prepare(job.clone(), Scope::Alone).await.unwrap();
    let (_grant, paid) = watch::channel(u64::MAX);
    let mut answer = prepared.start(paid);
    answer.pieces.recv().await.unwrap().unwrap();
    server.child.kill().unwrap();
    let failed = read(&mut answer).await;
    // A fast machine may have had the whole answer on its way already.
    if let Err(error) = failed {
        assert!(error.retryable() && !error.public().contains("127.0.0.1"), "{error}");
    }
    let place = server.place.take().unwrap();
    drop(server);
    let _server = RealServer::start_at(&program, place, &[]);
    let again = async {
        while run(&engine, job.clone()).await.is_err() {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    tokio::time::timeout(PATIENCE, again)
        .await
        .expect("it is not picked up again");
}

#[tokio::test]
async fn a_real_server_embeds() {
    let Some(program) = program() else { return };
    let mut server = RealServer::start(&program, &["--embeddings", "--pooling", "mean"]);
    let mut config = server.config();
    config.task = TaskKind::Embedding;
    let engine = server.connect(config).await;
    let inputs = ["to be", "or not to be", "to be"].map(str::to_owned).to_vec();
    let prepared = engine
        .prepare(Job::Embedding { inputs: inputs.clone() }, Scope::Alone)
        .await
        .unwrap();
    // Each text has a token at its begin.
    assert!((9..20).contains(&prepared.input_units()), "{}", prepared.input_units());
    let told = run(&engine, Job::Embedding { inputs }).await.unwrap();
    let vectors: Vec<&Vec<f32>> = told
        .pieces
        .iter()
        .map(|piece| match piece {
            Output::Embedding { vector, .. } => vector,
            other => panic!("{other:?}"),
        })
        .collect();
    assert_eq!((vectors.len(), vectors[0].len()), (3, 256));
    assert!(vectors[0] != vectors[1]);
    let same = vectors[0]
        .iter()
        .zip(vectors[2])
        .all(|(one, other)| (one - other).abs() < 1e-3);
    assert!(same, "one text, two vectors");
}
