//! The seller's machine: what it is ([`Hardware`]), what its work draws ([`Meter`]), and what a unit of that work must
//! cost at least ([`price`]).
//!
//! Everything that a kernel tells is read below a [`Root`], so that a laptop's or a server's files can be looked at on
//! any machine. Nothing here needs a permission that a seller's program would not have anyway: what cannot be read is
//! said, with the way to mend it, and estimated.

mod energy;
#[cfg(test)]
mod fixture;
mod hardware;
pub mod price;
mod root;

pub use energy::{CpuReadout, Energy, Meter, Obstacle, Rate, Used};
pub use hardware::{Cpu, CpuClass, Gpu, Hardware, Memory, Sandbox, Vendor};
pub use root::Root;
