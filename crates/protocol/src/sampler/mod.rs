//! Choosing the next token: the same logits, seed and position give the same token, on every machine.
//!
//! The order is fixed: what a grammar allows, penalties, temperature, top-k, top-p, min-p, then Gumbel-max: to each remaining
//! token's scaled logit a number is added that comes from a ChaCha20 stream keyed by seed and position, at the word of
//! the token's id, and the largest sum wins. This is a draw from the softmax (Gumbel 1954), and it does not depend on
//! which tokens were dropped before, so an audit can repeat it from the logits alone. `tests/vectors/sampler.json` has
//! the answers of a second implementation in another language.
//!
//! Doubles throughout; exponentials are [`crate::softmax::exp`], logarithms those of the `libm` crate, neither of which asks
//! the platform.

mod draw;
mod nucleus;
#[cfg(test)]
mod tests;

use std::{cmp::Ordering, collections::HashMap};

use crate::{job::Generation, softmax};

/// Why no token can be chosen.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SamplingError {
    /// The logits have a value that no sound model gives.
    #[error("the model gave a logit that is not a finite number")]
    NotFinite,
    /// No token is left: the grammar allows none that the model can give.
    #[error("the grammar of the answer allows no token")]
    NothingAllowed,
}

/// The tokens that a grammar allows: one bit each, the lowest bit of a word first.
#[derive(Debug, Clone, Copy)]
pub struct Allowed<'a>(pub &'a [u32]);

impl Allowed<'_> {
    /// Whether this token is allowed. Tokens beyond the last word are not.
    pub fn contains(self, id: u32) -> bool {
        let word = usize::try_from(id / 32).ok().and_then(|place| self.0.get(place));
        word.is_some_and(|word| word >> (id % 32) & 1 == 1)
    }
}

/// A token that may be chosen, and its logit after penalties and temperature.
#[derive(Debug, Clone, Copy)]
struct Candidate {
    id: u32,
    scaled: f64,
}

/// Chooses the tokens of one answer.
#[derive(Debug, Clone)]
pub struct Sampler {
    temperature: f64,
    top_k: usize,
    top_p: f64,
    min_p: f64,
    frequency: f64,
    presence: f64,
    seed: u64,
    /// How often each token was chosen; kept only where a penalty asks.
    counts: HashMap<u32, u32>,
    /// Tokens chosen so far.
    position: u64,
}

impl Sampler {
    /// A sampler at the start of an answer, or after the part of it that came before. The settings were checked.
    pub fn new(generation: &Generation) -> Self {
        let mut sampler = Self {
            temperature: generation.temperature.into(),
            top_k: usize::try_from(generation.top_k).unwrap_or(usize::MAX),
            top_p: generation.top_p.into(),
            min_p: generation.min_p.into(),
            frequency: generation.frequency_penalty.into(),
            presence: generation.presence_penalty.into(),
            seed: generation.seed,
            counts: HashMap::new(),
            position: 0,
        };
        for id in &generation.so_far.ids {
            sampler.accept(*id);
        }
        sampler
    }

    /// Tokens chosen so far.
    pub fn position(&self) -> u64 {
        self.position
    }

    /// The token at this position, and on to the next. `logits` has one entry for each token of the vocabulary; minus
    /// infinity means "never this token".
    pub fn choose(&mut self, logits: &[f32], allowed: Option<Allowed<'_>>) -> Result<u32, SamplingError> {
        let chosen = self.pick(logits, allowed)?.id;
        self.accept(chosen);
        Ok(chosen)
    }

    /// How far a claimed token is from the one that these logits and the seed pick, in units of logits over temperature
    /// (of logits at temperature zero), and on to the next position as if it had been chosen. Zero when it is the one;
    /// infinite when it can never be chosen. This is the margin of Token-DiFR (Karvonen et al., 2025).
    pub fn margin(&mut self, logits: &[f32], claimed: u32, allowed: Option<Allowed<'_>>) -> Result<f64, SamplingError> {
        let picked = self.pick(logits, allowed)?;
        let margin = if picked.id == claimed {
            0.0
        } else {
            self.shortfall(logits, claimed, allowed, picked)
        };
        self.accept(claimed);
        Ok(margin)
    }

    fn shortfall(&self, logits: &[f32], claimed: u32, allowed: Option<Allowed<'_>>, picked: draw::Pick) -> f64 {
        let logit = usize::try_from(claimed).ok().and_then(|id| logits.get(id)).copied();
        let logit = logit.filter(|_| allowed.is_none_or(|allowed| allowed.contains(claimed)));
        let Some(logit) = logit.filter(|logit| logit.is_finite()) else {
            return f64::INFINITY;
        };
        let scaled = self.scaled(claimed, logit);
        if self.temperature <= 0.0 {
            return picked.sum - scaled;
        }
        let behind = (picked.sum - draw::sum(self.seed, self.position, claimed, scaled)).max(0.0);
        // A token that a filter dropped is as far off as the filter would have to be wider.
        let floor = self.filtered(logits, allowed).map(|kept| lowest(&kept));
        behind + floor.map_or(0.0, |floor| (floor - scaled).max(0.0))
    }

    fn accept(&mut self, id: u32) {
        if self.penalises() {
            let count = self.counts.entry(id).or_default();
            *count = count.saturating_add(1);
        }
        self.position = self.position.saturating_add(1);
    }

    fn penalises(&self) -> bool {
        self.frequency != 0.0 || self.presence != 0.0
    }

    fn pick(&self, logits: &[f32], allowed: Option<Allowed<'_>>) -> Result<draw::Pick, SamplingError> {
        if softmax::highest(logits).is_none() {
            return Err(SamplingError::NotFinite);
        }
        let picked = if self.temperature <= 0.0 {
            self.likeliest(logits, allowed)
        } else {
            match self.filtered(logits, allowed) {
                Some(kept) => draw::among(&kept, self.seed, self.position),
                None => draw::among_all(logits, self.temperature, self.seed, self.position),
            }
        };
        picked.ok_or(SamplingError::NothingAllowed)
    }

    fn likeliest(&self, logits: &[f32], allowed: Option<Allowed<'_>>) -> Option<draw::Pick> {
        if allowed.is_none() && self.counts.is_empty() {
            let best = softmax::top(logits, 1).into_iter().next()?;
            let sum = self.scaled(best.id, best.logit);
            return Some(draw::Pick { id: best.id, sum });
        }
        let candidates = self.candidates(logits, allowed);
        // The lower id wins a tie.
        let best = candidates.reduce(|best, next| if next.scaled > best.scaled { next } else { best });
        best.map(|best| draw::Pick {
            id: best.id,
            sum: best.scaled,
        })
    }

    /// A logit after penalties and temperature; temperature zero leaves it as it is.
    fn scaled(&self, id: u32, logit: f32) -> f64 {
        let mut logit = f64::from(logit);
        if let Some(count) = self.counts.get(&id) {
            logit = logit - self.frequency * f64::from(*count) - self.presence;
        }
        if self.temperature > 0.0 {
            logit / self.temperature
        } else {
            logit
        }
    }

    fn candidates<'a>(
        &'a self,
        logits: &'a [f32],
        allowed: Option<Allowed<'a>>,
    ) -> impl Iterator<Item = Candidate> + 'a {
        let finite = (0u32..).zip(logits).filter(|(_, logit)| logit.is_finite());
        let fitting = finite.filter(move |(id, _)| allowed.is_none_or(|allowed| allowed.contains(*id)));
        fitting.map(|(id, logit)| Candidate {
            id,
            scaled: self.scaled(id, *logit),
        })
    }

    /// What is left after all filters; `None` when nothing is filtered or penalised, so that every token is left.
    fn filtered(&self, logits: &[f32], allowed: Option<Allowed<'_>>) -> Option<Vec<Candidate>> {
        let open = self.top_k == 0 && self.top_p >= 1.0 && self.min_p <= 0.0;
        if open && allowed.is_none() && self.counts.is_empty() {
            return None;
        }
        let mut kept: Vec<Candidate> = if self.top_k > 0 && allowed.is_none() && self.counts.is_empty() {
            // The order of logits is the order of scaled logits, and selecting is cheaper than collecting.
            let best = softmax::top(logits, self.top_k).into_iter();
            best.map(|one| Candidate {
                id: one.id,
                scaled: self.scaled(one.id, one.logit),
            })
            .collect()
        } else {
            self.candidates(logits, allowed).collect()
        };
        if self.top_k > 0 && self.top_k < kept.len() {
            kept.select_nth_unstable_by(self.top_k, order);
            kept.truncate(self.top_k);
        }
        if self.top_p < 1.0 {
            nucleus::keep(&mut kept, self.top_p);
        }
        if self.min_p > 0.0 {
            let floor = highest(&kept) + libm::log(self.min_p);
            kept.retain(|candidate| candidate.scaled >= floor);
        }
        Some(kept)
    }
}

/// Likelier first; the lower id first among equals.
fn order(one: &Candidate, other: &Candidate) -> Ordering {
    other.scaled.total_cmp(&one.scaled).then(one.id.cmp(&other.id))
}

fn highest(candidates: &[Candidate]) -> f64 {
    let scaled = candidates.iter().map(|one| one.scaled);
    scaled.fold(f64::NEG_INFINITY, f64::max)
}

fn lowest(candidates: &[Candidate]) -> f64 {
    candidates.iter().map(|one| one.scaled).fold(f64::INFINITY, f64::min)
}
