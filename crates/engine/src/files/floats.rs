//! Weights that are not numbers.
//!
//! One NaN in the weights makes every answer NaN: an engine then samples the same token for ever, or fails an assertion
//! in the middle of a paid answer. Infinities do the same in language models. Looking for them costs a comparison for
//! each element, in loops that compilers turn into vector instructions: what it costs is reading the file.

use std::io::{Read, Seek};

use super::{Label, Malformed, input::Input};

/// Most bytes that are looked at in one go.
const BLOCK: u64 = 256 << 10;

/// How the floating-point numbers lie in a tensor's data.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Floats {
    /// None, or in a layout that is not known: nothing is looked at.
    None,
    /// IEEE half precision.
    F16,
    /// The upper half of single precision.
    Bf16,
    /// IEEE single precision.
    F32,
    /// IEEE double precision.
    F64,
    /// Eight bits, five of exponent, with infinities.
    E5m2,
    /// Eight bits, four of exponent, without infinities.
    E4m3,
    /// Eight bits of exponent alone: the scale of a block of the microscaling formats, which is its first byte.
    E8m0 {
        /// Bytes of a block.
        block: usize,
    },
    /// Quantised weights in blocks of bytes, with half-precision scales at these places of each.
    Scales {
        /// Bytes of a block.
        block: usize,
        /// Where its scales are.
        at: &'static [usize],
    },
}

/// What is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Refuse {
    /// Only what is not a number: formats in which an honest model may carry an infinity, as a mask or a threshold.
    Nan,
    /// Infinities too.
    Infinite,
}

impl Floats {
    /// Bytes after which the layout repeats.
    fn width(self) -> usize {
        match self {
            Self::None | Self::E5m2 | Self::E4m3 => 1,
            Self::F16 | Self::Bf16 => 2,
            Self::F32 => 4,
            Self::F64 => 8,
            Self::E8m0 { block } | Self::Scales { block, .. } => block.max(1),
        }
    }

    /// Whether any of these numbers is refused; whole elements only.
    fn any_bad(self, bytes: &[u8], refuse: Refuse) -> bool {
        // Without its sign, a number that is not finite is the largest as an integer: infinity first, NaN beyond it.
        let infinity_too = refuse == Refuse::Infinite;
        match self {
            Self::None => false,
            Self::F32 => {
                let largest = largest(bytes, |b| u32::from_le_bytes(b) & 0x7fff_ffff);
                largest > 0x7f80_0000 || infinity_too && largest == 0x7f80_0000
            }
            Self::F64 => {
                let largest = largest(bytes, |b| u64::from_le_bytes(b) & (u64::MAX >> 1));
                largest > 0x7ff0 << 48 || infinity_too && largest == 0x7ff0 << 48
            }
            Self::F16 => bad_half(largest(bytes, half), infinity_too),
            Self::Bf16 => {
                let largest = largest(bytes, half);
                largest > 0x7f80 || infinity_too && largest == 0x7f80
            }
            Self::E5m2 => {
                let largest = largest(bytes, |[b]| b & 0x7f);
                largest > 0x7c || infinity_too && largest == 0x7c
            }
            Self::E4m3 => largest(bytes, |[b]| b & 0x7f) == 0x7f,
            Self::E8m0 { block } => bytes
                .chunks_exact(block.max(1))
                .any(|block| block.first() == Some(&0xff)),
            Self::Scales { block, at } => at.iter().any(|at| {
                let scales = bytes.chunks_exact(block.max(1)).filter_map(|block| block.get(*at..));
                let scales = scales.filter_map(<[u8]>::first_chunk).map(|bytes| half(*bytes));
                bad_half(scales.fold(0, u16::max), infinity_too)
            }),
        }
    }

    /// Where the first block of bad numbers begins.
    fn first_bad(self, bytes: &[u8], refuse: Refuse) -> Option<usize> {
        let width = self.width();
        let mut elements = bytes.chunks_exact(width);
        let index = elements.position(|element| self.any_bad(element, refuse))?;
        index.checked_mul(width)
    }

    /// The offset in `bytes` of the first number that is refused.
    pub(crate) fn find(self, bytes: &[u8], refuse: Refuse) -> Option<usize> {
        if !self.any_bad(bytes, refuse) {
            return None;
        }
        self.first_bad(bytes, refuse)
    }
}

fn half(bytes: [u8; 2]) -> u16 {
    u16::from_le_bytes(bytes) & 0x7fff
}

fn bad_half(largest: u16, infinity_too: bool) -> bool {
    largest > 0x7c00 || infinity_too && largest == 0x7c00
}

fn largest<const N: usize, T: Ord + Copy + Default>(bytes: &[u8], read: impl Fn([u8; N]) -> T) -> T {
    let (elements, _) = bytes.as_chunks::<N>();
    elements.iter().map(|bytes| read(*bytes)).fold(T::default(), T::max)
}

/// A stretch of a file with the data of one tensor.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Stretch {
    /// First byte.
    pub(crate) start: u64,
    /// Bytes.
    pub(crate) length: u64,
    /// What lies there.
    pub(crate) floats: Floats,
}

/// Looks through stretches of a file, one after the other.
pub(crate) struct Scan {
    block: Vec<u8>,
    refuse: Refuse,
}

impl Scan {
    /// For files of at most `size` bytes; takes no more memory than that, and no more than 256 KiB.
    pub(crate) fn new(size: u64, refuse: Refuse) -> Self {
        let length = usize::try_from(size.min(BLOCK)).unwrap_or(0);
        Self {
            block: vec![0; length],
            refuse,
        }
    }

    /// The first refused number of a stretch, in bytes from the stretch's beginning.
    pub(crate) fn find<R: Read + Seek>(
        &mut self,
        input: &mut Input<R>,
        stretch: Stretch,
    ) -> Result<Option<u64>, Malformed> {
        const WHAT: &str = "the data of a tensor";
        if stretch.floats == Floats::None {
            return Ok(None);
        }
        let width = stretch.floats.width();
        let whole = self.block.len() - self.block.len().checked_rem(width).unwrap_or(0);
        let mut done = 0;
        while done < stretch.length {
            let left = usize::try_from(stretch.length - done).unwrap_or(usize::MAX);
            let block = self.block.get_mut(..whole.min(left)).unwrap_or_default();
            if block.is_empty() {
                let offset = stretch.start.saturating_add(done);
                return Err(Malformed::Truncated { what: WHAT, offset });
            }
            input.go_to(stretch.start.saturating_add(done), WHAT)?;
            input.fill(block, WHAT)?;
            let as_offset = |found| u64::try_from(found).unwrap_or(u64::MAX);
            if let Some(found) = stretch.floats.find(block, self.refuse) {
                return Ok(Some(done.saturating_add(as_offset(found))));
            }
            done = done.saturating_add(as_offset(block.len()));
        }
        Ok(None)
    }

    /// Like [`Self::find`], as an error with the tensor's name.
    pub(crate) fn check<R: Read + Seek>(
        &mut self,
        input: &mut Input<R>,
        stretch: Stretch,
        tensor: &[u8],
    ) -> Result<(), Malformed> {
        match self.find(input, stretch)? {
            None => Ok(()),
            Some(offset) => {
                let tensor = Label::new(tensor);
                Err(Malformed::NotFinite { tensor, offset })
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place(floats: Floats, refuse: Refuse, good: &[u8], bad: &[u8]) -> Option<usize> {
        let mut bytes = good.repeat(1_000);
        assert_eq!(floats.find(&bytes, refuse), None, "{floats:?}");
        let at = 700 * good.len();
        bytes[at..at + bad.len()].copy_from_slice(bad);
        floats.find(&bytes, refuse).inspect(|found| assert_eq!(*found, at))
    }

    #[test]
    fn what_is_not_finite_is_found_in_every_width() {
        for bad in [f32::NAN, -f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
            let double = f64::from(bad).to_le_bytes();
            let upper = &bad.to_le_bytes()[2..];
            let both = [Refuse::Nan, Refuse::Infinite];
            for refuse in both {
                let expected = bad.is_nan() || refuse == Refuse::Infinite;
                let largest = f32::MAX.to_le_bytes();
                assert_eq!(
                    place(Floats::F32, refuse, &largest, &bad.to_le_bytes()).is_some(),
                    expected
                );
                assert_eq!(
                    place(Floats::F64, refuse, &f64::MIN.to_le_bytes(), &double).is_some(),
                    expected
                );
                assert_eq!(place(Floats::Bf16, refuse, &[0x7f, 0x7f], upper).is_some(), expected);
            }
        }
        // A NaN that only its last bit distinguishes from an infinity.
        let quiet = 0x7f80_0001u32.to_le_bytes();
        assert!(place(Floats::F32, Refuse::Nan, &[0; 4], &quiet).is_some());
        for (bad, nan) in [([0x00, 0x7c], false), ([0x01, 0xfc], true), ([0x00, 0x7e], true)] {
            let largest = [0xff, 0x7b];
            assert_eq!(place(Floats::F16, Refuse::Nan, &largest, &bad).is_some(), nan);
            assert!(place(Floats::F16, Refuse::Infinite, &largest, &bad).is_some());
        }
        assert!(place(Floats::E4m3, Refuse::Nan, &[0xfe], &[0xff]).is_some());
        assert!(place(Floats::E5m2, Refuse::Nan, &[0x7c], &[0x7d]).is_some());
        assert!(place(Floats::E5m2, Refuse::Infinite, &[0x7b], &[0xfc]).is_some());
    }

    #[test]
    fn only_the_scales_of_a_block_are_looked_at() {
        let floats = Floats::Scales { block: 6, at: &[0, 4] };
        let good = [0, 0x3c, 0xff, 0xff, 0xff, 0x7b];
        for bad in [[0, 0x7e, 0, 0, 0, 0], [0, 0, 0, 0, 0, 0xfe]] {
            assert!(place(floats, Refuse::Infinite, &good, &bad).is_some());
        }
        let floats = Floats::E8m0 { block: 3 };
        assert!(place(floats, Refuse::Infinite, &[0xfe, 0xff, 0xff], &[0xff, 0, 0]).is_some());
    }

    #[test]
    fn a_stretch_is_looked_at_to_its_last_element() {
        let length = 3 * BLOCK + 4 * 5;
        let mut file = vec![0u8; usize::try_from(8 + length + 8).unwrap()];
        let stretch = Stretch {
            start: 8,
            length,
            floats: Floats::F32,
        };
        let find = |file: &[u8]| {
            let size = file.len() as u64;
            let mut input = Input::new(std::io::Cursor::new(file), size).unwrap();
            Scan::new(size, Refuse::Infinite).find(&mut input, stretch).unwrap()
        };
        // What lies around the stretch does not matter.
        file[4..8].copy_from_slice(&f32::NAN.to_le_bytes());
        let end = usize::try_from(8 + length).unwrap();
        file[end..end + 4].copy_from_slice(&f32::NAN.to_le_bytes());
        assert_eq!(find(&file), None);
        file[end - 4..end].copy_from_slice(&f32::NAN.to_le_bytes());
        assert_eq!(find(&file), Some(length - 4));
    }
}
