//! Whole markets for stories and benches. Never part of a release.
//!
//! [`process`] runs the `rialto` program as users do, and kills it as power cuts do. [`market`] builds all rooms in one
//! process with simulated engines. [`money`] checks on chain that nothing was lost.

pub mod client;
pub mod market;
pub mod money;
pub mod process;
