//! The nonces of one account: which are on their way, and which were given up but may still land.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    sync::{Arc, Mutex as Book, MutexGuard, PoisonError},
};

use alloy::{
    consensus::TxEip1559,
    primitives::{B256, Bytes, TxKind, U256},
};
use tokio::{sync::Mutex, time::Instant};

use super::fees::Fees;

/// Nonces that were issued more than once and are decided, whose hashes are remembered.
const REMEMBERED: usize = 256;

/// What a transaction does, whatever its nonce and price.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Content {
    pub(crate) to: TxKind,
    pub(crate) input: Bytes,
    pub(crate) value: U256,
}

impl Content {
    fn is_of(&self, transaction: &TxEip1559) -> bool {
        (&self.to, &self.input, &self.value) == (&transaction.to, &transaction.input, &transaction.value)
    }
}

/// A signed transaction.
#[derive(Debug, Clone)]
pub(crate) struct Signed {
    pub(crate) transaction: TxEip1559,
    pub(crate) raw: Bytes,
    pub(crate) hash: B256,
}

/// Everything that was issued for one nonce. It has one content for ever; only what it offers for gas rises. So at most
/// one of its hashes is ever in a block, and it does the same, whichever that is.
#[derive(Debug, Clone)]
pub(crate) struct Pending {
    /// The newest.
    pub(crate) newest: Signed,
    /// All hashes that were issued, oldest first.
    pub(crate) hashes: Vec<B256>,
    /// When the newest was made.
    pub(crate) given: Instant,
    /// A block after which it was first made.
    pub(crate) since: u64,
    /// An offer that was not enough to replace it.
    pub(crate) refused: Option<Fees>,
}

impl Pending {
    pub(crate) fn new(signed: Signed, since: u64) -> Self {
        Self {
            hashes: vec![signed.hash],
            newest: signed,
            given: Instant::now(),
            since,
            refused: None,
        }
    }

    /// What the next replacement must be above.
    pub(crate) fn offered(&self) -> Fees {
        self.refused.unwrap_or_else(|| Fees::of(&self.newest.transaction))
    }

    pub(crate) fn nonce(&self) -> u64 {
        self.newest.transaction.nonce
    }
}

/// The queue of one account, shared by all wallets of its key behind one [`crate::Chain`].
#[derive(Debug, Default)]
pub(crate) struct Queue {
    /// Held while a nonce is chosen until the nodes have its transaction.
    pub(crate) turn: Mutex<()>,
    /// Held from an approval until what it approves was pulled: approvals replace each other.
    pub(crate) approving: Mutex<()>,
    nonces: Book<Nonces>,
}

#[derive(Debug, Default)]
struct Nonces {
    /// Somebody waits for these, with all their hashes.
    flying: BTreeMap<u64, Vec<B256>>,
    /// Nobody waits for these any more, and they may still land.
    stuck: BTreeMap<u64, Pending>,
    /// Hashes of one nonce each, decided, oldest first.
    decided: VecDeque<Vec<B256>>,
}

impl Nonces {
    fn remember(&mut self, hashes: Vec<B256>) {
        if hashes.len() < 2 {
            return;
        }
        if self.decided.len() == REMEMBERED {
            self.decided.pop_front();
        }
        self.decided.push_back(hashes);
    }
}

impl Queue {
    fn nonces(&self) -> MutexGuard<'_, Nonces> {
        self.nonces.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The first nonce from `count` on that is used neither here nor, as far as is known, elsewhere.
    pub(crate) fn free(&self, count: u64, taken: &BTreeSet<u64>) -> u64 {
        let nonces = self.nonces();
        let used = |nonce: &u64| {
            nonces.flying.contains_key(nonce) || nonces.stuck.contains_key(nonce) || taken.contains(nonce)
        };
        let mut nonce = count;
        while used(&nonce) && nonce < u64::MAX {
            nonce += 1;
        }
        nonce
    }

    /// Begins to wait for a transaction.
    pub(crate) fn board(self: &Arc<Self>, pending: Pending) -> Flight {
        self.nonces().flying.insert(pending.nonce(), pending.hashes.clone());
        Flight {
            queue: Arc::clone(self),
            pending,
            decided: false,
        }
    }

    /// Goes on with what was given up and does exactly this; nonces below `count` are decided.
    pub(crate) fn resume(self: &Arc<Self>, count: u64, content: &Content) -> Option<Flight> {
        let pending = {
            let mut nonces = self.nonces();
            let undecided = nonces.stuck.split_off(&count);
            let decided = std::mem::replace(&mut nonces.stuck, undecided);
            for pending in decided.into_values() {
                nonces.remember(pending.hashes);
            }
            let same = |pending: &&Pending| content.is_of(&pending.newest.transaction);
            let nonce = nonces.stuck.values().find(same)?.nonce();
            nonces.stuck.remove(&nonce)?
        };
        Some(self.board(pending))
    }

    /// Whether anything was given up and may not be decided.
    pub(crate) fn has_stuck(&self) -> bool {
        !self.nonces().stuck.is_empty()
    }

    /// Goes on with what was given up at a nonce.
    pub(crate) fn take_up(self: &Arc<Self>, nonce: u64) -> Option<Flight> {
        let pending = self.nonces().stuck.remove(&nonce)?;
        Some(self.board(pending))
    }

    /// Whether somebody waits for a nonce.
    pub(crate) fn flies(&self, nonce: u64) -> bool {
        self.nonces().flying.contains_key(&nonce)
    }

    /// All hashes of the nonce that this hash was issued for, if there are others.
    pub(crate) fn siblings(&self, hash: B256) -> Option<Vec<B256>> {
        let nonces = self.nonces();
        let stuck = nonces.stuck.values().map(|pending| &pending.hashes);
        let mut all = nonces.flying.values().chain(stuck).chain(&nonces.decided);
        all.find(|hashes| hashes.contains(&hash)).cloned()
    }
}

/// A transaction that somebody waits for. Dropped undecided, it is stuck: the next with the same content goes on with
/// it, and whatever waits behind it pushes it.
#[derive(Debug)]
pub(crate) struct Flight {
    queue: Arc<Queue>,
    pub(crate) pending: Pending,
    decided: bool,
}

impl Flight {
    /// Notes a replacement, before a node has it.
    pub(crate) fn replace(&mut self, signed: Signed) {
        if !self.pending.hashes.contains(&signed.hash) {
            self.pending.hashes.push(signed.hash);
        }
        self.pending.newest = signed;
        self.pending.refused = None;
        self.pending.given = Instant::now();
        let hashes = self.pending.hashes.clone();
        self.queue.nonces().flying.insert(self.pending.nonce(), hashes);
    }

    /// Goes back to what was issued before a replacement that no node took; the next one must offer more than `above`.
    ///
    /// Its hash stays with the others: if a node took it after all, it is still this transaction that lands.
    pub(crate) fn withdraw(&mut self, before: Signed, above: Option<Fees>) {
        self.pending.newest = before;
        if let Some(fees) = above {
            self.pending.refused = Some(fees);
        }
    }

    /// It is in a block, or certainly never will be.
    pub(crate) fn decide(mut self) {
        self.decided = true;
    }
}

impl Drop for Flight {
    fn drop(&mut self) {
        let nonce = self.pending.nonce();
        let mut nonces = self.queue.nonces();
        nonces.flying.remove(&nonce);
        if self.decided {
            nonces.remember(std::mem::take(&mut self.pending.hashes));
        } else {
            nonces.stuck.insert(nonce, self.pending.clone());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn content(byte: u8) -> Content {
        Content {
            to: TxKind::Create,
            input: Bytes::from(vec![byte]),
            value: U256::ZERO,
        }
    }

    fn signed(nonce: u64, byte: u8, hash: u8) -> Signed {
        let Content { to, input, value } = content(byte);
        Signed {
            transaction: TxEip1559 {
                nonce,
                to,
                input,
                value,
                ..TxEip1559::default()
            },
            raw: Bytes::new(),
            hash: B256::repeat_byte(hash),
        }
    }

    #[tokio::test]
    async fn a_nonce_is_given_once_until_it_is_decided() {
        let queue = Arc::new(Queue::default());
        let none = BTreeSet::new();
        let first = queue.board(Pending::new(signed(5, 1, 1), 0));
        assert_eq!(queue.free(5, &none), 6);
        assert_eq!(queue.free(5, &BTreeSet::from([6])), 7);
        drop(first);
        assert_eq!(queue.free(5, &none), 6, "it may still land");
        assert!(!queue.flies(5));
        queue.take_up(5).unwrap().decide();
        assert_eq!(queue.free(5, &none), 5);
    }

    #[tokio::test]
    async fn what_was_given_up_is_gone_on_with_by_the_same_content_only() {
        let queue = Arc::new(Queue::default());
        drop(queue.board(Pending::new(signed(5, 1, 1), 0)));
        drop(queue.board(Pending::new(signed(6, 2, 2), 0)));
        assert!(queue.resume(5, &content(3)).is_none());
        let mut flight = queue.resume(5, &content(2)).unwrap();
        assert_eq!(flight.pending.nonce(), 6);
        assert!(queue.resume(5, &content(2)).is_none(), "somebody waits for it");
        flight.replace(signed(6, 2, 3));
        drop(flight);
        assert!(queue.resume(7, &content(2)).is_none(), "it is decided");
        assert_eq!(queue.free(5, &BTreeSet::new()), 5);
        let both = vec![B256::repeat_byte(2), B256::repeat_byte(3)];
        assert_eq!(queue.siblings(B256::repeat_byte(3)), Some(both));
        assert_eq!(queue.siblings(B256::repeat_byte(1)), None);
    }

    #[tokio::test]
    async fn what_is_remembered_is_bounded() {
        let queue = Arc::new(Queue::default());
        for nonce in 0..1_000u64 {
            let mut flight = queue.board(Pending::new(signed(nonce, 1, 1), 0));
            flight.replace(signed(nonce, 1, 2));
            flight.decide();
        }
        assert_eq!(queue.nonces().decided.len(), REMEMBERED);
        assert!(queue.nonces().flying.is_empty() && queue.nonces().stuck.is_empty());
    }
}
