//! What a provider measures of itself.

use prometheus_client::{
    encoding::{EncodeLabelSet, EncodeLabelValue},
    metrics::{counter::Counter, family::Family, gauge::Gauge, histogram::Histogram},
    registry::Registry,
};
use rialto_protocol::{ReceiptStatus, wire::RefusalCode};

/// How a request ended.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(crate) struct EndLabels {
    /// The receipt's status.
    pub(crate) status: End,
}

/// A receipt's status as a label.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, EncodeLabelValue)]
pub(crate) enum End {
    /// The answer is whole.
    Complete,
    /// The buyer cancelled or went away.
    Cancelled,
    /// The provider failed.
    Failed,
    /// A crash cut it off.
    Interrupted,
}

/// Why a request was refused.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(crate) struct RefusalLabels {
    /// The code, as `docs/status-codes.md` spells it.
    pub(crate) code: String,
}

/// The provider's metrics. Handles are cheap to clone and count into the same numbers.
#[derive(Debug, Clone)]
pub struct Metrics {
    pub(crate) receipts: Family<EndLabels, Counter>,
    pub(crate) refusals: Family<RefusalLabels, Counter>,
    pub(crate) input_units: Counter,
    pub(crate) output_units: Counter,
    pub(crate) trades: Gauge,
    pub(crate) half_open_ended: Counter,
    pub(crate) turned_away: Counter,
    pub(crate) vouchers: Counter,
    pub(crate) earned_micro: Counter,
    pub(crate) redemptions: Counter,
    pub(crate) redeem_failures: Counter,
    pub(crate) chain_reachable: Gauge,
    pub(crate) reorganisations: Counter,
    pub(crate) first_output: Histogram,
    pub(crate) service: Histogram,
}

/// Bounds of the histograms, in seconds.
const SECONDS: [f64; 14] = [
    0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 20.0, 60.0,
];

impl Metrics {
    /// Registers every metric under `rialto_provider_`.
    pub fn register(registry: &mut Registry) -> Self {
        let metrics = Self {
            receipts: Family::default(),
            refusals: Family::default(),
            input_units: Counter::default(),
            output_units: Counter::default(),
            trades: Gauge::default(),
            half_open_ended: Counter::default(),
            turned_away: Counter::default(),
            vouchers: Counter::default(),
            earned_micro: Counter::default(),
            redemptions: Counter::default(),
            redeem_failures: Counter::default(),
            chain_reachable: Gauge::default(),
            reorganisations: Counter::default(),
            first_output: Histogram::new(SECONDS),
            service: Histogram::new(SECONDS),
        };
        metrics
            .clone()
            .register_in(registry.sub_registry_with_prefix("rialto_provider"));
        metrics
    }

    fn register_in(self, registry: &mut Registry) {
        registry.register("receipts", "Receipts written, by how the request ended", self.receipts);
        registry.register("refusals", "Requests refused before any work, by code", self.refusals);
        registry.register("input_units", "Units of input billed", self.input_units);
        registry.register("output_units", "Units of output billed", self.output_units);
        registry.register("trades", "Trades open now", self.trades);
        registry.register(
            "half_open_ended",
            "Trades whose first frame did not come in time, or was none",
            self.half_open_ended,
        );
        registry.register(
            "turned_away",
            "Requests refused again that came back when they were told to",
            self.turned_away,
        );
        registry.register("vouchers", "Vouchers accepted", self.vouchers);
        registry.register(
            "earned_microdollars",
            "Earned by receipts, before royalty and fee, each rounded up",
            self.earned_micro,
        );
        registry.register("redemptions", "Redeem transactions that were paid", self.redemptions);
        registry.register(
            "redeem_failures",
            "Rounds of claiming that failed and were tried again",
            self.redeem_failures,
        );
        registry.register(
            "chain_reachable",
            "Whether the chain answered last time",
            self.chain_reachable,
        );
        registry.register(
            "reorganisations",
            "Times that blocks which were read were replaced by others",
            self.reorganisations,
        );
        registry.register(
            "first_output_seconds",
            "From the request's arrival to its first output",
            self.first_output,
        );
        registry.register("service_seconds", "Time in an engine's slot", self.service);
    }

    pub(crate) fn refused(&self, code: RefusalCode) {
        let code = serde_json::to_value(code).ok();
        let code = code.as_ref().and_then(serde_json::Value::as_str).unwrap_or("unknown");
        let labels = RefusalLabels { code: code.to_owned() };
        self.refusals.get_or_create(&labels).inc();
    }

    pub(crate) fn settled(&self, receipt: &rialto_protocol::Receipt) {
        let status = match receipt.status {
            ReceiptStatus::Complete => End::Complete,
            ReceiptStatus::Cancelled => End::Cancelled,
            ReceiptStatus::Failed => End::Failed,
            ReceiptStatus::Interrupted => End::Interrupted,
        };
        self.receipts.get_or_create(&EndLabels { status }).inc();
        self.input_units.inc_by(receipt.usage.input);
        self.output_units.inc_by(receipt.usage.output);
        let earned = receipt
            .cost
            .round_up()
            .ok()
            .and_then(|micro| u64::try_from(micro.get()).ok());
        self.earned_micro.inc_by(earned.unwrap_or(0));
    }
}
