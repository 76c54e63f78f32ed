//! Where offers come from: peers that announce theirs, and meeting peers whose books are read.

use std::{collections::HashSet, sync::Arc};

use futures::StreamExt as _;
use rialto_network::{Incoming, OffersCall};
use rialto_protocol::{
    NodeKey, bounded,
    offer::{Announcement, OfferError},
    ticket::Peer,
    wire::{MAX_ANNOUNCEMENTS, MAX_MESSAGE, OffersRequest, OffersResponse, Refusal, RefusalCode},
};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

use super::{NoteError, spread::MAX_BYTES};
use crate::{config::ms, desk::Desk, store::now};

/// Calls that are answered at a time.
const MAX_CALLS: usize = 64;

/// Books that are read at a time.
pub(super) const MAX_READS: usize = 8;

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
        OffersRequest::Browse => OffersResponse::Book(desk.book.all(now(), MAX_ANNOUNCEMENTS, MAX_BYTES)),
        OffersRequest::Greet(greeting) => desk.neighbours.answer(peer, greeting),
        OffersRequest::Relay(_) | OffersRequest::Begin(_) => OffersResponse::NotRelayed(Refusal::new(
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

/// Notes announcements of a caller, as many as it may bring; returns how many were taken, and the first complaint.
async fn note_all(desk: &Desk, peer: NodeKey, list: Vec<Announcement>) -> (u32, Option<String>) {
    let (mut accepted, mut complaint) = (0, None);
    for announcement in list.into_iter().take(MAX_ANNOUNCEMENTS) {
        if !desk.door.admits(peer) {
            complaint.get_or_insert_with(|| "too many offers".to_owned());
            break;
        }
        match note(desk, peer, announcement).await {
            Ok(()) => accepted += 1,
            Err(error) => {
                tracing::debug!(%peer, %error, "an offer was not noted");
                if is_forged(&error) {
                    desk.door.blame(peer);
                    desk.neighbours.blame(peer);
                }
                complaint.get_or_insert_with(|| bounded::cut(error.to_string(), MAX_MESSAGE));
            }
        }
    }
    (accepted, complaint)
}

/// Whether no honest node would have passed it on. Clocks differ, and so does what is known of the chain.
fn is_forged(error: &NoteError) -> bool {
    matches!(error, NoteError::Offer(error) if *error != OfferError::Expired)
}

/// Notes one, and has what is new told to neighbours.
pub(super) async fn note(desk: &Desk, peer: NodeKey, announcement: Announcement) -> Result<(), NoteError> {
    if desk.book.knows(&announcement.offer) {
        return Ok(());
    }
    // The signature is checked before the chain is asked: an unsigned offer must not cost a look-up.
    announcement.check(now())?;
    let (provider, model) = (announcement.offer.provider, announcement.offer.model);
    if !desk.door.takes(provider) {
        return Err(NoteError::TooMany);
    }
    if !desk.stakes.is_staked(provider).await {
        return Err(NoteError::Unstaked);
    }
    let seller = announcement.offer.peer();
    if desk.book.note(announcement, peer, now())? {
        // Requests may be waiting for it where it was.
        let node = desk.node.clone();
        desk.tasks.spawn(async move { node.look_after(&seller).await });
    }
    desk.spread.put(provider, model);
    Ok(())
}

/// Reads the books of the meeting peers again and again, that of a neighbour each time, and those of new ones.
pub(crate) async fn browse(desk: Arc<Desk>, meeting: Vec<Peer>, stop: CancellationToken) {
    loop {
        let mut peers = meeting.clone();
        peers.extend(desk.neighbours.take_unread());
        peers.extend(desk.neighbours.listeners(1));
        let mut named = HashSet::new();
        peers.retain(|peer| named.insert(peer.node));
        let reads = futures::stream::iter(&peers).for_each_concurrent(MAX_READS, |peer| read(&desk, peer));
        tokio::select! {
            () = stop.cancelled() => break,
            () = reads => {}
        }
        let channels = desk.ledger.all();
        desk.book
            .set_ours(channels.iter().map(|channel| channel.params.model).collect());
        desk.book.expire(now());
        desk.metrics
            .offers
            .set(i64::try_from(desk.book.len()).unwrap_or(i64::MAX));
        tokio::select! {
            () = stop.cancelled() => break,
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
