//! Streams whose first frame has not come yet: bounded for each peer and in all, so that peers that open streams and say
//! nothing take no place from those that speak.
//!
//! Node keys cost nothing, so a limit for each peer alone would not hold. When all places are taken the oldest stream of
//! the peer with the most of them makes room: an honest first frame comes with the stream.

use std::{
    collections::{BTreeMap, HashMap, VecDeque},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use rialto_protocol::NodeKey;
use tokio_util::sync::CancellationToken;

/// Streams that are half open.
#[derive(Debug)]
pub(crate) struct Crowd {
    per_peer: usize,
    all: usize,
    streams: Mutex<Streams>,
}

#[derive(Debug, Default)]
struct Streams {
    serial: u64,
    peers: HashMap<NodeKey, VecDeque<u64>>,
    tokens: BTreeMap<u64, (NodeKey, CancellationToken)>,
}

/// A half-open stream; it counts until this is dropped.
#[derive(Debug)]
pub(crate) struct Seat {
    crowd: Arc<Crowd>,
    number: u64,
    /// The stream's place is needed.
    pub(crate) over: CancellationToken,
}

impl Crowd {
    pub(crate) fn new(per_peer: usize, all: usize) -> Arc<Self> {
        Arc::new(Self {
            per_peer,
            all,
            streams: Mutex::default(),
        })
    }

    fn lock(&self) -> MutexGuard<'_, Streams> {
        self.streams.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Counts a stream of a peer; the oldest one makes room if there is none.
    pub(crate) fn sit(self: &Arc<Self>, peer: NodeKey) -> Seat {
        let mut streams = self.lock();
        let own = streams.peers.get(&peer).map_or(0, VecDeque::len);
        if own >= self.per_peer {
            streams.end_oldest(peer);
        } else if streams.tokens.len() >= self.all {
            let most = streams.peers.values().map(VecDeque::len).max().unwrap_or(0);
            let crowding = streams.tokens.values().map(|(peer, _)| *peer);
            let oldest = crowding
                .into_iter()
                .find(|peer| streams.peers.get(peer).map_or(0, VecDeque::len) == most);
            if let Some(peer) = oldest {
                streams.end_oldest(peer);
            }
        }
        streams.serial += 1;
        let (number, over) = (streams.serial, CancellationToken::new());
        streams.peers.entry(peer).or_default().push_back(number);
        streams.tokens.insert(number, (peer, over.clone()));
        Seat {
            crowd: self.clone(),
            number,
            over,
        }
    }
}

impl Streams {
    fn end_oldest(&mut self, peer: NodeKey) {
        let number = self.peers.get(&peer).and_then(VecDeque::front).copied();
        if let Some(number) = number {
            self.remove(number);
        }
    }

    /// Takes a stream out of the count and ends it, if it is not ended yet.
    fn remove(&mut self, number: u64) {
        let Some((peer, over)) = self.tokens.remove(&number) else {
            return;
        };
        over.cancel();
        if let Some(own) = self.peers.get_mut(&peer) {
            own.retain(|one| *one != number);
            if own.is_empty() {
                self.peers.remove(&peer);
            }
        }
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.crowd.lock().remove(self.number);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn peer(number: u8) -> NodeKey {
        NodeKey([number; 32])
    }

    #[test]
    fn one_more_of_a_peer_ends_its_oldest() {
        let crowd = Crowd::new(2, 10);
        let (first, second) = (crowd.sit(peer(1)), crowd.sit(peer(1)));
        let other = crowd.sit(peer(2));
        let third = crowd.sit(peer(1));
        assert!(first.over.is_cancelled());
        for one in [&second, &third, &other] {
            assert!(!one.over.is_cancelled());
        }
    }

    #[test]
    fn when_all_places_are_taken_the_peer_with_the_most_makes_room() {
        let crowd = Crowd::new(10, 4);
        let honest = crowd.sit(peer(1));
        let flood: Vec<_> = (0..3).map(|_| crowd.sit(peer(2))).collect();
        let late = crowd.sit(peer(3));
        assert!(flood[0].over.is_cancelled());
        assert!(!honest.over.is_cancelled() && !late.over.is_cancelled());
        drop(flood);
        drop((honest, late));
        assert!(crowd.lock().tokens.is_empty() && crowd.lock().peers.is_empty());
    }
}
