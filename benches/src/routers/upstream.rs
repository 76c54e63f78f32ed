//! The model's server behind every contestant: OpenAI's protocol, tokens that are all the same, a pace that the prompt
//! names. It is a process of its own, so that what it spends is nobody's.

use std::{io::Write as _, time::Duration};

use anyhow::{Context, Result};
use axum::{
    Json, Router,
    body::{Body, Bytes},
    http::{StatusCode, header::CONTENT_TYPE},
    response::{IntoResponse, Response},
    routing::{get, post},
    serve::ListenerExt as _,
};
use futures::stream;
use serde_json::{Value, json};
use tokio::{
    io::AsyncReadExt as _,
    net::TcpListener,
    time::{Instant, MissedTickBehavior, interval_at},
};

use super::{MODEL, load::TOKEN};

/// Most tokens of an answer.
const MOST: u64 = 4_096;

/// Serves on a port of its own, which it prints, until its standard input ends.
#[expect(clippy::print_stdout, reason = "the parent reads the address")]
pub async fn serve() -> Result<()> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    println!("{}", listener.local_addr()?);
    std::io::stdout().flush()?;
    let models = json!({ "object": "list", "data": [{ "id": MODEL, "object": "model", "owned_by": "bench" }] });
    let facts = json!({ "model_path": MODEL, "served_model_name": MODEL, "is_generation": true });
    let app = Router::new()
        .route("/health", get(|| async { "ok" }))
        .route("/v1/models", get(move || async move { Json(models) }))
        .route("/get_model_info", get(move || async move { Json(facts) }))
        .route("/v1/chat/completions", post(answer))
        .route("/v1/completions", post(complete));
    let listener = listener.tap_io(|socket| drop(socket.set_nodelay(true)));
    let orphaned = async { drop(tokio::io::stdin().read_to_end(&mut Vec::new()).await) };
    axum::serve(listener, app).with_graceful_shutdown(orphaned).await?;
    Ok(())
}

/// What a request asks for.
struct Asked {
    tokens: u64,
    stream: bool,
    usage: bool,
    /// Between two tokens; `None`: all at once.
    pace: Option<Duration>,
}

impl Asked {
    fn read(body: &[u8]) -> Result<Self> {
        let value: Value = serde_json::from_slice(body)?;
        let field = |place: &str| value.pointer(place);
        let tokens = field("/max_tokens").or_else(|| field("/max_completion_tokens"));
        let prompt = value.pointer("/messages/0/content").and_then(Value::as_str);
        let pace = prompt.and_then(|text| text.strip_prefix("pace ")?.split(' ').next()?.parse().ok());
        Ok(Self {
            tokens: tokens.and_then(Value::as_u64).context("max_tokens")?.min(MOST),
            stream: field("/stream") == Some(&Value::Bool(true)),
            usage: field("/stream_options/include_usage") == Some(&Value::Bool(true)),
            pace: pace.filter(|pace| *pace > 0).map(Duration::from_millis),
        })
    }

    fn counts(&self) -> Value {
        json!({ "prompt_tokens": 4, "completion_tokens": self.tokens, "total_tokens": self.tokens + 4 })
    }

    /// What comes with the last token.
    fn end(&self) -> String {
        let finish = chunk(&json!([{ "index": 0, "delta": {}, "finish_reason": "length" }]), None);
        let usage = if self.usage {
            chunk(&json!([]), Some(self.counts()))
        } else {
            String::new()
        };
        finish + &usage + "data: [DONE]\n\n"
    }
}

async fn answer(body: Bytes) -> Response {
    match Asked::read(&body) {
        Ok(asked) if asked.stream => streamed(asked),
        Ok(asked) => whole(&asked).into_response(),
        Err(error) => (StatusCode::BAD_REQUEST, error.to_string()).into_response(),
    }
}

/// The plain completion that a new market buys for its first trade: always a stream, all at once.
async fn complete(body: Bytes) -> Response {
    let asked = match Asked::read(&body) {
        Ok(asked) => asked,
        Err(error) => return (StatusCode::BAD_REQUEST, error.to_string()).into_response(),
    };
    let token = chunk(&json!([{ "index": 0, "text": TOKEN, "finish_reason": null }]), None);
    let finish = chunk(&json!([{ "index": 0, "text": "", "finish_reason": "length" }]), None);
    let usage = chunk(&json!([]), Some(asked.counts()));
    let tokens = token.repeat(usize::try_from(asked.tokens).unwrap_or(0));
    let body = tokens + &finish + &usage + "data: [DONE]\n\n";
    ([(CONTENT_TYPE, "text/event-stream")], body).into_response()
}

fn whole(asked: &Asked) -> Json<Value> {
    let text = TOKEN.repeat(usize::try_from(asked.tokens).unwrap_or(0));
    Json(json!({
        "id": "chatcmpl-0", "object": "chat.completion", "created": 1_700_000_000, "model": MODEL,
        "choices": [{ "index": 0, "message": { "role": "assistant", "content": text }, "finish_reason": "length" }],
        "usage": asked.counts(),
    }))
}

/// The first token comes at once, each further one on its beat, and the end with the last.
fn streamed(asked: Asked) -> Response {
    let token = chunk(
        &json!([{ "index": 0, "delta": { "role": "assistant", "content": TOKEN }, "finish_reason": null }]),
        None,
    );
    let body = match asked.pace {
        None => {
            let tokens = token.repeat(usize::try_from(asked.tokens).unwrap_or(0));
            Body::from(tokens + &asked.end())
        }
        Some(pace) => {
            let mut beat = interval_at(Instant::now(), pace);
            beat.set_missed_tick_behavior(MissedTickBehavior::Burst);
            let token = Bytes::from(token);
            let pieces = stream::unfold((0, beat, asked, token), |(sent, mut beat, asked, token)| async move {
                if sent >= asked.tokens {
                    return None;
                }
                beat.tick().await;
                let piece = if sent + 1 == asked.tokens {
                    Bytes::from([token.as_ref(), asked.end().as_bytes()].concat())
                } else {
                    token.clone()
                };
                Some((Ok::<_, std::convert::Infallible>(piece), (sent + 1, beat, asked, token)))
            });
            Body::from_stream(pieces)
        }
    };
    ([(CONTENT_TYPE, "text/event-stream")], body).into_response()
}

fn chunk(choices: &Value, usage: Option<Value>) -> String {
    let mut event = json!({
        "id": "chatcmpl-0", "object": "chat.completion.chunk", "created": 1_700_000_000, "model": MODEL,
        "choices": choices,
    });
    if let (Some(fields), Some(usage)) = (event.as_object_mut(), usage) {
        fields.insert("usage".into(), usage);
    }
    format!("data: {event}\n\n")
}
