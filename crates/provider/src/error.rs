//! What can go wrong in the provider's room, beyond what a single trade is refused for.

/// Why the provider cannot start, or cannot go on.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The store cannot be opened, read or written. The operator's disk or permissions.
    #[error("the provider's store: {0}")]
    Store(#[from] sqlx::Error),
    /// The same, where it is written.
    #[error("the provider's store: {0}")]
    Write(#[from] rusqlite::Error),
    /// The store was written by a newer version, or its schema was changed by hand.
    #[error("the provider's store has another version: {0}")]
    Migration(#[from] sqlx::migrate::MigrateError),
    /// A row of the store cannot be what this software wrote.
    #[error("the provider's store is corrupt: {0}")]
    Corrupt(&'static str),
    /// An earlier write failed. What is in memory may be ahead of what is stored, so nothing more is sold until the
    /// provider is started again.
    #[error("the provider's store failed earlier; start the provider again once its disk is well")]
    StoreFailed,
    /// The configuration cannot be used. The operator's fault.
    #[error("{0}")]
    Config(String),
    /// The chain. See the inner error for whether to try again.
    #[error(transparent)]
    Chain(#[from] rialto_settlement::Error),
    /// The provider is shutting down.
    #[error("the provider is shutting down")]
    Stopping,
}

impl Error {
    /// Whether the same call may succeed later without anybody changing anything.
    pub fn is_retryable(&self) -> bool {
        match self {
            Self::Chain(error) => error.is_retryable(),
            Self::Store(_)
            | Self::Write(_)
            | Self::Migration(_)
            | Self::Corrupt(_)
            | Self::StoreFailed
            | Self::Config(_)
            | Self::Stopping => false,
        }
    }

    /// What a peer may read: nothing about this machine.
    pub fn public(&self) -> &'static str {
        match self {
            Self::Chain(_) => "the provider cannot reach the chain",
            Self::Stopping => "the provider is shutting down",
            _ => "the provider cannot serve requests now",
        }
    }
}
