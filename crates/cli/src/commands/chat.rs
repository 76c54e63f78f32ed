//! `rialto chat`: one question to a model, answered as it is written.

use std::{io::Read, path::Path};

use anyhow::{Context, Result, bail};
use futures::StreamExt;
use serde_json::{Value, json};
use zeroize::Zeroizing;

use crate::{args, output, settings::Settings};

/// Most bytes of a message from standard input.
const MAX_INPUT: u64 = 1 << 20;

/// Most bytes of one event of the stream.
const MAX_EVENT: usize = 1 << 20;

/// Asks, and prints the answer.
pub(crate) async fn run(settings: &Settings, options: &args::Chat) -> Result<()> {
    let message = if options.message.is_empty() {
        from_input()?
    } else {
        options.message.join(" ")
    };
    let base = options.base_url.clone().map_or_else(|| default_base(settings), Ok)?;
    let mut body = json!({
        "model": options.model,
        "messages": [{ "role": "user", "content": message }],
        "max_tokens": options.max_tokens,
        "temperature": options.temperature,
        "stream": !settings.json,
        "stream_options": (!settings.json).then(|| json!({ "include_usage": true })),
    });
    if let (Some(seed), Some(fields)) = (options.seed, body.as_object_mut()) {
        fields.insert("seed".into(), seed.into());
    }
    let wanted = json!({
        "sort": options.sort, "region": options.region, "hedge_after_ms": options.hedge_after,
    });
    if let Some(fields) = body.as_object_mut() {
        fields.insert("provider".into(), wanted);
    }
    let client = client(&base)?;
    let mut request = client.post(format!("{}/chat/completions", base.trim_end_matches('/')));
    if options.explain {
        request = request.header("x-rialto-explain", "1");
    }
    let response = request
        .bearer_auth(api_key(settings, options.api_key_file.as_deref())?.as_str())
        .json(&body)
        .send()
        .await;
    let response =
        response.with_context(|| format!("the gateway at {base} does not answer: is `rialto up` running?"))?;
    if !response.status().is_success() {
        let status = response.status();
        let text = response.text().await.unwrap_or_default();
        let error: Value = serde_json::from_str(&text).unwrap_or_default();
        bail!(
            "{status}: {}",
            error.pointer("/error/message").and_then(Value::as_str).unwrap_or(&text)
        );
    }
    if let Some(route) = response.headers().get("x-rialto-route") {
        explain(route.to_str().unwrap_or_default());
    }
    if settings.json {
        output::line(response.text().await?);
        return Ok(());
    }
    stream(response).await
}

/// Says why a request went where it went.
fn explain(route: &str) {
    let route: Value = serde_json::from_str(route).unwrap_or_default();
    let chosen = route.get("chosen").cloned().unwrap_or_default();
    let field = |name: &str| chosen.get(name).cloned().unwrap_or_default();
    output::say(format_args!(
        "{} decided for {}; sellers: {}",
        route.get("reason").and_then(Value::as_str).unwrap_or("?"),
        field("provider").as_str().unwrap_or("?"),
        route.get("sellers").unwrap_or(&Value::Null)
    ));
    output::say(format_args!(
        "  likely cost {} nano-dollars (cheapest {}), first output {} s, {} units/s, reliability {}, {}/{} requests, open channel {}",
        field("likely_cost_nanodollars"),
        route.get("cheapest_nanodollars").unwrap_or(&Value::Null),
        field("first_output_seconds"),
        field("output_per_second"),
        field("reliability"),
        field("in_flight"),
        field("capacity"),
        field("open_channel"),
    ));
}

async fn stream(response: reqwest::Response) -> Result<()> {
    let mut pieces = response.bytes_stream();
    let mut buffer: Vec<u8> = Vec::new();
    let mut usage = Value::Null;
    while let Some(piece) = pieces.next().await {
        buffer.extend_from_slice(&piece.context("the answer broke off")?);
        while let Some(end) = buffer.windows(2).position(|window| window == b"\n\n") {
            let event: Vec<u8> = buffer.drain(..end + 2).collect();
            if let Some(found) = show(&event)? {
                usage = found;
            }
        }
        anyhow::ensure!(buffer.len() <= MAX_EVENT, "the gateway sent an event that is too long");
    }
    output::line("");
    if let Some(cost) = usage.get("cost") {
        output::say(format_args!(
            "{} tokens, cost {cost} dollars{}",
            usage.get("total_tokens").unwrap_or(&Value::Null),
            saved(&usage).unwrap_or_default()
        ));
    }
    Ok(())
}

/// What was saved against the list price, if there is one.
fn saved(usage: &Value) -> Option<String> {
    let nano = |name: &str| usage.pointer(&format!("/trade/{name}"))?.as_str()?.parse::<i128>().ok();
    let (cost, list) = (nano("cost_nanodollars")?, nano("list_nanodollars")?);
    let percent = (list.checked_sub(cost)?).checked_mul(100)?.checked_div(list)?;
    Some(format!(", {percent}% less than the list price"))
}

/// Prints the text of one event; returns the usage if it has one.
fn show(event: &[u8]) -> Result<Option<Value>> {
    let text = String::from_utf8_lossy(event);
    let Some(data) = text.lines().find_map(|line| line.strip_prefix("data:")) else {
        return Ok(None);
    };
    if data.trim() == "[DONE]" {
        return Ok(None);
    }
    let value: Value = serde_json::from_str(data.trim()).context("the gateway sent an event that is not JSON")?;
    if let Some(message) = value.pointer("/error/message").and_then(Value::as_str) {
        bail!("{message}");
    }
    if let Some(text) = value.pointer("/choices/0/delta/content").and_then(Value::as_str) {
        output::piece(text);
    }
    Ok(value.get("usage").filter(|usage| !usage.is_null()).cloned())
}

fn from_input() -> Result<String> {
    let mut text = String::new();
    std::io::stdin()
        .take(MAX_INPUT)
        .read_to_string(&mut text)
        .context("the message on standard input")?;
    anyhow::ensure!(
        !text.trim().is_empty(),
        "nothing to say: give a message, or pipe one in"
    );
    Ok(text)
}

pub(super) fn default_base(settings: &Settings) -> Result<String> {
    let known = settings.dir.read(super::gateway::ADDRESS)?;
    known.context("no gateway was started from this data directory: run `rialto up`, or give --base-url")
}

/// How to talk to a gateway.
pub(super) fn client(url: &str) -> Result<reqwest::Client> {
    let builder = || reqwest::Client::builder().no_proxy();
    let made = match builder().build() {
        // A system without certificates reaches what needs none.
        Err(_) if url.starts_with("http:") => builder().tls_certs_only([]).build(),
        made => made,
    };
    made.context("does this system have certificates (Debian's ca-certificates)?")
}

/// From the file that was named, the environment, or the data directory; never from the command line.
pub(super) fn api_key(settings: &Settings, file: Option<&Path>) -> Result<Zeroizing<String>> {
    if let Some(path) = file {
        let text = std::fs::read_to_string(path).with_context(|| format!("the key file {}", path.display()))?;
        return Ok(Zeroizing::new(text.trim().to_owned()));
    }
    if let Ok(text) = std::env::var("OPENAI_API_KEY") {
        return Ok(Zeroizing::new(text));
    }
    let text = settings.dir.read(super::gateway::API_KEY)?;
    text.map(Zeroizing::new)
        .context("no API key: set OPENAI_API_KEY, or create one with `rialto key create NAME`")
}
