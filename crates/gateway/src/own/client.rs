//! HTTP to one server: hyper's own pooled client. What reqwest does beyond it, redirects and the like, a passed request does
//! not need and would pay for.

use std::{sync::Arc, time::Duration};

use axum::http::{HeaderValue, Request, Response, Uri, header};
use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::{
    client::legacy::{Client as Pool, Error, connect::HttpConnector},
    rt::{TokioExecutor, TokioTimer},
};
use rustls::{ClientConfig, RootCertStore, crypto::ring};
use rustls_platform_verifier::BuilderVerifierExt as _;

/// Time to reach a server.
const CONNECT: Duration = Duration::from_secs(3);
/// A connection that was not used for so long is not used again: servers close theirs by and by.
const IDLE: Duration = Duration::from_secs(30);

/// Connections to one server, and the key that it wants.
#[derive(Debug)]
pub(super) struct Client {
    pool: Pool<HttpsConnector<HttpConnector>, Full<Bytes>>,
    key: Option<HeaderValue>,
}

impl Client {
    /// For a server below `root`. Fails if there is no way to check its certificate.
    pub(super) fn new(root: &Uri, key: Option<HeaderValue>) -> Result<Self, rustls::Error> {
        let mut tcp = HttpConnector::new();
        tcp.set_nodelay(true);
        tcp.set_connect_timeout(Some(CONNECT));
        tcp.enforce_http(false);
        let connector = HttpsConnectorBuilder::new()
            .with_tls_config(tls(root.scheme_str() == Some("https"))?)
            .https_or_http()
            .enable_http1()
            .wrap_connector(tcp);
        let pool = Pool::builder(TokioExecutor::new())
            .pool_timer(TokioTimer::new())
            .pool_idle_timeout(IDLE)
            .build(connector);
        Ok(Self { pool, key })
    }

    /// Asks for something.
    pub(super) async fn get(&self, place: &Uri) -> Result<Response<Incoming>, Error> {
        self.send(Request::get(place.clone()), Bytes::new()).await
    }

    /// Sends a JSON body.
    pub(super) async fn post(&self, place: &Uri, body: Bytes) -> Result<Response<Incoming>, Error> {
        const JSON: HeaderValue = HeaderValue::from_static("application/json");
        let request = Request::post(place.clone()).header(header::CONTENT_TYPE, JSON);
        self.send(request, body).await
    }

    async fn send(&self, mut request: axum::http::request::Builder, body: Bytes) -> Result<Response<Incoming>, Error> {
        if let Some(key) = &self.key {
            request = request.header(header::AUTHORIZATION, key);
        }
        // Made of parts that were checked already, so that the default is never used.
        let request = request.body(Full::new(body)).unwrap_or_default();
        self.pool.request(request).await
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
