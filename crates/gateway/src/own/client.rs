//! HTTP to one server, on hyper's connections. hyper's pool is made for many servers: it makes an address ready for each
//! request, and runs a task after each that waits until its connection may be used again. A passed request would pay for
//! both.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use axum::http::{HeaderValue, Method, Request, Response, Uri, header};
use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use hyper::{
    body::Incoming,
    client::conn::http1::{self, SendRequest},
};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::connect::HttpConnector;
use rustls::{ClientConfig, RootCertStore, crypto::ring};
use rustls_platform_verifier::BuilderVerifierExt as _;
use tower_service::Service as _;

/// Time to reach a server.
const CONNECT: Duration = Duration::from_secs(3);
/// A connection that was not used for so long is not used again: servers close theirs by and by.
const IDLE: Duration = Duration::from_secs(30);

const JSON: HeaderValue = HeaderValue::from_static("application/json");

/// Why nothing came of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Lost {
    /// There is no connection.
    Unreachable,
    /// A connection ended before the head of an answer.
    Broken,
}

/// Connections to one server, and the key that it wants.
#[derive(Debug)]
pub(super) struct Client {
    connector: HttpsConnector<HttpConnector>,
    root: Uri,
    host: HeaderValue,
    key: Option<HeaderValue>,
    rested: Arc<Rested>,
}

type Sender = SendRequest<Full<Bytes>>;

/// Connections without a request, and since when; the one that rests the longest first.
#[derive(Debug, Default)]
struct Rested(Mutex<VecDeque<(Sender, Instant)>>);

impl Rested {
    fn all(&self) -> MutexGuard<'_, VecDeque<(Sender, Instant)>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The one that rests the shortest.
    fn take(&self) -> Option<Sender> {
        let mut all = self.all();
        while let Some((sender, since)) = all.pop_back() {
            if since.elapsed() < IDLE && !sender.is_closed() {
                return Some(sender);
            }
        }
        None
    }

    fn put(&self, sender: Sender) {
        let mut all = self.all();
        while all.front().is_some_and(|(_, since)| since.elapsed() >= IDLE) {
            all.pop_front();
        }
        all.push_back((sender, Instant::now()));
    }
}

/// An answer's head, and its body on its way. Its connection rests once this is dropped; one whose body was not read to its
/// end hyper closes.
pub(super) struct Received {
    pub(super) response: Response<Incoming>,
    sender: Option<Sender>,
    rested: Arc<Rested>,
}

impl Drop for Received {
    fn drop(&mut self) {
        if let Some(sender) = self.sender.take().filter(|sender| !sender.is_closed()) {
            self.rested.put(sender);
        }
    }
}

impl Client {
    /// For the server of an address. Fails if there is no way to check its certificate, or no server in the address.
    pub(super) fn new(root: &Uri, key: Option<HeaderValue>) -> Result<Self, String> {
        let mut tcp = HttpConnector::new();
        tcp.set_nodelay(true);
        tcp.set_connect_timeout(Some(CONNECT));
        tcp.enforce_http(false);
        let secure = root.scheme_str() == Some("https");
        let connector = HttpsConnectorBuilder::new()
            .with_tls_config(tls(secure).map_err(|error| error.to_string())?)
            .https_or_http()
            .enable_http1()
            .wrap_connector(tcp);
        Ok(Self {
            connector,
            host: host(root, secure).ok_or("it names no server")?,
            root: root.clone(),
            key,
            rested: Arc::default(),
        })
    }

    /// Asks for something, by its path.
    pub(super) async fn get(&self, place: &Uri) -> Result<Received, Lost> {
        self.send(Method::GET, place, Bytes::new()).await
    }

    /// Sends a JSON body to a path.
    pub(super) async fn post(&self, place: &Uri, body: Bytes) -> Result<Received, Lost> {
        self.send(Method::POST, place, body).await
    }

    /// Sends a request on a connection that rested, or else on a new one. One that rested may be closed by its server at this
    /// very moment: then nothing of an answer has come.
    async fn send(&self, method: Method, place: &Uri, body: Bytes) -> Result<Received, Lost> {
        while let Some(mut sender) = self.rested.take() {
            if sender.ready().await.is_err() {
                continue;
            }
            if let Some(received) = self.on(sender, method.clone(), place, body.clone()).await {
                return Ok(received);
            }
            break;
        }
        // Seldom: it need not make the future of every request larger.
        let sender = Box::pin(self.connect()).await.ok_or(Lost::Unreachable)?;
        self.on(sender, method, place, body).await.ok_or(Lost::Broken)
    }

    async fn on(&self, mut sender: Sender, method: Method, place: &Uri, body: Bytes) -> Option<Received> {
        let mut request = Request::new(Full::new(body));
        *request.uri_mut() = place.clone();
        let headers = request.headers_mut();
        headers.insert(header::HOST, self.host.clone());
        if method == Method::POST {
            headers.insert(header::CONTENT_TYPE, JSON);
        }
        if let Some(key) = &self.key {
            headers.insert(header::AUTHORIZATION, key.clone());
        }
        *request.method_mut() = method;
        Some(Received {
            response: sender.send_request(request).await.ok()?,
            sender: Some(sender),
            rested: Arc::clone(&self.rested),
        })
    }

    async fn connect(&self) -> Option<Sender> {
        let stream = self.connector.clone().call(self.root.clone()).await.ok()?;
        let (mut sender, connection) = http1::handshake(stream).await.ok()?;
        tokio::spawn(async move {
            if let Err(error) = connection.await {
                tracing::trace!(%error, "a connection to a server of the owner's broke off");
            }
        });
        sender.ready().await.ok()?;
        Some(sender)
    }
}

/// What `Host` says.
fn host(root: &Uri, secure: bool) -> Option<HeaderValue> {
    let usual = if secure { 443 } else { 80 };
    let name = root.host()?;
    match root.port_u16().filter(|port| *port != usual) {
        Some(port) => HeaderValue::try_from(format!("{name}:{port}")).ok(),
        None => HeaderValue::from_str(name).ok(),
    }
}

/// How certificates are checked: as this system does it. Its store is only read where there is one to check.
fn tls(checks: bool) -> Result<ClientConfig, rustls::Error> {
    let provider = Arc::new(ring::default_provider());
    let config = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions()?;
    Ok(if checks {
        config.with_platform_verifier()?.with_no_client_auth()
    } else {
        config
            .with_root_certificates(RootCertStore::empty())
            .with_no_client_auth()
    })
}

/// The next piece of a body; `None` at its end.
pub(super) async fn piece(body: &mut Incoming) -> Result<Option<Bytes>, hyper::Error> {
    while let Some(frame) = body.frame().await {
        // Trailers say nothing.
        if let Ok(piece) = frame?.into_data() {
            return Ok(Some(piece));
        }
    }
    Ok(None)
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use tokio::{
        io::{AsyncReadExt as _, AsyncWriteExt as _},
        net::{TcpListener, TcpStream},
    };

    use super::*;

    const ANSWER: &[u8] = b"HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\ngood";

    /// A server that gives each connection so many answers; the client, connections and requests.
    async fn server(answers: usize, answer: &'static [u8]) -> (Client, Arc<[AtomicUsize; 2]>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let root = format!("http://{}", listener.local_addr().unwrap());
        let counts: Arc<[AtomicUsize; 2]> = Arc::default();
        let seen = Arc::clone(&counts);
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                seen[0].fetch_add(1, Ordering::SeqCst);
                let seen = Arc::clone(&seen);
                tokio::spawn(async move {
                    for _ in 0..answers {
                        let Some(()) = request(&mut stream).await else { return };
                        seen[1].fetch_add(1, Ordering::SeqCst);
                        stream.write_all(answer).await.unwrap();
                    }
                });
            }
        });
        (Client::new(&root.parse().unwrap(), None).unwrap(), counts)
    }

    async fn request(stream: &mut TcpStream) -> Option<()> {
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            head.push(stream.read_u8().await.ok()?);
        }
        let head = String::from_utf8(head).unwrap();
        assert!(
            head.starts_with("GET /place HTTP/1.1\r\n") && head.contains("host: 127.0.0.1:"),
            "{head}"
        );
        Some(())
    }

    async fn ask(client: &Client) -> Result<Bytes, Lost> {
        let mut received = client.get(&Uri::from_static("/place")).await?;
        let body = received.response.body_mut().collect().await.unwrap();
        Ok(body.to_bytes())
    }

    #[tokio::test]
    async fn one_connection_serves_request_after_request() {
        let (client, seen) = server(usize::MAX, ANSWER).await;
        for _ in 0..20 {
            assert_eq!(ask(&client).await.unwrap(), "good");
        }
        assert_eq!(seen[0].load(Ordering::SeqCst), 1);
        let (one, other) = tokio::join!(ask(&client), ask(&client));
        assert!(one.is_ok() && other.is_ok());
        assert_eq!(seen[0].load(Ordering::SeqCst), 2, "one that is busy is not waited for");
    }

    #[tokio::test]
    async fn a_connection_that_was_closed_while_it_rested_loses_no_request() {
        let (client, seen) = server(1, ANSWER).await;
        for _ in 0..20 {
            assert_eq!(ask(&client).await.unwrap(), "good");
        }
        assert_eq!(seen[1].load(Ordering::SeqCst), 20);
    }

    #[tokio::test]
    async fn what_is_left_of_an_answer_is_not_taken_for_the_next_ones() {
        let (client, seen) = server(2, b"HTTP/1.1 200 OK\r\ncontent-length: 400\r\n\r\ngood").await;
        for _ in 0..3 {
            drop(client.get(&Uri::from_static("/place")).await.unwrap());
        }
        assert_eq!(seen[0].load(Ordering::SeqCst), 3);
    }

    #[tokio::test]
    async fn what_breaks_off_on_a_new_connection_is_not_sent_again() {
        let (client, seen) = server(usize::MAX, b"what?").await;
        assert_eq!(ask(&client).await, Err(Lost::Broken));
        assert_eq!(seen[1].load(Ordering::SeqCst), 1);
        let nobody = Client::new(&"http://127.0.0.1:1".parse().unwrap(), None).unwrap();
        assert_eq!(ask(&nobody).await, Err(Lost::Unreachable));
        assert!(Client::new(&"/v1".parse().unwrap(), None).is_err());
    }
}
