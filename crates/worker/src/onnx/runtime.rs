//! Finding and loading ONNX Runtime's shared object.
//!
//! The `ort` crate panics when it is used before the object is loaded, so it is loaded here, with the path checked
//! first, and nothing else of `ort` is called before.

use std::{
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
};

use ort::{environment::Environment, logging::LogLevel};

use rialto_engine::Error;

/// The variable that names the shared object.
const VARIABLE: &str = "ORT_DYLIB_PATH";

/// One environment for each process, which ONNX Runtime demands.
static ENVIRONMENT: Mutex<Option<Environment>> = Mutex::new(None);

/// The process's environment; made on the first call that finds the shared object.
pub fn environment(configured: Option<&Path>) -> Result<Environment, Error> {
    let mut slot = ENVIRONMENT.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(environment) = slot.as_ref() {
        return Ok(environment.clone());
    }
    let variable = std::env::var_os(VARIABLE).filter(|value| !value.is_empty());
    let library = find(configured, variable.map(PathBuf::from).as_deref(), &beside_executable())?;
    let missing = |reason: String| Error::RuntimeMissing {
        reason,
        looked: vec![library.clone()],
    };
    let builder = ort::init_from(&library).map_err(|error| missing(error.to_string()))?;
    let environment = builder
        .with_name("rialto")
        .with_telemetry(false)
        .with_logger(Arc::new(log))
        .build()
        .map_err(|error| missing(error.to_string()))?;
    tracing::info!(library = %library.display(), "onnx runtime loaded");
    Ok(slot.insert(environment).clone())
}

/// The first of these that exists. A path that somebody set must exist: falling back would hide the mistake.
fn find(configured: Option<&Path>, variable: Option<&Path>, usual: &[PathBuf]) -> Result<PathBuf, Error> {
    let (reason, looked) = match (configured, variable) {
        (Some(path), _) => ("the configured ONNX Runtime is not there", vec![path.to_owned()]),
        (None, Some(path)) => ("ORT_DYLIB_PATH names no file", vec![path.to_owned()]),
        (None, None) => ("ONNX Runtime was not found", usual.to_vec()),
    };
    let found = looked.iter().find(|path| path.is_file());
    match found.map(std::path::absolute) {
        Some(Ok(path)) => Ok(path),
        _ => Err(Error::RuntimeMissing {
            reason: reason.to_owned(),
            looked,
        }),
    }
}

/// Beside the program, and where the build's set-up puts it.
fn beside_executable() -> Vec<PathBuf> {
    let name = format!(
        "{}onnxruntime{}",
        std::env::consts::DLL_PREFIX,
        std::env::consts::DLL_SUFFIX
    );
    let folder = std::env::current_exe()
        .ok()
        .and_then(|program| program.parent().map(Path::to_owned));
    folder.map_or_else(Vec::new, |folder| {
        vec![folder.join(&name), folder.join("../onnxruntime").join(&name)]
    })
}

/// ONNX Runtime's own log goes to ours, one level quieter: what it warns about does not concern who runs a market.
fn log(level: LogLevel, category: &str, _id: &str, place: &str, message: &str) {
    match level {
        LogLevel::Fatal | LogLevel::Error => tracing::warn!(category, place, message, "onnx runtime"),
        LogLevel::Warning => tracing::debug!(category, place, message, "onnx runtime"),
        LogLevel::Info | LogLevel::Verbose => tracing::trace!(category, place, message, "onnx runtime"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_set_is_used_or_complained_about_and_the_help_is_in_the_message() {
        let folder = tempfile::tempdir().unwrap();
        let there = folder.path().join("there.so");
        let missing = folder.path().join("missing.so");
        std::fs::write(&there, b"").unwrap();

        assert_eq!(find(Some(&there), Some(&missing), &[]).unwrap(), there);
        assert_eq!(find(None, Some(&there), &[]).unwrap(), there);
        assert_eq!(find(None, None, &[missing.clone(), there.clone()]).unwrap(), there);
        for error in [
            find(Some(&missing), Some(&there), std::slice::from_ref(&there)).unwrap_err(),
            find(None, Some(&missing), std::slice::from_ref(&there)).unwrap_err(),
            find(None, None, std::slice::from_ref(&missing)).unwrap_err(),
        ] {
            let message = error.to_string();
            assert!(message.contains("missing.so") && message.contains("wheel"), "{message}");
        }
    }
}
