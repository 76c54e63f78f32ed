//! A model of every family, made by `make.py`, with the outputs of Python's onnxruntime: the same bits here, on a processor
//! for which ONNX Runtime takes the kernels that it took there.

use std::path::{Path, PathBuf};

use rialto_engine::{Error, LoadOptions};
use rialto_protocol::{
    Digest,
    job::{Datatype, Tensor},
    manifest::{Artifact, Format, Manifest, TaskKind, TensorSpec},
};
use serde_json::Value;

use crate::{load_here, options, predict, refusal, tensors};

/// What must be there, and can run.
pub(crate) const FAMILIES: [&str; 22] = [
    "cnn",
    "gradient-boosting",
    "gradient-boosting-regressor",
    "gru",
    "hist-gradient-boosting",
    "hist-gradient-boosting-regressor",
    "image",
    "linear-regressor",
    "logistic-regression",
    "lookup",
    "lstm-lengths",
    "mlp",
    "nearest-neighbours",
    "random-forest",
    "random-forest-regressor",
    "row-against-row",
    "scalar",
    "svc",
    "text",
    "types",
    "words-and-numbers",
    "zipmap",
];

/// A fixture.
pub(crate) struct Case {
    pub(crate) manifest: Manifest,
    pub(crate) given: Vec<Tensor>,
    expected: Vec<Tensor>,
}

pub(crate) fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/onnx")
}

/// A manifest of files in a folder.
pub(crate) fn manifest_of(folder: &Path, files: &[&str], task: TaskKind) -> Manifest {
    let artifact = |file: &&str| {
        let content = std::fs::read(folder.join(file)).unwrap();
        Artifact {
            path: (*file).to_owned(),
            blake3: Digest(blake3::hash(&content).into()),
            size: content.len() as u64,
        }
    };
    Manifest {
        schema: 1,
        publisher_name: "rialto".into(),
        name: files[0].trim_end_matches(".onnx").into(),
        tag: "test".into(),
        task,
        description: String::new(),
        quantisation: "F32".into(),
        licence: "MIT".into(),
        royalty_bps: 0,
        context_length: 0,
        format: Format::Onnx,
        chat_template_hash: String::new(),
        tokenizer_hash: String::new(),
        artifacts: files.iter().map(artifact).collect(),
        inputs: vec![],
        outputs: vec![],
    }
}

pub(crate) fn case(name: &str) -> Case {
    let text = std::fs::read_to_string(folder().join(format!("{name}.json"))).unwrap();
    let case: Value = serde_json::from_str(&text).unwrap();
    let specs = |key: &str| serde_json::from_value::<Vec<TensorSpec>>(case[key].clone()).unwrap();
    let listed = |key: &str| case[key].as_array().unwrap().iter().map(tensor).collect();
    let mut manifest = manifest_of(&folder(), &[&format!("{name}.onnx")], TaskKind::Predict);
    (manifest.inputs, manifest.outputs) = (specs("inputs"), specs("outputs"));
    Case {
        manifest,
        given: listed("given"),
        expected: listed("expected"),
    }
}

fn tensor(value: &Value) -> Tensor {
    let digits = value["data"].as_str().unwrap();
    let byte = |at: usize| u8::from_str_radix(&digits[at..at + 2], 16).unwrap();
    Tensor {
        name: value["name"].as_str().unwrap().to_owned(),
        datatype: serde_json::from_value::<Datatype>(value["datatype"].clone()).unwrap(),
        shape: serde_json::from_value(value["shape"].clone()).unwrap(),
        data: (0..digits.len()).step_by(2).map(byte).collect(),
    }
}

/// The fixtures were made with AVX-512. Without it the Runtime adds in another order, and the last bits differ.
fn has_the_kernels_of_the_fixtures() -> bool {
    #[cfg(target_arch = "x86_64")]
    return std::arch::is_x86_feature_detected!("avx512f");
    #[cfg(not(target_arch = "x86_64"))]
    return false;
}

fn assert_those_of_python(name: &str, found: &[Tensor], expected: &[Tensor]) {
    if has_the_kernels_of_the_fixtures() {
        assert_eq!(found, expected, "{name}: not the same bits as Python's");
        return;
    }
    assert_eq!(found.len(), expected.len(), "{name}");
    for (found, expected) in found.iter().zip(expected) {
        assert_eq!(
            (&found.name, found.datatype, &found.shape),
            (&expected.name, expected.datatype, &expected.shape),
            "{name}"
        );
        assert!(close(found, expected), "{name}: {found:?} for {expected:?}");
    }
}

/// Whether floating-point numbers differ by no more than a few roundings, and all others by nothing.
fn close(found: &Tensor, expected: &Tensor) -> bool {
    // The difference of two infinities is no number.
    let near = |(found, expected): (f64, f64)| {
        found.to_bits() == expected.to_bits() || (found - expected).abs() <= 1e-5 * expected.abs().max(1.0)
    };
    match expected.datatype {
        Datatype::Fp32 => singles(found).zip(singles(expected)).all(near),
        Datatype::Fp64 => doubles(found).zip(doubles(expected)).all(near),
        _ => found.data == expected.data,
    }
}

fn singles(tensor: &Tensor) -> impl Iterator<Item = f64> {
    tensor
        .data
        .as_chunks()
        .0
        .iter()
        .map(|bytes| f32::from_le_bytes(*bytes).into())
}

fn doubles(tensor: &Tensor) -> impl Iterator<Item = f64> {
    tensor.data.as_chunks().0.iter().map(|bytes| f64::from_le_bytes(*bytes))
}

#[tokio::test]
async fn every_family_gives_the_bits_of_python() {
    for name in FAMILIES {
        let case = case(name);
        let engine = load_here(&case.manifest, &folder(), &options()).unwrap_or_else(|error| panic!("{name}: {error}"));
        let found = tensors(&engine, predict(case.given, &[])).await;
        assert_those_of_python(name, &found, &case.expected);
    }
}

#[tokio::test]
async fn every_family_gives_them_in_a_worker_too() {
    for name in FAMILIES {
        let case = case(name);
        let options = LoadOptions { slots: 1, ..options() };
        let engine = rialto_engine::load(&case.manifest, &folder(), &options).await;
        let engine = engine.unwrap_or_else(|error| panic!("{name}: {error}"));
        let found = tensors(engine.as_ref(), predict(case.given, &[])).await;
        assert_those_of_python(name, &found, &case.expected);
    }
}

#[tokio::test]
async fn sequences_of_any_length_go_through_a_recurrent_model() {
    let case = case("gru");
    let engine = load_here(&case.manifest, &folder(), &options()).unwrap();
    let whole = &case.given[0];
    for steps in [1, 4, 9] {
        let mut shorter = whole.clone();
        shorter.shape[0] = steps;
        shorter.data.truncate(whole.data.len() / 9 * steps as usize);
        let found = tensors(&engine, predict(vec![shorter], &[])).await;
        assert_eq!(found[0].shape, [2, 4]);
        assert_eq!(
            found[0].shape == case.expected[0].shape && close(&found[0], &case.expected[0]),
            steps == 9,
            "the steps must count"
        );
    }
}

#[test]
fn maps_are_only_taken_as_the_tensor_that_they_are_and_other_sequences_not_at_all() {
    let mut zipmap = case("zipmap").manifest;
    let probabilities = zipmap
        .outputs
        .iter_mut()
        .find(|spec| spec.datatype == Datatype::Fp32)
        .unwrap();
    probabilities.datatype = Datatype::Fp64;
    let sequence = case("sequence-of-tensors").manifest;
    for manifest in [zipmap, sequence] {
        let error = load_here(&manifest, &folder(), &options()).err().unwrap().to_string();
        assert!(error.contains("no tensor") && error.contains("zipmap=False"), "{error}");
    }
}

#[tokio::test]
async fn strings_that_no_engine_can_take_are_the_senders_fault() {
    let case = case("words-and-numbers");
    let engine = load_here(&case.manifest, &folder(), &options()).unwrap();
    for (bytes, reason) in [(&[0xff, 0xfe][..], "not UTF-8"), (b"a\0b", "NUL")] {
        let mut given = case.given.clone();
        let colour = given.iter_mut().find(|tensor| tensor.name == "colour").unwrap();
        let rows = colour.shape[0] as usize;
        let mut string = (bytes.len() as u32).to_le_bytes().to_vec();
        string.extend_from_slice(bytes);
        colour.data = string.repeat(rows);
        assert!(refusal(&engine, predict(given, &[])).await.contains(reason));
    }
}

#[tokio::test]
async fn an_index_out_of_bounds_is_the_senders_fault_too() {
    let case = case("lookup");
    let engine = load_here(&case.manifest, &folder(), &options()).unwrap();
    let mut given = case.given.clone();
    given[0].data[..8].copy_from_slice(&99i64.to_le_bytes());
    match crate::run(&engine, predict(given, &[])).await {
        Err(Error::BadRequest(bad)) => assert_eq!(bad.field, "inputs"),
        other => panic!("{other:?}"),
    }
}
