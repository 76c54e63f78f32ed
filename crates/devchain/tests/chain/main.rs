//! Stories over a running development chain, by JSON-RPC.
#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "helpers of tests fail as tests do, by panicking"
)]

mod durability;
mod hostile_clients;
mod same_as_anvil;
mod support;
