//! The shipped models, and reading answers.

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "a test fails by panicking"
)]

use std::path::{Path, PathBuf};

use rialto_engine::{Answer, Engine, Error, LoadOptions, Piece, Scope};
use rialto_protocol::{
    Digest,
    fingerprint::Fingerprint,
    job::{Generation, Job},
    manifest::Manifest,
    output::{FinishReason, Output, TokenLogprob},
};
use tokio::sync::watch;

/// A folder of the shipped models.
pub(crate) fn model_folder(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../models").join(name)
}

pub(crate) fn manifest(folder: &Path, file: &str) -> Manifest {
    let text = std::fs::read_to_string(folder.join(file)).unwrap();
    Manifest::from_toml(&text).unwrap()
}

/// Options with ONNX Runtime where the set-up puts it.
pub(crate) fn options() -> LoadOptions {
    let fetched = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../target/onnxruntime/libonnxruntime.so");
    let named = std::env::var_os("ORT_DYLIB_PATH").is_some();
    assert!(
        named || fetched.is_file(),
        "ONNX Runtime is missing: script/setup fetches it"
    );
    LoadOptions {
        onnxruntime: (!named).then_some(fetched),
        ..LoadOptions::default()
    }
}

/// A folder with these bytes as the only artifact of a changed manifest.
pub(crate) fn with_artifact(manifest: &Manifest, content: &[u8]) -> (tempfile::TempDir, Manifest) {
    let folder = tempfile::tempdir().unwrap();
    let mut manifest = manifest.clone();
    let artifact = &mut manifest.artifacts[0];
    artifact.blake3 = Digest(blake3::hash(content).into());
    artifact.size = content.len() as u64;
    std::fs::write(folder.path().join(&artifact.path), content).unwrap();
    (folder, manifest)
}

/// Everything that an answer said.
#[derive(Debug, Default, Clone, PartialEq)]
pub(crate) struct Told {
    pub(crate) ids: Vec<u32>,
    pub(crate) logprobs: Vec<TokenLogprob>,
    pub(crate) text: String,
    pub(crate) pieces: Vec<Output>,
    pub(crate) finish: Option<FinishReason>,
    pub(crate) fingerprint: Fingerprint,
}

impl Told {
    pub(crate) fn add(&mut self, piece: Piece) {
        match piece {
            Piece::Output(Output::Tokens { text, ids, logprobs }) => {
                self.text.push_str(&text);
                self.ids.extend(ids);
                self.logprobs.extend(logprobs);
            }
            Piece::Output(other) => self.pieces.push(other),
            Piece::Finished(ending) => {
                self.finish = Some(ending.reason);
                self.fingerprint = ending.fingerprint;
            }
        }
    }
}

pub(crate) async fn read(answer: &mut Answer) -> Result<Told, Error> {
    let mut told = Told::default();
    while told.finish.is_none() {
        told.add(answer.pieces.recv().await.expect("the engine died")?);
    }
    assert!(answer.pieces.recv().await.is_none(), "something came after the end");
    Ok(told)
}

/// Runs a job with everything paid for.
pub(crate) async fn run(engine: &dyn Engine, job: Job) -> Result<Told, Error> {
    let prepared = engine.prepare(job, Scope::Alone).await?;
    let (grant, paid) = watch::channel(u64::MAX);
    let told = read(&mut prepared.start(paid)).await;
    drop(grant);
    told
}

pub(crate) fn completion(prompt: &str, generation: Generation) -> Job {
    Job::Completion {
        prompt: prompt.into(),
        generation,
    }
}

/// Settings for so many tokens at temperature 0.
pub(crate) fn greedy(max_tokens: u64) -> Generation {
    Generation {
        max_tokens,
        temperature: 0.0,
        ..Generation::default()
    }
}
