//! The channels that this provider serves: looked up on chain once, kept in memory, refreshed by the chain's events.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, Weak},
    time::Duration,
};

use rialto_protocol::{
    ChannelId, ChannelParams, MicroDollars,
    channel::ChannelState,
    wire::{Refusal, RefusalCode},
};
use rialto_settlement::Chain;
use tokio::sync::{Notify, Semaphore};
use tracing::{debug, info, warn};

use crate::{
    Error,
    birth::Birth,
    channel::{Channel, Seen, Seller},
    clock,
    config::Trust,
    refusal,
    store::{Store, StoredChannel, Write},
};

/// Look-ups of unknown channels at a time: a peer can name any channel, and each unknown one costs a call.
const LOOKUPS: usize = 8;

/// How long a trade waits for a look-up.
const PATIENCE: Duration = Duration::from_secs(10);

/// Advice while the chain is away, in milliseconds.
const CHAIN_AWAY_RETRY: u64 = 5_000;

/// A channel that was found closed so many seconds before a start is looked at again: the block that said so may have
/// been replaced before it was followed.
const CLOSED_JUST_NOW: u64 = 600;

/// The channels that this provider serves.
pub(crate) struct Channels {
    chain: Chain,
    store: Store,
    seller: Arc<Seller>,
    trust: Trust,
    birth: Birth,
    known: RwLock<HashMap<ChannelId, Arc<Channel>>>,
    /// Closed channels on which work may still be ending: one that is opened again by a reorganisation must be the
    /// same, or two receipts would get one number.
    retired: Mutex<HashMap<ChannelId, Weak<Channel>>>,
    /// Channels of which something was learnt that is not of a block that is followed; see [`Self::take_unsure`].
    unsure: Mutex<BTreeSet<ChannelId>>,
    /// Held while a closed channel is opened again, so that there is only ever one of it.
    reviving: tokio::sync::Mutex<()>,
    /// Wakes the watcher.
    redeemed: Notify,
    lookups: Semaphore,
}

impl fmt::Debug for Channels {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Channels")
            .field("known", &self.known)
            .finish_non_exhaustive()
    }
}

impl Channels {
    /// The channels that the store knows.
    pub(crate) async fn restore(chain: Chain, store: Store, seller: Arc<Seller>, trust: Trust) -> Result<Self, Error> {
        let mut known = HashMap::new();
        for stored in store.channels().await? {
            let closed = stored.state.closed;
            let trusted = at_once(&trust, &stored.state);
            let channel = Channel::restore(stored, trusted, store.clone(), seller.clone());
            if closed {
                // Nobody will ask for these receipts, but a request must not stay open for ever.
                channel.settle_orphans(&BTreeMap::new());
            } else {
                known.insert(channel.id(), Arc::new(channel));
            }
        }
        let closed = store.closed_since(clock::now().saturating_sub(CLOSED_JUST_NOW)).await?;
        let unsure = closed.iter().map(|stored| stored.params.id()).collect();
        Ok(Self {
            birth: Birth::new(chain.clone(), store.clone()),
            chain,
            store,
            seller,
            trust,
            known: RwLock::new(known),
            retired: Mutex::default(),
            unsure: Mutex::new(unsure),
            reviving: tokio::sync::Mutex::default(),
            redeemed: Notify::new(),
            lookups: Semaphore::new(LOOKUPS),
        })
    }

    /// Notes since when this store sells, if it is new. While the chain is away that waits for the first look-up.
    pub(crate) async fn be_born(&self) -> Result<(), Error> {
        match self.birth.block().await {
            Err(Error::Chain(error)) => {
                warn!(%error, "since when this store sells is not known yet");
                Ok(())
            }
            other => other.map(drop),
        }
    }

    /// A channel that is known already.
    pub(crate) fn get(&self, id: &ChannelId) -> Option<Arc<Channel>> {
        self.known
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .get(id)
            .cloned()
    }

    /// All channels that are known.
    pub(crate) fn all(&self) -> Vec<Arc<Channel>> {
        let known = self.known.read().unwrap_or_else(PoisonError::into_inner);
        known.values().cloned().collect()
    }

    /// The channel with these parameters, if it is open on chain and this provider's. While the chain is away, known
    /// channels go on and unknown ones are refused.
    pub(crate) async fn find(&self, params: &ChannelParams) -> Result<Arc<Channel>, Refusal> {
        if params.provider != self.seller.key.address() {
            return Err(unknown("the channel belongs to another provider"));
        }
        let id = params.id();
        let channel = match self.get(&id) {
            Some(channel) => channel,
            None => self.look_up(params, id).await?,
        };
        if !channel.state().is_open() {
            // A reorganisation dropped its open, which may have come back by now.
            self.top_up_seen(&channel).await;
        }
        serving(&channel.state())?;
        Ok(channel)
    }

    async fn look_up(&self, params: &ChannelParams, id: ChannelId) -> Result<Arc<Channel>, Refusal> {
        let away = || unknown("the provider cannot reach the chain to look the channel up");
        let away = || away().with_retry_after(CHAIN_AWAY_RETRY);
        let look = async {
            let _permit = self.lookups.acquire().await.map_err(|_| away())?;
            let stored = self.store.stored_channel(&id).await;
            let stored = stored.map_err(|error| refusal::internal(&error))?;
            let unreadable = |error: Error| {
                debug!(channel = %id, %error, "a channel could not be looked up");
                away()
            };
            let seen = self.see(&id, None).await.map_err(unreadable)?;
            serving(&seen.state)?;
            if stored.is_none() && !self.is_new(params, &seen.state).await.map_err(unreadable)? {
                warn!(channel = %id, "a channel that is older than this store is not served, its receipts are not known");
                return Err(unknown(
                    "this provider has no records of the channel, which is older than they are: close it and open another",
                ));
            }
            Ok::<_, Refusal>((stored, seen))
        };
        let (stored, seen) = tokio::time::timeout(PATIENCE, look).await.map_err(|_| away())??;
        let channel = match stored {
            // It was closed once: nothing of it may be forgotten, or receipts would get their numbers twice.
            Some(_) => self.revive(id, seen).await.map_err(|error| refusal::internal(&error))?,
            None => self.insert(*params, id, seen),
        };
        self.doubt(id);
        Ok(channel)
    }

    /// Takes a channel in whose order to open it, with so much in it, is about to be sent: it is worked for up to `credit`
    /// before the chain knows it. Refused if anybody knows of it already.
    pub(crate) async fn await_open(
        &self,
        params: &ChannelParams,
        amount: MicroDollars,
        credit: MicroDollars,
    ) -> Result<Arc<Channel>, Refusal> {
        let id = params.id();
        let used = || Refusal::new(RefusalCode::BadRequest, "the channel is not new");
        let away = || unknown("the provider cannot reach the chain to look the channel up");
        let stored = self.store.stored_channel(&id).await;
        if self.get(&id).is_some() || stored.map_err(|error| refusal::internal(&error))?.is_some() {
            return Err(used());
        }
        let seen = tokio::time::timeout(PATIENCE, self.chain.channel(id)).await;
        let state = seen.map_err(|_| away())?.map_err(|_| away())?;
        if state != ChannelState::default() {
            return Err(used());
        }
        let mut known = self.known.write().unwrap_or_else(PoisonError::into_inner);
        if known.contains_key(&id) {
            return Err(used());
        }
        // A crash leaves a channel that is not open: nothing is lent on it any more.
        let write = Write::Channel {
            params: *params,
            state,
            seen: clock::now(),
        };
        drop(self.store.submit(vec![write]));
        let (store, seller) = (self.store.clone(), self.seller.clone());
        let channel = Arc::new(Channel::awaited(*params, amount, credit, store, seller));
        known.insert(id, Arc::clone(&channel));
        Ok(channel)
    }

    /// The order of a channel was sent, or could not be: only what the chain says of it counts now.
    pub(crate) async fn await_no_more(&self, channel: &Channel) {
        channel.await_no_more();
        let nothing = Seen {
            state: ChannelState::default(),
            trusted: MicroDollars::ZERO,
        };
        let order = channel.refreshing.lock().await;
        // While the chain is away nothing is lent either.
        let seen = self.see(&channel.id(), None).await.unwrap_or(nothing);
        let (_, commit) = channel.correct(seen);
        self.doubt(channel.id());
        drop(order);
        if let Err(error) = commit.durable().await {
            warn!(channel = %channel.id(), %error, "what the chain says of a channel could not be stored");
        }
    }

    /// Whether a channel that the store does not know cannot have any receipt yet.
    async fn is_new(&self, params: &ChannelParams, state: &ChannelState) -> Result<bool, Error> {
        Ok(state.redeemed == MicroDollars::ZERO && self.birth.precedes(params).await?)
    }

    fn insert(&self, params: ChannelParams, id: ChannelId, seen: Seen) -> Arc<Channel> {
        let mut known = self.known.write().unwrap_or_else(PoisonError::into_inner);
        let fresh = || {
            let write = Write::Channel {
                params,
                state: seen.state,
                seen: clock::now(),
            };
            // The first voucher is submitted after this and waits for its own commit; order does the rest.
            drop(self.store.submit(vec![write]));
            Arc::new(Channel::new(params, seen, self.store.clone(), self.seller.clone()))
        };
        known.entry(id).or_insert_with(fresh).clone()
    }

    /// A channel that was closed and is open again, with all that is known of it.
    async fn revive(&self, id: ChannelId, seen: Seen) -> Result<Arc<Channel>, Error> {
        let one = self.reviving.lock().await;
        // Held from here on: work that still ends on it may write more while the store is read.
        let alive = self.get(&id).or_else(|| self.retired(&id));
        let channel = match alive {
            Some(channel) => channel,
            None => {
                // Whatever was still being written about it is read back.
                self.store.flush().await?;
                let stored = self.store.stored_channel(&id).await?;
                let stored = stored.ok_or(Error::Corrupt("a channel that was stored is not"))?;
                Arc::new(self.restored(stored))
            }
        };
        let channel = {
            let mut known = self.known.write().unwrap_or_else(PoisonError::into_inner);
            known.entry(id).or_insert(channel).clone()
        };
        drop(one);
        info!(channel = %id, "a closed channel is open again");
        let (_, commit) = channel.correct(seen);
        commit.durable().await?;
        Ok(channel)
    }

    /// A closed channel on which work is still ending.
    fn retired(&self, id: &ChannelId) -> Option<Arc<Channel>> {
        let retired = self.retired.lock().unwrap_or_else(PoisonError::into_inner);
        retired.get(id).and_then(Weak::upgrade)
    }

    /// Looks, at a block that is followed, whether a channel that the store knows and that was found closed is open.
    /// Does nothing about channels that the store does not know.
    pub(crate) async fn reopen(&self, id: ChannelId, block: u64) -> Result<(), Error> {
        if self.store.stored_channel(&id).await?.is_none() {
            return Ok(());
        }
        let seen = self.see(&id, Some(block)).await?;
        if !seen.state.closed {
            self.revive(id, seen).await?;
        }
        Ok(())
    }

    fn restored(&self, stored: StoredChannel) -> Channel {
        let trusted = at_once(&self.trust, &stored.state);
        Channel::restore(stored, trusted, self.store.clone(), self.seller.clone())
    }

    /// What the chain says of a channel at a block, by default the newest, and how much of that counts.
    async fn see(&self, id: &ChannelId, block: Option<u64>) -> Result<Seen, Error> {
        let state = match block {
            Some(block) => self.chain.channel_at(*id, block).await?,
            None => self.chain.channel(*id).await?,
        };
        let mut trusted = at_once(&self.trust, &state);
        if trusted < state.funded {
            let newest = match block {
                Some(block) => block,
                None => self.chain.block_number().await?,
            };
            let block = newest.saturating_sub(self.trust.confirmations);
            let deep = self.chain.channel_at(*id, block).await?;
            trusted = trusted.max(deep.funded.min(state.funded));
        }
        Ok(Seen { state, trusted })
    }

    /// Asks the chain about a known channel and takes its answer in. One that is closed stays known until a block that
    /// is followed says so too: see [`Self::correct`].
    pub(crate) async fn refresh(&self, channel: &Channel) -> Result<(), Error> {
        let order = channel.refreshing.lock().await;
        let seen = self.see(&channel.id(), None).await?;
        let commit = channel.refresh(seen);
        self.doubt(channel.id());
        drop(order);
        commit.durable().await
    }

    /// Takes in what a transaction of ours paid out of a channel.
    pub(crate) async fn note_redeemed(&self, id: &ChannelId, total: MicroDollars) -> Result<(), Error> {
        let Some(channel) = self.get(id) else { return Ok(()) };
        let commit = channel.note_redeemed(total);
        self.doubt(*id);
        self.redeemed.notify_one();
        commit.durable().await
    }

    /// Resolves once a redeem of ours was noted.
    pub(crate) async fn redeemed(&self) {
        self.redeemed.notified().await;
    }

    /// Asks the chain about a channel at a block that is followed: if that block is replaced, it is noticed. Unlike an
    /// answer of [`Self::refresh`], which may be from a block that was replaced before anybody followed it, this one
    /// counts even where it is less than what is known. If something newer was learnt meanwhile it is left for the next
    /// look, but only once in a row and never after a reorganisation: what is gone must not go on counting.
    pub(crate) async fn correct(&self, channel: &Channel, block: u64) -> Result<(), Error> {
        let order = channel.refreshing.lock().await;
        if self.unsure().contains(&channel.id()) && channel.may_wait() {
            return Ok(());
        }
        let seen = self.see(&channel.id(), Some(block)).await?;
        let (less, commit) = channel.correct(seen);
        drop(order);
        if less {
            let state = seen.state;
            warn!(channel = %channel.id(), open = state.is_open(), funded = %state.funded, redeemed = %state.redeemed,
                "a reorganisation took back what had happened to a channel");
        }
        if seen.state.closed {
            self.retire(&channel.id(), &seen.state);
        }
        commit.durable().await
    }

    /// Looks whether a reorganisation opened channels again that were found closed at or after a time in seconds since
    /// 1970.
    pub(crate) async fn correct_closed(&self, since: u64) -> Result<(), Error> {
        self.store.flush().await?;
        for stored in self.store.closed_since(since).await? {
            let id = stored.params.id();
            if let Some(channel) = self.get(&id) {
                self.doubt(channel.id());
                continue;
            }
            let seen = self.see(&id, None).await?;
            if !seen.state.closed {
                self.revive(id, seen).await?;
                self.doubt(id);
            }
        }
        Ok(())
    }

    fn unsure(&self) -> MutexGuard<'_, BTreeSet<ChannelId>> {
        self.unsure.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes that a channel is to be looked at again, at a block that is followed.
    pub(crate) fn doubt(&self, id: ChannelId) {
        self.unsure().insert(id);
    }

    /// As [`Self::doubt_all`], after a reorganisation: the next correction of each channel does not wait.
    pub(crate) fn distrust_all(&self) {
        for channel in self.all() {
            channel.must_not_wait();
        }
        self.doubt_all();
    }

    /// As [`Self::doubt`], for every channel.
    pub(crate) fn doubt_all(&self) {
        let all = self.all();
        self.unsure().extend(all.iter().map(|channel| channel.id()));
    }

    /// The channels of which something was learnt since this was called last: an answer of the chain says nothing about
    /// the block that it is of, which may be replaced before it is followed, and an event may have passed between the
    /// first look at a channel and its registration here.
    pub(crate) fn take_unsure(&self) -> BTreeSet<ChannelId> {
        std::mem::take(&mut *self.unsure())
    }

    fn retire(&self, id: &ChannelId, state: &ChannelState) {
        let mut known = self.known.write().unwrap_or_else(PoisonError::into_inner);
        let Some(channel) = known.remove(id) else { return };
        info!(channel = %id, redeemed = %state.redeemed, "a channel was closed");
        let mut retired = self.retired.lock().unwrap_or_else(PoisonError::into_inner);
        retired.retain(|_, one| one.strong_count() > 0);
        retired.insert(*id, Arc::downgrade(&channel));
    }

    /// Asks the chain about a channel of which a voucher promises more than it is known to hold. Returns whether the
    /// chain was asked.
    pub(crate) async fn top_up_seen(&self, channel: &Channel) -> bool {
        if !channel.may_refresh() {
            return false;
        }
        match tokio::time::timeout(PATIENCE, self.refresh(channel)).await {
            Ok(Ok(())) => true,
            Ok(Err(error)) => {
                debug!(channel = %channel.id(), %error, "a channel could not be refreshed");
                false
            }
            Err(_) => false,
        }
    }
}

/// What counts of a channel's money whatever its age.
fn at_once(trust: &Trust, state: &ChannelState) -> MicroDollars {
    match trust.confirmations {
        0 => state.funded,
        _ => state.funded.min(trust.unconfirmed),
    }
}

/// Whether a channel in this state may be worked for: work that goes on past its close is never paid.
pub(crate) fn serving(state: &ChannelState) -> Result<(), Refusal> {
    if !state.is_open() {
        return Err(unknown("the channel is not open on chain"));
    }
    if state.closes_at != 0 {
        return Err(unknown("the channel is closing"));
    }
    Ok(())
}

fn unknown(message: &str) -> Refusal {
    Refusal::new(RefusalCode::UnknownChannel, message)
}
