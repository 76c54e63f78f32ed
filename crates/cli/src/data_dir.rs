//! The data directory: everything that a market on this machine keeps, and who may use it now.

use std::{
    fs::{self, File, OpenOptions},
    io::Write,
    os::unix::fs::{DirBuilderExt, OpenOptionsExt},
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context, Result, bail};
use fs4::FileExt;

/// How long the last process of a role may take to end.
pub(crate) const LAST_PROCESS: Duration = Duration::from_secs(20);

/// The data directory. Each role has a folder in it.
#[derive(Debug, Clone)]
pub(crate) struct DataDir {
    root: PathBuf,
}

/// A held lock; it ends with the process, however that ends.
#[derive(Debug)]
pub(crate) struct Lock {
    _file: File,
}

impl DataDir {
    /// The directory, made if it is missing, readable by its owner alone.
    pub(crate) fn open(root: PathBuf) -> Result<Self> {
        let dir = Self { root };
        dir.folder("")?;
        Ok(dir)
    }

    /// The directory itself.
    pub(crate) fn root(&self) -> &Path {
        &self.root
    }

    /// A path in it.
    pub(crate) fn path(&self, relative: &str) -> PathBuf {
        self.root.join(relative)
    }

    /// A folder in it, made if it is missing.
    pub(crate) fn folder(&self, relative: &str) -> Result<PathBuf> {
        let path = self.root.join(relative);
        fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(&path)
            .with_context(|| format!("cannot make the data directory {}", path.display()))?;
        Ok(path)
    }

    /// Takes the lock of a role.
    pub(crate) fn lock(&self, role: &str) -> Result<Lock> {
        let path = self.folder(role)?.join("lock");
        let file = OpenOptions::new()
            .create(true)
            .truncate(false)
            .write(true)
            .mode(0o600)
            .open(&path)?;
        if FileExt::try_lock(&file).is_err() {
            bail!(
                "the data directory {} is in use by another `rialto {role}`: stop that one, or choose another with --data-dir",
                self.root.display()
            );
        }
        Ok(Lock { _file: file })
    }

    /// Takes the lock of a role whose last process may still be ending: its supervisor was killed a moment ago.
    pub(crate) async fn lock_after(&self, role: &str, supervised: bool) -> Result<Lock> {
        let until = tokio::time::Instant::now() + if supervised { LAST_PROCESS } else { Duration::ZERO };
        loop {
            match self.lock(role) {
                Err(_) if tokio::time::Instant::now() < until => tokio::time::sleep(Duration::from_millis(100)).await,
                outcome => return outcome,
            }
        }
    }

    /// The text of a file in it; `None` when there is none.
    pub(crate) fn read(&self, relative: &str) -> Result<Option<String>> {
        match fs::read_to_string(self.path(relative)) {
            Ok(text) => Ok(Some(text)),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error).with_context(|| format!("cannot read {}", self.path(relative).display())),
        }
    }

    /// Writes a file that only the owner may read, whole or not at all.
    pub(crate) fn write(&self, relative: &str, text: &str) -> Result<()> {
        let path = self.path(relative);
        let temporary = path.with_extension("new");
        let write = || -> std::io::Result<()> {
            let mut options = OpenOptions::new();
            let mut file = options
                .create(true)
                .truncate(true)
                .write(true)
                .mode(0o600)
                .open(&temporary)?;
            file.write_all(text.as_bytes())?;
            file.sync_all()?;
            fs::rename(&temporary, &path)
        };
        write().with_context(|| format!("cannot write {}", path.display()))
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn a_second_process_of_the_same_role_is_told_so() {
        let folder = tempfile::tempdir().unwrap();
        let dir = DataDir::open(folder.path().join("market")).unwrap();
        let held = dir.lock("gateway").unwrap();
        assert!(dir.lock("gateway").unwrap_err().to_string().contains("--data-dir"));
        dir.lock("provider").unwrap();
        drop(held);
        dir.lock("gateway").unwrap();
    }

    #[test]
    fn files_are_readable_by_their_owner_alone() {
        let folder = tempfile::tempdir().unwrap();
        let dir = DataDir::open(folder.path().join("market")).unwrap();
        dir.write("secret", "words").unwrap();
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode(&dir.path("secret")), 0o600);
        assert_eq!(mode(dir.root()), 0o700);
        assert_eq!(dir.read("secret").unwrap().as_deref(), Some("words"));
        assert_eq!(dir.read("nothing").unwrap(), None);
    }
}
