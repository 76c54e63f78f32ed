//! `rialto market`: the gateway's book of offers, with what it measured of each seller.

use anyhow::{Context, Result};
use rialto_api::openai::{Endpoint, Endpoints, ModelList, Percentiles};
use serde::de::DeserializeOwned;

use super::chat::{api_key, client, default_base};
use crate::{args, output, settings::Settings};

const HEADER: [&str; 10] = [
    "MODEL", "SELLER", "REGION", "IN $/M", "OUT $/M", "FIRST ms", "UNITS/s", "UPTIME", "LOAD", "STATE",
];

/// Most bytes of an answer of the gateway.
const MAX_BYTES: usize = 64 << 20;

/// Prints the sellers of one model, or of all.
pub(crate) async fn run(settings: &Settings, options: &args::MarketView) -> Result<()> {
    let base = options.base_url.clone().map_or_else(|| default_base(settings), Ok)?;
    let base = base.trim_end_matches('/');
    let key = api_key(settings, options.api_key_file.as_deref())?;
    let models = match &options.model {
        Some(model) => vec![model.clone()],
        None => {
            let list: ModelList = get(&format!("{base}/models"), &key).await?;
            list.data.into_iter().map(|model| model.id).collect()
        }
    };
    let mut pages = Vec::new();
    for model in models {
        // A name holds slashes, which belong into the path, and nothing else that does not.
        let page: Endpoints = get(&format!("{base}/models/{model}/endpoints"), &key).await?;
        pages.push(page.data);
    }
    let rows: Vec<Vec<String>> = pages
        .iter()
        .flat_map(|page| page.endpoints.iter().map(|endpoint| row(&page.id, endpoint)))
        .collect();
    output::either(settings.json, &pages, || output::table(&HEADER, &rows))
}

fn row(model: &str, endpoint: &Endpoint) -> Vec<String> {
    let half = |figures: Option<Percentiles>, digits: usize| {
        figures.map_or_else(|| "-".to_owned(), |figures| format!("{:.digits$}", figures.p50))
    };
    let region = if endpoint.region.is_empty() {
        "-"
    } else {
        &endpoint.region
    };
    let state = match (endpoint.state.as_str(), endpoint.open_channel) {
        ("good", true) => "open channel",
        (state, _) => state,
    };
    vec![
        model.to_owned(),
        endpoint.provider_name.clone(),
        region.to_owned(),
        a_million(&endpoint.pricing.prompt),
        a_million(&endpoint.pricing.completion),
        half(endpoint.latency_last_30m, 0),
        half(endpoint.throughput_last_30m, 1),
        endpoint
            .uptime_last_30m
            .map_or_else(|| "-".to_owned(), |percent| format!("{percent:.1}%")),
        format!("{}/{}", endpoint.load.max(endpoint.in_flight), endpoint.capacity),
        state.to_owned(),
    ]
}

/// Dollars for a million units, from dollars for one.
fn a_million(dollars: &str) -> String {
    let number: f64 = dollars.parse().unwrap_or(f64::NAN);
    format!("{:.3}", number * 1e6)
}

async fn get<T: DeserializeOwned>(url: &str, key: &str) -> Result<T> {
    let response = client(url)?.get(url).bearer_auth(key).send().await;
    let response = response.with_context(|| format!("{url} does not answer: is `rialto up` running?"))?;
    let status = response.status();
    let bytes = response.bytes().await?;
    anyhow::ensure!(bytes.len() <= MAX_BYTES, "{url}: the answer is too long");
    if !status.is_success() {
        let error: serde_json::Value = serde_json::from_slice(&bytes).unwrap_or_default();
        let message = error.pointer("/error/message").and_then(serde_json::Value::as_str);
        anyhow::bail!("{status}: {}", message.unwrap_or("the gateway does not say why"));
    }
    serde_json::from_slice(&bytes).with_context(|| format!("{url}: the answer cannot be read"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prices_are_shown_for_a_million_units() {
        assert_eq!(a_million("0.000004000"), "4.000");
        assert_eq!(a_million("0"), "0.000");
    }
}
