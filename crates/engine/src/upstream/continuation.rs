//! Going on with an answer that another seller began. Servers take no part of an answer, so it is made a part of the prompt
//! by its text, in the way that each kind of server is known to go on with:
//!
//! - a text, for every kind but Ollama, which makes a conversation of every prompt: by the text after the prompt;
//! - a conversation at llama.cpp's server: it renders the conversation, and goes on with that and the answer's text as with
//!   any text. Its own way of beginning an answer repeats the beginning in some versions, and refuses thinking models;
//! - a conversation at vLLM and Ollama: by a last message of the assistant that stays open;
//! - a conversation at any other server: not at all, because most begin a second answer after the first.
//!
//! Where a form is demanded, a server would begin the form anew, so that nothing of a form is gone on with.

use rialto_protocol::job::{AnswerFormat, Generation, Job, Message, ToolChoice, Tools};
use serde_json::{Map, Value, json};

use super::{Shared, config::Kind, tokens};
use crate::{Error, TextStream};

/// The field that is complained of.
const FIELD: &str = "so_far";

/// The role of whoever answers.
const ASSISTANT: &str = "assistant";

/// What is told of an error: a server that takes no such request may take it without what came so far.
pub(super) fn refusal(job: &Job, error: Error) -> Error {
    match error {
        Error::BadRequest(bad) if bad.field == "model" && is_one(job) => {
            Error::bad(FIELD, "the server that runs the model does not go on with this answer")
        }
        error => error,
    }
}

/// Whether a job goes on with text of another seller.
fn is_one(job: &Job) -> bool {
    generation(job).is_some_and(|generation| !generation.so_far.text.is_empty())
}

/// What vLLM has to be told so that the last message stays open.
pub(super) fn fields(kind: Kind, generation: &Generation) -> Map<String, Value> {
    let mut fields = Map::new();
    if kind == Kind::Vllm && !generation.so_far.text.is_empty() {
        fields.insert("continue_final_message".to_owned(), json!(true));
        fields.insert("add_generation_prompt".to_owned(), json!(false));
    }
    fields
}

/// The job with what came so far in its prompt. Fails with a bad `so_far` where this server cannot go on with it.
pub(super) async fn go_on(shared: &Shared, job: Job) -> Result<Job, Error> {
    if !is_one(&job) {
        return Ok(job);
    }
    check(shared.kind, &job)?;
    Ok(match job {
        Job::Chat {
            messages,
            tools,
            generation,
        } if shared.kind == Kind::LlamaCpp => Job::Completion {
            prompt: tokens::rendered(shared, &messages, &tools).await? + &generation.so_far.text,
            generation,
        },
        job => with_text(job),
    })
}

fn with_text(job: Job) -> Job {
    match job {
        Job::Chat {
            mut messages,
            tools,
            generation,
        } => {
            messages.push(Message::text(ASSISTANT, generation.so_far.text.clone()));
            Job::Chat {
                messages,
                tools,
                generation,
            }
        }
        Job::Completion { prompt, generation } => Job::Completion {
            prompt: prompt + &generation.so_far.text,
            generation,
        },
        other => other,
    }
}

fn check(kind: Kind, job: &Job) -> Result<(), Error> {
    let bad = |reason: &str| Err(Error::bad(FIELD, reason));
    let Some(generation) = generation(job) else {
        return Ok(());
    };
    if generation.format != AnswerFormat::Text {
        return bad("the server that runs the model cannot go on inside a form");
    }
    let text = &generation.so_far.text;
    TextStream::after(generation.stop.clone(), text.as_bytes(), text)?;
    match (kind, job) {
        (Kind::Ollama, Job::Completion { .. }) | (Kind::OpenAi, Job::Chat { .. }) => {
            bad("the server that runs the model is not known to go on with an answer")
        }
        (_, Job::Chat { messages, tools, .. }) => check_chat(kind, messages, tools),
        _ => Ok(()),
    }
}

fn check_chat(kind: Kind, messages: &[Message], tools: &Tools) -> Result<(), Error> {
    let may_call = !tools.offered.is_empty() && tools.choice != ToolChoice::Never;
    if may_call && (kind == Kind::LlamaCpp || tools.choice != ToolChoice::Auto) {
        return Err(Error::bad(
            FIELD,
            "the server that runs the model would not find calls after it",
        ));
    }
    let after_another = messages.last().is_some_and(|message| message.role == ASSISTANT);
    if after_another {
        return Err(Error::bad(
            FIELD,
            "it would become one with the assistant's last message",
        ));
    }
    Ok(())
}

fn generation(job: &Job) -> Option<&Generation> {
    match job {
        Job::Chat { generation, .. } | Job::Completion { generation, .. } => Some(generation),
        Job::Embedding { .. } | Job::Predict { .. } => None,
    }
}

#[cfg(test)]
mod tests {
    use rialto_protocol::job::{SoFar, Tool};

    use super::*;

    fn begun(text: &str) -> Generation {
        Generation {
            so_far: SoFar {
                text: text.into(),
                ..SoFar::default()
            },
            stop: vec!["end.".into()],
            ..Generation::default()
        }
    }

    fn chat(choice: ToolChoice, roles: &[&str], generation: Generation) -> Job {
        let look = Tool {
            name: "look".into(),
            ..Tool::default()
        };
        Job::Chat {
            messages: roles.iter().map(|role| Message::text(*role, "a")).collect(),
            tools: Tools {
                offered: vec![look],
                choice,
            },
            generation,
        }
    }

    #[test]
    fn what_a_server_would_not_go_on_with_is_refused() {
        let text = |generation| Job::Completion {
            prompt: "a".into(),
            generation,
        };
        let formed = Generation {
            format: AnswerFormat::JsonObject,
            ..begun("{")
        };
        let (user, answered) = (&["user"][..], &["user", ASSISTANT][..]);
        let never = |kind| (kind, chat(ToolChoice::Never, user, begun("b")));
        let auto = |kind| (kind, chat(ToolChoice::Auto, user, begun("b")));
        let all = [Kind::Vllm, Kind::LlamaCpp, Kind::Ollama, Kind::OpenAi];
        for (kind, job) in [
            never(Kind::Vllm),
            never(Kind::LlamaCpp),
            never(Kind::Ollama),
            auto(Kind::Vllm),
            auto(Kind::Ollama),
            (Kind::Vllm, text(begun("b"))),
            (Kind::LlamaCpp, text(begun("b"))),
            (Kind::OpenAi, text(begun("b"))),
        ] {
            check(kind, &job).unwrap();
        }
        let refused = [
            never(Kind::OpenAi),
            auto(Kind::LlamaCpp),
            (Kind::Vllm, chat(ToolChoice::Required, user, begun("b"))),
            (Kind::Ollama, text(begun("b"))),
        ];
        let everywhere = all.into_iter().flat_map(|kind| {
            let jobs = [
                text(formed.clone()),
                text(begun("the end. And")),
                text(begun("the en")),
                chat(ToolChoice::Never, answered, begun("b")),
            ];
            jobs.map(|job| (kind, job))
        });
        for (kind, job) in refused.into_iter().chain(everywhere) {
            let error = check(kind, &job).unwrap_err();
            assert!(
                matches!(&error, Error::BadRequest(bad) if bad.field == FIELD),
                "{kind:?}: {error}"
            );
        }
    }
}
