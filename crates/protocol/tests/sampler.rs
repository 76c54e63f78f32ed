//! The sampler against a second implementation: `tests/vectors/sampler.json`, which `sampler.py` beside it writes from the
//! definition alone.

#![expect(clippy::unwrap_used, reason = "a test ends where it cannot go on")]

use std::path::Path;

use rialto_protocol::{
    job::Generation,
    sampler::{Allowed, Sampler},
};
use serde::Deserialize;

#[derive(Debug, Deserialize)]
struct Case {
    count: u64,
    factor: u64,
    temperature: f32,
    top_k: u32,
    top_p: f32,
    min_p: f32,
    frequency_penalty: f32,
    presence_penalty: f32,
    seed: u64,
    allowed: Option<Vec<u32>>,
    tokens: Vec<u32>,
    /// The runner-up at each position, and how far it is behind.
    second: Vec<Option<(u32, f64)>>,
}

impl Case {
    fn logits(&self) -> Vec<f32> {
        let step = |i: u64| u16::try_from((self.factor * i * i + 31 * i) % 1021).unwrap();
        (0..self.count).map(|i| f32::from(step(i)) / 64.0 - 8.0).collect()
    }

    fn sampler(&self) -> Sampler {
        Sampler::new(&Generation {
            temperature: self.temperature,
            top_k: self.top_k,
            top_p: self.top_p,
            min_p: self.min_p,
            frequency_penalty: self.frequency_penalty,
            presence_penalty: self.presence_penalty,
            seed: self.seed,
            ..Generation::default()
        })
    }

    /// The bits of the tokens that may be chosen.
    fn mask(&self) -> Option<Vec<u32>> {
        let allowed = self.allowed.as_ref()?;
        let words = 0..u32::try_from(self.count.div_ceil(32)).unwrap();
        let word = |word| allowed.iter().filter(move |id| **id / 32 == word);
        Some(
            words
                .map(|at| word(at).fold(0, |bits, id| bits | 1 << (id % 32)))
                .collect(),
        )
    }
}

fn cases() -> Vec<Case> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/vectors/sampler.json");
    serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap()
}

#[test]
fn another_implementation_chooses_the_same_tokens() {
    for case in cases() {
        let (logits, mask, mut sampler) = (case.logits(), case.mask(), case.sampler());
        let allowed = mask.as_deref().map(Allowed);
        for token in &case.tokens {
            assert_eq!(sampler.choose(&logits, allowed), Ok(*token), "{case:?}");
        }
    }
}

#[test]
fn another_implementation_finds_the_same_margins() {
    for case in cases() {
        let (logits, mask, mut sampler) = (case.logits(), case.mask(), case.sampler());
        let allowed = mask.as_deref().map(Allowed);
        for (token, second) in case.tokens.iter().zip(&case.second) {
            if let Some((runner_up, behind)) = second {
                let margin = sampler.clone().margin(&logits, *runner_up, allowed).unwrap();
                assert!((margin - behind).abs() < 2e-9, "{margin} instead of {behind}: {case:?}");
            }
            assert_eq!(sampler.margin(&logits, *token, allowed), Ok(0.0), "{case:?}");
        }
    }
}
