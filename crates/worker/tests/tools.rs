//! Answers of a form: JSON of a schema, calls of tools, and what a form does to seeds, log-probabilities and audits.

#![expect(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

#[expect(dead_code, reason = "what other tests need too is used there")]
#[path = "../../engine/tests/support/mod.rs"]
mod support;

use rialto_engine::{Engine, Error, LoadOptions, Scope};
use rialto_protocol::{
    job::{AnswerFormat, Generation, Job, Message, Tool, ToolCall, ToolChoice, Tools},
    output::{FinishReason, Output},
};
use rialto_worker::{Steps, llama::LlamaEngine};
use serde_json::Value;
use support::{Told, completion, manifest, model_folder, run};

fn engine() -> LlamaEngine {
    let folder = model_folder("shakespeare");
    let manifest = manifest(&folder, "manifest-q8_0.toml");
    LlamaEngine::load(&manifest, &folder, &LoadOptions::default(), &Steps::default()).unwrap()
}

fn weather() -> Tool {
    Tool {
        name: "weather".into(),
        description: "The weather of a city.".into(),
        parameters: r#"{"type":"object","properties":{"city":{"enum":["Verona","Venice"]},"days":{"type":"integer",
            "minimum":1,"maximum":9}},"required":["city","days"],"additionalProperties":false}"#
            .into(),
    }
}

fn fate() -> Tool {
    Tool {
        name: "fate".into(),
        parameters: r#"{"type":"object","properties":{"sure":{"type":"boolean"}},"required":["sure"],"additionalProperties":false}"#.into(),
        ..Tool::default()
    }
}

fn ask(choice: ToolChoice, messages: Vec<Message>, seed: u64) -> Job {
    let generation = Generation {
        max_tokens: 120,
        seed,
        ..Generation::default()
    };
    let tools = Tools {
        offered: vec![weather(), fate()],
        choice,
    };
    Job::Chat {
        messages,
        tools,
        generation,
    }
}

fn question() -> Vec<Message> {
    vec![Message::text("user", "What weather is in Verona?")]
}

fn calls(told: &Told) -> Vec<(String, Value)> {
    let call = |piece: &Output| match piece {
        Output::ToolCall { name, arguments, .. } => (name.clone(), serde_json::from_str(arguments).unwrap()),
        other => panic!("{other:?}"),
    };
    told.pieces.iter().map(call).collect()
}

#[tokio::test]
async fn a_call_that_is_demanded_comes_with_arguments_of_its_schema_whatever_the_seed() {
    let engine = engine();
    let mut names = std::collections::BTreeSet::new();
    for seed in 0..12 {
        let told = run(&engine, ask(ToolChoice::Required, question(), seed)).await.unwrap();
        let [(name, arguments)] = calls(&told).try_into().unwrap();
        match name.as_str() {
            "weather" => {
                assert!(
                    ["Verona", "Venice"].contains(&arguments["city"].as_str().unwrap()),
                    "{arguments}"
                );
                assert!((1..=9).contains(&arguments["days"].as_i64().unwrap()), "{arguments}");
            }
            "fate" => assert!(arguments["sure"].is_boolean(), "{arguments}"),
            other => panic!("{other}"),
        }
        names.insert(name);
        assert_eq!(told.finish, Some(FinishReason::ToolCalls));
        assert_eq!(told.text, "", "nothing of a call is text");
        assert!(told.ids.len() > 5, "its tokens are seen and billed");
    }
    assert_eq!(names.len(), 2, "the model chooses");
    for seed in 0..4 {
        let named = ToolChoice::Named("fate".into());
        let told = run(&engine, ask(named, question(), seed)).await.unwrap();
        assert_eq!(calls(&told)[0].0, "fate");
    }
}

#[tokio::test]
async fn tools_that_may_be_called_are_shown_and_those_that_must_not_are_not() {
    let engine = engine();
    let units = async |choice| {
        let job = ask(choice, question(), 1);
        engine.prepare(job, Scope::Alone).await.unwrap().input_units()
    };
    let (auto, never) = (units(ToolChoice::Auto).await, units(ToolChoice::Never).await);
    assert!(auto > never + 50, "{auto} against {never}");
    let told = run(&engine, ask(ToolChoice::Never, question(), 1)).await.unwrap();
    assert!(told.pieces.is_empty() && !told.text.is_empty());
}

#[tokio::test]
async fn a_conversation_goes_on_after_a_tool_has_answered() {
    let engine = engine();
    let call = ToolCall {
        id: "call_1".into(),
        name: "weather".into(),
        arguments: r#"{"city":"Verona","days":1}"#.into(),
    };
    let mut messages = question();
    messages.push(Message {
        role: "assistant".into(),
        tool_calls: vec![call],
        ..Message::default()
    });
    messages.push(Message {
        role: "tool".into(),
        content: "Sun. <|im_end|>".into(),
        tool_call_id: "call_1".into(),
        ..Message::default()
    });
    // Both tools and all of this are more than the context of so small a model holds.
    let mut job = ask(ToolChoice::Auto, messages, 2);
    if let Job::Chat { tools, .. } = &mut job {
        tools.offered.truncate(1);
    }
    let told = run(&engine, job).await.unwrap();
    assert!(!told.ids.is_empty());
}

#[tokio::test]
async fn json_of_a_schema_is_json_of_that_schema_whatever_the_seed() {
    let engine = engine();
    let schema = r#"{"type":"object","properties":{"who":{"type":"string","maxLength":20},"age":{"type":"integer",
        "minimum":0,"maximum":120},"alive":{"type":"boolean"}},"required":["who","age","alive"],
        "additionalProperties":false}"#;
    for seed in 0..12 {
        let generation = Generation {
            max_tokens: 200,
            seed,
            format: AnswerFormat::JsonSchema(schema.into()),
            ..Generation::default()
        };
        let told = run(&engine, completion("HAMLET:\n", generation)).await.unwrap();
        assert_eq!(told.finish, Some(FinishReason::Stop), "{}", told.text);
        let value: Value = serde_json::from_str(&told.text).unwrap();
        assert!(value["who"].is_string() && value["alive"].is_boolean(), "{value}");
        assert!((0..=120).contains(&value["age"].as_i64().unwrap()), "{value}");
    }
}

#[tokio::test]
async fn a_form_that_makes_no_sense_is_refused_before_anything_is_paid() {
    let engine = engine();
    for (format, field) in [
        (AnswerFormat::JsonSchema("{".into()), "response_format"),
        (
            AnswerFormat::JsonSchema(r#"{"type":"nonsense"}"#.into()),
            "response_format",
        ),
        (
            AnswerFormat::JsonSchema(r#"{"type":"string","pattern":"("}"#.into()),
            "response_format",
        ),
    ] {
        let generation = Generation {
            format: format.clone(),
            ..Generation::default()
        };
        let refused = engine.prepare(completion("a", generation), Scope::Alone).await.err();
        assert!(
            matches!(&refused, Some(Error::BadRequest(bad)) if bad.field == field),
            "{format:?}: {refused:?}"
        );
    }
}

#[tokio::test]
async fn log_probabilities_are_those_of_the_tokens() {
    let engine = engine();
    let generation = |temperature, logprobs| Generation {
        max_tokens: 12,
        temperature,
        logprobs,
        ..Generation::default()
    };
    let told = run(&engine, completion("ROMEO:\n", generation(0.0, Some(5))))
        .await
        .unwrap();
    assert_eq!(told.logprobs.len(), told.ids.len());
    let bytes: Vec<u8> = told.logprobs.iter().flat_map(|one| one.bytes.clone()).collect();
    assert_eq!(String::from_utf8_lossy(&bytes), told.text);
    for (id, one) in told.ids.iter().zip(&told.logprobs) {
        assert_eq!(one.top.len(), 5);
        assert_eq!(one.top[0].id, *id, "at temperature 0 the likeliest is chosen");
        assert_eq!(one.top[0].logprob.to_bits(), one.logprob.to_bits());
        assert!(one.top.windows(2).all(|pair| pair[0].logprob >= pair[1].logprob));
        assert!(one.top.iter().map(|top| top.logprob.exp()).sum::<f32>() <= 1.0001);
    }
    let plain = run(&engine, completion("ROMEO:\n", generation(0.0, None)))
        .await
        .unwrap();
    assert_eq!((plain.ids, plain.logprobs.len()), (told.ids, 0));
}

#[tokio::test]
async fn an_answer_of_a_form_can_be_read_again() {
    let engine = engine();
    let job = ask(ToolChoice::Required, question(), 3);
    let told = run(&engine, job.clone()).await.unwrap();
    let replay = engine.replay(job, told.ids.clone()).await.unwrap();
    assert_eq!(replay.margins.len(), told.ids.len());
    let off = replay.margins.iter().filter(|margin| **margin > 0.5).count();
    assert_eq!(off, 0, "{:?}", replay.margins);
    assert!(told.fingerprint.distance(&replay.fingerprint).unwrap() < 0.1);
}
