//! Answers that another seller began: what each kind of server is sent, and what it is not.

use rialto_engine::{Engine, Error, Scope, UpstreamEngine, UpstreamKind};
use rialto_protocol::job::{Generation, Job, SoFar};
use serde_json::{Value, json};

use crate::{
    chat, config,
    server::{Asked, OddServer, end, json_answer, stream, words},
    support::{completion, greedy, run},
};

/// A server of this kind that refuses continuations, if it is told so.
async fn server(kind: UpstreamKind, refuses: bool) -> (OddServer, UpstreamEngine) {
    let server = OddServer::start(move |asked: &Asked| {
        let says = asked.body.to_string();
        if refuses && says.contains("So far") {
            return Some(json_answer(400, &json!({ "error": { "message": "not after that" } })));
        }
        match asked.path.as_str() {
            "/apply-template" => Some(json_answer(200, &json!({ "prompt": "<user>To be?<assistant>" }))),
            "/tokenize" => Some(json_answer(200, &json!({ "tokens": vec![1; 5], "count": 5 }))),
            "/v1/models" => Some(json_answer(200, &json!({ "data": [{ "id": "m" }] }))),
            "/v1/chat/completions" | "/v1/completions" => {
                Some(stream(&[words(&["or ", "not"]), vec![end("stop", Some(2))]].concat()))
            }
            _ => None,
        }
    })
    .await;
    let mut config = config(&server.url());
    config.kind = Some(kind);
    let engine = UpstreamEngine::connect(config).await.unwrap();
    (server, engine)
}

fn begun() -> Generation {
    Generation {
        so_far: SoFar {
            // Ids that only another server's seller made.
            ids: vec![u32::MAX; 2],
            text: "So far ".into(),
            ..SoFar::default()
        },
        ..greedy(9)
    }
}

/// What the server was sent for this job.
async fn sent(kind: UpstreamKind, job: Job, path: &str) -> Value {
    let (server, engine) = server(kind, false).await;
    let told = run(&engine, job).await.unwrap();
    assert_eq!(told.text, "or not", "nothing of what came before comes again");
    server.last(path).body
}

#[tokio::test]
async fn a_text_goes_on_after_it_and_a_conversation_inside_its_last_message() {
    for kind in [UpstreamKind::Vllm, UpstreamKind::LlamaCpp, UpstreamKind::OpenAi] {
        let body = sent(kind, completion("To be?", begun()), "/v1/completions").await;
        assert_eq!(body["prompt"], "To be?So far ", "{kind:?}");
        assert!(body.get("continue_final_message").is_none());
    }
    for kind in [UpstreamKind::Vllm, UpstreamKind::Ollama] {
        let body = sent(kind, chat(begun()), "/v1/chat/completions").await;
        let last = json!({ "role": "assistant", "content": "So far " });
        assert_eq!(body["messages"][1], last, "{kind:?}");
        let open = (kind == UpstreamKind::Vllm).then_some(true);
        assert_eq!(body.get("continue_final_message").and_then(Value::as_bool), open);
        assert_eq!(
            body.get("add_generation_prompt").and_then(Value::as_bool),
            open.map(|open| !open)
        );
    }
    let counted = sent(UpstreamKind::Vllm, chat(begun()), "/tokenize").await;
    assert_eq!(counted["continue_final_message"], true);
    assert_eq!(counted["messages"][1]["content"], "So far ");
    let body = sent(UpstreamKind::LlamaCpp, chat(begun()), "/v1/completions").await;
    assert_eq!(body["prompt"], "<user>To be?<assistant>So far ");
    let rendered = sent(UpstreamKind::LlamaCpp, chat(begun()), "/apply-template").await;
    assert_eq!(rendered["messages"].as_array().unwrap().len(), 1);
}

#[tokio::test]
async fn a_server_that_may_begin_anew_is_not_asked() {
    for (kind, job) in [
        (UpstreamKind::OpenAi, chat(begun())),
        (UpstreamKind::Ollama, completion("To be?", begun())),
    ] {
        let (_server, engine) = server(kind, false).await;
        let refused = engine.prepare(job, Scope::Alone).await.err();
        assert!(
            matches!(&refused, Some(Error::BadRequest(bad)) if bad.field == "so_far"),
            "{kind:?}: {refused:?}"
        );
    }
    // Where nothing was shown yet, nothing has to be gone on with.
    let mut nothing = begun();
    nothing.so_far.text.clear();
    let (_server, engine) = server(UpstreamKind::OpenAi, false).await;
    assert_eq!(run(&engine, chat(nothing)).await.unwrap().text, "or not");
}

#[tokio::test]
async fn a_server_that_refuses_what_came_so_far_is_no_reason_to_give_the_request_up() {
    for (kind, job) in [
        (UpstreamKind::Vllm, chat(begun())),
        (UpstreamKind::Ollama, chat(begun())),
        (UpstreamKind::OpenAi, completion("To be?", begun())),
    ] {
        let (_server, engine) = server(kind, true).await;
        let refused = run(&engine, job).await.err();
        assert!(
            matches!(&refused, Some(Error::BadRequest(bad)) if bad.field == "so_far"),
            "{kind:?}: {refused:?}"
        );
        assert_eq!(
            run(&engine, completion("To be?", greedy(9))).await.unwrap().text,
            "or not"
        );
    }
}
