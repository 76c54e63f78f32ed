//! `provider`: what a request wants of its seller, as OpenRouter's clients spell it, with extensions of our own.

use serde::{Deserialize, Deserializer};

use crate::{BadRequest, wish::Wish};

/// Most entries of a list.
const MOST: usize = 64;
/// Most milliseconds that a hedge may wait; later there is nothing to gain.
const LONGEST_HEDGE: u64 = 600_000;
/// Most bytes of an entry.
const LONGEST: usize = 128;

/// What decides among those that fit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Sort {
    /// The lowest price.
    Price,
    /// The most output a second.
    Throughput,
    /// The shortest time to the first output.
    Latency,
    /// The least energy; an extension.
    Energy,
}

/// The highest price that is paid, in nano-dollars a unit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MaxPrice {
    /// For a unit of input.
    pub prompt: u64,
    /// For a unit of output.
    pub completion: u64,
    /// For the request itself.
    pub request: u64,
}

/// What a request wants of its seller. Absent fields ask for nothing.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Provider {
    /// Providers that are asked first.
    pub order: Option<Vec<String>>,
    /// Whether others may be asked after them.
    pub allow_fallbacks: Option<bool>,
    /// Only these.
    pub only: Option<Vec<String>>,
    /// Never these.
    pub ignore: Option<Vec<String>>,
    /// Only weights of these kinds.
    pub quantizations: Option<Vec<String>>,
    /// What decides.
    pub sort: Option<Sort>,
    /// A ceiling.
    pub max_price: Option<MaxPrice>,
    /// Sellers that are slower are asked last, in units of output a second.
    pub min_throughput: Option<f64>,
    /// Only who keeps nothing: `data_collection: "deny"`, or `zdr: true`.
    pub private: bool,
    /// Only in these regions; an extension.
    pub region: Option<Vec<String>>,
    /// At most so many millijoules a unit: the extension `energy`, in joules.
    pub max_millijoules: Option<u64>,
    /// Only engines whose answers can be checked to the bit: the extension `assurance: "exact"`.
    pub exact: bool,
    /// After how many milliseconds without any output a second seller is asked as well; an extension.
    pub hedge_after_ms: Option<u64>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Fields {
    order: Option<Vec<String>>,
    allow_fallbacks: Option<bool>,
    // Every seller supports every parameter, or refuses the request.
    #[serde(rename = "require_parameters")]
    _require_parameters: Option<bool>,
    data_collection: Option<Collection>,
    zdr: Option<bool>,
    only: Option<Vec<String>>,
    ignore: Option<Vec<String>>,
    quantizations: Option<Vec<String>>,
    sort: Option<SortField>,
    preferred_min_throughput: Option<Floor>,
    #[serde(default)]
    preferred_max_latency: Wish,
    max_price: Option<PriceFields>,
    region: Option<Names>,
    energy: Option<f64>,
    assurance: Option<Assurance>,
    hedge_after_ms: Option<u64>,
}

#[derive(Deserialize, PartialEq, Eq, Clone, Copy)]
#[serde(rename_all = "lowercase")]
enum Collection {
    Allow,
    Deny,
}

#[derive(Deserialize, PartialEq, Eq, Clone, Copy)]
#[serde(rename_all = "lowercase")]
enum Assurance {
    Any,
    Exact,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum SortField {
    Word(Sort),
    By { by: Sort },
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Floor {
    Number(f64),
    Percentiles { p50: Option<f64> },
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Names {
    One(String),
    Several(Vec<String>),
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Dollars {
    Number(f64),
    Text(String),
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct PriceFields {
    prompt: Option<Dollars>,
    completion: Option<Dollars>,
    request: Option<Dollars>,
    // Nobody sells images or sound yet: a ceiling for them holds.
    #[serde(rename = "image")]
    _image: Option<Dollars>,
    #[serde(rename = "audio")]
    _audio: Option<Dollars>,
}

impl Provider {
    /// Whether it asks for nothing at all.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

impl Fields {
    fn check(self) -> Result<Provider, BadRequest> {
        self.preferred_max_latency
            .refuse("provider.preferred_max_latency", &[], "use 'sort': 'latency'")?;
        let region = self.region.map(|names| match names {
            Names::One(name) => vec![name],
            Names::Several(names) => names,
        });
        let lists = [
            ("order", &self.order),
            ("only", &self.only),
            ("ignore", &self.ignore),
            ("quantizations", &self.quantizations),
            ("region", &region),
        ];
        for (name, list) in lists {
            let list = list.as_deref().unwrap_or_default();
            if list.len() > MOST || list.iter().any(|entry| entry.len() > LONGEST) {
                return Err(BadRequest::value(
                    format!("provider.{name}"),
                    format!("at most {MOST} entries of {LONGEST} bytes"),
                ));
            }
        }
        let min_throughput = match self.preferred_min_throughput {
            Some(Floor::Number(least) | Floor::Percentiles { p50: Some(least) }) => {
                Some(positive(least, "provider.preferred_min_throughput")?)
            }
            _ => None,
        };
        if self
            .hedge_after_ms
            .is_some_and(|pause| !(1..=LONGEST_HEDGE).contains(&pause))
        {
            let range = format!("must be from 1 to {LONGEST_HEDGE} milliseconds");
            return Err(BadRequest::value("provider.hedge_after_ms", range));
        }
        let energy = self.energy.map(|joules| positive(joules, "provider.energy"));
        Ok(Provider {
            order: self.order,
            allow_fallbacks: self.allow_fallbacks,
            only: self.only,
            ignore: self.ignore,
            quantizations: self.quantizations,
            sort: self.sort.map(|sort| match sort {
                SortField::Word(sort) | SortField::By { by: sort } => sort,
            }),
            max_price: self.max_price.map(PriceFields::check).transpose()?,
            min_throughput,
            private: self.data_collection == Some(Collection::Deny) || self.zdr == Some(true),
            region,
            max_millijoules: energy.transpose()?.map(|joules| whole(joules * 1e3)),
            exact: self.assurance == Some(Assurance::Exact),
            hedge_after_ms: self.hedge_after_ms,
        })
    }
}

impl PriceFields {
    /// Dollars a million units, and dollars a request, as nano-dollars. Rounded down: a ceiling is not exceeded.
    fn check(self) -> Result<MaxPrice, BadRequest> {
        let part = |dollars: Option<Dollars>, name: &str, scale: f64| match dollars {
            None => Ok(u64::MAX),
            Some(dollars) => {
                let at = format!("provider.max_price.{name}");
                let number = match dollars {
                    Dollars::Number(number) => Some(number),
                    Dollars::Text(text) => text.parse().ok(),
                };
                let number = number.ok_or_else(|| BadRequest::value(&*at, "must be a number of dollars"))?;
                Ok(whole(positive(number, &at)? * scale))
            }
        };
        Ok(MaxPrice {
            prompt: part(self.prompt, "prompt", 1e3)?,
            completion: part(self.completion, "completion", 1e3)?,
            request: part(self.request, "request", 1e9)?,
        })
    }
}

fn positive(number: f64, at: &str) -> Result<f64, BadRequest> {
    if number.is_finite() && number >= 0.0 {
        Ok(number)
    } else {
        Err(BadRequest::value(at, "must be zero or more"))
    }
}

/// Rounded down, but for what a decimal fraction loses in binary.
fn whole(number: f64) -> u64 {
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "positive, and too much is the most there is"
    )]
    let whole = (number + 1e-6).floor() as u64;
    whole
}

impl<'de> Deserialize<'de> for Provider {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let fields = Option::<Fields>::deserialize(deserializer)?;
        let checked = fields.map_or_else(|| Ok(Self::default()), Fields::check);
        checked.map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn read(json: &str) -> Result<Provider, serde_json::Error> {
        serde_json::from_str(json)
    }

    #[test]
    fn openrouters_fields_are_read() {
        let provider = read(
            r#"{"order": ["0x01"], "allow_fallbacks": false, "require_parameters": true, "data_collection": "deny",
                "only": ["a"], "ignore": [], "quantizations": ["q8_0"], "sort": "throughput",
                "preferred_min_throughput": {"p50": 12.5, "p90": 3}, "max_price": {"prompt": 0.1, "completion": "2", "request": 0.01}}"#,
        )
        .unwrap();
        assert_eq!(provider.order, Some(vec!["0x01".to_owned()]));
        assert_eq!((provider.allow_fallbacks, provider.private), (Some(false), true));
        assert_eq!(
            (provider.sort, provider.min_throughput),
            (Some(Sort::Throughput), Some(12.5))
        );
        let most = MaxPrice {
            prompt: 100,
            completion: 2_000,
            request: 10_000_000,
        };
        assert_eq!(provider.max_price, Some(most));
        assert_eq!(
            read(r#"{"sort": {"by": "price", "partition": "none"}}"#).unwrap().sort,
            Some(Sort::Price)
        );
    }

    #[test]
    fn our_own_fields_are_read() {
        let provider =
            read(r#"{"region": "eu-west", "energy": 0.25, "assurance": "exact", "zdr": true, "hedge_after_ms": 250}"#)
                .unwrap();
        assert_eq!(provider.hedge_after_ms, Some(250));
        assert_eq!(provider.region, Some(vec!["eu-west".to_owned()]));
        assert_eq!(provider.max_millijoules, Some(250));
        assert!(provider.exact && provider.private);
        assert!(read("null").unwrap().is_empty() && read("{}").unwrap().is_empty());
    }

    #[test]
    fn the_page_about_requests_names_every_field_with_an_example_that_is_read() {
        let page = include_str!("../../../../docs/requests.md");
        let rows = page
            .lines()
            .filter_map(|line| line.strip_prefix("| `")?.split_once("` | `"));
        let mut named = Vec::new();
        for (field, rest) in rows {
            let example = rest.split_once("` |").unwrap().0;
            read(&format!(r#"{{"{field}": {example}}}"#)).unwrap();
            named.push(field);
        }
        // serde tells which fields there are to whoever asks for another one.
        let complaint = read(r#"{"another": 1}"#).unwrap_err().to_string();
        let (_, expected) = complaint.split_once("expected one of ").unwrap();
        let mut fields: Vec<_> = expected.split('`').skip(1).step_by(2).collect();
        fields.sort_unstable();
        named.sort_unstable();
        assert_eq!(named, fields);
    }

    #[test]
    fn what_is_not_understood_is_refused_and_not_ignored() {
        for bad in [
            r#"{"regions": ["eu"]}"#,
            r#"{"sort": "best"}"#,
            r#"{"data_collection": "maybe"}"#,
            r#"{"energy": -1}"#,
            r#"{"max_price": {"prompt": "cheap"}}"#,
            r#"{"max_price": {"tokens": 1}}"#,
            r#"{"preferred_max_latency": 3}"#,
            r#"{"order": "one"}"#,
            r#"{"hedge_after_ms": 0}"#,
            r#"{"hedge_after_ms": 0.5}"#,
            r#"{"hedge_after_ms": 600001}"#,
            "7",
        ] {
            assert!(read(bad).is_err(), "{bad}");
        }
        let many = serde_json::json!({ "only": vec!["a"; 65] }).to_string();
        assert!(read(&many).is_err());
    }

    proptest! {
        #[test]
        fn a_ceiling_is_never_rounded_up(nano in 0u64..1_000_000_000) {
            #[expect(clippy::cast_precision_loss, reason = "exact below 2^53")]
            let dollars = nano as f64 / 1e3;
            let read = read(&format!(r#"{{"max_price": {{"prompt": {dollars}}}}}"#)).unwrap();
            prop_assert_eq!(read.max_price.unwrap().prompt, nano);
        }
    }
}
