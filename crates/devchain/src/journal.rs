//! The journal: the file that a chain is rebuilt from.
//!
//! One file, appended to and never changed in place. Each change of the chain is one framed, checksummed record,
//! on disk (`fdatasync`) before the client hears of it. Records hold results, not only inputs, so that a start
//! runs no EVM and recovers no signatures: thousands of blocks load in a fraction of a second.
//!
//! A record that a crash cut short can only be the last one and was never acknowledged: it is cut off and
//! reported. Damage that is followed by intact records is an error, because acknowledged blocks would be missing.

mod directory;
mod frame;
mod reader;

pub(crate) use directory::Directory;

use crate::error::Error;
use std::{
    fs::{File, OpenOptions},
    io::{self, Seek, SeekFrom, Write},
    path::{Path, PathBuf},
};

/// Begins every journal.
const MAGIC: [u8; 8] = *b"RIALTODC";
/// The layout this code reads and writes.
const VERSION: u32 = 1;
/// Magic, version and chain id.
const HEADER_LENGTH: usize = 20;

/// What a crash left behind at the end of the journal and was cut off at start.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TornTail {
    /// Where the intact part ends, in bytes from the start of the file.
    pub offset: u64,
    /// How many bytes were cut off.
    pub length: u64,
}

/// An open journal, positioned at its end.
#[derive(Debug)]
pub(crate) struct Journal {
    file: File,
    path: PathBuf,
    /// Bytes of intact records.
    length: u64,
    /// The number of the next record.
    sequence: u64,
    /// The first failure after which nothing may be written any more.
    closed: Option<String>,
}

/// A journal's records as read at start.
#[derive(Debug)]
pub(crate) struct Opened {
    pub(crate) journal: Journal,
    /// Payloads in order. The first offset is where the record begins, for messages.
    pub(crate) records: Vec<(u64, Vec<u8>)>,
    pub(crate) torn: Option<TornTail>,
}

impl Journal {
    /// Writes a new journal holding `records` beside `path` and moves it there in one step, so that no reader
    /// ever sees half of it. An older journal at `path` is replaced.
    pub(crate) fn create<'r>(
        path: &Path,
        chain_id: u64,
        records: impl Iterator<Item = Vec<u8>> + 'r,
    ) -> Result<Self, Error> {
        let temporary = path.with_extension("new");
        let failed = |source| Error::file("write", &temporary, source);
        let mut file = File::create(&temporary).map_err(failed)?;
        let mut bytes = header(chain_id).to_vec();
        let mut sequence = 0u64;
        for record in records {
            frame::encode(sequence, &record, &mut bytes).map_err(failed)?;
            sequence += 1;
            if bytes.len() > 1 << 20 {
                file.write_all(&bytes).map_err(failed)?;
                bytes.clear();
            }
        }
        file.write_all(&bytes).map_err(failed)?;
        file.sync_all().map_err(failed)?;
        let length = file.stream_position().map_err(failed)?;
        std::fs::rename(&temporary, path).map_err(|source| Error::file("replace", path, source))?;
        sync_directory(path)?;
        Ok(Self {
            file,
            path: path.to_owned(),
            length,
            sequence,
            closed: None,
        })
    }

    /// Opens the journal at `path` and reads it; `None` when there is none.
    pub(crate) fn open(path: &Path, chain_id: u64) -> Result<Option<Opened>, Error> {
        let mut file = match OpenOptions::new().read(true).write(true).open(path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(source) => return Err(Error::file("open", path, source)),
        };
        let contents = reader::read(&mut file, path, chain_id)?;
        if let Some(torn) = contents.torn {
            tracing::warn!(
                offset = torn.offset,
                bytes = torn.length,
                "journal had a torn tail, cut off"
            );
            file.set_len(torn.offset)
                .map_err(|source| Error::file("truncate", path, source))?;
            file.sync_all().map_err(|source| Error::file("sync", path, source))?;
        }
        file.seek(SeekFrom::Start(contents.length))
            .map_err(|source| Error::file("read", path, source))?;
        let journal = Self {
            file,
            path: path.to_owned(),
            length: contents.length,
            sequence: u64::try_from(contents.records.len()).unwrap_or(u64::MAX),
            closed: None,
        };
        Ok(Some(Opened {
            journal,
            records: contents.records,
            torn: contents.torn,
        }))
    }

    /// Appends records in one write and waits until they are on disk.
    ///
    /// # Errors
    /// After a failure the file is cut back to its intact part. If even that fails the journal is closed: every
    /// later call fails, so that nothing is acknowledged behind damaged bytes.
    pub(crate) fn append(&mut self, records: &[Vec<u8>]) -> Result<(), Error> {
        if let Some(reason) = &self.closed {
            return Err(Error::JournalClosed { reason: reason.clone() });
        }
        let mut bytes = Vec::new();
        let mut sequence = self.sequence;
        for record in records {
            frame::encode(sequence, record, &mut bytes).map_err(|source| Error::file("write", &self.path, source))?;
            sequence += 1;
        }
        if let Err(source) = self.file.write_all(&bytes).and_then(|()| self.file.sync_data()) {
            self.cut_back(&source);
            return Err(Error::file("write", &self.path, source));
        }
        self.length += u64::try_from(bytes.len()).unwrap_or(u64::MAX);
        self.sequence = sequence;
        Ok(())
    }

    fn cut_back(&mut self, cause: &io::Error) {
        let length = self.length;
        let cut = self
            .file
            .set_len(length)
            .and_then(|()| self.file.seek(SeekFrom::Start(length)));
        if let Err(error) = cut.and_then(|_| self.file.sync_data()) {
            let reason = format!("{cause}; then {error}");
            tracing::error!(%reason, "journal closed, the chain accepts no more blocks");
            self.closed = Some(reason);
        }
    }
}

/// Makes a rename durable: the directory entry is data of the directory.
fn sync_directory(path: &Path) -> Result<(), Error> {
    let Some(parent) = path.parent() else { return Ok(()) };
    File::open(parent)
        .and_then(|directory| directory.sync_all())
        .map_err(|source| Error::file("sync", parent, source))
}

fn header(chain_id: u64) -> [u8; HEADER_LENGTH] {
    let mut header = [0u8; HEADER_LENGTH];
    let (magic, rest) = header.split_at_mut(8);
    let (version, chain) = rest.split_at_mut(4);
    magic.copy_from_slice(&MAGIC);
    version.copy_from_slice(&VERSION.to_le_bytes());
    chain.copy_from_slice(&chain_id.to_le_bytes());
    header
}
