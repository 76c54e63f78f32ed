//! A second seller is asked as well when nothing comes of the first.

use std::sync::atomic::Ordering;

use serde_json::{Value, json};

use super::*;

/// Says nothing until it is let on.
const WAITS: Manner = Manner::WaitsAt(0);

/// A chat that asks the first seller first, and after so long another one as well.
async fn hedged(world: &World, after_ms: u64) -> (StatusCode, Value) {
    let first = world.sellers[0].key.address().to_string();
    world
        .chat(json!({"provider": {"order": [first], "hedge_after_ms": after_ms}}))
        .await
}

fn asked(world: &World) -> Vec<usize> {
    let counts = world.sellers.iter().map(|one| one.requests.load(Ordering::SeqCst));
    counts.collect()
}

/// Waits until so many requests have reached each seller.
async fn until_asked(world: &World, counts: &[usize]) {
    while asked(world) != counts {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test]
async fn the_faster_of_two_answers_and_what_the_slower_did_is_on_the_bill() {
    let world = World::with(&[WAITS, WAITS], TaskKind::Chat, Some(1_000_000)).await;
    let second_is_faster = async {
        until_asked(&world, &[1, 1]).await;
        world.sellers[1].let_on(true);
    };
    let ((status, answer), ()) = tokio::join!(hedged(&world, 200), second_is_faster);
    assert_eq!(status, StatusCode::OK, "{answer}");
    assert_eq!(asked(&world), [1, 1]);
    let trade = &answer["usage"]["trade"];
    assert_eq!(trade["provider"], world.sellers[1].key.address().to_string());
    assert_eq!(
        (&answer["usage"]["prompt_tokens"], &answer["usage"]["completion_tokens"]),
        (&json!(10), &json!(10))
    );
    let parts = trade["parts"].as_array().unwrap();
    let costs: Vec<u128> = parts
        .iter()
        .map(|part| part["cost_nanodollars"].as_str().unwrap().parse().unwrap())
        .collect();
    // The slower one read the input. Until its receipt is there, the most that may be billed is named.
    assert_eq!(parts[0]["provider"], world.sellers[0].key.address().to_string());
    assert!(costs[0] == cost(10, 0) || parts[0]["receipt"].is_null(), "{parts:?}");
    assert_eq!(costs[1], cost(10, 10));
    assert_eq!(trade["cost_nanodollars"], (costs[0] + costs[1]).to_string());

    // Both receipts come, each is charged, and nothing stays held.
    assert_eq!(world.settled().await, cost(10, 0) + cost(10, 10));
    let receipts = world.store().receipts(10).await.unwrap();
    assert_eq!(receipts.len(), 2);
    assert!(receipts.iter().all(|receipt| receipt.complaint.is_none()));
}

#[tokio::test]
async fn a_seller_that_was_never_reached_is_no_part_of_the_bill() {
    let world = World::new(&[Manner::Honest, Manner::Honest]).await;
    world.sellers[0].node.close().await;
    let (status, answer) = hedged(&world, 100).await;
    assert_eq!((status, asked(&world)), (StatusCode::OK, vec![0, 1]), "{answer}");
    assert_eq!(answer["usage"]["trade"].get("parts"), None);
    assert_eq!(answer["usage"]["trade"]["cost_nanodollars"], cost(10, 10).to_string());
}

#[tokio::test]
async fn who_answers_in_time_is_alone() {
    let world = World::new(&[Manner::Honest, Manner::Honest]).await;
    let (status, answer) = hedged(&world, 600_000).await;
    assert_eq!(status, StatusCode::OK, "{answer}");
    assert_eq!(asked(&world), [1, 0]);
    assert_eq!(answer["usage"]["trade"].get("parts"), None);
}

#[tokio::test]
async fn a_slow_seller_is_waited_for_where_company_does_not_help() {
    // What a request holds while it is under way.
    let mut hold = 0;
    for (manners, counts) in [
        (vec![WAITS], vec![1]),
        (vec![WAITS, Manner::Refuses(RefusalCode::EngineFailed)], vec![1, 1]),
    ] {
        let world = World::new(&manners).await;
        let goes_on = async {
            until_asked(&world, &counts).await;
            if counts.len() == 1 {
                hold = world.balance().await.1;
                // Company would have been looked for by then.
                tokio::time::sleep(Duration::from_millis(60)).await;
            }
            // The refusal has come once only the first holds anything.
            while world.balance().await.1 != hold {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
            world.sellers[0].let_on(true);
        };
        let ((status, answer), ()) = tokio::join!(hedged(&world, 30), goes_on);
        assert_eq!(status, StatusCode::OK, "{answer}");
        assert_eq!(asked(&world), counts);
        let provider = &answer["usage"]["trade"]["provider"];
        assert_eq!(*provider, world.sellers[0].key.address().to_string());
        // A refusal costs nothing, and is no part of the bill.
        assert_eq!(answer["usage"]["trade"].get("parts"), None);
        assert_eq!(world.settled().await, cost(10, 10));
    }
}

#[tokio::test]
async fn company_answers_when_the_first_fails_and_both_failing_is_one_failure() {
    for (second, status) in [
        (WAITS, StatusCode::OK),
        (Manner::Refuses(RefusalCode::EngineFailed), StatusCode::BAD_GATEWAY),
    ] {
        let world = World::new(&[WAITS, second]).await;
        let dies = async {
            until_asked(&world, &[1, 1]).await;
            world.sellers[0].node.close().await;
            world.sellers[1].let_on(true);
        };
        let ((found, answer), ()) = tokio::join!(hedged(&world, 100), dies);
        assert_eq!(found, status, "{answer}");
    }
}

#[tokio::test]
async fn a_hedge_that_the_budget_does_not_bear_is_not_made() {
    // A request may cost 24 micro-dollars; there are 30.
    let world = World::with(&[Manner::Slow(60), Manner::Honest], TaskKind::Chat, Some(30)).await;
    let (status, answer) = hedged(&world, 30).await;
    assert_eq!(status, StatusCode::OK, "{answer}");
    assert_eq!(asked(&world), [1, 0]);
    assert_eq!(world.settled().await, cost(10, 10));
}
