//! The gateway against sellers that speak the wire over real nodes. The chain does not answer in these tests: an open
//! channel must go on without it.

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test that cannot go on ends"
)]

mod batches;
mod failover;
mod gossip;
mod hedging;
mod hostile;
mod limits;
mod own;
mod retries;
mod seller;
mod tools;
mod words;

use std::{path::PathBuf, sync::Arc, time::Duration};

use reqwest::{Client, StatusCode};
use rialto_gateway::{Config, Gateway, OwnServer, Parts, Store, store::ChannelStatus};
use rialto_network::{Node, NodeConfig};
use rialto_protocol::{
    Address, ChannelParams, MicroDollars, NanoDollars, SigningKey,
    job::{AnswerFormat, Job, ToolChoice},
    manifest::TaskKind,
    ticket::{Contracts, Peer},
    wire::RefusalCode,
};
use rialto_settlement::{Chain, Wallet};
use seller::{CHUNK, FUNDED, Manner, PRICE, PUBLISHER, Seller, domain, manifest};
use serde_json::{Value, json};

const TALKER: &str = "rialto/talker:v1";

/// How long anything is waited for that must happen: only a hang takes so long, also on a busy machine.
const PATIENCE: Duration = Duration::from_secs(120);

struct World {
    folder: tempfile::TempDir,
    gateway: Option<Gateway>,
    client: Client,
    key: String,
    sellers: Vec<Arc<Seller>>,
    /// Seconds that a batch has.
    window: u64,
    /// How long a purchase waits for a client that retries.
    retry_pause_ms: u64,
    /// The owner's own servers.
    own: Vec<OwnServer>,
}

fn session() -> SigningKey {
    SigningKey::from_bytes(&[77; 32]).unwrap()
}

fn wallet() -> Wallet {
    let contracts = Contracts {
        token: Address([8; 20]),
        escrow: domain().escrow,
        providers: Address([6; 20]),
        models: Address([7; 20]),
    };
    // Nothing listens there.
    let chain = Chain::connect("http://127.0.0.1:9", contracts).unwrap();
    Wallet::new(chain, SigningKey::from_bytes(&[78; 32]).unwrap())
}

async fn gateway_node() -> Node {
    let secret: [u8; 32] = std::array::from_fn(|index| u8::try_from(index).unwrap() ^ 0x5a);
    let config = NodeConfig {
        secret: zeroize::Zeroizing::new(secret),
        listen: "127.0.0.1:0".parse().unwrap(),
        relay: None,
    };
    Node::bind(config).await.unwrap()
}

impl World {
    async fn new(manners: &[Manner]) -> Self {
        Self::with(manners, TaskKind::Chat, None).await
    }

    /// Sellers, each with an open channel for its model of this task, and a key with a budget.
    async fn with(manners: &[Manner], task: TaskKind, budget: Option<u64>) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(&folder.path().join("gateway.db")).await.unwrap();
        let key = store
            .create_key("test", budget.map(MicroDollars::new))
            .await
            .unwrap()
            .secret;
        let mut sellers = Vec::new();
        for (index, manner) in manners.iter().enumerate() {
            let seller = Seller::start(u8::try_from(index).unwrap() + 1, *manner).await;
            let sold = seller.manifests.iter().find(|one| one.task == task).unwrap();
            let params = ChannelParams {
                payer: wallet().address(),
                signer: session().address(),
                provider: seller.key.address(),
                model: sold.model_id(PUBLISHER),
                token: Address([8; 20]),
                salt: 1,
            };
            store
                .import_channel(&params, &sold.listing(), MicroDollars::new(FUNDED))
                .await
                .unwrap();
            sellers.push(seller);
        }
        store.close().await;
        let mut world = Self {
            folder,
            gateway: None,
            client: Client::new(),
            key,
            sellers,
            window: 24 * 3_600,
            retry_pause_ms: 60_000,
            own: Vec::new(),
        };
        world.start().await;
        world
    }

    fn path(&self) -> PathBuf {
        self.folder.path().join("gateway.db")
    }

    async fn start(&mut self) {
        let gateway = self
            .open(self.sellers.iter().map(|seller| seller.peer()).collect())
            .await;
        while gateway.book().len() < 3 * self.sellers.len() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        self.gateway = Some(gateway);
    }

    /// A gateway on the world's store that meets these.
    async fn open(&self, meeting: Vec<Peer>) -> Gateway {
        self.open_at(gateway_node().await, meeting).await
    }

    async fn open_at(&self, node: Node, meeting: Vec<Peer>) -> Gateway {
        let mut config = Config {
            trusted_providers: self.sellers.iter().map(|seller| seller.key.address()).collect(),
            // The chain does not answer: no top-up is tried.
            top_up_below: MicroDollars::ZERO,
            standby_channels: 0,
            max_body_bytes: 64 << 10,
            ..Config::default()
        };
        config.batches.window_seconds = self.window;
        config.timeouts.browse_ms = 50;
        // No test waits for the end of any of these.
        let patience = u64::try_from(PATIENCE.as_millis()).unwrap();
        let timeouts = &mut config.timeouts;
        for limit in [
            &mut timeouts.dial_ms,
            &mut timeouts.first_frame_ms,
            &mut timeouts.frame_ms,
            &mut timeouts.cancel_ms,
            &mut timeouts.shutdown_ms,
        ] {
            *limit = patience;
        }
        config.timeouts.retry_pause_ms = self.retry_pause_ms;
        let gateway = Gateway::start(Parts {
            node,
            wallet: wallet(),
            session: Arc::new(session()),
            domain: domain(),
            store: self.path(),
            listen: "127.0.0.1:0".parse().unwrap(),
            meeting,
            own: self.own.clone(),
            config,
        });
        gateway.await.unwrap()
    }

    async fn stop(&mut self) {
        self.gateway.take().unwrap().shutdown().await;
    }

    fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.gateway.as_ref().unwrap().local_addr())
    }

    fn post(&self, path: &str, body: &Value) -> reqwest::RequestBuilder {
        self.client
            .post(self.url(path))
            .bearer_auth(&self.key)
            .body(body.to_string())
    }

    async fn chat(&self, extra: Value) -> (StatusCode, Value) {
        let response = self.post("/v1/chat/completions", &chat(extra)).send().await.unwrap();
        (response.status(), response.json().await.unwrap())
    }

    fn store(&self) -> &Store {
        self.gateway.as_ref().unwrap().store()
    }

    /// Where the first channel stands.
    async fn status(&self) -> ChannelStatus {
        self.store().channels().await.unwrap()[0].status
    }

    /// Waits until nothing is held of the key's budget; what was spent.
    async fn settled(&self) -> u128 {
        loop {
            let (spent, held) = self.balance().await;
            if held == 0 {
                return spent;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    /// Spent and held by the key.
    async fn balance(&self) -> (u128, u128) {
        let id = self.key.split('-').nth(1).unwrap();
        let row = self.store().key(id).await.unwrap().unwrap();
        (row.spent.0, row.held.0)
    }
}

fn chat(extra: Value) -> Value {
    let messages = json!([{"role": "user", "content": "to be"}]);
    // The seed is fixed so that two requests are the same job.
    let mut body = json!({"model": TALKER, "messages": messages, "max_tokens": 10, "seed": 1});
    for (field, value) in extra.as_object().unwrap() {
        body[field] = value.clone();
    }
    body
}

fn cost(input: u64, output: u64) -> u128 {
    PRICE.cost(rialto_protocol::Usage { input, output }).0
}

fn events(text: &str) -> Vec<Value> {
    let lines = text.split("\n\n").filter_map(|event| event.strip_prefix("data: "));
    lines
        .filter(|line| *line != "[DONE]")
        .map(|line| serde_json::from_str(line).unwrap())
        .collect()
}

#[tokio::test]
async fn a_chat_is_answered_and_paid_for_exactly() {
    let world = World::new(&[Manner::Honest]).await;
    let response = world
        .post("/v1/chat/completions", &chat(json!({})))
        .send()
        .await
        .unwrap();
    assert_eq!(response.status(), 200);
    assert!(response.headers().contains_key("x-request-id"));
    assert_eq!(response.headers()["x-rialto-receipt"], "1");
    let answer: Value = response.json().await.unwrap();
    assert_eq!(
        answer["choices"][0]["message"]["content"],
        "w0 w1 w2 w3 w4 w5 w6 w7 w8 w9 "
    );
    assert_eq!(answer["choices"][0]["finish_reason"], "length");
    assert_eq!(
        (&answer["usage"]["prompt_tokens"], &answer["usage"]["completion_tokens"]),
        (&json!(10), &json!(10))
    );
    assert_eq!(answer["usage"]["trade"]["cost_nanodollars"], cost(10, 10).to_string());
    assert_eq!(world.balance().await, (cost(10, 10), 0));
    let receipts = world.store().receipts(10).await.unwrap();
    assert_eq!(
        (receipts.len(), receipts[0].signed),
        (1, world.sellers[0].receipts.lock().unwrap()[0])
    );
}

#[tokio::test]
async fn a_stream_arrives_in_pieces_with_usage_and_done() {
    let world = World::new(&[Manner::Honest]).await;
    let body = chat(json!({"stream": true, "stream_options": {"include_usage": true}}));
    let response = world.post("/v1/chat/completions", &body).send().await.unwrap();
    assert_eq!(response.headers()["content-type"], "text/event-stream");
    let text = response.text().await.unwrap();
    assert!(text.ends_with("data: [DONE]\n\n"));
    let events = events(&text);
    let content: String = events
        .iter()
        .filter_map(|one| one["choices"][0]["delta"]["content"].as_str())
        .collect();
    assert_eq!(content, "w0 w1 w2 w3 w4 w5 w6 w7 w8 w9 ");
    assert_eq!(events.last().unwrap()["usage"]["completion_tokens"], 10);
    let body = json!({"model": TALKER, "prompt": "to be", "max_tokens": 2, "stream": true});
    let text = world
        .post("/v1/completions", &body)
        .send()
        .await
        .unwrap()
        .text()
        .await
        .unwrap();
    assert!(
        text.contains("\"text\":\"w1 \"") && text.ends_with("data: [DONE]\n\n"),
        "{text}"
    );
}

#[tokio::test]
async fn predictions_and_embeddings_are_bought_the_same_way() {
    let world = World::with(&[Manner::Honest], TaskKind::Predict, None).await;
    let body = json!({"id": "7", "inputs": [{"name": "x", "shape": [1, 2], "datatype": "FP32", "data": [[1, 2.5]]}]});
    for path in [
        "/v2/models/rialto%2Foracle%3Av1/infer",
        "/v2/models/rialto/oracle:v1/versions/v1/infer",
    ] {
        let answer: Value = world.post(path, &body).send().await.unwrap().json().await.unwrap();
        assert_eq!(
            (&answer["id"], &answer["outputs"][0]["data"]),
            (&json!("7"), &json!([0.75])),
            "{answer}"
        );
    }
    let ready = world
        .client
        .get(world.url("/v2/models/rialto/oracle:v1/ready"))
        .bearer_auth(&world.key);
    assert_eq!(
        ready.send().await.unwrap().json::<Value>().await.unwrap(),
        json!({"ready": true})
    );
    let wrong = world
        .post("/v2/models/rialto/oracle:v2/infer", &body)
        .send()
        .await
        .unwrap();
    assert_eq!(wrong.status(), 404);
    assert!(wrong.json::<Value>().await.unwrap()["error"].is_string());

    let world = World::with(&[Manner::Honest], TaskKind::Embedding, None).await;
    let body = json!({"model": "rialto/vectors:v1", "input": ["a", "b"]});
    let answer: Value = world
        .post("/v1/embeddings", &body)
        .send()
        .await
        .unwrap()
        .json()
        .await
        .unwrap();
    assert_eq!(
        answer["data"][1],
        json!({"object": "embedding", "index": 1, "embedding": [0.5, 0.25]})
    );
}

#[tokio::test]
async fn what_cannot_be_served_says_why() {
    let world = World::new(&[Manner::Honest]).await;
    let code = async |request: reqwest::RequestBuilder| {
        let response = request.send().await.unwrap();
        let status = response.status().as_u16();
        let body: Value = response.json().await.unwrap();
        let text = |field: &str| body["error"][field].as_str().unwrap_or("-").to_owned();
        (status, text("code"), text("param"))
    };
    let expect = |status: u16, code: &str, param: &str| (status, code.to_owned(), param.to_owned());
    let path = "/v1/chat/completions";
    assert_eq!(
        code(world.client.post(world.url(path))).await,
        expect(401, "missing_api_key", "-")
    );
    let stranger = world.client.post(world.url(path)).bearer_auth("rk-000000000000-0");
    assert_eq!(code(stranger).await, expect(401, "invalid_api_key", "-"));
    let missing = chat(json!({"model": "no/such:model"}));
    assert_eq!(
        code(world.post(path, &missing)).await,
        expect(404, "model_not_found", "model")
    );
    let bad = chat(json!({"temperature": "hot"}));
    assert_eq!(
        code(world.post(path, &bad)).await,
        expect(400, "invalid_type", "temperature")
    );
    let range = chat(json!({"temperature": 9}));
    assert_eq!(
        code(world.post(path, &range)).await,
        expect(400, "invalid_value", "temperature")
    );
    let tools = chat(json!({"tools": [{"type": "custom"}]}));
    assert_eq!(
        code(world.post(path, &tools)).await,
        expect(400, "unsupported_parameter", "tools[0].type")
    );
    let alone = chat(json!({"top_logprobs": 2}));
    assert_eq!(
        code(world.post(path, &alone)).await,
        expect(400, "invalid_value", "top_logprobs")
    );
    let wrong = chat(json!({"model": "rialto/oracle:v1"}));
    assert_eq!(code(world.post(path, &wrong)).await, expect(400, "wrong_task", "model"));
    let large = chat(json!({"user": "x".repeat(100_000)}));
    assert_eq!(
        code(world.post(path, &large)).await,
        expect(413, "request_too_large", "-")
    );
    let nowhere = world.client.get(world.url("/v1/nowhere"));
    assert_eq!(code(nowhere).await, expect(404, "unknown_url", "-"));
    let method = world.client.get(world.url(path));
    assert_eq!(code(method).await, expect(405, "method_not_allowed", "-"));
    // Another seller of the oracle has no channel, and the chain does not answer.
    let body = json!({"inputs": [{"name": "x", "shape": [1], "datatype": "FP32", "data": [1]}]});
    let closed = world
        .post("/v2/models/rialto/oracle:v1/infer", &body)
        .send()
        .await
        .unwrap();
    assert_eq!(
        (closed.status().as_u16(), &closed.headers()["retry-after"]),
        (503, &"5".parse().unwrap())
    );
    assert_eq!(world.balance().await, (0, 0));
}

#[tokio::test]
async fn refusals_reach_the_client_and_free_what_was_held() {
    let world = World::new(&[Manner::Refuses(RefusalCode::Busy)]).await;
    let response = world
        .post("/v1/chat/completions", &chat(json!({})))
        .send()
        .await
        .unwrap();
    assert_eq!(
        (response.status().as_u16(), &response.headers()["retry-after-ms"]),
        (503, &"1500".parse().unwrap())
    );
    world.sellers[0].set(Manner::Refuses(RefusalCode::ContextExceeded));
    let (status, body) = world.chat(json!({})).await;
    assert_eq!(
        (status.as_u16(), &body["error"]["code"]),
        (400, &json!("context_length_exceeded"))
    );
    assert_eq!(body["error"]["param"], "messages");
    assert_eq!(world.balance().await, (0, 0));
    world.sellers[0].set(Manner::Honest);
    assert_eq!(world.chat(json!({})).await.0, 200);
}

#[tokio::test]
async fn a_client_that_goes_away_pays_for_little_more_than_arrived() {
    let world = World::new(&[Manner::WaitsAt(8)]).await;
    let body = chat(json!({"stream": true, "max_tokens": 500}));
    let mut response = world.post("/v1/chat/completions", &body).send().await.unwrap();
    response.chunk().await.unwrap();
    drop(response);
    loop {
        let (spent, held) = world.balance().await;
        if held == 0 {
            assert!(spent > 0 && spent < cost(10, 300), "{spent}");
            break;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert_eq!(
        world.store().receipts(1).await.unwrap()[0].signed.receipt.status as u8,
        1
    );
    world.sellers[0].set(Manner::Honest);
    assert_eq!(world.chat(json!({})).await.0, 200);
}

#[tokio::test]
async fn a_budget_is_held_before_and_charged_after() {
    let budget = 30;
    let world = World::with(&[Manner::Honest], TaskKind::Chat, Some(budget)).await;
    let (status, body) = world.chat(json!({"max_tokens": 500})).await;
    assert_eq!(
        (status.as_u16(), &body["error"]["code"]),
        (402, &json!("budget_exhausted"))
    );
    assert_eq!(world.chat(json!({"max_tokens": 4})).await.0, 200);
    assert_eq!(world.balance().await, (cost(10, 4), 0));
    while world.chat(json!({"max_tokens": 4})).await.0 == 200 {}
    let (spent, _) = world.balance().await;
    assert!(spent <= u128::from(budget) * 1_000, "{spent}");
    assert_eq!(
        world.sellers[0].account.lock().await.as_ref().unwrap().earned().0,
        spent
    );
}

#[tokio::test]
async fn an_idempotency_key_buys_once() {
    let mut world = World::new(&[Manner::Slow(10)]).await;
    let send = |world: &World, body: Value| {
        let request = world
            .post("/v1/chat/completions", &body)
            .header("Idempotency-Key", "abc");
        async move {
            let response = request.send().await.unwrap();
            (response.status().as_u16(), response.text().await.unwrap())
        }
    };
    // Two at once: the second waits for the first.
    let (first, second) = tokio::join!(send(&world, chat(json!({}))), send(&world, chat(json!({}))));
    assert_eq!(first.0, 200);
    assert_eq!(first, second);
    assert_eq!(send(&world, chat(json!({"max_tokens": 9}))).await.0, 422);
    let stream = chat(json!({"stream": true}));
    let request = |world: &World| {
        world
            .post("/v1/chat/completions", &stream)
            .header("idempotency-key", "def")
    };
    // The client goes away; the answer is completed for when it comes back.
    let mut response = request(&world).send().await.unwrap();
    response.chunk().await.unwrap();
    drop(response);
    let replayed = request(&world).send().await.unwrap();
    assert_eq!(replayed.headers()["idempotent-replayed"], "true");
    assert!(replayed.text().await.unwrap().ends_with("data: [DONE]\n\n"));
    world.stop().await;
    world.start().await;
    assert_eq!(send(&world, chat(json!({}))).await, first);
    assert_eq!(world.balance().await, (2 * cost(10, 10), 0));
    assert_eq!(world.sellers[0].requests.load(std::sync::atomic::Ordering::SeqCst), 2);
}

#[tokio::test]
async fn the_lists_and_the_metrics_are_complete() {
    let world = World::new(&[Manner::Honest, Manner::Honest]).await;
    world.chat(json!({})).await;
    let get = async |path: &str| {
        world
            .client
            .get(world.url(path))
            .bearer_auth(&world.key)
            .send()
            .await
            .unwrap()
            .text()
            .await
            .unwrap()
    };
    let list: Value = serde_json::from_str(&get("/v1/models").await).unwrap();
    let ids: Vec<_> = list["data"]
        .as_array()
        .unwrap()
        .iter()
        .map(|model| model["id"].as_str().unwrap())
        .collect();
    assert_eq!(ids, ["rialto/oracle:v1", TALKER, "rialto/vectors:v1"]);
    for path in ["/v1/models/rialto/talker:v1", "/v1/models/rialto%2Ftalker%3Av1"] {
        let model: Value = serde_json::from_str(&get(path).await).unwrap();
        assert_eq!((&model["id"], &model["providers"]), (&json!(TALKER), &json!(2)));
        assert_eq!(model["engines"], json!(["simulated"]));
        assert_eq!(model["pricing"]["completion"], "0.000001000");
        assert_eq!(
            model["model_id"],
            manifest("talker", TaskKind::Chat).model_id(PUBLISHER).to_string()
        );
    }
    assert!(get("/healthz").await.contains("\"store\":true"));
    let metrics = get("/metrics").await;
    for line in [
        "rialto_gateway_requests_total{operation=\"chat\",outcome=\"ok\"} 1",
        "gen_ai_client_token_usage_total{gen_ai_token_type=\"output\"} 10",
        "gen_ai_server_time_to_first_token_seconds_count 1",
    ] {
        assert!(metrics.contains(line), "{line}\n{metrics}");
    }
}
