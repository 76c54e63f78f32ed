//! A price that follows the load in the steps of EIP-1559: at the target it stays, with twice the target or more it rises
//! by an eighth, with nothing to do it falls by an eighth, and in between in proportion. In integers.

use std::time::Duration;

use rialto_protocol::Price;

use super::Seen;
use crate::{Error, clock::millis, queue::Load};

/// A price is counted in millionths of a nano-dollar, so that a step of a small price is not rounded away.
const PARTS: u128 = 1_000_000;

/// The largest step is one so-manieth of the price.
const LARGEST: u128 = 8;

/// A hundred percent.
const WHOLE: u128 = 100;

/// Between a floor and a ceiling, by the load.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Congestion {
    /// The price is never below this. A part that is zero here is so for ever.
    pub floor: Price,
    /// The price is never above this.
    pub ceiling: Price,
    /// The load at which the price stays: requests at work and waiting, in percent of the slots; 1 to 100.
    pub target_percent: u32,
    /// Shortest time between two steps; at least a second.
    pub step: Duration,
}

impl Congestion {
    pub(super) fn check(&self) -> Result<(), Error> {
        let field = |text: &str| Err(Error::Config(text.to_owned()));
        if !self.floor.within(&self.ceiling) {
            return field("a price's floor must not be above its ceiling");
        }
        let moves = |floor: u64, ceiling: u64| floor > 0 || ceiling == 0;
        let (floor, ceiling) = (&self.floor, &self.ceiling);
        let all = moves(floor.input, ceiling.input)
            && moves(floor.output, ceiling.output)
            && moves(floor.request, ceiling.request);
        if !all {
            return field("a price whose floor is 0 never rises: its ceiling must be 0 too");
        }
        if !(1..=100).contains(&self.target_percent) {
            return field("a price's `target` must be between 1 and 100 percent");
        }
        if self.step < Duration::from_secs(1) {
            return field("a price's `step` must be at least a second");
        }
        Ok(())
    }
}

/// The policy with where it stands.
#[derive(Debug)]
pub(super) struct Running {
    policy: Congestion,
    input: Moving,
    output: Moving,
    request: Moving,
    last: Load,
}

/// One part of the price.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Moving {
    parts: u128,
    floor: u128,
    ceiling: u128,
}

impl Running {
    /// Goes on from the price that was offered last, or begins at the floor.
    pub(super) fn new(policy: Congestion, last: Option<Price>) -> Self {
        let from = last.unwrap_or(policy.floor);
        Self {
            policy,
            input: Moving::new(from.input, policy.floor.input, policy.ceiling.input),
            output: Moving::new(from.output, policy.floor.output, policy.ceiling.output),
            request: Moving::new(from.request, policy.floor.request, policy.ceiling.request),
            last: Load::NONE,
        }
    }

    pub(super) fn current(&self) -> Price {
        Price {
            input: self.input.nano(),
            output: self.output.nano(),
            request: self.request.nano(),
        }
    }

    /// The price, a step further if it is time for one.
    pub(super) fn price(&mut self, seen: &Seen) -> Price {
        let passed = seen.load.at.saturating_sub(self.last.at);
        if passed >= millis(self.policy.step) {
            let load = seen.load.sum.saturating_sub(self.last.sum);
            let full = u128::from(seen.slots).saturating_mul(u128::from(passed));
            // Both sides in requests times milliseconds times percent.
            let target = full.saturating_mul(u128::from(self.policy.target_percent));
            let load = load.saturating_mul(WHOLE);
            for part in [&mut self.input, &mut self.output, &mut self.request] {
                part.step(load, target);
            }
            self.last = seen.load;
        }
        self.current()
    }
}

impl Moving {
    fn new(from: u64, floor: u64, ceiling: u64) -> Self {
        let parts = |nano: u64| u128::from(nano) * PARTS;
        Self {
            parts: parts(from).clamp(parts(floor), parts(ceiling.max(floor))),
            floor: parts(floor),
            ceiling: parts(ceiling.max(floor)),
        }
    }

    fn step(&mut self, load: u128, target: u128) {
        let target = target.max(1);
        let load = load.min(target.saturating_mul(2));
        let distance = load.abs_diff(target);
        // At most the eighth of the price: the distance is at most the target.
        let change = mul_div(self.parts, distance, target) / LARGEST;
        let moved = if load > target {
            self.parts.saturating_add(change)
        } else {
            self.parts.saturating_sub(change)
        };
        self.parts = moved.clamp(self.floor, self.ceiling);
    }

    fn nano(&self) -> u64 {
        u64::try_from(self.parts.div_ceil(PARTS)).unwrap_or(u64::MAX)
    }
}

/// `value * numerator / denominator` for a quotient of at most one, without overflow.
fn mul_div(value: u128, mut numerator: u128, mut denominator: u128) -> u128 {
    // A price has at most 84 bits; what is left of the quotient is more exact than any load is known.
    while denominator >> 40 > 0 {
        denominator >>= 1;
        numerator >>= 1;
    }
    value.saturating_mul(numerator.min(denominator)) / denominator.max(1)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn price(input: u64, output: u64) -> Price {
        Price {
            input,
            output,
            request: 0,
        }
    }

    fn policy(floor: Price, ceiling: Price, target_percent: u32) -> Congestion {
        Congestion {
            floor,
            ceiling,
            target_percent,
            step: Duration::from_secs(10),
        }
    }

    /// A run of steps of ten seconds each, with so many requests of ten slots.
    fn run(running: &mut Running, loads: &[u128]) -> Vec<Price> {
        let mut seen = Seen {
            slots: 10,
            load: running.last,
        };
        let step = |load: &u128| {
            seen.load.at += 10_000;
            seen.load.sum += load * 10_000;
            running.price(&seen)
        };
        loads.iter().map(step).collect()
    }

    #[test]
    fn it_moves_by_an_eighth_at_most_and_stays_at_the_target() {
        let policy = policy(price(800, 8_000), price(8_000, 80_000), 50);
        policy.check().unwrap();
        let mut running = Running::new(policy, None);
        assert_eq!(running.current(), price(800, 8_000));
        // Five of ten are the target; ten and more are twice of it.
        let prices = run(&mut running, &[5, 10, 1_000, 5, 0, 0, 0]);
        let outputs: Vec<u64> = prices.iter().map(|price| price.output).collect();
        assert_eq!(outputs, [8_000, 9_000, 10_125, 10_125, 8_860, 8_000, 8_000]);
    }

    #[test]
    fn a_step_waits_for_its_time() {
        let mut running = Running::new(policy(price(100, 100), price(900, 900), 50), None);
        let mut seen = Seen {
            slots: 1,
            load: Load::NONE,
        };
        seen.load.at = 9_999;
        seen.load.sum = 90_000;
        assert_eq!(running.price(&seen), price(100, 100));
        seen.load.at = 10_000;
        assert_eq!(running.price(&seen), price(113, 113));
        assert_eq!(running.price(&seen), price(113, 113));
    }

    #[test]
    fn a_restart_goes_on_where_it_was_within_the_bounds() {
        let policy = policy(price(100, 100), price(900, 900), 50);
        assert_eq!(Running::new(policy, Some(price(300, 5_000))).current(), price(300, 900));
    }

    #[test]
    fn bounds_that_cannot_be_are_refused() {
        for bad in [
            policy(price(2, 2), price(1, 2), 50),
            policy(price(0, 2), price(1, 2), 50),
            policy(price(1, 1), price(1, 2), 0),
            policy(price(1, 1), price(1, 2), 101),
            Congestion {
                step: Duration::from_millis(10),
                ..policy(price(1, 1), price(1, 2), 50)
            },
        ] {
            assert!(bad.check().is_err(), "{bad:?}");
        }
    }

    fn bounds() -> impl Strategy<Value = (Price, Price)> {
        let part = || (1u64.., 1u64..).prop_map(|(one, other)| (one.min(other), one.max(other)));
        (part(), part()).prop_map(|(input, output)| (price(input.0, output.0), price(input.1, output.1)))
    }

    proptest! {
        #[test]
        fn never_outside_the_bounds_never_more_than_an_eighth_and_back_again(
            (floor, ceiling) in bounds(),
            target in 1u32..=100,
            last in proptest::option::of((any::<u64>(), any::<u64>())),
            loads in proptest::collection::vec(0u128..100_000, 0..60),
        ) {
            let mut running = Running::new(policy(floor, ceiling, target), last.map(|(one, two)| price(one, two)));
            for load in &loads {
                let before = running.output.parts;
                let now = run(&mut running, &[*load])[0];
                let after = running.output.parts;
                prop_assert!(after.abs_diff(before) <= before / 8, "{before} {after}");
                prop_assert!(floor.within(&now) && now.within(&ceiling));
                let (load, target) = (load * 100, u128::from(target) * 10);
                prop_assert!(load < target || after >= before);
                prop_assert!(load > target || after <= before);
            }
            // With nothing to do it comes back to the floor, and with too much it gets to the ceiling.
            run(&mut running, &[0; 400]);
            prop_assert_eq!(running.current(), floor);
            run(&mut running, &[100_000; 400]);
            prop_assert_eq!(running.current(), ceiling);
        }
    }
}
