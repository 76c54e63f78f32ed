//! Claiming: turning receipts and vouchers into money on chain.

mod policy;
mod task;

pub(crate) use policy::{Pending, due};
pub(crate) use task::{Claimer, Orders};
