//! A node: it dials peers by key and is dialled by its own.
//!
//! It has two endpoints. iroh keeps the path to a peer for as long as any connection with it lives; a peer that was killed
//! and came back at another address, and announced itself here before its old connections had timed out, could not be
//! dialled any more by the endpoint that it called. So an endpoint of its own dials. That one's key is new at each start:
//! providers know a buyer by its channel, and need not know more.

use std::{
    net::{Ipv4Addr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use futures::{FutureExt as _, future::BoxFuture};
use iroh::{
    Endpoint, RelayConfig, RelayMap, RelayMode, RelayUrl, SecretKey,
    endpoint::{IdleTimeout, PortmapperConfig, QuicTransportConfig, VarInt, presets},
};
use rialto_protocol::{
    NodeKey,
    offer::MAX_RELAY,
    ticket::{MAX_ADDRESSES, Peer},
    wire::{BuyerFrame, OFFERS_ALPN, OffersRequest, OffersResponse, SellerFrame, TRADE_ALPN},
};
use tokio::sync::{Mutex, mpsc};
use zeroize::Zeroizing;

use crate::{
    Error,
    connections::Connections,
    frame::{FrameReceiver, FrameSender, Trade},
    incoming::{Incoming, accept_connections},
    way::Way,
};

/// Streams that one connection may have open: bounds what a peer can make this node hold.
const MAX_STREAMS: u32 = 1_024;

/// A peer that is silent for so long is gone.
const IDLE: Duration = Duration::from_secs(8);

/// Keeps a connection alive through NATs and tells early that a peer is gone.
const KEEP_ALIVE: Duration = Duration::from_secs(2);

/// Most time for an answer of the offers protocol.
const OFFERS_TIMEOUT: Duration = Duration::from_secs(10);

/// Most time for having an order relayed: its transaction has to get into a block.
const RELAY_TIMEOUT: Duration = Duration::from_secs(60);

/// How a node is set up.
pub struct NodeConfig {
    /// The ed25519 secret key: the node's identity.
    pub secret: Zeroizing<[u8; 32]>,
    /// The UDP address to listen on; port 0 for any.
    pub listen: SocketAddr,
    /// The URL of a relay of the operator's choice, by which this node is reached behind a NAT and reaches others. Nobody
    /// but it and peers is ever contacted, and no other relay, whatever peers say.
    pub relay: Option<String>,
}

impl std::fmt::Debug for NodeConfig {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("NodeConfig")
            .field("listen", &self.listen)
            .field("relay", &self.relay)
            .finish_non_exhaustive()
    }
}

/// A running node. Clones share its endpoints.
#[derive(Debug, Clone)]
pub struct Node {
    endpoint: Endpoint,
    dialer: Endpoint,
    connections: Arc<Connections>,
    relay: Option<RelayUrl>,
    calls: Arc<Mutex<mpsc::Receiver<Incoming>>>,
}

impl Node {
    /// Opens the socket and begins to accept.
    ///
    /// The future is boxed: what it calls is then compiled here, once, and not in every program that calls it.
    pub fn bind(config: NodeConfig) -> BoxFuture<'static, Result<Self, Error>> {
        Self::open(config).boxed()
    }

    async fn open(config: NodeConfig) -> Result<Self, Error> {
        let secret = SecretKey::from_bytes(&config.secret);
        let relay = config.relay.as_deref().map(relay_url).transpose()?;
        let (reach, way) = Reach::open(relay.as_ref()).await?;
        let alpns = vec![TRADE_ALPN.to_vec(), OFFERS_ALPN.to_vec()];
        let endpoint = bind(config.listen, &reach, secret, alpns).await?;
        let outgoing = SocketAddr::new(config.listen.ip(), 0);
        let dialer = bind(outgoing, &reach, SecretKey::generate(), Vec::new()).await?;
        if let Some(way) = way {
            tokio::spawn(way.serve(endpoint.clone()));
        }
        let (sender, receiver) = mpsc::channel(256);
        tokio::spawn(accept_connections(endpoint.clone(), sender));
        Ok(Self {
            endpoint,
            dialer,
            connections: Arc::new(Connections::new(relay.clone())),
            relay,
            calls: Arc::new(Mutex::new(receiver)),
        })
    }

    /// The key by which this node is dialled.
    pub fn key(&self) -> NodeKey {
        NodeKey(*self.endpoint.id().as_bytes())
    }

    /// The key that peers see when this node calls them: that of the endpoint that dials, made anew at each start.
    pub fn caller(&self) -> NodeKey {
        NodeKey(*self.dialer.id().as_bytes())
    }

    /// The key, the addresses at which the node listens, and the relay at which it can be reached.
    pub fn peer(&self) -> Peer {
        let mut addresses: Vec<_> = self.endpoint.addr().ip_addrs().copied().collect();
        // A node on loopback has no other address to tell; a socket on all interfaces is reached through each of them.
        addresses.extend(
            self.endpoint
                .bound_sockets()
                .into_iter()
                .filter(|socket| !socket.ip().is_unspecified()),
        );
        addresses.sort_unstable();
        addresses.dedup();
        // A machine may have more interfaces than a message has places for addresses.
        addresses.truncate(MAX_ADDRESSES);
        Peer {
            node: self.key(),
            addresses: addresses.iter().map(SocketAddr::to_string).collect(),
            relay: self.relay.as_ref().map(RelayUrl::to_string),
        }
    }

    /// Opens a trade with a peer on a stream of its own.
    pub async fn trade(&self, to: &Peer) -> Result<Trade<BuyerFrame, SellerFrame>, Error> {
        let (send, recv) = self.connections.open(&self.dialer, to, TRADE_ALPN).await?;
        Ok(Trade::new(send, recv))
    }

    /// To be called when a peer says that it is elsewhere: connections with it where it was end at once if nobody is there.
    pub async fn look_after(&self, peer: &Peer) {
        self.connections.look_after(peer).await;
    }

    /// Announces offers to a peer, asks for those it knows, or has it relay an order.
    pub fn offers<'a>(
        &'a self,
        to: &'a Peer,
        request: &'a OffersRequest,
    ) -> BoxFuture<'a, Result<OffersResponse, Error>> {
        self.call(to, request).boxed()
    }

    async fn call(&self, to: &Peer, request: &OffersRequest) -> Result<OffersResponse, Error> {
        let call = async {
            let (send, recv) = self.connections.open(&self.dialer, to, OFFERS_ALPN).await?;
            let (mut sender, mut receiver) = (
                FrameSender::<OffersRequest>::new(send),
                FrameReceiver::<OffersResponse>::new(recv),
            );
            sender.send(request).await?;
            let response = receiver.next().await?.ok_or(Error::Protocol("no answer"))?;
            sender.abort();
            Ok(response)
        };
        let patience = match request {
            OffersRequest::Relay(_) => RELAY_TIMEOUT,
            OffersRequest::Announce(_)
            | OffersRequest::Browse
            | OffersRequest::Tender(_)
            | OffersRequest::Greet(_)
            | OffersRequest::Begin(_) => OFFERS_TIMEOUT,
        };
        tokio::time::timeout(patience, call).await.map_err(|_| Error::Timeout)?
    }

    /// The next call of a peer; `None` once the node is closed.
    pub async fn accept(&self) -> Option<Incoming> {
        self.calls.lock().await.recv().await
    }

    /// Closes all connections and the socket.
    pub async fn close(&self) {
        tokio::join!(self.endpoint.close(), self.dialer.close());
    }
}

/// Reads a relay's URL.
fn relay_url(text: &str) -> Result<RelayUrl, Error> {
    let url: RelayUrl = text.parse().map_err(|_| Error::BadPeer("the relay's URL"))?;
    let fits = url.as_str().len() <= MAX_RELAY && matches!(url.scheme(), "http" | "https") && url.has_host();
    if fits {
        Ok(url)
    } else {
        Err(Error::BadPeer("the relay's URL"))
    }
}

/// How endpoints reach a relay, if there is one.
struct Reach {
    relay: RelayMode,
    proxy: Option<String>,
}

impl Reach {
    async fn open(relay: Option<&RelayUrl>) -> Result<(Self, Option<Way>), Error> {
        let Some(url) = relay else {
            let (relay, proxy) = (RelayMode::Disabled, None);
            return Ok((Self { relay, proxy }, None));
        };
        let bind_error = |error: std::io::Error| Error::Bind {
            address: SocketAddr::from((Ipv4Addr::LOCALHOST, 0)),
            reason: error.to_string(),
        };
        let way = Way::bind(url).await.map_err(bind_error)?;
        // A relay without TLS cannot tell nodes their public addresses over QUIC: it is not asked.
        let quic = (url.scheme() == "https").then(Default::default);
        let reach = Self {
            relay: RelayMode::Custom(RelayMap::from(RelayConfig::new(url.clone(), quic))),
            proxy: Some(way.url().map_err(bind_error)?),
        };
        Ok((reach, Some(way)))
    }
}

/// Opens one endpoint. No lookup service and no port mapping: a router is nobody's peer.
async fn bind(listen: SocketAddr, reach: &Reach, secret: SecretKey, alpns: Vec<Vec<u8>>) -> Result<Endpoint, Error> {
    let bind_error = |reason: String| Error::Bind {
        address: listen,
        reason,
    };
    let mut builder = Endpoint::builder(presets::Minimal)
        .secret_key(secret)
        .alpns(alpns)
        .relay_mode(reach.relay.clone())
        .portmapper_config(PortmapperConfig::Disabled)
        .clear_address_lookup()
        .transport_config(transport())
        .clear_ip_transports();
    if let Some(proxy) = &reach.proxy {
        builder = builder.proxy_url(proxy.parse().map_err(|_| Error::BadPeer("the way to the relay"))?);
    }
    builder
        .bind_addr(listen)
        .map_err(|error| bind_error(error.to_string()))?
        .bind()
        .await
        .map_err(|error| bind_error(error.to_string()))
}

fn transport() -> QuicTransportConfig {
    QuicTransportConfig::builder()
        .max_concurrent_bidi_streams(VarInt::from_u32(MAX_STREAMS))
        .max_concurrent_uni_streams(VarInt::from_u32(0))
        .max_idle_timeout(IdleTimeout::try_from(IDLE).ok())
        .keep_alive_interval(KEEP_ALIVE)
        .build()
}
