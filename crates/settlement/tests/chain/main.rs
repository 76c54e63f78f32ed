//! Contracts and accounts on real chains, behind nodes of all sorts. One program, because what it is linked with takes
//! longer to compile than the tests themselves.

mod anvil;
mod failover;
mod hostile;
mod keystore;
mod life;
mod node;
mod orders;
mod patience;
mod proxy;
mod reorg;
mod sending;
mod stakes;
mod trouble;
