//! What each policy does with sellers that differ.

use std::{
    collections::BTreeMap,
    sync::{Arc, LazyLock},
    time::Duration,
};

use proptest::prelude::*;
use rialto_protocol::{
    Address, Digest, EnergySource, ModelId, NodeKey, Price, Region, Signature, SigningKey, Usage, offer::Offer,
};

use super::*;

const MODEL: ModelId = ModelId([7; 32]);
const NOW: u64 = 1_000;
const USAGE: Usage = Usage {
    input: 100,
    output: 100,
};

static SIGNATURE: LazyLock<Signature> =
    LazyLock::new(|| SigningKey::from_bytes(&[1; 32]).unwrap().sign(&Digest::default()));

fn address(number: usize) -> Address {
    let mut bytes = [0; 20];
    bytes[..8].copy_from_slice(&(number as u64 + 1).to_be_bytes());
    Address(bytes)
}

fn seller(number: usize, change: impl FnOnce(&mut Offer)) -> Arc<Seller> {
    let mut offer = Offer {
        provider: address(number),
        node: NodeKey([1; 32]),
        addresses: Vec::new(),
        relay: None,
        model: MODEL,
        publisher: Address([5; 20]),
        price: Price {
            input: 100,
            output: 1_000,
            request: 0,
        },
        chunk: 16,
        capacity: 2,
        load: 0,
        speed: 0,
        region: Region::default(),
        energy_millijoules: 0,
        energy_source: EnergySource::Unknown,
        engine: "llama.cpp fast".into(),
        retains_data: false,
        sequence: 1,
        expires_at: NOW + 60,
    };
    change(&mut offer);
    Arc::new(Seller {
        offer,
        signature: *SIGNATURE,
        from: NodeKey([2; 32]),
        record: Arc::new(Record::new(Arc::default())),
    })
}

fn sellers(count: usize, change: impl Fn(usize, &mut Offer)) -> Vec<Arc<Seller>> {
    (0..count)
        .map(|number| seller(number, |offer| change(number, offer)))
        .collect()
}

struct Buyer {
    preferences: Preferences,
    tried: Vec<Address>,
    prefixes: Prefixes,
    prompt: Prompt,
    channels: Vec<Address>,
}

impl Buyer {
    fn sorting(sort: Sort) -> Self {
        Self::wanting(Preferences {
            sort,
            ..Preferences::default()
        })
    }

    fn wanting(preferences: Preferences) -> Self {
        Self {
            preferences,
            tried: Vec::new(),
            prefixes: Prefixes::default(),
            prompt: Prompt::default(),
            channels: Vec::new(),
        }
    }

    fn choose(&self, pools: &[Arc<Pool>]) -> Option<Decision> {
        let has_channel = |offer: &Offer| self.channels.contains(&offer.provider);
        choose(
            pools,
            &Wish {
                usage: USAGE,
                preferences: &self.preferences,
                tried: &self.tried,
                prompt: Some((&self.prefixes, &self.prompt)),
                has_channel: &has_channel,
                now: NOW,
            },
        )
    }

    /// Who is chosen how often.
    fn share(&self, sellers: Vec<Arc<Seller>>, times: usize) -> BTreeMap<Address, usize> {
        let pools = [Arc::new(Pool::new(sellers))];
        let mut share = BTreeMap::new();
        for _ in 0..times {
            let chosen = self.choose(&pools).expect("somebody");
            *share.entry(chosen.seller.offer.provider).or_default() += 1;
        }
        share
    }

    /// Who is chosen every time.
    fn only(&self, sellers: Vec<Arc<Seller>>) -> Option<Address> {
        let share = self.share(sellers, 50);
        (share.len() == 1).then(|| share.into_keys().next()).flatten()
    }
}

fn answered(seller: &Seller, first_ms: u64, units_a_second: u64) {
    let (first, second) = (Duration::from_millis(first_ms), Duration::from_secs(1));
    seller.record.answered(first, units_a_second, second);
}

#[test]
fn every_equal_seller_gets_its_share() {
    for count in [5, 200] {
        let share = Buyer::sorting(Sort::Balance).share(sellers(count, |_, _| {}), count * 200);
        assert_eq!(share.len(), count);
        assert!(share.values().all(|times| *times > 50), "{share:?}");
    }
}

#[test]
fn load_counts_relative_to_capacity() {
    let all = sellers(2, |number, offer| offer.capacity = if number == 0 { 2 } else { 64 });
    let visits = [Visit::new(&all[0].record), Visit::new(&all[1].record)];
    assert_eq!(Buyer::sorting(Sort::Balance).only(all), Some(address(1)));
    drop(visits);
}

#[test]
fn a_full_seller_waits_until_all_are_full() {
    let all = sellers(2, |number, offer| {
        offer.load = if number == 0 { 2 } else { 1 };
        offer.price.output = if number == 0 { 1 } else { 1_000 };
    });
    for sort in [
        Sort::Balance,
        Sort::Price,
        Sort::FirstToken,
        Sort::Throughput,
        Sort::Energy,
    ] {
        assert_eq!(Buyer::sorting(sort).only(all.clone()), Some(address(1)), "{sort:?}");
    }
    let full = sellers(2, |_, offer| offer.load = 2);
    let pools = [Arc::new(Pool::new(full))];
    assert_eq!(
        Buyer::sorting(Sort::Price).choose(&pools).unwrap().reason,
        "last_resort"
    );
}

#[test]
fn measured_figures_count_and_claimed_ones_do_not() {
    let all = sellers(3, |number, offer| offer.speed = if number == 0 { 1_000_000 } else { 1 });
    answered(&all[0], 900, 10);
    answered(&all[1], 100, 20);
    answered(&all[2], 500, 80);
    let first = Buyer::sorting(Sort::FirstToken).only(all.clone());
    let fastest = Buyer::sorting(Sort::Throughput).only(all.clone());
    assert_eq!((first, fastest), (Some(address(1)), Some(address(2))));
    // Two of the three may be drawn: the slowest at both is never the better one.
    let share = Buyer::sorting(Sort::Balance).share(all, 300);
    assert!(share.get(&address(0)).copied().unwrap_or(0) < 60, "{share:?}");
}

#[test]
fn energy_that_is_not_declared_comes_last() {
    let all = sellers(3, |number, offer| offer.energy_millijoules = [0, 300, 200][number]);
    assert_eq!(Buyer::sorting(Sort::Energy).only(all.clone()), Some(address(2)));
    let buyer = Buyer::wanting(Preferences {
        max_energy: Some(250),
        ..Preferences::default()
    });
    assert_eq!(buyer.only(all), Some(address(2)));
}

#[test]
fn what_an_offer_leaves_open_counts_against_it() {
    let region = Region::from_name("eu").unwrap();
    type Case = (Preferences, fn(&mut Offer));
    let cases: [Case; 5] = [
        (
            Preferences {
                regions: vec![region],
                ..Preferences::default()
            },
            |offer| offer.region = Region::from_name("eu").unwrap(),
        ),
        (
            Preferences {
                private: true,
                ..Preferences::default()
            },
            |offer| offer.retains_data = false,
        ),
        (
            Preferences {
                exact: true,
                ..Preferences::default()
            },
            |offer| offer.engine = "llama.cpp exact".into(),
        ),
        (
            Preferences {
                max_price: Price {
                    input: 100,
                    output: 999,
                    request: 0,
                },
                ..Preferences::default()
            },
            |offer| offer.price.output = 999,
        ),
        (
            Preferences {
                max_chunk: 8,
                ..Preferences::default()
            },
            |offer| offer.chunk = 8,
        ),
    ];
    for (preferences, make_fit) in cases {
        let buyer = Buyer::wanting(preferences);
        let unfit = |offer: &mut Offer| offer.retains_data = true;
        let mut all: Vec<_> = (0..40).map(|number| seller(number, unfit)).collect();
        let pools = [Arc::new(Pool::new(all.clone()))];
        assert!(buyer.choose(&pools).is_none(), "{:?}", buyer.preferences);
        all.push(seller(40, |offer| {
            offer.retains_data = true;
            make_fit(offer);
        }));
        assert_eq!(buyer.only(all), Some(address(40)), "{:?}", buyer.preferences);
    }
}

#[test]
fn names_are_obeyed() {
    let all = || sellers(30, |_, _| {});
    let wanting = |change: fn(&mut Preferences)| {
        let mut preferences = Preferences::default();
        change(&mut preferences);
        Buyer::wanting(preferences)
    };
    let only = wanting(|wanted| wanted.only = vec![address(7)]);
    assert_eq!(only.only(all()), Some(address(7)));
    let ignoring = wanting(|wanted| wanted.ignore = (0..29).map(address).collect());
    assert_eq!(ignoring.only(all()), Some(address(29)));
    let mut ordered = wanting(|wanted| wanted.order = vec![address(4), address(3)]);
    assert_eq!(ordered.only(all()), Some(address(4)));
    ordered.tried = vec![address(4)];
    assert_eq!(ordered.only(all()), Some(address(3)));
    ordered.tried.push(address(3));
    assert!(
        ordered.choose(&[Arc::new(Pool::new(all()))]).is_some(),
        "others may follow"
    );
    ordered.preferences.fallbacks = false;
    assert!(ordered.choose(&[Arc::new(Pool::new(all()))]).is_none());
}

#[test]
fn an_avoided_seller_is_the_last_resort_and_a_cheat_is_none() {
    let all = sellers(2, |number, offer| offer.load = u32::from(number == 1));
    all[0].record.punish(Penalty::Failed);
    let buyer = Buyer::sorting(Sort::Balance);
    assert_eq!(buyer.only(all.clone()), Some(address(1)));
    assert_eq!(buyer.only(vec![all[0].clone()]), Some(address(0)));
    all[0].record.punish(Penalty::Cheated);
    assert!(buyer.choose(&[Arc::new(Pool::new(vec![all[0].clone()]))]).is_none());
}

#[test]
fn a_seller_slower_than_wanted_comes_after_those_that_are_not() {
    let all = sellers(2, |number, offer| {
        offer.price.output = if number == 0 { 1 } else { 1_000 }
    });
    answered(&all[0], 1, 5);
    answered(&all[1], 1, 50);
    let buyer = Buyer::wanting(Preferences {
        min_speed: Some(20.0),
        sort: Sort::Price,
        ..Preferences::default()
    });
    assert_eq!(buyer.only(all.clone()), Some(address(1)));
    assert_eq!(buyer.only(vec![all[0].clone()]), Some(address(0)));
}

#[test]
fn an_open_channel_is_preferred_among_equals() {
    let mut buyer = Buyer::sorting(Sort::Price);
    buyer.channels = vec![address(1)];
    let share = buyer.share(sellers(3, |_, _| {}), 300);
    // It is one of the two that are compared at least every other time.
    assert!(share[&address(1)] > 110, "{share:?}");
}

#[test]
fn a_prompt_goes_where_its_beginning_went_unless_that_is_busy_or_dear() {
    let job = rialto_protocol::job::Job::Completion {
        prompt: "x".repeat(2_000),
        generation: rialto_protocol::job::Generation::default(),
    };
    let mut buyer = Buyer::sorting(Sort::Balance);
    buyer.prompt = buyer.prefixes.prompt(&job);
    buyer.prefixes.note(&buyer.prompt, address(25), MODEL);
    let mut all = sellers(40, |_, _| {});
    assert_eq!(buyer.only(all.clone()), Some(address(25)));
    let visits: Vec<_> = (0..4).map(|_| Visit::new(&all[25].record)).collect();
    assert!(!buyer.share(all.clone(), 100).contains_key(&address(25)));
    drop(visits);
    all[25] = seller(25, |offer| offer.price.output = 2_000);
    assert!(!buyer.share(all.clone(), 100).contains_key(&address(25)));
    all[25] = seller(25, |offer| offer.expires_at = NOW);
    assert!(!buyer.share(all, 100).contains_key(&address(25)));
}

/// A seller fails at once, each time; many requests come while time passes.
#[test]
fn a_seller_that_fails_fast_gets_next_to_nothing() {
    let all = sellers(4, |number, offer| {
        offer.price.output = if number == 0 { 10 } else { 1_000 }
    });
    let pools = [Arc::new(Pool::new(all.clone()))];
    for sort in [Sort::Balance, Sort::Price, Sort::FirstToken] {
        let buyer = Buyer::sorting(sort);
        let (mut failed, mut good) = (0, 0);
        for _ in 0..1_000 {
            let chosen = buyer.choose(&pools).unwrap().seller;
            if chosen.offer.provider == address(0) {
                failed += 1;
                chosen.record.punish(Penalty::Failed);
            } else {
                good += 1;
                answered(&chosen, 50, 20);
            }
        }
        assert!(failed <= 1 && good >= 999, "{sort:?}: {failed} failed");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(40))]

    #[test]
    fn the_price_paid_is_within_two_percent_of_the_cheapest_that_can(
        prices in prop::collection::vec((1u64..10_000, 1u64..10_000), 3..400),
        busy in prop::collection::vec(any::<bool>(), 400),
        input in 1u64..5_000,
        output in 1u64..5_000,
    ) {
        let all: Vec<_> = prices.iter().enumerate().map(|(number, (read, written))| seller(number, |offer| {
            offer.price = Price { input: *read, output: *written, request: 0 };
            offer.load = if busy[number] && number > 0 { 2 } else { 0 };
        })).collect();
        let usage = Usage { input, output };
        let feasible = all.iter().filter(|one| one.offer.load < one.offer.capacity);
        let cheapest = feasible.map(|one| one.offer.price.cost(usage).0).min().unwrap();
        let pools = [Arc::new(Pool::new(all))];
        let preferences = Preferences { sort: Sort::Price, ..Preferences::default() };
        for _ in 0..20 {
            let wish = Wish { usage, preferences: &preferences, tried: &[], prompt: None, has_channel: &|_| false, now: NOW };
            let paid = choose(&pools, &wish).unwrap().seller.offer.price.cost(usage).0;
            prop_assert!(paid * 100 <= cheapest * 102, "{} for {}", paid, cheapest);
        }
    }

    #[test]
    fn whoever_is_chosen_fits(
        offers in prop::collection::vec((0u64..4, any::<bool>(), 0u64..3, 0usize..3), 1..120),
        private: bool,
        region in 0usize..4,
        ceiling in 0u64..4,
    ) {
        let regions = ["", "eu", "us"].map(|name| Region::from_name(name).unwrap());
        let all: Vec<_> = offers.iter().enumerate().map(|(number, (price, retains, load, place))| seller(number, |offer| {
            offer.price.output = *price;
            offer.retains_data = *retains;
            offer.load = u32::try_from(*load).unwrap();
            offer.region = regions[*place];
        })).collect();
        let wanted = Preferences {
            private,
            regions: regions.get(region).filter(|one| **one != Region::default()).into_iter().copied().collect(),
            max_price: Price { input: u64::MAX, output: ceiling, request: u64::MAX },
            ..Preferences::default()
        };
        let fits = |offer: &Offer| offer.price.output <= ceiling && !(private && offer.retains_data)
            && (wanted.regions.is_empty() || wanted.regions.contains(&offer.region));
        let any = all.iter().any(|one| fits(&one.offer));
        let chosen = Buyer::wanting(wanted.clone()).choose(&[Arc::new(Pool::new(all))]);
        prop_assert_eq!(chosen.is_some(), any);
        if let Some(chosen) = chosen {
            prop_assert!(fits(&chosen.seller.offer));
        }
    }
}
