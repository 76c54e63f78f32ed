//! How much each caller may bring, and how much of each provider is taken.

use std::{
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use rialto_network::Rates;
use rialto_protocol::{Address, NodeKey};

/// Offers that one caller may bring: so many at once, and so many a second. The rest is not looked at.
const CALLER_BURST: u32 = 4_096;
const CALLER_PER_SECOND: f64 = 256.0;

/// Offers of one provider that are taken, whoever brings them: all its models at once, and so many a second.
const PROVIDER_BURST: u32 = 512;
const PROVIDER_PER_SECOND: f64 = 128.0;

/// For how long a caller that brought what is forged is not listened to.
const BLAMED: Duration = Duration::from_secs(600);

/// The limits.
#[derive(Debug)]
pub(crate) struct Door {
    callers: Mutex<Rates<NodeKey>>,
    providers: Mutex<Rates<Address>>,
}

impl Door {
    pub(crate) fn new() -> Self {
        let now = Instant::now();
        Self {
            callers: Mutex::new(Rates::new(CALLER_BURST, CALLER_PER_SECOND, now)),
            providers: Mutex::new(Rates::new(PROVIDER_BURST, PROVIDER_PER_SECOND, now)),
        }
    }

    fn callers(&self) -> MutexGuard<'_, Rates<NodeKey>> {
        self.callers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether one more offer of this caller is looked at.
    pub(crate) fn admits(&self, caller: NodeKey) -> bool {
        self.callers().take(caller, Instant::now())
    }

    /// Shuts a caller out that brought what no honest node passes on.
    pub(crate) fn blame(&self, caller: NodeKey) {
        self.callers().punish(caller, BLAMED, Instant::now());
    }

    /// Whether one more offer of this provider is taken. Asked only once its signature was checked: nobody can use up
    /// another's share.
    pub(crate) fn takes(&self, provider: Address) -> bool {
        let mut providers = self.providers.lock().unwrap_or_else(PoisonError::into_inner);
        providers.take(provider, Instant::now())
    }
}
