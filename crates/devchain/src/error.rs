//! What can go wrong while a chain starts, keeps its journal, or stops.

use std::{io, net::SocketAddr, path::PathBuf};

/// Why the development chain could not start or go on.
///
/// None of these is the fault of a JSON-RPC client: a client's mistakes are answered over JSON-RPC and never
/// reach the owner of the process. [`Error::is_retryable`] says which of them may pass by themselves.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// Another process listens on the address.
    #[error("address in use: {address}: stop the other process, or choose another port (port 0 takes a free one)")]
    AddressInUse {
        /// The address asked for.
        address: SocketAddr,
    },

    /// The address could not be bound for another reason than being taken.
    #[error("cannot listen on {address}: {source}")]
    Listen {
        /// The address asked for.
        address: SocketAddr,
        /// What the operating system said.
        source: io::Error,
    },

    /// Another process holds the data directory.
    #[error(
        "data directory locked: {}: another development chain uses it; stop that one or choose another directory",
        path.display()
    )]
    DataDirLocked {
        /// The directory asked for.
        path: PathBuf,
    },

    /// A file of the data directory could not be read or written.
    #[error("cannot {action} {}: {source}", path.display())]
    File {
        /// The verb that failed, for the message.
        action: &'static str,
        /// The file or directory.
        path: PathBuf,
        /// What the operating system said.
        source: io::Error,
    },

    /// The journal is damaged before its last record, so blocks that were acknowledged cannot be read.
    #[error(
        "journal corrupted at byte {offset} of {}: {reason}; restore the file from a copy, or remove the data \
         directory to begin a new chain",
        path.display()
    )]
    JournalCorrupted {
        /// The journal's path.
        path: PathBuf,
        /// Where the first unreadable record begins.
        offset: u64,
        /// What is wrong with it.
        reason: String,
    },

    /// The data directory belongs to a chain with another id.
    #[error("data directory holds chain {found}, but chain {expected} was asked for: use another directory")]
    ChainIdMismatch {
        /// The id in the journal.
        found: u64,
        /// The id in the configuration.
        expected: u64,
    },

    /// The journal could not be written any more; the chain answers reads and refuses writes.
    #[error("journal cannot be written, so the chain accepts no more blocks: {reason}")]
    JournalClosed {
        /// The first failure.
        reason: String,
    },

    /// The server task ended without being asked to.
    #[error("server stopped: {0}")]
    Server(String),
}

impl Error {
    /// Whether the same call may succeed later without anybody changing the configuration.
    pub fn is_retryable(&self) -> bool {
        matches!(self, Self::AddressInUse { .. } | Self::DataDirLocked { .. })
    }

    pub(crate) fn file(action: &'static str, path: impl Into<PathBuf>, source: io::Error) -> Self {
        Self::File {
            action,
            path: path.into(),
            source,
        }
    }
}
