//! What the bench of routers is made of: a model's server that costs little, the contestants as processes of their own,
//! the load, and what the kernel says that they spent.

mod bare;
mod load;
mod processes;
mod start;
mod upstream;

pub use bare::pass_on;
pub use load::{Load, Measured, Target};
pub use processes::{Tree, percentile};
pub use start::{Contestant, Part, Upstream};
pub use upstream::serve;

/// What every contestant calls the model.
pub const MODEL: &str = "simulated";
/// What clients of our gateway call it when they mean the owner's own server.
pub const OWN: &str = "simulated-own";
