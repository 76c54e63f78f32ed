//! The seller's room: admission, queue, execution, receipts, offers and claiming.
//!
//! [`Provider::start`] takes ready-made [`Parts`] and sells until [`Provider::shutdown`]. The order that keeps both
//! sides safe: a voucher is on disk before the work that it pays for is released, and a receipt is on disk before the
//! buyer sees it. Everything the ledgers need is restored from the store after a crash.

mod bids;
mod birth;
mod channel;
mod channels;
mod claim;
mod clock;
mod config;
mod courier;
mod crowd;
mod energy;
mod error;
mod lent;
mod limits;
mod metrics;
mod offers;
pub mod price;
mod provider;
mod queue;
mod reconcile;
mod refusal;
mod room;
mod serve;
pub mod store;
mod trade;
mod watch;

pub use bids::BidPolicy;
pub use config::{Config, MAX_CONFIRMATIONS, MAX_WAIT, RedeemPolicy, RelayPolicy, Trust};
pub use error::Error;
pub use limits::Limits;
pub use metrics::Metrics;
pub use provider::{ChannelStats, ModelStats, Parts, Provider, Stats};
pub use room::Listing;
pub use store::Redemption;
