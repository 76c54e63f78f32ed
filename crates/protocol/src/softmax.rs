//! Probabilities of tokens from logits: the same bits on every machine.
//!
//! Only additions, multiplications and comparisons of IEEE 754 doubles in a fixed order are used, and no function of the
//! platform's mathematical library, whose last bits differ between systems. The loops are written so that compilers
//! can use vectors, which does not change what each lane computes.

/// Lanes that sums are kept in; part of the definition, because addition is not associative.
const LANES: usize = 8;

/// Below this `exp` is taken for zero; the true value would be no normal number.
const LOWEST: f64 = -708.0;

/// `exp(x)` for `x <= 0`, to within 2 units in the last place.
///
/// Cody and Waite's reduction: `x = n ln 2 + r` with `|r| <= ln 2 / 2`, a Taylor polynomial for `exp(r)`, and `n` added to
/// the exponent.
#[inline]
pub fn exp(x: f64) -> f64 {
    /// The upper 32 bits of ln 2, and the rest: their products with `n` are exact, or small.
    const LN2_HIGH: f64 = 6.931_471_803_691_238e-1;
    const LN2_LOW: f64 = 1.908_214_929_270_587_7e-10;
    /// 1.5 * 2^52: adding it rounds to an integer, which then stands in the lowest bits.
    const ROUND: f64 = 6_755_399_441_055_744.0;
    let clamped = if x < LOWEST { LOWEST } else { x };
    let shifted = clamped * std::f64::consts::LOG2_E + ROUND;
    let n = shifted - ROUND;
    let r = (clamped - n * LN2_HIGH) - n * LN2_LOW;
    let mut sum = 1.0 / 479_001_600.0;
    for coefficient in [
        1.0 / 39_916_800.0,
        1.0 / 3_628_800.0,
        1.0 / 362_880.0,
        1.0 / 40_320.0,
        1.0 / 5_040.0,
        1.0 / 720.0,
        1.0 / 120.0,
        1.0 / 24.0,
        1.0 / 6.0,
        0.5,
        1.0,
        1.0,
    ] {
        sum = sum * r + coefficient;
    }
    // The integer in the lowest bits of `shifted`, moved to where the exponent is.
    let power = f64::from_bits((shifted.to_bits() << 52).wrapping_add(1.0f64.to_bits()));
    if x < LOWEST { 0.0 } else { sum * power }
}

/// The largest logit, and whether every logit is finite or minus infinity, which stands for "never this token".
pub fn highest(logits: &[f32]) -> Option<f32> {
    let mut lanes = [f32::NEG_INFINITY; 16];
    let mut sound = [true; 16];
    let (chunks, rest) = logits.as_chunks::<16>();
    for chunk in chunks {
        for ((lane, sound), logit) in lanes.iter_mut().zip(&mut sound).zip(chunk) {
            *lane = if *logit > *lane { *logit } else { *lane };
            // False for NaN too.
            *sound &= *logit < f32::INFINITY;
        }
    }
    for ((lane, sound), logit) in lanes.iter_mut().zip(&mut sound).zip(rest) {
        *lane = if *logit > *lane { *logit } else { *lane };
        *sound &= *logit < f32::INFINITY;
    }
    let top = lanes.into_iter().fold(f32::NEG_INFINITY, f32::max);
    (sound.into_iter().all(|sound| sound) && top > f32::NEG_INFINITY).then_some(top)
}

/// The natural logarithm of the sum of `exp(logit)`; `None` when a logit is NaN or infinite, or all are minus infinity.
pub fn log_sum_exp(logits: &[f32]) -> Option<f64> {
    let top = f64::from(highest(logits)?);
    let mut lanes = [0.0f64; LANES];
    let (chunks, rest) = logits.as_chunks::<LANES>();
    for chunk in chunks {
        for (lane, logit) in lanes.iter_mut().zip(chunk) {
            *lane += exp(f64::from(*logit) - top);
        }
    }
    for (lane, logit) in lanes.iter_mut().zip(rest) {
        *lane += exp(f64::from(*logit) - top);
    }
    let sum: f64 = lanes.into_iter().sum();
    Some(top + libm::log(sum))
}

/// A token and its logit.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Ranked {
    /// Its id in the model's vocabulary.
    pub id: u32,
    /// As the model gave it.
    pub logit: f32,
}

/// The `count` largest logits, largest first; the lower id first among equals. NaN and minus infinity are left out.
pub fn top(logits: &[f32], count: usize) -> Vec<Ranked> {
    let mut best: Vec<Ranked> = Vec::with_capacity(count.saturating_add(1).min(logits.len().saturating_add(1)));
    if count == 0 {
        return best;
    }
    let mut floor = f32::NEG_INFINITY;
    let mut base = 0u32;
    for chunk in logits.chunks(16) {
        // One comparison for each logit, and work only where there is something to keep.
        if chunk.iter().any(|logit| *logit > floor) {
            for (id, logit) in (base..).zip(chunk) {
                if *logit > floor {
                    let place = best.partition_point(|one| one.logit >= *logit);
                    best.insert(place, Ranked { id, logit: *logit });
                    best.truncate(count);
                    floor = match best.last() {
                        Some(last) if best.len() == count => last.logit,
                        _ => f32::NEG_INFINITY,
                    };
                }
            }
        }
        base = base.saturating_add(16);
    }
    best
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_exponential_is_right_to_the_last_places() {
        let mut worst = 0.0f64;
        for step in 0..70_000u32 {
            let x = -f64::from(step) / 100.0;
            let expected = libm::exp(x);
            worst = worst.max(((exp(x) - expected) / expected).abs());
        }
        assert!(worst < 5e-16, "{worst:e}");
        assert_eq!(exp(0.0), 1.0);
        assert_eq!(exp(f64::NEG_INFINITY), 0.0);
    }

    #[test]
    fn what_no_sound_model_gives_is_noticed() {
        for logits in [
            vec![0.0, f32::NAN],
            vec![f32::INFINITY; 20],
            vec![f32::NEG_INFINITY; 40],
            vec![],
        ] {
            assert_eq!(log_sum_exp(&logits), None, "{logits:?}");
        }
        assert!((log_sum_exp(&[0.0, f32::NEG_INFINITY, 0.0]).unwrap() - 2.0f64.ln()).abs() < 1e-15);
    }

    proptest! {
        #[test]
        fn the_best_are_those_that_sorting_finds(
            logits in proptest::collection::vec(-3i8..3, 0..100),
            count in 0usize..25,
        ) {
            let logits: Vec<f32> = logits.into_iter().map(f32::from).collect();
            let mut sorted: Vec<(u32, f32)> = (0u32..).zip(logits.iter().copied()).collect();
            sorted.sort_by(|one, other| other.1.total_cmp(&one.1).then(one.0.cmp(&other.0)));
            sorted.truncate(count);
            let found: Vec<(u32, f32)> = top(&logits, count).iter().map(|one| (one.id, one.logit)).collect();
            prop_assert_eq!(found, sorted);
        }

        #[test]
        fn probabilities_add_up_to_one(logits in proptest::collection::vec(-30f32..30.0, 1..300)) {
            let normaliser = log_sum_exp(&logits).unwrap();
            let sum: f64 = logits.iter().map(|logit| (f64::from(*logit) - normaliser).exp()).sum();
            prop_assert!((sum - 1.0).abs() < 1e-12);
        }
    }
}
