//! A fault injector: forwards JSON-RPC to a real node, until a test wants it to fail.

#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a test ends where it cannot go on"
)]

use std::sync::{Arc, Mutex};

use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
};

/// What the proxy says instead of the node: `None` forwards the call.
pub(crate) type Say = Box<dyn Fn(&str, &Value) -> Option<Value> + Send + Sync>;

/// What the proxy does with a call.
pub(crate) enum Mode {
    /// Forwards it.
    Pass,
    /// Ends the connection.
    Cut,
    /// Never answers.
    Hang,
    /// Answers with an HTTP status.
    Status(u16),
    /// Answers what is no JSON.
    Nonsense,
    /// Answers some calls itself, by method and parameters.
    Say(Say),
}

struct Shared {
    target: Mutex<String>,
    mode: Mutex<Mode>,
    seen: Mutex<Vec<String>>,
    client: reqwest::Client,
}

/// A running proxy.
#[derive(Clone)]
pub(crate) struct Proxy {
    url: String,
    shared: Arc<Shared>,
}

enum Plan {
    Forward,
    Answer(String, Value),
    Cut,
    Hang,
}

impl Proxy {
    /// Starts one before a node.
    pub(crate) async fn start(target: &str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let shared = Arc::new(Shared {
            target: Mutex::new(target.to_owned()),
            mode: Mutex::new(Mode::Pass),
            seen: Mutex::default(),
            client: reqwest::Client::builder().no_proxy().build().unwrap(),
        });
        let serving = Arc::clone(&shared);
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(serve(stream, Arc::clone(&serving)));
            }
        });
        Self { url, shared }
    }

    pub(crate) fn url(&self) -> String {
        self.url.clone()
    }

    /// Stands before another node from now on.
    pub(crate) fn stand_before(&self, target: &str) {
        *self.shared.target.lock().unwrap() = target.to_owned();
    }

    pub(crate) fn set(&self, mode: Mode) {
        *self.shared.mode.lock().unwrap() = mode;
    }

    /// Answers some methods itself from now on.
    pub(crate) fn say(&self, say: impl Fn(&str, &Value) -> Option<Value> + Send + Sync + 'static) {
        self.set(Mode::Say(Box::new(say)));
    }

    /// How many calls of a method came, or of all with an empty name.
    pub(crate) fn calls(&self, method: &str) -> usize {
        let seen = self.shared.seen.lock().unwrap();
        seen.iter().filter(|seen| method.is_empty() || *seen == method).count()
    }
}

impl Shared {
    fn plan(&self, call: &Value) -> Plan {
        let method = call["method"].as_str().unwrap_or_default();
        self.seen.lock().unwrap().push(method.to_owned());
        match &*self.mode.lock().unwrap() {
            Mode::Pass => Plan::Forward,
            Mode::Cut => Plan::Cut,
            Mode::Hang => Plan::Hang,
            Mode::Status(status) => Plan::Answer(status.to_string(), json!("try later")),
            Mode::Nonsense => Plan::Answer("200".into(), json!("<html>")),
            Mode::Say(say) => say(method, &call["params"]).map_or(Plan::Forward, |result| {
                Plan::Answer(
                    "200".into(),
                    json!({"jsonrpc": "2.0", "id": call["id"], "result": result}),
                )
            }),
        }
    }
}

async fn serve(mut stream: TcpStream, shared: Arc<Shared>) {
    let mut request = Vec::new();
    loop {
        let mut part = [0; 65_536];
        let Ok(length @ 1..) = stream.read(&mut part).await else {
            return;
        };
        request.extend_from_slice(&part[..length]);
        let text = String::from_utf8_lossy(&request).into_owned();
        let Some((_, body)) = text.split_once("\r\n\r\n") else {
            continue;
        };
        let Ok(call) = serde_json::from_str::<Value>(body) else {
            continue;
        };
        request.clear();
        let (status, answer) = match shared.plan(&call) {
            Plan::Cut => return,
            Plan::Hang => std::future::pending().await,
            Plan::Answer(status, answer) => (status, answer.to_string()),
            Plan::Forward => {
                let target = shared.target.lock().unwrap().clone();
                let Ok(sent) = shared.client.post(target).json(&call).send().await else {
                    return;
                };
                ("200".into(), sent.text().await.unwrap())
            }
        };
        let head = format!("HTTP/1.1 {status} .\r\ncontent-length: {}\r\n\r\n", answer.len());
        if stream.write_all(format!("{head}{answer}").as_bytes()).await.is_err() {
            return;
        }
    }
}
