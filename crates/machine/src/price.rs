//! What a unit should cost: never less than it costs its seller, and otherwise what the market pays.
//!
//! Pure, and in integers: fractions of a nano-dollar are kept until the end and rounded up there, once.

use std::fmt;

use rialto_protocol::{EnergySource, MicroDollars};
use serde::Serialize;

/// What a kilowatt-hour costs unless it is said: 0.30 dollars, about what households pay in the European Union and nearly
/// twice of what they pay in the United States, so that whoever says nothing does not sell below cost.
pub const DEFAULT_ELECTRICITY: MicroDollars = MicroDollars::new(300_000);

/// What is asked above cost where nobody else sells, in percent.
pub const DEFAULT_MARGIN_PERCENT: u32 = 20;

/// A kilowatt-hour in microjoules.
const MICROJOULES_PER_KWH: u128 = 3_600_000_000_000;

/// Costs are counted in parts of a nano-dollar, so that sums of small parts are not rounded twice.
const PARTS: u128 = 1_000_000;

/// A hundred percent.
const WHOLE: u128 = 100;

/// What a machine costs beside its electricity.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Amortisation {
    /// What it was bought for.
    pub hardware: MicroDollars,
    /// Seconds in which that should be earned back.
    pub lifetime: u64,
    /// Percent of them in which it is expected to have work: 1 to 100.
    pub busy_percent: u32,
}

/// What one unit takes, and on what terms.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Costs {
    /// Millionths of a joule for a unit; zero when not known.
    pub microjoules: u64,
    /// How that is known.
    pub source: EnergySource,
    /// Nanoseconds that the machine as a whole takes for a unit; counts only with an amortisation.
    pub nanoseconds: u64,
    /// What a kilowatt-hour costs.
    pub electricity: MicroDollars,
    /// What the machine costs; `None` to leave it out.
    pub amortisation: Option<Amortisation>,
}

/// How a suggestion came about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Ground {
    /// Nobody else sells it: cost and margin.
    Alone,
    /// The cheapest seller's price, which leaves the margin.
    Cheapest,
    /// Half of the median, because the cheapest is so far below that it will not last.
    Floor,
    /// The market's price, which leaves less than the margin.
    Thin,
    /// Cost: the market is below it.
    Cost,
}

/// A suggested price of a unit, in nano-dollars, and how it came about. Its text explains it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Suggestion {
    /// What to ask.
    pub price: u64,
    /// What a unit costs its seller.
    pub cost: u64,
    /// How the energy in it is known.
    pub energy: EnergySource,
    /// The cheapest live offer.
    pub cheapest: Option<u64>,
    /// The median of the live offers.
    pub median: Option<u64>,
    /// How many there are.
    pub offers: usize,
    /// How it came about.
    pub ground: Ground,
}

impl Costs {
    /// What a unit costs, in parts of a nano-dollar.
    fn parts(&self) -> u128 {
        // Nano-dollars are a thousandth of the micro-dollars that electricity is counted in.
        let energy = u128::from(self.microjoules)
            .saturating_mul(self.electricity.get())
            .saturating_mul(1_000 * PARTS)
            .div_ceil(MICROJOULES_PER_KWH);
        energy.saturating_add(self.amortisation.map_or(0, |machine| machine.parts(self.nanoseconds)))
    }

    /// What a unit costs, in nano-dollars, rounded up.
    pub fn floor(&self) -> u64 {
        u64::try_from(self.parts().div_ceil(PARTS)).unwrap_or(u64::MAX)
    }
}

impl Amortisation {
    /// The share of a unit that keeps the machine busy for so long.
    fn parts(&self, nanoseconds: u64) -> u128 {
        let percent = u128::from(self.busy_percent).clamp(1, WHOLE);
        let busy_nanoseconds = u128::from(self.lifetime.max(1)) * 1_000_000_000 * percent;
        self.hardware
            .get()
            .saturating_mul(u128::from(nanoseconds))
            .saturating_mul(1_000 * PARTS * WHOLE)
            .div_ceil(busy_nanoseconds)
    }
}

/// Suggests a price: `offers` are the prices of the same unit of the same model in all live offers of others.
///
/// It is never below cost. Above that, it is the cheapest offer's, so that buyers who look at the price alone come here
/// too; half of the median takes its place if it is dearer, because one seller's mistake is no market. Nobody is undercut:
/// speed and reliability are for the router to weigh.
pub fn suggest(costs: &Costs, margin_percent: u32, offers: &[u64]) -> Suggestion {
    let cost = costs.floor();
    let wanted = costs
        .parts()
        .saturating_mul(WHOLE + u128::from(margin_percent))
        .div_ceil(PARTS * WHOLE);
    let wanted = u64::try_from(wanted).unwrap_or(u64::MAX);
    let (cheapest, median) = (offers.iter().min().copied(), median(offers));
    let market = cheapest
        .zip(median)
        .map(|(cheapest, median)| (cheapest, median.div_ceil(2)));
    let (price, ground) = match market {
        None => (wanted, Ground::Alone),
        Some((cheapest, half)) if cheapest.max(half) < cost => (cost, Ground::Cost),
        Some((cheapest, half)) if cheapest.max(half) < wanted => (cheapest.max(half), Ground::Thin),
        Some((cheapest, half)) if cheapest < half => (half, Ground::Floor),
        Some((cheapest, _)) => (cheapest, Ground::Cheapest),
    };
    Suggestion {
        price,
        cost,
        energy: costs.source,
        cheapest,
        median,
        offers: offers.len(),
        ground,
    }
}

/// The middle one, or the mean of the two in the middle, rounded up.
fn median(offers: &[u64]) -> Option<u64> {
    let mut sorted = offers.to_vec();
    sorted.sort_unstable();
    let last = sorted.len().checked_sub(1)?;
    let (low, high) = (*sorted.get(last / 2)?, *sorted.get(last.div_ceil(2))?);
    Some(low.saturating_add((high - low).div_ceil(2)))
}

impl fmt::Display for Suggestion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.offers, self.cheapest, self.median) {
            (1, Some(only), _) => write!(f, "the only offer is {only}; ")?,
            (count, Some(cheapest), Some(median)) => {
                write!(
                    f,
                    "the cheapest of {count} offers is {cheapest}, their median {median}; "
                )?;
            }
            _ => f.write_str("nobody else sells it; ")?,
        }
        match self.energy {
            EnergySource::Measured => write!(f, "your cost is {}", self.cost)?,
            EnergySource::Estimated => write!(f, "your cost is about {} (its energy is estimated)", self.cost)?,
            EnergySource::Unknown => f.write_str("your cost is not known")?,
        }
        f.write_str(match self.ground {
            Ground::Alone => ": cost and margin",
            Ground::Cheapest => ": as cheap as the cheapest",
            Ground::Floor => ": half of the median, since the cheapest is too far below the others to last",
            Ground::Thin => ": the market's price, which leaves less than your margin",
            Ground::Cost => ": the market is below your cost, so that selling this model here hardly pays",
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn costs(microjoules: u64) -> Costs {
        Costs {
            microjoules,
            source: EnergySource::Measured,
            nanoseconds: 0,
            electricity: DEFAULT_ELECTRICITY,
            amortisation: None,
        }
    }

    #[test]
    fn a_kilowatt_hour_costs_what_it_costs() {
        // 3.6 kJ are a thousandth of it: 300 micro-dollars.
        assert_eq!(costs(3_600_000_000).floor(), 300_000);
        // A joule is 83.3 nano-dollars, rounded up.
        assert_eq!(costs(1_000_000).floor(), 84);
        assert_eq!(costs(1).floor(), 1);
        assert_eq!(costs(0).floor(), 0);
    }

    #[test]
    fn a_machine_is_earned_back_in_the_time_in_which_it_works() {
        // 3600 dollars in a hundred million seconds, half of them busy: 72 micro-dollars a busy second.
        let with = Costs {
            nanoseconds: 1_000_000_000,
            amortisation: Some(Amortisation {
                hardware: MicroDollars::new(3_600_000_000),
                lifetime: 100_000_000,
                busy_percent: 50,
            }),
            ..costs(0)
        };
        assert_eq!(with.floor(), 72_000);
    }

    #[test]
    fn who_is_alone_asks_cost_and_margin() {
        let alone = suggest(&costs(12_000_000), 20, &[]);
        assert_eq!((alone.cost, alone.price, alone.ground), (1_000, 1_200, Ground::Alone));
        assert_eq!(
            alone.to_string(),
            "nobody else sells it; your cost is 1000: cost and margin"
        );
    }

    #[test]
    fn who_is_not_joins_the_cheapest_and_says_when_that_hurts() {
        let at = |offers: &[u64]| suggest(&costs(12_000_000), 20, offers);
        let joined = at(&[4_000, 2_000, 3_000]);
        assert_eq!((joined.price, joined.ground), (2_000, Ground::Cheapest));
        assert_eq!(
            joined.to_string(),
            "the cheapest of 3 offers is 2000, their median 3000; your cost is 1000: as cheap as the cheapest"
        );
        assert_eq!((at(&[1_100]).price, at(&[1_100]).ground), (1_100, Ground::Thin));
        assert_eq!((at(&[900, 800]).price, at(&[900, 800]).ground), (1_000, Ground::Cost));
        // A lure does not pull the others down with it.
        let lured = at(&[1, 8_000, 8_000]);
        assert_eq!((lured.price, lured.ground), (4_000, Ground::Floor));
    }

    #[test]
    fn an_estimate_is_called_one() {
        let estimated = Costs {
            source: EnergySource::Estimated,
            ..costs(12_000_000)
        };
        assert!(suggest(&estimated, 20, &[1_500]).to_string().contains("estimated"));
        let unknown = Costs {
            source: EnergySource::Unknown,
            ..costs(0)
        };
        let said = suggest(&unknown, 20, &[1_500]);
        assert_eq!(said.price, 1_500);
        assert!(said.to_string().contains("not known"));
    }

    prop_compose! {
        fn any_costs()(
            microjoules in prop_oneof![0..10_000_u64, any::<u64>()],
            nanoseconds in any::<u64>(),
            electricity in prop_oneof![0..1_000_000_u64, any::<u64>()],
            machine in proptest::option::of((any::<u64>(), any::<u64>(), any::<u32>())),
        ) -> Costs {
            Costs {
                microjoules,
                source: EnergySource::Estimated,
                nanoseconds,
                electricity: MicroDollars::new(electricity),
                amortisation: machine.map(|(hardware, lifetime, busy_percent)| Amortisation {
                    hardware: MicroDollars::new(hardware), lifetime, busy_percent,
                }),
            }
        }
    }

    proptest! {
        #[test]
        fn no_suggestion_is_below_cost(costs in any_costs(), margin in any::<u32>(), offers in prop::collection::vec(any::<u64>(), 0..8)) {
            let suggestion = suggest(&costs, margin, &offers);
            prop_assert!(suggestion.price >= suggestion.cost);
            prop_assert!(!suggestion.to_string().is_empty());
        }

        #[test]
        fn above_cost_the_market_is_never_overcharged(costs in any_costs(), margin in 0..1_000_u32, offers in prop::collection::vec(any::<u64>(), 1..8)) {
            let suggestion = suggest(&costs, margin, &offers);
            let dearest = offers.iter().max().copied().unwrap_or(0);
            prop_assert!(suggestion.price <= dearest.max(suggestion.cost));
        }

        #[test]
        fn no_order_of_offers_matters(costs in any_costs(), mut offers in prop::collection::vec(any::<u64>(), 0..8)) {
            let one = suggest(&costs, 20, &offers);
            offers.reverse();
            prop_assert_eq!(one, suggest(&costs, 20, &offers));
        }

        /// What a thousand units cost is never more than a thousand times what one does, and rounding hides a nano-dollar
        /// of each at most.
        #[test]
        fn rounding_happens_once(microjoules in 0..1_000_000_000_u64) {
            let (one, many) = (costs(microjoules).floor(), costs(microjoules * 1_000).floor());
            prop_assert!(many <= one * 1_000);
            prop_assert!(one * 1_000 < many + 1_001);
        }

        #[test]
        fn dearer_electricity_never_lowers_a_cost(costs in any_costs(), more in any::<u32>()) {
            let dearer = Costs {
                electricity: MicroDollars::try_from(costs.electricity.get() + u128::from(more)).unwrap(),
                ..costs
            };
            prop_assert!(dearer.floor() >= costs.floor());
        }
    }
}
