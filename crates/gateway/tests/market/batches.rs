//! Files and batches: what clients see, what is paid, and what a crash leaves.

use std::{collections::BTreeMap, sync::atomic::Ordering, time::Duration};

use rialto_protocol::{Price, Usage};
use serde_json::{Value, json};

use super::{
    PATIENCE, TALKER, World, chat, cost,
    seller::{Manner, PRICE},
};

/// Half of what the sellers post, and a quarter.
const HALF: Price = Price {
    input: 50,
    output: 500,
    request: 0,
};
const QUARTER: Price = Price {
    input: 25,
    output: 250,
    request: 0,
};

/// What one answer of these tests uses.
const USAGE: Usage = Usage { input: 10, output: 10 };

pub(crate) fn lines(count: u64) -> String {
    let line = |number| {
        let body = chat(json!({}));
        let line =
            json!({"custom_id": format!("r{number}"), "method": "POST", "url": "/v1/chat/completions", "body": body});
        format!("{line}\n")
    };
    (1..=count).map(line).collect()
}

impl World {
    async fn json(&self, request: reqwest::RequestBuilder) -> (u16, Value) {
        let response = request.send().await.unwrap();
        (response.status().as_u16(), response.json().await.unwrap())
    }

    async fn look(&self, path: &str) -> Value {
        let request = self.client.get(self.url(path)).bearer_auth(&self.key);
        let (status, body) = self.json(request).await;
        assert_eq!(status, 200, "{body}");
        body
    }

    async fn upload(&self, content: &str) -> Value {
        let form = format!(
            "--X\r\nContent-Disposition: form-data; name=\"purpose\"\r\n\r\nbatch\r\n--X\r\nContent-Disposition: form-data; \
             name=\"file\"; filename=\"in.jsonl\"\r\nContent-Type: application/octet-stream\r\n\r\n{content}\r\n--X--\r\n"
        );
        let request = self.client.post(self.url("/v1/files")).bearer_auth(&self.key);
        let request = request
            .header("content-type", "multipart/form-data; boundary=X")
            .body(form);
        let (status, body) = self.json(request).await;
        assert_eq!(status, 200, "{body}");
        body
    }

    pub(crate) async fn batch(&self, content: &str) -> String {
        let file = self.upload(content).await;
        let body = json!({
            "input_file_id": file["id"], "endpoint": "/v1/chat/completions", "completion_window": "24h",
            "metadata": {"why": "a test"}
        });
        let (status, batch) = self.json(self.post("/v1/batches", &body)).await;
        assert_eq!(status, 200, "{batch}");
        batch["id"].as_str().unwrap().to_owned()
    }

    pub(crate) async fn ended(&self, id: &str) -> Value {
        loop {
            let batch = self.look(&format!("/v1/batches/{id}")).await;
            let status = batch["status"].as_str().unwrap();
            if ["completed", "failed", "expired", "cancelled"].contains(&status) {
                return batch;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// The lines of a batch's output or of its errors, by their `custom_id`.
    pub(crate) async fn read(&self, batch: &Value, file: &str) -> BTreeMap<String, Value> {
        let Some(id) = batch[file].as_str() else {
            return BTreeMap::new();
        };
        let content = self.client.get(self.url(&format!("/v1/files/{id}/content")));
        let text = content
            .bearer_auth(&self.key)
            .send()
            .await
            .unwrap()
            .text()
            .await
            .unwrap();
        let read = text.lines().map(|line| {
            let line: Value = serde_json::from_str(line).unwrap();
            (line["custom_id"].as_str().unwrap().to_owned(), line)
        });
        read.collect()
    }

    pub(crate) fn requests(&self) -> usize {
        let sellers = self.sellers.iter();
        sellers.map(|seller| seller.requests.load(Ordering::SeqCst)).sum()
    }

    /// What a batch says that it cost is what its receipts add up to, and what its key was charged.
    async fn audit(&self, batch: &Value) {
        let receipts = self.store().receipts(10_000).await.unwrap();
        let sum: u128 = receipts.iter().map(|row| row.signed.receipt.cost.0).sum();
        assert_eq!(batch["trade"]["cost_nanodollars"], sum.to_string());
        assert_eq!(self.balance().await.0, sum);
    }
}

#[tokio::test]
async fn a_batch_is_answered_line_by_line_at_the_lowest_bid() {
    let world = World::new(&[Manner::Honest, Manner::Honest]).await;
    *world.sellers[0].bid.lock().unwrap() = Some(HALF);
    *world.sellers[1].bid.lock().unwrap() = Some(QUARTER);
    let id = world.batch(&lines(20)).await;
    let batch = world.ended(&id).await;
    assert_eq!(batch["status"], "completed", "{batch}");
    assert_eq!(
        batch["request_counts"],
        json!({"total": 20, "completed": 20, "failed": 0})
    );
    assert_eq!(
        (&batch["model"], &batch["metadata"]),
        (&json!(TALKER), &json!({"why": "a test"}))
    );
    assert_eq!(batch["error_file_id"], Value::Null);
    let output = world.read(&batch, "output_file_id").await;
    assert_eq!(output.len(), 20);
    let first = &output["r1"];
    assert_eq!(
        (&first["response"]["status_code"], &first["error"]),
        (&json!(200), &Value::Null)
    );
    assert_eq!(
        first["response"]["body"]["choices"][0]["message"]["content"],
        "w0 w1 w2 w3 w4 w5 w6 w7 w8 w9 "
    );
    world.audit(&batch).await;
    // The lowest bid got the work; the posted price is what it would have cost.
    let paid: u128 = 20 * QUARTER.cost(USAGE).0;
    assert_eq!(batch["trade"]["cost_nanodollars"], paid.to_string());
    assert_eq!(
        batch["trade"]["posted_nanodollars"],
        (20 * PRICE.cost(USAGE).0).to_string()
    );
    assert_eq!(
        batch["trade"]["savings_nanodollars"],
        (20 * PRICE.cost(USAGE).0 - paid).to_string()
    );
    assert_eq!(world.sellers[0].requests.load(Ordering::SeqCst), 0);
    // One auction for all of it, and requests of clients pay what is posted.
    assert_eq!(world.sellers[1].tenders.load(Ordering::SeqCst), 1);
    assert_eq!(
        world.chat(json!({})).await.1["usage"]["trade"]["cost_nanodollars"],
        cost(10, 10).to_string()
    );
}

#[tokio::test]
async fn without_bids_the_posted_price_is_paid_and_a_busy_bidder_makes_room_for_the_next() {
    let world = World::new(&[Manner::Honest]).await;
    let batch = world.ended(&world.batch(&lines(3)).await).await;
    assert_eq!(batch["trade"]["cost_nanodollars"], (3 * cost(10, 10)).to_string());
    assert_eq!(batch["trade"]["savings_nanodollars"], "0");
    world.audit(&batch).await;

    let world = World::new(&[
        Manner::Refuses(rialto_protocol::wire::RefusalCode::Busy),
        Manner::Honest,
    ])
    .await;
    *world.sellers[0].bid.lock().unwrap() = Some(QUARTER);
    *world.sellers[1].bid.lock().unwrap() = Some(HALF);
    let batch = world.ended(&world.batch(&lines(3)).await).await;
    assert_eq!(batch["trade"]["cost_nanodollars"], (3 * HALF.cost(USAGE).0).to_string());
    world.audit(&batch).await;
}

#[tokio::test]
async fn lines_that_fail_are_told_and_the_others_go_on() {
    let world = World::new(&[Manner::Honest]).await;
    let mut content = lines(2);
    for (name, extra) in [
        ("missing", json!({"model": "no/such:model"})),
        ("hot", json!({"temperature": "hot"})),
        ("stream", json!({"stream": true})),
    ] {
        let body = chat(extra);
        let line = json!({"custom_id": name, "method": "POST", "url": "/v1/chat/completions", "body": body});
        content += &format!("{line}\n");
    }
    let batch = world.ended(&world.batch(&content).await).await;
    assert_eq!(
        batch["request_counts"],
        json!({"total": 5, "completed": 2, "failed": 3}),
        "{batch}"
    );
    let errors = world.read(&batch, "error_file_id").await;
    let code = |name: &str| {
        let response = &errors[name]["response"];
        (
            response["status_code"].as_u64().unwrap(),
            response["body"]["error"]["code"].clone(),
        )
    };
    assert_eq!(code("missing"), (404, json!("model_not_found")));
    assert_eq!(code("hot"), (400, json!("invalid_type")));
    assert_eq!(code("stream"), (400, json!("unsupported_parameter")));
    world.audit(&batch).await;
}

#[tokio::test]
async fn a_file_that_is_no_batch_fails_with_line_numbers_and_costs_nothing() {
    let world = World::new(&[Manner::Honest]).await;
    let good = lines(1);
    let cases = [
        (
            format!("{good}\nnot json\n{}", good.replace("r1", "r2")),
            3,
            "invalid_json",
        ),
        (format!("{good}{good}"), 2, "invalid_value"),
        (
            good.replace("/v1/chat/completions", "/v1/embeddings"),
            1,
            "invalid_value",
        ),
        (good.replace("\"method\"", "\"verb\""), 1, "invalid_type"),
    ];
    for (content, line, code) in cases {
        let batch = world.ended(&world.batch(&content).await).await;
        assert_eq!(batch["status"], "failed");
        let error = &batch["errors"]["data"][0];
        assert_eq!(
            (&error["line"], &error["code"]),
            (&json!(line), &json!(code)),
            "{batch}"
        );
    }
    let batch = world.ended(&world.batch("\n").await).await;
    assert_eq!(batch["errors"]["data"][0]["code"], "empty_file");
    assert_eq!((world.requests(), world.balance().await), (0, (0, 0)));
}

#[tokio::test]
async fn files_and_batches_are_their_keys_alone_and_lists_have_pages() {
    let world = World::new(&[Manner::Honest]).await;
    let file = world.upload(&lines(1)).await;
    let mut batches = Vec::new();
    for _ in 0..3 {
        batches.push(world.batch(&lines(1)).await);
    }
    for id in &batches {
        world.ended(id).await;
    }
    let page = world.look("/v1/batches?limit=2").await;
    assert_eq!(
        (page["data"].as_array().unwrap().len(), &page["has_more"]),
        (2, &json!(true))
    );
    let rest = world
        .look(&format!(
            "/v1/batches?limit=2&after={}",
            page["last_id"].as_str().unwrap()
        ))
        .await;
    assert_eq!(
        (rest["data"].as_array().unwrap().len(), &rest["has_more"]),
        (1, &json!(false))
    );
    assert_eq!(
        world.look("/v1/files?purpose=batch_output").await["data"]
            .as_array()
            .unwrap()
            .len(),
        3
    );

    let stranger = world.store().create_key("stranger", None).await.unwrap().secret;
    let name = file["id"].as_str().unwrap().to_owned();
    for path in [
        format!("/v1/files/{name}"),
        format!("/v1/files/{name}/content"),
        format!("/v1/batches/{}", batches[0]),
    ] {
        let (status, body) = world
            .json(world.client.get(world.url(&path)).bearer_auth(&stranger))
            .await;
        assert_eq!((status, &body["error"]["code"]), (404, &json!("not_found")), "{path}");
    }
    let list = world
        .json(world.client.get(world.url("/v1/batches")).bearer_auth(&stranger))
        .await;
    assert_eq!(list.1["data"], json!([]));
    let body = json!({"input_file_id": name, "endpoint": "/v1/chat/completions", "completion_window": "24h"});
    let request = world
        .client
        .post(world.url("/v1/batches"))
        .bearer_auth(&stranger)
        .body(body.to_string());
    assert_eq!(world.json(request).await.0, 404);
    let delete = |key: &str| {
        world
            .client
            .delete(world.url(&format!("/v1/files/{name}")))
            .bearer_auth(key.to_owned())
    };
    assert_eq!(world.json(delete(&stranger)).await.0, 404);
    assert_eq!(
        world.json(delete(&world.key)).await,
        (200, json!({"id": name, "object": "file", "deleted": true}))
    );
    assert_eq!(world.json(delete(&world.key)).await.0, 404);
}

#[tokio::test]
async fn a_cancelled_batch_keeps_what_it_has_and_buys_no_more() {
    let world = World::new(&[Manner::Slow(20)]).await;
    let id = world.batch(&lines(200)).await;
    while world.look(&format!("/v1/batches/{id}")).await["request_counts"]["completed"] == 0 {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let (status, batch) = world
        .json(world.post(&format!("/v1/batches/{id}/cancel"), &json!({})))
        .await;
    assert_eq!(
        (status, batch["status"].as_str().unwrap().starts_with("cancel")),
        (200, true)
    );
    let batch = world.ended(&id).await;
    assert_eq!(batch["status"], "cancelled");
    let output = world.read(&batch, "output_file_id").await;
    let completed = batch["request_counts"]["completed"].as_u64().unwrap();
    assert_eq!(u64::try_from(output.len()).unwrap(), completed);
    assert!(completed < 200 && world.requests() == output.len());
    world.audit(&batch).await;
    let (status, _) = world
        .json(world.post(&format!("/v1/batches/{id}/cancel"), &json!({})))
        .await;
    assert_eq!(status, 200, "cancelling twice does no harm");
}

#[tokio::test]
async fn what_is_not_begun_when_the_time_is_over_expires() {
    let mut world = World::new(&[Manner::Slow(40)]).await;
    world.stop().await;
    world.window = 2;
    world.start().await;
    let id = world.batch(&lines(400)).await;
    let batch = world.ended(&id).await;
    assert_eq!(batch["status"], "expired", "{batch}");
    let output = world.read(&batch, "output_file_id").await;
    let errors = world.read(&batch, "error_file_id").await;
    assert_eq!(output.len() + errors.len(), 400);
    assert!(errors.values().all(|line| line["error"]["code"] == "batch_expired"));
    world.audit(&batch).await;
}

#[tokio::test]
async fn a_budget_bounds_a_batch_and_its_holds_are_waited_for() {
    // The money of eight answers, of which each holds more than it costs.
    let world = World::with(&[Manner::Slow(5)], rialto_protocol::manifest::TaskKind::Chat, Some(90)).await;
    let batch = world.ended(&world.batch(&lines(20)).await).await;
    assert_eq!(batch["status"], "completed");
    let errors = world.read(&batch, "error_file_id").await;
    assert!(
        errors
            .values()
            .all(|line| line["response"]["body"]["error"]["code"] == "budget_exhausted")
    );
    let completed = batch["request_counts"]["completed"].as_u64().unwrap();
    assert!((1..=8).contains(&completed), "{batch}");
    assert!(world.balance().await.0 <= 90_000);
    world.audit(&batch).await;
}

#[tokio::test]
async fn a_restart_in_the_middle_buys_no_line_twice() {
    let mut world = World::new(&[Manner::Slow(10)]).await;
    let id = world.batch(&lines(60)).await;
    for round in 1..=3 {
        while world.look(&format!("/v1/batches/{id}")).await["request_counts"]["completed"].as_u64() < Some(10 * round)
        {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        world.stop().await;
        world.start().await;
    }
    let batch = world.ended(&id).await;
    let output = world.read(&batch, "output_file_id").await;
    let errors = world.read(&batch, "error_file_id").await;
    assert_eq!(
        (output.len(), errors.len(), world.requests()),
        (60, 0, 60),
        "{errors:?}"
    );
    world.audit(&batch).await;
}

#[tokio::test]
async fn a_batch_waits_while_its_key_is_at_a_limit() {
    let world = World::new(&[Manner::Honest]).await;
    let key = world.store().find_key(&world.key).await.unwrap().unwrap().id;
    let mut limits = rialto_gateway::Limits {
        tokens_a_minute: Some(200),
        ..Default::default()
    };
    world.store().set_limits(&key, &limits).await.unwrap();
    let id = world.batch(&lines(30)).await;
    let some = async {
        while world.look(&format!("/v1/batches/{id}")).await["request_counts"]["completed"] == 0 {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(PATIENCE, some).await.unwrap();
    tokio::time::sleep(Duration::from_secs(1)).await;
    let batch = world.look(&format!("/v1/batches/{id}")).await;
    let counts = &batch["request_counts"];
    assert_eq!(
        (&batch["status"], &counts["failed"]),
        (&json!("in_progress"), &json!(0))
    );
    assert!(counts["completed"].as_u64().unwrap() <= 10, "{counts}");
    limits.tokens_a_minute = None;
    world.store().set_limits(&key, &limits).await.unwrap();
    let batch = world.ended(&id).await;
    assert_eq!(
        batch["request_counts"],
        json!({"total": 30, "completed": 30, "failed": 0})
    );
    assert_eq!(world.balance().await, (30 * cost(10, 10), 0));
}
