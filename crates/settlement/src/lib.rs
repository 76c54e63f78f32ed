//! Settlement: everything that Rialto does on a chain, and the only room that knows an RPC.
//!
//! [`Chain`] reads, [`Wallet`] sends transactions of one key, [`deploy`] puts the contracts on a chain, [`keystore`]
//! keeps keys in files. All go through one or several nodes ([`Endpoints`]) as if they were one. What a node answers is
//! hostile input: it is bounded, parsed strictly, and what cannot be is [`Error::Corrupt`]. Every call has a timeout, and
//! errors tell apart what was not decided ([`Error::Unreachable`]), what was refused ([`Error::Reverted`]) and what
//! nobody knows yet ([`Error::Timeout`]).

mod abi;
mod bindings;
mod chain;
mod deploy;
mod deployed;
mod error;
mod events;
pub mod keystore;
mod link;
mod mirror;
mod nodes;
mod orders;
mod redeem;
mod revert;
mod rpc;
mod sender;
mod stake;
mod trail;
mod wallet;

pub use chain::{Chain, EscrowTerms, ModelRecord, ProviderRecord};
pub use deploy::{DeployOptions, Deployment, deploy, ensure_deployed};
pub use deployed::{DeploymentRecord, Plan, Planned, RecordedContract, inspect, plan, verify};
pub use error::{Error, Purse};
pub use events::{ChainEvent, EventKind, MAX_EVENT_BLOCKS};
pub use link::Options;
pub use mirror::{EscrowBooks, Ledger, Mirror, MirroredChannel};
pub use nodes::Endpoints;
pub use orders::{Funds, Relaying};
pub use redeem::{FailedBatch, MAX_BATCH, Redeemed, Redemption};
pub use sender::Confirmed;
pub use stake::Unstaking;
pub use trail::{Step, Trail};
pub use wallet::{Wallet, fund_native};
