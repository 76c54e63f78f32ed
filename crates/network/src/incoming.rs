//! What peers ask of this node.

use std::{sync::Arc, time::Duration};

use iroh::{
    Endpoint,
    endpoint::{Connection, RecvStream, SendStream},
};
use rialto_protocol::{
    NodeKey,
    wire::{BuyerFrame, OFFERS_ALPN, OffersRequest, OffersResponse, SellerFrame, TRADE_ALPN},
};
use tokio::sync::{Semaphore, mpsc};
use tracing::debug;

use crate::{
    Error,
    frame::{FrameReceiver, FrameSender, Trade},
};

/// Most connections served at a time; more are refused at once.
const MAX_CONNECTIONS: usize = 4_096;

/// How long a peer may take over its handshake or an offers request.
const PATIENCE: Duration = Duration::from_secs(10);

/// A call by a peer, named by its key.
#[derive(Debug)]
pub enum Incoming {
    /// It wants to buy.
    Trade(NodeKey, Trade<SellerFrame, BuyerFrame>),
    /// It announces offers, or asks for those known here.
    Offers(NodeKey, OffersCall),
}

/// A request of the offers protocol, waiting for its answer.
#[derive(Debug)]
pub struct OffersCall {
    request: OffersRequest,
    sender: FrameSender<OffersResponse>,
}

impl OffersCall {
    /// What is asked.
    pub fn request(&self) -> &OffersRequest {
        &self.request
    }

    /// Answers and ends the stream.
    pub async fn answer(mut self, response: &OffersResponse) -> Result<(), Error> {
        self.sender.send(response).await?;
        self.sender.finish().await;
        Ok(())
    }
}

/// Accepts connections until the endpoint closes.
pub(crate) async fn accept_connections(endpoint: Endpoint, calls: mpsc::Sender<Incoming>) {
    let places = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    while let Some(incoming) = endpoint.accept().await {
        let Ok(place) = places.clone().try_acquire_owned() else {
            incoming.refuse();
            continue;
        };
        let calls = calls.clone();
        tokio::spawn(async move {
            let _place = place;
            let Ok(accepting) = incoming.accept() else { return };
            match tokio::time::timeout(PATIENCE, accepting).await {
                Ok(Ok(connection)) => accept_streams(connection, calls).await,
                Ok(Err(error)) => debug!(%error, "a handshake failed"),
                Err(_) => debug!("a handshake took too long"),
            }
        });
    }
}

async fn accept_streams(connection: Connection, calls: mpsc::Sender<Incoming>) {
    let peer = NodeKey(*connection.remote_id().as_bytes());
    let trade = connection.alpn() == TRADE_ALPN;
    if !trade && connection.alpn() != OFFERS_ALPN {
        return;
    }
    while let Ok((send, recv)) = connection.accept_bi().await {
        if trade {
            if calls.send(Incoming::Trade(peer, Trade::new(send, recv))).await.is_err() {
                return;
            }
        } else {
            tokio::spawn(accept_offers(peer, send, recv, calls.clone()));
        }
    }
}

async fn accept_offers(peer: NodeKey, send: SendStream, recv: RecvStream, calls: mpsc::Sender<Incoming>) {
    let mut receiver = FrameReceiver::<OffersRequest>::new(recv);
    match tokio::time::timeout(PATIENCE, receiver.next()).await {
        Ok(Ok(Some(request))) => {
            let call = OffersCall {
                request,
                sender: FrameSender::new(send),
            };
            drop(calls.send(Incoming::Offers(peer, call)).await);
        }
        Ok(Ok(None)) | Err(_) => debug!(%peer, "an offers request did not come"),
        Ok(Err(error)) => debug!(%peer, %error, "an offers request was malformed"),
    }
}
