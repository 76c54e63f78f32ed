//! Stories over a running development chain, by JSON-RPC.

mod durability;
mod hostile_clients;
mod same_as_anvil;
mod support;
