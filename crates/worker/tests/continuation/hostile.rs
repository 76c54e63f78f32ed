//! Beginnings of answers that never were.

use std::cell::Cell;

use proptest::prelude::*;
use rialto_engine::{Engine, Error, Scope};
use rialto_protocol::job::{AnswerFormat, Generation, Job, SoFar, ToolChoice, Tools};
use rialto_worker::llama::LlamaEngine;

use crate::{after, chat, exact, fast, generation, goes_on, pieces, seeded, support, tools};
use support::{completion, greedy, run};

/// The reason for a refusal that is about what came so far.
async fn refusal(engine: &dyn Engine, job: &Job, so_far: SoFar) -> String {
    let mut job = job.clone();
    generation(&mut job).so_far = so_far;
    match engine.prepare(job, Scope::Alone).await.err() {
        Some(Error::BadRequest(bad)) if bad.field == "so_far" => bad.reason,
        other => panic!("{other:?}"),
    }
}

fn so_far(ids: &[u32], text: &str) -> SoFar {
    SoFar {
        ids: ids.to_vec(),
        text: text.into(),
        ..SoFar::default()
    }
}

#[tokio::test]
async fn what_never_was_said_is_refused_with_its_reason() {
    let engine = fast();
    let job = completion("ROMEO:\n", greedy(40));
    let (whole, cuts) = pieces(&engine, job.clone()).await;
    let said = &cuts[9];
    for (so_far, reason) in [
        (so_far(&[5, 2_048], ""), "no token 2048"),
        (so_far(&[u32::MAX >> 1], ""), "no token"),
        (so_far(&said.ids, ""), "another text"),
        (so_far(&said.ids, &whole.text), "another text"),
        (so_far(&said.ids[1..], &said.text), "another text"),
    ] {
        let told = refusal(&engine, &job, so_far).await;
        assert!(told.contains(reason), "`{told}` does not say `{reason}`");
    }
    let end = end_of_answers(&engine).await;
    assert!(
        refusal(&engine, &job, so_far(&[end], ""))
            .await
            .contains("ends an answer")
    );

    let mut stopping = job.clone();
    generation(&mut stopping).stop = vec![said.text.chars().skip(3).take(5).collect()];
    for so_far in [said.clone(), so_far(&[], &said.text)] {
        assert!(refusal(&engine, &stopping, so_far).await.contains("ends the answer"));
    }
    let mut formed = job.clone();
    generation(&mut formed).format = AnswerFormat::JsonObject;
    assert!(refusal(&engine, &formed, said.clone()).await.contains("form"));

    let demanded = chat(tools(ToolChoice::Required), seeded(120));
    let called = run(&engine, demanded.clone()).await.unwrap();
    assert!(
        refusal(&engine, &demanded, so_far(&called.ids, ""))
            .await
            .contains("called a tool")
    );
}

/// The token with which this model ends answers, found by what is refused.
async fn end_of_answers(engine: &LlamaEngine) -> u32 {
    for id in 0..2_048 {
        let mut job = completion("a", greedy(1));
        generation(&mut job).so_far = so_far(&[id], "");
        if let Some(Error::BadRequest(bad)) = engine.prepare(job, Scope::Alone).await.err()
            && bad.reason.contains("ends an answer")
        {
            return id;
        }
    }
    panic!("nothing ends answers");
}

#[tokio::test]
async fn prompt_and_beginning_have_to_leave_room_for_a_token() {
    let engine = fast();
    let job = completion("ROMEO:\n", greedy(600));
    let prompt = engine.prepare(job.clone(), Scope::Alone).await.unwrap().input_units();
    let (_, cuts) = pieces(&engine, completion("ROMEO:\n", greedy(500))).await;
    let mut ids = cuts.last().unwrap().ids.clone();
    let (first, room) = (ids[0], usize::try_from(511 - prompt).unwrap());
    ids.resize(room, first);
    // Its text is told by what is refused only where the length is not.
    assert!(refusal(&engine, &job, so_far(&ids, "")).await.contains("another text"));
    for count in [room + 1, 1 << 20] {
        ids.resize(count, first);
        let mut job = job.clone();
        generation(&mut job).so_far.ids.clone_from(&ids);
        let refused = engine.prepare(job, Scope::Alone).await.err();
        let whole = prompt + count as u64;
        assert_eq!(
            refused,
            Some(Error::ContextExceeded {
                prompt: whole,
                limit: 512
            })
        );
    }
    let mut long = job.clone();
    generation(&mut long).so_far.text = "x".repeat(15 << 20);
    let refused = engine.prepare(long, Scope::Alone).await.err();
    assert!(matches!(refused, Some(Error::ContextExceeded { .. })), "{refused:?}");
    ids.resize((1 << 20) + 1, first);
    assert!(
        refusal(&engine, &job, so_far(&ids, ""))
            .await
            .contains("longer than any answer")
    );
}

#[tokio::test]
async fn a_worker_tells_what_it_refuses_and_works_on() {
    let engine = exact(1).await;
    let job = completion("ROMEO:\n", greedy(20));
    let (_, cuts) = pieces(engine.as_ref(), job.clone()).await;
    let mut wrong = cuts[5].clone();
    wrong.text.push('x');
    assert!(refusal(engine.as_ref(), &job, wrong).await.contains("another text"));
    let replayed = engine.replay(after(&job, &so_far(&[9_999], "")), vec![1]).await.err();
    assert!(matches!(replayed, Some(Error::BadRequest(bad)) if bad.field == "so_far"));
    goes_on(engine.as_ref(), engine.as_ref(), job).await;
}

/// Jobs with every form that an answer can have.
fn forms() -> Vec<Job> {
    let formed = |format| Generation {
        format,
        stop: vec!["ee".into(), "\n\n".into()],
        ..seeded(2)
    };
    vec![
        completion("ROMEO:\n", formed(AnswerFormat::Text)),
        completion("ROMEO:\n", formed(AnswerFormat::JsonObject)),
        chat(Tools::default(), formed(AnswerFormat::Text)),
        chat(tools(ToolChoice::Auto), formed(AnswerFormat::Text)),
        chat(tools(ToolChoice::Required), formed(AnswerFormat::Text)),
    ]
}

#[test]
fn whatever_came_so_far_it_goes_on_or_is_refused() {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .unwrap();
    let engine = fast();
    let ids = prop_oneof![
        prop::collection::vec(0u32..2_100, 0..40),
        prop::collection::vec(any::<u32>(), 0..9),
        prop::collection::vec(0u32..270, 0..40),
    ];
    let text = "(<tool_call>|</tool_call>|[{}\":, \n]|<\\|im_end\\|>|e|é|🜚|[a-z ]{1,9}){0,9}";
    let mut runner = proptest::test_runner::TestRunner::default();
    let (gone_on, refused) = (Cell::new(0u32), Cell::new(0u32));
    runner
        .run(&(0usize..5, ids, text, any::<bool>()), |(form, ids, text, told)| {
            let mut job = forms()[form].clone();
            let ids = if told { ids } else { vec![] };
            generation(&mut job).so_far = so_far(&ids, &text);
            let prepared = runtime.block_on(engine.prepare(job.clone(), Scope::Alone));
            match prepared {
                Ok(prepared) => {
                    prop_assert!(prepared.input_units() <= job.max_input());
                    let told = runtime.block_on(run(&engine, job)).unwrap();
                    prop_assert!(told.ids.len() <= 2);
                    gone_on.set(gone_on.get() + 1);
                }
                Err(Error::BadRequest(bad)) => {
                    prop_assert_eq!(bad.field.as_ref(), "so_far");
                    refused.set(refused.get() + 1);
                }
                Err(other) => return Err(TestCaseError::fail(other.to_string())),
            }
            Ok(())
        })
        .unwrap();
    let (gone_on, refused) = (gone_on.get(), refused.get());
    assert!(gone_on > 10 && refused > 10, "{gone_on} and {refused}");
}
