//! What the gateway counts. Names of the OpenTelemetry GenAI conventions are used where one fits.

use prometheus_client::{
    encoding::EncodeLabelSet,
    metrics::{
        counter::Counter,
        family::Family,
        gauge::Gauge,
        histogram::{Histogram, exponential_buckets},
    },
    registry::{Registry, Unit},
};

/// Where a request came in and how it ended.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(crate) struct RequestLabels {
    /// `chat`, `completion`, `embedding` or `infer`.
    pub(crate) operation: &'static str,
    /// `ok`, or the code of the error.
    pub(crate) outcome: &'static str,
}

/// Which side of an answer is counted.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(crate) struct TokenLabels {
    /// `input` or `output`.
    pub(crate) gen_ai_token_type: &'static str,
}

/// Why a connection was dropped or not taken.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(crate) struct DropLabels {
    /// `half_open`, `idle`, `stalled`, `crowded`, `address` or `full`.
    pub(crate) reason: &'static str,
}

/// Everything that is counted. Labels are few and never come from a client.
#[derive(Debug)]
pub(crate) struct Metrics {
    registry: Registry,
    pub(crate) requests: Family<RequestLabels, Counter>,
    pub(crate) first_output: Histogram,
    pub(crate) duration: Histogram,
    pub(crate) tokens: Family<TokenLabels, Counter>,
    pub(crate) cost: Counter,
    pub(crate) cost_each: Histogram,
    pub(crate) disputes: Counter,
    pub(crate) failovers: Counter,
    pub(crate) hedges: Counter,
    pub(crate) offers: Gauge,
    pub(crate) active: Gauge,
    pub(crate) replays: Counter,
    pub(crate) connections: Gauge,
    drops: Family<DropLabels, Counter>,
}

impl Metrics {
    pub(crate) fn new() -> Self {
        let seconds = || Histogram::new(exponential_buckets(0.001, 2.0, 18));
        let metrics = Self {
            registry: Registry::default(),
            requests: Family::default(),
            first_output: seconds(),
            duration: seconds(),
            tokens: Family::default(),
            cost: Counter::default(),
            cost_each: Histogram::new(exponential_buckets(1_000.0, 4.0, 14)),
            disputes: Counter::default(),
            failovers: Counter::default(),
            hedges: Counter::default(),
            offers: Gauge::default(),
            active: Gauge::default(),
            replays: Counter::default(),
            connections: Gauge::default(),
            drops: Family::default(),
        };
        metrics.register()
    }

    fn register(mut self) -> Self {
        let registry = &mut self.registry;
        registry.register(
            "rialto_gateway_requests",
            "Requests by operation and outcome",
            self.requests.clone(),
        );
        registry.register_with_unit(
            "gen_ai_server_time_to_first_token",
            "Time from a request to the first output",
            Unit::Seconds,
            self.first_output.clone(),
        );
        registry.register_with_unit(
            "gen_ai_server_request_duration",
            "Time from a request to the end of its answer",
            Unit::Seconds,
            self.duration.clone(),
        );
        registry.register("gen_ai_client_token_usage", "Units billed", self.tokens.clone());
        registry.register("rialto_gateway_cost_nanodollars", "What was paid", self.cost.clone());
        registry.register(
            "rialto_gateway_request_cost_nanodollars",
            "What each request cost",
            self.cost_each.clone(),
        );
        registry.register(
            "rialto_gateway_disputes",
            "Bills and answers that broke a rule",
            self.disputes.clone(),
        );
        registry.register(
            "rialto_gateway_failovers",
            "Answers that another seller went on with",
            self.failovers.clone(),
        );
        registry.register(
            "rialto_gateway_hedges",
            "Requests for which a second seller was asked as well",
            self.hedges.clone(),
        );
        registry.register("rialto_gateway_offers", "Offers in the book", self.offers.clone());
        registry.register(
            "rialto_gateway_active_requests",
            "Requests being answered",
            self.active.clone(),
        );
        registry.register(
            "rialto_gateway_replays",
            "Answers replayed to an idempotency key",
            self.replays.clone(),
        );
        registry.register(
            "rialto_gateway_connections",
            "Open HTTP connections",
            self.connections.clone(),
        );
        registry.register(
            "rialto_gateway_connections_dropped",
            "HTTP connections that were dropped or not taken",
            self.drops.clone(),
        );
        self
    }

    /// In the OpenMetrics text format.
    pub(crate) fn text(&self) -> String {
        let mut text = String::new();
        // Writing to a string does not fail.
        let _ = prometheus_client::encoding::text::encode(&mut text, &self.registry);
        text
    }

    /// Counts a connection that was dropped or not taken.
    pub(crate) fn dropped(&self, reason: &'static str) {
        self.drops.get_or_create(&DropLabels { reason }).inc();
    }

    /// Counts what an answer used and cost.
    pub(crate) fn bill(&self, bill: &crate::buying::Bill) {
        for (gen_ai_token_type, units) in [("input", bill.usage.input), ("output", bill.usage.output)] {
            self.tokens
                .get_or_create(&TokenLabels { gen_ai_token_type })
                .inc_by(units);
        }
        let nano = u64::try_from(bill.cost.0).unwrap_or(u64::MAX);
        self.cost.inc_by(nano);
        #[expect(
            clippy::cast_precision_loss,
            reason = "a histogram's bucket does not need the last digit"
        )]
        self.cost_each.observe(nano as f64);
    }
}
