//! The owner's own servers: asked without a market, and before it where it may serve what they have no room for.

use std::sync::{
    Mutex,
    atomic::{AtomicUsize, Ordering},
};

use axum::{
    Json, Router,
    body::Body,
    extract::State,
    http::HeaderMap,
    response::{IntoResponse as _, Response},
    routing::{get, post},
};
use futures::StreamExt as _;
use rialto_gateway::{Limits, OwnServer};
use tokio::{
    net::{TcpListener, TcpSocket},
    sync::Notify,
};

use super::*;

const EVENT: &str = "data: {\"choices\":[{\"delta\":{\"content\":\"home\"}}]}\n\n";
const USED: &str = "data: {\"choices\":[],\"usage\":{\"prompt_tokens\":7,\"completion_tokens\":5}}\n\n";
const DONE: &str = "data: [DONE]\n\n";

/// Seconds for which a busy server wants to be left alone: the most that is believed.
const BUSY_FOR: &str = "30";

/// What a server does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Habit {
    Answers,
    Refuses,
    IsBusy,
    Fails,
    BreaksOff,
    NeverEnds,
}

struct Home {
    habit: Mutex<Habit>,
    asked: AtomicUsize,
    seen: Mutex<Vec<(HeaderMap, Value)>>,
    left: Notify,
}

impl Home {
    async fn start(habit: Habit) -> (Arc<Self>, String) {
        Self::listen(habit, TcpListener::bind("127.0.0.1:0").await.unwrap())
    }

    fn listen(habit: Habit, listener: TcpListener) -> (Arc<Self>, String) {
        let home = Arc::new(Self {
            habit: Mutex::new(habit),
            asked: AtomicUsize::new(0),
            seen: Mutex::default(),
            left: Notify::new(),
        });
        let listed = || async { Json(json!({ "data": [{ "id": "home-model" }] })) };
        let routes = Router::new()
            .route("/v1/models", get(listed))
            .route("/v1/chat/completions", post(answer))
            .with_state(Arc::clone(&home));
        let root = format!("http://{}", listener.local_addr().unwrap());
        tokio::spawn(async move { axum::serve(listener, routes).await });
        (home, root)
    }

    fn asked(&self) -> usize {
        self.asked.load(Ordering::SeqCst)
    }

    fn last(&self) -> (HeaderMap, Value) {
        self.seen.lock().unwrap().last().cloned().unwrap()
    }
}

/// Tells when it is dropped.
struct Leaving(Arc<Home>);

impl Drop for Leaving {
    fn drop(&mut self) {
        self.0.left.notify_one();
    }
}

async fn answer(State(home): State<Arc<Home>>, headers: HeaderMap, Json(body): Json<Value>) -> Response {
    home.asked.fetch_add(1, Ordering::SeqCst);
    let streams = body["stream"] == true;
    home.seen.lock().unwrap().push((headers, body));
    let habit = *home.habit.lock().unwrap();
    let events = |text: String| ([("content-type", "text/event-stream")], text).into_response();
    match habit {
        Habit::Answers if streams => events(format!("{EVENT}{EVENT}{USED}{DONE}")),
        Habit::Answers => {
            let usage = json!({ "prompt_tokens": 7, "completion_tokens": 5 });
            let choice = json!({ "message": { "role": "assistant", "content": "home" } });
            Json(json!({ "object": "chat.completion", "choices": [choice], "usage": usage, "own": 1.50 }))
                .into_response()
        }
        Habit::Refuses => (
            StatusCode::BAD_REQUEST,
            Json(json!({ "error": { "message": "too hot" } })),
        )
            .into_response(),
        Habit::IsBusy => (StatusCode::SERVICE_UNAVAILABLE, [("retry-after", BUSY_FOR)], "").into_response(),
        Habit::Fails => StatusCode::INTERNAL_SERVER_ERROR.into_response(),
        Habit::BreaksOff => events(EVENT.to_owned()),
        Habit::NeverEnds => {
            let leaving = Leaving(Arc::clone(&home));
            let first = futures::stream::once(async { Ok::<_, std::convert::Infallible>(EVENT) });
            let rest = futures::stream::pending().map(move |event| {
                let _ = &leaving;
                event
            });
            let body = Body::from_stream(first.chain(rest));
            ([("content-type", "text/event-stream")], body).into_response()
        }
    }
}

fn server(root: &str) -> OwnServer {
    OwnServer {
        root: root.to_owned(),
        key: None,
        models: [("home".to_owned(), "home-model".to_owned())].into(),
        slots: 8,
        overflow: false,
    }
}

/// A gateway with these servers, and one seller of [`TALKER`].
async fn world(own: Vec<OwnServer>) -> World {
    let mut world = World::new(&[Manner::Honest]).await;
    world.stop().await;
    world.own = own;
    world.start().await;
    world
}

impl World {
    async fn get(&self, path: &str) -> Value {
        let request = self.client.get(self.url(path)).bearer_auth(&self.key);
        request.send().await.unwrap().json().await.unwrap()
    }

    async fn say(&self, model: &str, extra: Value) -> reqwest::Response {
        let mut body = chat(extra);
        body["model"] = model.into();
        self.post("/v1/chat/completions", &body).send().await.unwrap()
    }
}

fn provider(response: &reqwest::Response) -> &str {
    response.headers()["x-rialto-provider"].to_str().unwrap()
}

async fn code(response: reqwest::Response) -> String {
    let body: Value = response.json().await.unwrap();
    body["error"]["code"].as_str().unwrap().to_owned()
}

#[tokio::test]
async fn a_model_of_the_owners_is_asked_without_a_market() {
    let (home, root) = Home::start(Habit::Answers).await;
    let mut own = server(&root);
    let mut key = reqwest::header::HeaderValue::from_static("Bearer sk-home");
    key.set_sensitive(true);
    own.key = Some(key);
    let mut world = world(vec![own]).await;
    let response = world
        .say("home", json!({ "seed": 4, "provider": { "sort": "price" } }))
        .await;
    assert_eq!((response.status(), provider(&response)), (StatusCode::OK, "own"));
    assert!(response.text().await.unwrap().ends_with("\"own\":1.5}"));
    let (headers, body) = home.last();
    assert_eq!(headers["authorization"], "Bearer sk-home");
    assert_eq!((&body["model"], &body["seed"]), (&json!("home-model"), &json!(4)));
    assert!(body.get("provider").is_none());
    let models: Value = world.get("/v1/models").await;
    let listed = models["data"]
        .as_array()
        .unwrap()
        .iter()
        .find(|model| model["id"] == "home");
    assert_eq!(listed.unwrap()["pricing"]["completion"], "0.000000000");
    let one: Value = world.get("/v1/models/home").await;
    assert_eq!(one["owned_by"], "own");
    // Without a key nothing goes anywhere.
    let mut stranger = chat(json!({}));
    stranger["model"] = "home".into();
    let refused = world
        .client
        .post(world.url("/v1/chat/completions"))
        .body(stranger.to_string());
    assert_eq!(refused.send().await.unwrap().status(), 401);
    assert_eq!(home.asked(), 1);
    assert_eq!(world.store().channels().await.unwrap()[0].signed, MicroDollars::ZERO);
    world.stop().await;
}

#[tokio::test]
async fn a_named_request_has_one_answer() {
    let (home, root) = Home::start(Habit::Answers).await;
    let mut world = world(vec![server(&root)]).await;
    let mut body = chat(json!({}));
    body["model"] = "home".into();
    let ask = async || {
        let request = world
            .post("/v1/chat/completions", &body)
            .header("idempotency-key", "once");
        request.send().await.unwrap().text().await.unwrap()
    };
    assert_eq!(ask().await, ask().await);
    assert_eq!(home.asked(), 1);
    world.stop().await;
}

#[tokio::test]
async fn without_names_a_servers_own_are_served() {
    let (_home, root) = Home::start(Habit::Answers).await;
    let mut own = server(&root);
    own.models.clear();
    let mut world = world(vec![own]).await;
    while world.say("home-model", json!({})).await.status() != 200 {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert_eq!(code(world.say("home", json!({})).await).await, "model_not_found");
    world.stop().await;
}

#[tokio::test]
async fn a_stream_is_passed_on_and_what_it_used_is_counted() {
    let (home, root) = Home::start(Habit::Answers).await;
    let mut world = world(vec![server(&root)]).await;
    let id = world.store().find_key(&world.key).await.unwrap().unwrap().id;
    let limits = Limits {
        tokens_a_minute: Some(300),
        ..Limits::default()
    };
    assert!(world.store().set_limits(&id, &limits).await.unwrap());
    let plain = world.say("home", json!({ "stream": true })).await;
    assert_eq!(plain.headers()["content-type"], "text/event-stream");
    assert_eq!(plain.text().await.unwrap(), format!("{EVENT}{EVENT}{DONE}"));
    assert_eq!(home.last().1["stream_options"], json!({ "include_usage": true }));
    let extra = json!({ "stream": true, "stream_options": { "include_usage": true } });
    let told = world.say("home", extra).await;
    assert_eq!(told.text().await.unwrap(), format!("{EVENT}{EVENT}{USED}{DONE}"));
    let whole = world.say("home", json!({})).await;
    assert_eq!(whole.headers()["x-ratelimit-limit-tokens"], "300");
    while world.store().used_now(&id).await.unwrap().tokens_in_minute < 3 * 12 {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    assert_eq!(world.store().used_now(&id).await.unwrap().tokens_in_minute, 3 * 12);
    let asked = home.asked();
    let refused = world.say("home", json!({ "max_tokens": 290 })).await;
    assert_eq!((refused.status(), home.asked()), (StatusCode::BAD_REQUEST, asked));
    assert_eq!(code(refused).await, "over_key_limit");
    world.stop().await;
}

#[tokio::test]
async fn what_a_server_refuses_is_its_answer_and_what_breaks_off_has_no_end() {
    let (home, root) = Home::start(Habit::Refuses).await;
    let mut world = world(vec![server(&root)]).await;
    let refused = world.say("home", json!({})).await;
    assert_eq!(refused.status(), 400);
    assert!(refused.text().await.unwrap().contains("too hot"));
    *home.habit.lock().unwrap() = Habit::BreaksOff;
    let text = world.say("home", json!({ "stream": true })).await.text().await.unwrap();
    assert!(
        text.starts_with(EVENT) && text.contains("own_server_failed") && !text.contains("[DONE]"),
        "{text}"
    );
    world.stop().await;
}

#[tokio::test]
async fn the_market_serves_what_there_is_no_room_for_only_if_it_may() {
    let (home, root) = Home::start(Habit::IsBusy).await;
    let mut own = server(&root);
    own.models.insert(TALKER.to_owned(), "home-model".to_owned());
    let mut keeps = world(vec![own.clone()]).await;
    let began = std::time::Instant::now();
    let refused = keeps.say(TALKER, json!({})).await;
    assert_eq!(refused.status(), 503);
    let wait: u64 = refused.headers()["retry-after"].to_str().unwrap().parse().unwrap();
    let (most, passed) = (BUSY_FOR.parse::<u64>().unwrap(), began.elapsed().as_secs() + 1);
    assert!(wait <= most && wait + passed >= most, "{wait} after {passed}");
    assert_eq!(code(refused).await, "own_servers_busy");
    // While it rests it is not asked.
    assert_eq!(keeps.say(TALKER, json!({})).await.status(), 503);
    assert_eq!(home.asked(), 1);
    // Who names sellers means them.
    let seller = keeps.sellers[0].key.address().to_string();
    let named = keeps.say(TALKER, json!({ "provider": { "only": [seller] } })).await;
    assert_eq!((named.status(), provider(&named)), (StatusCode::OK, seller.as_str()));
    keeps.stop().await;

    own.overflow = true;
    let mut lends = world(vec![own]).await;
    let bought = lends.say(TALKER, json!({})).await;
    assert_eq!(
        (bought.status(), provider(&bought)),
        (StatusCode::OK, lends.sellers[0].key.address().to_string().as_str())
    );
    // What the market does not sell does not go there.
    assert_eq!(code(lends.say("home", json!({})).await).await, "own_servers_busy");
    lends.stop().await;
}

#[tokio::test]
async fn another_server_is_asked_and_one_that_fails_is_left_alone() {
    let (good, good_root) = Home::start(Habit::Answers).await;
    let (bad, bad_root) = Home::start(Habit::Fails).await;
    // Nothing listens there.
    let mut world = world(vec![
        server(&bad_root),
        server("http://127.0.0.1:9"),
        server(&good_root),
    ])
    .await;
    for _ in 0..40 {
        assert_eq!(world.say("home", json!({})).await.status(), 200);
    }
    assert_eq!(good.asked(), 40);
    // It is tried again after half a second, a second, two, and so on; how often that is here depends on the machine.
    assert!(bad.asked() <= 8, "{}", bad.asked());
    *good.habit.lock().unwrap() = Habit::Fails;
    let refused = world.say("home", json!({})).await;
    assert_eq!(refused.status(), 502);
    assert_eq!(code(refused).await, "own_server_failed");
    // The last that is there is not left alone: its clients learn at once when it is well.
    *good.habit.lock().unwrap() = Habit::Answers;
    assert_eq!(world.say("home", json!({})).await.status(), 200);
    world.stop().await;
}

#[tokio::test]
async fn a_client_that_leaves_frees_its_slot_and_the_server() {
    let (home, root) = Home::start(Habit::NeverEnds).await;
    let mut own = server(&root);
    own.slots = 1;
    let mut world = world(vec![own]).await;
    let mut held = world.say("home", json!({ "stream": true })).await;
    assert_eq!(held.chunk().await.unwrap().unwrap(), EVENT);
    let refused = world.say("home", json!({})).await;
    assert_eq!(code(refused).await, "own_servers_busy");
    drop(held);
    home.left.notified().await;
    *home.habit.lock().unwrap() = Habit::Answers;
    while world.say("home", json!({})).await.status() != 200 {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    world.stop().await;
}

#[tokio::test]
async fn a_batch_is_answered_by_the_owners_servers_for_nothing() {
    let (home, root) = Home::start(Habit::Answers).await;
    // Nobody sells it.
    let mut world = world(vec![server(&root)]).await;
    let id = world.batch(&batches::lines(5).replace(TALKER, "home")).await;
    let batch = world.ended(&id).await;
    assert_eq!((&batch["request_counts"]["completed"], home.asked()), (&json!(5), 5));
    let answers = world.read(&batch, "output_file_id").await;
    let answer = &answers["r1"]["response"]["body"];
    assert_eq!(answer["choices"][0]["message"]["content"], "home");
    assert_eq!((world.requests(), world.balance().await), (0, (0, 0)));
    world.stop().await;
}

#[tokio::test]
async fn what_a_batch_keeps_at_home_waits_for_its_servers_and_is_never_bought() {
    // Nothing listens there at first, and nobody else will.
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let address = socket.local_addr().unwrap();
    let mut own = server(&format!("http://{address}"));
    own.models = [(TALKER.to_owned(), "home".to_owned())].into();
    let mut world = world(vec![own.clone()]).await;
    let id = world.batch(&batches::lines(2)).await;
    while world.get(&format!("/v1/batches/{id}")).await["status"] == "validating" {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    tokio::time::sleep(Duration::from_millis(600)).await;
    let waits = world.get(&format!("/v1/batches/{id}")).await;
    assert_eq!((&waits["status"], world.requests()), (&json!("in_progress"), 0));
    let (home, _) = Home::listen(Habit::Answers, socket.listen(64).unwrap());
    let batch = world.ended(&id).await;
    assert_eq!((&batch["request_counts"]["completed"], home.asked()), (&json!(2), 2));
    assert_eq!(world.requests(), 0);
    world.stop().await;

    // Where the market may serve what there is no room for, it does.
    *home.habit.lock().unwrap() = Habit::IsBusy;
    own.overflow = true;
    world.own = vec![own];
    world.start().await;
    let id = world.batch(&batches::lines(2)).await;
    let batch = world.ended(&id).await;
    assert_eq!(
        (&batch["request_counts"]["completed"], world.requests()),
        (&json!(2), 2)
    );
    world.stop().await;
}
