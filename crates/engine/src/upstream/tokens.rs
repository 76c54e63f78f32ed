//! Units of input: counted by the server's own tokenizer where it has one, and checked against what there can be.

use std::time::Duration;

use futures::{StreamExt, TryStreamExt, stream};
use rialto_protocol::job::{Job, Message, Tool, ToolCall, Tools};
use serde_json::{Value, json};

use super::{
    Shared, body,
    call::{Server, Trouble},
    config::Kind,
    continuation,
    count::Suspicion,
};
use crate::Error;

/// Longest answer of a tokenizer: as many ids as a job has bytes.
const MAX_ANSWER: usize = 128 << 20;

/// Longest time of a tokenizer.
const PATIENCE: Duration = Duration::from_secs(30);

/// Texts that are counted at the same time.
const AT_ONCE: usize = 8;

/// Bytes that a token stands for, where nobody counts. Few texts have so long tokens, so that a buyer pays less than
/// for the true number rather than more.
const BYTES_PER_TOKEN: u64 = 6;

/// No text has so long tokens: a prompt of more than this for each token of the context does not fit.
const MOST_BYTES_PER_TOKEN: u64 = 256;

/// Units of input, and whether a tokenizer counted them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Input {
    pub(super) units: u64,
    pub(super) exact: bool,
}

/// Counts a job's input. A count above `most`, which is impossible, is the server's fault.
pub(super) async fn count(shared: &Shared, job: &Job, most: u64) -> Result<Input, Error> {
    let bytes = bytes(job);
    let limit = shared.limit;
    if limit > 0 && bytes / MOST_BYTES_PER_TOKEN >= limit {
        return Err(Error::ContextExceeded {
            prompt: bytes / MOST_BYTES_PER_TOKEN,
            limit,
        });
    }
    let (server, model) = (&shared.server, shared.config.model.as_str());
    let counted = match (shared.kind, job) {
        (Kind::LlamaCpp, Job::Chat { messages, tools, .. }) => {
            let prompt = rendered(shared, messages, tools).await?;
            Some(llama_cpp(server, &json!(prompt), true).await)
        }
        (Kind::LlamaCpp, Job::Completion { prompt, .. }) => Some(llama_cpp(server, &json!(prompt), true).await),
        (Kind::LlamaCpp, Job::Embedding { inputs }) => Some(llama_cpp_all(server, inputs).await),
        (
            Kind::Vllm,
            Job::Chat {
                messages,
                tools,
                generation,
            },
        ) => {
            let mut conversation = body::conversation(messages, tools)?;
            conversation.extend(continuation::fields(shared.kind, generation));
            conversation.insert("model".into(), model.into());
            Some(vllm(server, &Value::Object(conversation)).await)
        }
        (Kind::Vllm, Job::Completion { prompt, .. }) => {
            Some(vllm(server, &json!({ "model": model, "prompt": prompt })).await)
        }
        (Kind::Vllm, Job::Embedding { inputs }) => Some(vllm_all(server, model, inputs).await),
        _ => None,
    };
    let Some(counted) = counted else {
        let units = bytes.div_ceil(BYTES_PER_TOKEN).max(1);
        return Ok(Input { units, exact: false });
    };
    let units = shared.noted(counted)?.max(1);
    if units > most {
        shared.suspect(Suspicion::Odd, "its tokenizer counts more tokens than there can be");
        return Err(Error::Failed(
            "the model's server counts more tokens than there can be".into(),
        ));
    }
    Ok(Input { units, exact: true })
}

/// The text that llama.cpp's server makes of a conversation, up to where the assistant answers.
pub(super) async fn rendered(shared: &Shared, messages: &[Message], tools: &Tools) -> Result<String, Error> {
    let conversation = Value::Object(body::conversation(messages, tools)?);
    let path = "/apply-template";
    let answer = shared.server.post(path, &conversation, MAX_ANSWER, PATIENCE).await;
    let answer = shared.noted(answer)?;
    let prompt = answer.get("prompt").and_then(Value::as_str);
    Ok(prompt.unwrap_or_default().to_owned())
}

async fn llama_cpp(server: &Server, content: &Value, special: bool) -> Result<u64, Trouble> {
    let body = json!({ "content": content, "add_special": special, "parse_special": true });
    let answer = server.post("/tokenize", &body, MAX_ANSWER, PATIENCE).await?;
    let tokens = answer.get("tokens").and_then(Value::as_array);
    let tokens = tokens.ok_or_else(|| Trouble::odd("its tokenizer tells no tokens"))?;
    Ok(u64::try_from(tokens.len()).unwrap_or(u64::MAX))
}

/// Counts many texts in one call: the tokenizer takes a list, and adds what belongs around a text only once.
async fn llama_cpp_all(server: &Server, inputs: &[String]) -> Result<u64, Trouble> {
    let around = llama_cpp(server, &json!(""), true).await?;
    let inside = llama_cpp(server, &json!(inputs), false).await?;
    let texts = u64::try_from(inputs.len()).unwrap_or(u64::MAX);
    Ok(around.saturating_mul(texts).saturating_add(inside))
}

async fn vllm(server: &Server, body: &Value) -> Result<u64, Trouble> {
    let answer = server.post("/tokenize", body, MAX_ANSWER, PATIENCE).await?;
    let count = answer.get("count").and_then(Value::as_u64);
    count.ok_or_else(|| Trouble::odd("its tokenizer tells no count"))
}

async fn vllm_all(server: &Server, model: &str, inputs: &[String]) -> Result<u64, Trouble> {
    let bodies = inputs.iter().map(|text| json!({ "model": model, "prompt": text }));
    let bodies: Vec<Value> = bodies.collect();
    let counts = stream::iter(bodies).map(|body| async move { vllm(server, &body).await });
    let mut counts = counts.buffer_unordered(AT_ONCE);
    let mut sum = 0u64;
    while let Some(count) = counts.try_next().await? {
        sum = sum.saturating_add(count);
    }
    Ok(sum)
}

/// Bytes of text in a job.
fn bytes(job: &Job) -> u64 {
    let call = |call: &ToolCall| call.name.len().saturating_add(call.arguments.len());
    let message = |message: &Message| {
        let calls = message.tool_calls.iter().map(call);
        calls.fold(message.content.len(), usize::saturating_add)
    };
    let tool = |tool: &Tool| tool.name.len() + tool.description.len() + tool.parameters.len();
    let bytes = match job {
        Job::Chat { messages, tools, .. } => {
            let texts = messages.iter().map(message).chain(tools.offered.iter().map(tool));
            texts.fold(0, usize::saturating_add)
        }
        Job::Completion { prompt, .. } => prompt.len(),
        Job::Embedding { inputs } => inputs.iter().map(String::len).fold(0, usize::saturating_add),
        Job::Predict { .. } => 0,
    };
    u64::try_from(bytes).unwrap_or(u64::MAX)
}
