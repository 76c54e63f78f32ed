//! Looks at the servers: which models they list, and whether one that failed answers again.

use std::{sync::Arc, time::Duration};

use futures::future::join_all;
use tokio_util::sync::CancellationToken;

use crate::desk::Desk;

/// Time between two looks at servers that are well.
const EVERY: Duration = Duration::from_secs(10);
/// Time between two looks while one is not.
const SOON: Duration = Duration::from_secs(1);

/// Looks again and again, until `stop`.
pub(crate) async fn watch(desk: Arc<Desk>, stop: CancellationToken) {
    let own = &desk.own;
    if own.is_empty() {
        return;
    }
    loop {
        let well = tokio::select! {
            () = stop.cancelled() => return,
            well = join_all(own.servers.iter().map(|server| server.look())) => well.into_iter().all(|well| well),
        };
        own.sort();
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(if well { EVERY } else { SOON }) => {}
        }
    }
}
