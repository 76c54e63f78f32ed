//! What can go wrong on a chain, sorted by what the caller should do.

use rialto_protocol::{Address, Digest};

/// Whose money was not enough.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Purse {
    /// The chain's own coin, which pays for gas: fund the account.
    Gas,
    /// The stablecoin in the account: get more of it.
    Token,
    /// The free balance in the escrow: deposit first.
    FreeBalance,
}

impl std::fmt::Display for Purse {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Gas => "the chain's coin for gas",
            Self::Token => "stablecoin in the account",
            Self::FreeBalance => "free balance in the escrow",
        })
    }
}

/// Why an operation on the chain failed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// The node did not answer, and nothing was decided. Retry.
    #[error("the chain is unreachable: {reason}")]
    Unreachable {
        /// What the connection said; without the address, which may hold a password.
        reason: String,
    },
    /// A transaction was or may have been sent, and its outcome is not known in time. Look it up with
    /// [`crate::Chain::outcome`] before doing the same again, unless doing it twice is harmless (as redeeming is).
    /// Until it is decided, the very same call goes on with this transaction instead of sending a second one.
    #[error("the outcome of transaction {transaction} is not known yet")]
    Timeout {
        /// The hash that was issued last; others may have been for the same nonce.
        transaction: Digest,
    },
    /// A contract refused. The same again is refused again, unless the state changes. No money moved but gas.
    #[error("the contract refused: {reason}")]
    Reverted {
        /// The custom error by its name with its fields, or the text that the contract gave.
        reason: String,
    },
    /// Not enough money for it. Nothing was sent.
    #[error("not enough {purse}: {reason}")]
    InsufficientFunds {
        /// Which money.
        purse: Purse,
        /// What the contract or the node said.
        reason: String,
    },
    /// The node itself refused, not a contract. Nothing was sent. Its operator knows why; a retry may help.
    #[error("the node refused: {reason}")]
    Rejected {
        /// The node's code and words, shortened.
        reason: String,
    },
    /// Gas costs more than this wallet may offer. Nothing was sent. Either it is dear now and a retry may help, or the
    /// node lies about it.
    #[error(
        "gas costs {price} wei a unit, and this transaction may offer at most {limit}: wait until it is cheaper, use \
         another node, or raise the limit"
    )]
    TooExpensive {
        /// What a unit of gas costs, in wei.
        price: u128,
        /// What may be offered, in wei.
        limit: u128,
    },
    /// The node's answer cannot be true. Distrust the node.
    #[error("the node's answer makes no sense: {what}")]
    Corrupt {
        /// Which answer.
        what: String,
    },
    /// No contract lives there: wrong address, or the chain was reset.
    #[error("there is no contract at {address}: was the chain reset?")]
    NoContract {
        /// Where one was expected.
        address: Address,
    },
    /// The node serves another chain than the market's.
    #[error("the node serves chain {found}, and the market is on chain {expected}")]
    WrongChain {
        /// The market's chain.
        expected: u64,
        /// The node's.
        found: u64,
    },
    /// The caller asked for what can never be. Nothing was sent.
    #[error("{reason}")]
    Invalid {
        /// What is wrong with it.
        reason: String,
    },
}

impl Error {
    /// Whether the same call may succeed later without anybody changing anything, and is safe to repeat.
    pub fn is_retryable(&self) -> bool {
        matches!(
            self,
            Self::Unreachable { .. } | Self::Rejected { .. } | Self::TooExpensive { .. }
        )
    }

    /// The name of the contract's custom error, such as `ChannelExists`.
    pub fn revert_name(&self) -> Option<&str> {
        let (Self::Reverted { reason } | Self::InsufficientFunds { reason, .. }) = self else {
            return None;
        };
        reason.split(['(', ' ']).next()
    }

    pub(crate) fn corrupt(what: impl Into<String>) -> Self {
        Self::Corrupt { what: what.into() }
    }

    pub(crate) fn invalid(reason: impl Into<String>) -> Self {
        Self::Invalid { reason: reason.into() }
    }
}
