//! Gumbel-max with the stream of a seed and a position.
//!
//! Most tokens of a vocabulary cannot win, and most of the work is to notice that cheaply: a token's number from the
//! stream is at most [`HIGHEST`], and a bound that needs no logarithm tells nearly every loser. Neither changes who wins.

use chacha20::{
    ChaCha20Rng,
    rand_core::{Rng, SeedableRng},
};

use super::Candidate;
use crate::{hash::keccak256, softmax};

/// Tokens that are looked at together.
const SPAN: usize = 64;

/// No number from the stream is larger: that of the largest word is 22.87.
const HIGHEST: f64 = 22.875;

/// The token that wins, and its sum.
#[derive(Debug, Clone, Copy)]
pub(super) struct Pick {
    pub(super) id: u32,
    pub(super) sum: f64,
}

impl Pick {
    /// The winner of two; the lower id wins a tie.
    fn better(best: Option<Self>, next: Self) -> Option<Self> {
        match best {
            Some(best) if best.sum > next.sum || (best.sum >= next.sum && best.id < next.id) => Some(best),
            _ => Some(next),
        }
    }
}

fn stream(seed: u64, position: u64) -> ChaCha20Rng {
    let key = keccak256(&[b"rialto sampler v1", &seed.to_le_bytes(), &position.to_le_bytes()]);
    ChaCha20Rng::from_seed(key)
}

/// The sum of one token.
pub(super) fn sum(seed: u64, position: u64, id: u32, scaled: f64) -> f64 {
    let mut stream = stream(seed, position);
    stream.set_word_pos(id.into());
    scaled + gumbel(stream.next_u32())
}

/// The winner among these candidates.
pub(super) fn among(candidates: &[Candidate], seed: u64, position: u64) -> Option<Pick> {
    let mut stream = stream(seed, position);
    // Seeking costs as much as several words, so neighbours are read through.
    let mut next = 0u32;
    let mut best = None;
    for candidate in candidates {
        if candidate.id.wrapping_sub(next) > 64 {
            stream.set_word_pos(candidate.id.into());
            next = candidate.id;
        }
        while next < candidate.id {
            stream.next_u32();
            next += 1;
        }
        let word = stream.next_u32();
        next += 1;
        let sum = candidate.scaled + gumbel(word);
        best = Pick::better(best, Pick { id: candidate.id, sum });
    }
    best
}

/// The winner among all tokens with a finite logit.
pub(super) fn among_all(logits: &[f32], temperature: f64, seed: u64, position: u64) -> Option<Pick> {
    let likeliest = softmax::top(logits, 1).into_iter().next()?;
    let scaled = f64::from(likeliest.logit) / temperature;
    let mut best = Pick {
        id: likeliest.id,
        sum: sum(seed, position, likeliest.id, scaled),
    };
    let mut stream = stream(seed, position);
    let (mut base, mut next) = (0u32, 0u32);
    for span in logits.chunks(SPAN) {
        let width = u32::try_from(span.len()).unwrap_or_default();
        let top = span.iter().copied().fold(f32::NEG_INFINITY, f32::max);
        if f64::from(top) / temperature + HIGHEST >= best.sum {
            if next != base {
                stream.set_word_pos(base.into());
            }
            next = base.saturating_add(width);
            best = within(span, base, temperature, &mut stream, best);
        }
        base = base.saturating_add(width);
    }
    Some(best)
}

fn within(span: &[f32], base: u32, temperature: f64, stream: &mut ChaCha20Rng, mut best: Pick) -> Pick {
    let mut bytes = [0u8; SPAN * 4];
    let used = bytes.get_mut(..span.len().saturating_mul(4)).unwrap_or_default();
    stream.fill_bytes(used);
    let (words, _) = bytes.as_chunks::<4>();
    for ((id, logit), word) in (base..).zip(span).zip(words) {
        let word = u32::from_le_bytes(*word);
        let scaled = f64::from(*logit) / temperature;
        if scaled + ceiling(word) < best.sum {
            continue;
        }
        let sum = scaled + gumbel(word);
        if sum > best.sum || (sum >= best.sum && id < best.id) {
            best = Pick { id, sum };
        }
    }
    best
}

/// A Gumbel-distributed number from a uniform word, never infinite.
fn gumbel(word: u32) -> f64 {
    let uniform = (f64::from(word) + 0.5) / 4_294_967_296.0;
    -libm::log(-libm::log(uniform))
}

/// More than [`gumbel`] of this word can be: `-ln u >= 1 - u`, and `1 - u` is at least the power of two that the leading
/// zeros of the word's complement tell.
fn ceiling(word: u32) -> f64 {
    f64::from((!word).leading_zeros() + 1) * (std::f64::consts::LN_2 + 1e-7)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn no_number_is_above_its_bound() {
        for word in [0, 1, u32::MAX / 2, u32::MAX / 2 + 1, u32::MAX - 1, u32::MAX] {
            assert!(gumbel(word) < ceiling(word), "{word}");
            assert!(gumbel(word) < HIGHEST && gumbel(word).is_finite());
        }
        for shift in 0..32 {
            for near in [-1i64, 0, 1] {
                let word =
                    u32::try_from((i64::from(u32::MAX) - (1i64 << shift) + near).clamp(0, u32::MAX.into())).unwrap();
                assert!(gumbel(word) < ceiling(word), "{word}");
            }
        }
    }

    proptest! {
        #[test]
        fn words_stay_below_their_bound(word: u32) {
            prop_assert!(gumbel(word) < ceiling(word));
        }

        #[test]
        fn the_short_way_and_the_long_way_pick_the_same(
            mut logits in proptest::collection::vec(-40f32..10.0, 1..700),
            low in 0usize..700,
            seed: u64,
            temperature in 0.05f64..2.0,
        ) {
            // A stretch without anything to win, so that words are skipped.
            for logit in logits.iter_mut().skip(low).take(200) {
                *logit -= 100.0;
            }
            let candidates: Vec<Candidate> = (0u32..)
                .zip(&logits)
                .map(|(id, logit)| Candidate { id, scaled: f64::from(*logit) / temperature })
                .collect();
            let long = among(&candidates, seed, 3).unwrap();
            let short = among_all(&logits, temperature, seed, 3).unwrap();
            prop_assert_eq!((long.id, long.sum.to_bits()), (short.id, short.sum.to_bits()));
        }
    }
}
