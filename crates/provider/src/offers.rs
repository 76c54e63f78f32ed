//! Announcing what is sold: signed offers to every meeting peer and some neighbours, on a beat and when the load changes.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use rialto_network::{Neighbours, Node};
use rialto_protocol::{
    SigningKey,
    offer::{Announcement, Offer},
    ticket::Peer,
    wire::{MAX_ANNOUNCEMENTS, OffersRequest, OffersResponse},
};
use tokio::{sync::Notify, time::Instant};
use tokio_util::sync::CancellationToken;
use tracing::{debug, warn};

use crate::{
    Error, clock,
    room::{Room, Shelf},
    store::Write,
};

/// Shortest time between two announcements, however fast the load changes.
const PAUSE: Duration = Duration::from_millis(500);

/// How long a meeting peer may take.
const PATIENCE: Duration = Duration::from_secs(5);

/// Neighbours, at random, that are told beside the meeting peers; they tell theirs.
const FAN_OUT: usize = 8;

/// Time between two announcements while nobody takes them.
const AGAIN: Duration = Duration::from_secs(1);

/// Lifetime of the offers that a provider sends when it stops, in seconds.
const FAREWELL: u64 = 1;

/// Under this name the store keeps the last offer's sequence.
const SEQUENCE: &str = "offer_sequence";

/// Announces the provider's offers.
#[derive(Debug)]
pub(crate) struct Herald {
    pub(crate) node: Node,
    pub(crate) room: Arc<Room>,
    pub(crate) key: Arc<SigningKey>,
    pub(crate) meeting: Vec<Peer>,
    pub(crate) neighbours: Arc<Neighbours>,
    pub(crate) changed: Arc<Notify>,
    pub(crate) latest: Mutex<Vec<Announcement>>,
}

impl Herald {
    /// The last announcements, as many as one message may have.
    pub(crate) fn latest(&self) -> Vec<Announcement> {
        let latest = self.latest.lock().unwrap_or_else(PoisonError::into_inner);
        latest.iter().take(MAX_ANNOUNCEMENTS).cloned().collect()
    }

    /// Announces until `closing`, then says farewell.
    pub(crate) async fn run(self: Arc<Self>, closing: CancellationToken) {
        let mut heard = true;
        loop {
            let lifetime = self.room.config.offer_lifetime.as_secs().max(1);
            let started = Instant::now();
            let taken = self.announce(lifetime).await;
            match &taken {
                Err(error) if heard => warn!(%error, "offers could not be announced"),
                Err(error) => debug!(%error, "offers could not be announced"),
                Ok(0) if heard && !self.meeting.is_empty() => warn!("nobody took the offers, trying on"),
                Ok(taken) => debug!(taken, "announced"),
            }
            heard = matches!(taken, Ok(1..));
            let interval = self.room.config.offer_interval;
            let alone = self.meeting.is_empty();
            let beat = started + if heard || alone { interval } else { interval.min(AGAIN) };
            tokio::select! {
                () = closing.cancelled() => break,
                () = tokio::time::sleep_until(beat) => {}
                () = async {
                    tokio::time::sleep_until(started + PAUSE).await;
                    self.changed.notified().await;
                } => {}
            }
        }
        // The book drops these at once instead of waiting for the old ones to expire.
        if let Err(error) = self.announce(FAREWELL).await {
            debug!(%error, "no farewell was sent");
        }
    }

    /// Signs fresh offers and sends them to every meeting peer and to some neighbours. Returns how many peers took them.
    async fn announce(&self, lifetime: u64) -> Result<usize, Error> {
        let peer = self.node.peer();
        let expires_at = clock::now().saturating_add(lifetime);
        let sequence = self.sequence(self.room.quote(expires_at)).await?;
        let offer = |shelf: &Arc<Shelf>| {
            let offer = self.offer(shelf, &peer, sequence, expires_at);
            offer.announce(&self.key, shelf.listing.manifest.clone())
        };
        let announcements: Vec<Announcement> = self.room.shelves.values().map(offer).collect();
        self.latest
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone_from(&announcements);
        let mut told = self.meeting.clone();
        let neighbours = self.neighbours.listeners(FAN_OUT);
        told.extend(
            neighbours
                .into_iter()
                .filter(|peer| self.meeting.iter().all(|meeting| meeting.node != peer.node)),
        );
        let mut taken = 0;
        for part in announcements.chunks(MAX_ANNOUNCEMENTS) {
            let request = OffersRequest::Announce(part.to_vec());
            let calls = told.iter().map(|peer| self.tell(peer, &request));
            let answers = futures::future::join_all(calls).await;
            taken += answers.into_iter().filter(|taken| *taken).count();
        }
        Ok(taken)
    }

    fn offer(&self, shelf: &Shelf, peer: &Peer, sequence: u64, expires_at: u64) -> Offer {
        let (energy_millijoules, energy_source) = shelf.energy.per_unit();
        Offer {
            provider: self.key.address(),
            node: peer.node,
            addresses: peer.addresses.clone(),
            relay: peer.relay.clone(),
            retains_data: self.room.config.retains_data,
            model: shelf.model,
            publisher: shelf.listing.publisher,
            price: shelf.tag.current(),
            chunk: self.room.config.chunk,
            capacity: shelf.queue.capacity(),
            load: u32::try_from(shelf.queue.load()).unwrap_or(u32::MAX),
            speed: shelf.queue.speed(),
            region: self.room.config.region,
            energy_millijoules,
            energy_source,
            engine: shelf.listing.engine.info().class.clone(),
            sequence,
            expires_at,
        }
    }

    /// A number above every one used before, also before a restart and when the clock was set back. The prices of the
    /// offers that it is for are stored with it: they hold, whatever happens.
    async fn sequence(&self, quotes: Vec<Write>) -> Result<u64, Error> {
        let last = self.room.store.mark(SEQUENCE).await?;
        let sequence = last.saturating_add(1).max(clock::now_millis());
        let mut writes = quotes;
        writes.push(Write::Mark(SEQUENCE, sequence));
        self.room.store.submit(writes).durable().await?;
        Ok(sequence)
    }

    async fn tell(&self, peer: &Peer, request: &OffersRequest) -> bool {
        match tokio::time::timeout(PATIENCE, self.node.offers(peer, request)).await {
            Ok(Ok(OffersResponse::Noted { accepted, complaint })) => {
                if let Some(complaint) = complaint {
                    // Another node's words: cut, so that they cannot fill the log.
                    let complaint: String = complaint.chars().take(200).collect();
                    warn!(peer = %peer.node, complaint, "a meeting peer complained about an offer");
                }
                accepted > 0
            }
            Ok(Ok(_)) => false,
            Ok(Err(error)) => {
                debug!(peer = %peer.node, %error, "a meeting peer could not be told");
                false
            }
            Err(_) => false,
        }
    }
}
