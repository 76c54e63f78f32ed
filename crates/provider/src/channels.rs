//! The channels that this provider serves: looked up on chain once, kept in memory, refreshed by the chain's events.

use std::{
    collections::{BTreeMap, HashMap},
    fmt,
    sync::{Arc, PoisonError, RwLock},
    time::Duration,
};

use rialto_protocol::{
    ChannelId, ChannelParams,
    channel::ChannelState,
    wire::{Refusal, RefusalCode},
};
use rialto_settlement::Chain;
use tokio::sync::Semaphore;
use tracing::{debug, info};

use crate::{
    Error,
    channel::{Channel, Seller},
    clock,
    store::{Store, Write},
};

/// Look-ups of unknown channels at a time: a peer can name any channel, and each unknown one costs a call.
const LOOKUPS: usize = 8;

/// How long a trade waits for a look-up.
const PATIENCE: Duration = Duration::from_secs(10);

/// Advice while the chain is away, in milliseconds.
const CHAIN_AWAY_RETRY: u64 = 5_000;

/// The channels that this provider serves.
pub(crate) struct Channels {
    chain: Chain,
    store: Store,
    seller: Arc<Seller>,
    known: RwLock<HashMap<ChannelId, Arc<Channel>>>,
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
    pub(crate) async fn restore(chain: Chain, store: Store, seller: Arc<Seller>) -> Result<Self, Error> {
        let mut known = HashMap::new();
        for stored in store.channels().await? {
            let closed = stored.state.closed;
            let channel = Channel::restore(stored, store.clone(), seller.clone());
            if closed {
                // Nobody will ask for these receipts, but a request must not stay open for ever.
                channel.settle_orphans(&BTreeMap::new());
            } else {
                known.insert(channel.id(), Arc::new(channel));
            }
        }
        Ok(Self {
            chain,
            store,
            seller,
            known: RwLock::new(known),
            lookups: Semaphore::new(LOOKUPS),
        })
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
        serving(&channel.state())?;
        Ok(channel)
    }

    async fn look_up(&self, params: &ChannelParams, id: ChannelId) -> Result<Arc<Channel>, Refusal> {
        let away = || unknown("the provider cannot reach the chain to look the channel up");
        let away = || away().with_retry_after(CHAIN_AWAY_RETRY);
        let look = async {
            let _permit = self.lookups.acquire().await.map_err(|_| away())?;
            self.chain.channel(id).await.map_err(|error| {
                debug!(channel = %id, %error, "a channel could not be looked up");
                away()
            })
        };
        let state = tokio::time::timeout(PATIENCE, look).await.map_err(|_| away())??;
        serving(&state)?;
        Ok(self.insert(*params, id, state))
    }

    fn insert(&self, params: ChannelParams, id: ChannelId, state: ChannelState) -> Arc<Channel> {
        let mut known = self.known.write().unwrap_or_else(PoisonError::into_inner);
        let fresh = || {
            let seen = clock::now();
            // The first voucher is submitted after this and waits for its own commit; order does the rest.
            drop(self.store.submit(vec![Write::Channel { params, state, seen }]));
            Arc::new(Channel::new(params, state, self.store.clone(), self.seller.clone()))
        };
        known.entry(id).or_insert_with(fresh).clone()
    }

    /// Asks the chain about a known channel and takes its answer in.
    pub(crate) async fn refresh(&self, channel: &Channel) -> Result<(), Error> {
        let order = channel.refreshing.lock().await;
        let state = self.chain.channel(channel.id()).await?;
        let commit = channel.refresh(state);
        drop(order);
        if state.closed {
            info!(channel = %channel.id(), redeemed = %state.redeemed, "a channel was closed");
            let mut known = self.known.write().unwrap_or_else(PoisonError::into_inner);
            known.remove(&channel.id());
        }
        commit.durable().await
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
