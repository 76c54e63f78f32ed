//! A file that is read with bounds: nothing is asked of it beyond the size that it had when it was opened, and no
//! buffer is as large as a number that the file itself names.

use std::io::{BufReader, ErrorKind, Read, Seek, SeekFrom};

use super::Malformed;

/// Bytes read ahead. With the few hundred bytes of a reader's own state it is all the memory that a small file costs
/// beyond its own size.
const READ_AHEAD: usize = 8 << 10;

/// A file of known size, at a known place.
#[derive(Debug)]
pub(crate) struct Input<R: ?Sized> {
    size: u64,
    at: u64,
    reader: BufReader<R>,
}

impl<R: Read + Seek> Input<R> {
    /// At the beginning of a file of `size` bytes.
    pub(crate) fn new(mut reader: R, size: u64) -> Result<Self, Malformed> {
        reader.seek(SeekFrom::Start(0))?;
        Ok(Self {
            size,
            at: 0,
            reader: BufReader::with_capacity(READ_AHEAD, reader),
        })
    }

    /// Bytes in all.
    pub(crate) fn size(&self) -> u64 {
        self.size
    }

    /// Bytes before here.
    pub(crate) fn at(&self) -> u64 {
        self.at
    }

    /// Bytes from here on.
    pub(crate) fn remaining(&self) -> u64 {
        self.size.saturating_sub(self.at)
    }

    /// Goes to a place, which may be the end.
    pub(crate) fn go_to(&mut self, place: u64, what: &'static str) -> Result<(), Malformed> {
        if place > self.size {
            return Err(Malformed::Truncated { what, offset: self.at });
        }
        let distance = i128::from(place) - i128::from(self.at);
        match i64::try_from(distance) {
            Ok(distance) => self.reader.seek_relative(distance)?,
            Err(_) => drop(self.reader.seek(SeekFrom::Start(place))?),
        }
        self.at = place;
        Ok(())
    }

    /// Goes forward by a number of bytes that the file may name.
    pub(crate) fn skip(&mut self, bytes: u64, what: &'static str) -> Result<(), Malformed> {
        let offset = self.at;
        let place = self.at.checked_add(bytes).filter(|place| *place <= self.size);
        self.go_to(place.ok_or(Malformed::Truncated { what, offset })?, what)
    }

    /// Fills `target`, whose length the caller has bounded.
    pub(crate) fn fill(&mut self, target: &mut [u8], what: &'static str) -> Result<(), Malformed> {
        let offset = self.at;
        let length = u64::try_from(target.len()).unwrap_or(u64::MAX);
        if length > self.remaining() {
            return Err(Malformed::Truncated { what, offset });
        }
        match self.reader.read_exact(target) {
            Ok(()) => self.at = self.at.saturating_add(length),
            // The file became shorter since it was opened.
            Err(error) if error.kind() == ErrorKind::UnexpectedEof => {
                return Err(Malformed::Truncated { what, offset });
            }
            Err(error) => return Err(error.into()),
        }
        Ok(())
    }

    /// The next bytes.
    pub(crate) fn array<const N: usize>(&mut self, what: &'static str) -> Result<[u8; N], Malformed> {
        let mut bytes = [0; N];
        self.fill(&mut bytes, what)?;
        Ok(bytes)
    }

    /// The next four bytes as a little-endian number.
    pub(crate) fn u32(&mut self, what: &'static str) -> Result<u32, Malformed> {
        self.array(what).map(u32::from_le_bytes)
    }

    /// The next eight bytes as a little-endian number.
    pub(crate) fn u64(&mut self, what: &'static str) -> Result<u64, Malformed> {
        self.array(what).map(u64::from_le_bytes)
    }
}

#[cfg(test)]
mod tests {
    use std::io::Cursor;

    use super::*;

    #[test]
    fn nothing_is_read_behind_the_end_that_the_file_had() {
        // The reader has more bytes than the file is said to have, as one that grows meanwhile.
        let mut input = Input::new(Cursor::new(vec![7u8; 100]), 10).unwrap();
        input.skip(4, "a field").unwrap();
        assert_eq!(input.u32("a field").unwrap(), 0x0707_0707);
        let cut = |offset| Malformed::Truncated {
            what: "a field",
            offset,
        };
        assert_eq!(input.u32("a field"), Err(cut(8)));
        assert_eq!(input.skip(u64::MAX, "a field"), Err(cut(8)));
        assert_eq!(input.skip(3, "a field"), Err(cut(8)));
        assert_eq!((input.at(), input.remaining()), (8, 2));
        input.go_to(0, "a field").unwrap();
        assert_eq!(input.u64("a field").unwrap(), 0x0707_0707_0707_0707);
    }

    #[test]
    fn a_file_that_shrinks_meanwhile_is_cut_short_and_no_crash() {
        let mut input = Input::new(Cursor::new(vec![7u8; 6]), 10).unwrap();
        let expected = Err(Malformed::Truncated { what: "it", offset: 0 });
        assert_eq!(input.u64("it"), expected);
    }
}
