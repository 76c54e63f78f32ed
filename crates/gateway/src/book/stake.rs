//! Whether a provider has stake behind its work, as the chain says; remembered for a while.

use std::{
    collections::HashMap,
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

use rialto_protocol::Address;
use rialto_settlement::Chain;

/// For how long a stake is believed without another look.
const STAKED: Duration = Duration::from_secs(120);
/// For how long its absence is.
const UNSTAKED: Duration = Duration::from_secs(5);
/// Most providers that are remembered.
const MAX_KNOWN: usize = 16_384;

/// Looks up stakes.
pub(crate) struct Stakes {
    chain: Chain,
    trusted: Vec<Address>,
    known: Mutex<HashMap<Address, (Instant, bool)>>,
}

impl Stakes {
    pub(crate) fn new(chain: Chain, trusted: Vec<Address>) -> Self {
        Self {
            chain,
            trusted,
            known: Mutex::default(),
        }
    }

    /// Where stakes are looked up.
    pub(crate) fn chain(&self) -> &Chain {
        &self.chain
    }

    /// Whether the provider is active on chain. While the chain does not answer, what was known last counts.
    pub(crate) async fn is_staked(&self, provider: Address) -> bool {
        if self.trusted.contains(&provider) {
            return true;
        }
        let known = self
            .known
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .get(&provider)
            .copied();
        if let Some((seen, staked)) = known
            && seen.elapsed() < if staked { STAKED } else { UNSTAKED }
        {
            return staked;
        }
        match self.chain.provider_of(provider).await {
            Ok(record) => {
                let staked = record.is_some_and(|record| record.active);
                let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
                if known.len() >= MAX_KNOWN {
                    known.clear();
                }
                known.insert(provider, (Instant::now(), staked));
                staked
            }
            Err(error) => {
                tracing::warn!(%provider, %error, "cannot look up a provider's stake");
                known.is_some_and(|(_, staked)| staked)
            }
        }
    }
}
