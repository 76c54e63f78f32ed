//! A small server that speaks OpenAI's protocol as badly as it is told.

use std::{
    net::SocketAddr,
    sync::{Arc, Mutex},
    time::Duration,
};

use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpSocket, TcpStream},
    sync::watch,
    task::JoinSet,
};

use crate::PATIENCE;

/// What a request said.
#[derive(Debug, Clone)]
pub(crate) struct Asked {
    pub(crate) path: String,
    pub(crate) headers: String,
    pub(crate) body: Value,
}

/// What is done with the connection, one after the other; it is closed after the last.
#[derive(Debug, Clone)]
pub(crate) enum Step {
    Send(String),
    /// Sends the same again and again, until the reader is gone.
    Repeat(String),
    /// Waits until the reader is gone.
    Hang,
}

/// An address that is a server's also while it is away: bound and not listened on, so that the system gives it to nobody who
/// asks for any, and a server can listen there.
pub(crate) struct Place {
    address: SocketAddr,
    // Where two sockets may share an address when only one of them listens.
    _held: Option<TcpSocket>,
}

impl Place {
    pub(crate) fn reserve() -> Self {
        let socket = TcpSocket::new_v4().unwrap();
        socket.set_reuseaddr(true).unwrap();
        socket.set_reuseport(true).unwrap();
        socket.bind(SocketAddr::from(([127, 0, 0, 1], 0))).unwrap();
        Self {
            address: socket.local_addr().unwrap(),
            _held: cfg!(target_os = "linux").then_some(socket),
        }
    }

    pub(crate) fn port(&self) -> u16 {
        self.address.port()
    }
}

type Script = dyn Fn(&Asked) -> Option<Vec<Step>> + Send + Sync;

/// A running server; dropping it kills it and its connections.
pub(crate) struct OddServer {
    pub(crate) address: SocketAddr,
    place: Place,
    asked: Arc<Mutex<Vec<Asked>>>,
    /// Connections whose reader went away before everything was sent.
    broken: watch::Receiver<u32>,
    /// Bytes that were sent of what is repeated.
    sent: watch::Receiver<usize>,
    /// Requests that it hangs over, or has hung over.
    hung: watch::Receiver<u32>,
    tasks: JoinSet<()>,
}

impl OddServer {
    /// Answers by this script; what it leaves out is answered as a plain server would.
    pub(crate) async fn start(script: impl Fn(&Asked) -> Option<Vec<Step>> + Send + Sync + 'static) -> Self {
        Self::start_at(Place::reserve(), script).await
    }

    pub(crate) async fn start_at(
        place: Place,
        script: impl Fn(&Asked) -> Option<Vec<Step>> + Send + Sync + 'static,
    ) -> Self {
        let address = place.address;
        let listener = TcpListener::bind(address).await.unwrap();
        let asked = Arc::new(Mutex::new(Vec::new()));
        let ((breaks, broken), (sends, sent)) = (watch::channel(0), watch::channel(0));
        let (hangs, hung) = watch::channel(0);
        let (script, log): (Arc<Script>, _) = (Arc::new(script), asked.clone());
        let mut tasks = JoinSet::new();
        tasks.spawn(async move {
            let mut connections = JoinSet::new();
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                let (script, log, breaks) = (script.clone(), log.clone(), breaks.clone());
                let (sends, hangs) = (sends.clone(), hangs.clone());
                connections.spawn(async move {
                    if serve(stream, &*script, &log, (&sends, &hangs)).await.is_err() {
                        breaks.send_modify(|count| *count += 1);
                    }
                });
            }
        });
        Self {
            address,
            place,
            asked,
            broken,
            sent,
            hung,
            tasks,
        }
    }

    /// Kills it, and waits until another can listen at its place.
    pub(crate) async fn stop(mut self) -> Place {
        self.tasks.shutdown().await;
        self.place
    }

    /// Waits until it has begun to think about a request without an end.
    pub(crate) async fn thinks(&self) {
        let mut hung = self.hung.clone();
        let waited = tokio::time::timeout(PATIENCE, hung.wait_for(|count| *count > 0)).await;
        waited.expect("it was not asked").unwrap();
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}/v1", self.address)
    }

    /// Everything that was asked at this path, after the trial at the start.
    pub(crate) fn asked(&self, path: &str) -> Vec<Asked> {
        let asked = self.asked.lock().unwrap();
        asked.iter().filter(|one| one.path == path).skip(1).cloned().collect()
    }

    /// What was asked last at this path.
    pub(crate) fn last(&self, path: &str) -> Asked {
        let asked = self.asked.lock().unwrap();
        asked.iter().rfind(|one| one.path == path).unwrap().clone()
    }

    /// Waits until a reader went away in the middle.
    pub(crate) async fn cut_off(&self) {
        let mut broken = self.broken.clone();
        let waited = tokio::time::timeout(PATIENCE, broken.wait_for(|count| *count > 0)).await;
        waited.expect("nobody went away").unwrap();
    }

    /// Waits until the reader takes no more, and tells how many bytes it took.
    pub(crate) async fn stalled(&self) -> usize {
        let mut sent = self.sent.clone();
        loop {
            let before = *sent.borrow_and_update();
            if tokio::time::timeout(Duration::from_millis(500), sent.changed())
                .await
                .is_err()
            {
                return before;
            }
        }
    }
}

async fn serve(
    mut stream: TcpStream,
    script: &Script,
    log: &Mutex<Vec<Asked>>,
    (sends, hangs): (&watch::Sender<usize>, &watch::Sender<u32>),
) -> std::io::Result<()> {
    let Some(asked) = read(&mut stream).await? else {
        return Ok(());
    };
    log.lock().unwrap().push(asked.clone());
    let steps = script(&asked).unwrap_or_else(|| plain(&asked));
    let (mut reader, mut writer) = stream.split();
    let work = async {
        for step in steps {
            match step {
                Step::Send(text) => writer.write_all(text.as_bytes()).await?,
                Step::Repeat(text) => loop {
                    writer.write_all(text.as_bytes()).await?;
                    sends.send_modify(|sent| *sent += text.len());
                },
                Step::Hang => {
                    hangs.send_modify(|count| *count += 1);
                    std::future::pending().await
                }
            }
        }
        writer.shutdown().await
    };
    let gone = async {
        // Nothing more is sent by a client that waits; a read that ends means that it is gone.
        let mut byte = [0];
        while reader.read(&mut byte).await? > 0 {}
        Err(std::io::ErrorKind::BrokenPipe.into())
    };
    tokio::select! { biased; done = work => done, gone = gone => gone }
}

async fn read(stream: &mut TcpStream) -> std::io::Result<Option<Asked>> {
    let mut bytes = Vec::new();
    let head = loop {
        if let Some(end) = bytes.windows(4).position(|window| window == b"\r\n\r\n") {
            break end + 4;
        }
        if stream.read_buf(&mut bytes).await? == 0 {
            return Ok(None);
        }
    };
    let headers = String::from_utf8_lossy(&bytes[..head]).to_ascii_lowercase();
    let length = headers.lines().find_map(|line| line.strip_prefix("content-length: "));
    let length: usize = length.map_or(0, |length| length.trim().parse().unwrap());
    while bytes.len() < head + length {
        if stream.read_buf(&mut bytes).await? == 0 {
            return Ok(None);
        }
    }
    let path = headers.split(' ').nth(1).unwrap().to_owned();
    let body = serde_json::from_slice(&bytes[head..]).unwrap_or(Value::Null);
    Ok(Some(Asked { path, headers, body }))
}

/// What a plain server answers.
fn plain(asked: &Asked) -> Vec<Step> {
    match asked.path.as_str() {
        "/v1/models" => json_answer(200, &json!({ "data": [{ "id": "m" }] })),
        "/v1/chat/completions" | "/v1/completions" => {
            stream(&[words(&["to ", "be"]), vec![end("stop", Some(2))]].concat())
        }
        _ => json_answer(404, &json!({ "error": { "message": "no such path" } })),
    }
}

/// A whole answer of JSON.
pub(crate) fn json_answer(status: u16, value: &Value) -> Vec<Step> {
    answer(status, "content-type: application/json\r\n", &value.to_string())
}

/// A whole answer with headers of its own.
pub(crate) fn answer(status: u16, headers: &str, body: &str) -> Vec<Step> {
    let length = body.len();
    vec![Step::Send(format!(
        "HTTP/1.1 {status} X\r\nconnection: close\r\ncontent-length: {length}\r\n{headers}\r\n{body}"
    ))]
}

/// The head of a stream of events.
pub(crate) fn head() -> Step {
    Step::Send("HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-type: text/event-stream\r\n\r\n".into())
}

/// A stream of these events, with its end.
pub(crate) fn stream(events: &[Value]) -> Vec<Step> {
    let mut steps = open_stream(events);
    steps.push(Step::Send("data: [DONE]\n\n".into()));
    steps
}

/// A stream of these events, that just ends.
pub(crate) fn open_stream(events: &[Value]) -> Vec<Step> {
    let events = events.iter().map(|event| Step::Send(format!("data: {event}\n\n")));
    std::iter::once(head()).chain(events).collect()
}

/// A piece of text for each word.
pub(crate) fn words(words: &[&str]) -> Vec<Value> {
    words
        .iter()
        .map(|word| piece(json!({ "content": word }), Value::Null))
        .collect()
}

/// A piece of an answer.
pub(crate) fn piece(delta: Value, logprobs: Value) -> Value {
    let text = delta.get("content").cloned().unwrap_or_default();
    json!({ "choices": [{ "index": 0, "delta": delta, "text": text, "logprobs": logprobs, "finish_reason": null }] })
}

/// The end of an answer, with the server's count of it.
pub(crate) fn end(reason: &str, tokens: Option<u64>) -> Value {
    let usage = tokens.map(|tokens| json!({ "prompt_tokens": 5, "completion_tokens": tokens }));
    json!({ "choices": [{ "index": 0, "delta": {}, "finish_reason": reason }], "usage": usage })
}
