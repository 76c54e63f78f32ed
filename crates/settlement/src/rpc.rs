//! One node's JSON-RPC over HTTP: bounded in time and size, and exact about what reached the node.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use alloy::primitives::Bytes;
use futures::{FutureExt as _, future::BoxFuture};
use reqwest::{Client, Url, header::CONTENT_TYPE, redirect::Policy};
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use serde_json::value::RawValue;

use crate::Error;

/// Most bytes of one answer: a thousand blocks of logs fit, and a hostile node cannot fill the memory.
const MAX_ANSWER_BYTES: usize = 32 << 20;

/// Most characters that are kept of what a node says.
const MAX_WORDS: usize = 300;

/// Why a call gave no answer.
#[derive(Debug, Clone, thiserror::Error)]
pub(crate) enum Failure {
    /// No connection: nothing reached the node.
    #[error("{0}")]
    NotDelivered(String),
    /// The request may have reached the node.
    #[error("{0}")]
    NoAnswer(String),
    /// The node answered with an error.
    #[error("{message} (code {code})")]
    Refused {
        code: i64,
        message: String,
        data: Option<Bytes>,
    },
    /// The answer is not one.
    #[error("{0}")]
    Corrupt(String),
    /// The node serves another chain than the market's, so it was not asked.
    #[error("the node serves chain {found} instead of {expected}")]
    WrongChain { expected: u64, found: u64 },
}

/// What nodes say when they, and not the call, are at fault: too busy, or without the state that was asked for.
const UNABLE: [&str; 5] = [
    "limit exceeded",
    "rate limit",
    "too many requests",
    "header not found",
    "missing trie node",
];

impl Failure {
    /// Whether another node may well do better.
    pub(crate) fn is_the_nodes(&self) -> bool {
        let Self::Refused { code, message, .. } = self else {
            return true;
        };
        let message = message.to_lowercase();
        *code == -32005 || UNABLE.iter().any(|words| message.contains(words))
    }
}

impl From<Failure> for Error {
    fn from(failure: Failure) -> Self {
        match failure {
            Failure::NotDelivered(reason) | Failure::NoAnswer(reason) => Self::Unreachable { reason },
            Failure::Refused { .. } => crate::revert::classify(failure),
            Failure::Corrupt(what) => Self::Corrupt { what },
            Failure::WrongChain { expected, found } => Self::WrongChain { expected, found },
        }
    }
}

#[derive(Serialize)]
struct Call<'a, P> {
    jsonrpc: &'static str,
    id: u64,
    method: &'a str,
    params: P,
}

#[derive(Deserialize)]
struct Answer {
    id: Option<u64>,
    result: Option<Box<RawValue>>,
    error: Option<Refusal>,
}

#[derive(Deserialize)]
struct Refusal {
    code: i64,
    message: String,
    data: Option<serde_json::Value>,
}

/// A connection. alloy brings one too, but it reads answers of any size and does not say what reached the node.
#[derive(Clone)]
pub(crate) struct Rpc {
    client: Client,
    url: Url,
    calls: Arc<AtomicU64>,
}

impl Rpc {
    /// For an `http` or `https` address. Connects on the first call.
    pub(crate) fn new(url: &str, timeout: Duration) -> Result<Self, Error> {
        let bad = |reason: &str| Error::invalid(format!("the address of the chain's RPC {reason}"));
        let url: Url = url.parse().map_err(|_| bad("is not a URL"))?;
        if !matches!(url.scheme(), "http" | "https") {
            return Err(bad("must start with http:// or https://"));
        }
        Ok(Self {
            client: http_client(timeout, &url).map_err(|reason| bad(&format!("cannot be used: {reason}")))?,
            url,
            calls: Arc::default(),
        })
    }

    /// Calls a method with its parameters as a tuple.
    pub(crate) async fn request<P: Serialize, R: DeserializeOwned>(
        &self,
        method: &'static str,
        params: P,
    ) -> Result<R, Failure> {
        let call = Call {
            jsonrpc: "2.0",
            id: self.calls.fetch_add(1, Ordering::Relaxed),
            method,
            params,
        };
        let corrupt = || Failure::Corrupt(format!("the result of {method}"));
        let body = serde_json::to_vec(&call).map_err(|_| corrupt())?;
        let body = self.exchange(body).await?;
        let answer: Answer = serde_json::from_slice(&body).map_err(|_| corrupt())?;
        if let Some(refusal) = answer.error {
            return Err(Failure::Refused {
                code: refusal.code,
                message: shorten(&refusal.message),
                data: refusal.data.as_ref().and_then(revert_data),
            });
        }
        if answer.id != Some(call.id) {
            return Err(corrupt());
        }
        let result = answer.result.as_ref().map_or("null", |result| result.get());
        serde_json::from_str(result).map_err(|_| corrupt())
    }

    /// Boxed: compiled here, once, and not for each kind of call in each program.
    fn exchange(&self, call: Vec<u8>) -> BoxFuture<'_, Result<Vec<u8>, Failure>> {
        self.post(call).boxed()
    }

    async fn post(&self, call: Vec<u8>) -> Result<Vec<u8>, Failure> {
        let request = self
            .client
            .post(self.url.clone())
            .header(CONTENT_TYPE, "application/json");
        let sent = request.body(call).send().await;
        let mut response = sent.map_err(unanswered)?;
        let status = response.status();
        let mut body = Vec::new();
        while let Some(chunk) = response.chunk().await.map_err(unanswered)? {
            if body.len().saturating_add(chunk.len()) > MAX_ANSWER_BYTES {
                return Err(Failure::Corrupt(format!(
                    "an answer of more than {MAX_ANSWER_BYTES} bytes"
                )));
            }
            body.extend_from_slice(&chunk);
        }
        // Some nodes answer a refusal with an error status; whatever else has one is no answer of the node.
        if !status.is_success() && serde_json::from_slice::<Answer>(&body).is_err() {
            return Err(Failure::NoAnswer(format!("HTTP status {}", status.as_u16())));
        }
        Ok(body)
    }
}

fn is_loopback(url: &Url) -> bool {
    url.host_str().is_some_and(|host| {
        let address = host.trim_start_matches('[').trim_end_matches(']');
        host == "localhost" || address.parse::<std::net::IpAddr>().is_ok_and(|ip| ip.is_loopback())
    })
}

/// Fails, and says why, where the address needs certificates and this system has none.
fn http_client(timeout: Duration, url: &Url) -> Result<Client, String> {
    if rustls::crypto::CryptoProvider::get_default().is_none() {
        // The client is built without one of its own. Another thread that is quicker installs one as good.
        let _ = rustls::crypto::ring::default_provider().install_default();
    }
    let builder = || {
        let builder = Client::builder()
            .timeout(timeout)
            .connect_timeout(timeout.min(Duration::from_secs(5)))
            .redirect(Policy::none());
        // A proxy of the environment cannot reach this machine's own ports.
        if is_loopback(url) { builder.no_proxy() } else { builder }
    };
    let made = match builder().build() {
        // A bare system reaches what needs no certificates.
        Err(_) if url.scheme() == "http" => builder().tls_certs_only([]).build(),
        made => made,
    };
    made.map_err(|error| {
        let cause = std::error::Error::source(&error).map_or_else(|| error.to_string(), ToString::to_string);
        format!("{cause}: does this system have certificates (Debian's ca-certificates)?")
    })
}

fn unanswered(error: reqwest::Error) -> Failure {
    let connecting = error.is_connect();
    let mut reason = error.without_url().to_string();
    if connecting {
        reason = "no connection".into();
    }
    match connecting {
        true => Failure::NotDelivered(reason),
        false => Failure::NoAnswer(reason),
    }
}

/// The bytes a contract reverted with: a text in the error's `data`, or one level deeper as some nodes have it.
fn revert_data(value: &serde_json::Value) -> Option<Bytes> {
    let text = value.as_str().or_else(|| value.get("data")?.as_str())?;
    text.strip_prefix("0x")
        .and_then(|digits| hex::decode(digits).ok())
        .map(Bytes::from)
}

/// What a node says, on one line and not too long for a log.
pub(crate) fn shorten(words: &str) -> String {
    words
        .chars()
        .map(|c| if c.is_control() { ' ' } else { c })
        .take(MAX_WORDS)
        .collect()
}
