//! Choosing the next token: the same logits, seed and position give the same token.
//!
//! The order is fixed: penalties, temperature, top-k, top-p, min-p, then Gumbel-max: to each remaining token's scaled
//! logit a number is added that comes from a ChaCha20 stream keyed by seed and position, at the word of the token's
//! id, and the largest sum wins. This is a draw from the softmax, and it does not depend on which tokens were dropped
//! before, so an audit can repeat it from the logits alone.

use std::{cmp::Ordering, collections::HashMap};

use chacha20::{
    ChaCha20Rng,
    rand_core::{Rng, SeedableRng},
};
use rialto_protocol::{hash::keccak256, job::Generation};

/// The logits have a value that no sound model gives.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the model gave a logit that is not a finite number")]
pub(super) struct NotFinite;

/// A token that may be chosen, and its logit after penalties and temperature.
#[derive(Debug, Clone, Copy)]
struct Candidate {
    id: u32,
    scaled: f64,
}

/// Chooses the tokens of one answer.
#[derive(Debug)]
pub(super) struct Sampler {
    generation: Generation,
    /// How often each token was chosen.
    counts: HashMap<u32, u32>,
    /// Tokens chosen so far.
    position: u64,
}

impl Sampler {
    /// A sampler at the start of an answer. The settings were checked.
    pub(super) fn new(generation: Generation) -> Self {
        Self {
            generation,
            counts: HashMap::new(),
            position: 0,
        }
    }

    /// The token at this position, and on to the next. `logits` has one entry for each token of the vocabulary.
    pub(super) fn choose(&mut self, logits: &[f32]) -> Result<u32, NotFinite> {
        // Comparisons with NaN are false, so this refuses NaN too. Minus infinity means "never this token".
        if !logits.iter().all(|logit| *logit < f32::INFINITY) {
            return Err(NotFinite);
        }
        let chosen = if self.generation.temperature <= 0.0 {
            self.likeliest(logits)
        } else {
            let candidates = self.candidates(logits);
            draw(&candidates, self.generation.seed, self.position)
        };
        let chosen = chosen.ok_or(NotFinite)?;
        *self.counts.entry(chosen).or_default() += 1;
        self.position += 1;
        Ok(chosen)
    }

    fn likeliest(&self, logits: &[f32]) -> Option<u32> {
        let best = (0u32..)
            .zip(logits)
            .map(|(id, logit)| (id, self.penalised(id, *logit)))
            // The lower id wins a tie.
            .reduce(|best, next| if next.1 > best.1 { next } else { best });
        best.filter(|(_, logit)| logit.is_finite()).map(|(id, _)| id)
    }

    fn penalised(&self, id: u32, logit: f32) -> f64 {
        let logit = f64::from(logit);
        match self.counts.get(&id) {
            Some(count) => {
                let frequency = f64::from(self.generation.frequency_penalty) * f64::from(*count);
                logit - frequency - f64::from(self.generation.presence_penalty)
            }
            None => logit,
        }
    }

    fn candidates(&self, logits: &[f32]) -> Vec<Candidate> {
        let temperature = f64::from(self.generation.temperature);
        let mut candidates: Vec<Candidate> = (0u32..)
            .zip(logits)
            .filter(|(_, logit)| logit.is_finite())
            .map(|(id, logit)| {
                let scaled = self.penalised(id, *logit) / temperature;
                Candidate { id, scaled }
            })
            .collect();
        let top_k = usize::try_from(self.generation.top_k).unwrap_or(usize::MAX);
        if top_k > 0 {
            keep_best(&mut candidates, top_k);
        }
        if self.generation.top_p < 1.0 {
            keep_nucleus(&mut candidates, f64::from(self.generation.top_p));
        }
        if self.generation.min_p > 0.0 {
            let floor = highest(&candidates) + f64::from(self.generation.min_p).ln();
            candidates.retain(|candidate| candidate.scaled >= floor);
        }
        candidates
    }
}

/// Likelier first; the lower id first among equals.
fn order(one: &Candidate, other: &Candidate) -> Ordering {
    other.scaled.total_cmp(&one.scaled).then(one.id.cmp(&other.id))
}

fn highest(candidates: &[Candidate]) -> f64 {
    candidates
        .iter()
        .map(|one| one.scaled)
        .fold(f64::NEG_INFINITY, f64::max)
}

/// Keeps the `count` likeliest.
fn keep_best(candidates: &mut Vec<Candidate>, count: usize) {
    if count < candidates.len() {
        candidates.select_nth_unstable_by(count, order);
        candidates.truncate(count);
    }
}

/// Keeps the smallest set of the likeliest tokens that has at least this part of the probability; at least one token.
fn keep_nucleus(candidates: &mut Vec<Candidate>, part: f64) {
    // The sum must not depend on the order that earlier filters left.
    candidates.sort_unstable_by_key(|candidate| candidate.id);
    let top = highest(candidates);
    let wanted = part * candidates.iter().map(|one| (one.scaled - top).exp()).sum::<f64>();
    // Sorting a whole vocabulary is slow, and nearly always a few hundred tokens are enough.
    let mut count = 256;
    loop {
        let sorted = count.min(candidates.len());
        if sorted < candidates.len() {
            candidates.select_nth_unstable_by(sorted, order);
        }
        let best = candidates.get_mut(..sorted).unwrap_or_default();
        best.sort_unstable_by(order);
        let mut sum = 0.0;
        let reached = best.iter().position(|one| {
            sum += (one.scaled - top).exp();
            sum >= wanted
        });
        match reached {
            Some(last) => return candidates.truncate(last + 1),
            None if sorted == candidates.len() => return,
            None => count *= 8,
        }
    }
}

/// Gumbel-max with the stream of this seed and position.
fn draw(candidates: &[Candidate], seed: u64, position: u64) -> Option<u32> {
    let key = keccak256(&[b"rialto sampler v1", &seed.to_le_bytes(), &position.to_le_bytes()]);
    let mut stream = ChaCha20Rng::from_seed(key);
    // Seeking costs as much as several words, so neighbours are read through.
    let mut next = 0u32;
    let mut best: Option<(f64, u32)> = None;
    for candidate in candidates {
        if candidate.id.wrapping_sub(next) > 64 {
            stream.set_word_pos(u128::from(candidate.id));
            next = candidate.id;
        }
        while next < candidate.id {
            stream.next_u32();
            next += 1;
        }
        let word = stream.next_u32();
        next += 1;
        let sum = candidate.scaled + gumbel(word);
        let better = best.is_none_or(|(top, id)| sum > top || (sum >= top && candidate.id < id));
        if better {
            best = Some((sum, candidate.id));
        }
    }
    best.map(|(_, id)| id)
}

/// A Gumbel-distributed number from a uniform word, never infinite.
fn gumbel(word: u32) -> f64 {
    let uniform = (f64::from(word) + 0.5) / 4_294_967_296.0;
    -(-uniform.ln()).ln()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn generation(change: impl FnOnce(&mut Generation)) -> Generation {
        let mut generation = Generation::default();
        change(&mut generation);
        generation
    }

    fn shares(settings: &Generation, logits: &[f32], draws: u64) -> Vec<f64> {
        let mut counts = vec![0.0; logits.len()];
        for seed in 0..draws {
            let settings = Generation {
                seed,
                ..settings.clone()
            };
            let chosen = Sampler::new(settings).choose(logits).unwrap();
            counts[usize::try_from(chosen).unwrap()] += 1.0 / draws as f64;
        }
        counts
    }

    #[test]
    fn temperature_zero_takes_the_likeliest_and_the_lower_id_of_two() {
        let mut sampler = Sampler::new(generation(|g| g.temperature = 0.0));
        assert_eq!(sampler.choose(&[0.0, 3.0, 3.0, -1.0]), Ok(1));
        assert_eq!(sampler.choose(&[f32::NEG_INFINITY, -9.0]), Ok(1));
    }

    #[test]
    fn numbers_that_are_not_finite_are_refused() {
        for logits in [
            [0.0, f32::NAN],
            [f32::INFINITY, 0.0],
            [f32::NEG_INFINITY, f32::NEG_INFINITY],
        ] {
            for temperature in [0.0, 1.0] {
                let mut sampler = Sampler::new(generation(|g| g.temperature = temperature));
                assert_eq!(sampler.choose(&logits), Err(NotFinite), "{logits:?} at {temperature}");
            }
        }
    }

    #[test]
    fn draws_follow_the_softmax() {
        let logits = [0.0, 1.0, 2.0];
        let total: f64 = logits.iter().map(|logit| f64::from(*logit).exp()).sum();
        let shares = shares(&Generation::default(), &logits, 20_000);
        for (share, logit) in shares.iter().zip(logits) {
            let expected = f64::from(logit).exp() / total;
            assert!((share - expected).abs() < 0.015, "{share} instead of {expected}");
        }
    }

    #[test]
    fn filters_drop_exactly_what_they_should() {
        // Probabilities 0.032, 0.087, 0.237, 0.644.
        let logits = [0.0, 1.0, 2.0, 3.0];
        let kept = |settings: Generation| -> Vec<usize> {
            let shares = shares(&settings, &logits, 2_000);
            (0..4).filter(|id| shares[*id] > 0.0).collect()
        };
        assert_eq!(kept(generation(|g| g.top_k = 2)), [2, 3]);
        assert_eq!(kept(generation(|g| g.top_p = 0.64)), [3]);
        assert_eq!(kept(generation(|g| g.top_p = 0.65)), [2, 3]);
        assert_eq!(kept(generation(|g| g.top_p = 0.0)), [3]);
        assert_eq!(kept(generation(|g| g.min_p = 0.2)), [2, 3]);
        assert_eq!(kept(generation(|g| g.temperature = 0.01)), [3]);
        assert_eq!(kept(Generation::default()), [0, 1, 2, 3]);
    }

    #[test]
    fn a_nucleus_larger_than_the_first_guess_is_found() {
        let logits = vec![0.0f32; 5_000];
        let sampler = Sampler::new(generation(|g| g.top_p = 0.5));
        let kept = sampler.candidates(&logits);
        assert_eq!(kept.len(), 2_500);
        assert!(kept.iter().all(|candidate| candidate.id < 2_500));
    }

    #[test]
    fn dropping_other_tokens_does_not_change_a_draw() {
        let logits: Vec<f32> = (0..2_000u16).map(|id| f32::from(id % 97) / 10.0).collect();
        for seed in 0..50 {
            let whole = Sampler::new(generation(|g| g.seed = seed)).choose(&logits).unwrap();
            let mut few = vec![f32::NEG_INFINITY; logits.len()];
            for id in (0..2_000).filter(|id| id % 300 == 0 || *id == whole) {
                let id = usize::try_from(id).unwrap();
                few[id] = logits[id];
            }
            assert_eq!(Sampler::new(generation(|g| g.seed = seed)).choose(&few), Ok(whole));
        }
    }

    #[test]
    fn penalties_push_repeated_tokens_down() {
        let mut sampler = Sampler::new(generation(|g| {
            g.temperature = 0.0;
            g.frequency_penalty = 0.4;
            g.presence_penalty = 0.2;
        }));
        let logits = [1.0, 0.5];
        let chosen: Vec<u32> = (0..4).map(|_| sampler.choose(&logits).unwrap()).collect();
        // 1.0 | 0.4 < 0.5 | 0.4 > -0.1 | 0.0 > -0.1
        assert_eq!(chosen, [0, 1, 0, 0]);
    }
}
