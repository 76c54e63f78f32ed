//! Stories of a whole market: real processes, real QUIC, real chains. Each starts a market of its own in a temporary
//! folder and reads like what a user does.

mod bad_input;
mod batches;
mod bill;
mod crowd;
mod gasless;
mod kills;
mod lives;
mod sellers;
mod settlement;
mod silence;
mod upstream;
