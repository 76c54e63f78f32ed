//! Engines: what runs a model for a provider. Language and predictive models run in a worker, a sandboxed process of their
//! own for each model; any OpenAI-compatible server can be an engine too; and a simulated engine serves stories and benches.
//!
//! An engine knows nothing of money: it counts units and obeys a grant of units. No library that computes with tensors is
//! linked here: what parses and runs a stranger's file is the program `rialto-worker`, and this room is its host.
//! [`load`] verifies every file of a model against its manifest, and checks its structure, before an engine sees it.

pub mod artifact;
pub mod border;
mod engine;
mod error;
pub mod files;
mod options;
mod places;
mod sandbox;
mod signature;
mod simulated;
mod text;
mod upstream;

pub use engine::{Answer, Ending, Engine, EngineInfo, Piece, Prepared, Replay, Scope, is_told};
pub use error::{ArtifactFault, Error, Fault, ONNXRUNTIME_HELP};
pub use options::{LoadOptions, Mode};
pub use sandbox::{Sandboxed, load, worker_program};
pub use signature::Signature;
pub use simulated::{SimulatedConfig, SimulatedEngine};
pub use text::{Added, TextStream};
#[doc(hidden)]
pub use upstream::read_stream as read_upstream_stream;
pub use upstream::{ApiKey, Kind as UpstreamKind, Suspicions, UpstreamConfig, UpstreamEngine, server_root};
