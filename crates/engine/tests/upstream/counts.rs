//! What is counted, and what a server's own counts are worth.

use rialto_engine::{Engine, Error, Piece, Scope, Suspicions, UpstreamEngine, UpstreamKind};
use rialto_protocol::{
    job::{Generation, Job},
    manifest::TaskKind,
    output::{FinishReason, Output},
};
use serde_json::{Value, json};
use tokio::sync::watch;

use crate::{
    chat, config, connect,
    server::{Asked, OddServer, Step, end, head, json_answer, piece, stream, words},
    support::{completion, greedy, run},
};

const CHAT: &str = "/v1/chat/completions";

/// Answers every conversation with the same events.
async fn saying(events: Vec<Value>) -> OddServer {
    OddServer::start(move |asked| (asked.path == CHAT).then(|| stream(&events))).await
}

#[tokio::test]
async fn each_piece_of_text_is_a_unit_and_usage_agrees() {
    let server = saying([words(&["to ", "be ", "or ", "not"]), vec![end("stop", Some(4))]].concat()).await;
    let engine = connect(&server).await.unwrap();
    assert_eq!(
        (engine.kind(), engine.info().class.as_str()),
        (UpstreamKind::OpenAi, "upstream")
    );
    let told = run(&engine, chat(greedy(100))).await.unwrap();
    assert_eq!((told.text.as_str(), told.ids.len()), ("to be or not", 4));
    assert_eq!(told.finish, Some(FinishReason::Stop));
    assert!(
        told.ids.iter().all(|id| *id >= 1 << 31),
        "no id is told: {:?}",
        told.ids
    );
    assert_eq!(engine.suspicions(), Suspicions::default());
}

#[tokio::test]
async fn usage_that_tells_more_than_was_sent_is_not_billed() {
    let server = saying([words(&["to ", "be"]), vec![end("length", Some(1_000))]].concat()).await;
    let engine = connect(&server).await.unwrap();
    let told = run(&engine, chat(greedy(100))).await.unwrap();
    assert_eq!((told.ids.len(), told.finish), (2, Some(FinishReason::Length)));
}

#[tokio::test]
async fn a_server_whose_usage_tells_less_than_it_sends_is_found_at_the_start_and_billed_the_lower_number() {
    let server = saying([words(&["t", "o ", "b", "e"]), vec![end("stop", Some(2))]].concat()).await;
    let engine = connect(&server).await.unwrap();
    assert_eq!(engine.suspicions().output, 1);
    let told = run(&engine, chat(greedy(100))).await.unwrap();
    assert_eq!((told.text.as_str(), told.ids.len()), ("to be", 2));
    assert_eq!(engine.suspicions().output, 2);
}

#[tokio::test]
async fn a_server_that_begins_to_lie_is_believed_once() {
    let server = OddServer::start(|asked: &Asked| {
        // The trial asks for eight tokens.
        let honest = asked.body["max_tokens"] == 8;
        let tokens = if honest { 4 } else { 1 };
        (asked.path == CHAT).then(|| stream(&[words(&["t", "o ", "b", "e"]), vec![end("stop", Some(tokens))]].concat()))
    })
    .await;
    let engine = connect(&server).await.unwrap();
    assert_eq!(engine.suspicions(), Suspicions::default());
    assert_eq!(run(&engine, chat(greedy(100))).await.unwrap().ids.len(), 4);
    assert_eq!(engine.suspicions().output, 1);
    assert_eq!(run(&engine, chat(greedy(100))).await.unwrap().ids.len(), 1);
}

#[tokio::test]
async fn a_running_count_bounds_each_piece() {
    let mut events = words(&["t", "o ", "b", "e"]);
    for (event, running) in events.iter_mut().zip([1, 1, 2, 2]) {
        event["usage"] = json!({ "prompt_tokens": 5, "completion_tokens": running });
    }
    let server = saying([events, vec![end("stop", Some(2))]].concat()).await;
    let engine = connect(&server).await.unwrap();
    let told = run(&engine, chat(greedy(100))).await.unwrap();
    assert_eq!((told.text.as_str(), told.ids.len()), ("to be", 2));
}

/// A token as a server tells it, with eight alternatives.
fn token(id: u32, text: &str) -> Value {
    let top = (0..8u32).map(|place| json!({ "id": id + place, "token": text, "logprob": -1.0 - f64::from(place) }));
    let top: Vec<Value> = top.collect();
    json!({ "id": id, "token": text, "bytes": text.as_bytes(), "logprob": -1.0, "top_logprobs": top })
}

#[tokio::test]
async fn told_tokens_are_counted_one_by_one_and_marked_at_every_eighth() {
    let pairs = (0..10u32).map(|pair| {
        let content = json!([token(pair * 100, "a"), token(pair * 100 + 50, "b")]);
        piece(json!({ "content": "ab" }), json!({ "content": content }))
    });
    let unseen = piece(json!({}), json!({ "content": [token(7, "")] }));
    let events: Vec<Value> = pairs.chain([unseen, end("stop", Some(21))]).collect();
    let server = saying(events).await;
    let engine = connect(&server).await.unwrap();
    let generation = Generation {
        logprobs: Some(2),
        ..greedy(100)
    };
    let prepared = engine.prepare(chat(generation), Scope::Alone).await.unwrap();
    let (_grant, paid) = watch::channel(u64::MAX);
    let mut answer = prepared.start(paid);
    let (mut told, mut marks, mut alternatives) = (Vec::new(), Vec::new(), Vec::new());
    while let Some(piece) = answer.pieces.recv().await {
        match piece.unwrap() {
            Piece::Output(Output::Tokens { ids, logprobs, .. }) => {
                assert_eq!(ids.len(), logprobs.len());
                told.extend(ids);
                alternatives.extend(logprobs.into_iter().map(|one| one.top.len()));
            }
            Piece::Output(other) => panic!("{other:?}"),
            Piece::Finished(ending) => marks = ending.fingerprint.marks,
        }
    }
    assert_eq!((told.len(), told[1], told[19]), (20, 50, 950));
    assert!(alternatives.iter().all(|count| *count == 2));
    let places: Vec<u32> = marks.iter().map(|mark| mark.position).collect();
    assert_eq!(places, [0, 8, 16]);
    assert_eq!((marks[1].top.len(), marks[1].top[0]), (8, (400, -1.0)));
    // What nobody sees was counted by the server, and is not billed.
    assert_eq!(engine.suspicions(), Suspicions::default());
}

#[tokio::test]
async fn a_server_that_goes_on_beyond_the_limit_is_cut_off_there() {
    let server = OddServer::start(|asked: &Asked| {
        let more = || vec![head(), Step::Repeat(format!("data: {}\n\n", words(&["more "])[0]))];
        (asked.path == CHAT && asked.body["max_tokens"] != 8).then(more)
    })
    .await;
    let engine = connect(&server).await.unwrap();
    let told = run(&engine, chat(greedy(5))).await.unwrap();
    assert_eq!((told.ids.len(), told.finish), (5, Some(FinishReason::Length)));
    assert_eq!(engine.suspicions().excess, 1);
    server.cut_off().await;
}

#[tokio::test]
async fn thoughts_that_the_client_does_not_see_cost_nothing() {
    let thought = piece(
        json!({ "reasoning_content": "hmm" }),
        json!({ "content": [token(1, "hmm")] }),
    );
    let said = piece(json!({ "content": "yes" }), json!({ "content": [token(2, "yes")] }));
    let server = saying(vec![thought.clone(), thought, said, end("stop", Some(3))]).await;
    let engine = connect(&server).await.unwrap();
    assert_eq!(run(&engine, chat(greedy(9))).await.unwrap().ids, [2]);
}

/// A server of this kind whose tokenizer counts so many tokens of everything.
async fn counting(kind: UpstreamKind, tokens: usize) -> (OddServer, UpstreamEngine) {
    let server = OddServer::start(move |asked: &Asked| match asked.path.as_str() {
        "/apply-template" => Some(json_answer(200, &json!({ "prompt": "<user>To be?" }))),
        "/tokenize" => Some(json_answer(200, &json!({ "tokens": vec![1; tokens], "count": tokens }))),
        "/v1/models" => Some(json_answer(
            200,
            &json!({ "data": [{ "id": "m", "max_model_len": 64 }] }),
        )),
        "/props" => {
            let settings = json!({ "n_ctx": 64 });
            Some(json_answer(
                200,
                &json!({ "default_generation_settings": settings, "total_slots": 3 }),
            ))
        }
        _ => None,
    })
    .await;
    let mut config = config(&server.url());
    config.kind = Some(kind);
    let engine = UpstreamEngine::connect(config).await.unwrap();
    (server, engine)
}

#[tokio::test]
async fn input_is_counted_by_the_servers_tokenizer_and_bounds_the_answer() {
    for kind in [UpstreamKind::LlamaCpp, UpstreamKind::Vllm] {
        let (server, engine) = counting(kind, 60).await;
        let prepared = engine.prepare(chat(greedy(100)), Scope::Alone).await.unwrap();
        assert_eq!((prepared.input_units(), prepared.max_output()), (60, 4), "{kind:?}");
        let (_grant, paid) = watch::channel(u64::MAX);
        let mut answer = prepared.start(paid);
        while answer.pieces.recv().await.is_some() {}
        assert_eq!(server.asked(CHAT)[0].body["max_tokens"], 4);
        // The server's usage says five.
        assert_eq!(engine.suspicions().input, 1, "{kind:?}");
        if kind == UpstreamKind::LlamaCpp {
            assert_eq!(engine.info().slots, 3);
        }
    }
}

#[tokio::test]
async fn counts_that_cannot_be_are_refused() {
    let (_server, engine) = counting(UpstreamKind::Vllm, 64).await;
    let full = engine.prepare(completion("to be", greedy(1)), Scope::Alone).await.err();
    assert!(
        matches!(full, Some(Error::Failed(_))),
        "five bytes are not 64 tokens: {full:?}"
    );
    assert_eq!(engine.suspicions().odd, 1);
    let long = completion(&"to be or not to be ".repeat(5), greedy(1));
    let full = engine.prepare(long, Scope::Alone).await.err();
    assert_eq!(full, Some(Error::ContextExceeded { prompt: 64, limit: 64 }));
    let huge = completion(&"x".repeat(1 << 20), greedy(1));
    let full = engine.prepare(huge, Scope::Alone).await.err();
    assert!(matches!(full, Some(Error::ContextExceeded { .. })), "{full:?}");
}

#[tokio::test]
async fn without_a_tokenizer_a_prompt_is_counted_low() {
    let server = saying([words(&["yes"]), vec![end("stop", None)]].concat()).await;
    let engine = connect(&server).await.unwrap();
    let prompt = completion("To be, or not to be, that is the question", greedy(1));
    // Eleven tokens to most models.
    assert_eq!(engine.prepare(prompt, Scope::Alone).await.unwrap().input_units(), 7);
}

#[tokio::test]
async fn vectors_come_in_order_one_for_each_text() {
    let server = OddServer::start(|asked: &Asked| {
        let texts = asked.body["input"].as_array()?.len();
        let row = |index: usize| json!({ "index": index, "embedding": [index as f32, 0.5] });
        let rows: Vec<Value> = (0..texts).rev().map(row).collect();
        Some(json_answer(200, &json!({ "data": rows })))
    })
    .await;
    let mut config = config(&server.url());
    config.task = TaskKind::Embedding;
    let engine = UpstreamEngine::connect(config).await.unwrap();
    let inputs: Vec<String> = (0..40).map(|number| format!("text {number}")).collect();
    let told = run(&engine, Job::Embedding { inputs }).await.unwrap();
    assert_eq!(told.pieces.len(), 40);
    let [
        Output::Embedding { index: 0, .. },
        ..,
        Output::Embedding { index: 39, vector },
    ] = told.pieces.as_slice()
    else {
        panic!("{:?}", told.pieces);
    };
    // The eighth of the second part.
    assert_eq!(vector, &[7.0, 0.5]);
    assert!(
        run(&engine, chat(greedy(1))).await.is_err(),
        "it is no model for conversations"
    );
}
