//! Calls to the server: pooled, without redirects and proxies, bounded in bytes and time. What goes wrong becomes a
//! [`Trouble`], whose text names neither the server's address nor its key.

use std::time::Duration;

use reqwest::{RequestBuilder, Response, StatusCode, header};
use serde_json::Value;

use super::{config::UpstreamConfig, key::ApiKey};
use crate::Error;

/// Longest answer that says what went wrong.
const MAX_COMPLAINT: usize = 64 << 10;

/// Time to reach the server.
const CONNECT: Duration = Duration::from_secs(5);

/// Longest wait that a server's `Retry-After` can ask for.
const MAX_PAUSE: Duration = Duration::from_secs(60);

/// What went wrong with a call.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum Trouble {
    /// It cannot be reached, or broke off. It may be starting again.
    #[error("the model's server {0}")]
    Gone(&'static str),
    /// It has too much to do, for as long as it says.
    #[error("the model's server is busy")]
    Busy(Duration),
    /// Prompt and answer do not fit.
    #[error("the model's server says that the prompt is too long")]
    TooLong,
    /// It refused the request itself.
    #[error("the model's server refused the request: {0}")]
    Refused(String),
    /// It failed.
    #[error("the model's server failed with status {0}: {1}")]
    Failed(u16, String),
    /// It answered what no server of this protocol answers.
    #[error("the model's server answered strangely: {0}")]
    Odd(String),
}

impl Trouble {
    /// Something that no server of this protocol answers.
    pub(super) fn odd(what: impl Into<String>) -> Self {
        Self::Odd(what.into())
    }

    /// Whether the server has to be looked at before it is trusted with another request.
    pub(super) fn is_ill(&self) -> bool {
        matches!(self, Self::Gone(_)) || matches!(self, Self::Failed(status, _) if *status >= 500)
    }
}

/// What the rest of the provider reads. That a request was refused is told to the buyer, the server's words are not.
impl From<Trouble> for Error {
    fn from(trouble: Trouble) -> Self {
        match trouble {
            Trouble::Busy(_) => Self::Busy,
            Trouble::Refused(_) => Self::bad("model", "the server that runs the model does not take this request"),
            Trouble::Gone(_) | Trouble::TooLong | Trouble::Failed(..) | Trouble::Odd(_) => {
                Self::Failed(trouble.to_string())
            }
        }
    }
}

/// A server, and how to talk to it.
#[derive(Debug)]
pub(super) struct Server {
    http: reqwest::Client,
    root: String,
    key: Option<ApiKey>,
}

impl Server {
    pub(super) fn new(config: &UpstreamConfig) -> Result<Self, Error> {
        let key = config.api_key_file.as_deref().map(ApiKey::read).transpose()?;
        let root = config.root()?;
        let builder = || {
            reqwest::Client::builder()
                .redirect(reqwest::redirect::Policy::none())
                .no_proxy()
                .connect_timeout(CONNECT)
                .pool_idle_timeout(Duration::from_secs(30))
        };
        let made = match builder().build() {
            // A system without certificates reaches what needs none.
            Err(_) if root.starts_with("http:") => builder().tls_certs_only([]).build(),
            made => made,
        };
        let http = made.map_err(|_| {
            let why = "the HTTP client cannot be made: does this system have certificates (Debian's ca-certificates)?";
            Error::Failed(why.into())
        })?;
        Ok(Self { http, root, key })
    }

    /// Asks for a JSON value of at most `limit` bytes.
    pub(super) async fn get(&self, path: &str, limit: usize, patience: Duration) -> Result<Value, Trouble> {
        self.value(self.http.get(self.at(path)), limit, patience).await
    }

    /// Sends a JSON value and asks for one of at most `limit` bytes.
    pub(super) async fn post(
        &self,
        path: &str,
        body: &Value,
        limit: usize,
        patience: Duration,
    ) -> Result<Value, Trouble> {
        self.value(self.http.post(self.at(path)).json(body), limit, patience)
            .await
    }

    /// Sends a JSON value and asks for a stream of events, of which only the head has arrived.
    pub(super) async fn stream(&self, path: &str, body: &Value, patience: Duration) -> Result<Response, Trouble> {
        let request = self.http.post(self.at(path)).json(body);
        let head = async {
            let response = self.send(request).await?;
            let kind = response.headers().get(header::CONTENT_TYPE);
            let kind = kind.and_then(|kind| kind.to_str().ok()).unwrap_or_default();
            if !kind.to_ascii_lowercase().starts_with("text/event-stream") {
                return Err(Trouble::odd("a stream was asked for, and none came"));
            }
            Ok(response)
        };
        within(patience, head).await
    }

    async fn value(&self, request: RequestBuilder, limit: usize, patience: Duration) -> Result<Value, Trouble> {
        let whole = async {
            let mut response = self.send(request).await?;
            let bytes = body(&mut response, limit).await?;
            serde_json::from_slice(&bytes).map_err(|_| Trouble::odd("no JSON"))
        };
        within(patience, whole).await
    }

    async fn send(&self, mut request: RequestBuilder) -> Result<Response, Trouble> {
        if let Some(header) = self.key.as_ref().and_then(ApiKey::header) {
            request = request.header(header::AUTHORIZATION, header);
        }
        let again = request.try_clone();
        let mut sent = request.send().await;
        // A connection that rested may be closed by the time that it is used again: llama.cpp's server closes some right
        // after a stream, without a word. Nothing of an answer had come, so nothing is given or counted twice.
        if let (Err(error), Some(again)) = (&sent, again)
            && error.is_request()
            && !error.is_connect()
            && !error.is_timeout()
        {
            sent = again.send().await;
        }
        let mut response = sent.map_err(|error| match () {
            () if error.is_connect() => Trouble::Gone("cannot be reached"),
            () if error.is_timeout() => Trouble::Gone("does not answer in time"),
            () => Trouble::Gone("broke off"),
        })?;
        let status = response.status();
        if status.is_success() {
            return Ok(response);
        }
        let pause = pause(&response);
        let said = body(&mut response, MAX_COMPLAINT).await.unwrap_or_default();
        Err(complaint(status, pause, &said))
    }

    fn at(&self, path: &str) -> String {
        format!("{}{path}", self.root)
    }
}

/// The rest of an answer, if it is not longer than it may be.
async fn body(response: &mut Response, limit: usize) -> Result<Vec<u8>, Trouble> {
    let mut bytes = Vec::new();
    while let Some(chunk) = response.chunk().await.map_err(|_| Trouble::Gone("broke off"))? {
        if bytes.len().saturating_add(chunk.len()) > limit {
            return Err(Trouble::odd(format!("more than {limit} bytes")));
        }
        bytes.extend_from_slice(&chunk);
    }
    Ok(bytes)
}

async fn within<T>(patience: Duration, work: impl Future<Output = Result<T, Trouble>>) -> Result<T, Trouble> {
    let done = tokio::time::timeout(patience, work).await;
    done.unwrap_or(Err(Trouble::Gone("does not answer in time")))
}

fn pause(response: &Response) -> Duration {
    let header = response.headers().get(header::RETRY_AFTER);
    let seconds = header.and_then(|value| value.to_str().ok()?.trim().parse().ok());
    Duration::from_secs(seconds.unwrap_or(1)).min(MAX_PAUSE)
}

fn complaint(status: StatusCode, pause: Duration, said: &[u8]) -> Trouble {
    let value: Value = serde_json::from_slice(said).unwrap_or_default();
    match status.as_u16() {
        429 | 503 => Trouble::Busy(pause),
        400 | 413 | 422 if is_about_length(&value) => Trouble::TooLong,
        400 | 422 => Trouble::Refused(message(&value)),
        status => Trouble::Failed(status, message(&value)),
    }
}

/// What a server says inside `error`, for the provider's own log.
pub(super) fn message(value: &Value) -> String {
    let places = ["/error/message", "/message", "/error", "/detail"];
    let found = places
        .iter()
        .find_map(|place| value.pointer(place).and_then(Value::as_str));
    found.unwrap_or("no reason given").chars().take(400).collect()
}

fn is_about_length(value: &Value) -> bool {
    let code = ["/error/code", "/error/type", "/type", "/code"]
        .iter()
        .filter_map(|place| value.pointer(place).and_then(Value::as_str))
        .any(|code| matches!(code, "context_length_exceeded" | "exceed_context_size_error"));
    code || message(value).contains("maximum context length")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn told(status: u16, value: &Value) -> Trouble {
        let status = StatusCode::from_u16(status).unwrap();
        complaint(status, Duration::from_secs(2), value.to_string().as_bytes())
    }

    #[test]
    fn what_a_server_complains_of_decides_whether_to_try_again() {
        let nothing = json!({});
        for busy in [429, 503] {
            let error = Error::from(told(busy, &nothing));
            assert_eq!(error, Error::Busy);
            assert!(error.retryable());
        }
        let long = json!({ "error": { "type": "exceed_context_size_error", "message": "too long" } });
        assert_eq!(told(400, &long), Trouble::TooLong);
        assert!(!Error::from(told(400, &nothing)).retryable());
        for failed in [301, 401, 404, 500, 502] {
            assert!(Error::from(told(failed, &nothing)).retryable(), "{failed}");
        }
    }

    #[test]
    fn the_words_of_a_server_are_for_the_log_only() {
        let value = json!({ "error": { "message": "at http://10.0.0.7 with sk-secret" } });
        for status in [400, 401, 500] {
            let public = Error::from(told(status, &value)).public();
            assert!(!public.contains("secret") && !public.contains("10.0.0.7"), "{public}");
        }
    }
}
