//! Channels: opened on demand, filled when they run low, closed when nobody uses them.

mod aside;
mod channel;
mod closing;
mod credit;
mod funding;
mod ledger;
mod relay;
mod reopen;

use aside::Aside;
pub(crate) use channel::Channel;
pub(crate) use ledger::Ledger;
pub(crate) use relay::Sellers;
