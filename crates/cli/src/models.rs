//! Models on this machine.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use rialto_protocol::manifest::{MAX_FILE_BYTES, Manifest};

/// The models that come with Rialto, relative to its `models` folder.
const SHIPPED: [&str; 4] = [
    "shakespeare/manifest-q8_0.toml",
    "shakespeare/manifest-q4_0.toml",
    "breast-cancer/manifest.toml",
    "shakespeare-words/manifest.toml",
];

/// A manifest, and the folder that its paths are relative to.
#[derive(Debug, Clone)]
pub(crate) struct Found {
    /// The file.
    pub(crate) path: PathBuf,
    /// What it says.
    pub(crate) manifest: Manifest,
}

impl Found {
    /// Reads one manifest.
    pub(crate) fn read(path: &Path) -> Result<Self> {
        let name = || format!("the manifest {}", path.display());
        let length = std::fs::metadata(path).with_context(name)?.len();
        anyhow::ensure!(
            usize::try_from(length).is_ok_and(|length| length <= MAX_FILE_BYTES),
            "{} is too long",
            name()
        );
        let text = std::fs::read_to_string(path).with_context(name)?;
        let manifest = Manifest::from_toml(&text).with_context(name)?;
        Ok(Self {
            path: path.to_owned(),
            manifest,
        })
    }

    /// The folder of its files.
    pub(crate) fn folder(&self) -> &Path {
        self.path.parent().unwrap_or_else(|| Path::new("."))
    }
}

/// The named manifests, or those that come with Rialto.
pub(crate) fn find(named: &[PathBuf]) -> Result<Vec<Found>> {
    if !named.is_empty() {
        return named.iter().map(|path| Found::read(path)).collect();
    }
    let Some(folder) = shipped_folder() else {
        bail!(
            "the models that come with Rialto are not here: name one with --model MANIFEST, or set RIALTO_MODELS_DIR"
        );
    };
    SHIPPED
        .iter()
        .map(|relative| Found::read(&folder.join(relative)))
        .collect()
}

/// `RIALTO_MODELS_DIR`, or a `models` folder here, beside the executable, or above it in a source tree.
fn shipped_folder() -> Option<PathBuf> {
    if let Some(folder) = std::env::var_os("RIALTO_MODELS_DIR") {
        return Some(folder.into());
    }
    let executable = std::env::current_exe().ok()?;
    let around = executable
        .ancestors()
        .skip(1)
        .take(4)
        .map(|folder| folder.join("models"));
    let candidates = std::iter::once(PathBuf::from("models")).chain(around);
    candidates
        .into_iter()
        .find(|folder| SHIPPED.iter().all(|relative| folder.join(relative).is_file()))
}
