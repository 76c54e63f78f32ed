//! What an API key may use in a stretch of time.
//!
//! Tokens and money are counted in the store, in the transaction that reserves them, so that neither a crash nor another
//! process loses count ([`crate::store`] keeps the buckets, [`window`] decides). Requests, which cost nothing by themselves,
//! are counted at the door and in memory ([`Turnstile`]).

mod door;
mod said;
#[cfg(test)]
mod tests;
mod window;

pub(crate) use door::{Entered, Turnstile};
use rialto_protocol::{MicroDollars, NanoDollars};
pub(crate) use said::headers;
use serde::{Deserialize, Serialize};
pub(crate) use window::{Bucket, DAY, MINUTE, Span, State, check};

/// The most that an API key may use; `None` is no limit.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Limits {
    /// Requests that begin within a minute.
    pub requests_a_minute: Option<u64>,
    /// Requests under way at one time.
    pub at_a_time: Option<u64>,
    /// Units of input and output within a minute.
    pub tokens_a_minute: Option<u64>,
    /// Units of input and output within a day.
    pub tokens_a_day: Option<u64>,
    /// Money within a minute.
    pub dollars_a_minute: Option<MicroDollars>,
    /// Money within a day.
    pub dollars_a_day: Option<MicroDollars>,
}

impl Limits {
    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// Those of tokens and of money.
    fn meters(&self) -> impl Iterator<Item = Meter> {
        let tokens = |name, span, most: Option<u64>| {
            most.map(|most| Meter {
                name,
                span,
                most: most.into(),
                of: |used| used.tokens.into(),
                show: |amount| amount.to_string(),
            })
        };
        let dollars = |name, span, most: Option<MicroDollars>| {
            most.map(|most| Meter {
                name,
                span,
                most: most.to_nano().0,
                of: |used| used.cost.0,
                show: |amount| NanoDollars(amount).to_string(),
            })
        };
        [
            tokens("tokens a minute", MINUTE, self.tokens_a_minute),
            tokens("tokens a day", DAY, self.tokens_a_day),
            dollars("a minute", MINUTE, self.dollars_a_minute),
            dollars("a day", DAY, self.dollars_a_day),
        ]
        .into_iter()
        .flatten()
    }
}

/// One limit of something that is counted.
struct Meter {
    /// What follows the amount in a sentence.
    name: &'static str,
    span: Span,
    most: u128,
    of: fn(Use) -> u128,
    show: fn(u128) -> String,
}

/// What is counted.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Use {
    /// Units of input and output.
    pub(crate) tokens: u64,
    pub(crate) cost: NanoDollars,
}

impl Use {
    fn plus(self, other: Self) -> Self {
        Self {
            tokens: self.tokens.saturating_add(other.tokens),
            cost: self.cost.plus(other.cost),
        }
    }
}

/// Which limit a request does not fit into.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reached {
    /// Such as `tokens a minute`.
    pub limit: &'static str,
    /// How much that is.
    pub most: String,
    /// What is used, or reserved by requests under way.
    pub used: String,
    /// What the request may use.
    pub wanted: String,
    /// When there will be room, as far as that is known: requests under way may use less than they reserve. `None` where the
    /// request is larger than the limit itself.
    pub retry_ms: Option<u64>,
}

impl std::fmt::Display for Reached {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self {
            limit,
            most,
            used,
            wanted,
            ..
        } = self;
        write!(
            f,
            "the limit is {most} {limit}; {used} are used or reserved, and this request may use {wanted}"
        )
    }
}
