//! What a job is in the server's language. Everything that a server's own defaults would change is said; what a kind of
//! server is known not to take is left out. Stop texts are not sent: they are found here, because a server that holds
//! back text for them holds back the tokens too that it is counted by.

use rialto_protocol::job::{AnswerFormat, Generation, Job, MAX_TOP_LOGPROBS, Message, Tool, ToolChoice, Tools};
use serde_json::{Map, Value, json};

use super::{config::Kind, continuation};
use crate::Error;

/// Alternatives of a token that a fingerprint needs.
pub(super) const MARKED: u8 = 8;

/// Most alternatives that OpenAI's older endpoint tells.
const MAX_COMPLETION_LOGPROBS: u8 = 5;

/// A request of generation, ready to be sent.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Ask {
    /// Below the server's address.
    pub(super) path: &'static str,
    pub(super) body: Value,
    /// Whether log-probabilities are asked for.
    pub(super) logprobs: bool,
}

/// How a server is to be asked.
#[derive(Debug, Clone, Copy)]
pub(super) struct Manner<'a> {
    pub(super) kind: Kind,
    pub(super) model: &'a str,
    /// Whether it tells log-probabilities.
    pub(super) logprobs: bool,
}

/// The request of a job that generates at most `most` tokens; `None` for a job of another sort.
pub(super) fn ask(manner: Manner<'_>, job: &Job, most: u64, salt: &str) -> Result<Option<Ask>, Error> {
    let (path, generation, chat) = match job {
        Job::Chat { generation, .. } => ("/v1/chat/completions", generation, true),
        Job::Completion { generation, .. } => ("/v1/completions", generation, false),
        Job::Embedding { .. } | Job::Predict { .. } => return Ok(None),
    };
    let mut body = match job {
        Job::Chat { messages, tools, .. } => chat_fields(messages, tools)?,
        Job::Completion { prompt, .. } => fields(json!({ "prompt": prompt })),
        Job::Embedding { .. } | Job::Predict { .. } => Map::new(),
    };
    body.extend(fields(json!({ "model": manner.model, "max_tokens": most })));
    body.extend(sampling(manner.kind, generation));
    if chat {
        body.extend(continuation::fields(manner.kind, generation));
    }
    body.extend(streaming(manner.kind, salt));
    body.extend(format(manner.kind, chat, &generation.format)?);
    let calls = matches!(job, Job::Chat { tools, .. } if !tools.offered.is_empty());
    // llama.cpp tells none while it looks for calls of tools.
    let logprobs = manner.logprobs && !(calls && manner.kind == Kind::LlamaCpp);
    if generation.logprobs.is_some() && !logprobs {
        let reason = "the model's server tells no log-probabilities for such a request";
        return Err(Error::Failed(reason.into()));
    }
    if logprobs {
        body.extend(probabilities(manner.kind, chat, generation.logprobs));
    }
    Ok(Some(Ask {
        path,
        body: Value::Object(body),
        logprobs,
    }))
}

/// The messages and tools of a conversation, as chat and tokenizer endpoints take them.
pub(super) fn conversation(messages: &[Message], tools: &Tools) -> Result<Map<String, Value>, Error> {
    let messages: Vec<Value> = messages.iter().map(message).collect();
    let mut body = fields(json!({ "messages": messages }));
    if !tools.offered.is_empty() && tools.choice != ToolChoice::Never {
        let offered: Result<Vec<Value>, Error> = tools.offered.iter().map(tool).collect();
        body.insert("tools".into(), Value::Array(offered?));
    }
    Ok(body)
}

fn chat_fields(messages: &[Message], tools: &Tools) -> Result<Map<String, Value>, Error> {
    let mut body = conversation(messages, tools)?;
    if body.contains_key("tools") {
        let choice = match &tools.choice {
            ToolChoice::Auto | ToolChoice::Never => json!("auto"),
            ToolChoice::Required => json!("required"),
            ToolChoice::Named(name) => json!({ "type": "function", "function": { "name": name } }),
        };
        body.insert("tool_choice".into(), choice);
    }
    Ok(body)
}

fn message(message: &Message) -> Value {
    let mut fields = fields(json!({ "role": message.role, "content": message.content }));
    if !message.tool_calls.is_empty() {
        let calls = message.tool_calls.iter().map(|call| {
            let function = json!({ "name": call.name, "arguments": call.arguments });
            json!({ "id": call.id, "type": "function", "function": function })
        });
        fields.insert("tool_calls".into(), calls.collect());
    }
    if !message.tool_call_id.is_empty() {
        fields.insert("tool_call_id".into(), message.tool_call_id.clone().into());
    }
    Value::Object(fields)
}

fn tool(tool: &Tool) -> Result<Value, Error> {
    let mut function = fields(json!({ "name": tool.name, "description": tool.description }));
    let parameters = if tool.parameters.is_empty() {
        json!({ "type": "object" })
    } else {
        schema("tools", &tool.parameters)?
    };
    function.insert("parameters".into(), parameters);
    Ok(json!({ "type": "function", "function": function }))
}

fn sampling(kind: Kind, generation: &Generation) -> Map<String, Value> {
    let mut body = fields(json!({
        "temperature": generation.temperature, "top_p": generation.top_p, "seed": seed(generation.seed),
        "frequency_penalty": generation.frequency_penalty, "presence_penalty": generation.presence_penalty,
    }));
    match kind {
        Kind::Vllm => body.extend(fields(json!({
            // Zero means "all" to newer versions only, -1 to every one.
            "top_k": if generation.top_k == 0 { -1 } else { i64::from(generation.top_k) },
            "min_p": generation.min_p, "repetition_penalty": 1.0,
        }))),
        Kind::LlamaCpp => body.extend(fields(json!({
            "top_k": generation.top_k, "min_p": generation.min_p, "repeat_penalty": 1.0,
        }))),
        Kind::Ollama | Kind::OpenAi => {}
    }
    body
}

/// A seed that every server takes: some keep 32 bits, some count with a sign.
fn seed(seed: u64) -> u64 {
    (seed ^ (seed >> 31) ^ (seed >> 62)) & 0x7FFF_FFFF
}

fn streaming(kind: Kind, salt: &str) -> Map<String, Value> {
    let mut options = fields(json!({ "include_usage": true }));
    let mut body = Map::new();
    match kind {
        Kind::Vllm => {
            options.insert("continuous_usage_stats".into(), true.into());
            // Prompts of different buyers never share memory: time tells what others asked.
            body.insert("cache_salt".into(), salt.into());
        }
        Kind::LlamaCpp => body.extend(fields(json!({
            // It would reuse the memory of any buyer's prompt.
            "cache_prompt": false, "timings_per_token": true, "reasoning_format": "none",
        }))),
        Kind::Ollama | Kind::OpenAi => {}
    }
    body.extend(fields(json!({ "stream": true, "stream_options": options })));
    body
}

fn format(kind: Kind, chat: bool, format: &AnswerFormat) -> Result<Map<String, Value>, Error> {
    let schema = match format {
        AnswerFormat::Text => return Ok(Map::new()),
        AnswerFormat::JsonObject => None,
        AnswerFormat::JsonSchema(text) => Some(schema("response_format", text)?),
    };
    if !chat && kind == Kind::LlamaCpp {
        let schema = schema.unwrap_or_else(|| json!({ "type": "object" }));
        return Ok(fields(json!({ "json_schema": schema })));
    }
    if !chat && kind != Kind::Vllm {
        let reason = "the model's server takes no `response_format` for plain completions";
        return Err(Error::Failed(reason.into()));
    }
    let wanted = match schema {
        None => json!({ "type": "json_object" }),
        Some(schema) => json!({
            "type": "json_schema", "json_schema": { "name": "answer", "strict": true, "schema": schema },
        }),
    };
    Ok(fields(json!({ "response_format": wanted })))
}

fn probabilities(kind: Kind, chat: bool, wanted: Option<u8>) -> Map<String, Value> {
    let top = wanted.unwrap_or(0).clamp(MARKED, MAX_TOP_LOGPROBS);
    let mut body = match (chat, kind) {
        (true, _) => fields(json!({ "logprobs": true, "top_logprobs": top })),
        (false, Kind::OpenAi) => fields(json!({ "logprobs": top.min(MAX_COMPLETION_LOGPROBS) })),
        (false, _) => fields(json!({ "logprobs": top })),
    };
    if kind == Kind::Vllm && wanted.is_none() {
        // Ids take the place of the tokens' texts, so only where the buyer does not want to read these.
        body.insert("return_tokens_as_token_ids".into(), true.into());
    }
    body
}

fn schema(field: &'static str, text: &str) -> Result<Value, Error> {
    let value: Value = serde_json::from_str(text).map_err(|_| Error::bad(field, "a schema is JSON"))?;
    if value.is_object() || value.is_boolean() {
        Ok(value)
    } else {
        Err(Error::bad(field, "a schema is a JSON object"))
    }
}

fn fields(value: Value) -> Map<String, Value> {
    match value {
        Value::Object(fields) => fields,
        _ => Map::new(),
    }
}

#[cfg(test)]
mod tests;
