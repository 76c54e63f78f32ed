//! How much was used, and what it cost.

use serde::{Deserialize, Serialize};

/// Units of one answer, with what they cost.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Usage {
    /// Units of input.
    pub prompt_tokens: u64,
    /// Units of output; absent for embeddings.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub completion_tokens: Option<u64>,
    /// Both.
    pub total_tokens: u64,
    /// Dollars, for display; `trade.cost_nanodollars` is exact.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cost: Option<f64>,
    /// Where it was bought.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trade: Option<Trade>,
}

/// Where an answer was bought: enough to find its receipt.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Trade {
    /// The provider's account.
    pub provider: String,
    /// The channel that paid.
    pub channel: String,
    /// The number of the receipt in the channel; absent when none came.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub receipt: Option<u64>,
    /// Billionths of a dollar, in decimal: what the whole answer cost.
    pub cost_nanodollars: String,
    /// What it would have cost at the list price that the gateway's owner set, if there is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub list_nanodollars: Option<String>,
    /// Who gave which part, where a seller broke off and another went on.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub parts: Vec<TradePart>,
}

/// One seller's part of an answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TradePart {
    /// The provider's account.
    pub provider: String,
    /// The channel that paid.
    pub channel: String,
    /// The number of the receipt in the channel; absent when it comes later.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub receipt: Option<u64>,
    /// Billionths of a dollar, in decimal.
    pub cost_nanodollars: String,
}
