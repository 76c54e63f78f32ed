//! Channels that stand by: for the models that are used, a few sellers have an open channel before they are needed, so that
//! no request, and no answer that breaks off, waits for the chain.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use rialto_protocol::{Address, Usage, offer::Offer};
use tokio_util::sync::CancellationToken;

use super::Order;
use crate::{
    book::Resolved,
    config::ms,
    desk::Desk,
    routing::{Preferences, Prompt, Wish, choose},
    store::now,
};

/// Models that are looked after.
const MAX_MODELS: usize = 64;
/// For how long after its last request.
const USED: Duration = Duration::from_secs(3_600);

/// A model in use, and what its last request wanted of a seller.
#[derive(Debug, Clone)]
struct Use {
    model: Resolved,
    preferences: Arc<Preferences>,
    usage: Usage,
    last: Instant,
}

/// The models in use.
#[derive(Debug, Default)]
pub(crate) struct Uses(Mutex<HashMap<String, Use>>);

impl Uses {
    /// Notes that a model is used.
    pub(super) fn note(&self, order: &Order, usage: Usage) {
        let mut uses = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let asked = &order.model.asked;
        if uses.len() >= MAX_MODELS && !uses.contains_key(asked) {
            let oldest = uses
                .iter()
                .min_by_key(|(_, one)| one.last)
                .map(|(name, _)| name.clone());
            oldest.and_then(|name| uses.remove(&name));
        }
        let one = Use {
            model: order.model.clone(),
            preferences: Arc::clone(&order.preferences),
            usage,
            last: Instant::now(),
        };
        uses.insert(asked.clone(), one);
    }

    fn recent(&self) -> Vec<Use> {
        let mut uses = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        uses.retain(|_, one| one.last.elapsed() < USED);
        uses.values().cloned().collect()
    }
}

/// Keeps channels open for the models in use, again and again.
pub(crate) async fn stand_by(desk: Arc<Desk>, stop: CancellationToken) {
    if desk.config.standby_channels == 0 {
        return;
    }
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(ms(desk.config.timeouts.standby_ms)) => {}
        }
        for one in desk.uses.recent() {
            desk.open_one(&one).await;
        }
    }
}

impl Desk {
    /// Opens a channel with the seller that would be asked next, unless enough are open.
    async fn open_one(&self, one: &Use) {
        // Not before the model is used again.
        if self.ledger.has_closed_since(one.last) {
            return;
        }
        let pools = self.book.pools(&one.model.models, &one.preferences.regions);
        let sellers = pools.iter().flat_map(|pool| pool.sellers());
        let open: Vec<Address> = sellers
            .filter(|seller| self.ledger.has_open(&seller.offer))
            .map(|seller| seller.offer.provider)
            .collect();
        if open.len() >= self.config.standby_channels {
            return;
        }
        let has_channel = |offer: &Offer| self.ledger.has_open(offer);
        let wish = Wish {
            usage: one.usage,
            preferences: &one.preferences,
            tried: &open,
            prompt: None::<(_, &Prompt)>,
            has_channel: &has_channel,
            now: now(),
        };
        let Some(next) = choose(&pools, &wish) else { return };
        let offer = &next.seller.offer;
        if next.seller.record.standing.is_avoided(0) {
            return;
        }
        let acquired = self
            .ledger
            .acquire(offer, &one.model.listing.name, offer.price.cost(one.usage));
        match acquired.await {
            Ok(channel) => tracing::info!(channel = %channel.id, provider = %offer.provider, "a channel stands by"),
            Err(error) => tracing::debug!(provider = %offer.provider, %error, "no channel stands by"),
        }
    }
}
