use rialto_protocol::job::ToolCall;

use super::*;

fn manner(kind: Kind) -> Manner<'static> {
    Manner {
        kind,
        model: "m",
        logprobs: true,
    }
}

fn chat(tools: Tools, generation: Generation) -> Job {
    Job::Chat {
        messages: vec![Message::text("user", "To be?")],
        tools,
        generation,
    }
}

fn sent(kind: Kind, job: &Job) -> Value {
    ask(manner(kind), job, 7, "salt").unwrap().unwrap().body
}

#[test]
fn each_kind_is_told_what_it_takes_and_nothing_is_left_to_its_defaults() {
    let job = chat(Tools::default(), Generation::default());
    for kind in [Kind::Vllm, Kind::LlamaCpp, Kind::Ollama, Kind::OpenAi] {
        let body = sent(kind, &job);
        for (field, value) in [
            ("model", json!("m")),
            ("max_tokens", json!(7)),
            ("temperature", json!(1.0)),
            ("top_p", json!(1.0)),
            ("stream", json!(true)),
            ("top_logprobs", json!(8)),
        ] {
            assert_eq!(body[field], value, "{kind:?}: {field}");
        }
        let more = matches!(kind, Kind::Vllm | Kind::LlamaCpp);
        assert_eq!(body.get("top_k").is_some(), more, "{kind:?}");
        assert_eq!(body.get("min_p").is_some(), more, "{kind:?}");
        assert!(body.get("stop").is_none(), "{kind:?}");
    }
    assert_eq!(sent(Kind::Vllm, &job)["top_k"], -1);
    assert_eq!(sent(Kind::Vllm, &job)["cache_salt"], "salt");
    assert_eq!(sent(Kind::LlamaCpp, &job)["cache_prompt"], false);
}

#[test]
fn a_seed_is_one_that_every_server_takes_and_differs_where_the_buyers_seed_does() {
    for whole in [0, 1, 2, u64::MAX, u64::from(u32::MAX), 1 << 40, 1 << 63] {
        assert!(seed(whole) <= 0x7FFF_FFFF, "{whole}");
    }
    assert_ne!(seed(2), seed(3));
    assert_ne!(seed(2), seed(2 + (1 << 40)));
}

#[test]
fn tools_and_what_they_said_are_passed_through() {
    let call = ToolCall {
        id: "call_1".into(),
        name: "add".into(),
        arguments: "{\"a\":1}".into(),
    };
    let asked = Message {
        role: "assistant".into(),
        tool_calls: vec![call],
        ..Message::default()
    };
    let said = Message {
        tool_call_id: "call_1".into(),
        ..Message::text("tool", "2")
    };
    let add = Tool {
        name: "add".into(),
        ..Tool::default()
    };
    let tools = Tools {
        offered: vec![add],
        choice: ToolChoice::Named("add".into()),
    };
    let job = Job::Chat {
        messages: vec![asked, said],
        tools: tools.clone(),
        generation: Generation::default(),
    };
    let body = sent(Kind::OpenAi, &job);
    assert_eq!(body["messages"][0]["tool_calls"][0]["function"]["name"], "add");
    assert_eq!(body["messages"][1]["tool_call_id"], "call_1");
    assert_eq!(body["tools"][0]["function"]["parameters"]["type"], "object");
    assert_eq!(body["tool_choice"]["function"]["name"], "add");
    // llama.cpp refuses log-probabilities beside tools.
    assert!(sent(Kind::LlamaCpp, &job).get("logprobs").is_none());
    let never = Tools {
        choice: ToolChoice::Never,
        ..tools
    };
    let hidden = sent(Kind::OpenAi, &chat(never, Generation::default()));
    assert!(hidden.get("tools").is_none() && hidden.get("tool_choice").is_none());
}

#[test]
fn a_schema_has_its_place_in_each_endpoint() {
    let generation = Generation {
        format: AnswerFormat::JsonSchema("{\"type\":\"array\"}".into()),
        ..Generation::default()
    };
    let body = sent(Kind::OpenAi, &chat(Tools::default(), generation.clone()));
    assert_eq!(body["response_format"]["json_schema"]["schema"]["type"], "array");
    let plain = Job::Completion {
        prompt: "[".into(),
        generation,
    };
    assert_eq!(sent(Kind::LlamaCpp, &plain)["json_schema"]["type"], "array");
    assert_eq!(sent(Kind::Vllm, &plain)["response_format"]["type"], "json_schema");
    assert!(ask(manner(Kind::Ollama), &plain, 1, "").is_err());
    let broken = Generation {
        format: AnswerFormat::JsonSchema("{".into()),
        ..Generation::default()
    };
    let error = ask(manner(Kind::OpenAi), &chat(Tools::default(), broken), 1, "").unwrap_err();
    assert!(error.to_string().contains("response_format"), "{error}");
}

#[test]
fn log_probabilities_that_a_server_does_not_tell_are_not_left_out_in_silence() {
    let generation = Generation {
        logprobs: Some(3),
        ..Generation::default()
    };
    let job = chat(Tools::default(), generation);
    let silent = Manner {
        logprobs: false,
        ..manner(Kind::Ollama)
    };
    assert!(ask(silent, &job, 1, "").unwrap_err().retryable());
    let body = sent(Kind::Vllm, &job);
    assert_eq!(body["top_logprobs"], 8);
    assert!(body.get("return_tokens_as_token_ids").is_none());
}
