//! Sellers of a model, and the few best of them by each figure.

use std::{cmp::Ordering, collections::HashMap, sync::Arc};

use rialto_protocol::{Address, ModelId, NanoDollars, NodeKey, Price, Signature, Usage, offer::Offer};

use super::record::Record;

/// How many of the best are compared where one figure decides.
const BEST: usize = 64;

/// Uses for which the cheapest are known: much is read, much is written, and as much of both.
const USES: [Usage; 3] = [
    Usage { input: 16, output: 1 },
    Usage { input: 2, output: 1 },
    Usage { input: 1, output: 4 },
];

/// An offer in the book, with what was measured of its seller.
#[derive(Debug)]
pub struct Seller {
    /// What it offers.
    pub offer: Offer,
    /// The offer's signature.
    pub signature: Signature,
    /// Who brought the offer in.
    pub from: NodeKey,
    /// What was measured.
    pub record: Arc<Record>,
}

impl Seller {
    /// The same seller at another price, which it has agreed to.
    pub(crate) fn at(&self, price: Price) -> Self {
        Self {
            offer: Offer {
                price,
                ..self.offer.clone()
            },
            signature: self.signature,
            from: self.from,
            record: Arc::clone(&self.record),
        }
    }
}

/// A seller with the figure by which it is ranked: less is better.
pub(super) type Ranked = (f64, Arc<Seller>);

/// A snapshot of the sellers of a model, or of those in one region.
#[derive(Debug, Default)]
pub struct Pool {
    pub(super) sellers: Vec<Arc<Seller>>,
    /// Where each provider is among them.
    places: HashMap<Address, usize>,
    cheapest: [Vec<Ranked>; 3],
    pub(super) first: Vec<Ranked>,
    pub(super) fastest: Vec<Ranked>,
    pub(super) frugal: Vec<Ranked>,
    /// Seconds to the first output that are taken for true where nothing was measured.
    pub(super) usual_first: f64,
    /// Units of output a second that are.
    pub(super) usual_speed: f64,
}

impl Pool {
    /// Sorts what needs sorting. Costs a few passes over all sellers.
    pub fn new(sellers: Vec<Arc<Seller>>) -> Self {
        let usual = |figure: fn(&Record) -> Option<f64>, unknown: f64| {
            let mut known: Vec<f64> = sellers.iter().filter_map(|seller| figure(&seller.record)).collect();
            let middle = known.len() / 2;
            known.sort_unstable_by(f64::total_cmp);
            known.get(middle).copied().unwrap_or(unknown)
        };
        let (usual_first, usual_speed) = (usual(Record::first_output, 0.5), usual(Record::speed, 20.0));
        let by = |figure: &dyn Fn(&Seller) -> f64| best(&sellers, figure);
        Self {
            cheapest: USES.map(|usage| by(&|seller| cost(seller, usage))),
            first: by(&|seller| seller.record.first_output().unwrap_or(usual_first)),
            fastest: by(&|seller| 1.0 / seller.record.speed().unwrap_or(usual_speed).max(0.001)),
            frugal: by(&|seller| energy(seller)),
            usual_first,
            usual_speed,
            places: (0..)
                .zip(&sellers)
                .map(|(place, one)| (one.offer.provider, place))
                .collect(),
            sellers,
        }
    }

    /// Sellers in it.
    pub fn len(&self) -> usize {
        self.sellers.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.sellers.is_empty()
    }

    /// All of them, in no order.
    pub fn sellers(&self) -> &[Arc<Seller>] {
        &self.sellers
    }

    /// What a use costs at the cheapest of the few that are cheap for it.
    pub(crate) fn lowest_cost(&self, usage: Usage) -> Option<NanoDollars> {
        let few = self.cheapest(usage).iter();
        few.map(|(_, seller)| seller.offer.price.cost(usage)).min()
    }

    /// This seller, if it is here.
    pub(super) fn find(&self, (provider, model): (Address, ModelId)) -> Option<&Arc<Seller>> {
        let place = *self.places.get(&provider)?;
        self.sellers.get(place).filter(|seller| seller.offer.model == model)
    }

    /// Those that are among the cheapest for a use like this one.
    pub(super) fn cheapest(&self, usage: Usage) -> &[Ranked] {
        let [reads, both, writes] = &self.cheapest;
        if usage.input >= usage.output.saturating_mul(6) {
            reads
        } else if usage.output > usage.input {
            writes
        } else {
            both
        }
    }
}

/// What a use costs at a seller, in nano-dollars.
pub(super) fn cost(seller: &Seller, usage: Usage) -> f64 {
    #[expect(clippy::cast_precision_loss, reason = "compared, never billed")]
    let cost = seller.offer.price.cost(usage).0 as f64;
    cost
}

/// Millijoules a unit, as declared; nobody is chosen for not telling.
pub(super) fn energy(seller: &Seller) -> f64 {
    match seller.offer.energy_millijoules {
        0 => f64::INFINITY,
        #[expect(clippy::cast_precision_loss, reason = "compared, never billed")]
        known => known as f64,
    }
}

/// The few that are least by a figure. Among equals chance decides, so that not all gateways prefer the same.
fn best(sellers: &[Arc<Seller>], figure: &dyn Fn(&Seller) -> f64) -> Vec<Ranked> {
    let mut keyed: Vec<(f64, u32, usize)> = sellers
        .iter()
        .enumerate()
        .map(|(place, seller)| (figure(seller), rand::random(), place))
        .collect();
    let order = |one: &(f64, u32, usize), other: &(f64, u32, usize)| -> Ordering {
        one.0.total_cmp(&other.0).then(one.1.cmp(&other.1))
    };
    if keyed.len() > BEST {
        keyed.select_nth_unstable_by(BEST, order);
        keyed.truncate(BEST);
    }
    keyed.sort_unstable_by(order);
    keyed
        .into_iter()
        .filter_map(|(figure, _, place)| Some((figure, Arc::clone(sellers.get(place)?))))
        .collect()
}
