//! `rialto ticket`: how another machine joins.

use anyhow::Result;
use serde_json::json;

use crate::{args::Place, market::Market, output, settings::Settings};

/// Prints the ticket of this data directory's market.
pub(crate) fn run(settings: &Settings) -> Result<()> {
    let market = Market::find(settings, &Place::default())?;
    let text = market.ticket.to_string();
    output::either(
        settings.json,
        &json!({ "ticket": text, "market": market.ticket }),
        || output::line(&text),
    )
}
