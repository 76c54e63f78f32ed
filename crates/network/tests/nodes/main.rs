//! Nodes over real sockets on this machine.

mod relay;
mod two_nodes;
