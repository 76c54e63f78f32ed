//! A relay: it passes datagrams on between nodes that cannot reach each other directly, such as those behind NATs. What
//! it passes on is encrypted from node to node; it sees who speaks with whom, how much and when.

use std::{net::SocketAddr, num::NonZeroU32};

use futures::{FutureExt as _, future::BoxFuture};
use iroh_relay::server::{ClientRateLimit, RelayConfig as Relaying, Server, ServerConfig};

use crate::Error;

/// How a relay is set up.
#[derive(Debug, Clone, Copy)]
pub struct RelayConfig {
    /// The TCP address on which it speaks plain HTTP; port 0 for any. TLS is the business of a proxy before it: nodes
    /// authenticate and encrypt for themselves.
    pub listen: SocketAddr,
    /// Most bytes a second that it takes from one node.
    pub bytes_per_second: NonZeroU32,
}

/// A running relay. Dropping it stops it.
#[derive(Debug)]
pub struct Relay {
    server: Server,
    address: SocketAddr,
}

impl Relay {
    /// Opens the socket and begins to serve.
    pub fn start(config: RelayConfig) -> BoxFuture<'static, Result<Self, Error>> {
        Self::open(config).boxed()
    }

    async fn open(config: RelayConfig) -> Result<Self, Error> {
        let bind_error = |reason: String| Error::Bind {
            address: config.listen,
            reason,
        };
        let mut relaying = Relaying::new(config.listen);
        relaying.limits.client_rx = Some(ClientRateLimit::new(config.bytes_per_second));
        let mut all = ServerConfig::default();
        all.relay = Some(relaying);
        let server = Server::spawn(all).await;
        let server = server.map_err(|error| bind_error(error.to_string()))?;
        let address = server
            .http_addr()
            .ok_or_else(|| bind_error("it does not listen".into()))?;
        Ok(Self { server, address })
    }

    /// Where it listens.
    pub fn local_addr(&self) -> SocketAddr {
        self.address
    }

    /// The URL by which nodes name it, if they reach it at the address that it listens on.
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Ends all connections and the server.
    pub async fn shutdown(self) -> Result<(), Error> {
        self.server.shutdown().await.map_err(Error::broken)
    }
}
