//! Prices and usage: what a unit costs and how many were used.

use serde::{Deserialize, Serialize};

use crate::NanoDollars;

/// Nano-dollars for each unit. A unit is a token for language models and a row for predictive ones.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Hash, Serialize, Deserialize)]
pub struct Price {
    /// For each unit of input (prompt token, row).
    pub input: u64,
    /// For each unit of output (generated token).
    pub output: u64,
    /// For the request itself.
    pub request: u64,
}

impl Price {
    /// What this usage costs.
    pub fn cost(&self, usage: Usage) -> NanoDollars {
        let part = |price: u64, units: u64| NanoDollars(u128::from(price) * u128::from(units));
        part(self.input, usage.input)
            .plus(part(self.output, usage.output))
            .plus(NanoDollars(self.request.into()))
    }

    /// Whether no part of this price is above the other's.
    pub fn within(&self, ceiling: &Self) -> bool {
        self.input <= ceiling.input && self.output <= ceiling.output && self.request <= ceiling.request
    }
}

/// Units used by one request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Hash, Serialize, Deserialize)]
pub struct Usage {
    /// Prompt tokens, or rows.
    pub input: u64,
    /// Generated tokens; zero for predictive models.
    pub output: u64,
}
