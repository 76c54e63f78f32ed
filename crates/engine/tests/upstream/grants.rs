//! Grants: nothing is given out that is not paid for, and nothing is read that is not needed.

use std::time::Duration;

use rialto_engine::{Answer, Engine, Error, Piece, Scope};
use rialto_protocol::output::{FinishReason, Output};
use tokio::sync::watch;

use crate::{
    PATIENCE, chat, connect,
    server::{Asked, OddServer, Step, head, words},
    support::greedy,
};

/// For so long it is looked whether something comes that must not.
const A_WHILE: Duration = Duration::from_millis(200);

/// A server that talks without an end once it is asked for more than the trial asks for.
async fn talker() -> OddServer {
    let word = "word ".repeat(40);
    OddServer::start(move |asked: &Asked| {
        let text = format!("data: {}\n\n", words(&[&word])[0]);
        (asked.body["max_tokens"].as_u64()? > 8).then(|| vec![head(), Step::Repeat(text)])
    })
    .await
}

/// Waits for so many units, and a while for more, which must not come.
async fn gives(answer: &mut Answer, expected: u64) {
    let mut units = 0;
    loop {
        let wait = if units < expected { PATIENCE } else { A_WHILE };
        let piece = match tokio::time::timeout(wait, answer.pieces.recv()).await {
            Ok(piece) => piece.unwrap().unwrap(),
            Err(_) => break,
        };
        match piece {
            Piece::Output(output) => units += output.units(),
            Piece::Finished(ending) => panic!("{ending:?}"),
        }
    }
    assert_eq!(units, expected);
}

#[tokio::test]
async fn no_more_is_given_out_than_is_granted_and_the_server_has_to_wait() {
    let server = talker().await;
    let engine = connect(&server).await.unwrap();
    let prepared = engine.prepare(chat(greedy(1 << 20)), Scope::Alone).await.unwrap();
    let (grant, paid) = watch::channel(5);
    let mut answer = prepared.start(paid);
    gives(&mut answer, 5).await;
    let taken = server.stalled().await;
    assert!(taken < 32 << 20, "{taken} bytes were read ahead");
    grant.send_replace(12);
    gives(&mut answer, 7).await;
    drop(grant);
    let Some(Ok(Piece::Finished(ending))) = answer.pieces.recv().await else {
        panic!("no end came");
    };
    assert_eq!(ending.reason, FinishReason::Cancelled);
    server.cut_off().await;
}

#[tokio::test]
async fn an_answer_that_nobody_wants_any_more_is_cancelled_at_the_server() {
    let server = talker().await;
    let engine = connect(&server).await.unwrap();
    let prepared = engine.prepare(chat(greedy(1 << 20)), Scope::Alone).await.unwrap();
    let (_grant, paid) = watch::channel(u64::MAX);
    let mut answer = prepared.start(paid);
    answer.pieces.recv().await.unwrap().unwrap();
    drop(answer);
    server.cut_off().await;
}

#[tokio::test]
async fn an_answer_is_cancelled_while_the_server_still_thinks() {
    let server =
        OddServer::start(|asked: &Asked| (asked.body["max_tokens"].as_u64()? > 8).then(|| vec![Step::Hang])).await;
    let engine = connect(&server).await.unwrap();
    let prepared = engine.prepare(chat(greedy(100)), Scope::Alone).await.unwrap();
    let (grant, paid) = watch::channel(64);
    let mut answer = prepared.start(paid);
    // It is asked before it is left.
    server.thinks().await;
    tokio::time::timeout(A_WHILE, answer.pieces.recv()).await.unwrap_err();
    drop(grant);
    let Some(Ok(Piece::Finished(ending))) = answer.pieces.recv().await else {
        panic!("no end came");
    };
    assert_eq!(ending.reason, FinishReason::Cancelled);
    server.cut_off().await;
}

#[tokio::test]
async fn more_requests_than_slots_and_queue_are_refused_as_busy() {
    let server = talker().await;
    let mut config = crate::config(&server.url());
    (config.slots, config.queue) = (Some(1), 1);
    let engine = rialto_engine::UpstreamEngine::connect(config).await.unwrap();
    let (_grant, paid) = watch::channel(u64::MAX);
    let mut answers = Vec::new();
    for _ in 0..3 {
        let prepared = engine.prepare(chat(greedy(1 << 20)), Scope::Alone).await.unwrap();
        answers.push(prepared.start(paid.clone()));
    }
    let [working, waiting, refused] = answers.as_mut_slice() else {
        panic!("three were begun");
    };
    assert_eq!(refused.pieces.recv().await, Some(Err(Error::Busy)));
    assert!(matches!(
        working.pieces.recv().await,
        Some(Ok(Piece::Output(Output::Tokens { .. })))
    ));
    tokio::time::timeout(A_WHILE, waiting.pieces.recv()).await.unwrap_err();
    drop(answers.remove(0));
    assert!(answers[0].pieces.recv().await.unwrap().is_ok());
}
