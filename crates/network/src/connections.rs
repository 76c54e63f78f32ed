//! Connections to peers, kept open and shared by all requests to the same peer.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use bytes::Bytes;
use futures::{FutureExt as _, future::BoxFuture};
use iroh::{
    Endpoint, EndpointAddr, EndpointId, RelayUrl, TransportAddr,
    endpoint::{Connection, RecvStream, SendStream, VarInt},
};
use rialto_protocol::{
    NodeKey,
    ticket::Peer,
    wire::{OFFERS_ALPN, TRADE_ALPN},
};

use crate::Error;

/// How long a dial may take. QUIC repeats its first packet ever more seldom: a peer that comes back is found sooner by a
/// dial that begins anew.
const DIAL_TIMEOUT: Duration = Duration::from_secs(5);

/// Most peers whose connections are kept; beyond it, closed ones are forgotten.
const KEPT: usize = 4_096;

/// How often it is looked whether a peer that is said to be elsewhere shows that it is still where it was dialled, and the time
/// between two looks: a second in all, or more where this machine has other things to do, which would find its answer and
/// that the second is over at once.
const LOOKS: u32 = 50;
const LOOK: Duration = Duration::from_millis(20);

/// A connection, and the addresses at which it was dialled.
#[derive(Debug, Clone)]
struct Held {
    connection: Connection,
    addresses: Vec<String>,
}

type Slot = Arc<tokio::sync::Mutex<Option<Held>>>;

/// The pool. A slot's lock is held while dialling, so that many requests to one peer dial once.
#[derive(Debug)]
pub(crate) struct Connections {
    relay: Option<RelayUrl>,
    slots: Mutex<HashMap<(NodeKey, &'static [u8]), Slot>>,
}

impl Connections {
    /// An empty pool. `relay` is the one relay by which peers are dialled.
    pub(crate) fn new(relay: Option<RelayUrl>) -> Self {
        Self {
            relay,
            slots: Mutex::default(),
        }
    }

    /// Opens a stream to a peer, dialling it first if need be. A connection found dead is dialled anew, once.
    pub(crate) fn open<'a>(
        &'a self,
        endpoint: &'a Endpoint,
        peer: &'a Peer,
        alpn: &'static [u8],
    ) -> BoxFuture<'a, Result<(SendStream, RecvStream), Error>> {
        self.reach(endpoint, peer, alpn).boxed()
    }

    async fn reach(
        &self,
        endpoint: &Endpoint,
        peer: &Peer,
        alpn: &'static [u8],
    ) -> Result<(SendStream, RecvStream), Error> {
        let slot = self.slot(peer.node, alpn);
        let mut held = slot.lock().await;
        if let Some(connection) = held.as_ref().and_then(Held::live).cloned() {
            drop(held);
            if let Ok(streams) = connection.open_bi().await {
                return Ok(streams);
            }
            held = slot.lock().await;
        }
        let address = address_of(peer, self.relay.as_ref())?;
        let dial = tokio::time::timeout(DIAL_TIMEOUT, endpoint.connect(address, alpn));
        let connection = dial
            .await
            .map_err(|_| Error::Unreachable("no answer in time".into()))?
            .map_err(|error| Error::Unreachable(error.to_string()))?;
        *held = Some(Held {
            connection: connection.clone(),
            addresses: peer.addresses.clone(),
        });
        drop(held);
        connection.open_bi().await.map_err(Error::broken)
    }

    /// Ends connections with a peer that is said to be elsewhere, if it gives no sign of life where it was dialled: what waits
    /// for it there then knows at once, and not when the connection times out. Whoever says so may lie, which costs a
    /// packet.
    pub(crate) async fn look_after(&self, peer: &Peer) {
        let slots: Vec<Slot> = {
            let slots = self.slots.lock().unwrap_or_else(PoisonError::into_inner);
            let alpns = [TRADE_ALPN, OFFERS_ALPN];
            alpns
                .iter()
                .filter_map(|alpn| slots.get(&(peer.node, *alpn)).cloned())
                .collect()
        };
        // A slot that is locked is being dialled anew.
        let held = slots.iter().filter_map(|slot| slot.try_lock().ok()?.clone());
        let left = held.filter(|held| held.live().is_some() && held.is_elsewhere(peer));
        futures::future::join_all(left.map(|held| async move {
            if !shows_life(&held.connection).await {
                held.connection.close(VarInt::from_u32(0), b"gone");
            }
        }))
        .await;
    }

    fn slot(&self, node: NodeKey, alpn: &'static [u8]) -> Slot {
        let mut slots = self.slots.lock().unwrap_or_else(PoisonError::into_inner);
        if slots.len() >= KEPT {
            slots.retain(|_, slot| {
                slot.try_lock()
                    .map_or(true, |held| held.as_ref().and_then(Held::live).is_some())
            });
        }
        slots.entry((node, alpn)).or_default().clone()
    }
}

impl Held {
    fn live(&self) -> Option<&Connection> {
        Some(&self.connection).filter(|connection| connection.close_reason().is_none())
    }

    /// Whether a peer has none of the addresses at which this was dialled.
    fn is_elsewhere(&self, peer: &Peer) -> bool {
        let known = |address| self.addresses.contains(address);
        !self.addresses.is_empty() && !peer.addresses.is_empty() && !peer.addresses.iter().any(known)
    }
}

/// Whether anything comes from a peer that is sent something to acknowledge.
async fn shows_life(connection: &Connection) -> bool {
    let heard = || connection.stats().udp_rx.datagrams;
    let before = heard();
    if connection.send_datagram(Bytes::new()).is_err() {
        return connection.close_reason().is_none();
    }
    for _ in 0..LOOKS {
        tokio::time::sleep(LOOK).await;
        if heard() != before {
            return true;
        }
    }
    false
}

/// Where a peer may be: at its addresses, and at this node's own relay if it says that it is there, or says nothing at
/// all. Another relay that it names is not contacted: an offer must not make its readers call whom it likes.
fn address_of(peer: &Peer, relay: Option<&RelayUrl>) -> Result<EndpointAddr, Error> {
    let id = EndpointId::from_bytes(&peer.node.0).map_err(|_| Error::BadPeer("the node key is not a point"))?;
    let addresses: Vec<_> = peer
        .addresses
        .iter()
        .filter_map(|text| text.parse().ok())
        .map(TransportAddr::Ip)
        .collect();
    let is_there = |own: &&RelayUrl| match &peer.relay {
        Some(named) => named.parse().is_ok_and(|named: RelayUrl| named == **own),
        None => addresses.is_empty(),
    };
    let relayed = relay.filter(is_there).cloned().map(TransportAddr::Relay);
    Ok(EndpointAddr::from_parts(id, addresses.into_iter().chain(relayed)))
}
