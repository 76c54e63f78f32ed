//! Which seller gets a request. One file for each policy.
//!
//! A seller is judged by what it offers ([`Preferences`]) and by what was measured of it here ([`Record`]), never by the
//! speed that it claims. Of those that fit, two are drawn at random and the better one is taken (Mitzenmacher, "The power of
//! two choices in randomized load balancing", 2001): that spreads load nearly as well as the best of all, costs the same
//! for ten sellers and for a hundred thousand, and many gateways that see the same book do not all run to one seller.
//! Where a buyer sorts by one figure, the few best by it are compared instead.

mod balance;
mod candidate;
mod choose;
mod eligible;
mod energy;
mod explain;
mod first_token;
mod pool;
mod preferences;
mod prefix;
mod price;
mod record;
mod standing;
#[cfg(test)]
mod tests;
mod throughput;

pub use choose::{Decision, Wish, choose};
pub(crate) use eligible::{Verdict, judge};
pub(crate) use explain::explain;
pub use pool::{Pool, Seller};
pub use preferences::{Preferences, Sort};
pub use prefix::{Prefixes, Prompt};
pub use record::{Figures, Record, Visit};
pub(crate) use record::{Memory, Records};
pub use standing::{Penalty, Standing};
