//! How much memory a worker may have: what its model needs, counted generously, so that only a fault or an attack meets
//! the limit.

use rialto_protocol::manifest::{Format, Manifest};

use crate::{Error, LoadOptions, artifact::VerifiedFile, files};

/// The program, its libraries, its threads' stacks, and buffers of computation.
const BASE: u64 = 2 << 30;

/// Address space for a worker, in bytes.
pub(super) fn needed(manifest: &Manifest, verified: &[VerifiedFile], options: &LoadOptions) -> Result<u64, Error> {
    if let Some(memory) = options.memory {
        return Ok(memory);
    }
    let size: u64 = manifest.artifacts.iter().map(|artifact| artifact.size).sum();
    let held = match manifest.format {
        // Mapped once, and once more where kernels want another layout.
        Format::Gguf => size
            .saturating_mul(2)
            .saturating_add(context(manifest, verified, options)?),
        // Each session has weights of its own while it is made: the file, the graph, and the optimised graph.
        Format::Onnx | Format::Safetensors => size.saturating_mul(3).saturating_mul(u64::from(options.slot_count())),
    };
    Ok(BASE.saturating_add(held))
}

/// Keys and values of every slot's context, twice.
fn context(manifest: &Manifest, verified: &[VerifiedFile], options: &LoadOptions) -> Result<u64, Error> {
    let Some(file) = verified.first() else { return Ok(0) };
    let tokens = options
        .context
        .map_or(manifest.context_length, u64::from)
        .min(manifest.context_length);
    let token = files::kv_bytes_per_token(&file.path)?;
    Ok(token
        .saturating_mul(tokens.saturating_add(512))
        .saturating_mul(u64::from(options.slot_count()).saturating_add(1))
        .saturating_mul(2))
}
