//! Texts to vectors: the shipped word vectors, and graphs that give a vector for each token.

use rialto_engine::{Engine, Error, Scope};
use rialto_protocol::{
    job::Job,
    manifest::{Manifest, TaskKind},
    output::{FinishReason, Output},
};
use serde_json::Value;

use crate::{
    families::{folder, manifest_of},
    load_here, options, predict, refused, run,
    support::{manifest, model_folder},
};

const SHIPPED: &str = "shakespeare-words";

fn shipped() -> Manifest {
    manifest(&model_folder(SHIPPED), "manifest.toml")
}

fn embedding(texts: &[&str]) -> Job {
    Job::Embedding {
        inputs: texts.iter().map(|text| (*text).to_owned()).collect(),
    }
}

async fn vectors(engine: &dyn Engine, texts: &[&str]) -> Vec<Vec<f32>> {
    let told = run(engine, embedding(texts)).await.unwrap();
    assert_eq!(told.finish, Some(FinishReason::Stop));
    let vector = |(place, output): (usize, &Output)| match output {
        Output::Embedding { index, vector } => {
            assert_eq!(*index as usize, place);
            vector.clone()
        }
        other => panic!("{other:?}"),
    };
    told.pieces.iter().enumerate().map(vector).collect()
}

/// A folder with a graph of the fixtures and the shipped tokenizer.
fn with_tokenizer(graph: &str) -> (tempfile::TempDir, Manifest) {
    let place = tempfile::tempdir().unwrap();
    std::fs::copy(folder().join(graph), place.path().join(graph)).unwrap();
    let tokenizer = model_folder(SHIPPED).join("tokenizer.json");
    std::fs::copy(tokenizer, place.path().join("tokenizer.json")).unwrap();
    let mut manifest = manifest_of(place.path(), &[graph, "tokenizer.json"], TaskKind::Embedding);
    manifest.context_length = 16;
    (place, manifest)
}

#[tokio::test]
async fn the_shipped_vectors_are_those_of_python_here_and_in_a_worker() {
    let text = std::fs::read_to_string(model_folder(SHIPPED).join("example.json")).unwrap();
    let example: Value = serde_json::from_str(&text).unwrap();
    let texts: Vec<&str> = example["input"]
        .as_array()
        .unwrap()
        .iter()
        .map(|text| text.as_str().unwrap())
        .collect();
    let here = load_here(&shipped(), &model_folder(SHIPPED), &options()).unwrap();
    let prepared = here.prepare(embedding(&texts), Scope::Alone).await.unwrap();
    let tokens: u64 = example["tokens"]
        .as_array()
        .unwrap()
        .iter()
        .map(|count| count.as_u64().unwrap())
        .sum();
    assert_eq!((prepared.input_units(), prepared.max_output()), (tokens, 0));

    let found = vectors(&here, &texts).await;
    for (vector, expected) in found.iter().zip(example["expected"].as_array().unwrap()) {
        for (number, expected) in vector.iter().zip(expected.as_array().unwrap()) {
            assert!((number - expected.as_f64().unwrap() as f32).abs() < 1e-6);
        }
        assert_eq!(vector.len(), 64);
        let length: f32 = vector.iter().map(|number| number * number).sum();
        assert!((length - 1.0).abs() < 1e-5);
    }
    let there = rialto_engine::load(&shipped(), &model_folder(SHIPPED), &options())
        .await
        .unwrap();
    assert_eq!(vectors(there.as_ref(), &texts).await, found);
}

#[tokio::test]
async fn likeness_is_nearness_and_a_vector_depends_on_its_text_alone() {
    let engine = load_here(&shipped(), &model_folder(SHIPPED), &options()).unwrap();
    let together = vectors(
        &engine,
        &["the king and his crown", "henry of england", "a ship upon the sea"],
    )
    .await;
    let alone = vectors(&engine, &["henry of england"]).await;
    assert_eq!(together[1], alone[0]);
    let likeness = |one: &[f32], other: &[f32]| one.iter().zip(other).map(|(a, b)| a * b).sum::<f32>();
    let (near, far) = (
        likeness(&together[0], &together[1]),
        likeness(&together[2], &together[1]),
    );
    assert!(near > far + 0.2, "{near} {far}");
}

#[tokio::test]
async fn a_text_is_taken_whole_or_refused() {
    let engine = load_here(&shipped(), &model_folder(SHIPPED), &options()).unwrap();
    let prepare = async |text: &str| engine.prepare(embedding(&[text]), Scope::Alone).await;
    assert_eq!(prepare(&"king ".repeat(511)).await.unwrap().input_units(), 512);
    let too_long = prepare(&"king ".repeat(512)).await.err().unwrap();
    assert_eq!(
        too_long,
        Error::ContextExceeded {
            prompt: 513,
            limit: 512
        }
    );
    let absurd = prepare(&"king ".repeat(1 << 20)).await.err().unwrap();
    assert!(matches!(absurd, Error::ContextExceeded { prompt: 513, .. }), "{absurd}");
    let empty = prepare("").await.err().unwrap();
    assert!(
        matches!(&empty, Error::BadRequest(_)) && empty.to_string().contains("text 0"),
        "{empty}"
    );
    let tensors = engine.prepare(predict(vec![], &[]), Scope::Alone).await.err().unwrap();
    assert!(matches!(tensors, Error::BadRequest(_)), "{tensors}");
}

#[tokio::test]
async fn vectors_of_tokens_become_their_mean() {
    let (place, manifest) = with_tokenizer("token-vectors.onnx");
    let engine = load_here(&manifest, place.path(), &options()).unwrap();
    let found = vectors(&engine, &["to be or not"]).await;
    let tokenizer = tokenizers::Tokenizer::from_file(place.path().join("tokenizer.json")).unwrap();
    let encoded = tokenizer.encode("to be or not", true).unwrap();
    let sum = |wave: f64| {
        encoded
            .get_ids()
            .iter()
            .map(|id| (f64::from(*id) * wave).sin())
            .sum::<f64>()
    };
    let sums = [1.0, 0.1, 0.01, 0.001].map(sum);
    let length = sums.iter().map(|sum| sum * sum).sum::<f64>().sqrt();
    for (number, sum) in found[0].iter().zip(sums) {
        assert!((f64::from(*number) - sum / length).abs() < 1e-3, "{found:?} {sums:?}");
    }
}

#[tokio::test]
async fn a_model_that_is_not_for_texts_is_refused() {
    let (place, mut manifest) = with_tokenizer("token-vectors.onnx");
    manifest.context_length = 0;
    assert!(refused(&manifest, place.path()).await.to_string().contains("no tokens"));
    manifest.context_length = 16;
    manifest.artifacts.truncate(1);
    assert!(
        refused(&manifest, place.path())
            .await
            .to_string()
            .contains("tokenizer.json")
    );
    for (graph, reason) in [("lookup.onnx", "input `index`"), ("types.onnx", "is none of")] {
        let (place, manifest) = with_tokenizer(graph);
        let error = refused(&manifest, place.path()).await.to_string();
        assert!(error.contains(reason), "{error}");
    }
    let (place, manifest) = with_tokenizer("token-vectors.onnx");
    std::fs::write(place.path().join("tokenizer.json"), "{}").unwrap();
    let manifest = Manifest {
        context_length: 16,
        ..manifest_of(place.path(), &["token-vectors.onnx", "tokenizer.json"], manifest.task)
    };
    assert!(
        refused(&manifest, place.path())
            .await
            .to_string()
            .contains("tokenizer.json")
    );
}
