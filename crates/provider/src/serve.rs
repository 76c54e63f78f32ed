//! Taking calls: each trade in a task of its own, within limits for each peer and in all.

use std::sync::Arc;

use rialto_network::{Incoming, Node, Trade};
use rialto_protocol::{
    NodeKey,
    wire::{BuyerFrame, OffersRequest, OffersResponse, SellerFrame},
};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tracing::debug;

use crate::{
    bids,
    courier::Courier,
    crowd::{Crowd, Seat},
    metrics::Metrics,
    offers::Herald,
    refusal,
    room::Room,
    trade,
};

/// Advice while the provider has too many trades open, in milliseconds.
const CROWDED_RETRY: u64 = 250;

/// A trade that is open until this is dropped.
struct Open {
    metrics: Metrics,
    _place: OwnedSemaphorePermit,
}

impl Open {
    fn new(place: OwnedSemaphorePermit, metrics: &Metrics) -> Self {
        metrics.trades.inc();
        Self {
            metrics: metrics.clone(),
            _place: place,
        }
    }
}

impl Drop for Open {
    fn drop(&mut self) {
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
    let crowd = Crowd::new(room.config.half_open_per_peer, room.config.half_open);
    let places = Arc::new(Semaphore::new(room.config.trades.min(Semaphore::MAX_PERMITS)));
    loop {
        let incoming = tokio::select! {
            () = stop.cancelled() => return,
            incoming = node.accept() => incoming,
        };
        match incoming {
            Some(Incoming::Trade(peer, trade)) => {
                let seat = crowd.sit(peer);
                trades.spawn(serve(room.clone(), peer, seat, places.clone(), trade));
            }
            Some(Incoming::Offers(peer, call)) => {
                let (room, herald, courier) = (room.clone(), herald.clone(), courier.clone());
                trades.spawn(async move {
                    let response = match call.request() {
                        OffersRequest::Browse => OffersResponse::Book(herald.latest()),
                        OffersRequest::Greet(greeting) => herald.neighbours.answer(peer, greeting),
                        OffersRequest::Relay(order) => courier.carry(order).await,
                        OffersRequest::Begin(order) => courier.begin(order).await,
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

/// Waits for a trade's first frame, and serves it if its peer has not too much open.
async fn serve(
    room: Arc<Room>,
    peer: NodeKey,
    seat: Seat,
    places: Arc<Semaphore>,
    trade: Trade<SellerFrame, BuyerFrame>,
) {
    let asked = tokio::select! {
        asked = trade::listen(&room, trade) => asked,
        // Dropping the stream breaks it off.
        () = seat.over.cancelled() => None,
    };
    drop(seat);
    let Some(asked) = asked else {
        room.metrics.half_open_ended.inc();
        debug!(%peer, "a trade's first frame did not come");
        return;
    };
    let Ok(place) = places.try_acquire_owned() else {
        let refusal = refusal::busy("too many trades are open", CROWDED_RETRY);
        return asked.refuse(&room, refusal).await;
    };
    let _open = Open::new(place, &room.metrics);
    match room.peers.pass(peer) {
        Ok(pass) => trade::serve(room, peer, &pass, asked).await,
        Err(retry) => {
            let refusal = refusal::busy("this node asks for too much, or too often", retry);
            asked.refuse(&room, refusal).await;
        }
    }
}
