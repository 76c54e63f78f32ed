//! A seller in trades with buyers of a market: over real QUIC, with money on a real chain. One program, because what it is
//! linked with takes longer to compile than the tests themselves.

mod bidding;
mod crashes;
mod market;
mod relaying;
mod trades;
