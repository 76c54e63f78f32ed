//! Several nodes of one chain, as if they were one.
//!
//! A call goes to the node that served the last one, and to the next when that one fails: no connection, no answer in
//! time, an HTTP error, too busy, nonsense, or another chain. A node that failed is left alone for a while. Each is
//! asked for its chain's id before anything else, and again after each failure.
//!
//! What was read never goes back in time because another node answers: the highest block that any node has shown is
//! remembered, and a node below it is not asked until it has caught up. A reorganisation is still seen, for the node
//! that showed that block may take it back.
//!
//! Transactions go to all nodes at once. An address may hold a password, so a node is known by its number in logs.

use std::{
    fmt,
    sync::{
        Arc, Mutex, MutexGuard, OnceLock, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use alloy::primitives::{B256, Bytes, U64};
use futures::{FutureExt as _, future::BoxFuture};
use reqwest::Url;
use serde::{Serialize, de::DeserializeOwned};
use tokio::{
    task::JoinSet,
    time::{Instant, sleep},
};

use crate::{
    Error, Options,
    rpc::{Failure, Rpc},
};

/// Most addresses: more are a mistake.
const MAX_ENDPOINTS: usize = 16;
/// For so long it is believed that a node is where it was.
const LOOK: Duration = Duration::from_secs(2);
/// A node whose chain has not grown for so many pauses is compared with the others.
const STALL: u32 = 6;
/// How long nodes that are behind are waited for when nobody else answers, and the pause between two looks.
const CATCH_UP: (Duration, Duration) = (Duration::from_secs(5), Duration::from_millis(250));
/// A block that no node has shown for so long is given up: it was a lie, or the chain began anew.
const MARK_LIFETIME: Duration = Duration::from_secs(600);
/// How many times longer a node of another chain is left alone than one that failed.
const WRONG_CHAIN: u32 = 6;

/// Addresses of nodes that serve the same chain, in the order in which they are tried.
#[derive(Clone, PartialEq, Eq)]
pub struct Endpoints(Vec<String>);

impl Endpoints {
    /// An address without the user's name and password, to be shown or handed on. What is no URL is not shown at all.
    ///
    /// A key that is part of the path cannot be told from a path and stays.
    pub fn without_password(url: &str) -> String {
        let parsed = url.parse::<Url>().ok();
        let Some(mut parsed) = parsed.filter(|url| matches!(url.scheme(), "http" | "https")) else {
            return "(not a URL)".into();
        };
        if parsed.username().is_empty() && parsed.password().is_none() {
            return url.to_owned();
        }
        let cleared = parsed.set_username("").and_then(|()| parsed.set_password(None));
        cleared.map_or_else(|()| "(not a URL)".into(), |()| parsed.to_string())
    }
}

/// Only how many there are: they may hold passwords.
impl fmt::Debug for Endpoints {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Endpoints({})", self.0.len())
    }
}

impl From<&str> for Endpoints {
    fn from(url: &str) -> Self {
        Self(vec![url.to_owned()])
    }
}

impl From<&String> for Endpoints {
    fn from(url: &String) -> Self {
        url.as_str().into()
    }
}

impl From<&[String]> for Endpoints {
    fn from(urls: &[String]) -> Self {
        Self(urls.to_vec())
    }
}

impl From<&Vec<String>> for Endpoints {
    fn from(urls: &Vec<String>) -> Self {
        urls.as_slice().into()
    }
}

/// What is known of a node.
#[derive(Debug, Default, Clone, Copy)]
struct Health {
    /// It serves the right chain; forgotten when it fails.
    verified: bool,
    /// Not asked before then, if another can be.
    parked_until: Option<Instant>,
    /// Its newest block, when it was looked at, and since when it is that.
    head: u64,
    looked_at: Option<Instant>,
    since: Option<Instant>,
}

struct Node {
    rpc: Rpc,
    health: Mutex<Health>,
}

impl Node {
    fn health(&self) -> MutexGuard<'_, Health> {
        self.health.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn is_parked(&self) -> bool {
        self.health().parked_until.is_some_and(|until| Instant::now() < until)
    }

    /// Asks for the chain's id, unless that was done.
    async fn verify(&self, chain: &OnceLock<u64>) -> Result<u64, Failure> {
        if let (Some(known), true) = (chain.get(), self.health().verified) {
            return Ok(*known);
        }
        let found: U64 = self.rpc.request("eth_chainId", ()).await?;
        let found = found.to();
        let expected = *chain.get_or_init(|| found);
        if found != expected {
            return Err(Failure::WrongChain { expected, found });
        }
        self.health().verified = true;
        Ok(found)
    }
}

/// The highest block that was seen, and by which node.
#[derive(Debug, Clone, Copy)]
struct Mark {
    block: u64,
    by: usize,
    at: Instant,
}

/// The nodes of one chain.
pub(crate) struct Nodes {
    nodes: Vec<Arc<Node>>,
    chain: Arc<OnceLock<u64>>,
    /// The node that served last.
    current: AtomicUsize,
    mark: Mutex<Mark>,
    pause: Duration,
}

impl Nodes {
    pub(crate) fn new(endpoints: &Endpoints, options: &Options) -> Result<Self, Error> {
        let urls = &endpoints.0;
        if urls.is_empty() || urls.len() > MAX_ENDPOINTS {
            let reason = format!("between one and {MAX_ENDPOINTS} addresses of the chain's RPC are needed");
            return Err(Error::invalid(reason));
        }
        let node = |url: &String| {
            Ok(Arc::new(Node {
                rpc: Rpc::new(url, options.call_timeout)?,
                health: Mutex::default(),
            }))
        };
        Ok(Self {
            nodes: urls.iter().map(node).collect::<Result<_, Error>>()?,
            chain: Arc::new(options.chain_id.map_or_else(OnceLock::new, OnceLock::from)),
            current: AtomicUsize::new(0),
            mark: Mutex::new(Mark {
                block: 0,
                by: 0,
                at: Instant::now(),
            }),
            pause: options.node_pause,
        })
    }

    /// The chain's id; asks no node if one has said it already.
    pub(crate) async fn chain_id(&self) -> Result<u64, Failure> {
        let verified = self.nodes.iter().any(|node| node.health().verified);
        if let (Some(known), true) = (self.chain.get(), verified) {
            return Ok(*known);
        }
        let mut first = None;
        for (index, node) in self.order() {
            match node.verify(&self.chain).await {
                Ok(found) => return Ok(found),
                Err(failure) => self.failed(index, node, failure, &mut first),
            }
        }
        Err(first.unwrap_or_else(nobody))
    }

    /// Calls a method, with its parameters as a tuple, on a node that is not behind.
    pub(crate) async fn request<P: Serialize, R: DeserializeOwned>(
        &self,
        method: &'static str,
        params: P,
    ) -> Result<R, Failure> {
        let until = Instant::now() + CATCH_UP.0;
        let mut first = None;
        loop {
            let mut behind = false;
            for (index, node) in self.order() {
                match self.is_ready(index, node).await {
                    Ok(true) => {}
                    Ok(false) => {
                        behind = true;
                        continue;
                    }
                    Err(failure) => {
                        self.failed(index, node, failure, &mut first);
                        continue;
                    }
                }
                match node.rpc.request(method, &params).await {
                    Err(failure) if failure.is_the_nodes() => self.failed(index, node, failure, &mut first),
                    answer => {
                        self.use_from_now_on(index);
                        return answer;
                    }
                }
            }
            if !behind {
                return Err(first.unwrap_or_else(nobody));
            }
            if Instant::now() >= until {
                let block = self.mark().block;
                return Err(Failure::NoAnswer(format!(
                    "every node that answers is behind block {block}, which was seen before"
                )));
            }
            sleep(CATCH_UP.1).await;
        }
    }

    /// Gives a signed transaction to all nodes; returns once one has it, or what each of them said.
    pub(crate) async fn broadcast(&self, raw: &Bytes) -> Result<(), Vec<Failure>> {
        let mut tasks = JoinSet::new();
        for (_, node) in self.order() {
            let (node, chain, raw) = (Arc::clone(node), Arc::clone(&self.chain), raw.clone());
            tasks.spawn(async move {
                node.verify(&chain).await.map_err(not_delivered)?;
                node.rpc.request::<_, B256>("eth_sendRawTransaction", (raw,)).await
            });
        }
        let mut failures = Vec::new();
        while let Some(done) = tasks.join_next().await {
            match done {
                // Whatever hash the node says: the receipt is asked for by ours.
                Ok(Ok(_)) => {
                    tasks.detach_all();
                    return Ok(());
                }
                Ok(Err(failure)) => failures.push(failure),
                Err(_) => failures.push(Failure::NoAnswer("a task ended".into())),
            }
        }
        Err(failures)
    }

    /// Notes a block that the node in use has shown.
    pub(crate) fn saw(&self, block: u64) {
        let by = self.current.load(Ordering::Relaxed);
        if let Some(node) = self.nodes.get(by) {
            let mut health = node.health();
            health.head = health.head.max(block);
        }
        let mut mark = self.mark();
        if block > mark.block {
            *mark = Mark {
                block,
                by,
                at: Instant::now(),
            };
        }
    }

    /// Nodes in the order in which they are asked: the one in use first, those that failed lately only if there is no
    /// other.
    fn order(&self) -> Vec<(usize, &Arc<Node>)> {
        let current = self.current.load(Ordering::Relaxed);
        let (before, from) = self.nodes.split_at(current.min(self.nodes.len()));
        let numbered = (current..).zip(from).chain((0..).zip(before));
        let (parked, mut order): (Vec<_>, Vec<_>) = numbered.partition(|(_, node)| node.is_parked());
        if order.is_empty() {
            order = parked;
        }
        order
    }

    /// Whether a node serves the right chain and is not behind what was seen.
    fn is_ready<'a>(&'a self, index: usize, node: &'a Node) -> BoxFuture<'a, Result<bool, Failure>> {
        self.make_ready(index, node).boxed()
    }

    async fn make_ready(&self, index: usize, node: &Node) -> Result<bool, Failure> {
        node.verify(&self.chain).await?;
        if self.nodes.len() == 1 {
            return Ok(true);
        }
        let known = *node.health();
        let fresh = known.looked_at.is_some_and(|at| at.elapsed() < LOOK.min(self.pause));
        if fresh && known.head >= self.mark().block {
            return Ok(true);
        }
        self.look(index, node).await?;
        if node
            .health()
            .since
            .is_some_and(|since| since.elapsed() >= self.pause * STALL)
        {
            self.compare(index).await;
        }
        Ok(node.health().head >= self.mark().block)
    }

    /// Asks a node for its newest block.
    async fn look(&self, index: usize, node: &Node) -> Result<(), Failure> {
        let head: U64 = node.rpc.request("eth_blockNumber", ()).await?;
        let (head, now) = (head.to(), Instant::now());
        {
            let mut health = node.health();
            if health.since.is_none() || health.head != head {
                health.since = Some(now);
            }
            health.head = head;
            health.looked_at = Some(now);
        }
        let mut mark = self.mark();
        let taken_back = mark.by == index || mark.at.elapsed() >= MARK_LIFETIME;
        if head >= mark.block || taken_back {
            *mark = Mark {
                block: head,
                by: index,
                at: now,
            };
        }
        Ok(())
    }

    /// Looks whether others are ahead of a node whose chain does not grow any more.
    async fn compare(&self, stalled: usize) {
        for (index, node) in self.order() {
            if index != stalled && node.verify(&self.chain).await.is_ok() {
                // Whoever fails here is found out when it is needed.
                drop(self.look(index, node).await);
            } else if index == stalled {
                node.health().since = Some(Instant::now());
            }
        }
    }

    fn failed(&self, index: usize, node: &Node, failure: Failure, first: &mut Option<Failure>) {
        let factor = match failure {
            Failure::WrongChain { .. } => WRONG_CHAIN,
            // It works, and only cannot answer this.
            Failure::Refused { .. } => 0,
            _ => 1,
        };
        if factor > 0 {
            let mut health = node.health();
            health.verified = false;
            health.looked_at = None;
            health.parked_until = Some(Instant::now() + self.pause * factor);
        }
        if self.nodes.len() > 1 {
            tracing::warn!(node = index + 1, error = %failure, "a node of the chain failed, the next is asked");
        }
        first.get_or_insert(failure);
    }

    fn use_from_now_on(&self, index: usize) {
        if self.current.swap(index, Ordering::Relaxed) != index {
            tracing::info!(node = index + 1, "another node of the chain is used");
        }
    }

    fn mark(&self) -> MutexGuard<'_, Mark> {
        self.mark.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A transaction is not given to a node that did not say its chain.
fn not_delivered(failure: Failure) -> Failure {
    match failure {
        Failure::WrongChain { .. } => failure,
        other => Failure::NotDelivered(other.to_string()),
    }
}

fn nobody() -> Failure {
    Failure::NotDelivered("there is no node to ask".into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_password_is_not_shown() {
        let shown = Endpoints::without_password("https://me:secret@node.example/path");
        assert_eq!(shown, "https://node.example/path");
        assert_eq!(
            Endpoints::without_password("http://127.0.0.1:8545"),
            "http://127.0.0.1:8545"
        );
        assert_eq!(Endpoints::without_password("me:secret@node"), "(not a URL)");
        let two = Endpoints::from(&vec!["https://me:secret@a".to_owned(), "https://b".to_owned()]);
        assert_eq!(format!("{two:?}"), "Endpoints(2)");
    }
}
