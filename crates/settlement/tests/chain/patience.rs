//! Patience that ends when a test wants it to: nobody waits for the time that passes here.

#![expect(clippy::unwrap_used, clippy::panic, reason = "a test ends where it cannot go on")]

use std::{fmt::Debug, time::Duration};

use rialto_protocol::{Digest, SigningKey, ticket::Contracts};
use rialto_settlement::{Chain, Error, Options, Wallet};

use crate::proxy::Proxy;

/// How long anything is waited for that must happen: only a hang takes so long, also on a busy machine.
pub(crate) const PATIENCE: Duration = Duration::from_secs(120);

/// Longer than any test takes: who waits for so long is made to give up, or not at all.
pub(crate) const LONG: Duration = Duration::from_secs(3_600);

/// Lets so much time pass at once, for whoever waits in this program. The test must have but one thread.
pub(crate) async fn pass(time: Duration) {
    tokio::time::pause();
    tokio::time::advance(time).await;
    tokio::time::resume();
}

/// Waits until something holds.
pub(crate) async fn until(holds: impl Fn() -> bool) {
    while !holds() {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// A wallet that gives up when it is told to.
pub(crate) struct Impatient {
    proxy: Proxy,
    pub(crate) wallet: Wallet,
}

impl Impatient {
    pub(crate) async fn new(url: &str, contracts: Contracts, key: SigningKey, options: Options) -> Self {
        let proxy = Proxy::start(url).await;
        let options = Options {
            receipt_timeout: LONG,
            ..options
        };
        let chain = Chain::connect_with(&proxy.url(), contracts, options).unwrap();
        Self {
            proxy,
            wallet: Wallet::new(chain, key),
        }
    }

    /// Makes a call, which gives up once it waits for its block; the transaction that it leaves.
    pub(crate) async fn gives_up<T: Debug + Send + 'static>(
        &self,
        call: impl Future<Output = Result<T, Error>> + Send + 'static,
    ) -> Digest {
        let asked = || self.proxy.calls("eth_getTransactionReceipt");
        let before = asked();
        let call = tokio::spawn(call);
        until(|| asked() > before || call.is_finished()).await;
        pass(LONG).await;
        timed_out(call.await.unwrap())
    }
}

/// The transaction that was given up.
pub(crate) fn timed_out<T: Debug>(outcome: Result<T, Error>) -> Digest {
    match outcome {
        Err(Error::Timeout { transaction }) => transaction,
        other => panic!("{other:?}"),
    }
}
