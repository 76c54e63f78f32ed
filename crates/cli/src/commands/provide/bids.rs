//! What is bid for work that can wait: `[provider.bids]`.

use std::{collections::BTreeMap, time::Duration};

use rialto_protocol::{ModelId, Price};
use rialto_provider::BidPolicy;

use super::{super::price::Terms, Benchmark};
use crate::settings::BidsFile;

/// As written, or as usual; no bid is below what a unit costs here, where that was measured.
pub(super) fn policy(file: &BidsFile, costs: BTreeMap<ModelId, Price>) -> BidPolicy {
    let usual = BidPolicy::default();
    BidPolicy {
        discount: file.discount.unwrap_or(usual.discount),
        idle: file.idle.unwrap_or(usual.idle),
        floor: Price {
            input: file.floor_input.unwrap_or(usual.floor.input),
            output: file.floor_output.unwrap_or(usual.floor.output),
            ..usual.floor
        },
        lifetime: file.lifetime.map_or(usual.lifetime, Duration::from_secs),
        costs,
    }
}

/// What a unit of a model costs here.
pub(super) fn cost(terms: &Terms, measured: &Benchmark) -> Price {
    let suggested = terms.suggest(measured, &[]);
    Price {
        input: suggested.input.cost,
        output: suggested.output.map_or(0, |output| output.cost),
        request: 0,
    }
}
