//! What a buyer wants of a seller: the owner's ceilings, a key's defaults, and the request's `provider` object.

use std::time::Duration;

use rialto_api::{BadRequest, openai};
use rialto_protocol::{Address, Price, Region};

/// What decides among those that fit.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Sort {
    /// Price, speed, load and reliability together.
    #[default]
    Balance,
    /// The lowest likely cost.
    Price,
    /// The shortest time to the first output.
    FirstToken,
    /// The most output a second.
    Throughput,
    /// The least energy a unit.
    Energy,
}

/// What a buyer wants of a seller.
#[derive(Debug, Clone, PartialEq)]
pub struct Preferences {
    /// The highest price that is paid.
    pub max_price: Price,
    /// The largest chunk that is paid ahead.
    pub max_chunk: u64,
    /// Providers that are asked first, in this order.
    pub order: Vec<Address>,
    /// Whether others may be asked after those of `order`.
    pub fallbacks: bool,
    /// Only these; empty for all.
    pub only: Vec<Address>,
    /// Never these.
    pub ignore: Vec<Address>,
    /// Only in these regions; empty for all. Nobody there is nobody at all.
    pub regions: Vec<Region>,
    /// Only who keeps nothing and passes nothing on.
    pub private: bool,
    /// Only weights of these kinds, lower case; empty for all.
    pub quantizations: Vec<String>,
    /// At most so many millijoules a unit.
    pub max_energy: Option<u64>,
    /// Only engines whose answers can be checked to the bit.
    pub exact: bool,
    /// Sellers that were measured slower, in units of output a second, are asked last.
    pub min_speed: Option<f64>,
    /// What decides among those that fit.
    pub sort: Sort,
    /// After how long without any output a second seller is asked as well.
    pub hedge_after: Option<Duration>,
}

impl Default for Preferences {
    fn default() -> Self {
        Self {
            max_price: Price {
                input: u64::MAX,
                output: u64::MAX,
                request: u64::MAX,
            },
            max_chunk: u64::MAX,
            order: Vec::new(),
            fallbacks: true,
            only: Vec::new(),
            ignore: Vec::new(),
            regions: Vec::new(),
            private: false,
            quantizations: Vec::new(),
            max_energy: None,
            exact: false,
            min_speed: None,
            sort: Sort::default(),
            hedge_after: None,
        }
    }
}

impl Preferences {
    /// Narrows these by what a request, or a key's defaults, say. A ceiling is never raised; lists that the request
    /// names take the place of those from before, but what was ignored stays so.
    pub fn narrowed(mut self, wanted: &openai::Provider) -> Result<Self, BadRequest> {
        if let Some(most) = wanted.max_price {
            self.max_price = Price {
                input: self.max_price.input.min(most.prompt),
                output: self.max_price.output.min(most.completion),
                request: self.max_price.request.min(most.request),
            };
        }
        let replace = |list: &mut Vec<Address>, names: &Option<Vec<String>>, at: &str| -> Result<(), BadRequest> {
            if let Some(names) = names {
                *list = addresses(names, at)?;
            }
            Ok(())
        };
        replace(&mut self.order, &wanted.order, "provider.order")?;
        replace(&mut self.only, &wanted.only, "provider.only")?;
        self.ignore.extend(addresses(
            wanted.ignore.as_deref().unwrap_or_default(),
            "provider.ignore",
        )?);
        if let Some(names) = &wanted.region {
            self.regions = regions(names)?;
        }
        if let Some(kinds) = &wanted.quantizations {
            self.quantizations = kinds.iter().map(|kind| kind.to_ascii_lowercase()).collect();
        }
        self.fallbacks = wanted.allow_fallbacks.unwrap_or(self.fallbacks);
        self.private |= wanted.private;
        self.exact |= wanted.exact;
        self.max_energy = match (self.max_energy, wanted.max_millijoules) {
            (Some(one), Some(other)) => Some(one.min(other)),
            (one, other) => one.or(other),
        };
        self.min_speed = wanted.min_throughput.or(self.min_speed);
        self.hedge_after = wanted.hedge_after_ms.map(Duration::from_millis).or(self.hedge_after);
        if let Some(sort) = wanted.sort {
            self.sort = match sort {
                openai::Sort::Price => Sort::Price,
                openai::Sort::Throughput => Sort::Throughput,
                openai::Sort::Latency => Sort::FirstToken,
                openai::Sort::Energy => Sort::Energy,
            };
        }
        Ok(self)
    }

    /// Whether this provider is among those that are wanted.
    pub(super) fn names(&self, provider: &Address) -> bool {
        !self.ignore.contains(provider)
            && (self.only.is_empty() || self.only.contains(provider))
            && (self.fallbacks || self.order.is_empty() || self.order.contains(provider))
    }

    /// Whether a seller was measured slower than the buyer would like.
    pub(super) fn is_slower(&self, speed: Option<f64>) -> bool {
        matches!((self.min_speed, speed), (Some(least), Some(speed)) if speed < least)
    }

    /// Whether weights of this kind are wanted.
    pub(crate) fn takes(&self, quantization: &str) -> bool {
        let kinds = &self.quantizations;
        kinds.is_empty() || kinds.iter().any(|kind| kind.eq_ignore_ascii_case(quantization))
    }
}

fn addresses(names: &[String], at: &str) -> Result<Vec<Address>, BadRequest> {
    let address = |name: &String| {
        let shown: String = name.chars().take(64).collect();
        name.parse().map_err(|_| {
            BadRequest::value(
                at,
                format!("'{shown}' is not a provider's address; `rialto market` lists them"),
            )
        })
    };
    names.iter().map(address).collect()
}

fn regions(names: &[String]) -> Result<Vec<Region>, BadRequest> {
    let region = |name: &String| {
        Region::from_name(name)
            .filter(|region| *region != Region::default())
            .ok_or_else(|| BadRequest::value("provider.region", "a region has 1 to 8 visible characters"))
    };
    names.iter().map(region).collect()
}
