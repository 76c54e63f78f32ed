//! Tensors, as the Open Inference Protocol has them.

use serde::{Deserialize, Serialize};

use super::{BadJob, MAX_INPUT_BYTES};
use crate::{bounded, manifest::MAX_DIMENSIONS};

/// The element types of the Open Inference Protocol V2 that are accepted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum Datatype {
    /// One byte each, 0 or 1.
    Bool,
    /// Unsigned 8 bits.
    Uint8,
    /// Signed 32 bits.
    Int32,
    /// Signed 64 bits.
    Int64,
    /// IEEE 754 single precision.
    Fp32,
    /// IEEE 754 double precision.
    Fp64,
    /// Strings: each a little-endian 32-bit length and its bytes.
    Bytes,
    // New types come last: a type's place in this list is part of every manifest's hash.
    /// Signed 8 bits.
    Int8,
    /// Signed 16 bits.
    Int16,
    /// Unsigned 16 bits.
    Uint16,
    /// Unsigned 32 bits.
    Uint32,
    /// Unsigned 64 bits.
    Uint64,
    /// IEEE 754 half precision.
    Fp16,
}

impl Datatype {
    /// Bytes of one element; `None` for strings.
    pub fn width(self) -> Option<usize> {
        match self {
            Self::Bool | Self::Uint8 | Self::Int8 => Some(1),
            Self::Int16 | Self::Uint16 | Self::Fp16 => Some(2),
            Self::Int32 | Self::Uint32 | Self::Fp32 => Some(4),
            Self::Int64 | Self::Uint64 | Self::Fp64 => Some(8),
            Self::Bytes => None,
        }
    }
}

/// A tensor, row-major, little-endian.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tensor {
    /// The input's or output's name.
    #[serde(deserialize_with = "bounded::text::<_, MAX_INPUT_BYTES>")]
    pub name: String,
    /// Element type.
    pub datatype: Datatype,
    /// Extent of each dimension; the first is the batch.
    #[serde(deserialize_with = "bounded::list::<_, _, MAX_DIMENSIONS>")]
    pub shape: Vec<u64>,
    /// The elements.
    #[serde(deserialize_with = "bounded::list::<_, _, MAX_INPUT_BYTES>")]
    pub data: Vec<u8>,
}

impl Tensor {
    /// Elements by shape; `None` when the product overflows.
    pub fn elements(&self) -> Option<usize> {
        self.shape.iter().try_fold(1usize, |product, extent| {
            product.checked_mul(usize::try_from(*extent).ok()?)
        })
    }

    /// Rows: the extent of the first dimension, 1 for a scalar.
    pub fn rows(&self) -> u64 {
        self.shape.first().copied().unwrap_or(1)
    }

    /// Checks that the data has the length that shape and type say.
    pub fn check(&self) -> Result<(), BadJob> {
        let bad = |reason: String| BadJob::new("inputs", format!("tensor `{}`: {reason}", self.name));
        if self.shape.len() > MAX_DIMENSIONS {
            return Err(bad(format!("more than {MAX_DIMENSIONS} dimensions")));
        }
        let elements = self.elements().ok_or_else(|| bad("the shape overflows".into()))?;
        if elements == 0 {
            return Err(bad("a dimension is zero".into()));
        }
        match self.datatype.width() {
            Some(width) if elements.checked_mul(width) != Some(self.data.len()) => Err(bad(format!(
                "{elements} elements expected, {} bytes of data given",
                self.data.len()
            ))),
            Some(_) => Ok(()),
            None => self
                .check_strings(elements)
                .ok_or_else(|| bad("strings do not match the shape".into())),
        }
    }

    fn check_strings(&self, elements: usize) -> Option<()> {
        let mut rest = self.data.as_slice();
        for _ in 0..elements {
            let (length, tail) = rest.split_first_chunk::<4>()?;
            rest = tail.get(usize::try_from(u32::from_le_bytes(*length)).ok()?..)?;
        }
        rest.is_empty().then_some(())
    }
}
