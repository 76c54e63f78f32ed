//! Cost and a margin: energy, the machine's share, and what the seller wants above that.
//!
//! What a unit takes is known from a benchmark. What receipts then find of the energy corrects it: both kinds of unit by
//! the same factor, since a receipt does not tell one from the other.

use rialto_machine::price::{Amortisation, Costs, suggest};
use rialto_protocol::{EnergySource, MicroDollars, Price, Usage};

/// Millionths of a joule that were expected, after which what was learnt of them counts half.
const HALF: u64 = 1_000_000_000;

/// What one unit takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Takes {
    /// Millionths of a joule.
    pub microjoules: u64,
    /// Nanoseconds of the machine as a whole.
    pub nanoseconds: u64,
}

/// Cost and a margin.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CostPlus {
    /// A unit of input.
    pub input: Takes,
    /// A unit of output; `None` where output is not billed.
    pub output: Option<Takes>,
    /// What a kilowatt-hour costs.
    pub electricity: MicroDollars,
    /// What the machine costs; `None` to leave it out.
    pub amortisation: Option<Amortisation>,
    /// What is asked above cost, in percent.
    pub margin_percent: u32,
}

/// The policy with what receipts found.
#[derive(Debug)]
pub(super) struct Running {
    policy: CostPlus,
    /// What the finished requests should have drawn, and what they did, in millionths of a joule.
    expected: u64,
    found: u64,
}

impl Running {
    pub(super) fn new(policy: CostPlus) -> Self {
        Self {
            policy,
            expected: 0,
            found: 0,
        }
    }

    pub(super) fn price(&self) -> Price {
        Price {
            input: self.of(self.policy.input),
            output: self.policy.output.map_or(0, |output| self.of(output)),
            request: 0,
        }
    }

    fn of(&self, takes: Takes) -> u64 {
        let corrected = u128::from(takes.microjoules)
            .saturating_mul(u128::from(self.found))
            .checked_div(u128::from(self.expected));
        let microjoules = corrected.map_or(takes.microjoules, |all| u64::try_from(all).unwrap_or(u64::MAX));
        let costs = Costs {
            microjoules,
            source: EnergySource::Unknown,
            nanoseconds: takes.nanoseconds,
            electricity: self.policy.electricity,
            amortisation: self.policy.amortisation,
        };
        suggest(&costs, self.policy.margin_percent, &[]).price
    }

    /// Notes what a request drew; nothing where that is not known.
    pub(super) fn learn(&mut self, usage: Usage, millijoules: u64) {
        let output = self.policy.output.map_or(0, |output| output.microjoules);
        let expected = usage
            .input
            .saturating_mul(self.policy.input.microjoules)
            .saturating_add(usage.output.saturating_mul(output));
        if expected == 0 || millijoules == 0 {
            return;
        }
        self.expected = self.expected.saturating_add(expected);
        self.found = self.found.saturating_add(millijoules.saturating_mul(1_000));
        while self.expected > HALF.saturating_mul(2) {
            self.expected /= 2;
            self.found /= 2;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const POLICY: CostPlus = CostPlus {
        // A joule is 83⅓ nano-dollars at this price.
        electricity: MicroDollars::new(300_000),
        input: Takes {
            microjoules: 12_000,
            nanoseconds: 1_000,
        },
        output: Some(Takes {
            microjoules: 1_200_000,
            nanoseconds: 10_000_000,
        }),
        amortisation: None,
        margin_percent: 50,
    };

    #[test]
    fn energy_machine_and_margin_make_the_price() {
        let price = Running::new(POLICY).price();
        assert_eq!((price.input, price.output, price.request), (2, 150, 0));
        let with_machine = CostPlus {
            amortisation: Some(Amortisation {
                hardware: MicroDollars::new(3_600_000_000),
                lifetime: 100_000_000,
                busy_percent: 50,
            }),
            ..POLICY
        };
        // 72 micro-dollars a busy second, of which an output unit takes a hundredth.
        assert_eq!(Running::new(with_machine).price().output, 1_230);
        let rows = CostPlus { output: None, ..POLICY };
        assert_eq!(Running::new(rows).price().output, 0);
    }

    #[test]
    fn what_receipts_find_corrects_both_prices() {
        let mut running = Running::new(POLICY);
        let usage = Usage { input: 100, output: 10 };
        // Expected are 13.2 J.
        running.learn(usage, 26_400);
        let price = running.price();
        assert_eq!((price.input, price.output), (3, 300));
        for _ in 0..10_000 {
            running.learn(usage, 13_200);
        }
        assert!((150..=151).contains(&running.price().output));
        running.learn(usage, 0);
        running.learn(Usage::default(), 5);
        running.learn(
            Usage {
                input: u64::MAX,
                output: u64::MAX,
            },
            u64::MAX,
        );
        assert!(running.price().output > 0);
    }
}
