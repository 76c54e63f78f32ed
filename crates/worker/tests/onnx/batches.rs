//! Requests that wait are run together, and nobody can tell from the answers.

use std::time::Duration;

use rialto_engine::{Answer, Engine, Error, LoadOptions, Scope};
use rialto_protocol::{
    job::Tensor,
    output::{FinishReason, Output},
};
use rialto_worker::onnx::OnnxEngine;
use tokio::{sync::watch, time::Instant};

use crate::{
    families::{case, folder},
    load_here, options, predict,
    support::read,
};

/// A model whose rows do not depend on each other, and that knows it.
const INDEPENDENT: &str = "random-forest";

fn engine_of(name: &str, change: impl FnOnce(&mut LoadOptions)) -> OnnxEngine {
    let mut options = options();
    (options.slots, options.queue) = (1, 256);
    change(&mut options);
    load_here(&case(name).manifest, &folder(), &options).unwrap()
}

/// The rows of a fixture's input, each a request.
fn rows_of(name: &str) -> Vec<Vec<Tensor>> {
    let given = case(name).given;
    let rows = given[0].rows();
    let row = |index: usize| {
        let one = |tensor: &Tensor| {
            let width = tensor.data.len() / rows as usize;
            let mut row = tensor.clone();
            row.shape[0] = 1;
            row.data = tensor.data[index * width..(index + 1) * width].to_vec();
            row
        };
        given.iter().map(one).collect()
    };
    (0..rows as usize).map(row).collect()
}

async fn begin(engine: &OnnxEngine, inputs: Vec<Tensor>) -> Answer {
    let prepared = engine.prepare(predict(inputs, &[]), Scope::Alone).await.unwrap();
    prepared.start(watch::channel(0).1)
}

async fn outputs(answer: &mut Answer) -> Result<Vec<Tensor>, Error> {
    let told = read(answer).await?;
    assert_eq!(told.finish, Some(FinishReason::Stop));
    match told.pieces.as_slice() {
        [Output::Tensors(tensors)] => Ok(tensors.clone()),
        other => panic!("{other:?}"),
    }
}

/// Each request by itself, one after the other.
async fn alone(engine: &OnnxEngine, requests: &[Vec<Tensor>]) -> Vec<Vec<Tensor>> {
    let mut found = vec![];
    for request in requests {
        found.push(outputs(&mut begin(engine, request.clone()).await).await.unwrap());
    }
    found
}

#[tokio::test]
async fn what_waits_runs_together_and_every_answer_has_the_bits_that_it_has_alone() {
    let engine = engine_of(INDEPENDENT, |_| {});
    assert!(engine.most_rows() > 8, "{}", engine.most_rows());
    let requests = rows_of(INDEPENDENT);
    let expected = alone(&engine, &requests).await;
    let before = engine.runs();
    let mut answers = vec![];
    for round in 0..6 {
        for request in &requests[round % 3..] {
            answers.push((request, begin(&engine, request.clone()).await));
        }
    }
    let count = answers.len() as u64;
    for (request, mut answer) in answers {
        let place = requests.iter().position(|other| other == request).unwrap();
        assert_eq!(outputs(&mut answer).await.unwrap(), expected[place]);
    }
    let runs = engine.runs() - before;
    assert!(runs < count / 4, "{count} requests took {runs} runs");
}

#[tokio::test]
async fn a_model_whose_rows_feel_each_other_never_runs_them_together() {
    // The recurrent model's first dimension is time; the scalar's is none at all.
    for name in ["linear-regressor", "row-against-row", "gru", "scalar"] {
        let engine = engine_of(name, |_| {});
        assert_eq!(engine.most_rows(), 1, "{name}");
        let given = case(name).given;
        let expected = outputs(&mut begin(&engine, given.clone()).await).await.unwrap();
        let before = engine.runs();
        let mut answers = vec![];
        for _ in 0..5 {
            answers.push(begin(&engine, given.clone()).await);
        }
        for answer in &mut answers {
            assert_eq!(outputs(answer).await.unwrap(), expected, "{name}");
        }
        assert_eq!(engine.runs() - before, 5, "{name}");
    }
}

#[tokio::test]
async fn whoever_goes_away_takes_nobody_along() {
    let engine = engine_of(INDEPENDENT, |_| {});
    let requests = rows_of(INDEPENDENT);
    let expected = alone(&engine, &requests).await;
    let mut answers = vec![];
    for request in &requests {
        answers.push(Some(begin(&engine, request.clone()).await));
    }
    for answer in answers.iter_mut().step_by(2) {
        drop(answer.take());
    }
    for (answer, expected) in answers.into_iter().zip(expected) {
        if let Some(mut answer) = answer {
            assert_eq!(outputs(&mut answer).await.unwrap(), expected);
        }
    }
}

#[tokio::test]
async fn one_request_that_fails_fails_alone() {
    let engine = engine_of("lookup", |_| {});
    assert!(engine.most_rows() > 8);
    let requests = rows_of("lookup");
    let expected = alone(&engine, &requests).await;
    let mut wrong = requests[0].clone();
    wrong[0].data = 99i64.to_le_bytes().to_vec();
    let mut answers = vec![];
    for request in [&requests[0], &wrong, &requests[1], &requests[2]] {
        answers.push(begin(&engine, request.clone()).await);
    }
    let mut found = vec![];
    for answer in &mut answers {
        found.push(outputs(answer).await);
    }
    assert!(matches!(found.remove(1), Err(Error::BadRequest(_))));
    let found: Vec<_> = found.into_iter().map(Result::unwrap).collect();
    assert_eq!(found, expected);
}

#[tokio::test]
async fn other_wishes_run_apart() {
    let engine = engine_of(INDEPENDENT, |_| {});
    let requests = rows_of(INDEPENDENT);
    let before = engine.runs();
    let mut answers = vec![];
    for wish in [&["label"][..], &["probabilities"], &["label"]] {
        let job = predict(requests[0].clone(), wish);
        let prepared = engine.prepare(job, Scope::Alone).await.unwrap();
        answers.push((wish, prepared.start(watch::channel(0).1)));
    }
    for (wish, mut answer) in answers {
        let names: Vec<String> = outputs(&mut answer)
            .await
            .unwrap()
            .into_iter()
            .map(|one| one.name)
            .collect();
        assert_eq!(names, wish);
    }
    assert_eq!(engine.runs() - before, 3);
}

#[tokio::test(start_paused = true)]
async fn a_request_waits_for_others_as_long_as_it_was_told_to_and_no_longer() {
    let engine = engine_of(INDEPENDENT, |options| options.gather_millis = 500);
    let requests = rows_of(INDEPENDENT);
    let began = Instant::now();
    let mut lonely = begin(&engine, requests[0].clone()).await;
    outputs(&mut lonely).await.unwrap();
    let waited = began.elapsed();
    assert!((500..550).contains(&waited.as_millis()), "{waited:?}");

    let (before, began) = (engine.runs(), Instant::now());
    let mut answers = vec![];
    for place in 0..engine.most_rows() as usize {
        tokio::time::sleep(Duration::from_millis(1)).await;
        answers.push(begin(&engine, requests[place % requests.len()].clone()).await);
    }
    for answer in &mut answers {
        outputs(answer).await.unwrap();
    }
    assert_eq!(engine.runs() - before, 1, "all of them are one batch");
    assert!(began.elapsed().as_millis() < 500, "a full batch waits for nothing");
}
