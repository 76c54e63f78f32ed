//! A plain HTTP client of the gateway, for what the official clients do not show.

use anyhow::{Context, Result};
use futures::StreamExt;
use serde_json::{Value, json};

/// An API key at a gateway.
#[derive(Clone)]
pub struct Client {
    http: reqwest::Client,
    base_url: String,
    api_key: String,
}

/// What came of a streamed answer.
#[derive(Debug, Clone, Default)]
pub struct Streamed {
    /// The text of all deltas.
    pub text: String,
    /// Deltas with text.
    pub deltas: usize,
    /// The `usage` of the last event that had one.
    pub usage: Option<Value>,
    /// The `error` of an error event.
    pub error: Option<Value>,
    /// Whether `[DONE]` came.
    pub done: bool,
}

impl Client {
    /// A client of the gateway at `base_url`, which ends in `/v1`.
    pub fn new(base_url: &str, api_key: &str) -> Self {
        // An error says that another test of this process installed it.
        drop(rustls::crypto::ring::default_provider().install_default());
        let http = reqwest::Client::builder().no_proxy().build().unwrap_or_default();
        Self {
            http,
            base_url: base_url.to_owned(),
            api_key: api_key.to_owned(),
        }
    }

    /// The same gateway with another key.
    pub fn with_key(&self, api_key: &str) -> Self {
        Self {
            api_key: api_key.to_owned(),
            ..self.clone()
        }
    }

    /// The gateway's address without `/v1`.
    pub fn root(&self) -> &str {
        self.base_url.trim_end_matches("/v1")
    }

    /// The body of a chat request.
    pub fn chat_body(model: &str, text: &str, max_tokens: u64) -> Value {
        json!({
            "model": model, "messages": [{ "role": "user", "content": text }],
            "max_tokens": max_tokens, "temperature": 0.0, "seed": 1,
        })
    }

    /// Posts to a path under `/v1`; returns the status, the headers and the body.
    pub async fn post(
        &self,
        path: &str,
        body: &Value,
        headers: &[(&str, &str)],
    ) -> Result<(u16, reqwest::header::HeaderMap, Value)> {
        let mut request = self
            .http
            .post(format!("{}{path}", self.base_url))
            .bearer_auth(&self.api_key)
            .json(body);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let response = request.send().await?;
        let (status, headers) = (response.status().as_u16(), response.headers().clone());
        let text = response.text().await?;
        let value = serde_json::from_str(&text).unwrap_or(Value::String(text));
        Ok((status, headers, value))
    }

    /// Uploads a batch's file; returns what the gateway calls it.
    pub async fn upload(&self, name: &str, content: &str) -> Result<Value> {
        let form = format!(
            "--B\r\nContent-Disposition: form-data; name=\"purpose\"\r\n\r\nbatch\r\n--B\r\nContent-Disposition: \
             form-data; name=\"file\"; filename=\"{name}\"\r\n\r\n{content}\r\n--B--\r\n"
        );
        let request = self
            .http
            .post(format!("{}/files", self.base_url))
            .bearer_auth(&self.api_key);
        let request = request
            .header("content-type", "multipart/form-data; boundary=B")
            .body(form);
        let response = request.send().await?;
        let status = response.status();
        let text = response.text().await?;
        anyhow::ensure!(status.is_success(), "{status}: {text}");
        Ok(serde_json::from_str(&text)?)
    }

    /// Gets a path under the gateway's root.
    pub async fn get(&self, path: &str) -> Result<(u16, Value)> {
        let response = self
            .http
            .get(format!("{}{path}", self.root()))
            .bearer_auth(&self.api_key)
            .send()
            .await?;
        let status = response.status().as_u16();
        let text = response.text().await?;
        Ok((status, serde_json::from_str(&text).unwrap_or(Value::String(text))))
    }

    /// Asks and returns the whole answer; anything but 200 is an error.
    pub async fn chat(&self, model: &str, text: &str, max_tokens: u64) -> Result<Value> {
        let (status, _, body) = self
            .post("/chat/completions", &Self::chat_body(model, text, max_tokens), &[])
            .await?;
        anyhow::ensure!(status == 200, "{status}: {body}");
        Ok(body)
    }

    /// Asks for a streamed chat; `seen` is called after each event and ends it by returning false.
    pub async fn stream(
        &self,
        model: &str,
        text: &str,
        max_tokens: u64,
        seen: impl FnMut(&Streamed) -> bool,
    ) -> Result<Streamed> {
        self.stream_of("/chat/completions", Self::chat_body(model, text, max_tokens), seen)
            .await
    }

    /// Asks for a streamed continuation of a text, which goes on to the limit of tokens.
    pub async fn continue_text(
        &self,
        model: &str,
        text: &str,
        max_tokens: u64,
        seen: impl FnMut(&Streamed) -> bool,
    ) -> Result<Streamed> {
        let body = json!({ "model": model, "prompt": text, "max_tokens": max_tokens, "temperature": 0.8, "seed": 7 });
        self.stream_of("/completions", body, seen).await
    }

    async fn stream_of(
        &self,
        path: &str,
        mut body: Value,
        mut seen: impl FnMut(&Streamed) -> bool,
    ) -> Result<Streamed> {
        if let Some(fields) = body.as_object_mut() {
            fields.insert("stream".into(), true.into());
            fields.insert("stream_options".into(), json!({ "include_usage": true }));
        }
        let request = self
            .http
            .post(format!("{}{path}", self.base_url))
            .bearer_auth(&self.api_key);
        let response = request.json(&body).send().await?;
        let status = response.status();
        anyhow::ensure!(status.is_success(), "{status}: {}", response.text().await?);
        let (mut pieces, mut buffer, mut all) = (response.bytes_stream(), Vec::new(), Streamed::default());
        while let Some(piece) = pieces.next().await {
            let Ok(piece) = piece else { break };
            buffer.extend_from_slice(&piece);
            while let Some(end) = buffer.windows(2).position(|window| window == b"\n\n") {
                let event: Vec<u8> = buffer.drain(..end + 2).collect();
                take(&mut all, &String::from_utf8_lossy(&event))?;
                if !seen(&all) {
                    return Ok(all);
                }
            }
        }
        Ok(all)
    }
}

fn take(all: &mut Streamed, event: &str) -> Result<()> {
    let Some(data) = event.lines().find_map(|line| line.strip_prefix("data: ")) else {
        return Ok(());
    };
    if data == "[DONE]" {
        all.done = true;
        return Ok(());
    }
    let value: Value = serde_json::from_str(data).with_context(|| format!("not JSON: {data}"))?;
    let delta = value
        .pointer("/choices/0/delta/content")
        .or_else(|| value.pointer("/choices/0/text"));
    if let Some(text) = delta.and_then(Value::as_str)
        && !text.is_empty()
    {
        all.text += text;
        all.deltas += 1;
    }
    if let Some(usage) = value.get("usage").filter(|usage| !usage.is_null()) {
        all.usage = Some(usage.clone());
    }
    if let Some(error) = value.get("error") {
        all.error = Some(error.clone());
    }
    Ok(())
}
