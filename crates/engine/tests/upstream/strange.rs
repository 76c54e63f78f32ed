//! Servers that answer what nobody expects, and what is passed through.

use std::os::unix::fs::PermissionsExt;

use rialto_engine::{Engine, Error, Scope, UpstreamEngine};
use rialto_protocol::{
    job::{Job, Message, Tool, ToolChoice, Tools},
    output::{FinishReason, Output},
};
use serde_json::{Value, json};

use crate::{
    chat, config, connect,
    server::{Asked, OddServer, Step, answer, end, head, json_answer, open_stream, piece, stream, words},
    support::{greedy, run},
};

const CHAT: &str = "/v1/chat/completions";

/// What comes of an answer that is made of these steps, once the trial went well.
async fn told(steps: Vec<Step>) -> (Result<crate::support::Told, Error>, u64) {
    let server = OddServer::start(move |asked: &Asked| {
        (asked.path == CHAT && asked.body["max_tokens"] == 9).then(|| steps.clone())
    })
    .await;
    let engine = connect(&server).await.unwrap();
    let told = run(&engine, chat(greedy(9))).await;
    (told, engine.suspicions().odd)
}

#[tokio::test]
async fn a_stream_may_end_without_done_but_not_without_a_reason() {
    let whole = open_stream(&[words(&["to ", "be"]), vec![end("stop", None)]].concat());
    let (whole, _) = told(whole).await;
    assert_eq!(whole.unwrap().text, "to be");
    for half in [
        open_stream(&words(&["to ", "be"])),
        stream(&words(&["to ", "be"])),
        [
            open_stream(&words(&["to "])),
            vec![Step::Send("data: {\"choices\"".into())],
        ]
        .concat(),
    ] {
        let (half, _) = told(half).await;
        assert!(half.unwrap_err().retryable());
    }
}

#[tokio::test]
async fn what_is_no_stream_is_refused_and_noted() {
    let html = answer(200, "content-type: text/html\r\n", "<html>");
    let json = json_answer(200, &json!({ "choices": [] }));
    let endless_line = vec![head(), Step::Repeat("data: x".into())];
    let endless_comments = vec![head(), Step::Repeat(format!(": {}\n", "x".repeat(10_000)))];
    let no_json = vec![head(), Step::Send("data: {\n\n".into()), Step::Hang];
    let two_answers = open_stream(&[json!({ "choices": [{ "delta": {} }, { "delta": {} }] })]);
    let much_text = open_stream(&words(&[&"x".repeat(200_000)]));
    for steps in [
        html,
        json,
        endless_line,
        endless_comments,
        no_json,
        two_answers,
        much_text,
    ] {
        let (told, odd) = told(steps).await;
        assert!(matches!(told, Err(Error::Failed(_))), "{told:?}");
        assert_eq!(odd, 1);
    }
}

#[tokio::test]
async fn an_error_in_the_stream_fails_the_answer() {
    let mut steps = open_stream(&words(&["to "]));
    steps.push(Step::Send(
        "data: {\"error\":{\"message\":\"out of memory at 10.0.0.7\"}}\n\n".into(),
    ));
    let (told, _) = told(steps).await;
    let error = told.unwrap_err();
    assert!(error.to_string().contains("out of memory") && !error.public().contains("memory"));
}

#[tokio::test]
async fn a_list_of_models_that_does_not_end_is_not_read_to_its_end() {
    let server = OddServer::start(|asked: &Asked| {
        let head = "HTTP/1.1 200 OK\r\nconnection: close\r\n\r\n".to_owned();
        (asked.path == "/v1/models").then(|| vec![Step::Send(head), Step::Repeat("[".repeat(10_000))])
    })
    .await;
    assert!(connect(&server).await.is_err());
    server.cut_off().await;
}

#[tokio::test]
async fn redirects_are_not_followed_and_the_key_goes_nowhere_else() {
    let folder = tempfile::tempdir().unwrap();
    let key = folder.path().join("key");
    std::fs::write(&key, "sk-secret\n").unwrap();
    std::fs::set_permissions(&key, std::fs::Permissions::from_mode(0o600)).unwrap();
    let other = OddServer::start(|_| None).await;
    let target = format!("location: {}/chat/completions\r\n", other.url());
    let server =
        OddServer::start(move |asked: &Asked| (asked.body["max_tokens"] == 9).then(|| answer(307, &target, ""))).await;
    let mut config = config(&server.url());
    config.api_key_file = Some(key);
    let engine = UpstreamEngine::connect(config).await.unwrap();
    let error = run(&engine, chat(greedy(9))).await.unwrap_err();
    assert!(
        error.to_string().contains("307") && !error.to_string().contains("127.0.0.1"),
        "{error}"
    );
    assert!(
        server.asked(CHAT)[0]
            .headers
            .contains("authorization: bearer sk-secret")
    );
    assert!(!format!("{engine:?}").contains("secret"));
    assert!(other.asked(CHAT).is_empty());
}

#[tokio::test]
async fn a_stop_text_is_found_here_and_ends_the_servers_work() {
    let server = OddServer::start(|asked: &Asked| {
        let mut steps = open_stream(&words(&["good ", "nig", "ht, ", "good night"]));
        steps.push(Step::Hang);
        (asked.body["max_tokens"] == 9).then_some(steps)
    })
    .await;
    let engine = connect(&server).await.unwrap();
    let mut generation = greedy(9);
    generation.stop = vec!["night".into()];
    let told = run(&engine, chat(generation)).await.unwrap();
    assert_eq!((told.text.as_str(), told.finish), ("good ", Some(FinishReason::Stop)));
    assert_eq!(told.ids.len(), 3, "the token that completes a stop text is the last");
    server.cut_off().await;
}

fn with_tools(choice: ToolChoice) -> Job {
    let add = Tool {
        name: "add".into(),
        description: "adds".into(),
        parameters: "{\"type\":\"object\"}".into(),
    };
    Job::Chat {
        messages: vec![Message::text("user", "1 + 1?")],
        tools: Tools {
            offered: vec![add],
            choice,
        },
        generation: greedy(9),
    }
}

fn call(index: u32, name: Option<&str>, arguments: &str) -> Value {
    let function = json!({ "name": name, "arguments": arguments });
    piece(
        json!({ "tool_calls": [{ "index": index, "id": "x", "function": function }] }),
        Value::Null,
    )
}

#[tokio::test]
async fn calls_of_tools_come_in_pieces_and_their_tokens_are_counted() {
    let events = vec![
        call(0, Some("add"), ""),
        call(0, None, "{\"a\":"),
        call(0, None, "1}"),
        call(1, Some("add"), "{}"),
        end("tool_calls", Some(4)),
    ];
    let server = OddServer::start(move |asked: &Asked| (asked.body["max_tokens"] == 9).then(|| stream(&events))).await;
    let engine = connect(&server).await.unwrap();
    let told = run(&engine, with_tools(ToolChoice::Required)).await.unwrap();
    assert_eq!((told.ids.len(), told.finish), (4, Some(FinishReason::ToolCalls)));
    let arguments = |wanted: u32| -> String {
        let pieces = told.pieces.iter().filter_map(|piece| match piece {
            Output::ToolCall { index, arguments, .. } if *index == wanted => Some(arguments.as_str()),
            _ => None,
        });
        pieces.collect()
    };
    assert_eq!((arguments(0).as_str(), arguments(1).as_str()), ("{\"a\":1}", "{}"));
    assert_eq!(server.asked(CHAT)[0].body["tool_choice"], "required");
}

#[tokio::test]
async fn a_call_of_a_tool_that_was_not_offered_is_refused() {
    for event in [
        call(0, Some("delete"), "{}"),
        call(1, Some("add"), "{}"),
        call(0, None, "{}"),
    ] {
        let events = vec![event, end("tool_calls", Some(1))];
        let server =
            OddServer::start(move |asked: &Asked| (asked.body["max_tokens"] == 9).then(|| stream(&events))).await;
        let engine = connect(&server).await.unwrap();
        assert!(run(&engine, with_tools(ToolChoice::Auto)).await.is_err());
        assert_eq!(engine.suspicions().odd, 1);
    }
}

#[tokio::test]
async fn a_prompt_that_only_the_server_finds_too_long_is_the_buyers_fault() {
    let long = json!({ "error": { "code": "context_length_exceeded", "message": "4097 > 4096" } });
    let (told, _) = told(json_answer(400, &long)).await;
    assert!(matches!(told, Err(Error::ContextExceeded { .. })), "{told:?}");
}

#[tokio::test]
async fn log_probabilities_that_were_asked_for_and_are_not_told_are_refused_before_any_work() {
    let server = OddServer::start(|_| None).await;
    let engine = connect(&server).await.unwrap();
    let mut generation = greedy(9);
    generation.logprobs = Some(1);
    let refused = engine.prepare(chat(generation), Scope::Alone).await.err().unwrap();
    assert!(
        refused.retryable() && refused.to_string().contains("log-prob"),
        "{refused}"
    );
}
