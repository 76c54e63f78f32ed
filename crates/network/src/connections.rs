//! Connections to peers, kept open and shared by all requests to the same peer.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use iroh::{
    Endpoint, EndpointAddr, EndpointId, TransportAddr,
    endpoint::{Connection, RecvStream, SendStream},
};
use rialto_protocol::{NodeKey, ticket::Peer};

use crate::Error;

/// How long a dial may take.
const DIAL_TIMEOUT: Duration = Duration::from_secs(10);

/// Most peers whose connections are kept; beyond it, closed ones are forgotten.
const KEPT: usize = 4_096;

type Slot = Arc<tokio::sync::Mutex<Option<Connection>>>;

/// The pool. A slot's lock is held while dialling, so that many requests to one peer dial once.
#[derive(Debug, Default)]
pub(crate) struct Connections {
    slots: Mutex<HashMap<(NodeKey, &'static [u8]), Slot>>,
}

impl Connections {
    /// Opens a stream to a peer, dialling it first if need be. A connection found dead is dialled anew, once.
    pub(crate) async fn open(
        &self,
        endpoint: &Endpoint,
        peer: &Peer,
        alpn: &'static [u8],
    ) -> Result<(SendStream, RecvStream), Error> {
        let slot = self.slot(peer.node, alpn);
        let mut held = slot.lock().await;
        if let Some(connection) = held
            .as_ref()
            .filter(|connection| connection.close_reason().is_none())
            .cloned()
        {
            drop(held);
            if let Ok(streams) = connection.open_bi().await {
                return Ok(streams);
            }
            held = slot.lock().await;
        }
        let address = address_of(peer)?;
        let dial = tokio::time::timeout(DIAL_TIMEOUT, endpoint.connect(address, alpn));
        let connection = dial
            .await
            .map_err(|_| Error::Unreachable("no answer in time".into()))?
            .map_err(|error| Error::Unreachable(error.to_string()))?;
        *held = Some(connection.clone());
        drop(held);
        connection.open_bi().await.map_err(Error::broken)
    }

    fn slot(&self, node: NodeKey, alpn: &'static [u8]) -> Slot {
        let mut slots = self.slots.lock().unwrap_or_else(PoisonError::into_inner);
        if slots.len() >= KEPT {
            slots.retain(|_, slot| {
                slot.try_lock().map_or(true, |held| {
                    held.as_ref().is_some_and(|live| live.close_reason().is_none())
                })
            });
        }
        slots.entry((node, alpn)).or_default().clone()
    }
}

fn address_of(peer: &Peer) -> Result<EndpointAddr, Error> {
    let id = EndpointId::from_bytes(&peer.node.0).map_err(|_| Error::BadPeer("the node key is not a point"))?;
    let addresses = peer
        .addresses
        .iter()
        .filter_map(|text| text.parse().ok())
        .map(TransportAddr::Ip);
    Ok(EndpointAddr::from_parts(id, addresses))
}
