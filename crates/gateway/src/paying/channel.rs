//! One channel as the running gateway holds it.

use std::{
    sync::{
        Mutex, MutexGuard, OnceLock, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use rialto_protocol::{ChannelId, ChannelParams, MicroDollars, NanoDollars, Signature, account::BuyerAccount};
use tokio::{sync::watch, time::timeout};

use crate::{
    Error,
    store::{ChannelStatus, now},
};

/// How long a request waits for the block of a channel that is used on credit.
const KNOWN: Duration = Duration::from_secs(20);

/// One channel: its ledger, shared by all requests that it pays for.
#[derive(Debug)]
pub(crate) struct Channel {
    pub(crate) id: ChannelId,
    pub(crate) params: ChannelParams,
    account: Mutex<BuyerAccount>,
    status: Mutex<ChannelStatus>,
    used_at: AtomicU64,
    /// When the chain was last asked whether an old attempt to open it came to something.
    looked_at: AtomicU64,
    /// Whether a top-up is under way: one at a time.
    pub(crate) filling: AtomicBool,
    /// Whether it is used on credit: its seller is sending the order that opens it, and the chain does not know it yet.
    on_credit: watch::Sender<bool>,
    /// The session key's word that this gateway's node may use it.
    pub(super) delegation: OnceLock<Signature>,
}

impl Channel {
    pub(crate) fn new(account: BuyerAccount, status: ChannelStatus, used_at: u64) -> Self {
        Self {
            id: account.id(),
            params: *account.params(),
            account: Mutex::new(account),
            status: Mutex::new(status),
            used_at: AtomicU64::new(used_at),
            looked_at: AtomicU64::new(0),
            filling: AtomicBool::new(false),
            on_credit: watch::Sender::new(false),
            delegation: OnceLock::new(),
        }
    }

    pub(super) fn set_on_credit(&self, on_credit: bool) {
        self.on_credit.send_replace(on_credit);
    }

    pub(super) fn is_on_credit(&self) -> bool {
        *self.on_credit.borrow()
    }

    /// Waits until the chain knows it, or it is given up, but no longer than a request waits for any opening: its seller may
    /// never have sent the order.
    pub(super) async fn until_known(&self) -> Result<(), Error> {
        let mut on_credit = self.on_credit.subscribe();
        let known = timeout(KNOWN, on_credit.wait_for(|on_credit| !on_credit)).await;
        known.map(drop).map_err(|_| {
            let provider = self.params.provider;
            Error::Settlement(format!(
                "the seller {provider} lends too little, and its block does not come"
            ))
        })
    }

    /// The ledger. Never held across an await.
    pub(crate) fn account(&self) -> MutexGuard<'_, BuyerAccount> {
        self.account.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn status(&self) -> ChannelStatus {
        *self.status.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn set_status(&self, status: ChannelStatus) {
        *self.status.lock().unwrap_or_else(PoisonError::into_inner) = status;
    }

    /// What is free in it, if it may pay for requests.
    pub(crate) fn free(&self) -> Option<NanoDollars> {
        (self.status() == ChannelStatus::Open).then(|| self.account().free())
    }

    pub(crate) fn funded(&self) -> MicroDollars {
        self.account().funded()
    }

    /// Whether so many seconds have passed since this last said yes; then it counts as looked at.
    pub(crate) fn is_look_due(&self, now: u64, pause: u64) -> bool {
        let due = now.saturating_sub(self.looked_at.load(Ordering::Relaxed)) >= pause;
        if due {
            self.looked_at.store(now, Ordering::Relaxed);
        }
        due
    }

    /// Notes that it is used.
    pub(crate) fn touch(&self) {
        self.used_at.store(now(), Ordering::Relaxed);
    }

    /// Seconds since it was used; zero while it is.
    pub(crate) fn idle(&self, now: u64) -> u64 {
        if self.account().active() > 0 {
            return 0;
        }
        now.saturating_sub(self.used_at.load(Ordering::Relaxed))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::tests::params;

    #[test]
    fn an_old_attempt_is_looked_for_at_once_and_then_rarely() {
        let account = BuyerAccount::new(params(), MicroDollars::new(1));
        let channel = Channel::new(account, ChannelStatus::Opening, 0);
        assert!(channel.is_look_due(10_000, 3_600), "after a start");
        assert!(!channel.is_look_due(13_599, 3_600));
        assert!(channel.is_look_due(13_600, 3_600) && !channel.is_look_due(13_601, 3_600));
    }

    #[tokio::test(start_paused = true)]
    async fn a_block_that_does_not_come_is_not_waited_for_without_end() {
        let account = BuyerAccount::new(params(), MicroDollars::new(1));
        let channel = Channel::new(account, ChannelStatus::Open, 0);
        assert!(channel.until_known().await.is_ok(), "it is not on credit");
        channel.set_on_credit(true);
        assert!(matches!(channel.until_known().await, Err(Error::Settlement(_))));
        let (known, ()) = tokio::join!(channel.until_known(), async { channel.set_on_credit(false) });
        assert!(known.is_ok());
    }
}
