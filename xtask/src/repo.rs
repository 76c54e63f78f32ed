//! The repository as the rules see it: its tracked files, read once.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, bail};

/// A tracked file.
#[derive(Debug, Clone)]
pub(crate) struct File {
    /// Size in bytes.
    pub(crate) size: u64,
    /// The text, when the file is UTF-8 and of a size that a person could have written.
    pub(crate) text: Option<String>,
}

/// Every tracked file by its path from the top, with `/` between parts.
#[derive(Debug, Clone)]
pub(crate) struct Repo {
    /// Absolute path of the checkout.
    pub(crate) top: PathBuf,
    /// The tracked files that exist in the checkout.
    pub(crate) files: BTreeMap<String, File>,
}

/// A larger file is data: it is measured, not read.
const LARGEST_TEXT: u64 = 2 * 1024 * 1024;

impl Repo {
    /// Reads what git tracks in the repository that the current directory belongs to.
    pub(crate) fn open() -> Result<Self> {
        let top = PathBuf::from(git(Path::new("."), &["rev-parse", "--show-toplevel"])?.trim_end());
        let listed = git(&top, &["ls-files", "-z", "--cached"])?;
        let mut files = BTreeMap::new();
        for path in listed.split('\0').filter(|path| !path.is_empty()) {
            // A tracked file may be deleted in the checkout and not yet in the index.
            if let Some(file) = read(&top.join(path))? {
                files.insert(path.to_owned(), file);
            }
        }
        Ok(Self { top, files })
    }

    /// Paths and texts of the tracked files that are text.
    pub(crate) fn texts(&self) -> impl Iterator<Item = (&str, &str)> {
        self.files
            .iter()
            .filter_map(|(path, file)| Some((path.as_str(), file.text.as_deref()?)))
    }

    /// The text of one tracked file.
    pub(crate) fn text(&self, path: &str) -> Option<&str> {
        self.files.get(path)?.text.as_deref()
    }

    /// True when a tracked file has this path or lies under it.
    pub(crate) fn has(&self, path: &str) -> bool {
        let path = path.trim_end_matches('/');
        let folder = format!("{path}/");
        self.files.contains_key(path)
            || self
                .files
                .range(folder.clone()..)
                .next()
                .is_some_and(|(key, _)| key.starts_with(&folder))
    }
}

fn read(path: &Path) -> Result<Option<File>> {
    let Ok(meta) = std::fs::symlink_metadata(path) else {
        return Ok(None);
    };
    if !meta.is_file() {
        return Ok(Some(File {
            size: meta.len(),
            text: None,
        }));
    }
    let text = if meta.len() <= LARGEST_TEXT {
        let bytes = std::fs::read(path).with_context(|| format!("cannot read {}", path.display()))?;
        String::from_utf8(bytes).ok().filter(|text| !text.contains('\0'))
    } else {
        None
    };
    Ok(Some(File { size: meta.len(), text }))
}

fn git(directory: &Path, arguments: &[&str]) -> Result<String> {
    let output = Command::new("git")
        .arg("-C")
        .arg(directory)
        .args(arguments)
        .output()
        .context("cannot run git")?;
    if !output.status.success() {
        bail!(
            "git {}: {}",
            arguments.join(" "),
            String::from_utf8_lossy(&output.stderr).trim()
        );
    }
    String::from_utf8(output.stdout).context("git printed a path that is not UTF-8")
}

#[cfg(test)]
impl Repo {
    /// A repository made of these paths and texts, for the tests of the rules.
    pub(crate) fn of(files: &[(&str, &str)]) -> Self {
        let files = files
            .iter()
            .map(|(path, text)| {
                (
                    (*path).to_owned(),
                    File {
                        size: text.len() as u64,
                        text: Some((*text).to_owned()),
                    },
                )
            })
            .collect();
        Self {
            top: PathBuf::from("/nowhere/rialto"),
            files,
        }
    }
}
