//! What an owner can set. Every field has a default that suits one machine.

use std::{collections::BTreeMap, time::Duration};

use rialto_protocol::{Address, MicroDollars, Price};
use serde::{Deserialize, Serialize};

use crate::BatchPolicy;

/// The gateway's settings.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Micro-dollars that a new channel is opened with, and that a top-up adds.
    pub channel_deposit: MicroDollars,
    /// Most micro-dollars that one channel may hold.
    pub max_channel: MicroDollars,
    /// A channel is topped up in the background when less than this is free in it.
    pub top_up_below: MicroDollars,
    /// Who sends the transactions that open and close channels.
    pub gas: Gas,
    /// Sellers of each model in use with which a channel is kept open; zero opens them only when they are needed.
    pub standby_channels: usize,
    /// The highest price that is paid, in nano-dollars a unit.
    pub max_price: Price,
    /// The largest chunk that is paid ahead, in units of output. Providers that ask for more are not used.
    pub max_chunk: u64,
    /// Tokens generated when a client does not say; never more than the model's context.
    pub default_max_tokens: u64,
    /// Largest body of a request in bytes.
    pub max_body_bytes: usize,
    /// Requests worked on at a time; more are refused at once.
    pub max_requests: usize,
    /// Sellers that are tried for one request.
    pub max_attempts: usize,
    /// Names of this gateway's own for models: alias to `publisher/name:tag` or model id.
    pub aliases: BTreeMap<String, String>,
    /// What a model costs elsewhere, in nano-dollars a unit, by the name that is asked for: what is saved is told with
    /// each answer.
    pub list_prices: BTreeMap<String, Price>,
    /// Neighbours that this gateway looks for, to tell each other of offers; it takes some more that come.
    pub neighbours: usize,
    /// Providers that are used without looking up their stake.
    pub trusted_providers: Vec<Address>,
    /// Limits of HTTP connections.
    pub connections: ConnectionLimits,
    /// Limits of files and batches.
    pub batches: BatchPolicy,
    /// How long things may take.
    pub timeouts: Timeouts,
}

/// Limits of HTTP connections.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ConnectionLimits {
    /// Open connections in all; fewer if the system gives fewer descriptors.
    pub max: usize,
    /// Open connections of one IPv4 address or IPv6 network of 64 bits. This machine itself has no such limit.
    pub max_per_address: usize,
    /// Bytes of the head of a request.
    pub max_header_bytes: usize,
    /// Milliseconds for the head of a request.
    pub header_ms: u64,
    /// Milliseconds that a connection stays open without a request.
    pub idle_ms: u64,
    /// Milliseconds for a client that does not read its answer, or does not send its body.
    pub stall_ms: u64,
    /// The lowest rate at which a body is sent and an answer read, in bytes a second.
    pub min_rate: u64,
}

impl Default for ConnectionLimits {
    fn default() -> Self {
        Self {
            max: 8_192,
            max_per_address: 1_024,
            max_header_bytes: 64 << 10,
            header_ms: 10_000,
            idle_ms: 75_000,
            stall_ms: 15_000,
            min_rate: 1_024,
        }
    }
}

/// Who pays the gas of opening and closing channels.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Gas {
    /// This account if it has coins for it, else the sellers.
    #[default]
    Auto,
    /// This account.
    Wallet,
    /// The sellers: this account signs, and the seller of a channel sends.
    Seller,
}

/// How long things may take, in milliseconds unless a name says otherwise.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Timeouts {
    /// For a client to send its body.
    pub body_ms: u64,
    /// For a provider to be reached.
    pub dial_ms: u64,
    /// For a provider to say anything at all after a request: queueing included.
    pub first_frame_ms: u64,
    /// For a provider between two frames.
    pub frame_ms: u64,
    /// For the receipt after a cancellation.
    pub cancel_ms: u64,
    /// Between two looks into the meeting peers' books.
    pub browse_ms: u64,
    /// Between two looks at channels that may be due to close.
    pub closing_ms: u64,
    /// Between two looks at whether enough channels stand by.
    pub standby_ms: u64,
    /// Between two looks at whether blocks of the chain were replaced.
    pub follow_ms: u64,
    /// A channel unused for this long is closed.
    pub idle_channel_seconds: u64,
    /// An idempotent answer is kept for this long.
    pub idempotency_seconds: u64,
    /// An answer is kept for this long for a client that numbers its attempts; 0: its retries are requests of their own.
    pub retry_seconds: u64,
    /// For such a client to come back for an answer that it left; then the purchase is cancelled. Less than the sellers'
    /// patience for a payment.
    pub retry_pause_ms: u64,
    /// For requests to end when the gateway stops.
    pub shutdown_ms: u64,
}

impl Default for Timeouts {
    fn default() -> Self {
        Self {
            body_ms: 30_000,
            dial_ms: 5_000,
            first_frame_ms: 60_000,
            frame_ms: 60_000,
            cancel_ms: 3_000,
            browse_ms: 5_000,
            closing_ms: 30_000,
            follow_ms: 5_000,
            standby_ms: 2_000,
            idle_channel_seconds: 30 * 24 * 3_600,
            idempotency_seconds: 24 * 3_600,
            // The official clients obey a `Retry-After` of up to two minutes.
            retry_seconds: 150,
            // By themselves they pause for at most eight seconds.
            retry_pause_ms: 15_000,
            shutdown_ms: 10_000,
        }
    }
}

impl Default for Config {
    fn default() -> Self {
        Self {
            channel_deposit: MicroDollars::new(1_000_000),
            max_channel: MicroDollars::new(100_000_000),
            top_up_below: MicroDollars::new(200_000),
            gas: Gas::default(),
            standby_channels: 2,
            max_price: Price {
                input: 1_000_000,
                output: 1_000_000,
                request: 1_000_000_000,
            },
            max_chunk: rialto_protocol::offer::MAX_CHUNK,
            default_max_tokens: 1_024,
            max_body_bytes: 16 << 20,
            max_requests: 1_024,
            max_attempts: 4,
            aliases: BTreeMap::new(),
            list_prices: BTreeMap::new(),
            neighbours: 12,
            trusted_providers: Vec::new(),
            connections: ConnectionLimits::default(),
            batches: BatchPolicy::default(),
            timeouts: Timeouts::default(),
        }
    }
}

/// A duration of so many milliseconds.
pub(crate) fn ms(milliseconds: u64) -> Duration {
    Duration::from_millis(milliseconds)
}
