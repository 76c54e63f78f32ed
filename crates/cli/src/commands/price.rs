//! `rialto price`: what a unit of each model costs here, what others ask for it, and what to ask therefore.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use rialto_machine::price::{self, Amortisation, Costs, DEFAULT_ELECTRICITY, DEFAULT_MARGIN_PERCENT, Suggestion};
use rialto_network::{Node, NodeConfig};
use rialto_protocol::{
    Address, MicroDollars,
    offer::Announcement,
    wire::{OffersRequest, OffersResponse},
};
use rialto_provider::price::{CostPlus, Takes};
use serde::Serialize;
use serde_json::json;
use zeroize::Zeroizing;

use super::bench::{Bench, Benchmark};
use crate::{
    args::{self, Place},
    keys,
    market::Market,
    models::{self, Found},
    output,
    settings::Settings,
};

/// Years in which a machine is earned back unless it is said.
const DEFAULT_YEARS: u32 = 4;

/// Seconds of a year.
const YEAR: u64 = 31_557_600;

/// Part of the time in which a machine is expected to have work, in percent.
const BUSY_PERCENT: u32 = 50;

/// What a seller said of its costs.
#[derive(Debug, Clone, Copy)]
pub(super) struct Terms {
    electricity: MicroDollars,
    margin_percent: u32,
    amortisation: Option<Amortisation>,
}

/// What to ask for a model.
#[derive(Debug, Clone, Copy, Serialize)]
pub(super) struct Suggested {
    /// For a unit of input.
    pub(super) input: Suggestion,
    /// For a unit of output; `None` where it is not counted.
    pub(super) output: Option<Suggestion>,
}

impl Terms {
    /// As flags say, or the file, or what is usual.
    pub(super) fn new(settings: &Settings, electricity: Option<&String>, margin: Option<u32>) -> Result<Self> {
        let file = &settings.file.provider;
        let electricity = match electricity.or(file.electricity.as_ref()) {
            Some(text) => {
                MicroDollars::from_dollars(text).context("electricity: dollars for a kilowatt-hour, such as 0.25")?
            }
            None => DEFAULT_ELECTRICITY,
        };
        let hardware = file.hardware.as_ref().map(|text| {
            MicroDollars::from_dollars(text).context("`provider.hardware`: dollars that the machine cost, such as 1500")
        });
        let years = u64::from(file.hardware_years.unwrap_or(DEFAULT_YEARS)).max(1);
        Ok(Self {
            electricity,
            margin_percent: margin.or(file.margin).unwrap_or(DEFAULT_MARGIN_PERCENT),
            amortisation: hardware.transpose()?.map(|hardware| Amortisation {
                hardware,
                lifetime: years.saturating_mul(YEAR),
                busy_percent: BUSY_PERCENT,
            }),
        })
    }

    /// The policy that asks cost and margin for what was measured.
    pub(super) fn cost_plus(&self, measured: &Benchmark) -> CostPlus {
        let takes = |microjoules, per_second| Takes {
            microjoules,
            nanoseconds: nanoseconds(per_second),
        };
        let output = measured.output_microjoules.zip(measured.output_per_second);
        CostPlus {
            input: takes(measured.input_microjoules, measured.input_per_second),
            output: output.map(|(microjoules, per_second)| takes(microjoules, per_second)),
            electricity: self.electricity,
            amortisation: self.amortisation,
            margin_percent: self.margin_percent,
        }
    }

    /// What to ask for what was measured, beside these offers of the same model.
    pub(super) fn suggest(&self, measured: &Benchmark, offers: &[&Announcement]) -> Suggested {
        let costs = |microjoules, per_second| Costs {
            microjoules,
            source: measured.energy_source,
            nanoseconds: nanoseconds(per_second),
            electricity: self.electricity,
            amortisation: self.amortisation,
        };
        let asked = |unit: fn(&Announcement) -> u64| offers.iter().map(|offer| unit(offer)).collect::<Vec<u64>>();
        let suggest = |costs: Costs, offers: &[u64]| price::suggest(&costs, self.margin_percent, offers);
        let input = costs(measured.input_microjoules, measured.input_per_second);
        let output = measured.output_microjoules.zip(measured.output_per_second);
        Suggested {
            input: suggest(input, &asked(|one| one.offer.price.input)),
            output: output.map(|(microjoules, per_second)| {
                suggest(costs(microjoules, per_second), &asked(|one| one.offer.price.output))
            }),
        }
    }
}

/// What one unit takes at this speed.
fn nanoseconds(per_second: f64) -> u64 {
    let nanoseconds = (1e9 / per_second.max(1e-3)).clamp(0.0, 1e12);
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "the value was clamped to the range"
    )]
    let whole = nanoseconds.ceil() as u64;
    whole
}

/// Live offers of others, from the first meeting node that answers; none when no node does.
pub(super) async fn others(node: &Node, market: &Market, own: Option<Address>) -> Vec<Announcement> {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    let now = now.map_or(0, |since| since.as_secs());
    for peer in &market.ticket.meeting {
        let Ok(OffersResponse::Book(mut book)) = node.offers(peer, &OffersRequest::Browse).await else {
            continue;
        };
        // A node may say anything; an offer without its seller's signature is nobody's price.
        book.retain(|one| Some(one.offer.provider) != own && one.check(now).is_ok());
        return book;
    }
    Vec::new()
}

/// The offers of one model, whoever published it.
pub(super) fn of_model<'a>(book: &'a [Announcement], model: &Found) -> Vec<&'a Announcement> {
    book.iter().filter(|one| *one.manifest == model.manifest).collect()
}

/// Suggests for the named models, or for those that are sold.
pub(crate) async fn run(settings: &Settings, options: &args::Price) -> Result<()> {
    let terms = Terms::new(settings, options.electricity.as_ref(), options.margin)?;
    let book = browse(settings, options).await;
    let bench = Bench::here();
    let load = super::provide::load_options(settings, None, None);
    let mut values = Vec::new();
    let mut lines = Vec::new();
    for model in named(settings, &options.models)? {
        let kept = bench.kept_of(&settings.dir, &model, &load);
        let measured = match kept {
            Some(kept) => kept,
            None => {
                let engine = super::provide::load(&model, &load).await?;
                bench.measure(&settings.dir, &model, engine.as_ref(), &load).await?
            }
        };
        let suggested = terms.suggest(&measured, &of_model(&book, &model));
        values.push(json!({
            "model": measured.model, "unit": measured.unit, "input": suggested.input, "output": suggested.output,
            "explained": suggested.explained(&measured.unit), "benchmark": measured,
        }));
        lines.push(format!("{}: {}", measured.model, measured.said()));
        lines.extend(
            suggested
                .explained(&measured.unit)
                .into_iter()
                .map(|said| format!("  {said}")),
        );
    }
    output::either(settings.json, &values, || {
        for line in &lines {
            output::line(line);
        }
    })
}

impl Suggested {
    /// A sentence for each price.
    pub(super) fn explained(&self, unit: &str) -> Vec<String> {
        let said = |what: &str, suggestion: &Suggestion| {
            format!("{what} {} nano-dollars a {unit}: {suggestion}", suggestion.price)
        };
        let output = self.output.iter().map(|output| said("output", output));
        std::iter::once(said("input", &self.input)).chain(output).collect()
    }
}

/// Others' offers, if a market is known; otherwise says why only the cost counts.
async fn browse(settings: &Settings, options: &args::Price) -> Vec<Announcement> {
    let place = Place {
        ticket: options.ticket.clone(),
        ..Place::default()
    };
    let asked = async {
        let market = Market::find(settings, &place)?;
        let own = keys::existing(&settings.dir, "provider/account.json")?.map(|key| key.address());
        // A node of its own, so that a running provider's is left alone.
        let node = Node::bind(NodeConfig {
            secret: Zeroizing::new(rand::random()),
            listen: ([127, 0, 0, 1], 0).into(),
            relay: settings.file.relay.clone(),
        });
        let node = node.await?;
        let book = others(&node, &market, own).await;
        node.close().await;
        anyhow::Ok(book)
    };
    match asked.await {
        Ok(book) => book,
        Err(error) => {
            output::say(format_args!("only your cost counts: {error:#}"));
            Vec::new()
        }
    }
}

/// Models by the path of their manifest, or by their name among those that are here.
fn named(settings: &Settings, names: &[String]) -> Result<Vec<Found>> {
    let sold = || models::find(&settings.file.provider.models);
    if names.is_empty() {
        return sold();
    }
    let mut found = Vec::new();
    for name in names {
        if Path::new(name).is_file() {
            found.push(Found::read(&PathBuf::from(name))?);
            continue;
        }
        let one = sold()?.into_iter().find(|one| one.manifest.listing() == *name);
        found.push(one.with_context(|| {
            format!("no model here is called {name}: give the path of its manifest.toml, or see `rialto model list`")
        })?);
    }
    Ok(found)
}

#[cfg(test)]
mod tests;
