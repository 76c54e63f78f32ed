//! What a claim's gas costs, in the money that it claims.

use rialto_protocol::MicroDollars;

/// Gas of a redeem transaction that does not grow with the number of channels: the transaction itself, the transfer,
/// the event.
const FIXED: u64 = 55_000;
/// Gas for each channel until the first redemption was measured.
const FIRST_GUESS: u64 = 20_000;
/// What one channel may cost at least and at most; beyond that a measurement is not believed.
const PLAUSIBLE: (u64, u64) = (5_000, 200_000);
/// The smallest units in one coin of the chain.
const UNITS_PER_COIN: u128 = 1_000_000_000_000_000_000;

/// Measures what redeeming costs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct GasMeter {
    per_channel: u64,
}

impl Default for GasMeter {
    fn default() -> Self {
        Self {
            per_channel: FIRST_GUESS,
        }
    }
}

impl GasMeter {
    /// Takes in what a redemption of so many channels really used.
    pub(crate) fn measure(&mut self, gas_used: u64, channels: usize) {
        let channels = u64::try_from(channels).unwrap_or(u64::MAX);
        if let Some(each) = gas_used.saturating_sub(FIXED).checked_div(channels) {
            self.per_channel = each.clamp(PLAUSIBLE.0, PLAUSIBLE.1);
        }
    }

    /// The gas that redeeming so many channels will use.
    pub(crate) fn estimate(&self, channels: usize) -> u64 {
        let channels = u64::try_from(channels).unwrap_or(u64::MAX);
        FIXED.saturating_add(self.per_channel.saturating_mul(channels))
    }

    /// What redeeming so many channels costs, rounded up: gas at `gas_price` units of the chain's coin each, of which a
    /// whole one is worth `coin_price`.
    pub(crate) fn cost(&self, channels: usize, gas_price: u128, coin_price: MicroDollars) -> MicroDollars {
        let units = u128::from(self.estimate(channels)).saturating_mul(gas_price);
        // Whole coins and the rest apart, so that nothing overflows that is not absurd anyway.
        let whole = (units / UNITS_PER_COIN).saturating_mul(coin_price.get());
        let rest = (units % UNITS_PER_COIN)
            .saturating_mul(coin_price.get())
            .div_ceil(UNITS_PER_COIN);
        MicroDollars::try_from(whole.saturating_add(rest)).unwrap_or(MicroDollars::MAX)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_claim_of_one_channel_on_a_busy_chain_costs_dollars() {
        let meter = GasMeter::default();
        // 75,000 gas at 20 gwei of a coin of 3,000 dollars.
        let cost = meter.cost(1, 20_000_000_000, MicroDollars::new(3_000_000_000));
        assert_eq!(cost, MicroDollars::new(4_500_000));
        assert_eq!(meter.cost(1, 0, MicroDollars::MAX), MicroDollars::ZERO);
        assert_eq!(
            meter.cost(1, 1, MicroDollars::new(1)),
            MicroDollars::new(1),
            "rounded up"
        );
    }

    #[test]
    fn what_was_measured_counts_within_reason() {
        let mut meter = GasMeter::default();
        meter.measure(55_000 + 25 * 14_000, 25);
        assert_eq!(meter.estimate(10), 195_000);
        meter.measure(u64::MAX, 1);
        assert_eq!(meter.estimate(1), 255_000);
        meter.measure(1, 0);
        assert_eq!(meter.estimate(1), 255_000, "nothing was measured");
    }

    proptest! {
        #[test]
        fn more_of_anything_costs_no_less(
            gas: u64, one in 1usize..500, more in 0usize..500, price: u128, coin in 0..=rialto_protocol::money::MAX_MICRO,
        ) {
            let mut meter = GasMeter::default();
            meter.measure(gas, one);
            let coin = MicroDollars::try_from(coin).unwrap();
            let cost = meter.cost(one, price, coin);
            prop_assert!(meter.cost(one + more, price, coin) >= cost);
            prop_assert!(meter.cost(one, price.saturating_add(1), coin) >= cost);
        }
    }
}
