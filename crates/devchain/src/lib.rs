//! An embedded Ethereum chain for **development and single-machine markets**.
//!
//! # Never put value on it
//!
//! This is not a blockchain that anybody secures. One process makes all blocks. Its ten funded accounts have
//! keys that the whole world knows. Anyone who reaches its port can move time, set balances and take blocks back.
//! It holds play money for a market that lives on one machine, and for tests. For anything else point the market
//! at a real chain by its RPC address: the same contracts and the same programs run there.
//!
//! # What it is
//!
//! An EVM (revm, Osaka rules) in this process behind standard JSON-RPC over HTTP, enough for alloy, `cast`, viem
//! and browser wallets. Each transaction makes a block of its own at once; nothing is ever pending. Each accepted
//! transaction is on disk before the client hears of it, and a killed process loses nothing that it acknowledged.
//!
//! # How it differs from a public chain
//!
//! - **State root**: the header's `stateRoot` is a commitment that chains all state changes, not the root of a
//!   Merkle trie, and `eth_getProof` is not offered. All other hashes, roots and blooms are real.
//! - **Nothing pends**: `pending`, `safe` and `finalized` mean the newest block. A transaction whose nonce is a
//!   little too high waits two seconds for the missing ones and is then refused.
//! - **Time**: blocks take the wall clock plus an offset, and at least one second more than their parent. Calls
//!   on the newest block see the time a transaction sent now would see.
//! - **Web pages** from other origins than localhost are refused.
//! - Blob transactions, state overrides, tracing and subscriptions are not offered. System contracts of the
//!   beacon chain do not exist. Snapshots and filters are forgotten when the process ends.
//!
//! # Example
//!
//! ```no_run
//! # async fn run() -> Result<(), rialto_devchain::Error> {
//! use rialto_devchain::{Config, Devchain};
//!
//! let chain = Devchain::start(Config {
//!     data_dir: Some("market/chain".into()),
//!     listen: ([127, 0, 0, 1], 8545).into(),
//!     chain_id: rialto_devchain::DEFAULT_CHAIN_ID,
//! })
//! .await?;
//! println!("{}", chain.rpc_url());
//! chain.shutdown().await
//! # }
//! ```

mod account;
mod block;
mod chain;
mod change;
mod clock;
mod diff;
mod error;
mod estimate;
mod evm;
mod fees;
mod filters;
mod journal;
mod logs;
mod node;
mod receipt;
mod rpc;
mod server;
mod state;
mod transaction;
mod view;

pub use account::{DevelopmentKey, development_keys};
pub use error::Error;
pub use journal::TornTail;

use chain::Chain;
use futures::{FutureExt as _, future::BoxFuture};
use node::Node;
use std::{io, net::SocketAddr, path::PathBuf, sync::Arc, time::Duration};
use tokio::{net::TcpListener, sync::oneshot, task::JoinHandle};

/// The chain id that development chains use by custom.
pub const DEFAULT_CHAIN_ID: u64 = 31_337;

/// How long open connections may take to finish when the chain is stopped.
const SHUTDOWN_PATIENCE: Duration = Duration::from_secs(5);

/// How a development chain is started.
#[derive(Clone, Debug)]
pub struct Config {
    /// Where the chain is kept; made when it is missing. `None` keeps it in memory only, for tests.
    pub data_dir: Option<PathBuf>,
    /// Where JSON-RPC is offered. Port 0 takes a free one. Keep it on a loopback address: whoever reaches the
    /// port controls the chain.
    pub listen: SocketAddr,
    /// The EIP-155 chain id; [`DEFAULT_CHAIN_ID`] by custom. A data directory keeps the id it began with.
    pub chain_id: u64,
}

/// A running development chain. It stops when this is dropped; [`Devchain::shutdown`] also waits for it.
#[derive(Debug)]
pub struct Devchain {
    node: Arc<Node>,
    address: SocketAddr,
    torn: Option<TornTail>,
    /// Dropping it asks the server to stop.
    stop: Option<oneshot::Sender<()>>,
    server: Option<JoinHandle<io::Result<()>>>,
}

impl Devchain {
    /// Loads or begins the chain and answers JSON-RPC from then on. Needs a tokio runtime.
    ///
    /// # Errors
    /// [`Error::AddressInUse`] and [`Error::DataDirLocked`] when another process is in the way,
    /// [`Error::JournalCorrupted`] when acknowledged blocks cannot be read, [`Error::ChainIdMismatch`] when the
    /// directory holds another chain. A last record that a crash cut short is no error: see
    /// [`Devchain::torn_tail`].
    ///
    /// The future is boxed: what it calls is then compiled here, once, and not in every program that calls it.
    pub fn start(config: Config) -> BoxFuture<'static, Result<Self, Error>> {
        Self::begin(config).boxed()
    }

    async fn begin(config: Config) -> Result<Self, Error> {
        let Config {
            data_dir,
            listen,
            chain_id,
        } = config;
        let listener = TcpListener::bind(listen).await.map_err(|source| match source.kind() {
            io::ErrorKind::AddrInUse => Error::AddressInUse { address: listen },
            _ => Error::Listen {
                address: listen,
                source,
            },
        })?;
        let address = listener.local_addr().map_err(|source| Error::Listen {
            address: listen,
            source,
        })?;
        let load = move || match data_dir {
            Some(path) => Chain::open(&path, chain_id),
            None => Ok(Chain::in_memory(chain_id)),
        };
        let loaded = tokio::task::spawn_blocking(load).await;
        let chain = loaded.map_err(|error| Error::Server(error.to_string()))??;
        let torn = chain.torn();
        tracing::info!(%address, chain_id, height = chain.height(), "development chain listening");

        let node = Arc::new(Node::new(chain));
        let (stop, stopped) = oneshot::channel::<()>();
        let serve = axum::serve(listener, server::router(Arc::clone(&node)));
        let serve = serve.with_graceful_shutdown(async move {
            // A dropped sender means the same as a sent signal.
            let _ = stopped.await;
        });
        let server = tokio::spawn(async move { serve.await });
        Ok(Self {
            node,
            address,
            torn,
            stop: Some(stop),
            server: Some(server),
        })
    }

    /// The address that JSON-RPC is offered on, with the port that was taken for port 0.
    pub fn local_addr(&self) -> SocketAddr {
        self.address
    }

    /// The URL of the JSON-RPC endpoint.
    pub fn rpc_url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// What a crash had left at the end of the journal and was cut off at start: a record that was never
    /// acknowledged.
    pub fn torn_tail(&self) -> Option<TornTail> {
        self.torn
    }

    /// Stops taking requests, lets running ones finish, and gives up the data directory.
    ///
    /// Nothing needs saving: whatever was acknowledged is on disk already.
    ///
    /// # Errors
    /// [`Error::Server`] when the server had failed before.
    pub async fn shutdown(mut self) -> Result<(), Error> {
        drop(self.stop.take());
        let Some(mut server) = self.server.take() else {
            return Ok(());
        };
        let ended = tokio::time::timeout(SHUTDOWN_PATIENCE, &mut server).await;
        self.node.close();
        match ended {
            Err(_) => {
                // A client that keeps its connection busy does not keep the chain.
                server.abort();
                Ok(())
            }
            Ok(Ok(Ok(()))) => Ok(()),
            Ok(Ok(Err(error))) => Err(Error::Server(error.to_string())),
            Ok(Err(error)) => Err(Error::Server(error.to_string())),
        }
    }
}

impl Drop for Devchain {
    fn drop(&mut self) {
        // Connections end in their own time, but from here on nothing is written and the directory is free.
        self.node.close();
        if let Some(server) = &self.server {
            server.abort();
        }
    }
}
