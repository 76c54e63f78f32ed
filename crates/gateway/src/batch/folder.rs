//! The folder of files. A file has its final name only once it is whole and on disk.

use std::{
    collections::HashSet,
    io,
    path::{Path, PathBuf},
    time::Duration,
};

use tokio::{
    fs::{self, File, OpenOptions},
    io::{AsyncReadExt as _, AsyncSeekExt as _, SeekFrom},
};

use crate::Error;

/// The end of the name of a file that is being uploaded.
const PART: &str = ".part";

/// The folder, which only its owner may read.
#[derive(Debug, Clone)]
pub(crate) struct Folder(PathBuf);

fn failed(error: io::Error) -> Error {
    Error::Files(error.to_string())
}

/// How files are made: readable by their owner alone.
fn options() -> OpenOptions {
    let mut options = OpenOptions::new();
    options.read(true).write(true).create(true);
    #[cfg(unix)]
    options.mode(0o600);
    options
}

impl Folder {
    /// Opens it, and creates it when it does not exist.
    pub(crate) async fn open(path: &Path) -> Result<Self, Error> {
        let mut builder = fs::DirBuilder::new();
        builder.recursive(true);
        #[cfg(unix)]
        builder.mode(0o700);
        builder.create(path).await.map_err(failed)?;
        Ok(Self(path.to_owned()))
    }

    /// Ids are made by the gateway; nothing else may become a path.
    fn path(&self, id: &str) -> Result<PathBuf, Error> {
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_';
        if id.is_empty() || !id.bytes().all(plain) {
            return Err(Error::Files("an id that cannot be a file's name".into()));
        }
        Ok(self.0.join(id))
    }

    fn part(&self, id: &str) -> Result<PathBuf, Error> {
        let mut path = self.path(id)?.into_os_string();
        path.push(PART);
        Ok(path.into())
    }

    /// A new file that is not yet whole.
    pub(crate) async fn begin(&self, id: &str) -> Result<File, Error> {
        options().truncate(true).open(self.part(id)?).await.map_err(failed)
    }

    /// Gives a whole file its name.
    pub(crate) async fn keep(&self, id: &str, file: File) -> Result<(), Error> {
        file.sync_all().await.map_err(failed)?;
        fs::rename(self.part(id)?, self.path(id)?).await.map_err(failed)?;
        self.sync().await
    }

    /// Gives up a file that did not become whole.
    pub(crate) async fn give_up(&self, id: &str) {
        if let Ok(path) = self.part(id) {
            let _ = fs::remove_file(path).await;
        }
    }

    /// A whole file, for reading.
    pub(crate) async fn read(&self, id: &str) -> Result<File, Error> {
        File::open(self.path(id)?).await.map_err(failed)
    }

    /// A part of a whole file.
    pub(crate) async fn read_part(&self, id: &str, offset: u64, length: u64) -> Result<Vec<u8>, Error> {
        let mut file = self.read(id).await?;
        file.seek(SeekFrom::Start(offset)).await.map_err(failed)?;
        let mut bytes = Vec::new();
        file.take(length).read_to_end(&mut bytes).await.map_err(failed)?;
        if u64::try_from(bytes.len()) != Ok(length) {
            return Err(Error::Files("a file is shorter than it was".into()));
        }
        Ok(bytes)
    }

    /// A file that is written over days, cut to what is known to be in it.
    pub(crate) async fn resume(&self, id: &str, length: u64) -> Result<File, Error> {
        let mut file = options().truncate(false).open(self.path(id)?).await.map_err(failed)?;
        let has = file.metadata().await.map_err(failed)?.len();
        if has < length {
            return Err(Error::Files("an output is shorter than it was".into()));
        }
        file.set_len(length).await.map_err(failed)?;
        file.seek(SeekFrom::End(0)).await.map_err(failed)?;
        self.sync().await?;
        Ok(file)
    }

    /// Removes a file. One that is not there is no error.
    pub(crate) async fn remove(&self, id: &str) {
        if let Ok(path) = self.path(id)
            && let Err(error) = fs::remove_file(path).await
            && error.kind() != io::ErrorKind::NotFound
        {
            tracing::warn!(%error, "a file could not be removed; it is tried again later");
        }
    }

    /// Removes files that are at least so old and not among the known.
    pub(crate) async fn sweep(&self, known: &HashSet<String>, age: Duration) {
        let Ok(mut entries) = fs::read_dir(&self.0).await else {
            return;
        };
        while let Ok(Some(entry)) = entries.next_entry().await {
            let name = entry.file_name();
            if name.to_str().is_some_and(|name| known.contains(name)) {
                continue;
            }
            let modified = entry.metadata().await.and_then(|data| data.modified());
            let old = modified.is_ok_and(|time| time.elapsed().unwrap_or_default() >= age);
            if old {
                let _ = fs::remove_file(entry.path()).await;
            }
        }
    }

    /// Has the names of files written to disk; a system that cannot does it in its own time.
    async fn sync(&self) -> Result<(), Error> {
        if let Ok(folder) = File::open(&self.0).await {
            let _ = folder.sync_all().await;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::AsyncWriteExt as _;

    use super::*;

    #[tokio::test]
    async fn a_file_is_there_once_it_is_whole_and_only_its_owner_reads_it() {
        let root = tempfile::tempdir().unwrap();
        let folder = Folder::open(&root.path().join("files")).await.unwrap();
        let mut file = folder.begin("file-1").await.unwrap();
        file.write_all(b"0123456789").await.unwrap();
        assert!(folder.read("file-1").await.is_err());
        folder.keep("file-1", file).await.unwrap();
        assert_eq!(folder.read_part("file-1", 3, 4).await.unwrap(), b"3456");
        assert!(folder.read_part("file-1", 8, 4).await.is_err());
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt as _;
            let mode = |path: &Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
            assert_eq!(mode(&root.path().join("files/file-1")), 0o600);
            assert_eq!(mode(&root.path().join("files")), 0o700);
        }
        for bad in ["", "..", "../x", "a/b", "a.part", "é"] {
            assert!(folder.begin(bad).await.is_err(), "{bad}");
        }
        let mut file = folder.begin("file-2").await.unwrap();
        file.write_all(b"x").await.unwrap();
        folder
            .sweep(&HashSet::from(["file-1".to_owned()]), Duration::ZERO)
            .await;
        assert!(folder.keep("file-2", file).await.is_err(), "a left-over is swept away");
        assert!(folder.read("file-1").await.is_ok());
    }

    #[tokio::test]
    async fn what_was_written_after_the_last_mark_is_cut_off() {
        let root = tempfile::tempdir().unwrap();
        let folder = Folder::open(root.path()).await.unwrap();
        let mut file = folder.resume("out", 0).await.unwrap();
        file.write_all(b"one\ntw").await.unwrap();
        file.sync_all().await.unwrap();
        drop(file);
        let mut file = folder.resume("out", 4).await.unwrap();
        file.write_all(b"two\n").await.unwrap();
        file.sync_all().await.unwrap();
        assert_eq!(folder.read_part("out", 0, 8).await.unwrap(), b"one\ntwo\n");
        assert!(folder.resume("out", 9).await.is_err());
    }
}
