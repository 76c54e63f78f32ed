//! How a provider wants a server to be sold.

use std::{path::PathBuf, time::Duration};

use rialto_protocol::manifest::{Manifest, TaskKind};
use serde::{Deserialize, Serialize};

use crate::Error;

/// Which program answers. They speak OpenAI's protocol alike, and differ in what they take and tell beyond it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// vLLM: its own tokenizer, token ids, a running count.
    Vllm,
    /// llama.cpp's server: its own tokenizer, token ids, a running count.
    LlamaCpp,
    /// Ollama: no tokenizer, no `top_k` or `min_p`.
    Ollama,
    /// Anything else: only what OpenAI documents is sent.
    OpenAi,
}

/// A server that speaks OpenAI's protocol, and the model of it that is sold.
#[derive(Debug, Clone)]
pub struct UpstreamConfig {
    /// The model as it is listed: `publisher/name:tag`.
    pub name: String,
    /// What is sold: chat (which includes completion), completion or embedding.
    pub task: TaskKind,
    /// Most tokens of prompt and answer together, by the manifest; zero when it does not say.
    pub context: u64,
    /// Where the server is, with or without `/v1`: `http://127.0.0.1:8000`.
    pub url: String,
    /// What the server calls the model.
    pub model: String,
    /// A file that only its owner can read, with the server's key in it.
    pub api_key_file: Option<PathBuf>,
    /// Which program it is; `None` to find out.
    pub kind: Option<Kind>,
    /// Requests that it is given at the same time; `None` for what it tells, or four.
    pub slots: Option<u32>,
    /// Requests that may wait for one of them; one more is refused as busy.
    pub queue: u32,
    /// Longest time from a request to its first token.
    pub first_token: Duration,
    /// Longest time from one token to the next.
    pub between_tokens: Duration,
    /// Time between two looks at a healthy server. An ill one is looked at more often at first.
    pub probe_every: Duration,
}

impl UpstreamConfig {
    /// A model by its manifest, on a server that calls it `model`.
    pub fn new(manifest: &Manifest, url: impl Into<String>, model: impl Into<String>) -> Self {
        Self {
            name: manifest.listing(),
            task: manifest.task,
            context: manifest.context_length,
            url: url.into(),
            model: model.into(),
            api_key_file: None,
            kind: None,
            slots: None,
            queue: 64,
            first_token: Duration::from_secs(120),
            between_tokens: Duration::from_secs(30),
            probe_every: Duration::from_secs(10),
        }
    }

    /// The server's address without `/v1` and without a slash at the end.
    pub(super) fn root(&self) -> Result<String, Error> {
        server_root(&self.url, self.api_key_file.is_some())
    }
}

/// The address of a server with OpenAI's protocol, `http://127.0.0.1:8000` or the same with `/v1`, without `/v1` and without
/// a slash at the end. Fails if it is none, holds a secret, or would send a key over a network unencrypted.
pub fn server_root(url: &str, has_key: bool) -> Result<String, Error> {
    let bad = |reason: &str| Error::Model(format!("the server's address: {reason}"));
    let url = reqwest::Url::parse(url).map_err(|_| bad("not a URL, such as http://127.0.0.1:8000"))?;
    if !matches!(url.scheme(), "http" | "https") || url.host().is_none() {
        return Err(bad("it has to begin with http:// or https://"));
    }
    if !url.username().is_empty() || url.password().is_some() {
        return Err(bad("a password has no place in it, a key goes into `api_key_file`"));
    }
    if url.query().is_some() || url.fragment().is_some() {
        return Err(bad("it ends with the path"));
    }
    let local = matches!(url.host_str(), Some("localhost" | "127.0.0.1" | "[::1]"));
    if has_key && url.scheme() == "http" && !local {
        return Err(bad("a key is sent over https only, except on this machine"));
    }
    let text = url.as_str().trim_end_matches('/');
    Ok(text.strip_suffix("/v1").unwrap_or(text).to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(url: &str, key: bool) -> UpstreamConfig {
        UpstreamConfig {
            name: "a/b:c".into(),
            task: TaskKind::Chat,
            context: 0,
            url: url.into(),
            model: "m".into(),
            api_key_file: key.then(|| "key".into()),
            kind: None,
            slots: None,
            queue: 1,
            first_token: Duration::from_secs(1),
            between_tokens: Duration::from_secs(1),
            probe_every: Duration::from_secs(1),
        }
    }

    #[test]
    fn an_address_may_end_in_v1_and_holds_no_secret() {
        for url in [
            "http://127.0.0.1:80/v1",
            "http://127.0.0.1:80/",
            "http://127.0.0.1:80/v1/",
        ] {
            assert_eq!(config(url, true).root().unwrap(), "http://127.0.0.1");
        }
        assert_eq!(
            config("https://a.example/b/v1", true).root().unwrap(),
            "https://a.example/b"
        );
        for url in [
            "ftp://a.example",
            "a.example",
            "https://user:secret@a.example",
            "https://a.example?key=secret",
        ] {
            let error = config(url, false).root().unwrap_err().to_string();
            assert!(!error.contains("secret"), "{error}");
        }
        config("http://a.example", false).root().unwrap();
        assert!(config("http://a.example", true).root().is_err());
    }
}
