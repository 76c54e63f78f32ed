//! Servers that are busy, ill, gone and back.

use std::time::Duration;

use rialto_engine::{Engine, Error, Scope, UpstreamEngine};
use serde_json::json;

use crate::{
    PATIENCE, chat, config, connect,
    server::{Asked, OddServer, Step, answer, head, json_answer, words},
    support::{greedy, run},
};

/// Answers what is asked for more than the trial asks for.
fn beyond_the_trial(asked: &Asked, steps: impl FnOnce() -> Vec<Step>) -> Option<Vec<Step>> {
    (asked.body["max_tokens"].as_u64()? > 8).then(steps)
}

/// Waits until the engine takes requests again.
async fn well_again(engine: &UpstreamEngine) {
    let wait = async {
        while engine.prepare(chat(greedy(8)), Scope::Alone).await.is_err() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(PATIENCE, wait).await.expect("it stays ill");
}

#[tokio::test]
async fn a_busy_server_is_left_alone_as_long_as_it_says() {
    // It says an hour, of which a minute is believed; and a second.
    for (seconds, rests) in [(3_600, true), (1, false)] {
        let server = OddServer::start(move |asked: &Asked| {
            beyond_the_trial(asked, || {
                answer(
                    429,
                    &format!("retry-after: {seconds}\r\n"),
                    "{\"error\":{\"message\":\"quota of org-secret\"}}",
                )
            })
        })
        .await;
        let engine = connect(&server).await.unwrap();
        let began = std::time::Instant::now();
        let error = run(&engine, chat(greedy(9))).await.unwrap_err();
        assert_eq!(error, Error::Busy);
        assert!(error.retryable() && !error.public().contains("secret"));
        if rests {
            let refused = engine.prepare(chat(greedy(8)), Scope::Alone).await.err();
            assert_eq!(refused, Some(Error::Busy));
        } else {
            well_again(&engine).await;
            assert!(began.elapsed() >= Duration::from_secs(seconds));
        }
    }
}

#[tokio::test]
async fn what_a_failing_server_says_is_not_told_to_buyers() {
    let server = OddServer::start(|asked: &Asked| {
        let failure = json!({ "error": { "message": "http://10.0.0.7:8000 key sk-secret" } });
        beyond_the_trial(asked, || json_answer(500, &failure))
    })
    .await;
    let engine = connect(&server).await.unwrap();
    let error = run(&engine, chat(greedy(9))).await.unwrap_err();
    assert!(error.retryable(), "{error}");
    for secret in ["secret", "10.0.0.7", &server.address.to_string()] {
        assert!(!error.public().contains(secret), "{}", error.public());
    }
    well_again(&engine).await;
}

#[tokio::test]
async fn a_slow_server_is_given_up() {
    let server = OddServer::start(|asked: &Asked| {
        let slow = asked.body["max_tokens"] == 9;
        let first = || vec![Step::Hang];
        let between = || {
            vec![
                head(),
                Step::Send(format!("data: {}\n\n", words(&["to"])[0])),
                Step::Hang,
            ]
        };
        beyond_the_trial(asked, || if slow { first() } else { between() })
    })
    .await;
    let mut config = config(&server.url());
    (config.first_token, config.between_tokens) = (Duration::from_millis(300), Duration::from_millis(300));
    // On a busy machine its trial may be too slow as well: then there is another one.
    let found = async {
        loop {
            match UpstreamEngine::connect(config.clone()).await {
                Ok(engine) => return engine,
                Err(error) => assert!(error.retryable() && error.to_string().contains("in time"), "{error}"),
            }
        }
    };
    let engine = tokio::time::timeout(PATIENCE, found).await.expect("its trial fails");
    for tokens in [9, 10] {
        let error = run(&engine, chat(greedy(tokens))).await.unwrap_err();
        assert!(error.to_string().contains("in time"), "{error}");
        well_again(&engine).await;
    }
}

#[tokio::test]
async fn a_server_that_is_started_again_is_picked_up() {
    let cut = |asked: &Asked| {
        let text = format!("data: {}\n\n", words(&["to"])[0]);
        beyond_the_trial(asked, || vec![head(), Step::Send(text)])
    };
    let server = OddServer::start(cut).await;
    let engine = connect(&server).await.unwrap();
    let error = run(&engine, chat(greedy(9))).await.unwrap_err();
    assert!(error.to_string().contains("middle"), "{error}");
    let place = server.stop().await;
    let error = run(&engine, chat(greedy(9))).await.unwrap_err();
    assert!(error.retryable() && !error.to_string().contains("127.0.0.1"), "{error}");
    let _again = OddServer::start_at(place, |_| None).await;
    well_again(&engine).await;
    assert_eq!(run(&engine, chat(greedy(9))).await.unwrap().text, "to be");
}

#[tokio::test]
async fn a_server_without_the_model_is_refused_and_says_what_it_has() {
    let server = OddServer::start(|_| None).await;
    let mut config = config(&server.url());
    config.model = "another".into();
    let error = UpstreamEngine::connect(config).await.unwrap_err().to_string();
    assert!(error.contains("`another`") && error.contains("\"m\""), "{error}");
}

#[tokio::test]
async fn a_model_that_the_server_no_longer_has_is_not_sold_any_more() {
    let gone = std::sync::Arc::new(std::sync::atomic::AtomicBool::new(false));
    let seen = gone.clone();
    let server = OddServer::start(move |asked: &Asked| {
        let gone = seen.load(std::sync::atomic::Ordering::Relaxed) && asked.path == "/v1/models";
        gone.then(|| json_answer(200, &json!({ "data": [{ "id": "smaller" }] })))
    })
    .await;
    let engine = connect(&server).await.unwrap();
    run(&engine, chat(greedy(9))).await.unwrap();
    gone.store(true, std::sync::atomic::Ordering::Relaxed);
    let noticed = async {
        while engine.prepare(chat(greedy(9)), Scope::Alone).await.is_ok() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(PATIENCE, noticed)
        .await
        .expect("it is sold all the same");
}
