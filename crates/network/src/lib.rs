//! How nodes reach each other: iroh endpoints dialled by key, one QUIC stream a request, bounded frames.
//!
//! Nothing else in the workspace knows iroh. A node contacts nobody but the peers that it is told to dial and the relay in
//! its configuration: no other relay, no lookup service, no port mapping.

mod connections;
mod error;
mod frame;
mod incoming;
mod neighbours;
mod node;
mod rate;
mod relay;
mod way;

pub use error::Error;
pub use frame::{Frame, FrameReceiver, FrameSender, Trade};
pub use incoming::{Incoming, OffersCall};
pub use neighbours::Neighbours;
pub use node::{Node, NodeConfig};
pub use rate::{Rate, Rates};
pub use relay::{Relay, RelayConfig};
