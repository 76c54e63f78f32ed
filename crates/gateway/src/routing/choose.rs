//! The decision itself.

use std::{fmt, sync::Arc};

use rialto_protocol::{Address, Usage, offer::Offer};

use super::{
    balance,
    candidate::{Candidate, Class},
    energy, first_token,
    pool::{Pool, Seller},
    preferences::{Preferences, Sort},
    prefix::{Prefixes, Prompt},
    price, throughput,
};

/// Times that chance is asked for a seller that fits, before all are looked at.
const DRAWS: usize = 8;
/// Pools that are looked at whole: chance might miss the only one that fits.
const SMALL: usize = 16;
/// How much more a seller that remembers the prompt may cost, where the price is not what decides.
const REMEMBERED: f64 = 1.1;

/// What is known of a request.
#[derive(Clone, Copy)]
pub struct Wish<'a> {
    /// What it is likely to use.
    pub usage: Usage,
    /// What its buyer wants.
    pub preferences: &'a Preferences,
    /// Providers that were asked already.
    pub tried: &'a [Address],
    /// Its prompt, and who has read prompts like it.
    pub prompt: Option<(&'a Prefixes, &'a Prompt)>,
    /// Whether a channel with a seller is open.
    pub has_channel: &'a (dyn Fn(&Offer) -> bool + Sync),
    /// Seconds since 1970.
    pub now: u64,
}

impl fmt::Debug for Wish<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Wish")
            .field("usage", &self.usage)
            .field("preferences", &self.preferences)
            .field("tried", &self.tried)
            .finish_non_exhaustive()
    }
}

/// Who gets a request, and what decided that.
#[derive(Debug, Clone)]
pub struct Decision {
    /// The seller.
    pub seller: Arc<Seller>,
    /// The policy that decided: `order`, `prefix_cache`, `balance`, `price`, `latency`, `throughput`, `energy`; or
    /// `last_resort` where only sellers that are full, slow or avoided are left.
    pub reason: &'static str,
}

/// The seller for a request; `None` if nobody fits.
pub fn choose(pools: &[Arc<Pool>], wish: &Wish<'_>) -> Option<Decision> {
    if let Some(first) = in_order(pools, wish) {
        return Some(first);
    }
    let usual = match wish.preferences.sort {
        Sort::Balance => drawn(pools, wish).map(|found| (found, "balance")),
        Sort::Price => select(price::ranked(pools, wish), price::BAND, pools, wish).map(|found| (found, "price")),
        Sort::FirstToken => {
            select(first_token::ranked(pools), first_token::BAND, pools, wish).map(|found| (found, "latency"))
        }
        Sort::Throughput => {
            select(throughput::ranked(pools), throughput::BAND, pools, wish).map(|found| (found, "throughput"))
        }
        Sort::Energy => select(energy::ranked(pools), energy::BAND, pools, wish).map(|found| (found, "energy")),
    };
    let (usual, reason) = usual.or_else(|| among_all(pools, wish))?;
    let (chosen, reason) = match remembering(pools, wish, &usual) {
        Some(one) => (one, "prefix_cache"),
        None => (usual, reason),
    };
    Some(Decision {
        seller: Arc::clone(chosen.seller),
        reason,
    })
}

fn candidates<'p>(pools: &'p [Arc<Pool>], wish: &Wish<'_>) -> impl Iterator<Item = Candidate<'p>> {
    let all = pools
        .iter()
        .flat_map(|pool| pool.sellers.iter().map(move |seller| (pool, seller)));
    all.filter_map(|(pool, seller)| Candidate::new(seller, pool, wish))
}

/// The first of the buyer's own order that can take it.
fn in_order(pools: &[Arc<Pool>], wish: &Wish<'_>) -> Option<Decision> {
    let order = &wish.preferences.order;
    if order.is_empty() {
        return None;
    }
    let place = |one: &Candidate<'_>| order.iter().position(|name| *name == one.seller.offer.provider);
    let named = candidates(pools, wish).filter_map(|one| Some((one.class == Class::Avoided, place(&one)?, one)));
    let (.., first) = named.min_by_key(|(avoided, place, _)| (*avoided, *place))?;
    Some(Decision {
        seller: Arc::clone(first.seller),
        reason: "order",
    })
}

/// The better of two drawn at random.
fn drawn<'p>(pools: &'p [Arc<Pool>], wish: &Wish<'_>) -> Option<Candidate<'p>> {
    let all: usize = pools.iter().map(|pool| pool.len()).sum();
    if all <= SMALL {
        return None;
    }
    let one = draw(pools, all, wish, None)?;
    // A seller is no choice against itself: it would be taken however bad it is.
    match draw(pools, all, wish, Some(one.seller)) {
        Some(other) => Some(better(one, other, wish)),
        None => Some(one),
    }
}

fn draw<'p>(pools: &'p [Arc<Pool>], all: usize, wish: &Wish<'_>, but: Option<&Arc<Seller>>) -> Option<Candidate<'p>> {
    (0..DRAWS).find_map(|_| {
        let mut place = rand::random_range(0..all);
        for pool in pools {
            match pool.sellers.get(place) {
                Some(seller) if but.is_some_and(|but| Arc::ptr_eq(but, seller)) => return None,
                Some(seller) => return Candidate::new(seller, pool, wish).filter(|one| one.class == Class::Good),
                None => place -= pool.len(),
            }
        }
        None
    })
}

fn better<'p>(one: Candidate<'p>, other: Candidate<'p>, wish: &Wish<'_>) -> Candidate<'p> {
    if balance::score(&other, wish) < balance::score(&one, wish) {
        other
    } else {
        one
    }
}

/// The best by a figure that can take the request; of those within the band around it, a second is drawn, and the one
/// with less to do wins: an open channel is worth more than a place in the queue.
fn select<'p>(
    mut ranked: Vec<(f64, &'p Arc<Seller>)>,
    band: f64,
    pools: &'p [Arc<Pool>],
    wish: &Wish<'_>,
) -> Option<Candidate<'p>> {
    let pool = pools.first()?;
    let good = |seller| Candidate::new(seller, pool, wish).filter(|one| one.class == Class::Good);
    let (least, best) = loop {
        let figures = ranked.iter().enumerate();
        let (place, _) = figures.min_by(|(_, one), (_, other)| one.0.total_cmp(&other.0))?;
        let (figure, seller) = ranked.swap_remove(place);
        if let Some(best) = good(seller) {
            break (figure, best);
        }
    };
    let most = least + least.abs() * band;
    ranked.retain(|(figure, _)| *figure <= most);
    let rival = (!ranked.is_empty()).then(|| rand::random_range(0..ranked.len()));
    let rival = rival
        .and_then(|place| ranked.get(place))
        .and_then(|(_, seller)| good(seller));
    let Some(rival) = rival else { return Some(best) };
    let burden = |one: &Candidate<'_>| (!(wish.has_channel)(&one.seller.offer), one.load);
    let ((unopened, load), (rival_unopened, rival_load)) = (burden(&best), burden(&rival));
    if (rival_unopened, rival_load) < (unopened, load) {
        Some(rival)
    } else {
        Some(best)
    }
}

/// Where chance or the few best find nobody: all are looked at, and those against whom least speaks are compared.
fn among_all<'p>(pools: &'p [Arc<Pool>], wish: &Wish<'_>) -> Option<(Candidate<'p>, &'static str)> {
    let all: Vec<Candidate<'p>> = candidates(pools, wish).collect();
    let class = all.iter().map(|one| one.class).min()?;
    let fit: Vec<Candidate<'p>> = all.into_iter().filter(|one| one.class == class).collect();
    let sort = wish.preferences.sort;
    let reason = match (class, sort) {
        (Class::Good, Sort::Balance) => "balance",
        (Class::Good, Sort::Price) => "price",
        (Class::Good, Sort::FirstToken) => "latency",
        (Class::Good, Sort::Throughput) => "throughput",
        (Class::Good, Sort::Energy) => "energy",
        _ => "last_resort",
    };
    let figure = |one: &Candidate<'_>| match sort {
        Sort::Balance => balance::score(one, wish),
        Sort::Price => one.cost,
        Sort::FirstToken => one.first,
        Sort::Throughput => 1.0 / one.speed,
        Sort::Energy => one.energy,
    };
    let any = |fit: &[Candidate<'p>]| fit.get(rand::random_range(0..fit.len().max(1))).copied();
    if sort == Sort::Balance {
        let (one, other) = (any(&fit)?, any(&fit)?);
        // Of few, the best is as quickly found as two.
        let best = fit.iter().copied().reduce(|one, other| better(one, other, wish))?;
        let chosen = if fit.len() <= 2 { best } else { better(one, other, wish) };
        return Some((chosen, reason));
    }
    let least = fit.iter().map(figure).fold(f64::INFINITY, f64::min);
    let near: Vec<Candidate<'p>> = fit
        .into_iter()
        .filter(|one| figure(one) <= least + least.abs() * price::BAND)
        .collect();
    let (one, other) = (any(&near)?, any(&near)?);
    let chosen = if other.load < one.load { other } else { one };
    Some((chosen, reason))
}

/// A seller that has read this prompt's beginning, if it has room and does not cost more than that is worth.
fn remembering<'p>(pools: &'p [Arc<Pool>], wish: &Wish<'_>, usual: &Candidate<'p>) -> Option<Candidate<'p>> {
    let (prefixes, prompt) = wish.prompt?;
    let seller = prefixes.find(prompt)?;
    if seller == (usual.seller.offer.provider, usual.seller.offer.model) {
        return Some(*usual);
    }
    let (pool, seller) = pools
        .iter()
        .find_map(|pool| pool.find(seller).map(|seller| (pool, seller)))?;
    let one = Candidate::new(seller, pool, wish)?;
    let dearer = match wish.preferences.sort {
        Sort::Price => 1.0 + price::BAND,
        _ => REMEMBERED,
    };
    let worse = one.class > usual.class || one.cost > usual.cost * dearer || one.load > usual.load + 1.0;
    (!worse).then_some(one)
}
