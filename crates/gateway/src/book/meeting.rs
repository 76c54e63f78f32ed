//! Where offers come from: peers that announce theirs, and meeting peers whose books are read.

use std::sync::Arc;

use rialto_network::{Incoming, OffersCall};
use rialto_protocol::{
    NodeKey,
    offer::Announcement,
    ticket::Peer,
    wire::{MAX_ANNOUNCEMENTS, OffersRequest, OffersResponse, Refusal, RefusalCode},
};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

use super::NoteError;
use crate::{config::ms, desk::Desk, store::now};

/// Calls that are answered at a time.
const MAX_CALLS: usize = 64;

/// Answers peers until the node closes.
pub(crate) async fn answer_peers(desk: Arc<Desk>, stop: CancellationToken) {
    let places = Arc::new(Semaphore::new(MAX_CALLS));
    loop {
        let incoming = tokio::select! {
            () = stop.cancelled() => return,
            incoming = desk.node.accept() => incoming,
        };
        match incoming {
            None => return,
            // A gateway sells nothing: dropping the stream resets it.
            Some(Incoming::Trade(peer, _)) => tracing::debug!(%peer, "a peer tried to buy from a gateway"),
            Some(Incoming::Offers(peer, call)) => {
                let Ok(place) = Arc::clone(&places).acquire_owned().await else {
                    return;
                };
                let desk = Arc::clone(&desk);
                tokio::spawn(async move {
                    if let Err(error) = answer(&desk, peer, call).await {
                        tracing::debug!(%peer, %error, "an offers call was not answered");
                    }
                    drop(place);
                });
            }
        }
    }
}

async fn answer(desk: &Desk, peer: NodeKey, call: OffersCall) -> Result<(), rialto_network::Error> {
    let response = match call.request() {
        OffersRequest::Browse => OffersResponse::Book(desk.book.all(now(), MAX_ANNOUNCEMENTS)),
        OffersRequest::Relay(_) => OffersResponse::NotRelayed(Refusal::new(
            RefusalCode::BadRequest,
            "this node buys and relays nothing",
        )),
        OffersRequest::Tender(_) => OffersResponse::NoBid(Refusal::new(
            RefusalCode::UnknownModel,
            "this node buys and sells nothing",
        )),
        OffersRequest::Announce(list) => {
            let (accepted, complaint) = note_all(desk, peer, list.clone()).await;
            OffersResponse::Noted { accepted, complaint }
        }
    };
    call.answer(&response).await
}

/// Notes announcements; returns how many were taken, and the first complaint.
async fn note_all(desk: &Desk, peer: NodeKey, list: Vec<Announcement>) -> (u32, Option<String>) {
    let (mut accepted, mut complaint) = (0, None);
    for announcement in list.into_iter().take(MAX_ANNOUNCEMENTS) {
        match note(desk, peer, announcement).await {
            Ok(()) => accepted += 1,
            Err(error) => {
                tracing::debug!(%peer, %error, "an offer was not noted");
                complaint.get_or_insert_with(|| error.to_string());
            }
        }
    }
    (accepted, complaint)
}

async fn note(desk: &Desk, peer: NodeKey, announcement: Announcement) -> Result<(), NoteError> {
    // The signature is checked before the chain is asked: an unsigned offer must not cost a look-up.
    announcement.check(now())?;
    if !desk.stakes.is_staked(announcement.offer.provider).await {
        return Err(NoteError::Unstaked);
    }
    desk.book.note(announcement, peer, now())
}

/// Reads the books of the meeting peers again and again.
pub(crate) async fn browse(desk: Arc<Desk>, meeting: Vec<Peer>, stop: CancellationToken) {
    loop {
        for peer in &meeting {
            tokio::select! {
                () = stop.cancelled() => return,
                () = read(&desk, peer) => {}
            }
        }
        desk.book.expire(now());
        desk.metrics
            .offers
            .set(i64::try_from(desk.book.len()).unwrap_or(i64::MAX));
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(ms(desk.config.timeouts.browse_ms)) => {}
        }
    }
}

async fn read(desk: &Desk, peer: &Peer) {
    match desk.node.offers(peer, &OffersRequest::Browse).await {
        Ok(OffersResponse::Book(list)) => {
            note_all(desk, peer.node, list).await;
            desk.book.set_read();
        }
        Ok(_) => tracing::debug!(peer = %peer.node, "a peer answered another question"),
        Err(error) => tracing::debug!(peer = %peer.node, %error, "a meeting peer's book could not be read"),
    }
}
