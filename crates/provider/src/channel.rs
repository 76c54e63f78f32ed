//! One channel at work: its ledger, its store writes, and the order between them.
//!
//! Whatever changes the ledger is handed to the store while the ledger is locked, so that the store sees changes in the
//! order in which they were made. Nothing is released to a buyer before its [`Commit`] is durable.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use rialto_protocol::{
    ChannelId, ChannelParams, Digest, Domain, MicroDollars, NanoDollars, NodeKey, Receipt, ReceiptStatus, Region,
    RequestId, Signature, SignedReceipt, SignedVoucher, SigningKey, Usage,
    account::{SellerAccount, Settlement, VoucherError},
    channel::ChannelState,
    claim::Claim,
    fingerprint::Fingerprint,
    signature::SignatureError,
    voucher::VoucherVerifier,
    wire::delegation_digest,
};

use crate::{
    Error,
    claim::Pending,
    clock,
    store::{Commit, OpenRequest, Store, StoredChannel, Write},
};

/// Receipts kept in memory for buyers that are a little behind; older ones are read from the store.
const RECENT: usize = 32;

/// Nodes that are remembered to have shown that they may use a channel.
const DELEGATES: usize = 16;

/// Shortest time between two looks at the chain because a buyer claims to have topped up.
const REFRESH_PAUSE: Duration = Duration::from_secs(1);

/// Who sells: what every receipt is signed with.
#[derive(Debug, Clone)]
pub(crate) struct Seller {
    pub(crate) key: Arc<SigningKey>,
    pub(crate) domain: Domain,
    pub(crate) region: Region,
}

/// A finished request, as its receipt will state it.
#[derive(Debug, Clone)]
pub(crate) struct Bill {
    pub(crate) request: RequestId,
    pub(crate) request_hash: Digest,
    pub(crate) response_hash: Digest,
    pub(crate) usage: Usage,
    pub(crate) cost: NanoDollars,
    pub(crate) status: ReceiptStatus,
    pub(crate) energy_millijoules: u64,
    pub(crate) fingerprint: Fingerprint,
}

/// What the chain says of a channel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Seen {
    pub(crate) state: ChannelState,
    /// What counts of the money in it: all, or less while its block may still be replaced.
    pub(crate) trusted: MicroDollars,
}

/// A channel that this provider serves.
#[derive(Debug)]
pub(crate) struct Channel {
    id: ChannelId,
    store: Store,
    seller: Arc<Seller>,
    ledger: Mutex<Ledger>,
    /// Held while a buyer's statement is reconciled, so that two statements do not settle the same request twice.
    pub(crate) reconciling: tokio::sync::Mutex<()>,
    /// Held from asking the chain about this channel until its answer is taken in, so that no older answer comes last.
    pub(crate) refreshing: tokio::sync::Mutex<()>,
    /// Whether the next correction is not to be put off.
    overdue: AtomicBool,
}

#[derive(Debug)]
struct Ledger {
    account: SellerAccount,
    verifier: VoucherVerifier,
    /// Nodes that may use it, as its session key said.
    delegates: VecDeque<NodeKey>,
    state: ChannelState,
    /// Requests that a task of this process works on.
    live: BTreeSet<RequestId>,
    /// Requests that an earlier process was working on when it ended.
    orphans: BTreeMap<RequestId, OpenRequest>,
    /// When this process took the channel over, and the orphans with it, in seconds since 1970.
    restored: u64,
    recent: VecDeque<SignedReceipt>,
    /// When the first earning that is not redeemed was made, in seconds since 1970.
    unclaimed_since: Option<u64>,
    refreshed: Option<Instant>,
    /// Whether its open is still on its way: what is known of it is what was promised, and the chain knows nothing yet.
    awaited: bool,
}

/// A request that is in use: it is forgotten when this is dropped.
#[derive(Debug)]
pub(crate) struct Live {
    channel: Arc<Channel>,
    request: RequestId,
}

impl Drop for Live {
    fn drop(&mut self) {
        self.channel.lock().live.remove(&self.request);
    }
}

impl Channel {
    /// A channel that was just found on chain.
    pub(crate) fn new(params: ChannelParams, seen: Seen, store: Store, seller: Arc<Seller>) -> Self {
        let stored = StoredChannel {
            params,
            state: seen.state,
            best: None,
            receipts: Vec::new(),
            open: Vec::new(),
        };
        Self::restore(stored, seen.trusted, store, seller)
    }

    /// A channel whose order to open it is being sent: it holds `amount` then, and is worked for up to `credit` before.
    pub(crate) fn awaited(
        params: ChannelParams,
        amount: MicroDollars,
        credit: MicroDollars,
        store: Store,
        seller: Arc<Seller>,
    ) -> Self {
        let state = ChannelState {
            funded: amount,
            ..ChannelState::default()
        };
        let seen = Seen {
            state,
            trusted: credit.min(amount),
        };
        let channel = Self::new(params, seen, store, seller);
        channel.lock().awaited = true;
        channel
    }

    /// Its order is not waited for any more: from now on only the chain counts.
    pub(crate) fn await_no_more(&self) {
        self.lock().awaited = false;
    }

    /// A channel as the store kept it; `trusted` is what counts of its money until the chain is asked.
    pub(crate) fn restore(stored: StoredChannel, trusted: MicroDollars, store: Store, seller: Arc<Seller>) -> Self {
        let receipts: Vec<Receipt> = stored.receipts.iter().map(|signed| signed.receipt).collect();
        let account = SellerAccount::new(stored.params, trusted).restore(stored.best, &receipts);
        let redeemed = stored.state.redeemed.to_nano();
        let unclaimed_since = receipts
            .iter()
            .find(|receipt| receipt.total > redeemed)
            .map(|receipt| receipt.finished_at);
        let skip = stored.receipts.len().saturating_sub(RECENT);
        Self {
            id: stored.params.id(),
            ledger: Mutex::new(Ledger {
                verifier: VoucherVerifier::new(seller.domain, stored.params.signer),
                delegates: VecDeque::new(),
                account,
                state: stored.state,
                live: BTreeSet::new(),
                orphans: stored.open.iter().map(|open| (open.request, *open)).collect(),
                restored: clock::now(),
                recent: stored.receipts.into_iter().skip(skip).collect(),
                unclaimed_since,
                refreshed: None,
                awaited: false,
            }),
            store,
            seller,
            reconciling: tokio::sync::Mutex::new(()),
            refreshing: tokio::sync::Mutex::new(()),
            overdue: AtomicBool::new(false),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Ledger> {
        self.ledger.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The channel's id.
    pub(crate) fn id(&self) -> ChannelId {
        self.id
    }

    /// As last seen on chain.
    pub(crate) fn state(&self) -> ChannelState {
        self.lock().state
    }

    /// What all receipts add up to.
    pub(crate) fn earned(&self) -> NanoDollars {
        self.lock().account.earned()
    }

    /// Receipts written so far, and the head after them.
    pub(crate) fn position(&self) -> (u64, rialto_protocol::ReceiptsHead) {
        self.lock().account.position()
    }

    /// Marks a request as in use; `None` when it is already.
    pub(crate) fn begin(self: &Arc<Self>, request: RequestId) -> Option<Live> {
        let mut ledger = self.lock();
        let known = ledger.account.is_active(&request) || ledger.orphans.contains_key(&request);
        (!known && ledger.live.insert(request)).then(|| Live {
            channel: self.clone(),
            request,
        })
    }

    /// Verifies a voucher's signature; its total is checked when it is used.
    pub(crate) fn verify(&self, voucher: &SignedVoucher) -> Result<(), SignatureError> {
        self.lock().verifier.verify(voucher)
    }

    /// Verifies that the session key lets a node use the channel: a voucher alone may have been read from the chain.
    pub(crate) fn verify_delegation(&self, node: NodeKey, delegation: &Signature) -> Result<(), SignatureError> {
        let mut ledger = self.lock();
        if ledger.delegates.contains(&node) {
            return Ok(());
        }
        let digest = delegation_digest(&self.seller.domain, self.id, node);
        ledger.verifier.verify_digest(&digest, delegation)?;
        if ledger.delegates.len() >= DELEGATES {
            ledger.delegates.pop_front();
        }
        ledger.delegates.push_back(node);
        Ok(())
    }

    /// Whether a request has its receipt. Certain for one that [`Self::begin`] let in: a request stays in use until its
    /// receipt is on disk.
    pub(crate) fn has_settled(&self, request: &RequestId) -> Result<bool, Error> {
        let lately = |signed: &SignedReceipt| signed.receipt.request == *request;
        if self.lock().recent.iter().any(lately) {
            return Ok(true);
        }
        self.store.has_receipt(&self.id, request)
    }

    /// The total that a voucher must reach to cover a request up to this many units of output.
    pub(crate) fn required(&self, open: &OpenRequest) -> MicroDollars {
        let usage = Usage {
            input: open.input,
            output: open.covered,
        };
        let required = self.lock().account.required(&open.request, open.price.cost(usage));
        required.unwrap_or(MicroDollars::MAX)
    }

    /// Whether a voucher names the head after one of the latest receipts.
    pub(crate) fn acknowledges(&self, voucher: &SignedVoucher) -> bool {
        self.lock().account.acknowledges(voucher)
    }

    /// Covers a request up to `open.covered` units of output with a voucher whose signature was verified, and that was
    /// looked at by [`Self::acknowledges`] when it came.
    ///
    /// Work on those units may begin once the commit is durable. On an error nothing has changed.
    pub(crate) fn cover(
        &self,
        open: &OpenRequest,
        voucher: &SignedVoucher,
        acknowledged: bool,
    ) -> Result<Commit, VoucherError> {
        let usage = Usage {
            input: open.input,
            output: open.covered,
        };
        let mut ledger = self.lock();
        let better = ledger.reserve(open.request, open.price.cost(usage), voucher, acknowledged)?;
        let mut writes = vec![Write::Open(self.id, *open)];
        writes.extend(better.map(Write::Voucher));
        Ok(self.store.submit(writes))
    }

    /// Writes and signs the receipt of a request. It may be sent once the commit is durable.
    pub(crate) fn settle(&self, bill: Bill) -> (SignedReceipt, Commit) {
        let mut ledger = self.lock();
        let signed = ledger.settle(&bill, &self.seller);
        let mut writes = vec![Write::Receipt(Box::new(signed))];
        if !bill.fingerprint.marks.is_empty() {
            writes.push(Write::Fingerprint(Box::new((signed.receipt, bill.fingerprint))));
        }
        let commit = self.store.submit(writes);
        (signed, commit)
    }

    /// Whether this request is worked on, waits to be settled after a crash, or was settled a short while ago.
    pub(crate) fn remembers(&self, request: &RequestId) -> bool {
        let ledger = self.lock();
        ledger.live.contains(request)
            || ledger.account.is_active(request)
            || ledger.orphans.contains_key(request)
            || ledger.recent.iter().any(|signed| signed.receipt.request == *request)
    }

    /// Settles every request that an earlier process left open: billed is what the buyer had for certain, or more if
    /// the buyer says that more arrived, within what its vouchers covered. `declared` holds what the buyer says.
    pub(crate) fn settle_orphans(&self, declared: &BTreeMap<RequestId, Usage>) -> Vec<SignedReceipt> {
        self.settle_all_orphans(&mut self.lock(), declared)
    }

    /// Settles the requests that an earlier process left open and that no buyer came back for within `patience`: at
    /// what the buyer had for certain. The earning counts as old from the start, so that it is claimed at once.
    pub(crate) fn settle_stale_orphans(&self, now: u64, patience: Duration) -> Vec<SignedReceipt> {
        let mut ledger = self.lock();
        let since = ledger.restored;
        if Duration::from_secs(now.saturating_sub(since)) < patience {
            return Vec::new();
        }
        let settled = self.settle_all_orphans(&mut ledger, &BTreeMap::new());
        if settled.iter().any(|signed| signed.receipt.cost > NanoDollars::ZERO) {
            ledger.unclaimed_since = ledger.unclaimed_since.map(|first| first.min(since));
        }
        settled
    }

    fn settle_all_orphans(&self, ledger: &mut Ledger, declared: &BTreeMap<RequestId, Usage>) -> Vec<SignedReceipt> {
        let orphans = std::mem::take(&mut ledger.orphans);
        let mut writes = Vec::new();
        let mut settled = Vec::new();
        for (request, open) in orphans {
            let bill = interrupted(&open, declared.get(&request).copied().unwrap_or_default());
            let signed = ledger.settle(&bill, &self.seller);
            writes.push(Write::Receipt(Box::new(signed)));
            settled.push(signed);
        }
        if !writes.is_empty() {
            // Whoever sends these receipts flushes the store first.
            drop(self.store.submit(writes));
        }
        settled
    }

    /// Writes a receipt over nothing for a request that the buyer has open and that never cost anything here, so that
    /// the buyer can free what it had reserved.
    pub(crate) fn settle_unknown(&self, request: RequestId) -> SignedReceipt {
        let nothing = OpenRequest {
            request,
            request_hash: Digest::default(),
            price: rialto_protocol::Price::default(),
            input: 0,
            covered: 0,
            floor: 0,
        };
        let (signed, commit) = self.settle(interrupted(&nothing, Usage::default()));
        drop(commit);
        signed
    }

    /// Receipts after a number that are still in memory; `None` when the store has to be asked.
    pub(crate) fn recent_after(&self, sequence: u64) -> Option<Vec<SignedReceipt>> {
        let ledger = self.lock();
        if sequence >= ledger.account.position().0 {
            return Some(Vec::new());
        }
        let first = ledger.recent.front()?.receipt.sequence;
        (first <= sequence.saturating_add(1)).then(|| {
            let missing = ledger.recent.iter().filter(|signed| signed.receipt.sequence > sequence);
            missing.copied().collect()
        })
    }

    /// Takes in what the chain says now, and stores it.
    pub(crate) fn refresh(&self, seen: Seen) -> Commit {
        let mut ledger = self.lock();
        if ledger.is_awaited(&seen.state) {
            return self.store.submit(Vec::new());
        }
        ledger.take_in(seen);
        self.store.submit(vec![Write::State(self.id, ledger.state)])
    }

    /// Takes in the total that a redeem transaction paid, and stores it.
    pub(crate) fn note_redeemed(&self, total: MicroDollars) -> Commit {
        let mut ledger = self.lock();
        let (state, trusted) = (ledger.state, ledger.account.funded());
        let state = ChannelState {
            redeemed: total,
            ..state
        };
        ledger.take_in(Seen { state, trusted });
        self.store.submit(vec![Write::State(self.id, ledger.state)])
    }

    /// Takes in what the chain says of a block that is followed: only that counts, and everything may be less than it
    /// was. Returns whether it was.
    pub(crate) fn correct(&self, seen: Seen) -> (bool, Commit) {
        self.overdue.store(false, Ordering::Relaxed);
        let mut ledger = self.lock();
        if ledger.is_awaited(&seen.state) {
            return (false, self.store.submit(Vec::new()));
        }
        let (before, state) = (ledger.state, seen.state);
        ledger.correct(seen);
        let less = state.funded < before.funded || state.redeemed < before.redeemed || (before.closed && !state.closed);
        (less, self.store.submit(vec![Write::State(self.id, state)]))
    }

    /// Whether a correction may be put off, which it may once; the next [`Self::correct`] makes it so again.
    pub(crate) fn may_wait(&self) -> bool {
        !self.overdue.swap(true, Ordering::Relaxed)
    }

    /// The next correction is not to be put off.
    pub(crate) fn must_not_wait(&self) {
        self.overdue.store(true, Ordering::Relaxed);
    }

    /// Whether a close would lose something: what is not claimed yet, or work that is under way.
    pub(crate) fn has_more(&self) -> bool {
        let ledger = self.lock();
        let claimable = ledger
            .account
            .claim()
            .map(|claim| claim.amount.min(ledger.state.funded));
        claimable.is_some_and(|amount| amount > ledger.state.redeemed)
            || !ledger.orphans.is_empty()
            || !ledger.live.is_empty()
    }

    /// Whether the chain may be asked again because a voucher is over more than the channel is known to hold.
    pub(crate) fn may_refresh(&self) -> bool {
        let mut ledger = self.lock();
        let due = ledger.refreshed.is_none_or(|last| last.elapsed() >= REFRESH_PAUSE);
        if due {
            ledger.refreshed = Some(Instant::now());
        }
        due
    }

    /// What there is to claim, for the policy.
    pub(crate) fn pending(&self, now: u64) -> Pending {
        let ledger = self.lock();
        let claim = ledger.account.claim().filter(|_| !ledger.awaited);
        let claimable = claim.map_or(MicroDollars::ZERO, |claim| claim.amount.min(ledger.state.funded));
        Pending {
            channel: self.id,
            unclaimed: claimable.saturating_sub(ledger.state.redeemed),
            age: Duration::from_secs(ledger.unclaimed_since.map_or(0, |since| now.saturating_sub(since))),
            closing: ledger.state.closes_at != 0 && !ledger.state.closed,
            closes_at: ledger.state.closes_at,
            closed: ledger.state.closed,
            orphans: ledger.orphans.len(),
        }
    }

    /// The claim over everything earned, if there is more than was redeemed.
    pub(crate) fn claim(&self) -> Option<Claim> {
        let ledger = self.lock();
        let claim = ledger.account.claim()?;
        let claimable = ledger.state.is_open() && !ledger.awaited;
        (claimable && claim.amount > ledger.state.redeemed).then_some(claim)
    }
}

impl Ledger {
    /// Whether the chain only says what is known: that it does not know the channel yet. Once it does, it is believed.
    fn is_awaited(&mut self, state: &ChannelState) -> bool {
        self.awaited &= !state.is_open() && !state.closed;
        self.awaited
    }

    /// Reserves on the strength of this voucher, or of the best one: vouchers of requests that run at the same time may
    /// overtake each other. Returns the voucher to store, if it is the best so far.
    fn reserve(
        &mut self,
        request: RequestId,
        reservation: NanoDollars,
        voucher: &SignedVoucher,
        acknowledged: bool,
    ) -> Result<Option<SignedVoucher>, VoucherError> {
        let reserved = if acknowledged {
            self.account.reserve_acknowledged(request, reservation, voucher)
        } else {
            self.account.reserve(request, reservation, voucher)
        };
        match reserved {
            Ok(better) => Ok(better.then_some(*voucher)),
            Err(low @ VoucherError::TooLow { .. }) => {
                let best = self.account.best().copied().ok_or(low)?;
                // It was acknowledged when it came.
                let again = self.account.reserve_acknowledged(request, reservation, &best);
                again.map_err(|_| low)?;
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }

    fn settle(&mut self, bill: &Bill, seller: &Seller) -> SignedReceipt {
        let receipt = self.account.settle(Settlement {
            request: bill.request,
            usage: bill.usage,
            cost: bill.cost,
            request_hash: bill.request_hash,
            response_hash: bill.response_hash,
            status: bill.status,
            finished_at: clock::now(),
            region: seller.region,
            energy_millijoules: bill.energy_millijoules,
            fingerprint_root: bill.fingerprint.root(),
        });
        if receipt.cost > NanoDollars::ZERO && self.unclaimed_since.is_none() {
            self.unclaimed_since = Some(receipt.finished_at);
        }
        let signed = receipt.sign(&seller.domain, &seller.key);
        self.recent.push_back(signed);
        if self.recent.len() > RECENT {
            self.recent.pop_front();
        }
        signed
    }

    /// On one chain funded and redeemed never fall, and a closed channel stays closed: an answer that is older than
    /// what is known changes none of them.
    fn take_in(&mut self, Seen { state, trusted }: Seen) {
        self.account.set_funded(trusted);
        let before = self.state;
        self.state = ChannelState {
            funded: before.funded.max(state.funded),
            redeemed: before.redeemed.max(state.redeemed),
            closed: before.closed || state.closed,
            ..state
        };
        self.count_age(self.state.redeemed > before.redeemed);
    }

    /// Another chain than the one that was followed: only what it says counts, and what it does not say any more was
    /// never paid and is still to be claimed.
    fn correct(&mut self, Seen { state, trusted }: Seen) {
        self.account.correct_funded(trusted);
        let paid = state.redeemed != self.state.redeemed;
        self.state = state;
        self.count_age(paid);
    }

    /// Since when something waits to be claimed, after the chain was asked.
    fn count_age(&mut self, paid: bool) {
        let claim = self.account.claim();
        let left = claim.is_some_and(|claim| claim.amount > self.state.redeemed);
        if !left || self.state.closed {
            self.unclaimed_since = None;
        } else if paid || self.unclaimed_since.is_none() {
            self.unclaimed_since = Some(clock::now());
        }
    }
}

/// The bill of a request that a crash of this provider cut off.
fn interrupted(open: &OpenRequest, declared: Usage) -> Bill {
    let output = declared.output.max(open.floor).min(open.covered);
    let input = if output > 0 {
        open.input
    } else {
        declared.input.min(open.input)
    };
    let usage = Usage { input, output };
    Bill {
        request: open.request,
        request_hash: open.request_hash,
        response_hash: Digest::default(),
        usage,
        cost: cost(open, usage),
        status: ReceiptStatus::Interrupted,
        energy_millijoules: 0,
        fingerprint: Fingerprint::default(),
    }
}

/// What a usage costs; an answer of which nothing arrived is free, whatever the price of a request.
pub(crate) fn cost(open: &OpenRequest, usage: Usage) -> NanoDollars {
    if usage == Usage::default() {
        NanoDollars::ZERO
    } else {
        open.price.cost(usage)
    }
}

#[cfg(test)]
mod tests;
