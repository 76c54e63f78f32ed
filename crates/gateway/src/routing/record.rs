//! What was measured of a seller's answers here: the figures that routing goes by.

use std::{
    collections::{HashMap, VecDeque},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU32, AtomicU64, Ordering},
    },
    time::Duration,
};

use rialto_protocol::{Address, ModelId};
use serde::{Deserialize, Serialize};

use super::standing::{Penalty, Standing, now};
use crate::store;

/// Weight of the newest measurement in a moving mean.
const NEWEST: f64 = 0.2;
/// Weight of the newest outcome in the share of good answers.
const OUTCOME: f64 = 0.1;
/// Answers that percentiles are made of.
const KEPT: usize = 128;
/// Most sellers that are remembered.
const MAX_KNOWN: usize = 262_144;

/// A number that is read and written without a lock; not a number where nothing was measured.
#[derive(Debug)]
struct Mean(AtomicU64);

impl Mean {
    fn new(first: f64) -> Self {
        Self(AtomicU64::new(first.to_bits()))
    }

    fn get(&self) -> Option<f64> {
        let value = f64::from_bits(self.0.load(Ordering::Relaxed));
        (!value.is_nan()).then_some(value)
    }

    /// Takes a mean of before, if it can be one.
    fn resume(&self, mean: Option<f64>, most: f64) {
        if let Some(mean) = mean.filter(|mean| (0.0..=most).contains(mean)) {
            self.0.store(mean.to_bits(), Ordering::Relaxed);
        }
    }

    /// Two writers at once may lose one measurement, which a mean bears.
    fn add(&self, newest: f64, weight: f64) {
        let mean = self
            .get()
            .map_or(newest, |old| old.mul_add(1.0 - weight, newest * weight));
        self.0.store(mean.to_bits(), Ordering::Relaxed);
    }
}

/// One answer, for percentiles.
#[derive(Debug, Clone, Copy)]
struct Sample {
    at: u64,
    good: bool,
    first_output: Option<f64>,
    speed: Option<f64>,
}

/// What a gateway knows of a seller after a restart.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub(crate) struct Memory {
    provider: Address,
    model: ModelId,
    first_output: Option<f64>,
    speed: Option<f64>,
    reliability: Option<f64>,
    /// Until when it is not asked because it cheated, in seconds since 1970; zero if it did not.
    distrusted_until: u64,
}

/// What was measured of one seller of one model.
#[derive(Debug)]
pub struct Record {
    /// What is held against its provider.
    pub standing: Arc<Standing>,
    in_flight: AtomicU32,
    /// Seconds to the first output.
    first_output: Mean,
    /// Units of output a second after it.
    speed: Mean,
    /// Share of good answers, the latest counting most.
    reliability: Mean,
    samples: Mutex<VecDeque<Sample>>,
}

/// Percentiles of what was measured lately.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Figures {
    /// Answers that were counted.
    pub answers: usize,
    /// The share of them that went well, between 0 and 1.
    pub uptime: Option<f64>,
    /// Seconds to the first output: half, 75, 90 and 99 of 100 were faster.
    pub first_output: Option<[f64; 4]>,
    /// Units of output a second: half, 75, 90 and 99 of 100 were faster.
    pub speed: Option<[f64; 4]>,
}

impl Record {
    /// Nothing measured yet.
    pub fn new(standing: Arc<Standing>) -> Self {
        Self {
            standing,
            in_flight: AtomicU32::new(0),
            first_output: Mean::new(f64::NAN),
            speed: Mean::new(f64::NAN),
            reliability: Mean::new(1.0),
            samples: Mutex::default(),
        }
    }

    /// Requests of this gateway that it works on.
    pub fn in_flight(&self) -> u32 {
        self.in_flight.load(Ordering::Relaxed)
    }

    /// Seconds to the first output; `None` before the first answer.
    pub fn first_output(&self) -> Option<f64> {
        self.first_output.get()
    }

    /// Units of output a second; `None` before the first answer that was long enough.
    pub fn speed(&self) -> Option<f64> {
        self.speed.get()
    }

    /// The share of good answers, between 0 and 1.
    pub fn reliability(&self) -> f64 {
        self.reliability.get().unwrap_or(1.0)
    }

    /// Notes an answer that went well: the time to its first output, and the units that came after it in how long.
    pub fn answered(&self, first_output: Duration, units: u64, after: Duration) {
        let first = first_output.as_secs_f64();
        self.first_output.add(first, NEWEST);
        let speed = u32::try_from(units)
            .ok()
            .filter(|units| *units > 0 && !after.is_zero())
            .map(|units| f64::from(units) / after.as_secs_f64());
        if let Some(speed) = speed {
            self.speed.add(speed, NEWEST);
        }
        self.reliability.add(1.0, OUTCOME);
        self.keep(Sample {
            at: now(),
            good: true,
            first_output: Some(first),
            speed,
        });
        self.standing.praise();
    }

    /// Notes that nothing of an answer came for so long, and that it was then not waited for any more.
    pub fn kept_waiting(&self, time: Duration) {
        self.first_output.add(time.as_secs_f64(), NEWEST);
    }

    /// Notes a penalty of its provider; a failure also counts as an answer that did not come, or not whole. How fast that
    /// happened counts for nothing.
    pub fn punish(&self, penalty: Penalty) {
        self.standing.punish(penalty);
        if !matches!(penalty, Penalty::Busy(_)) {
            self.failed();
        }
    }

    /// What is remembered of it; `None` before anything was measured.
    fn memory(&self, provider: Address, model: ModelId) -> Option<Memory> {
        let distrusted = self.standing.distrusted_for();
        let memory = Memory {
            provider,
            model,
            first_output: self.first_output.get(),
            speed: self.speed.get(),
            reliability: self.reliability.get(),
            distrusted_until: match distrusted {
                0 => 0,
                left => store::now().saturating_add(left.div_ceil(1_000)),
            },
        };
        (distrusted > 0 || memory.first_output.is_some() || !self.lock().is_empty()).then_some(memory)
    }

    fn resume(&self, memory: &Memory) {
        self.first_output.resume(memory.first_output, f64::MAX);
        self.speed.resume(memory.speed, f64::MAX);
        self.reliability.resume(memory.reliability, 1.0);
        let left = memory.distrusted_until.saturating_sub(store::now());
        if left > 0 {
            self.standing.distrust(left.saturating_mul(1_000));
        }
    }

    fn failed(&self) {
        self.reliability.add(0.0, OUTCOME);
        self.keep(Sample {
            at: now(),
            good: false,
            first_output: None,
            speed: None,
        });
    }

    fn keep(&self, sample: Sample) {
        let mut samples = self.lock();
        if samples.len() >= KEPT {
            samples.pop_front();
        }
        samples.push_back(sample);
    }

    fn lock(&self) -> MutexGuard<'_, VecDeque<Sample>> {
        self.samples.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What the answers of the last so many milliseconds show.
    pub fn figures(&self, milliseconds: u64) -> Figures {
        let since = now().saturating_sub(milliseconds);
        let samples: Vec<Sample> = self.lock().iter().filter(|one| one.at >= since).copied().collect();
        let good = samples.iter().filter(|sample| sample.good).count();
        #[expect(clippy::cast_precision_loss, reason = "there are few")]
        let share = good as f64 / samples.len() as f64;
        // Faster is less for a time, and more for a speed.
        let first = percentiles(samples.iter().filter_map(|sample| sample.first_output).collect());
        let slow = percentiles(samples.iter().filter_map(|one| one.speed.map(|speed| -speed)).collect());
        Figures {
            answers: samples.len(),
            uptime: (!samples.is_empty()).then_some(share),
            first_output: first,
            speed: slow.map(|speeds| speeds.map(|speed| -speed)),
        }
    }
}

fn percentiles(mut values: Vec<f64>) -> Option<[f64; 4]> {
    values.sort_by(f64::total_cmp);
    let last = values.len().checked_sub(1)?;
    let at = |percent: usize| values.get((last * percent).div_ceil(100)).copied();
    Some([at(50)?, at(75)?, at(90)?, at(99)?])
}

/// One request in flight; it is counted until this is dropped.
#[derive(Debug)]
pub struct Visit(Arc<Record>);

impl Visit {
    /// Counts a request.
    pub fn new(record: &Arc<Record>) -> Self {
        record.in_flight.fetch_add(1, Ordering::Relaxed);
        Self(Arc::clone(record))
    }
}

impl Drop for Visit {
    fn drop(&mut self) {
        self.0.in_flight.fetch_sub(1, Ordering::Relaxed);
    }
}

/// The records of all sellers that are or were in the book.
#[derive(Debug, Default)]
pub(crate) struct Records {
    records: HashMap<(Address, ModelId), Arc<Record>>,
    standings: HashMap<Address, Arc<Standing>>,
}

impl Records {
    /// The record of a seller; a new one if it is not known.
    pub(crate) fn of(&mut self, provider: Address, model: ModelId) -> Arc<Record> {
        if self.records.len() >= MAX_KNOWN {
            // Who has no offer and no request under way is forgotten.
            self.records.retain(|_, record| Arc::strong_count(record) > 1);
        }
        if self.standings.len() >= MAX_KNOWN {
            self.standings
                .retain(|_, standing| Arc::strong_count(standing) > 1 || standing.is_distrusted());
        }
        let standing = self.standings.entry(provider).or_default();
        let record = self.records.entry((provider, model));
        Arc::clone(record.or_insert_with(|| Arc::new(Record::new(Arc::clone(standing)))))
    }

    /// What is remembered over a restart, of so many sellers at most: of cheats first.
    pub(crate) fn memories(&self, most: usize) -> Vec<Memory> {
        let all = self.records.iter();
        let mut memories: Vec<_> = all
            .filter_map(|((provider, model), record)| record.memory(*provider, *model))
            .collect();
        memories.sort_unstable_by_key(|memory| (memory.distrusted_until == 0, memory.provider, memory.model));
        memories.truncate(most);
        memories
    }

    /// Takes in what was remembered.
    pub(crate) fn resume(&mut self, memories: &[Memory]) {
        for memory in memories {
            self.of(memory.provider, memory.model).resume(memory);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_counts_until_it_ends() {
        let record = Arc::new(Record::new(Arc::default()));
        let (first, second) = (Visit::new(&record), Visit::new(&record));
        assert_eq!(record.in_flight(), 2);
        drop((first, second));
        assert_eq!(record.in_flight(), 0);
    }

    #[test]
    fn a_failure_makes_nobody_look_fast() {
        let record = Record::new(Arc::default());
        let second = Duration::from_secs(1);
        record.answered(second, 10, second);
        for _ in 0..100 {
            record.failed();
        }
        assert_eq!((record.first_output(), record.speed()), (Some(1.0), Some(10.0)));
        assert!(record.reliability() < 0.01);
        let figures = record.figures(60_000);
        assert_eq!((figures.answers, figures.first_output), (101, Some([1.0; 4])));
        assert!(figures.uptime.unwrap() < 0.01);
    }

    #[test]
    fn what_was_measured_and_who_cheated_is_known_after_a_restart() {
        let (good, cheat, model) = (Address([1; 20]), Address([2; 20]), ModelId([1; 32]));
        let mut before = Records::default();
        let second = Duration::from_secs(1);
        before.of(good, model).answered(second, 10, second);
        before.of(good, model).failed();
        before.of(cheat, model).punish(Penalty::Cheated);
        before.of(Address([3; 20]), model);
        let memories = before.memories(9);
        assert_eq!(memories.len(), 2, "of one there is nothing to remember");
        assert_eq!(before.memories(1)[0].provider, cheat);

        let mut after = Records::default();
        after.resume(&postcard::from_bytes::<Vec<_>>(&postcard::to_stdvec(&memories).unwrap()).unwrap());
        assert_eq!(after.memories(9).len(), 2);
        let (known, other) = (after.of(good, model), after.of(cheat, ModelId([9; 32])));
        assert_eq!((known.first_output(), known.speed()), (Some(1.0), Some(10.0)));
        assert!(known.reliability() < 1.0 && !known.standing.is_distrusted());
        assert!(other.standing.is_distrusted(), "whatever it sells");
    }

    #[test]
    fn what_cannot_have_been_measured_is_not_taken_in() {
        let mut records = Records::default();
        let memory = Memory {
            provider: Address([1; 20]),
            model: ModelId([1; 32]),
            first_output: Some(f64::NAN),
            speed: Some(-1.0),
            reliability: Some(2.0),
            distrusted_until: u64::MAX,
        };
        records.resume(&[memory]);
        let record = records.of(memory.provider, memory.model);
        assert_eq!((record.first_output(), record.speed()), (None, None));
        assert!((record.reliability() - 1.0).abs() < f64::EPSILON);
        // For a day at most.
        assert!(record.standing.distrusted_for() <= 24 * 3_600_000);
    }

    #[test]
    fn percentiles_name_what_the_slowest_have() {
        let record = Record::new(Arc::default());
        for tenth in 1..=100u64 {
            record.answered(Duration::from_millis(tenth * 100), tenth, Duration::from_secs(1));
        }
        let figures = record.figures(60_000);
        assert_eq!(figures.first_output, Some([5.1, 7.6, 9.1, 10.0]));
        assert_eq!(figures.speed, Some([50.0, 25.0, 10.0, 1.0]));
        assert_eq!(Record::new(Arc::default()).figures(60_000), Figures::default());
    }

    #[test]
    fn one_provider_has_one_standing_for_all_that_it_sells() {
        let mut records = Records::default();
        let provider = Address([1; 20]);
        let (one, other) = (
            records.of(provider, ModelId([1; 32])),
            records.of(provider, ModelId([2; 32])),
        );
        one.standing.punish(super::super::Penalty::Failed);
        assert!(other.standing.is_avoided(0));
        assert!(Arc::ptr_eq(&one, &records.of(provider, ModelId([1; 32]))));
    }
}
