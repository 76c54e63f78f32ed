//! The market's language: ids, money, manifests, offers, jobs, vouchers, receipts, and the invariants they obey.
//!
//! This crate is pure and synchronous: no input or output, no clock, no async. Its hashes equal Solidity's; the shared
//! vectors in `contracts/vectors` are checked on both sides.

pub mod account;
pub mod bounded;
pub mod channel;
pub mod claim;
pub mod eip712;
pub mod fingerprint;
pub mod hash;
pub mod id;
pub mod job;
pub mod manifest;
pub mod money;
mod number;
pub mod offer;
pub mod order;
pub mod output;
pub mod price;
pub mod receipt;
pub mod sampler;
pub mod signature;
pub mod softmax;
pub mod tender;
pub mod ticket;
pub mod voucher;
pub mod wire;

pub use channel::ChannelParams;
pub use eip712::Domain;
pub use id::{Address, ChannelId, Digest, ManifestHash, ModelId, NodeKey, ReceiptsHead, Region, RequestId};
pub use money::{MicroDollars, NanoDollars};
pub use offer::EnergySource;
pub use price::{Price, Usage};
pub use receipt::{Receipt, ReceiptStatus, SignedReceipt};
pub use signature::{PublicKey, Signature, SigningKey};
pub use voucher::{SignedVoucher, Voucher};
