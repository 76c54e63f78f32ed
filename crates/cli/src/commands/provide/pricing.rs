//! How the models' prices are found: `[[provider.pricing]]` and its flags.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use rialto_network::Node;
use rialto_protocol::{Address, Price, offer::Announcement};
use rialto_provider::price::{Congestion, Policy};

use super::super::{
    bench::Benchmark,
    price::{self, Terms},
};
use crate::{
    args,
    market::Market,
    models::Found,
    output,
    settings::{PricePolicy, PricingFile, Settings},
};

/// A dollar a million units of input, four of output.
const DEFAULT_PRICE: Price = Price {
    input: 1_000,
    output: 4_000,
    request: 0,
};

/// How many times of its floor a price may rise to, unless a ceiling is said.
const DEFAULT_CEILING: u64 = 4;

/// The load at which a price stays, in percent of the slots.
const DEFAULT_TARGET: u32 = 75;

/// Seconds between two steps of a price.
const DEFAULT_STEP: u64 = 10;

/// What was said of prices, by flags and in the file, and what the market suggests.
pub(super) struct Pricing<'a> {
    settings: &'a Settings,
    options: &'a args::Provide,
    suggesting: Option<(Terms, Vec<Announcement>)>,
}

impl<'a> Pricing<'a> {
    /// Reads what was said; asks the market only where its prices matter.
    pub(super) async fn new(
        settings: &'a Settings,
        options: &'a args::Provide,
        market: &Market,
        node: &Node,
        own: Address,
    ) -> Result<Self> {
        let file = &settings.file.provider;
        for (place, one) in file.pricing.iter().enumerate() {
            let twice = file
                .pricing
                .iter()
                .skip(place + 1)
                .any(|other| other.model == one.model);
            let name = one.model.as_deref().unwrap_or("all others");
            ensure!(!twice, "`provider.pricing`: {name} is there twice");
        }
        let suggesting = if options.suggested_price || file.suggested_price {
            let terms = Terms::new(settings, None, None)?;
            Some((terms, price::others(node, market, Some(own)).await))
        } else {
            None
        };
        Ok(Self {
            settings,
            options,
            suggesting,
        })
    }

    /// How a model is priced.
    pub(super) fn of(&self, model: &Found, measured: Option<&Benchmark>) -> Result<Policy> {
        let name = model.manifest.listing();
        let usual = PricingFile::default();
        let said = self.said(&name).unwrap_or(&usual);
        match self.options.price_policy.unwrap_or(said.policy) {
            PricePolicy::Fixed => Ok(Policy::Fixed(self.fixed(model, measured, said))),
            PricePolicy::CostPlus => {
                let measured = measured.with_context(|| {
                    format!("{name}: what it costs is not known: `rialto model bench` measures a model that runs here")
                })?;
                let terms = Terms::new(self.settings, None, said.margin)?;
                Ok(Policy::CostPlus(terms.cost_plus(measured)))
            }
            PricePolicy::Congestion => Ok(Policy::Congestion(congestion(self.fixed(model, measured, said), said))),
        }
    }

    /// What the file says of a model, or of all that it does not name.
    fn said(&self, name: &str) -> Option<&PricingFile> {
        let pricing = &self.settings.file.provider.pricing;
        let of = |model: Option<&str>| pricing.iter().find(|one| one.model.as_deref() == model);
        of(Some(name)).or_else(|| of(None))
    }

    /// As it was said, as it is suggested if that was asked for, or the usual.
    fn fixed(&self, model: &Found, measured: Option<&Benchmark>, said: &PricingFile) -> Price {
        let mut price = DEFAULT_PRICE;
        match (&self.suggesting, measured) {
            (Some((terms, book)), Some(measured)) => {
                let suggested = terms.suggest(measured, &price::of_model(book, model));
                price.input = suggested.input.price;
                // Where output is not counted its price is never asked.
                price.output = suggested.output.map_or(0, |output| output.price);
                for said in suggested.explained(&measured.unit) {
                    output::say(format_args!("  {}: {said}", measured.model));
                }
            }
            (Some(_), None) => output::say(format_args!(
                "  {}: the usual price, since it was not measured: `rialto model bench` does that",
                model.manifest.listing()
            )),
            (None, _) => {}
        }
        let file = &self.settings.file.provider;
        let input = self.options.price_input.or(said.input).or(file.price_input);
        let output = self.options.price_output.or(said.output).or(file.price_output);
        Price {
            input: input.unwrap_or(price.input),
            output: output.unwrap_or(price.output),
            request: said.request.unwrap_or(price.request),
        }
    }
}

fn congestion(floor: Price, said: &PricingFile) -> Congestion {
    let ceiling = |said: Option<u64>, floor: u64| said.unwrap_or(floor.saturating_mul(DEFAULT_CEILING));
    Congestion {
        floor,
        ceiling: Price {
            input: ceiling(said.ceiling_input, floor.input),
            output: ceiling(said.ceiling_output, floor.output),
            request: ceiling(said.ceiling_request, floor.request),
        },
        target_percent: said.target.unwrap_or(DEFAULT_TARGET),
        step: Duration::from_secs(said.step.unwrap_or(DEFAULT_STEP)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ceiling_that_is_not_said_is_four_times_the_floor() {
        let said = PricingFile {
            ceiling_output: Some(9_000),
            target: Some(50),
            ..PricingFile::default()
        };
        let policy = congestion(DEFAULT_PRICE, &said);
        assert_eq!((policy.ceiling.input, policy.ceiling.output), (4_000, 9_000));
        assert_eq!((policy.target_percent, policy.step), (50, Duration::from_secs(10)));
        Policy::Congestion(policy).check().unwrap();
    }
}
