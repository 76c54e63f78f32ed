//! Taking calls: each trade in a task of its own, within limits for each peer and in all.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
};

use rialto_network::{Incoming, Node};
use rialto_protocol::{
    NodeKey,
    wire::{OffersRequest, OffersResponse, Refusal, RefusalCode},
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tracing::debug;

use crate::{bids, courier::Courier, metrics::Metrics, offers::Herald, room::Room, trade};

/// Advice to a peer that has too many trades open, in milliseconds.
const CROWDED_RETRY: u64 = 250;

/// Trades that are open, by peer.
#[derive(Debug, Default)]
struct Crowd {
    peers: Mutex<HashMap<NodeKey, usize>>,
}

/// A trade that counts against its peer's limit until this is dropped.
#[derive(Debug)]
struct Seat {
    crowd: Arc<Crowd>,
    peer: NodeKey,
    metrics: Metrics,
}

impl Crowd {
    fn sit(self: &Arc<Self>, peer: NodeKey, room: &Room) -> Option<Seat> {
        let mut peers = self.peers.lock().unwrap_or_else(PoisonError::into_inner);
        let all: usize = peers.values().sum();
        let own = peers.get(&peer).copied().unwrap_or(0);
        if own >= room.config.trades_per_peer || all >= room.config.trades {
            return None;
        }
        peers.insert(peer, own + 1);
        room.metrics.trades.inc();
        Some(Seat {
            crowd: self.clone(),
            peer,
            metrics: room.metrics.clone(),
        })
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        let mut peers = self.crowd.peers.lock().unwrap_or_else(PoisonError::into_inner);
        match peers.get(&self.peer).copied() {
            Some(count) if count > 1 => {
                peers.insert(self.peer, count - 1);
            }
            _ => {
                peers.remove(&self.peer);
            }
        }
        self.metrics.trades.dec();
    }
}

/// Takes calls until the node closes or `stop`.
pub(crate) async fn run(
    room: Arc<Room>,
    node: Node,
    herald: Arc<Herald>,
    courier: Arc<Courier>,
    trades: TaskTracker,
    stop: CancellationToken,
) {
    let crowd = Arc::new(Crowd::default());
    loop {
        let incoming = tokio::select! {
            () = stop.cancelled() => return,
            incoming = node.accept() => incoming,
        };
        match incoming {
            Some(Incoming::Trade(peer, trade)) => match crowd.sit(peer, &room) {
                Some(seat) => {
                    let room = room.clone();
                    trades.spawn(async move {
                        trade::serve(room, peer, trade).await;
                        drop(seat);
                    });
                }
                None => {
                    let refusal =
                        Refusal::new(RefusalCode::Busy, "too many trades are open").with_retry_after(CROWDED_RETRY);
                    trades.spawn(trade::refuse(room.clone(), trade, refusal));
                }
            },
            Some(Incoming::Offers(peer, call)) => {
                let (room, herald, courier) = (room.clone(), herald.clone(), courier.clone());
                trades.spawn(async move {
                    let response = match call.request() {
                        OffersRequest::Browse => OffersResponse::Book(herald.latest()),
                        OffersRequest::Relay(order) => courier.carry(order).await,
                        OffersRequest::Tender(tender) => bids::answer(&room, &herald.key, peer, tender).await,
                        OffersRequest::Announce(_) => OffersResponse::Noted {
                            accepted: 0,
                            complaint: Some("this node sells and keeps no book".to_owned()),
                        },
                    };
                    if let Err(error) = call.answer(&response).await {
                        debug!(%peer, %error, "an offers request could not be answered");
                    }
                });
            }
            None => {
                debug!("the node is closed");
                return;
            }
        }
    }
}
