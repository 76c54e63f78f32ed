//! The load: so many requests over so many connections, each answer checked to be complete.

use std::time::Instant;

use anyhow::{Context, Result, ensure};
use futures::future::try_join_all;
use serde_json::{Value, json};

use super::MODEL;

/// Every token of every answer.
pub(super) const TOKEN: &str = "tok ";

/// What is looked for in an answer: it stands nowhere else in it.
const MARK: &[u8] = b"tok ";

/// Where requests go.
#[derive(Debug, Clone)]
pub struct Target {
    http: reqwest::Client,
    url: String,
    key: String,
    model: &'static str,
}

/// A number of equal requests.
#[derive(Debug, Clone, Copy)]
pub struct Load {
    /// Requests in all.
    pub requests: usize,
    /// Of them at the same time, each on a connection of its own.
    pub parallel: usize,
    /// Tokens of each answer.
    pub tokens: u64,
    /// Milliseconds between two of them if the answer is streamed; `None` for one that comes whole.
    pub pace: Option<u64>,
}

/// What came of it.
#[derive(Debug, Default)]
pub struct Measured {
    /// Microseconds to each answer's first token; of a whole answer, to its end.
    pub firsts: Vec<f64>,
    /// Answers that broke off, were refused or lacked tokens.
    pub failed: u32,
    /// One reason for it.
    pub reason: Option<String>,
    /// Seconds that all of it took.
    pub seconds: f64,
}

impl Target {
    /// A server whose OpenAI endpoints are below `base_url`, which ends in `/v1`.
    pub fn new(base_url: &str, key: &str) -> Result<Self> {
        // An error says that somebody else of this process installed it.
        drop(rustls::crypto::ring::default_provider().install_default());
        Ok(Self {
            http: reqwest::Client::builder().no_proxy().tcp_nodelay(true).build()?,
            url: format!("{base_url}/chat/completions"),
            key: key.to_owned(),
            model: MODEL,
        })
    }

    /// The same, asked for another model.
    pub(super) fn of(mut self, model: &'static str) -> Self {
        self.model = model;
        self
    }

    /// Puts the load on it.
    pub async fn bear(&self, load: Load) -> Result<Measured> {
        let started = Instant::now();
        let each = load.requests.div_ceil(load.parallel.max(1));
        let clients = (0..load.parallel).map(|_| {
            let target = self.clone();
            tokio::spawn(async move {
                let mut measured = Measured::default();
                for _ in 0..each {
                    match target.ask(load).await {
                        Ok(first) => measured.firsts.push(first),
                        Err(error) => {
                            measured.failed += 1;
                            measured.reason = Some(format!("{error:#}"));
                        }
                    }
                }
                measured
            })
        });
        let mut all = Measured::default();
        for part in try_join_all(clients).await? {
            all.firsts.extend(part.firsts);
            all.failed += part.failed;
            all.reason = all.reason.or(part.reason);
        }
        all.seconds = started.elapsed().as_secs_f64();
        Ok(all)
    }

    /// Asks once; microseconds to the first token.
    pub async fn ask(&self, load: Load) -> Result<f64> {
        let body = body(self.model, load);
        let started = Instant::now();
        let request = self.http.post(&self.url).bearer_auth(&self.key).json(&body);
        let mut response = request.send().await?;
        let status = response.status();
        let (mut seen, mut first) = (Vec::new(), None);
        while let Some(piece) = response.chunk().await? {
            let from = seen.len().saturating_sub(MARK.len() - 1);
            seen.extend_from_slice(&piece);
            if first.is_none() && seen.get(from..).is_some_and(|new| count(new) > 0) {
                first = Some(started.elapsed().as_secs_f64() * 1e6);
            }
        }
        let said = || String::from_utf8_lossy(seen.get(..400.min(seen.len())).unwrap_or_default()).into_owned();
        ensure!(status.is_success(), "{status}: {}", said());
        let tokens = count(&seen);
        ensure!(tokens == load.tokens, "{tokens} tokens of {}: {}", load.tokens, said());
        let is_ended = load.pace.is_none() || seen.trim_ascii_end().ends_with(b"data: [DONE]");
        ensure!(is_ended, "a stream without its end");
        first.context("no token")
    }
}

fn body(model: &str, load: Load) -> Value {
    let pace = load.pace.unwrap_or(0);
    let mut body = json!({
        "model": model, "messages": [{ "role": "user", "content": format!("pace {pace} milliseconds") }],
        "max_tokens": load.tokens, "temperature": 0.0,
    });
    if let (Some(fields), Some(_)) = (body.as_object_mut(), load.pace) {
        fields.insert("stream".into(), true.into());
    }
    body
}

fn count(bytes: &[u8]) -> u64 {
    let found = bytes.windows(MARK.len()).filter(|window| *window == MARK).count();
    u64::try_from(found).unwrap_or(u64::MAX)
}
