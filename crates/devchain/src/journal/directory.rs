//! The data directory, held by one process at a time.

use crate::error::Error;
use std::{
    fs::{self, File, OpenOptions, TryLockError},
    path::{Path, PathBuf},
};

/// A locked data directory. The lock goes with the process, however it ends.
#[derive(Debug)]
pub(crate) struct Directory {
    path: PathBuf,
    /// Never read: held open because the lock lives as long as the file.
    _lock: File,
}

impl Directory {
    /// Makes the directory if needed and takes its lock.
    pub(crate) fn lock(path: &Path) -> Result<Self, Error> {
        fs::create_dir_all(path).map_err(|source| Error::file("create", path, source))?;
        let file = path.join("lock");
        let lock = OpenOptions::new()
            .create(true)
            .truncate(false)
            .write(true)
            .open(&file)
            .map_err(|source| Error::file("open", &file, source))?;
        match lock.try_lock() {
            Ok(()) => Ok(Self {
                path: path.to_owned(),
                _lock: lock,
            }),
            Err(TryLockError::WouldBlock) => Err(Error::DataDirLocked { path: path.to_owned() }),
            Err(TryLockError::Error(source)) => Err(Error::file("lock", file, source)),
        }
    }

    /// Where the journal lives.
    pub(crate) fn journal(&self) -> PathBuf {
        self.path.join("chain.journal")
    }
}
