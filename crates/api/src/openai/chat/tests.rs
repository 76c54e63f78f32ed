use proptest::prelude::*;

use super::*;

fn request(extra: &str) -> Result<ChatRequest, BadRequest> {
    let body = format!(r#"{{"model":"m","messages":[{{"role":"user","content":"hi"}}]{extra}}}"#);
    ChatRequest::parse(body.as_bytes())
}

fn turn(role: &str, content: &str) -> ChatTurn {
    ChatTurn {
        role: role.into(),
        content: content.into(),
        ..ChatTurn::default()
    }
}

fn messages(list: &str) -> Result<ChatRequest, BadRequest> {
    ChatRequest::parse(format!(r#"{{"model":"m","messages":{list}}}"#).as_bytes())
}

#[test]
fn a_request_with_everything_harmless_is_read() {
    let read = request(
        r#","temperature":0.5,"max_tokens":7,"max_completion_tokens":9,"stop":"x","seed":-1,"n":1,"stream":true,
        "stream_options":{"include_usage":true},"tools":[],"tool_choice":"none","response_format":{"type":"text"},
        "logprobs":false,"user":"u","unknown":{"a":[1]},"modalities":["text"],"store":false,"top_p":null"#,
    )
    .unwrap();
    assert_eq!(read.sampling.limit(), Some(9));
    assert_eq!(read.sampling.stop.0, ["x"]);
    assert!(read.sampling.streams() && read.sampling.includes_usage());
    assert_eq!(read.messages, [turn("user", "hi")]);
}

#[test]
fn content_may_come_in_text_parts() {
    let read = messages(
        r#"[{"role":"developer","content":[{"type":"text","text":"a"},{"type":"text","text":"b"}]},
            {"role":"user","content":"c"}]"#,
    )
    .unwrap();
    assert_eq!(read.messages[0], turn("system", "ab"));
}

#[test]
fn what_changes_the_answer_is_refused_by_name() {
    for (extra, param) in [
        (r#","n":2"#, "n"),
        (r#","tools":[{"type":"custom"}]"#, "tools[0].type"),
        (r#","tool_choice":"required""#, "tool_choice"),
        (r#","functions":[{}]"#, "functions"),
        (r#","function_call":{"name":"look"}"#, "function_call"),
        (r#","response_format":{"type":"grammar"}"#, "response_format.type"),
        (r#","top_logprobs":3"#, "top_logprobs"),
        (r#","logprobs":false,"top_logprobs":0"#, "top_logprobs"),
        (r#","logprobs":true,"top_logprobs":21"#, "top_logprobs"),
        (r#","logit_bias":{"5":1}"#, "logit_bias"),
        (r#","audio":{"voice":"x"}"#, "audio"),
        (r#","modalities":["text","audio"]"#, "modalities"),
        (r#","provider":{"best":true}"#, "provider.best"),
        (r#","stream_options":{"include_usage":true}"#, "stream_options"),
    ] {
        let fault = request(extra).unwrap_err();
        assert_eq!(fault.param.as_deref(), Some(param), "{extra}");
    }
}

#[test]
fn wrong_types_are_named() {
    for (extra, param) in [
        (r#","temperature":"hot""#, "temperature"),
        (r#","max_tokens":-1"#, "max_tokens"),
        (r#","max_tokens":1.5"#, "max_tokens"),
        (r#","stream":"yes""#, "stream"),
        (r#","stop":[1]"#, "stop[0]"),
        (r#","logprobs":2"#, "logprobs"),
        (r#","logprobs":true,"top_logprobs":-1"#, "top_logprobs"),
        (r#","parallel_tool_calls":"no""#, "parallel_tool_calls"),
        (
            r#","stream":true,"stream_options":{"include_usage":1}"#,
            "stream_options.include_usage",
        ),
    ] {
        let fault = request(extra).unwrap_err();
        assert_eq!(
            (fault.param.as_deref(), fault.code),
            (Some(param), BadRequest::TYPE),
            "{extra}"
        );
    }
    for (list, param) in [
        ("[]", "messages"),
        ("\"hi\"", "messages"),
        (r#"[{"content":"x"}]"#, "messages[0].role"),
        (r#"[{"role":"user"}]"#, "messages[0].content"),
        (r#"[{"role":"user","content":5}]"#, "messages[0].content"),
        (r#"[{"role":"wizard","content":"x"}]"#, "messages[0].role"),
        (r#"[{"role":"function","content":"x"}]"#, "messages[0].role"),
        (
            r#"[{"role":"user","content":[{"type":"image_url","image_url":{}}]}]"#,
            "messages[0].content[0].type",
        ),
        (
            r#"[{"role":"user","content":[{"type":"text","text":9}]}]"#,
            "messages[0].content[0].text",
        ),
    ] {
        let fault = messages(list).unwrap_err();
        assert_eq!(fault.param.as_deref(), Some(param), "{list}");
    }
    assert_eq!(
        ChatRequest::parse(b"{\"messages\":[]}").unwrap_err().param.as_deref(),
        Some("model")
    );
}

const CALL: &str = r#"{"role":"assistant","content":null,"tool_calls":[{"id":"call_1","type":"function",
    "function":{"name":"look","arguments":"{ \"at\": 1 }"}}]}"#;

#[test]
fn a_call_and_its_answer_come_back_in_the_conversation() {
    let read = messages(&format!(
        r#"[{{"role":"user","content":"hi"}},{CALL},
            {{"role":"tool","tool_call_id":"call_1","content":[{{"type":"text","text":"rain"}}]}}]"#
    ))
    .unwrap();
    let [_, asked, answer] = &read.messages[..] else {
        panic!("{read:?}");
    };
    assert_eq!(
        (asked.content.as_str(), asked.tool_calls[0].id.as_str()),
        ("", "call_1")
    );
    assert_eq!(asked.tool_calls[0].function.arguments, r#"{"at":1}"#);
    let expected = ChatTurn {
        tool_call_id: "call_1".into(),
        ..turn("tool", "rain")
    };
    assert_eq!(*answer, expected);
}

#[test]
fn a_call_that_cannot_have_been_is_named_to_the_field() {
    let call = |call: &str| format!(r#"[{{"role":"assistant","tool_calls":[{call}]}}]"#);
    for (list, param) in [
        (call("{}"), "messages[0].tool_calls[0].id"),
        (call(r#"{"id":"a"}"#), "messages[0].tool_calls[0].function"),
        (call(r#"{"id":"a","type":"custom"}"#), "messages[0].tool_calls[0].type"),
        (
            call(r#"{"id":"","function":{"name":"look","arguments":"{}"}}"#),
            "messages[0].tool_calls[0].id",
        ),
        (
            call(r#"{"id":"a","function":{"name":"a b","arguments":"{}"}}"#),
            "messages[0].tool_calls[0].function.name",
        ),
        (
            call(r#"{"id":"a","function":{"name":"look","arguments":"[]"}}"#),
            "messages[0].tool_calls[0].function.arguments",
        ),
        (
            r#"[{"role":"assistant","tool_calls":[]}]"#.to_owned(),
            "messages[0].content",
        ),
        (
            r#"[{"role":"user","content":"x","tool_calls":[{"id":"a"}]}]"#.to_owned(),
            "messages[0].tool_calls",
        ),
        (
            r#"[{"role":"tool","content":"x"}]"#.to_owned(),
            "messages[0].tool_call_id",
        ),
        (
            format!(r#"[{CALL},{{"role":"tool","content":"x","tool_call_id":"call_2"}}]"#),
            "messages[1].tool_call_id",
        ),
        (
            format!(r#"[{CALL},{{"role":"tool","tool_call_id":"call_1"}}]"#),
            "messages[1].content",
        ),
    ] {
        let fault = messages(&list).unwrap_err();
        assert_eq!(fault.param.as_deref(), Some(param), "{list}");
    }
    let bare = messages(&call(r#"{"id":"a","function":{"name":"look","arguments":""}}"#)).unwrap();
    assert_eq!(bare.messages[0].tool_calls[0].function.arguments, "{}");
}

/// With everything that has a parser of its own.
const WHOLE: &str = r#"{"model":"m","messages":[{"role":"user","content":[{"type":"text","text":"hi"}]},
    {"role":"assistant","content":null,"tool_calls":[{"id":"c","type":"function","function":{"name":"look","arguments":"{}"}}]},
    {"role":"tool","tool_call_id":"c","content":"x"}],"stop":["a"],"temperature":0.5,"logprobs":true,"top_logprobs":2,
    "tools":[{"type":"function","function":{"name":"look","description":"d","parameters":{"type":"object"},"strict":true}}],
    "tool_choice":{"type":"function","function":{"name":"look"}},
    "response_format":{"type":"json_schema","json_schema":{"name":"n","schema":{"type":"object"}}}}"#;

#[test]
fn a_request_with_everything_is_read() {
    let read = ChatRequest::parse(WHOLE.as_bytes()).unwrap();
    assert_eq!(read.tools.choice, Choice::Named("look".into()));
    assert_eq!(read.format, Format::JsonSchema(r#"{"type":"object"}"#.into()));
}

#[test]
fn log_probabilities_are_asked_for_with_or_without_others() {
    for (extra, wanted) in [
        ("", None),
        (r#","logprobs":false"#, None),
        (r#","logprobs":true"#, Some(0)),
        (r#","logprobs":true,"top_logprobs":20"#, Some(20)),
        (r#","logprobs":true,"top_logprobs":null"#, Some(0)),
    ] {
        assert_eq!(request(extra).unwrap().logprobs, wanted, "{extra}");
    }
}

#[test]
fn json_and_tools_go_together_only_where_neither_shuts_out_the_other() {
    let with = |choice: &str| {
        request(&format!(
            r#","tools":[{{"type":"function","function":{{"name":"look"}}}}],"tool_choice":{choice},
            "response_format":{{"type":"json_object"}}"#
        ))
    };
    let fault = with("\"auto\"").unwrap_err();
    assert_eq!(
        (fault.param.as_deref(), fault.code),
        (Some("response_format"), BadRequest::UNSUPPORTED)
    );
    for choice in [
        "\"none\"",
        "\"required\"",
        r#"{"type":"function","function":{"name":"look"}}"#,
    ] {
        assert_eq!(with(choice).unwrap().format, Format::JsonObject, "{choice}");
    }
}

#[test]
fn an_answer_of_calls_alone_has_null_for_its_text() {
    let message = ChatMessage {
        role: "assistant".into(),
        content: None,
        tool_calls: vec![],
        refusal: None,
    };
    let json = serde_json::to_value(&message).unwrap();
    assert_eq!(
        json,
        serde_json::json!({"role": "assistant", "content": null, "refusal": null})
    );
}

proptest! {
    #[test]
    fn no_bytes_make_the_parser_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        let _ = ChatRequest::parse(&bytes);
    }

    #[test]
    fn no_broken_request_makes_the_parser_panic(cut in 0usize..600, flip in 0usize..600, byte: u8) {
        let mut body = WHOLE.as_bytes().to_vec();
        let length = body.len();
        body[flip % length] = byte;
        let _ = ChatRequest::parse(&body[..length - cut % length]);
    }
}
