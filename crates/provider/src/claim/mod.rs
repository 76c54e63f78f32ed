//! Claiming: turning receipts and vouchers into money on chain.

mod gas;
mod pause;
mod policy;
mod task;

pub(crate) use gas::GasMeter;
pub(crate) use pause::pause;
pub(crate) use policy::{Pending, due};
pub(crate) use task::{Claimer, Orders};
