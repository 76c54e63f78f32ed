//! `[provider.limits]`: who may ask for how much at once.

use std::time::Duration;

use rialto_provider::{Config, Limits};

use crate::settings::LimitsFile;

/// The provider's configuration with these limits, and otherwise the usual one.
pub(super) fn config(file: &LimitsFile) -> Config {
    let usual = Config::default();
    Config {
        queue: file.queue.unwrap_or(usual.queue),
        queue_wait: file.queue_wait.map_or(usual.queue_wait, Duration::from_secs),
        trades: file.trades.unwrap_or(usual.trades),
        half_open: file.half_open.unwrap_or(usual.half_open),
        half_open_per_peer: file.half_open_per_peer.unwrap_or(usual.half_open_per_peer),
        payer_limits: Limits {
            at_once: file.payer_at_once.unwrap_or(usual.payer_limits.at_once),
            requests_a_minute: file.payer_requests_a_minute.or(usual.payer_limits.requests_a_minute),
            units_a_minute: file.payer_units_a_minute.or(usual.payer_limits.units_a_minute),
        },
        peer_limits: Limits {
            at_once: file.peer_at_once.unwrap_or(usual.peer_limits.at_once),
            requests_a_minute: file.peer_requests_a_minute.or(usual.peer_limits.requests_a_minute),
            units_a_minute: file.peer_units_a_minute.or(usual.peer_limits.units_a_minute),
        },
        ..usual
    }
}
