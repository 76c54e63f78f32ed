//! How nodes reach each other: iroh endpoints dialled by key, one QUIC stream a request, bounded frames.
//!
//! Nothing else in the workspace knows iroh. Without a relay in its configuration a node contacts nobody but the peers
//! that it is told to dial: no relay, no lookup service, no port mapping.

mod connections;
mod error;
mod frame;
mod incoming;
mod node;

pub use error::Error;
pub use frame::{Frame, FrameReceiver, FrameSender, Trade};
pub use incoming::{Incoming, OffersCall};
pub use node::{Node, NodeConfig};
