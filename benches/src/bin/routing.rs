//! Routing alone, without a network: what a decision costs at up to 100,000 sellers, what price routing pays, what a seller
//! that fails at once gets, and what sending prompts where their beginning was read is worth. The decisions are those of the
//! gateway; only the sellers are simulated, on a clock of their own.

use std::{
    cmp::Reverse,
    collections::{BinaryHeap, VecDeque},
    hint::black_box,
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::{Context, Result};
use rialto_benches::{Report, median};
use rialto_gateway::routing::{Penalty, Pool, Preferences, Prefixes, Record, Seller, Sort, Visit, Wish, choose};
use rialto_protocol::{
    Address, Digest, EnergySource, ModelId, NodeKey, Price, Region, SigningKey, Usage,
    job::{Generation, Job},
    offer::Offer,
};

const NOW: u64 = 1_000;
const MODEL: ModelId = ModelId([7; 32]);
const USAGE: Usage = Usage {
    input: 600,
    output: 200,
};

fn main() -> Result<()> {
    let mut report = Report::new("routing");
    for count in [10usize, 1_000, 10_000, 100_000] {
        let sellers = sellers(count, 8)?;
        for (name, sort) in [
            ("balance", Sort::Balance),
            ("price", Sort::Price),
            ("latency", Sort::FirstToken),
        ] {
            let nanos = decision(&sellers, sort)?;
            report.row(format!("a decision by {name} among {count} sellers"), nanos, "ns");
        }
    }
    let sellers_100k = sellers(100_000, 8)?;
    let sorting = Instant::now();
    black_box(Pool::new(sellers_100k));
    report.row(
        "sorting 100,000 sellers anew, beside the requests",
        sorting.elapsed().as_secs_f64() * 1e3,
        "ms",
    );
    report.row(
        "price paid against the cheapest that can, 10,000 sellers",
        price_paid()?,
        "times",
    );
    report.row(
        "share of a seller that fails at once, after 1 s",
        failing()? * 100.0,
        "%",
    );
    let (random, routed) = (shared_prefixes(false)?, shared_prefixes(true)?);
    report.row("shared prefixes, sellers drawn at random", random, "requests/s");
    report.row("shared prefixes, routed", routed, "requests/s");
    report.row("routed against random", routed / random, "times");
    report.finish()
}

/// Sellers with prices from a fixed sequence of numbers, each measured once.
fn sellers(count: usize, capacity: u32) -> Result<Vec<Arc<Seller>>> {
    let signature = SigningKey::from_bytes(&[1; 32])?.sign(&Digest::default());
    let mut state = 88_172_645_463_325_252u64;
    let mut draw = move |most: u64| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state % most
    };
    (0..count)
        .map(|number| {
            let mut provider = [0; 20];
            provider
                .first_chunk_mut::<8>()
                .context("twenty bytes")?
                .copy_from_slice(&u64::try_from(number)?.to_be_bytes());
            let record = Arc::new(Record::new(Arc::default()));
            record.answered(
                Duration::from_millis(50 + draw(500)),
                10 + draw(90),
                Duration::from_secs(1),
            );
            Ok(Arc::new(Seller {
                offer: Offer {
                    provider: Address(provider),
                    node: NodeKey([1; 32]),
                    addresses: Vec::new(),
                    relay: None,
                    model: MODEL,
                    publisher: Address([5; 20]),
                    price: Price {
                        input: 500 + draw(1_000),
                        output: 2_000 + draw(4_000),
                        request: 0,
                    },
                    chunk: 64,
                    capacity,
                    load: 0,
                    speed: 0,
                    region: Region::default(),
                    energy_millijoules: 1 + draw(1_000),
                    energy_source: EnergySource::Estimated,
                    engine: "simulated".into(),
                    retains_data: false,
                    sequence: 1,
                    expires_at: NOW + 60,
                },
                signature,
                from: NodeKey([2; 32]),
                record,
            }))
        })
        .collect()
}

fn wish(preferences: &Preferences) -> Wish<'_> {
    Wish {
        usage: USAGE,
        preferences,
        tried: &[],
        prompt: None,
        has_channel: &|_| false,
        now: NOW,
    }
}

fn sorting(sort: Sort) -> Preferences {
    Preferences {
        sort,
        ..Preferences::default()
    }
}

/// Nanoseconds of one decision.
fn decision(sellers: &[Arc<Seller>], sort: Sort) -> Result<f64> {
    const TIMES: u32 = 20_000;
    let preferences = sorting(sort);
    let pools = [Arc::new(Pool::new(sellers.to_vec()))];
    let rounds = (0..7).map(|_| {
        let started = Instant::now();
        for _ in 0..TIMES {
            black_box(choose(&pools, &wish(&preferences)).context("nobody")?);
        }
        Ok(started.elapsed().as_secs_f64() * 1e9 / f64::from(TIMES))
    });
    Ok(median(rounds.collect::<Result<_>>()?))
}

/// What is paid by price, against the cheapest seller with room, while the cheap ones fill up.
#[expect(clippy::cast_precision_loss, reason = "a ratio for people")]
fn price_paid() -> Result<f64> {
    let sellers = sellers(10_000, 1)?;
    let pools = [Arc::new(Pool::new(sellers.clone()))];
    let preferences = sorting(Sort::Price);
    let (mut paid, mut least, mut visits) = (0u128, 0u128, VecDeque::new());
    for _ in 0..2_000 {
        let free = sellers.iter().filter(|seller| seller.record.in_flight() == 0);
        least += free
            .map(|seller| seller.offer.price.cost(USAGE).0)
            .min()
            .context("all are busy")?;
        let chosen = choose(&pools, &wish(&preferences)).context("nobody")?.seller;
        paid += chosen.offer.price.cost(USAGE).0;
        visits.push_back(Visit::new(&chosen.record));
        if visits.len() > 40 {
            visits.pop_front();
        }
    }
    Ok(paid as f64 / least as f64)
}

/// The share of one seller of four that fails within a microsecond, from one second on, at full speed for four seconds.
fn failing() -> Result<f64> {
    let sellers = sellers(4, 1_000)?;
    let pools = [Arc::new(Pool::new(sellers.clone()))];
    let preferences = Preferences::default();
    let bad = sellers.first().context("four sellers")?.offer.provider;
    let (started, mut all, mut failed) = (Instant::now(), 0u32, 0u32);
    while started.elapsed() < Duration::from_secs(4) {
        let chosen = choose(&pools, &wish(&preferences)).context("nobody")?.seller;
        let counts = started.elapsed() >= Duration::from_secs(1);
        all += u32::from(counts);
        if chosen.offer.provider == bad {
            failed += u32::from(counts);
            chosen.record.punish(Penalty::Failed);
        } else {
            chosen
                .record
                .answered(Duration::from_millis(50), 20, Duration::from_secs(1));
        }
        std::thread::sleep(Duration::from_micros(200));
    }
    Ok(f64::from(failed) / f64::from(all.max(1)))
}

/// One simulated seller: a few slots, and memory for a few prompts' beginnings.
struct Machine {
    free: u32,
    waiting: VecDeque<(usize, Visit)>,
    remembered: VecDeque<usize>,
}

const MACHINES: usize = 8;
const SLOTS: u32 = 4;
const GROUPS: usize = 64;
const REMEMBERED: usize = 12;
/// Tokens of the shared beginning, of what is new in each prompt, and of the answer.
const SHARED: f64 = 4_000.0;
const NEW: f64 = 100.0;
const ANSWER: f64 = 64.0;
/// Tokens a second.
const READING: f64 = 2_000.0;
const WRITING: f64 = 50.0;
const CLIENTS: usize = 48;
const REQUESTS: usize = 6_000;

impl Machine {
    /// Seconds that a prompt of a group takes, which is remembered then.
    fn serve(&mut self, group: usize) -> f64 {
        let known = self.remembered.iter().position(|one| *one == group);
        if let Some(place) = known {
            self.remembered.remove(place);
        }
        self.remembered.push_back(group);
        if self.remembered.len() > REMEMBERED {
            self.remembered.pop_front();
        }
        let read = if known.is_some() { NEW } else { SHARED + NEW };
        read / READING + ANSWER / WRITING
    }
}

/// A simulated market: machines on a clock of their own, in microseconds.
struct Simulation {
    sellers: Vec<Arc<Seller>>,
    machines: Vec<Machine>,
    /// When an answer ends, at which machine, and its visit.
    ends: BinaryHeap<Reverse<(u64, usize, usize)>>,
    visits: Vec<Option<Visit>>,
    clock: u64,
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a simulated clock in microseconds"
)]
impl Simulation {
    /// Sellers with equal prices, so that only the prompts differ.
    fn new() -> Result<Self> {
        let sellers = sellers(MACHINES, SLOTS)?;
        let equal = sellers.iter().map(|one| {
            let mut offer = one.offer.clone();
            offer.price = Price {
                input: 500,
                output: 2_000,
                request: 0,
            };
            Arc::new(Seller {
                offer,
                signature: one.signature,
                from: one.from,
                record: Arc::new(Record::new(Arc::default())),
            })
        });
        let machine = |_| Machine {
            free: SLOTS,
            waiting: VecDeque::new(),
            remembered: VecDeque::new(),
        };
        Ok(Self {
            sellers: equal.collect(),
            machines: (0..MACHINES).map(machine).collect(),
            ends: BinaryHeap::new(),
            visits: Vec::new(),
            clock: 0,
        })
    }

    fn start(&mut self, place: usize, group: usize, visit: Visit) -> Result<()> {
        let seconds = self.machines.get_mut(place).context("a machine")?.serve(group);
        self.visits.push(Some(visit));
        let end = self.clock + (seconds * 1e6) as u64;
        self.ends.push(Reverse((end, place, self.visits.len() - 1)));
        Ok(())
    }

    fn send(&mut self, place: usize, group: usize) -> Result<()> {
        let visit = Visit::new(&self.sellers.get(place).context("a seller")?.record);
        let machine = self.machines.get_mut(place).context("a machine")?;
        if machine.free == 0 {
            machine.waiting.push_back((group, visit));
            return Ok(());
        }
        machine.free -= 1;
        self.start(place, group, visit)
    }

    /// Goes to the next end of an answer; false when nothing is under way.
    fn step(&mut self) -> Result<bool> {
        let Some(Reverse((at, place, visit))) = self.ends.pop() else {
            return Ok(false);
        };
        self.clock = at;
        self.visits.get_mut(visit).context("a visit")?.take();
        let record = &self.sellers.get(place).context("a seller")?.record;
        record.answered(Duration::from_secs(1), 64, Duration::from_secs(1));
        let machine = self.machines.get_mut(place).context("a machine")?;
        match machine.waiting.pop_front() {
            Some((group, visit)) => self.start(place, group, visit)?,
            None => machine.free += 1,
        }
        Ok(true)
    }
}

/// Requests a second of a closed loop of clients, each asking prompts of changing groups.
#[expect(clippy::cast_precision_loss, reason = "a rate for people")]
fn shared_prefixes(routed: bool) -> Result<f64> {
    let mut simulation = Simulation::new()?;
    let pools = [Arc::new(Pool::new(simulation.sellers.clone()))];
    let (preferences, prefixes) = (Preferences::default(), Prefixes::default());
    let prompts: Vec<_> = (0..GROUPS)
        .map(|group| {
            prefixes.prompt(&Job::Completion {
                prompt: format!("{group:04}").repeat(4_000),
                generation: Generation::default(),
            })
        })
        .collect();
    let (mut sent, mut done) = (0usize, 0usize);
    loop {
        while sent - done < CLIENTS && sent < REQUESTS {
            // A fixed sequence: both contestants see the same requests.
            let group = (sent * 2_654_435_761) % 4_294_967_291 % GROUPS;
            let prompt = prompts.get(group).context("a group")?;
            let place = if routed {
                let wish = Wish {
                    prompt: Some((&prefixes, prompt)),
                    ..wish(&preferences)
                };
                let chosen = choose(&pools, &wish).context("nobody")?.seller;
                prefixes.note(prompt, chosen.offer.provider, MODEL);
                let place = simulation.sellers.iter().position(|one| Arc::ptr_eq(one, &chosen));
                place.context("a seller")?
            } else {
                (sent * 40_503) % 65_521 % MACHINES
            };
            simulation.send(place, group)?;
            sent += 1;
        }
        if !simulation.step()? {
            break;
        }
        done += 1;
    }
    anyhow::ensure!(done == REQUESTS, "{done} of {REQUESTS} requests ended");
    Ok(done as f64 / (simulation.clock as f64 / 1e6))
}
