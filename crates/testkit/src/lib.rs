//! Whole markets for stories and benches. Never part of a release.
//!
//! [`process`] runs the `rialto` program as users do, and kills it as power cuts do. [`market`] builds all rooms in one
//! process with simulated engines. [`money`] checks on chain that nothing was lost.

use std::time::Duration;

/// How long anything is waited for that must happen. Only a hang takes so long, also on a machine that does other things too
/// or writes slowly: no test measures anything by it, and a wait for an event has no other end.
pub const PATIENCE: Duration = Duration::from_secs(180);

pub mod client;
pub mod market;
pub mod money;
pub mod process;
