//! What an API key may use in a stretch of time, and what its requests want of sellers by default.

use std::sync::atomic::Ordering;

use rialto_gateway::Limits;
use serde_json::{Value, json};

use super::*;

/// Of one answer of these tests: ten units of input and ten of output.
const USED: u64 = 20;

impl World {
    async fn key_id(&self) -> String {
        self.store().find_key(&self.key).await.unwrap().unwrap().id
    }

    async fn limit(&self, limits: Limits) {
        assert!(self.store().set_limits(&self.key_id().await, &limits).await.unwrap());
    }

    async fn ask(&self, extra: Value) -> reqwest::Response {
        self.post("/v1/chat/completions", &chat(extra)).send().await.unwrap()
    }
}

fn header(response: &reqwest::Response, name: &str) -> String {
    response.headers()[name].to_str().unwrap().to_owned()
}

async fn code(response: reqwest::Response) -> String {
    let body: Value = response.json().await.unwrap();
    body["error"]["code"].as_str().unwrap().to_owned()
}

#[tokio::test]
async fn tokens_a_minute_are_reserved_counted_and_refused_in_time() {
    let mut world = World::new(&[Manner::Honest]).await;
    assert!(
        world
            .ask(json!({}))
            .await
            .headers()
            .get("x-ratelimit-limit-tokens")
            .is_none()
    );
    world
        .limit(Limits {
            tokens_a_minute: Some(200),
            ..Limits::default()
        })
        .await;
    let (mut answered, began) = (0, std::time::Instant::now());
    let refused = loop {
        let response = world.ask(json!({})).await;
        if response.status() != 200 {
            break response;
        }
        answered += 1;
        assert_eq!(header(&response, "x-ratelimit-limit-tokens"), "200");
        let left: u64 = header(&response, "x-ratelimit-remaining-tokens").parse().unwrap();
        assert_eq!(left, 200 - answered * USED);
        assert!(header(&response, "x-ratelimit-reset-tokens").ends_with('s'));
    };
    assert!((2..=10).contains(&answered), "{answered}");
    assert_eq!(refused.status(), 429);
    assert_eq!(header(&refused, "x-should-retry"), "true");
    let pause: u64 = header(&refused, "retry-after").parse().unwrap();
    // A minute after the five seconds that the first use counts in: what has passed since then is less than this.
    let passed = began.elapsed().as_secs() + 1;
    assert!(
        (60_u64.saturating_sub(passed)..=65).contains(&pause),
        "{pause} after {passed}"
    );
    assert_eq!(code(refused).await, "rate_limit_exceeded");
    // A stream is refused before it begins, and the Open Inference Protocol's clients hear of it as well.
    assert_eq!(world.ask(json!({"stream": true})).await.status(), 429);
    let spent = world.balance().await;
    assert_eq!(spent, (u128::from(answered + 1) * cost(10, 10), 0));
    // A restart loses no count. A day's is not over meanwhile, however slow the machine is.
    world
        .limit(Limits {
            tokens_a_day: Some(200),
            ..Limits::default()
        })
        .await;
    world.stop().await;
    world.start().await;
    assert_eq!(world.ask(json!({})).await.status(), 429);
    // A larger limit holds at once.
    world
        .limit(Limits {
            tokens_a_minute: Some(1_000),
            ..Limits::default()
        })
        .await;
    assert_eq!(world.ask(json!({})).await.status(), 200);
}

#[tokio::test]
async fn a_request_that_is_over_the_limit_alone_is_not_asked_again() {
    let world = World::new(&[Manner::Honest]).await;
    let limits = Limits {
        dollars_a_day: Some(MicroDollars::new(1)),
        ..Limits::default()
    };
    world.limit(limits).await;
    let response = world.ask(json!({})).await;
    assert_eq!(response.status(), 400);
    assert_eq!(header(&response, "x-should-retry"), "false");
    assert_eq!(code(response).await, "over_key_limit");
    assert_eq!(world.sellers[0].requests.load(Ordering::SeqCst), 0);
    assert_eq!(world.balance().await, (0, 0));
}

#[tokio::test]
async fn requests_are_limited_and_a_repetition_is_none() {
    let world = World::new(&[Manner::Honest]).await;
    let limits = Limits {
        requests_a_minute: Some(2),
        ..Limits::default()
    };
    world.limit(limits).await;
    let ask = |name: &'static str| {
        let request = world.post("/v1/chat/completions", &chat(json!({})));
        request.header("idempotency-key", name).send()
    };
    for (name, left) in [("a", "1"), ("a", "-"), ("b", "0"), ("a", "-")] {
        let response = ask(name).await.unwrap();
        assert_eq!(response.status(), 200);
        if left != "-" {
            assert_eq!(header(&response, "x-ratelimit-remaining-requests"), left);
        }
    }
    let refused = ask("c").await.unwrap();
    assert_eq!(refused.status(), 429);
    assert_eq!(header(&refused, "x-ratelimit-remaining-requests"), "0");
    assert_eq!(world.balance().await, (2 * cost(10, 10), 0));
    // A refusal is not kept as the answer to what was refused.
    world.limit(Limits::default()).await;
    assert_eq!(ask("c").await.unwrap().status(), 200);
}

#[tokio::test]
async fn as_many_requests_as_allowed_are_under_way() {
    let world = World::new(&[Manner::WaitsAt(2)]).await;
    let limits = Limits {
        at_a_time: Some(1),
        ..Limits::default()
    };
    world.limit(limits).await;
    let first = world.ask(json!({"stream": true})).await;
    assert_eq!(first.status(), 200);
    let second = world.ask(json!({})).await;
    assert_eq!(
        (second.status().as_u16(), header(&second, "retry-after")),
        (429, "1".into())
    );
    world.sellers[0].let_on(true);
    assert!(first.text().await.unwrap().ends_with("data: [DONE]\n\n"));
    assert_eq!(world.ask(json!({})).await.status(), 200);
    // A client that goes away is not inside any more. Its answer would not end.
    world.sellers[0].let_on(false);
    drop(world.ask(json!({"stream": true})).await);
    let again = async {
        while world.ask(json!({"max_tokens": 2})).await.status() != 200 {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    tokio::time::timeout(PATIENCE, again).await.unwrap();
}

#[tokio::test]
async fn a_key_has_wishes_of_its_own_and_a_request_others() {
    let world = World::new(&[Manner::Honest, Manner::Honest]).await;
    let only = |index: usize| json!({"only": [world.sellers[index].key.address().to_string()]});
    let asked = |index: usize| world.sellers[index].requests.load(Ordering::SeqCst);
    let key = world.key_id().await;
    world.store().set_provider(&key, Some(&only(1))).await.unwrap();
    for count in 1..=4 {
        assert_eq!(world.chat(json!({})).await.0, 200);
        assert_eq!((asked(0), asked(1)), (0, count));
    }
    assert_eq!(world.chat(json!({"provider": only(0)})).await.0, 200);
    assert_eq!((asked(0), asked(1)), (1, 4));
    // A ceiling of the key is never raised.
    let low = json!({"max_price": {"prompt": 0, "completion": 0}});
    world.store().set_provider(&key, Some(&low)).await.unwrap();
    let high = json!({"max_price": {"prompt": 100, "completion": 100}});
    let (status, body) = world.chat(json!({"provider": high})).await;
    assert_eq!(
        (status.as_u16(), &body["error"]["code"]),
        (503, &json!("price_ceiling")),
        "{body}"
    );
}
