//! Clients that number their attempts: whatever breaks, a call is bought once.

use std::{sync::atomic::Ordering, time::Duration};

use reqwest::Response;
use rialto_protocol::wire::RefusalCode;
use serde_json::{Value, json};

use crate::{World, chat, cost, seller::Manner};

const PATH: &str = "/v1/chat/completions";

fn attempt(world: &World, count: u32, body: &Value) -> reqwest::RequestBuilder {
    world
        .post(PATH, body)
        .header("x-stainless-retry-count", count.to_string())
}

async fn send(world: &World, count: u32, body: &Value) -> Response {
    attempt(world, count, body).send().await.unwrap()
}

/// Sends an attempt and breaks its connection off before the answer begins, as soon as a seller has been asked.
async fn leave(world: &World, count: u32, body: &Value) {
    let asked = world.sellers[0].requests.load(Ordering::SeqCst);
    let sending = tokio::spawn(attempt(world, count, body).send());
    while world.sellers[0].requests.load(Ordering::SeqCst) == asked {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    sending.abort();
    assert!(sending.await.unwrap_err().is_cancelled(), "the answer was faster");
}

fn requests(world: &World) -> usize {
    world.sellers[0].requests.load(Ordering::SeqCst)
}

#[tokio::test]
async fn a_retry_of_an_answer_that_was_swallowed_is_told_it_again() {
    let world = World::new(&[Manner::Honest]).await;
    let body = chat(json!({}));
    let first: Value = send(&world, 0, &body).await.json().await.unwrap();
    let again = send(&world, 1, &body).await;
    assert_eq!(again.headers()["idempotent-replayed"], "true");
    assert_eq!(again.headers()["x-rialto-receipt"], "1");
    assert_eq!(again.json::<Value>().await.unwrap(), first);
    // The attempt between them did not arrive.
    assert_eq!(send(&world, 3, &body).await.json::<Value>().await.unwrap(), first);
    assert_eq!(world.balance().await, (cost(10, 10), 0));
    // Another call that is equal, and one whose earlier attempts did not arrive.
    let other: Value = send(&world, 0, &body).await.json().await.unwrap();
    assert_ne!(other["id"], first["id"]);
    assert_eq!(send(&world, 2, &chat(json!({"seed": 2}))).await.status(), 200);
    assert_eq!((world.balance().await.0, requests(&world)), (3 * cost(10, 10), 3));
}

#[tokio::test]
async fn an_answer_that_was_left_goes_on_for_the_retry() {
    let world = World::new(&[Manner::WaitsAt(3)]).await;
    let seller = &world.sellers[0];
    let body = chat(json!({}));
    leave(&world, 0, &body).await;
    leave_running(&world, 1, &body).await;
    seller.let_on(true);
    let answer: Value = send(&world, 2, &body).await.json().await.unwrap();
    assert_eq!(
        answer["choices"][0]["message"]["content"],
        "w0 w1 w2 w3 w4 w5 w6 w7 w8 w9 "
    );
    seller.let_on(false);
    let body = chat(json!({"stream": true, "max_tokens": 40}));
    let mut left = send(&world, 0, &body).await;
    left.chunk().await.unwrap();
    drop(left);
    seller.let_on(true);
    let text = send(&world, 1, &body).await.text().await.unwrap();
    assert!(
        text.contains("w0 ") && text.contains("w39 ") && text.ends_with("data: [DONE]\n\n"),
        "{text}"
    );
    assert_eq!(world.settled().await, cost(10, 10) + cost(10, 40));
    assert_eq!(requests(&world), 2);
}

/// An attempt that is broken off while it reads what another one bought.
async fn leave_running(world: &World, count: u32, body: &Value) {
    let sending = attempt(world, count, body).timeout(Duration::from_millis(30)).send();
    assert!(sending.await.is_err(), "its answer waits");
}

#[tokio::test]
async fn without_a_retry_it_is_cancelled_and_not_bought_again_unasked() {
    let mut world = World::new(&[Manner::WaitsAt(8)]).await;
    world.stop().await;
    world.retry_pause_ms = 50;
    world.start().await;
    let body = chat(json!({"stream": true, "max_tokens": 500}));
    let mut left = send(&world, 0, &body).await;
    left.chunk().await.unwrap();
    drop(left);
    let spent = world.settled().await;
    assert!(spent > 0 && spent < cost(10, 300), "{spent}");
    let late = send(&world, 1, &body).await;
    assert_eq!(
        (late.status().as_u16(), &late.headers()["x-should-retry"]),
        (409, &"false".parse().unwrap())
    );
    let late: Value = late.json().await.unwrap();
    assert_eq!(late["error"]["code"], "retry_outcome_unknown");
    assert_eq!(world.balance().await, (spent, 0));
    world.sellers[0].set(Manner::Honest);
    let anew = send(&world, 0, &body).await.text().await.unwrap();
    assert!(anew.ends_with("data: [DONE]\n\n"));
    assert_eq!(world.balance().await, (spent + cost(10, 500), 0));
}

#[tokio::test]
async fn what_cost_nothing_is_tried_again_and_what_may_cost_is_not() {
    let mut world = World::new(&[Manner::Refuses(RefusalCode::Busy)]).await;
    let body = chat(json!({}));
    assert_eq!(send(&world, 0, &body).await.status(), 503);
    world.sellers[0].set(Manner::Honest);
    // Once its pause is over, the seller is asked again.
    let mut count = 1;
    while send(&world, count, &body).await.status() != 200 {
        count += 1;
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    assert_eq!(world.balance().await, (cost(10, 10), 0));
    world.sellers[0].set(Manner::DiesAfter(3));
    let body = chat(json!({"seed": 2}));
    assert_eq!(send(&world, 0, &body).await.status(), 502);
    world.sellers[0].set(Manner::Honest);
    let again = send(&world, 1, &body).await;
    assert_eq!(
        (again.status().as_u16(), &again.headers()["idempotent-replayed"]),
        (502, &"true".parse().unwrap())
    );
    // The same after a crash, which leaves no more than what is stored.
    world.stop().await;
    world.start().await;
    assert_eq!(send(&world, 2, &body).await.status(), 409);
    assert_eq!(send(&world, 0, &body).await.status(), 200);
}

#[tokio::test]
async fn equal_calls_side_by_side_are_bought_once_each() {
    const CALLS: usize = 12;
    let world = World::new(&[Manner::Slow(2)]).await;
    let body = chat(json!({}));
    let call = async |index: usize| {
        for count in 0..4 {
            let attempt = attempt(&world, count, &body);
            // The answer is swallowed, or the connection breaks off at some time, or all is well.
            match (index + usize::try_from(count).unwrap()) % 4 {
                0 => drop(attempt.send().await),
                1 => drop(attempt.timeout(Duration::from_millis(15)).send().await),
                2 => drop(attempt.timeout(Duration::from_millis(1)).send().await),
                _ => return attempt.send().await.unwrap().status().as_u16(),
            }
        }
        200
    };
    let answered = futures::future::join_all((0..CALLS).map(call)).await;
    assert_eq!(answered, [200; CALLS]);
    let spent = world.settled().await;
    assert!(requests(&world) <= CALLS, "{}", requests(&world));
    assert!(spent <= cost(10, 10) * u128::try_from(CALLS).unwrap(), "{spent}");
}
