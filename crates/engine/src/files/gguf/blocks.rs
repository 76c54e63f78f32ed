//! The element types of ggml (`ggml.h` and `ggml-common.h` of llama.cpp): how many weights share a block, how many bytes
//! it takes, and where its scales lie.

use super::super::floats::Floats;

/// An element type.
#[derive(Debug)]
pub(crate) struct Block {
    /// Its number in a file.
    pub(crate) code: u32,
    /// As llama.cpp calls it.
    pub(crate) name: &'static str,
    /// Weights in a block. A row of a tensor is a whole number of blocks.
    pub(crate) weights: u64,
    /// Bytes of a block.
    pub(crate) bytes: u64,
    /// Where the floating-point numbers are.
    pub(crate) floats: Floats,
}

impl Block {
    /// The type with this number; none for numbers that were never given or are no longer in use.
    pub(crate) fn find(code: u32) -> Option<&'static Self> {
        BLOCKS.iter().find(|block| block.code == code)
    }
}

const fn plain(code: u32, name: &'static str, bytes: u64, floats: Floats) -> Block {
    Block {
        code,
        name,
        weights: 1,
        bytes,
        floats,
    }
}

/// With half-precision scales at `at`.
const fn scaled(code: u32, name: &'static str, weights: u64, bytes: u16, at: &'static [usize]) -> Block {
    Block {
        code,
        name,
        weights,
        bytes: bytes as u64,
        floats: Floats::Scales {
            block: bytes as usize,
            at,
        },
    }
}

const fn other(code: u32, name: &'static str, weights: u64, bytes: u64, floats: Floats) -> Block {
    Block {
        code,
        name,
        weights,
        bytes,
        floats,
    }
}

static BLOCKS: [Block; 35] = [
    plain(0, "F32", 4, Floats::F32),
    plain(1, "F16", 2, Floats::F16),
    scaled(2, "Q4_0", 32, 18, &[0]),
    scaled(3, "Q4_1", 32, 20, &[0, 2]),
    scaled(6, "Q5_0", 32, 22, &[0]),
    scaled(7, "Q5_1", 32, 24, &[0, 2]),
    scaled(8, "Q8_0", 32, 34, &[0]),
    scaled(9, "Q8_1", 32, 36, &[0, 2]),
    scaled(10, "Q2_K", 256, 84, &[80, 82]),
    scaled(11, "Q3_K", 256, 110, &[108]),
    scaled(12, "Q4_K", 256, 144, &[0, 2]),
    scaled(13, "Q5_K", 256, 176, &[0, 2]),
    scaled(14, "Q6_K", 256, 210, &[208]),
    // Only ever made while llama.cpp computes; its scale is in single precision.
    other(15, "Q8_K", 256, 292, Floats::None),
    scaled(16, "IQ2_XXS", 256, 66, &[0]),
    scaled(17, "IQ2_XS", 256, 74, &[0]),
    scaled(18, "IQ3_XXS", 256, 98, &[0]),
    scaled(19, "IQ1_S", 256, 50, &[0]),
    scaled(20, "IQ4_NL", 32, 18, &[0]),
    scaled(21, "IQ3_S", 256, 110, &[0]),
    scaled(22, "IQ2_S", 256, 82, &[0]),
    scaled(23, "IQ4_XS", 256, 136, &[0]),
    plain(24, "I8", 1, Floats::None),
    plain(25, "I16", 2, Floats::None),
    plain(26, "I32", 4, Floats::None),
    plain(27, "I64", 8, Floats::None),
    plain(28, "F64", 8, Floats::F64),
    // Its scale is scattered over four bytes.
    other(29, "IQ1_M", 256, 56, Floats::None),
    plain(30, "BF16", 2, Floats::Bf16),
    scaled(34, "TQ1_0", 256, 54, &[52]),
    scaled(35, "TQ2_0", 256, 66, &[64]),
    other(39, "MXFP4", 32, 17, Floats::E8m0 { block: 17 }),
    // Its scales are unsigned bytes with 0x7f and 0xff for what is no number, four to a block.
    other(40, "NVFP4", 64, 36, Floats::None),
    scaled(41, "Q1_0", 128, 18, &[0]),
    scaled(42, "Q2_0", 64, 18, &[0]),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_number_is_there_once_and_its_scales_are_inside_its_block() {
        for block in &BLOCKS {
            let same = BLOCKS.iter().filter(|other| other.code == block.code);
            assert_eq!(same.count(), 1, "{block:?}");
            if let Floats::Scales { block: bytes, at } = block.floats {
                assert_eq!(bytes as u64, block.bytes);
                assert!(at.iter().all(|at| at + 2 <= bytes), "{block:?}");
            }
        }
    }

    #[test]
    fn sizes_are_those_of_llama_cpp() {
        // Bits a weight, as llama.cpp's README and `ggml-common.h` state them.
        for (name, millibits) in [
            ("Q4_0", 4_500),
            ("Q8_0", 8_500),
            ("Q2_K", 2_625),
            ("Q6_K", 6_562),
            ("IQ1_M", 1_750),
        ] {
            let block = BLOCKS.iter().find(|block| block.name == name).unwrap();
            assert_eq!(block.bytes * 8_000 / block.weights, millibits, "{name}");
        }
    }
}
