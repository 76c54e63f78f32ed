//! Sellers that bill or ask for more than they may, and honest ones that must not look like them.

use super::*;

#[tokio::test]
async fn an_inflated_bill_is_not_accepted_and_the_answer_is_delivered() {
    let world = World::new(&[Manner::Inflates]).await;
    let (status, answer) = world.chat(json!({})).await;
    assert_eq!(status, 200, "{answer}");
    assert_eq!(answer["usage"]["completion_tokens"], 10);
    assert_eq!(world.balance().await, (cost(10, 10), 0));
    let receipts = world.store().receipts(10).await.unwrap();
    assert!(receipts[0].complaint.as_ref().unwrap().contains("billed 11 units"));
    assert_eq!(world.status().await, ChannelStatus::Disputed);
    // Nobody else sells it.
    assert_eq!(world.chat(json!({})).await.0, 503);
}

#[tokio::test]
async fn who_cheated_is_not_asked_after_a_restart_either() {
    let mut world = World::new(&[Manner::Inflates]).await;
    assert_eq!(world.chat(json!({})).await.0, 200);
    let (_, before) = world.chat(json!({})).await;
    world.stop().await;
    world.sellers[0].set(Manner::Honest);
    world.start().await;
    let (status, after) = world.chat(json!({})).await;
    // As if nobody sold it; to be asked, it would need a new channel, and the chain does not answer.
    assert_eq!(
        (status.as_u16(), &after["error"]["code"]),
        (503, &before["error"]["code"])
    );
}

#[tokio::test]
async fn a_seller_that_wants_two_chunks_ahead_gets_nothing() {
    let world = World::new(&[Manner::Greedy]).await;
    let (status, _) = world.chat(json!({})).await;
    assert_eq!(status, 502);
    let signed = world.store().channels().await.unwrap()[0].signed;
    assert!(signed <= NanoDollars(cost(200, CHUNK)).round_up().unwrap());
}

#[tokio::test]
async fn a_seller_may_ask_for_the_same_money_twice_and_no_oftener() {
    let world = World::new(&[Manner::Asks(2)]).await;
    assert_eq!(world.chat(json!({})).await.0, 200);
    world.sellers[0].set(Manner::Asks(3));
    assert_eq!(world.chat(json!({})).await.0, 502);
    assert_eq!(world.status().await, ChannelStatus::Disputed);
}

#[tokio::test]
async fn a_request_is_not_billed_again_with_a_later_one() {
    let world = World::new(&[Manner::Honest]).await;
    assert_eq!(world.chat(json!({})).await.0, 200);
    world.sellers[0].set(Manner::BillsAgain);
    assert_eq!(world.chat(json!({})).await.0, 502);
    assert_eq!(world.balance().await.0, cost(10, 10));
    assert_eq!(world.store().receipts(10).await.unwrap().len(), 1);
    assert_eq!(world.status().await, ChannelStatus::Disputed);
}

#[tokio::test]
async fn requests_at_once_get_each_others_receipts_and_each_is_charged_once() {
    let world = World::new(&[Manner::Slow(1)]).await;
    let chats = async || {
        for _ in 0..6 {
            assert_eq!(world.chat(json!({})).await.0, 200);
        }
    };
    tokio::join!(chats(), chats(), chats(), chats());
    assert_eq!(world.balance().await, (24 * cost(10, 10), 0));
    assert_eq!(world.status().await, ChannelStatus::Open);
}
