//! Neighbours: some other nodes of the market, so that nobody has to know everybody.
//!
//! A node greets those it knows, from the ticket or from the chain, and each answers with some that it knows itself. Who
//! answers is a neighbour; who greets this node is greeted back first, and so it is sure that it is there. A node looks
//! for a few neighbours and takes some more that come; the rest of what it knows is kept for when they go. What neighbours
//! tell each other is the business of the rooms above.

mod contacts;

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use rialto_protocol::{
    Domain, NodeKey,
    ticket::Peer,
    wire::{Greeting, MAX_CONTACTS, OffersRequest, OffersResponse},
};
use tokio::sync::{Notify, Semaphore};

use self::contacts::Contacts;
use crate::{Node, Rates};

/// Greetings that are under way at a time.
const UNDER_WAY: usize = 8;

/// Shortest time between two greetings.
const PAUSE: Duration = Duration::from_millis(20);

/// Longest time between two looks at who is to be greeted.
const LOOK: Duration = Duration::from_secs(1);

/// Greetings that one caller may send: so many at once, and one in so long.
const BURST: u32 = 8;
const PER_SECOND: f64 = 0.5;

/// This node's neighbours in a market.
#[derive(Debug)]
pub struct Neighbours {
    node: Node,
    market: Domain,
    listens: bool,
    contacts: Mutex<Contacts>,
    callers: Mutex<Rates<NodeKey>>,
    wanted: Notify,
}

impl Neighbours {
    /// None yet. `listens` says whether this node keeps a book of offers; `sought` is how many neighbours it looks for.
    pub fn new(node: Node, market: Domain, listens: bool, sought: usize) -> Self {
        Self {
            contacts: Mutex::new(Contacts::new(node.key(), sought)),
            callers: Mutex::new(Rates::new(BURST, PER_SECOND, Instant::now())),
            node,
            market,
            listens,
            wanted: Notify::new(),
        }
    }

    fn contacts(&self) -> MutexGuard<'_, Contacts> {
        self.contacts.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Names nodes that may be dialled, from a source that this node trusts. One without an address is dialled through
    /// the relay.
    pub fn meet(&self, peers: impl IntoIterator<Item = Peer>) {
        let mut contacts = self.contacts();
        for peer in peers {
            contacts.add(peer, true, false, Instant::now());
        }
        drop(contacts);
        self.wanted.notify_one();
    }

    /// Answers a caller's greeting, and greets it back soon.
    pub fn answer(&self, caller: NodeKey, greeting: &Greeting) -> OffersResponse {
        let now = Instant::now();
        let may = self
            .callers
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take(caller, now);
        if greeting.market != self.market || !may {
            return OffersResponse::Noted {
                accepted: 0,
                complaint: Some("this node is a part of another market, or was greeted too often".to_owned()),
            };
        }
        let mut contacts = self.contacts();
        let told = contacts.answering(MAX_CONTACTS);
        contacts.add(greeting.own.clone(), false, true, now);
        drop(contacts);
        self.wanted.notify_one();
        OffersResponse::Greeted {
            listens: self.listens,
            contacts: told,
        }
    }

    /// Greets again and again; whoever spawns this ends it.
    pub async fn run(self: Arc<Self>) {
        let places = Arc::new(Semaphore::new(UNDER_WAY));
        loop {
            let Ok(place) = places.clone().acquire_owned().await else {
                return;
            };
            let due = self.contacts().due(Instant::now());
            let Some(peer) = due else {
                drop(place);
                let next = self
                    .contacts()
                    .next()
                    .map(|next| next.saturating_duration_since(Instant::now()));
                tokio::select! {
                    () = self.wanted.notified() => {}
                    () = tokio::time::sleep(next.unwrap_or(LOOK).clamp(PAUSE, LOOK)) => {}
                }
                continue;
            };
            let neighbours = self.clone();
            tokio::spawn(async move {
                neighbours.greet(&peer).await;
                drop(place);
            });
            tokio::time::sleep(PAUSE).await;
        }
    }

    async fn greet(&self, peer: &Peer) {
        let greeting = OffersRequest::Greet(Box::new(Greeting {
            market: self.market,
            own: self.node.peer(),
        }));
        let answer = self.node.offers(peer, &greeting).await;
        let now = Instant::now();
        let mut contacts = self.contacts();
        match answer {
            Ok(OffersResponse::Greeted {
                listens,
                contacts: told,
            }) => {
                contacts.answered(peer.node, listens, now);
                for named in told.into_iter().take(MAX_CONTACTS) {
                    contacts.add(named, false, false, now);
                }
            }
            Ok(_) => contacts.failed(peer.node, now),
            Err(error) => {
                tracing::debug!(peer = %peer.node, %error, "a contact does not answer");
                contacts.failed(peer.node, now);
            }
        }
    }

    /// Has nothing to do with a node for a while, because it told what is false.
    pub fn blame(&self, node: NodeKey) {
        self.contacts().blamed(node, Instant::now());
    }

    /// Neighbours that keep a book of offers, at most so many, at random.
    pub fn listeners(&self, most: usize) -> Vec<Peer> {
        self.contacts().listeners(most)
    }

    /// Nodes that answer, sellers too, at most so many, at random.
    pub fn answering(&self, most: usize) -> Vec<Peer> {
        self.contacts().answering(most)
    }

    /// Those that began to answer since this was last asked: their books are worth reading.
    pub fn take_unread(&self) -> Vec<Peer> {
        self.contacts().take_unread()
    }
}
