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
