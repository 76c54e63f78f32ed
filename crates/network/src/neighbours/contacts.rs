//! Nodes that may be dialled, and what came of it.

use std::{
    collections::HashMap,
    time::{Duration, Instant},
};

use rand::seq::{IndexedRandom as _, IteratorRandom as _};
use rialto_protocol::{
    NodeKey,
    offer::MAX_RELAY,
    ticket::{MAX_ADDRESS, MAX_ADDRESSES, Peer},
};

/// Contacts that are kept.
const KEPT: usize = 512;

/// Neighbours at most: those that this node looked for, and those that came to it.
const MAX_NEIGHBOURS: usize = 48;

/// Time between two greetings of a neighbour, and between two of a node that keeps no book.
const AGAIN: Duration = Duration::from_secs(30);
const SELDOM: Duration = Duration::from_secs(600);

/// How long a greeting may be under way.
const UNDER_WAY: Duration = Duration::from_secs(15);

/// Pauses after a greeting that failed: the first, and the longest.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
const LONGEST_PAUSE: Duration = Duration::from_secs(60);

/// The pause after a neighbour told what is false.
const BLAMED: Duration = Duration::from_secs(600);

/// Greetings that fail before a contact that a neighbour named is forgotten.
const PATIENCE: u32 = 4;

#[derive(Debug)]
struct Contact {
    peer: Peer,
    /// Where it may be instead, and whether that was not tried yet.
    elsewhere: Option<(Peer, bool)>,
    /// From the ticket, the chain or this node's own records, and not from a neighbour.
    trusted: bool,
    /// It greeted this node, and waits to be told.
    came: bool,
    /// It answered last time; whether it keeps a book.
    listens: Option<bool>,
    /// Its book was not read since it began to answer.
    unread: bool,
    failures: u32,
    next: Instant,
}

impl Contact {
    /// Hears where it is said to be now.
    fn hear(&mut self, peer: Peer, trusted: bool, now: Instant) {
        // The chain knows keys without addresses.
        if peer == self.peer || peer.addresses.is_empty() {
            return;
        }
        if self.elsewhere.as_ref().is_some_and(|(known, _)| *known == peer) {
            return;
        }
        if self.peer.addresses.is_empty() || (trusted && !self.trusted) {
            self.peer = peer;
        } else {
            self.elsewhere = Some((peer, true));
        }
        // Whether it is still there is found out at once.
        self.next = now;
    }

    /// Goes to where it may be instead; whether that was not tried before.
    fn move_on(&mut self) -> bool {
        let Some((peer, untried)) = self.elsewhere.take() else {
            return false;
        };
        self.elsewhere = Some((std::mem::replace(&mut self.peer, peer), false));
        untried
    }
}

/// The contacts.
#[derive(Debug)]
pub(super) struct Contacts {
    own: NodeKey,
    /// Neighbours that this node looks for.
    sought: usize,
    known: HashMap<NodeKey, Contact>,
}

impl Contacts {
    pub(super) fn new(own: NodeKey, sought: usize) -> Self {
        Self {
            own,
            sought,
            known: HashMap::new(),
        }
    }

    /// Adds one. What a neighbour says does not replace what a trusted source said: it is tried once that fails.
    pub(super) fn add(&mut self, peer: Peer, trusted: bool, came: bool, now: Instant) {
        let fits = peer.addresses.len() <= MAX_ADDRESSES
            && peer.addresses.iter().all(|address| address.len() <= MAX_ADDRESS)
            && peer.relay.as_ref().is_none_or(|relay| relay.len() <= MAX_RELAY);
        if !fits || peer.node == self.own {
            return;
        }
        if let Some(known) = self.known.get_mut(&peer.node) {
            known.hear(peer, trusted, now);
            if came && !known.came {
                known.next = now;
            }
            known.trusted |= trusted;
            known.came |= came;
            return;
        }
        if self.known.len() >= KEPT && !self.make_room(trusted) {
            return;
        }
        let contact = Contact {
            elsewhere: None,
            trusted,
            came,
            listens: None,
            unread: false,
            failures: 0,
            next: now,
            peer,
        };
        self.known.insert(contact.peer.node, contact);
    }

    /// Forgets one that does not answer: of a neighbour's naming if there is any; a trusted one only for another.
    fn make_room(&mut self, for_trusted: bool) -> bool {
        let idle = |contact: &&Contact| contact.listens.is_none() && (for_trusted || !contact.trusted);
        let idle: Vec<&Contact> = self.known.values().filter(idle).collect();
        let named = idle.iter().filter(|contact| !contact.trusted);
        let gone = named.choose(&mut rand::rng()).or_else(|| idle.choose(&mut rand::rng()));
        let gone = gone.map(|contact| contact.peer.node);
        gone.is_some_and(|node| self.known.remove(&node).is_some())
    }

    /// One to greet now, which then is under way until [`Self::answered`] or [`Self::failed`]. Neighbours come first, then
    /// who came to this node, then trusted sources: neighbours alone must not decide whom this node hears.
    pub(super) fn due(&mut self, now: Instant) -> Option<Peer> {
        let neighbours = self.known.values().filter(|one| one.listens == Some(true)).count();
        let rank = |contact: &Contact| match contact {
            Contact { listens: Some(_), .. } => Some(0),
            Contact { came: true, .. } if neighbours < MAX_NEIGHBOURS => Some(1),
            _ if neighbours >= self.sought => None,
            Contact { trusted: true, .. } => Some(2),
            Contact { .. } => Some(3),
        };
        let due = self.known.values().filter(|contact| contact.next <= now);
        let ranked: Vec<(u8, NodeKey)> = due
            .filter_map(|contact| rank(contact).map(|rank| (rank, contact.peer.node)))
            .collect();
        let best = ranked.iter().map(|(rank, _)| *rank).min()?;
        let chosen = ranked.into_iter().filter(|(rank, _)| *rank == best);
        let (_, node) = chosen.choose(&mut rand::rng())?;
        let contact = self.known.get_mut(&node)?;
        contact.next = now + UNDER_WAY;
        Some(contact.peer.clone())
    }

    /// When the next one may be due.
    pub(super) fn next(&self) -> Option<Instant> {
        self.known.values().map(|contact| contact.next).min()
    }

    /// It answered, and keeps a book or not.
    pub(super) fn answered(&mut self, node: NodeKey, listens: bool, now: Instant) {
        if let Some(contact) = self.known.get_mut(&node) {
            contact.unread |= contact.listens.is_none();
            contact.listens = Some(listens);
            contact.failures = 0;
            contact.next = now + if listens { AGAIN } else { SELDOM };
        }
    }

    /// It did not answer, or not as a node of this market does.
    pub(super) fn failed(&mut self, node: NodeKey, now: Instant) {
        let Some(contact) = self.known.get_mut(&node) else {
            return;
        };
        contact.listens = None;
        if contact.move_on() {
            contact.next = now;
            return;
        }
        contact.came = false;
        contact.failures = contact.failures.saturating_add(1);
        let pause = FIRST_PAUSE.saturating_mul(1 << contact.failures.min(6).saturating_sub(1));
        contact.next = now + pause.min(LONGEST_PAUSE);
        if !contact.trusted && contact.failures >= PATIENCE {
            self.known.remove(&node);
        }
    }

    /// It told what is false.
    pub(super) fn blamed(&mut self, node: NodeKey, now: Instant) {
        self.failed(node, now);
        if let Some(contact) = self.known.get_mut(&node) {
            contact.next = now + BLAMED;
        }
    }

    /// Neighbours that keep a book, at most so many, at random.
    pub(super) fn listeners(&self, most: usize) -> Vec<Peer> {
        self.sample(most, |contact| contact.listens == Some(true))
    }

    /// Nodes that answer, at most so many, at random: who keeps a book, and some others.
    pub(super) fn answering(&self, most: usize) -> Vec<Peer> {
        let mut list = self.listeners(most - most / 4);
        let room = most - list.len();
        list.extend(self.sample(room, |contact| contact.listens == Some(false)));
        list
    }

    fn sample(&self, most: usize, takes: impl Fn(&Contact) -> bool) -> Vec<Peer> {
        let taken = self.known.values().filter(|contact| takes(contact));
        let taken = taken.sample(&mut rand::rng(), most);
        taken.into_iter().map(|contact| contact.peer.clone()).collect()
    }

    /// Those that began to answer since this was last asked.
    pub(super) fn take_unread(&mut self) -> Vec<Peer> {
        let unread = self.known.values_mut().filter(|contact| contact.unread);
        unread
            .map(|contact| {
                contact.unread = false;
                contact.peer.clone()
            })
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SOUGHT: usize = 3;

    fn peer(number: u16) -> Peer {
        let mut key = [0; 32];
        key[..2].copy_from_slice(&number.to_be_bytes());
        Peer {
            node: NodeKey(key),
            addresses: vec!["127.0.0.1:1".into()],
            relay: None,
        }
    }

    fn contacts() -> (Contacts, Instant) {
        (Contacts::new(NodeKey([9; 32]), SOUGHT), Instant::now())
    }

    #[test]
    fn neighbours_cannot_crowd_out_what_the_ticket_names() {
        let (mut contacts, now) = contacts();
        contacts.add(peer(0), true, false, now);
        for number in 1..2_000 {
            contacts.add(peer(number), false, true, now);
        }
        assert_eq!(contacts.known.len(), KEPT);
        let forged = Peer {
            addresses: vec!["192.0.2.1:1".into()],
            ..peer(0)
        };
        contacts.add(forged, false, true, now);
        assert_eq!(contacts.known[&peer(0).node].peer, peer(0), "where the ticket says");
    }

    #[test]
    fn a_node_looks_for_some_neighbours_and_takes_more_that_come() {
        let (mut contacts, now) = contacts();
        for number in 0..100 {
            contacts.add(peer(number), number == 50, false, now);
        }
        let mut greeted = Vec::new();
        while let Some(peer) = contacts.due(now) {
            contacts.answered(peer.node, true, now);
            greeted.push(peer);
        }
        assert_eq!(greeted.len(), SOUGHT);
        assert_eq!(greeted[0], peer(50), "the trusted one first");
        for number in 100..200 {
            contacts.add(peer(number), false, true, now);
        }
        while let Some(peer) = contacts.due(now) {
            contacts.answered(peer.node, true, now);
            greeted.push(peer);
        }
        assert_eq!(greeted.len(), MAX_NEIGHBOURS);
        assert_eq!(contacts.listeners(8).len(), 8);
        assert_eq!(contacts.take_unread().len(), MAX_NEIGHBOURS);
        assert!(contacts.take_unread().is_empty());
        assert!(contacts.next().is_some());
    }

    #[test]
    fn who_does_not_answer_waits_longer_and_is_forgotten_unless_it_is_trusted() {
        let (mut contacts, mut now) = contacts();
        contacts.add(peer(1), true, false, now);
        contacts.add(peer(2), false, false, now);
        for _ in 0..20 {
            while let Some(peer) = contacts.due(now) {
                contacts.failed(peer.node, now);
            }
            assert_eq!(contacts.due(now), None);
            now += LONGEST_PAUSE;
        }
        assert!(contacts.known.contains_key(&peer(1).node));
        assert!(!contacts.known.contains_key(&peer(2).node));
        assert!(contacts.answering(8).is_empty());
    }

    #[test]
    fn who_came_back_elsewhere_is_found_there_once_it_does_not_answer_where_it_was() {
        let (mut contacts, now) = contacts();
        contacts.add(peer(1), true, false, now);
        contacts.answered(peer(1).node, true, now);
        let moved = Peer {
            addresses: vec!["127.0.0.1:2".into()],
            ..peer(1)
        };
        contacts.add(moved.clone(), false, true, now);
        assert_eq!(contacts.due(now), Some(peer(1)), "whoever says so may lie");
        contacts.failed(peer(1).node, now);
        assert_eq!(contacts.due(now), Some(moved.clone()));
        contacts.failed(peer(1).node, now);
        assert_eq!(contacts.due(now), None, "both were tried");
        assert_eq!(contacts.due(now + LONGEST_PAUSE), Some(peer(1)));
        contacts.failed(peer(1).node, now + LONGEST_PAUSE);
        assert_eq!(contacts.due(now + LONGEST_PAUSE * 3), Some(moved));
    }

    #[test]
    fn a_node_is_not_its_own_contact() {
        let (mut contacts, now) = contacts();
        let own = Peer {
            node: NodeKey([9; 32]),
            ..peer(1)
        };
        contacts.add(own, true, true, now);
        assert_eq!(contacts.due(now), None);
    }
}
