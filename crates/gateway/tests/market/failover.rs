//! Answers that break off in the middle and go on at another seller.

use std::sync::atomic::Ordering;

use rialto_protocol::job::{Generation, Job};
use serde_json::{Value, json};

use super::*;

fn requests(world: &World) -> usize {
    let counts = world.sellers.iter().map(|one| one.requests.load(Ordering::SeqCst));
    counts.sum()
}

fn text(events: &[Value]) -> String {
    let pieces = events
        .iter()
        .filter_map(|one| one["choices"][0]["delta"]["content"].as_str());
    pieces.collect()
}

const WHOLE: &str = "w0 w1 w2 w3 w4 w5 w6 w7 w8 w9 ";

/// A world whose first request goes to the seller that dies.
async fn world(after: u64) -> World {
    loop {
        let world = World::new(&[Manner::DiesAfter(after), Manner::Honest]).await;
        let body = chat(json!({"stream": true, "stream_options": {"include_usage": true}}));
        let response = world.post("/v1/chat/completions", &body).send().await.unwrap();
        let events = events(&response.text().await.unwrap());
        assert_eq!(text(&events), WHOLE);
        if requests(&world) == 2 {
            check_bill(&events, after);
            return world;
        }
    }
}

/// The client sees its own prompt, all tokens, and the sum of what both are paid.
fn check_bill(events: &[Value], after: u64) {
    let usage = &events.last().unwrap()["usage"];
    assert_eq!(usage["prompt_tokens"], 10);
    assert_eq!(usage["completion_tokens"], 10);
    let parts = usage["trade"]["parts"].as_array().unwrap();
    let costs: Vec<u128> = parts
        .iter()
        .map(|part| part["cost_nanodollars"].as_str().unwrap().parse().unwrap())
        .collect();
    assert_eq!(costs, [cost(10, after), cost(10, 10 - after)]);
    assert_eq!(usage["trade"]["cost_nanodollars"], (costs[0] + costs[1]).to_string());
    assert_eq!((&parts[0]["receipt"], &parts[1]["receipt"]), (&Value::Null, &json!(1)));
    assert_ne!(parts[0]["provider"], parts[1]["provider"]);
}

#[tokio::test]
async fn an_answer_that_ends_before_its_voucher_arrives_is_whole() {
    let world = World::new(&[Manner::AsksInVain]).await;
    for asked in 1..=5 {
        let (status, answer) = world.chat(json!({})).await;
        assert_eq!(status, 200, "{answer}");
        assert_eq!(world.balance().await, (asked * cost(10, 10), 0));
    }
}

#[tokio::test]
async fn another_seller_is_asked_before_the_first_output() {
    let world = World::new(&[Manner::DiesAfter(0), Manner::Honest]).await;
    for _ in 0..3 {
        assert_eq!(world.chat(json!({})).await.0, 200);
    }
}

#[tokio::test]
async fn a_receipt_that_was_cut_off_comes_with_the_next_request() {
    let mut world = World::new(&[Manner::DiesAfter(3)]).await;
    assert_eq!(world.chat(json!({})).await.0, 502);
    world.sellers[0].set(Manner::Honest);
    world.stop().await;
    world.start().await;
    assert_eq!(world.chat(json!({})).await.0, 200);
    assert_eq!(world.balance().await, (cost(10, 3) + cost(10, 10), 0));
    let channel = &world.store().channels().await.unwrap()[0];
    assert_eq!(channel.status, ChannelStatus::Open);
    let account = world.sellers[0].account.lock().await;
    assert_eq!(
        account.as_ref().unwrap().earned(),
        NanoDollars(cost(10, 3) + cost(10, 10))
    );
    assert!(account.as_ref().unwrap().best().unwrap().voucher.cumulative <= channel.signed);
}

#[tokio::test]
async fn an_answer_that_breaks_off_goes_on_at_another_seller() {
    for after in [1, 3, 9] {
        let world = world(after).await;
        let job = world.sellers[1].asked.lock().unwrap().clone().unwrap();
        let Job::Chat {
            generation: Generation { max_tokens, so_far, .. },
            ..
        } = job
        else {
            panic!("a chat")
        };
        assert_eq!(max_tokens, 10 - after);
        assert_eq!(so_far.ids, (0..u32::try_from(after).unwrap()).collect::<Vec<_>>());
        assert!(WHOLE.starts_with(&so_far.text) && !so_far.text.is_empty());
        assert_ne!(so_far.request.0, [0; 32], "the second receipt names the first request");
        // What the first one is owed stays spoken for until its receipt comes with the next request.
        assert_eq!(world.balance().await.0, cost(10, 10 - after));
        world.sellers[0].set(Manner::Honest);
        world.sellers[1].set(Manner::Refuses(RefusalCode::Busy));
        tokio::time::sleep(Duration::from_millis(2_100)).await;
        assert_eq!(world.chat(json!({})).await.0, 200);
        let all = cost(10, after) + cost(10, 10 - after) + cost(10, 10);
        assert_eq!(world.balance().await, (all, 0));
        assert_eq!(world.store().receipts(9).await.unwrap().len(), 3);
    }
}

#[tokio::test]
async fn an_answer_that_is_not_streamed_goes_on_too() {
    for _ in 0..6 {
        let world = World::new(&[Manner::DiesAfter(4), Manner::Honest]).await;
        let (status, answer) = world.chat(json!({"logprobs": true})).await;
        assert_eq!(
            (status.as_u16(), &answer["choices"][0]["message"]["content"]),
            (200, &json!(WHOLE))
        );
        let told = answer["choices"][0]["logprobs"]["content"].as_array().unwrap();
        assert_eq!(told.len(), 10);
    }
}

#[tokio::test]
async fn where_nobody_is_left_the_stream_ends_with_an_error() {
    let world = World::new(&[Manner::DiesAfter(3), Manner::DiesAfter(3)]).await;
    let body = chat(json!({"stream": true}));
    let response = world.post("/v1/chat/completions", &body).send().await.unwrap();
    assert_eq!(response.status(), 200);
    let body = response.text().await.unwrap();
    assert!(!body.contains("[DONE]"), "{body}");
    let events = events(&body);
    assert_eq!(events.last().unwrap()["error"]["code"], "provider_failed");
    assert_eq!(text(&events), "w0 w1 w2 w3 w4 w5 ");
    assert_eq!(requests(&world), 2);
    let (spent, held) = world.balance().await;
    assert_eq!(spent, 0);
    assert!(
        held > 0 && held <= 2 * cost(200, CHUNK),
        "only what was paid ahead stays held: {held}"
    );
}

#[tokio::test]
async fn a_receipt_that_alone_is_missing_costs_the_client_nothing_of_its_answer() {
    let world = World::new(&[Manner::DiesAfter(10)]).await;
    let (status, answer) = world.chat(json!({})).await;
    assert_eq!(
        (status.as_u16(), &answer["choices"][0]["message"]["content"]),
        (200, &json!(WHOLE))
    );
    assert_eq!(answer["choices"][0]["finish_reason"], "length");
}
