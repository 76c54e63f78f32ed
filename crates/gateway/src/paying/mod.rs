//! Channels: opened on demand, filled when they run low, closed when nobody uses them.

mod channel;
pub mod closing;
mod funding;
mod ledger;
mod reopen;

pub(crate) use channel::Channel;
pub(crate) use ledger::Ledger;
