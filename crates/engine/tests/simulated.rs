//! The simulated engine behaves as the trait demands, at the pace it was told.

#[expect(dead_code, reason = "what the tests of ONNX need too is used there")]
mod support;

use std::time::Duration;

use rialto_engine::{Engine, Error, Scope, SimulatedConfig, SimulatedEngine};
use rialto_protocol::{
    job::{Job, SoFar},
    output::FinishReason,
};
use support::{Told, completion, greedy, read, run};
use tokio::{sync::watch, time::Instant};

fn engine(change: impl FnOnce(&mut SimulatedConfig)) -> SimulatedEngine {
    let mut config = SimulatedConfig::default();
    change(&mut config);
    SimulatedEngine::new(config)
}

#[tokio::test(start_paused = true)]
async fn tokens_come_at_the_pace_and_more_requests_than_slots_queue() {
    let engine = engine(|config| {
        config.slots = 2;
        config.first_token = Duration::from_millis(100);
        config.token_interval = Duration::from_millis(10);
    });
    let begin = Instant::now();
    let (_grant, paid) = watch::channel(u64::MAX);
    let mut answers = vec![];
    for _ in 0..3 {
        answers.push(
            engine
                .prepare(completion("a b c", greedy(11)), Scope::Alone)
                .await
                .unwrap()
                .start(paid.clone()),
        );
    }
    for (answer, milliseconds) in answers.iter_mut().zip([200, 200, 400]) {
        assert_eq!(read(answer).await.unwrap().ids.len(), 11);
        assert_eq!(begin.elapsed(), Duration::from_millis(milliseconds));
    }
}

#[tokio::test]
async fn the_same_job_gives_the_same_answer() {
    let engine = engine(|config| config.answer_tokens = Some(20));
    let mut generation = greedy(50);
    let first = run(&engine, completion("to be", generation.clone())).await.unwrap();
    assert_eq!((first.ids.len(), first.finish), (20, Some(FinishReason::Stop)));
    assert_eq!(
        first,
        run(&engine, completion("to be", generation.clone())).await.unwrap()
    );
    generation.seed = 1;
    assert_ne!(
        first,
        run(&engine, completion("to be", generation.clone())).await.unwrap()
    );
    generation.stop = vec!["e".into()];
    let stopped = run(&engine, completion("to be", generation)).await.unwrap();
    assert!(!stopped.text.contains('e') && stopped.finish == Some(FinishReason::Stop));
}

#[tokio::test]
async fn an_answer_goes_on_wherever_it_broke_off() {
    let engine = engine(|config| (config.answer_tokens, config.context) = (Some(20), 30));
    let job = |so_far: SoFar, max_tokens| {
        let mut generation = greedy(max_tokens);
        generation.stop = vec!["never, never".into(), "the world's".into()];
        generation.so_far = so_far;
        completion("to be", generation)
    };
    for max_tokens in [12, 50] {
        let whole = run(&engine, job(SoFar::default(), max_tokens)).await.unwrap();
        let mut so_far = SoFar::default();
        let prepared = engine.prepare(job(SoFar::default(), max_tokens), Scope::Alone).await;
        let (_grant, paid) = watch::channel(u64::MAX);
        let mut answer = prepared.unwrap().start(paid);
        for count in 1..whole.ids.len() {
            let mut told = Told::default();
            told.add(answer.pieces.recv().await.unwrap().unwrap());
            so_far.ids.extend(told.ids);
            so_far.text.push_str(&told.text);
            let job = job(so_far.clone(), max_tokens - count as u64);
            let prepared = engine.prepare(job.clone(), Scope::Alone).await.unwrap();
            assert_eq!(prepared.input_units(), 2 + count as u64);
            let rest = run(&engine, job).await.unwrap();
            assert_eq!(rest.ids, whole.ids[count..]);
            assert_eq!(so_far.text.clone() + &rest.text, whole.text);
            assert_eq!(rest.finish, whole.finish);
        }
    }
    // Of a seller that knows no ids there is only text.
    let whole = run(&engine, job(SoFar::default(), 12)).await.unwrap();
    let text: String = whole.text.split_inclusive(' ').take(3).collect();
    for ids in [vec![], vec![u32::MAX; 3]] {
        let text = text.trim_end().to_owned();
        let request = Default::default();
        let rest = run(&engine, job(SoFar { ids, text, request }, 9)).await.unwrap();
        assert_eq!(rest.ids, whole.ids[3..]);
    }
    let refused = async |job: Job| engine.prepare(job, Scope::Alone).await.err().unwrap();
    for (ids, text) in [
        (vec![77], "all"),
        (whole.ids[..2].to_vec(), "x"),
        (vec![], "the world's end"),
    ] {
        let request = Default::default();
        let error = refused(job(
            SoFar {
                ids,
                text: text.into(),
                request,
            },
            9,
        ))
        .await;
        assert!(
            matches!(&error, Error::BadRequest(bad) if bad.field == "so_far"),
            "{error}"
        );
    }
    let so_far = SoFar {
        ids: vec![1; 28],
        ..SoFar::default()
    };
    assert_eq!(
        refused(job(so_far, 9)).await,
        Error::ContextExceeded { prompt: 30, limit: 30 }
    );
}

#[tokio::test]
async fn it_obeys_the_grant() {
    let engine = engine(|_| ());
    let (grant, paid) = watch::channel(3u64);
    let mut answer = engine
        .prepare(completion("to be", greedy(9)), Scope::Alone)
        .await
        .unwrap()
        .start(paid);
    let mut told = Told::default();
    for granted in [3, 7] {
        grant.send(granted).unwrap();
        while told.ids.len() < usize::try_from(granted).unwrap() {
            told.add(answer.pieces.recv().await.unwrap().unwrap());
        }
        for _ in 0..10 {
            tokio::task::yield_now().await;
        }
        assert!(answer.pieces.try_recv().is_err());
        assert_eq!(engine.generated(), granted);
    }
    drop(grant);
    assert_eq!(read(&mut answer).await.unwrap().finish, Some(FinishReason::Cancelled));
}

#[tokio::test(start_paused = true)]
async fn dropping_the_answer_stops_the_work_and_frees_the_slot() {
    let engine = engine(|config| {
        (config.slots, config.queue) = (1, 1);
        config.token_interval = Duration::from_millis(10);
    });
    let (_grant, paid) = watch::channel(u64::MAX);
    let start = async || {
        engine
            .prepare(completion("a", greedy(1_000)), Scope::Alone)
            .await
            .unwrap()
            .start(paid.clone())
    };
    let (mut first, second, mut third) = (start().await, start().await, start().await);
    assert_eq!(read(&mut third).await, Err(Error::Busy));
    first.pieces.recv().await.unwrap().unwrap();
    drop((first, second));
    tokio::time::sleep(Duration::from_millis(100)).await;
    let generated = engine.generated();
    tokio::time::sleep(Duration::from_secs(10)).await;
    assert_eq!(engine.generated(), generated, "it went on after nobody listened");
    run(&engine, completion("a", greedy(5))).await.unwrap();
}

#[tokio::test]
async fn it_fails_when_told_to_and_is_well_again_when_told_so() {
    let engine = engine(|config| config.fail_after = Some(4));
    let (_grant, paid) = watch::channel(u64::MAX);
    let mut answer = engine
        .prepare(completion("a", greedy(9)), Scope::Alone)
        .await
        .unwrap()
        .start(paid);
    for _ in 0..4 {
        answer.pieces.recv().await.unwrap().unwrap();
    }
    let error = answer.pieces.recv().await.unwrap().unwrap_err();
    assert!(error.retryable(), "{error}");
    engine.fail_after(None);
    assert_eq!(run(&engine, completion("a", greedy(9))).await.unwrap().ids.len(), 9);
}

#[tokio::test]
async fn the_context_bounds_it() {
    let engine = engine(|config| config.context = 10);
    let prepared = engine
        .prepare(completion("a b c d", greedy(100)), Scope::Alone)
        .await
        .unwrap();
    assert_eq!((prepared.input_units(), prepared.max_output()), (4, 6));
    let refused = engine
        .prepare(completion(&"a ".repeat(10), greedy(1)), Scope::Alone)
        .await
        .err();
    assert_eq!(refused, Some(Error::ContextExceeded { prompt: 10, limit: 10 }));
}
