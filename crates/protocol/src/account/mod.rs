//! The two ledgers of one channel: what the buyer promised and what the seller earned.
//!
//! Both are pure state machines. A request reserves money before work and settles with a receipt after it; several
//! requests may run on one channel at a time. The rules that keep the two sides in step:
//!
//! - The seller works only while `earned + reserved ≤ best voucher ≤ funded`.
//! - The buyer signs `spent + reserved`, so it never risks more than the reservations it agreed to.
//! - Receipts are numbered from 1 and chained. A side that missed one catches up from the other's list.
//! - What a crash cut off is settled by the next statement: see [`Interruption`].

mod buyer;
mod seller;

pub use buyer::{BillError, BuyerAccount, Exhausted, Observed};
pub use seller::{SellerAccount, Settlement, VoucherError};
use serde::{Deserialize, Serialize};

use crate::{ReceiptsHead, RequestId, Usage, bounded};

/// What the buyer knows of a channel's receipts, sent with each request.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Statement {
    /// Receipts that the buyer has without a gap.
    pub sequence: u64,
    /// The head after them.
    pub head: ReceiptsHead,
    /// Requests that ended without a receipt, and what had arrived.
    #[serde(deserialize_with = "bounded::list::<_, _, MAX_INTERRUPTIONS>")]
    pub interrupted: Vec<Interruption>,
}

/// A request that ended without a receipt, as the buyer saw it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Interruption {
    /// The request.
    pub request: RequestId,
    /// What had arrived.
    pub usage: Usage,
}

/// Most interruptions in one statement; the rest wait for the next.
pub const MAX_INTERRUPTIONS: usize = 64;

#[cfg(test)]
mod tests;
