//! The buyer's room: an OpenAI client on one side, the market on the other.
//!
//! A request is read and authenticated ([`http`]), its seller is chosen from the book of live offers ([`book`],
//! [`routing`]), it is paid for chunk by chunk from a channel ([`paying`]) while the answer arrives ([`trade`]), and its
//! receipt is checked and kept ([`store`]). What the owner's own servers run is asked of them, without a market ([`own`]).

mod batch;
mod book;
mod buying;
mod config;
mod desk;
mod error;
mod gateway;
mod http;
mod limits;
mod metrics;
mod own;
mod paying;
pub mod routing;
pub mod store;
mod trade;

pub use batch::BatchPolicy;
pub use book::{Book, Listing};
pub use config::{Config, ConnectionLimits, Gas};
pub use error::{Error, PublicError};
pub use gateway::{Gateway, Parts};
pub use limits::{Limits, Reached};
pub use own::OwnServer;
pub use store::Store;
