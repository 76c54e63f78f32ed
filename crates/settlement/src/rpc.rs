//! One JSON-RPC connection over HTTP: bounded in time and size, and exact about what reached the node.

use std::{
    task::{Context, Poll},
    time::Duration,
};

use alloy::{
    primitives::Bytes,
    rpc::{
        client::RpcClient,
        json_rpc::{ErrorPayload, RequestPacket, ResponsePacket, RpcError, RpcRecv, RpcSend},
    },
    transports::{TransportError, TransportErrorKind, TransportFut},
};
use reqwest::{Client, Url, redirect::Policy};

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
}

impl From<Failure> for Error {
    fn from(failure: Failure) -> Self {
        match failure {
            Failure::NotDelivered(reason) | Failure::NoAnswer(reason) => Self::Unreachable { reason },
            Failure::Refused { .. } => crate::revert::classify(failure),
            Failure::Corrupt(what) => Self::Corrupt { what },
        }
    }
}

/// A connection.
#[derive(Clone)]
pub(crate) struct Rpc {
    client: RpcClient,
}

impl Rpc {
    /// For an `http` or `https` address. Connects on the first call.
    pub(crate) fn new(url: &str, timeout: Duration) -> Result<Self, Error> {
        let bad = |reason: &str| Error::invalid(format!("the address of the chain's RPC {reason}"));
        let url: Url = url.parse().map_err(|_| bad("is not a URL"))?;
        if !matches!(url.scheme(), "http" | "https") {
            return Err(bad("must start with http:// or https://"));
        }
        let local = is_loopback(&url);
        let http = Http {
            client: http_client(timeout, local).map_err(|error| bad(&format!("cannot be used: {error}")))?,
            url,
        };
        Ok(Self {
            client: RpcClient::new(http, local),
        })
    }

    /// Calls a method.
    pub(crate) async fn request<P: RpcSend, R: RpcRecv>(&self, method: &'static str, params: P) -> Result<R, Failure> {
        self.client
            .request(method, params)
            .await
            .map_err(|error| failure(method, error))
    }
}

fn is_loopback(url: &Url) -> bool {
    url.host_str().is_some_and(|host| {
        let address = host.trim_start_matches('[').trim_end_matches(']');
        host == "localhost" || address.parse::<std::net::IpAddr>().is_ok_and(|ip| ip.is_loopback())
    })
}

fn http_client(timeout: Duration, local: bool) -> Result<Client, reqwest::Error> {
    if rustls::crypto::CryptoProvider::get_default().is_none() {
        // The client is built without one of its own. Another thread that is quicker installs one as good.
        let _ = rustls::crypto::ring::default_provider().install_default();
    }
    let builder = Client::builder()
        .timeout(timeout)
        .connect_timeout(timeout.min(Duration::from_secs(5)))
        .redirect(Policy::none());
    // A proxy of the environment cannot reach this machine's own ports.
    if local { builder.no_proxy() } else { builder }.build()
}

/// alloy's transport over a client of ours: the one that alloy brings reads answers of any size.
#[derive(Clone)]
struct Http {
    client: Client,
    url: Url,
}

impl Http {
    async fn exchange(self, request: RequestPacket) -> Result<ResponsePacket, Failure> {
        let sent = self.client.post(self.url).json(&request).send().await;
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
        match serde_json::from_slice(&body) {
            Ok(packet) => Ok(packet),
            Err(_) if !status.is_success() => Err(Failure::NoAnswer(format!("HTTP status {}", status.as_u16()))),
            Err(_) => Err(Failure::Corrupt("an answer that is not JSON-RPC".into())),
        }
    }
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

impl tower::Service<RequestPacket> for Http {
    type Response = ResponsePacket;
    type Error = TransportError;
    type Future = TransportFut<'static>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: RequestPacket) -> Self::Future {
        let this = self.clone();
        Box::pin(async move { this.exchange(request).await.map_err(TransportErrorKind::custom) })
    }
}

fn failure(method: &'static str, error: TransportError) -> Failure {
    match error {
        RpcError::ErrorResp(payload) => refused(&payload),
        RpcError::Transport(TransportErrorKind::Custom(inner)) => match inner.downcast::<Failure>() {
            Ok(failure) => *failure,
            Err(other) => Failure::NoAnswer(shorten(&other.to_string())),
        },
        RpcError::Transport(other) => Failure::NoAnswer(shorten(&other.to_string())),
        RpcError::NullResp | RpcError::DeserError { .. } => Failure::Corrupt(format!("the result of {method}")),
        other => Failure::Corrupt(shorten(&other.to_string())),
    }
}

fn refused(payload: &ErrorPayload) -> Failure {
    Failure::Refused {
        code: payload.code,
        message: shorten(&payload.message),
        data: payload.data.as_ref().and_then(|data| revert_data(data.get())),
    }
}

/// The bytes a contract reverted with: a text in the error's `data`, or one level deeper as some nodes have it.
fn revert_data(json: &str) -> Option<Bytes> {
    let value: serde_json::Value = serde_json::from_str(json).ok()?;
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
