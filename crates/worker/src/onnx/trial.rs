//! What is measured of a model when it is loaded: how long a run takes, and whether a row's answer depends on the rows
//! beside it.
//!
//! Many kernels compute one row in another order than several, so that the last bits differ: regressors by up to 2.7e-4.
//! Only where every size of batch gave the bits that each row gives alone are requests run together later.

use std::time::Duration;

use ort::session::Session;
use rialto_engine::Error;
use rialto_protocol::{
    job::{Datatype, Tensor},
    manifest::{Manifest, TensorSpec},
};

use super::{
    batch,
    queue::{nanos, processor_time},
    tensor,
};

/// Most rows of a batch of several requests: each size up to it is tried.
const MOST_ROWS: u64 = 64;

/// Processor time for trying: what else the machine does decides nothing. A model that needs longer gets smaller batches.
const PATIENCE: Duration = Duration::from_millis(300);

/// Above this for one row, nothing is to be gained by running rows together.
const SLOW: Duration = Duration::from_millis(2);

/// Extent of dimensions that the manifest leaves open, other than the rows.
const OPEN: u64 = 4;

/// Most elements of a tensor that is made up.
const MOST_ELEMENTS: u64 = 1 << 22;

/// What the trial found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Trial {
    /// Most rows that may run together; 1 for never.
    pub(super) most_rows: u64,
    /// Nanoseconds for one row, and the bytes of that row; `None` when the model takes no made-up input.
    pub(super) alone: Option<(u64, u64)>,
}

impl Trial {
    /// Nothing is known, so nothing is run together.
    pub(super) const UNKNOWN: Self = Self {
        most_rows: 1,
        alone: None,
    };
}

/// Tries a model on made-up rows.
pub(super) fn run(session: &mut Session, manifest: &Manifest) -> Trial {
    let mut random = Random(0x5eed);
    let rows = if is_batched(manifest) { MOST_ROWS } else { 1 };
    let Some(inputs) = make_up(manifest, rows, &mut random) else {
        return Trial::UNKNOWN;
    };
    let outputs: Vec<String> = manifest.outputs.iter().map(|spec| spec.name.clone()).collect();
    let mut bench = Bench { session, outputs };
    let singles = match rows {
        1 => vec![inputs],
        rows => match batch::split(&inputs, &vec![1; usize::try_from(rows).unwrap_or(1)]) {
            Some(singles) => singles,
            None => return Trial::UNKNOWN,
        },
    };
    let Some(first) = singles.first() else {
        return Trial::UNKNOWN;
    };
    let Ok(time) = bench.time(first) else {
        return Trial::UNKNOWN;
    };
    let together = rows > 1 && time < SLOW;
    Trial {
        most_rows: if together { bench.most_rows(&singles) } else { 1 },
        alone: Some((nanos(time), batch::bytes(first))),
    }
}

/// Whether the first dimension of every tensor is left open: only then it can be a batch.
fn is_batched(manifest: &Manifest) -> bool {
    let open = |spec: &TensorSpec| spec.shape.first().is_some_and(|extent| *extent < 0);
    manifest.inputs.iter().chain(&manifest.outputs).all(open)
}

struct Bench<'s> {
    session: &'s mut Session,
    outputs: Vec<String>,
}

impl Bench<'_> {
    fn answer(&mut self, inputs: &[Tensor]) -> Result<Vec<Tensor>, Error> {
        tensor::run(self.session, inputs, &self.outputs, None, u64::MAX)
    }

    /// The shortest of a few runs, after one that warms up.
    fn time(&mut self, inputs: &[Tensor]) -> Result<Duration, Error> {
        let mut shortest = Duration::MAX;
        for run in 0..4 {
            let before = processor_time();
            self.answer(inputs)?;
            let took = processor_time().saturating_sub(before);
            if run > 0 {
                shortest = shortest.min(took);
            } else if took > PATIENCE {
                return Ok(took);
            }
        }
        Ok(shortest)
    }

    /// The largest size up to which every batch gives each row the bits that it has alone.
    fn most_rows(&mut self, singles: &[Vec<Tensor>]) -> u64 {
        let began = processor_time();
        let alone: Result<Vec<_>, Error> = singles.iter().map(|single| self.answer(single)).collect();
        let Ok(alone) = alone else { return 1 };
        let mut most = 1;
        for size in 2..=singles.len() {
            if processor_time().saturating_sub(began) > PATIENCE {
                break;
            }
            // Each size begins at another row, so that rows meet other neighbours and places.
            let chosen: Vec<usize> = (0..size).map(|place| (place + size * 7) % singles.len()).collect();
            let requests: Vec<&[Tensor]> = chosen
                .iter()
                .filter_map(|row| singles.get(*row))
                .map(Vec::as_slice)
                .collect();
            let together = batch::join(&requests).and_then(|joined| self.answer(&joined).ok());
            let parts = together.and_then(|outputs| batch::split(&outputs, &vec![1; size]));
            let same = parts.is_some_and(|parts| {
                let mut rows = chosen.iter().zip(&parts);
                parts.len() == size && rows.all(|(row, part)| alone.get(*row) == Some(part))
            });
            if !same {
                return 1;
            }
            most = u64::try_from(size).unwrap_or(1);
        }
        most
    }
}

/// Tensors of a signature with random elements. `None` when they would be too large.
fn make_up(manifest: &Manifest, rows: u64, random: &mut Random) -> Option<Vec<Tensor>> {
    let tensor = |spec: &TensorSpec| {
        let extents = spec.shape.iter().enumerate().map(|(axis, extent)| match axis {
            0 => u64::try_from(*extent).unwrap_or(rows),
            _ => u64::try_from(*extent).unwrap_or(OPEN),
        });
        let shape: Vec<u64> = extents.collect();
        let elements = shape
            .iter()
            .try_fold(1u64, |product, extent| product.checked_mul(*extent))?;
        let elements = Some(elements).filter(|elements| (1..=MOST_ELEMENTS).contains(elements))?;
        // Each row has a scale of its own: trees have thresholds at every size.
        let row = (elements / shape.first().copied().unwrap_or(1).max(1)).max(1);
        let mut scale = 1.0;
        let mut data = Vec::new();
        for element in 0..elements {
            if element % row == 0 {
                scale = f64::powi(10.0, i32::try_from(random.below(7)).unwrap_or(3) - 3);
            }
            random.element(spec.datatype, scale, &mut data);
        }
        Some(Tensor {
            name: spec.name.clone(),
            datatype: spec.datatype,
            shape,
            data,
        })
    };
    manifest.inputs.iter().map(tensor).collect()
}

/// Numbers that look random and are the same each time (SplitMix64).
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    fn below(&mut self, limit: u64) -> u64 {
        self.next() % limit
    }

    /// Appends an element: whole numbers are small, as categories and ids are; one of ten others is zero.
    #[expect(clippy::cast_possible_truncation, reason = "made-up numbers may be rounded")]
    fn element(&mut self, datatype: Datatype, scale: f64, data: &mut Vec<u8>) {
        let small = self.below(4) as u8;
        let unit = f64::from(self.next() as u32) / f64::from(u32::MAX) * 2.0 - 1.0;
        let real = if self.below(10) == 0 { 0.0 } else { unit * scale };
        match datatype {
            Datatype::Bool => data.push(small & 1),
            Datatype::Uint8 => data.push(self.next() as u8),
            Datatype::Int8 => data.push(small),
            Datatype::Int16 | Datatype::Uint16 => data.extend(u16::from(small).to_le_bytes()),
            Datatype::Int32 | Datatype::Uint32 => data.extend(u32::from(small).to_le_bytes()),
            Datatype::Int64 | Datatype::Uint64 => data.extend(u64::from(small).to_le_bytes()),
            Datatype::Fp16 => data.extend(half::f16::from_f64(real).to_le_bytes()),
            Datatype::Fp32 => data.extend((real as f32).to_le_bytes()),
            Datatype::Fp64 => data.extend(real.to_le_bytes()),
            Datatype::Bytes => {
                let word = format!("word {small}");
                data.extend(u32::try_from(word.len()).unwrap_or(0).to_le_bytes());
                data.extend(word.as_bytes());
            }
        }
    }
}
