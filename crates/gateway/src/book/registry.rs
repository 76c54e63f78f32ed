//! The chain's registry as a way into the market: every provider's node is named there.

use std::{sync::Arc, time::Duration};

use rialto_protocol::ticket::Peer;
use tokio_util::sync::CancellationToken;

use crate::desk::Desk;

/// Time between two looks for new registrations.
const LOOK: Duration = Duration::from_secs(60);

/// Looks back when the gateway starts, and the time between two of them.
const LOOKS_BACK: usize = 100;
const LOOK_BACK: Duration = Duration::from_secs(1);

/// Makes the nodes of registered providers known: first those of the last blocks, then what is new. They have no address
/// there, so this is for nodes with a relay.
pub(crate) async fn meet_registered(desk: Arc<Desk>, stop: CancellationToken) {
    if desk.node.peer().relay.is_none() {
        return;
    }
    let work = async {
        let mut seen = None;
        loop {
            match look(&desk, seen).await {
                Ok(head) => seen = Some(head),
                Err(error) => tracing::debug!(%error, "the chain's registry cannot be read"),
            }
            tokio::time::sleep(LOOK).await;
        }
    };
    tokio::select! {
        () = stop.cancelled() => {}
        () = work => {}
    }
}

/// Looks from the chain's head back to what was seen, or so far as is worth it; returns the head.
async fn look(desk: &Desk, seen: Option<u64>) -> Result<u64, rialto_settlement::Error> {
    let chain = desk.stakes.chain();
    let head = chain.block_number().await?;
    let first = seen.map_or(0, |seen| seen.saturating_add(1));
    let mut last = head;
    for _ in 0..LOOKS_BACK {
        if last < first {
            break;
        }
        let from = last.saturating_sub(rialto_settlement::MAX_EVENT_BLOCKS - 1).max(first);
        let found = chain.registered_nodes(from, last).await?;
        desk.neighbours.meet(found.into_iter().map(|node| Peer {
            node,
            addresses: Vec::new(),
            relay: None,
        }));
        let Some(before) = from.checked_sub(1) else { break };
        last = before;
        tokio::time::sleep(LOOK_BACK).await;
    }
    Ok(head)
}
