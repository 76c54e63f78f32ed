//! `GET /v1/models/{id}/endpoints`: who sells a model, as OpenRouter's clients read it, with more.

use serde::{Deserialize, Serialize};

use super::ModelPricing;

/// The answer.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Endpoints {
    /// The model and its sellers.
    pub data: ModelEndpoints,
}

/// A model and its sellers.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ModelEndpoints {
    /// The name that was asked for.
    pub id: String,
    /// `publisher/name:tag`.
    pub name: String,
    /// When the gateway first heard of it, in seconds since 1970.
    pub created: u64,
    /// One line for people.
    pub description: String,
    /// The sellers, the cheapest first.
    pub endpoints: Vec<Endpoint>,
}

/// One seller of a model: what it offers, and what this gateway measured of it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Endpoint {
    /// `publisher/name:tag`.
    pub name: String,
    /// The provider's account.
    pub provider_name: String,
    /// The model's id on its publisher's terms.
    pub model_id: String,
    /// Most tokens of prompt and answer together; zero for predictive models.
    pub context_length: u64,
    /// Dollars a unit, as decimal text.
    pub pricing: ModelPricing,
    /// How the weights are stored.
    pub quantization: String,
    /// `good`, `avoided` (it failed or was busy lately) or `distrusted` (it cheated).
    pub state: String,
    /// Percent of the answers of the last half hour that went well; null without any.
    pub uptime_last_30m: Option<f64>,
    /// Milliseconds to the first output in that time.
    pub latency_last_30m: Option<Percentiles>,
    /// Units of output a second in that time.
    pub throughput_last_30m: Option<Percentiles>,
    /// Answers that these figures are made of.
    pub answers: usize,
    /// Where it computes, as it declares; empty if it does not.
    pub region: String,
    /// Its engine and mode, as it declares.
    pub engine: String,
    /// Millijoules a unit, as it declares; zero when not known.
    pub energy_millijoules: u64,
    /// Whether it keeps data or passes them on, as it declares.
    pub retains_data: bool,
    /// Requests that it works on at a time.
    pub capacity: u32,
    /// Requests that it had when it made its offer.
    pub load: u32,
    /// Requests of this gateway that it has now.
    pub in_flight: u32,
    /// Whether a payment channel with it is open.
    pub open_channel: bool,
    /// Until when its price holds, in seconds since 1970.
    pub expires_at: u64,
}

/// Of a hundred answers, so many were better than each of these.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Percentiles {
    /// Half.
    pub p50: f64,
    /// Three quarters.
    pub p75: f64,
    /// Nine tenths.
    pub p90: f64,
    /// All but one.
    pub p99: f64,
}

impl From<[f64; 4]> for Percentiles {
    fn from([p50, p75, p90, p99]: [f64; 4]) -> Self {
        Self { p50, p75, p90, p99 }
    }
}
