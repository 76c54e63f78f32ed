//! Engines: what runs a model on a provider's machine. Language models through llama.cpp, predictive models through
//! ONNX Runtime, and a simulated engine for stories and benches.
//!
//! An engine knows nothing of money: it counts units and obeys a grant of units. [`load`] verifies every file of a
//! model against its manifest before an engine sees it.

mod artifact;
mod engine;
mod error;
mod llama;
mod onnx;
mod options;
mod simulated;
mod text;

pub use engine::{Answer, Engine, EngineInfo, Piece, Prepared};
pub use error::{ArtifactFault, Error, Fault, ONNXRUNTIME_HELP};
pub use llama::{LlamaEngine, Work};
pub use onnx::OnnxEngine;
pub use options::LoadOptions;
pub use simulated::{SimulatedConfig, SimulatedEngine};

use std::{path::Path, sync::Arc};

use rialto_protocol::manifest::{Format, Manifest};

/// Verifies a model's files and loads it into the engine that its format asks for. Blocks while it hashes and loads:
/// call it on a thread that may block.
///
/// Fails with [`Error::Artifact`], [`Error::Model`] or [`Error::RuntimeMissing`].
pub fn load(manifest: &Manifest, folder: &Path, options: &LoadOptions) -> Result<Arc<dyn Engine>, Error> {
    manifest.check().map_err(|error| Error::Model(error.to_string()))?;
    match manifest.format {
        Format::Onnx => Ok(Arc::new(OnnxEngine::load(manifest, folder, options)?)),
        Format::Gguf => Ok(Arc::new(LlamaEngine::load(manifest, folder, options)?)),
    }
}
