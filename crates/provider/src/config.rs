//! How a provider behaves. Every limit that a peer can push against is here.

use std::time::Duration;

use rialto_protocol::{
    MicroDollars, Region,
    offer::{MAX_CHUNK, MAX_LIFETIME},
};

use crate::{BidPolicy, Error, limits::Limits};

/// How a provider behaves.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// Where it computes, as it declares.
    pub region: Region,
    /// Whether prompts or answers are kept, or passed on to others who may keep them; offers say so.
    pub retains_data: bool,
    /// Units of output that a buyer pays ahead of the work; between 1 and [`MAX_CHUNK`].
    pub chunk: u64,
    /// Requests of one model that may wait for a slot; one more is refused as busy, or takes the place of one whose payer
    /// has more than its share.
    pub queue: usize,
    /// Longest time that a request waits for a slot, however patient its buyer is; at most [`MAX_WAIT`].
    pub queue_wait: Duration,
    /// How long work may stand still for want of a voucher.
    pub payment_timeout: Duration,
    /// How long a buyer may take to read a piece of its answer before it counts as gone.
    pub stall_timeout: Duration,
    /// How long a peer may take over the first frame of a trade.
    pub first_frame_timeout: Duration,
    /// Trades in all at a time.
    pub trades: usize,
    /// What one payer may ask for, over all its channels.
    pub payer_limits: Limits,
    /// What one node may ask for.
    pub peer_limits: Limits,
    /// Streams of one peer at a time whose first frame has not come; one more ends its oldest.
    pub half_open_per_peer: usize,
    /// Such streams in all; one more ends the oldest of the peer that has the most.
    pub half_open: usize,
    /// When earnings are claimed on chain.
    pub redeem: RedeemPolicy,
    /// Time between two offers of an idle provider.
    pub offer_interval: Duration,
    /// How long an offer is valid; at most [`MAX_LIFETIME`] seconds.
    pub offer_lifetime: Duration,
    /// Time between two looks at the chain's events.
    pub watch_interval: Duration,
    /// How far money on chain is trusted.
    pub trust: Trust,
    /// Whose orders are relayed.
    pub relay: RelayPolicy,
    /// What is bid for work that can wait.
    pub bids: BidPolicy,
    /// How long running work may take to finish at shutdown before it is cut off.
    pub grace: Duration,
}

/// Most confirmations: nodes forget the state of blocks that are much older.
pub const MAX_CONFIRMATIONS: u64 = 64;

/// Longest that a request may be made to wait for a slot.
pub const MAX_WAIT: Duration = Duration::from_secs(600);

/// How far money on chain is trusted before its block is so deep that no reorganisation will drop it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Trust {
    /// Blocks on top of the one in which a channel was opened or topped up, after which all of its money counts; at
    /// most [`MAX_CONFIRMATIONS`]. Zero trusts every block, as is right where blocks are never replaced.
    pub confirmations: u64,
    /// What counts of a channel before that: the most that one reorganisation can cost on it.
    pub unconfirmed: MicroDollars,
}

/// For which buyers without coins a provider pays the gas: only those that open a channel with it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RelayPolicy {
    /// The least that a channel must hold, so that what is earned on it is worth the gas.
    pub min_amount: MicroDollars,
    /// Most that one order's gas may cost, in wei; zero relays nothing.
    pub max_cost: u128,
    /// Orders a minute, of all buyers together.
    pub orders_a_minute: usize,
    /// Orders a minute of one buyer.
    pub orders_of_payer: usize,
    /// What a buyer may spend on a channel whose order is under way: lost if it never gets into a block. Zero works for
    /// nobody before the chain knows the channel.
    pub credit: MicroDollars,
    /// The same over all buyers. What was lost counts until this provider is started again.
    pub credit_in_all: MicroDollars,
}

/// When earnings are claimed on chain. A requested close claims at once whatever this says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RedeemPolicy {
    /// Claim once this many times of what the claim's gas costs is earned and not claimed, over all channels. Counts
    /// only with a `coin_price`.
    pub gas_multiple: u32,
    /// Micro-dollars for one whole coin (10¹⁸ units) of the chain's own, with which gas is paid; `None` when it is not
    /// known, then `min_value` is what counts.
    pub coin_price: Option<MicroDollars>,
    /// Claim once this much is earned and not claimed, over all channels, as long as the cost of gas is not known.
    pub min_value: MicroDollars,
    /// Claim once the oldest unclaimed earning is this old.
    pub max_age: Duration,
    /// Time between two looks.
    pub interval: Duration,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            region: Region::default(),
            retains_data: false,
            chunk: 64,
            queue: 64,
            queue_wait: Duration::from_secs(60),
            payment_timeout: Duration::from_secs(20),
            stall_timeout: Duration::from_secs(30),
            first_frame_timeout: Duration::from_secs(10),
            trades: 2_048,
            payer_limits: Limits {
                at_once: 512,
                requests_a_minute: None,
                units_a_minute: None,
            },
            peer_limits: Limits {
                at_once: 512,
                requests_a_minute: None,
                units_a_minute: None,
            },
            half_open_per_peer: 256,
            half_open: 1_024,
            redeem: RedeemPolicy::default(),
            offer_interval: Duration::from_secs(10),
            offer_lifetime: Duration::from_secs(30),
            watch_interval: Duration::from_secs(2),
            trust: Trust::default(),
            relay: RelayPolicy::default(),
            bids: BidPolicy::default(),
            grace: Duration::from_secs(10),
        }
    }
}

impl Default for Trust {
    fn default() -> Self {
        Self {
            confirmations: 3,
            unconfirmed: MicroDollars::new(1_000_000),
        }
    }
}

impl Default for RelayPolicy {
    fn default() -> Self {
        Self {
            min_amount: MicroDollars::new(1_000_000),
            max_cost: 1_000_000_000_000_000,
            orders_a_minute: 30,
            orders_of_payer: 4,
            credit: MicroDollars::new(10_000),
            credit_in_all: MicroDollars::new(1_000_000),
        }
    }
}

impl Default for RedeemPolicy {
    fn default() -> Self {
        Self {
            gas_multiple: 20,
            coin_price: None,
            min_value: MicroDollars::new(1_000_000),
            max_age: Duration::from_secs(3_600),
            interval: Duration::from_secs(5),
        }
    }
}

impl Config {
    /// Checks every bound; the error names the field.
    pub fn check(&self) -> Result<(), Error> {
        let field = |text: &str| Err(Error::Config(text.to_owned()));
        if self.chunk == 0 || self.chunk > MAX_CHUNK {
            return field("`chunk` must be between 1 and 256 units");
        }
        let counts = [
            self.trades,
            self.payer_limits.at_once,
            self.peer_limits.at_once,
            self.half_open_per_peer,
            self.half_open,
        ];
        if counts.contains(&0) {
            return field("`trades`, `half_open` and what may be at once must be at least 1");
        }
        if self.queue_wait > MAX_WAIT {
            return field("`queue_wait` must be at most 600 seconds");
        }
        if self.offer_lifetime.is_zero() || self.offer_lifetime.as_secs() > MAX_LIFETIME {
            return field("`offer_lifetime` must be between 1 and 600 seconds");
        }
        if self.trust.confirmations > MAX_CONFIRMATIONS {
            return field("`confirmations` must be at most 64 blocks");
        }
        self.bids.check()?;
        let periods = [
            self.redeem.interval,
            self.offer_interval,
            self.watch_interval,
            self.payment_timeout,
            self.stall_timeout,
            self.first_frame_timeout,
        ];
        if periods.iter().any(Duration::is_zero) {
            return field("an interval or timeout must not be zero");
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_defaults_are_within_bounds_and_bad_numbers_are_not() {
        Config::default().check().unwrap();
        let long = Config {
            chunk: MAX_CHUNK + 1,
            ..Config::default()
        };
        assert!(matches!(long.check(), Err(Error::Config(_))));
        let never = Config {
            offer_interval: Duration::ZERO,
            ..Config::default()
        };
        assert!(never.check().is_err());
    }
}
