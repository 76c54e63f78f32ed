//! What can go wrong between two nodes.

/// Why a peer could not be reached or understood.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The local socket could not be opened.
    #[error("cannot listen on {address}: {reason}")]
    Bind {
        /// The address asked for.
        address: std::net::SocketAddr,
        /// What the system said.
        reason: String,
    },
    /// The peer did not answer: try another, or later.
    #[error("the peer cannot be reached: {0}")]
    Unreachable(String),
    /// The connection or stream broke off: what was in flight may be lost.
    #[error("the stream broke off: {0}")]
    Broken(String),
    /// The peer sent something that is not a frame of the protocol: it deserves distrust.
    #[error("the peer broke the protocol: {0}")]
    Protocol(&'static str),
    /// A key or address that is malformed.
    #[error("not a valid peer: {0}")]
    BadPeer(&'static str),
    /// The peer took too long.
    #[error("the peer did not answer in time")]
    Timeout,
}

impl Error {
    /// Whether the same call may succeed on another try or with another peer.
    pub fn is_retryable(&self) -> bool {
        matches!(self, Self::Unreachable(_) | Self::Broken(_) | Self::Timeout)
    }

    /// Whether the peer is to blame.
    pub fn is_peers_fault(&self) -> bool {
        matches!(self, Self::Protocol(_))
    }

    pub(crate) fn broken(error: impl std::fmt::Display) -> Self {
        Self::Broken(error.to_string())
    }
}
