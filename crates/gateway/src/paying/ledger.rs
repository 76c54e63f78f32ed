//! All channels of this gateway, by seller and model.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Instant,
};

use rialto_protocol::{
    ChannelId, Domain, MicroDollars, NanoDollars, NodeKey, Signature, SigningKey, account::BuyerAccount, offer::Offer,
    wire::delegation_digest,
};
use rialto_settlement::Wallet;

use super::{Aside, Channel, Sellers, funding};
use crate::{
    Config, Error, Store,
    store::{ChannelRow, ChannelStatus, Parties},
};

/// All channels.
pub(crate) struct Ledger {
    /// Who can be asked to send what the payer signs.
    pub(super) sellers: Sellers,
    /// Whether the sellers were asked to, when that was looked at last.
    pub(super) gasless: AtomicBool,
    pub(crate) store: Store,
    pub(crate) wallet: Wallet,
    pub(crate) session: Arc<SigningKey>,
    pub(crate) domain: Domain,
    pub(crate) config: Arc<Config>,
    channels: Mutex<HashMap<Parties, Vec<Arc<Channel>>>>,
    /// One transaction at a time for each seller and model.
    gates: Mutex<HashMap<Parties, Arc<tokio::sync::Mutex<()>>>>,
    /// Held from looking at balances until they are spent or set aside, so that two channels never count on the same
    /// money.
    pub(super) purse: tokio::sync::Mutex<()>,
    /// What signed orders will take that sellers are sending now.
    pub(super) aside: Aside,
    /// When a channel was last found closing.
    closing_since: Mutex<Option<Instant>>,
}

impl Ledger {
    /// Restores every channel from the store. Requests that a crash cut off become interruptions first.
    pub(crate) async fn restore(
        sellers: Sellers,
        store: Store,
        wallet: Wallet,
        session: Arc<SigningKey>,
        domain: Domain,
        config: Arc<Config>,
    ) -> Result<Self, Error> {
        let interrupted = store.interrupt_all().await?;
        if interrupted > 0 {
            tracing::warn!(requests = interrupted, "an earlier run left requests without a receipt");
        }
        let ledger = Self {
            sellers,
            gasless: AtomicBool::new(false),
            store,
            wallet,
            session,
            domain,
            config,
            channels: Mutex::default(),
            gates: Mutex::default(),
            purse: tokio::sync::Mutex::default(),
            aside: Aside::default(),
            closing_since: Mutex::default(),
        };
        for row in ledger.store.live_channels().await? {
            ledger.take_in(&row).await?;
        }
        Ok(ledger)
    }

    /// Adds a channel as the store knows it.
    pub(super) async fn take_in(&self, row: &ChannelRow) -> Result<Arc<Channel>, Error> {
        let history = self.store.history(row.id).await?;
        let account = BuyerAccount::new(row.params, row.funded);
        let account = account.restore(row.signed, &history.receipts, &history.interrupted);
        // A channel of another session key cannot be signed for any more: it only waits to be closed.
        let ours = row.params.signer == self.session.address() || row.status != ChannelStatus::Open;
        let status = if ours { row.status } else { ChannelStatus::Disputed };
        let channel = Arc::new(Channel::new(account, status, row.used_at));
        self.add(Arc::clone(&channel));
        Ok(channel)
    }

    pub(super) fn add(&self, channel: Arc<Channel>) {
        let parties = (channel.params.provider, channel.params.model);
        self.lock().entry(parties).or_default().push(channel);
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<Parties, Vec<Arc<Channel>>>> {
        self.channels.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The session key's word that this gateway's node may use a channel. It is signed once.
    pub(crate) fn delegation(&self, channel: &Channel, node: NodeKey) -> Signature {
        let sign = || self.session.sign(&delegation_digest(&self.domain, channel.id, node));
        *channel.delegation.get_or_init(sign)
    }

    /// Every channel that is not closed.
    pub(crate) fn all(&self) -> Vec<Arc<Channel>> {
        self.lock().values().flatten().cloned().collect()
    }

    pub(crate) fn find(&self, id: ChannelId) -> Option<Arc<Channel>> {
        self.lock().values().flatten().find(|channel| channel.id == id).cloned()
    }

    /// Forgets a channel that is closed or never was.
    pub(super) fn remove(&self, id: ChannelId) {
        for list in self.lock().values_mut() {
            list.retain(|channel| channel.id != id);
        }
    }

    pub(super) fn of(&self, parties: Parties) -> Vec<Arc<Channel>> {
        self.lock().get(&parties).cloned().unwrap_or_default()
    }

    fn usable(&self, parties: Parties, needed: NanoDollars) -> Option<Arc<Channel>> {
        self.of(parties)
            .into_iter()
            .filter_map(|channel| channel.free().filter(|free| *free >= needed).map(|free| (free, channel)))
            // The fullest that fits: fewer channels run dry in the middle of an answer.
            .max_by_key(|(free, _)| *free)
            .map(|(_, channel)| channel)
    }

    /// Whether a channel with a seller is open.
    pub(crate) fn has_open(&self, offer: &Offer) -> bool {
        let channels = self.lock();
        let list = channels.get(&(offer.provider, offer.model));
        list.is_some_and(|list| list.iter().any(|channel| channel.status() == ChannelStatus::Open))
    }

    /// Notes that a channel is closing.
    pub(super) fn note_closing(&self) {
        *self.closing_since.lock().unwrap_or_else(PoisonError::into_inner) = Some(Instant::now());
    }

    /// Whether a channel was closed after this moment: its owner may want its money out, and not into another channel.
    pub(crate) fn has_closed_since(&self, moment: Instant) -> bool {
        let closing = *self.closing_since.lock().unwrap_or_else(PoisonError::into_inner);
        closing.is_some_and(|closing| closing >= moment)
    }

    /// A channel with so much free: one that is open, or filled up, or newly opened.
    pub(crate) async fn acquire(
        self: &Arc<Self>,
        offer: &Offer,
        listing: &str,
        needed: NanoDollars,
    ) -> Result<Arc<Channel>, Error> {
        let parties = (offer.provider, offer.model);
        // A channel that cannot be filled up must not run dry in the middle of an answer: another is opened before.
        let reserve = match self.relies_on_sellers() {
            true => needed.max(self.config.top_up_below.to_nano()),
            false => needed,
        };
        if let Some(channel) = self.usable(parties, reserve) {
            self.fill_in_background(&channel);
            return Ok(channel);
        }
        if let Some(channel) = self.usable(parties, needed).filter(|channel| channel.is_on_credit()) {
            return Ok(channel);
        }
        let (ledger, listing) = (Arc::clone(self), listing.to_owned());
        // A transaction that was sent is seen to its end, even if the client goes away meanwhile.
        let task = tokio::spawn(async move {
            let gate = ledger.gate(parties);
            let _turn = gate.lock().await;
            for channel in ledger.of(parties) {
                // Whoever was before may have begun it, and it may be enough; else it will have all its money soon.
                if channel.is_on_credit() && channel.free().is_none_or(|free| free < needed) {
                    channel.until_known().await?;
                }
            }
            let on_credit = |channel: &Arc<Channel>| channel.is_on_credit();
            if let Some(channel) = ledger
                .usable(parties, reserve)
                .or_else(|| ledger.usable(parties, needed).filter(on_credit))
            {
                return Ok(channel);
            }
            let provided = funding::provide(&ledger, parties, &listing, reserve, needed).await;
            provided.or_else(|error| ledger.usable(parties, needed).ok_or(error))
        });
        task.await.map_err(|_| Error::Stopping)?
    }

    /// Whether sellers send this gateway's transactions, as of the last look: then a channel that cannot be opened may be
    /// their fault.
    pub(crate) fn relies_on_sellers(&self) -> bool {
        self.gasless.load(Ordering::Relaxed)
    }

    pub(super) fn gate(&self, parties: Parties) -> Arc<tokio::sync::Mutex<()>> {
        let mut gates = self.gates.lock().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(gates.entry(parties).or_default())
    }

    /// Makes sure that a channel has so much free, for a request that it already pays for.
    pub(crate) async fn fill(self: &Arc<Self>, channel: &Arc<Channel>, needed: NanoDollars) -> Result<(), Error> {
        let (ledger, channel) = (Arc::clone(self), Arc::clone(channel));
        let task = tokio::spawn(async move {
            let gate = ledger.gate((channel.params.provider, channel.params.model));
            let _turn = gate.lock().await;
            channel.until_known().await?;
            if channel.free().is_some_and(|free| free >= needed) {
                return Ok(());
            }
            funding::top_up(&ledger, &channel, needed).await
        });
        task.await.map_err(|_| Error::Stopping)?
    }

    /// Tops a channel up before it runs dry, without keeping anybody waiting.
    pub(crate) fn fill_in_background(self: &Arc<Self>, channel: &Arc<Channel>) {
        let low = channel
            .free()
            .is_some_and(|free| free < self.config.top_up_below.to_nano());
        let room = channel.funded() < self.config.max_channel && !self.relies_on_sellers();
        if !low || !room || channel.filling.swap(true, Ordering::AcqRel) {
            return;
        }
        let (ledger, channel) = (Arc::clone(self), Arc::clone(channel));
        tokio::spawn(async move {
            if let Err(error) = ledger.fill(&channel, ledger.config.top_up_below.to_nano()).await {
                tracing::warn!(channel = %channel.id, %error, "a channel could not be topped up");
                // Not again at once: every request would try.
                tokio::time::sleep(std::time::Duration::from_secs(10)).await;
            }
            channel.filling.store(false, Ordering::Release);
        });
    }

    /// What a new channel or a top-up puts in, so that `needed` is free.
    pub(super) fn amount(&self, needed: NanoDollars) -> MicroDollars {
        needed
            .round_up()
            .unwrap_or(MicroDollars::MAX)
            .max(self.config.channel_deposit)
    }
}
