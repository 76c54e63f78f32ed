//! Models through ONNX Runtime: the numbers of Python's, every wrong input and file refused, and nothing that depends on
//! who else asks.

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test fails by panicking"
)]
#![expect(clippy::cast_possible_truncation, reason = "the model takes single precision")]

#[path = "onnx/batches.rs"]
mod batches;
#[path = "onnx/embeddings.rs"]
mod embeddings;
#[path = "onnx/families.rs"]
mod families;
#[path = "../../engine/tests/support/mod.rs"]
mod support;

use std::path::Path;

use rialto_engine::{ArtifactFault, Engine, Error, LoadOptions, Scope};
use rialto_protocol::{
    job::{Datatype, Job, Tensor},
    manifest::Manifest,
    output::{FinishReason, Output},
};
use rialto_worker::{Steps, onnx::OnnxEngine};
use serde_json::Value;
use support::{manifest, model_folder, run, with_artifact};

/// A change of a manifest, and what the refusal must say.
type Change = (fn(&mut Manifest), &'static str);

fn shipped() -> Manifest {
    manifest(&model_folder("breast-cancer"), "manifest.toml")
}

/// Options with the worker of this build.
fn options() -> LoadOptions {
    LoadOptions {
        worker: Some(env!("CARGO_BIN_EXE_rialto-worker").into()),
        ..support::options()
    }
}

/// In this process, as the worker loads it in its own.
fn load_here(manifest: &Manifest, folder: &Path, options: &LoadOptions) -> Result<OnnxEngine, Error> {
    OnnxEngine::load(manifest, folder, options, &Steps::default())
}

/// Both ways: what a worker refuses, its host refuses with the same words or earlier.
async fn refused(manifest: &Manifest, folder: &Path) -> Error {
    let here = load_here(manifest, folder, &options()).expect_err("this should be refused");
    let there = rialto_engine::load(manifest, folder, &options()).await.err();
    let there = there.expect("this should be refused in a worker too");
    assert_eq!(
        std::mem::discriminant(&here),
        std::mem::discriminant(&there),
        "{here}, and in a worker {there}"
    );
    here
}

fn engine() -> OnnxEngine {
    load_here(&shipped(), &model_folder("breast-cancer"), &options()).unwrap()
}

fn example() -> Value {
    let text = std::fs::read_to_string(model_folder("breast-cancer").join("example.json")).unwrap();
    serde_json::from_str(&text).unwrap()
}

fn input() -> Tensor {
    let example = example();
    let tensor = &example["request"]["inputs"][0];
    let numbers = |value: &Value| value.as_array().unwrap().clone();
    Tensor {
        name: tensor["name"].as_str().unwrap().into(),
        datatype: Datatype::Fp32,
        shape: numbers(&tensor["shape"]).iter().map(|n| n.as_u64().unwrap()).collect(),
        data: numbers(&tensor["data"])
            .iter()
            .flat_map(|n| (n.as_f64().unwrap() as f32).to_le_bytes())
            .collect(),
    }
}

fn predict(inputs: Vec<Tensor>, outputs: &[&str]) -> Job {
    Job::Predict {
        inputs,
        outputs: outputs.iter().map(|name| (*name).to_owned()).collect(),
    }
}

async fn tensors(engine: &dyn Engine, job: Job) -> Vec<Tensor> {
    let told = run(engine, job).await.unwrap();
    assert_eq!(told.finish, Some(FinishReason::Stop));
    match told.pieces.as_slice() {
        [Output::Tensors(tensors)] => tensors.clone(),
        other => panic!("{other:?}"),
    }
}

async fn refusal(engine: &dyn Engine, job: Job) -> String {
    match engine
        .prepare(job, Scope::Alone)
        .await
        .err()
        .expect("this should be refused")
    {
        error @ Error::BadRequest(_) => error.to_string(),
        other => panic!("{other}"),
    }
}

#[tokio::test]
async fn predictions_equal_those_of_python() {
    let engine = engine();
    assert_eq!(engine.info().class, "onnxruntime");
    let prepared = engine.prepare(predict(vec![input()], &[]), Scope::Alone).await.unwrap();
    assert_eq!((prepared.input_units(), prepared.max_output()), (4, 0));

    let outputs = tensors(&engine, predict(vec![input()], &[])).await;
    let example = example();
    let expected = example["expected_outputs"].as_array().unwrap();
    assert_eq!(outputs.len(), expected.len());
    for (output, expected) in outputs.iter().zip(expected) {
        assert_eq!(output.name, expected["name"].as_str().unwrap());
        let numbers = expected["data"].as_array().unwrap();
        match output.datatype {
            Datatype::Int64 => {
                let found: Vec<i64> = output
                    .data
                    .as_chunks()
                    .0
                    .iter()
                    .map(|b| i64::from_le_bytes(*b))
                    .collect();
                let expected: Vec<i64> = numbers.iter().map(|n| n.as_i64().unwrap()).collect();
                assert_eq!(found, expected);
            }
            Datatype::Fp32 => {
                let found: Vec<f32> = output
                    .data
                    .as_chunks()
                    .0
                    .iter()
                    .map(|b| f32::from_le_bytes(*b))
                    .collect();
                let expected: Vec<f32> = numbers.iter().map(|n| n.as_f64().unwrap() as f32).collect();
                assert_eq!(found, expected, "not the same bits as Python's");
            }
            other => panic!("{other:?}"),
        }
    }
}

#[tokio::test]
async fn a_batch_repeats_bit_for_bit_also_when_many_run_at_once() {
    let engine = engine();
    let first = tensors(&engine, predict(vec![input()], &[])).await;
    let runs = (0..40).map(|_| tensors(&engine, predict(vec![input()], &[])));
    for outputs in futures_of(runs).await {
        assert_eq!(outputs, first);
    }
}

/// Polls all of them in turn until every one is done.
async fn futures_of<F: Future>(futures: impl Iterator<Item = F>) -> Vec<F::Output> {
    let mut running: Vec<_> = futures.map(|future| (Box::pin(future), None)).collect();
    std::future::poll_fn(|context| {
        let mut done = true;
        for (future, output) in &mut running {
            if output.is_none() {
                match future.as_mut().poll(context) {
                    std::task::Poll::Ready(value) => *output = Some(value),
                    std::task::Poll::Pending => done = false,
                }
            }
        }
        if done {
            std::task::Poll::Ready(())
        } else {
            std::task::Poll::Pending
        }
    })
    .await;
    running.into_iter().filter_map(|(_, output)| output).collect()
}

#[tokio::test]
async fn only_the_outputs_that_were_asked_for_come() {
    let outputs = tensors(&engine(), predict(vec![input()], &["probabilities"])).await;
    let names: Vec<&str> = outputs.iter().map(|tensor| tensor.name.as_str()).collect();
    assert_eq!(names, ["probabilities"]);
    assert_eq!(outputs[0].shape, [4, 2]);
}

#[tokio::test]
async fn what_does_not_fit_the_signature_is_refused_and_named() {
    let engine = engine();
    let changed = |change: &dyn Fn(&mut Tensor)| {
        let mut tensor = input();
        change(&mut tensor);
        tensor
    };
    let cases: Vec<(Vec<Tensor>, &str)> = vec![
        (vec![changed(&|t| t.name = "other".into())], "no input `other`"),
        (vec![input(), input()], "given twice"),
        (vec![changed(&|t| t.datatype = Datatype::Int32)], "is Int32"),
        (vec![changed(&|t| t.shape = vec![120])], "shape [120]"),
        (vec![changed(&|t| t.shape = vec![30, 4])], "shape [30, 4]"),
        (vec![changed(&|t| t.data.truncate(8))], "120 elements"),
        (vec![changed(&|t| t.shape = vec![0, 30])], "zero"),
        (vec![], "entries"),
    ];
    for (inputs, expected) in cases {
        let message = refusal(&engine, predict(inputs, &[])).await;
        assert!(message.contains(expected), "`{message}` does not say `{expected}`");
    }
    let message = refusal(&engine, predict(vec![input()], &["nothing"])).await;
    assert!(message.contains("`label`, `probabilities`"), "{message}");
    let chat = support::completion("to be", support::greedy(1));
    assert!(refusal(&engine, chat).await.contains("tensors"));
}

#[tokio::test]
async fn a_batch_whose_outputs_would_be_too_large_is_refused_before_it_runs() {
    let mut options = options();
    options.max_tensor_bytes = 63;
    let engine = load_here(&shipped(), &model_folder("breast-cancer"), &options).unwrap();
    assert!(refusal(&engine, predict(vec![input()], &[])).await.contains("64 bytes"));
}

#[tokio::test]
async fn a_flipped_byte_is_refused_by_hash_and_garbage_by_the_engine() {
    let (manifest, folder) = (shipped(), model_folder("breast-cancer"));
    let mut content = std::fs::read(folder.join(&manifest.artifacts[0].path)).unwrap();

    let (garbage_folder, garbage) = with_artifact(&manifest, &vec![0x55; 4_096]);
    let error = refused(&garbage, garbage_folder.path()).await;
    assert!(matches!(error, Error::Model(_)), "{error}");
    let (cut_folder, cut) = with_artifact(&manifest, &content[..content.len() / 2]);
    let error = refused(&cut, cut_folder.path()).await;
    assert!(matches!(error, Error::Model(_)), "{error}");

    let (flipped_folder, flipped) = with_artifact(&manifest, &content);
    content[1_000] ^= 1;
    std::fs::write(flipped_folder.path().join(&flipped.artifacts[0].path), &content).unwrap();
    match refused(&flipped, flipped_folder.path()).await {
        Error::Artifact {
            path,
            fault: ArtifactFault::Hash { expected, found },
        } => {
            assert_eq!(path, "breast-cancer.onnx");
            assert_eq!(expected, manifest.artifacts[0].blake3);
            assert_ne!(found, expected);
        }
        other => panic!("{other}"),
    }
}

#[tokio::test]
async fn a_manifest_that_promises_another_signature_is_refused() {
    let folder = model_folder("breast-cancer");
    let changes: [Change; 5] = [
        (|m| m.inputs[0].name = "x".into(), "`input` is not in the manifest"),
        (|m| m.inputs[0].shape = vec![-1, 31], "shape"),
        (|m| m.inputs[0].datatype = Datatype::Fp64, "Fp64"),
        (|m| m.outputs[1].name = "p".into(), "`p` is in the manifest"),
        (|m| m.outputs.clear(), "no outputs"),
    ];
    for (change, expected) in changes {
        let mut manifest = shipped();
        change(&mut manifest);
        let message = refused(&manifest, &folder).await.to_string();
        assert!(message.contains(expected), "`{message}` does not say `{expected}`");
    }
}

#[tokio::test]
async fn more_requests_than_places_are_refused_as_busy_and_the_others_are_served() {
    let mut options = options();
    (options.slots, options.queue) = (1, 2);
    let engine = load_here(&shipped(), &model_folder("breast-cancer"), &options).unwrap();
    let (_grant, paid) = tokio::sync::watch::channel(0);
    let mut answers = vec![];
    for _ in 0..5 {
        let prepared = engine.prepare(predict(vec![input()], &[]), Scope::Alone).await.unwrap();
        answers.push(prepared.start(paid.clone()));
    }
    let mut busy = 0;
    for mut answer in answers {
        match support::read(&mut answer).await {
            Ok(told) => assert_eq!(told.pieces.len(), 1),
            Err(Error::Busy) => busy += 1,
            Err(error) => panic!("{error}"),
        }
    }
    assert_eq!(busy, 2);
}
