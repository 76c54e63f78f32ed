//! The edge: connections are accepted, bounded, and dropped when their client is too slow.
//!
//! Every connection has a place of which there are only so many. One that waits for a request (half-open, or idle between
//! two requests) has its place until another needs it; one with a request keeps it. No client can be waited for without
//! end: the head of a request, its body ([`super::body`]) and the reading of an answer each have a limit, and bytes now and
//! then do not extend it.

mod connections;
mod descriptors;
mod pace;
#[cfg(test)]
mod tests;
mod watched;

use std::{convert::Infallible, sync::Arc, time::Duration};

use axum::{
    Router,
    body::Body,
    http::{HeaderName, HeaderValue, Request, Version},
};
use connections::{Admitted, Connections};
use hyper::{body::Incoming, service::Service as _, service::service_fn};
use hyper_util::{
    rt::{TokioExecutor, TokioIo, TokioTimer},
    server::conn::auto::Builder,
    service::TowerToHyperService,
};
pub(crate) use pace::Pace;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpListener, TcpStream},
    time::{MissedTickBehavior, interval},
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tracing::Instrument as _;
use watched::{Answer, Watched};

use crate::{config::ConnectionLimits, desk::Desk};

/// Time between two looks at the connections.
const LOOK: Duration = Duration::from_millis(250);
/// The pause after the system could not give a connection.
const PAUSE: Duration = Duration::from_millis(20);
/// Most requests at a time on one connection of HTTP/2.
const MAX_STREAMS: u32 = 128;
const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
/// What a client is told for which there is no room, if it listens.
const NO_ROOM: &[u8] =
    b"HTTP/1.1 503 Service Unavailable\r\nretry-after: 1\r\ncontent-length: 0\r\nconnection: close\r\n\r\n";

/// Serves connections until `stop`, and then until those with requests have ended.
pub(crate) async fn serve(listener: TcpListener, desk: Arc<Desk>, stop: CancellationToken) {
    let mut limits = desk.config.connections;
    limits.max = limits.max.min(descriptors::most_connections());
    let server = Server::new(super::router(Arc::clone(&desk)), limits, stop.clone());
    let connections = Connections::new(limits);
    let open = TaskTracker::new();
    let mut look = interval(LOOK);
    look.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            () = stop.cancelled() => break,
            _ = look.tick() => connections.sweep(&desk.metrics),
            accepted = listener.accept() => match accepted {
                Ok((stream, peer)) => match connections.admit(peer.ip(), &desk.metrics) {
                    Ok(admitted) => {
                        // Tokens are small and must not wait for each other.
                        if let Err(error) = stream.set_nodelay(true) {
                            tracing::debug!(%error, "cannot disable Nagle's algorithm");
                        }
                        open.spawn(server.clone().talk(stream, admitted));
                    }
                    Err(why) => turn_away(&stream, why),
                },
                Err(error) => {
                    tracing::debug!(%error, "no connection could be accepted");
                    connections.give_way(&desk.metrics);
                    tokio::time::sleep(PAUSE).await;
                }
            },
        }
    }
    drop(listener);
    connections.stop();
    open.close();
    loop {
        tokio::select! {
            () = open.wait() => return,
            _ = look.tick() => connections.sweep(&desk.metrics),
        }
    }
}

fn turn_away(stream: &TcpStream, why: connections::Dropped) {
    tracing::debug!(?why, "a connection was not taken");
    // Whoever has no room for it either is not told.
    let _ = stream.try_write(NO_ROOM);
}

/// What every connection is served with.
#[derive(Clone)]
struct Server {
    protocol: Arc<Builder<TokioExecutor>>,
    routes: TowerToHyperService<Router>,
    stop: CancellationToken,
}

impl Server {
    fn new(routes: Router, limits: ConnectionLimits, stop: CancellationToken) -> Self {
        let mut protocol = Builder::new(TokioExecutor::new());
        // The connections' own limits are stricter than the protocol's timer, which begins anew with every request.
        protocol
            .http1()
            .timer(TokioTimer::new())
            .header_read_timeout(None)
            .max_buf_size(limits.max_header_bytes.max(8_192));
        protocol
            .http2()
            .timer(TokioTimer::new())
            .max_concurrent_streams(MAX_STREAMS)
            .max_header_list_size(u32::try_from(limits.max_header_bytes).unwrap_or(u32::MAX));
        Self {
            protocol: Arc::new(protocol),
            routes: TowerToHyperService::new(routes),
            stop,
        }
    }

    /// Serves one connection to its end.
    async fn talk<T>(self, stream: T, admitted: Admitted)
    where
        T: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let connection = Arc::clone(admitted.connection());
        let routes = self.routes;
        let service = service_fn(|request: Request<Incoming>| {
            let busy = connection.begin(request.version() >= Version::HTTP_2);
            // The answer and the log's lines carry it.
            let name = format!("req_{}", hex::encode(rand::random::<[u8; 16]>()));
            let span = tracing::info_span!("request", id = %name);
            let answer = span.in_scope(|| routes.call(request.map(Body::new)));
            async move {
                let mut response = answer.instrument(span).await?;
                if let Ok(name) = HeaderValue::try_from(name) {
                    response.headers_mut().insert(REQUEST_ID, name);
                }
                Ok::<_, Infallible>(response.map(|body| Answer::new(body, busy)))
            }
        });
        let io = TokioIo::new(Watched::new(stream, Arc::clone(&connection)));
        let mut served = std::pin::pin!(self.protocol.serve_connection(io, service));
        let mut stopping = false;
        loop {
            tokio::select! {
                ended = served.as_mut() => {
                    if let Err(error) = ended {
                        tracing::trace!(%error, "a connection broke off");
                    }
                    return;
                }
                () = connection.dropped() => return,
                () = self.stop.cancelled(), if !stopping => {
                    stopping = true;
                    served.as_mut().graceful_shutdown();
                }
            }
        }
    }
}
