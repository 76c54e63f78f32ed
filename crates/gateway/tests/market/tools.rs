//! Calls of tools, answers that must be JSON, and log-probabilities.

use super::*;

fn offered(names: &[&str]) -> Value {
    let parameters = json!({"type": "object", "properties": {"z": {"type": "integer"}, "at": {"type": "integer"}}});
    let tools = names.iter().map(|name| {
        json!({"type": "function", "function": {"name": name, "description": "Looks.", "parameters": parameters}})
    });
    tools.collect()
}

impl World {
    async fn stream(&self, path: &str, body: &Value) -> Vec<Value> {
        let text = self.post(path, body).send().await.unwrap().text().await.unwrap();
        assert!(text.ends_with("data: [DONE]\n\n"), "{text}");
        events(&text)
    }

    /// What the first seller was asked for last.
    fn asked(&self) -> Job {
        self.sellers[0].asked.lock().unwrap().clone().unwrap()
    }
}

#[tokio::test]
async fn a_demanded_call_reaches_the_client_and_the_demand_the_seller() {
    let world = World::new(&[Manner::Honest]).await;
    let (status, answer) = world
        .chat(json!({
            "tools": offered(&["look", "wait"]),
            "tool_choice": {"type": "function", "function": {"name": "wait"}}
        }))
        .await;
    assert_eq!(status, 200, "{answer}");
    let choice = &answer["choices"][0];
    assert_eq!(choice["finish_reason"], "tool_calls");
    assert_eq!(choice["message"]["content"], Value::Null);
    let [call] = &choice["message"]["tool_calls"].as_array().unwrap()[..] else {
        panic!("{answer}");
    };
    assert!(call["id"].as_str().unwrap().starts_with("call_"));
    assert_eq!(call["type"], "function");
    assert_eq!(call["function"], json!({"name": "wait", "arguments": "{\"at\":1}"}));
    assert_eq!(answer["usage"]["completion_tokens"], 10);
    assert_eq!(world.balance().await, (cost(10, 10), 0));
    let Job::Chat { tools, .. } = world.asked() else {
        panic!("a chat was asked for");
    };
    assert_eq!(tools.choice, ToolChoice::Named("wait".into()));
    assert_eq!(
        tools.offered[0].parameters,
        r#"{"type":"object","properties":{"z":{"type":"integer"},"at":{"type":"integer"}}}"#
    );
}

#[tokio::test]
async fn calls_are_streamed_by_name_first_and_then_their_arguments() {
    let world = World::new(&[Manner::Honest]).await;
    let body = chat(json!({"tools": offered(&["look", "wait"]), "stream": true, "logprobs": true}));
    let events = world.stream("/v1/chat/completions", &body).await;
    let deltas: Vec<&Value> = events.iter().map(|one| &one["choices"][0]["delta"]).collect();
    assert_eq!(*deltas[0], json!({"role": "assistant"}));
    let calls: Vec<&Value> = deltas
        .iter()
        .flat_map(|one| one["tool_calls"].as_array())
        .flatten()
        .collect();
    let id = |place: usize| &calls[place]["id"];
    assert_eq!(
        *calls[0],
        json!({"index": 0, "id": id(0), "type": "function", "function": {"name": "look", "arguments": ""}})
    );
    assert_eq!(*calls[1], json!({"index": 0, "function": {"arguments": "{\"at\":"}}));
    assert_eq!(*calls[2], json!({"index": 0, "function": {"arguments": "1}"}}));
    assert_eq!(
        *calls[3],
        json!({"index": 1, "id": id(3), "type": "function", "function": {"name": "wait", "arguments": ""}})
    );
    assert!(id(0) != id(3) && id(0).is_string());
    assert_eq!(events.last().unwrap()["choices"][0]["finish_reason"], "tool_calls");
    // Tokens that only made calls are told too.
    assert_eq!(told(&events).len(), 10);
}

/// The log-probabilities of a stream.
fn told(events: &[Value]) -> Vec<Value> {
    let lists = events
        .iter()
        .filter_map(|one| one["choices"][0]["logprobs"]["content"].as_array());
    lists.flatten().cloned().collect()
}

#[tokio::test]
async fn a_client_that_wants_one_call_at_most_gets_one() {
    let world = World::new(&[Manner::Honest]).await;
    let one = json!({"tools": offered(&["look", "wait"]), "parallel_tool_calls": false});
    let (_, answer) = world.chat(one.clone()).await;
    assert_eq!(
        answer["choices"][0]["message"]["tool_calls"].as_array().unwrap().len(),
        1
    );
    let mut body = chat(one);
    body["stream"] = json!(true);
    let events = world.stream("/v1/chat/completions", &body).await;
    let indexes: Vec<&Value> = events
        .iter()
        .flat_map(|one| one["choices"][0]["delta"]["tool_calls"].as_array())
        .flatten()
        .map(|call| &call["index"])
        .collect();
    assert_eq!(indexes, [0, 0, 0]);
    let (_, answer) = world.chat(json!({"tools": offered(&["look", "wait"])})).await;
    let calls = &answer["choices"][0]["message"]["tool_calls"];
    assert_eq!(
        calls[1]["function"],
        json!({"name": "wait", "arguments": "{\"at"}),
        "what is no JSON is passed on"
    );
}

#[tokio::test]
async fn what_a_tool_says_goes_back_into_the_conversation() {
    let world = World::new(&[Manner::Honest]).await;
    let messages = json!([
        {"role": "user", "content": "Is it raining?"},
        {"role": "assistant", "content": null, "tool_calls": [
            {"id": "call_1", "type": "function", "function": {"name": "look", "arguments": "{ \"at\": 1 }"}}
        ]},
        {"role": "tool", "tool_call_id": "call_1", "content": "It rains."}
    ]);
    let tools = offered(&["look"]);
    let (status, answer) = world
        .chat(json!({"messages": messages, "tools": tools, "tool_choice": "none"}))
        .await;
    assert_eq!(status, 200, "{answer}");
    assert_eq!(answer["choices"][0]["finish_reason"], "length");
    let Job::Chat { messages, tools, .. } = world.asked() else {
        panic!("a chat was asked for");
    };
    assert_eq!(messages[1].tool_calls[0].arguments, "{\"at\":1}");
    assert_eq!(
        (messages[2].role.as_str(), messages[2].tool_call_id.as_str()),
        ("tool", "call_1")
    );
    assert!(tools.offered.is_empty(), "what must not be called is not paid for");
}

#[tokio::test]
async fn a_schema_reaches_the_seller() {
    let world = World::new(&[Manner::Honest]).await;
    let format = json!({"type": "json_schema", "json_schema": {"name": "answer", "schema": {"type": "object"}}});
    assert_eq!(world.chat(json!({"response_format": format})).await.0, 200);
    let Job::Chat { generation, .. } = world.asked() else {
        panic!("a chat was asked for");
    };
    assert_eq!(
        generation.format,
        AnswerFormat::JsonSchema(r#"{"type":"object"}"#.into())
    );
}

#[tokio::test]
async fn log_probabilities_come_one_for_each_token() {
    let world = World::new(&[Manner::Honest]).await;
    let (status, answer) = world.chat(json!({"logprobs": true, "top_logprobs": 2})).await;
    assert_eq!(status, 200, "{answer}");
    let content = answer["choices"][0]["logprobs"]["content"].as_array().unwrap();
    assert_eq!(content.len(), 10);
    assert_eq!(
        content[3],
        json!({"token": "w3 ", "logprob": -0.25, "bytes": [119, 51, 32], "top_logprobs": [
            {"token": "w3 ", "logprob": -0.25, "bytes": [119, 51, 32]},
            {"token": "\u{FFFD}\u{1}", "logprob": -1.25, "bytes": [240, 1]}
        ]})
    );
    let (_, plain) = world.chat(json!({})).await;
    assert_eq!(plain["choices"][0]["logprobs"], Value::Null);
    let body = chat(json!({"logprobs": true, "top_logprobs": 2, "stream": true}));
    let events = world.stream("/v1/chat/completions", &body).await;
    assert_eq!(told(&events), *content);
    let pieces = events
        .iter()
        .filter(|one| one["choices"][0]["logprobs"]["content"].is_array());
    assert_eq!(pieces.count(), 10, "each with its token");
}

#[tokio::test]
async fn completions_tell_log_probabilities_in_their_own_way() {
    let world = World::new(&[Manner::Honest]).await;
    let mut body = json!({"model": TALKER, "prompt": "to be", "max_tokens": 3, "logprobs": 1});
    let response = world.post("/v1/completions", &body).send().await.unwrap();
    let whole: Value = response.json().await.unwrap();
    assert_eq!(
        whole["choices"][0]["logprobs"],
        json!({
            "tokens": ["w0 ", "w1 ", "w2 "],
            "token_logprobs": [-0.25, -0.25, -0.25],
            "top_logprobs": [{"w0 ": -0.25}, {"w1 ": -0.25}, {"w2 ": -0.25}],
            "text_offset": [0, 3, 6]
        })
    );
    body["stream"] = json!(true);
    let events = world.stream("/v1/completions", &body).await;
    let offsets: Vec<&Value> = events
        .iter()
        .flat_map(|one| one["choices"][0]["logprobs"]["text_offset"].as_array())
        .flatten()
        .collect();
    assert_eq!(offsets, [0, 3, 6]);
}

#[tokio::test]
async fn a_seller_that_says_what_nobody_asked_for_is_found_out() {
    let tools = || json!({"tools": offered(&["look"])});
    for (manner, body) in [(Manner::CallsUnoffered, tools()), (Manner::TellsUnasked, json!({}))] {
        let world = World::new(&[manner]).await;
        let (status, answer) = world.chat(body).await;
        assert_eq!(
            (status.as_u16(), &answer["error"]["code"]),
            (502, &json!("provider_failed"))
        );
        assert_eq!(world.status().await, ChannelStatus::Disputed);
    }
    // Nothing was sent that was not asked for, but a client would wait for the calls.
    let world = World::new(&[Manner::ClaimsCalls]).await;
    assert_eq!(world.chat(tools()).await.0, 502);
    let mut body = chat(tools());
    body["stream"] = json!(true);
    let response = world.post("/v1/chat/completions", &body).send().await.unwrap();
    let text = response.text().await.unwrap();
    assert!(!text.contains("[DONE]"), "{text}");
    assert_eq!(events(&text).last().unwrap()["error"]["code"], "provider_failed");
}
