//! Fingerprints: what a model thought while it answered, small enough to keep and hard enough to fake.
//!
//! At fixed places of the answer the eight largest log-probabilities are noted with their tokens. Their Merkle root
//! stands in the receipt: 32 bytes, whatever the length. Who is challenged opens the marks; one forward pass of the
//! true model gives the marks that should be there, and their distance tells which model ran.

use serde::{Deserialize, Serialize};

use crate::{
    Digest,
    hash::keccak256,
    softmax::{self, Ranked},
};

/// Tokens between two marks of a generated answer. The first token is marked.
pub const STRIDE: u32 = 8;

/// Log-probabilities of a mark.
pub const WIDTH: usize = 8;

/// Domain separation of leaves and nodes, so that neither can be taken for the other.
const DOMAINS: [&[u8]; 2] = [b"rialto fingerprint leaf v1", b"rialto fingerprint node v1"];

/// The likeliest tokens at one place of an answer.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Mark {
    /// Tokens of the answer before this place.
    pub position: u32,
    /// Token and log-probability, likeliest first; at most [`WIDTH`].
    pub top: Vec<(u32, f32)>,
}

/// The marks of one answer, in order.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Fingerprint {
    /// In order of their positions.
    pub marks: Vec<Mark>,
}

impl Mark {
    /// Whether an answer is marked at this place.
    pub fn is_due(position: u64) -> bool {
        position.is_multiple_of(u64::from(STRIDE))
    }

    /// The mark of these logits; `None` when a logit is not sound.
    pub fn of(position: u32, logits: &[f32]) -> Option<Self> {
        let normaliser = softmax::log_sum_exp(logits)?;
        let best = softmax::top(logits, WIDTH).into_iter();
        Some(Self {
            position,
            top: best
                .map(|Ranked { id, logit }| (id, logprob(logit, normaliser)))
                .collect(),
        })
    }

    /// How far two marks are apart: the mean absolute difference of the log-probabilities of this mark's tokens. A token
    /// that the other mark lacks counts as the least that the other has, which is the most it can be.
    pub fn distance(&self, other: &Self) -> f32 {
        let floor = other.top.iter().map(|(_, logprob)| *logprob).fold(0.0f32, f32::min);
        let difference = |(id, logprob): &(u32, f32)| {
            let found = other.top.iter().find(|(other, _)| other == id);
            (logprob - found.map_or(floor, |(_, logprob)| *logprob)).abs()
        };
        let count = u16::try_from(self.top.len()).unwrap_or(u16::MAX).max(1);
        self.top.iter().map(difference).sum::<f32>() / f32::from(count)
    }

    fn leaf(&self) -> [u8; 32] {
        let [domain, _] = DOMAINS;
        keccak256(&[domain, &postcard::to_stdvec(self).unwrap_or_default()])
    }
}

/// A log-probability as it is kept and sent.
#[expect(clippy::cast_possible_truncation, reason = "single precision is what is kept")]
pub fn logprob(logit: f32, normaliser: f64) -> f32 {
    (f64::from(logit) - normaliser) as f32
}

impl Fingerprint {
    /// The Merkle root over all marks; zero when there is none. A node without a sibling moves up unchanged.
    pub fn root(&self) -> Digest {
        let mut level: Vec<[u8; 32]> = self.marks.iter().map(Mark::leaf).collect();
        while level.len() > 1 {
            level = level.chunks(2).map(parent).collect();
        }
        level.first().copied().map_or(Digest::default(), Digest)
    }

    /// The hashes that prove a mark against the root, from the bottom; `None` beyond the last mark.
    pub fn proof(&self, index: usize) -> Option<Vec<Digest>> {
        let mut level: Vec<[u8; 32]> = self.marks.iter().map(Mark::leaf).collect();
        level.get(index)?;
        let (mut place, mut proof) = (index, Vec::new());
        while level.len() > 1 {
            if let Some(sibling) = level.get(place ^ 1) {
                proof.push(Digest(*sibling));
            }
            level = level.chunks(2).map(parent).collect();
            place /= 2;
        }
        Some(proof)
    }

    /// The mean distance of these marks from the same places of another fingerprint; `None` when no place is in both.
    pub fn distance(&self, other: &Self) -> Option<f32> {
        let pairs = self.marks.iter().filter_map(|mark| {
            let found = other.marks.binary_search_by_key(&mark.position, |one| one.position);
            Some(mark.distance(other.marks.get(found.ok()?)?))
        });
        let (sum, count) = pairs.fold((0.0f32, 0u16), |(sum, count), one| (sum + one, count.saturating_add(1)));
        (count > 0).then(|| sum / f32::from(count))
    }
}

/// Whether a mark stands at this place under a root over so many marks.
pub fn verify(mark: &Mark, index: usize, count: usize, proof: &[Digest], root: Digest) -> bool {
    if index >= count {
        return false;
    }
    let (mut hash, mut place, mut width) = (mark.leaf(), index, count);
    let mut rest = proof.iter();
    while width > 1 {
        if place ^ 1 < width {
            let Some(sibling) = rest.next() else { return false };
            let pair = if place.is_multiple_of(2) {
                [hash, sibling.0]
            } else {
                [sibling.0, hash]
            };
            hash = parent(&pair);
        }
        place /= 2;
        width = width.div_ceil(2);
    }
    rest.next().is_none() && Digest(hash) == root
}

fn parent(pair: &[[u8; 32]]) -> [u8; 32] {
    let [_, domain] = DOMAINS;
    match pair {
        [left, right] => keccak256(&[domain, left, right]),
        [alone] => *alone,
        _ => [0; 32],
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn mark(position: u32, shift: f32) -> Mark {
        let logits: Vec<f32> = (0..40u8)
            .map(|id| f32::from(id % 13) + shift * f32::from(id % 5))
            .collect();
        Mark::of(position, &logits).unwrap()
    }

    #[test]
    fn a_mark_is_near_itself_and_far_from_another_model() {
        let (one, near, far) = (mark(0, 0.0), mark(0, 0.001), mark(0, 1.0));
        assert_eq!(one.distance(&one), 0.0);
        assert!(one.distance(&near) > 0.0 && one.distance(&near) < 0.01);
        assert!(one.distance(&far) > 0.1, "{}", one.distance(&far));
        assert_eq!(Mark::of(0, &[f32::NAN]), None);
        assert_eq!(Mark::of(0, &[1.0, 2.0]).unwrap().top.len(), 2);
    }

    #[test]
    fn only_places_that_both_have_are_compared() {
        let every = Fingerprint {
            marks: (0..20).map(|position| mark(position, 0.0)).collect(),
        };
        let some = Fingerprint {
            marks: [0, 8, 16].map(|position| mark(position, 0.0)).into(),
        };
        assert_eq!(some.distance(&every), Some(0.0));
        assert_eq!(some.distance(&Fingerprint::default()), None);
    }

    proptest! {
        #[test]
        fn every_mark_can_be_opened_and_no_other_passes(count in 1u32..40, index in 0usize..40) {
            let fingerprint = Fingerprint { marks: (0..count).map(|position| mark(position, 0.1)).collect() };
            let (root, length) = (fingerprint.root(), fingerprint.marks.len());
            let Some(proof) = fingerprint.proof(index) else {
                prop_assert!(index >= length);
                return Ok(());
            };
            prop_assert!(verify(&fingerprint.marks[index], index, length, &proof, root));
            prop_assert!(!verify(&mark(99, 0.1), index, length, &proof, root));
            prop_assert!(!verify(&fingerprint.marks[index], index + 1, length, &proof, root));
            let mut longer = proof.clone();
            longer.push(Digest::default());
            prop_assert!(!verify(&fingerprint.marks[index], index, length, &longer, root));
        }
    }
}
