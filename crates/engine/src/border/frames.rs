//! Frames out of a stream of bytes.

use std::io;

use serde::{Serialize, de::DeserializeOwned};

/// Most bytes of a frame: the largest job or output, and what goes around it.
pub const MAX_FRAME: usize = 96 << 20;

/// Bytes of a frame's length.
const PREFIX: usize = 4;

/// Appends a value as a frame.
pub(super) fn append<T: Serialize>(buffer: &mut Vec<u8>, value: &T) -> io::Result<()> {
    let start = buffer.len();
    buffer.extend_from_slice(&[0; PREFIX]);
    let taken = std::mem::take(buffer);
    *buffer = postcard::to_extend(value, taken).map_err(io::Error::other)?;
    let length = buffer.len().saturating_sub(start).saturating_sub(PREFIX);
    if length > MAX_FRAME {
        buffer.truncate(start);
        return Err(io::Error::other("a frame is too large"));
    }
    let prefix = u32::try_from(length).map_err(io::Error::other)?.to_le_bytes();
    if let Some(place) = buffer.get_mut(start..start.saturating_add(PREFIX)) {
        place.copy_from_slice(&prefix);
    }
    Ok(())
}

/// Collects bytes and gives out whole frames.
#[derive(Debug, Default)]
pub struct FrameReader {
    bytes: Vec<u8>,
    /// Bytes at the start that were given out.
    used: usize,
}

impl FrameReader {
    /// Adds bytes as they came.
    pub fn extend(&mut self, bytes: &[u8]) {
        if self.used > 0 && self.used == self.bytes.len() {
            self.bytes.clear();
            self.used = 0;
        }
        self.bytes.extend_from_slice(bytes);
    }

    /// The next frame; `None` until it is whole. After an error the stream cannot be read any further.
    pub fn take<T: DeserializeOwned>(&mut self) -> io::Result<Option<T>> {
        let rest = self.bytes.get(self.used..).unwrap_or_default();
        let Some((prefix, rest)) = rest.split_first_chunk::<PREFIX>() else {
            self.compact();
            return Ok(None);
        };
        let length = usize::try_from(u32::from_le_bytes(*prefix)).map_err(io::Error::other)?;
        if length > MAX_FRAME {
            return Err(io::Error::other(format!("a frame of {length} bytes is too large")));
        }
        let Some(frame) = rest.get(..length) else {
            self.compact();
            return Ok(None);
        };
        let (value, left) = postcard::take_from_bytes(frame).map_err(io::Error::other)?;
        if !left.is_empty() {
            return Err(io::Error::other("a frame is longer than what it says"));
        }
        self.used = self.used.saturating_add(PREFIX).saturating_add(length);
        Ok(Some(value))
    }

    /// Forgets what was given out, once that is most of what is held.
    fn compact(&mut self) {
        if self.used > self.bytes.len() / 2 {
            self.bytes.drain(..self.used);
            self.used = 0;
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::border::ToWorker;

    fn frames() -> Vec<ToWorker> {
        vec![
            ToWorker::Ping { number: 7 },
            ToWorker::Replay {
                id: 3,
                job: rialto_protocol::job::Job::Embedding {
                    inputs: vec!["a".repeat(300)],
                },
                answer: vec![1, 2, 70_000],
            },
            ToWorker::Forget { id: 9 },
        ]
    }

    proptest! {
        #[test]
        fn frames_come_out_whole_however_the_bytes_are_cut(cuts in proptest::collection::vec(1usize..80, 1..40)) {
            let mut bytes = Vec::new();
            for frame in frames() {
                append(&mut bytes, &frame).unwrap();
            }
            let (mut reader, mut found, mut rest) = (FrameReader::default(), Vec::new(), bytes.as_slice());
            let mut cuts = cuts.into_iter().cycle();
            while !rest.is_empty() {
                let (now, later) = rest.split_at(cuts.next().unwrap().min(rest.len()));
                reader.extend(now);
                rest = later;
                while let Some(frame) = reader.take::<ToWorker>().unwrap() {
                    found.push(frame);
                }
            }
            prop_assert_eq!(found, frames());
        }

        #[test]
        fn no_bytes_make_the_reader_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let mut reader = FrameReader::default();
            reader.extend(&bytes);
            while let Ok(Some(_)) = reader.take::<ToWorker>() {}
        }
    }

    #[test]
    fn a_frame_that_is_too_large_or_has_something_after_it_is_refused() {
        let mut reader = FrameReader::default();
        reader.extend(&u32::MAX.to_le_bytes());
        assert!(reader.take::<ToWorker>().is_err());
        let mut bytes = Vec::new();
        append(&mut bytes, &ToWorker::Ping { number: 1 }).unwrap();
        bytes.push(0);
        bytes[0] += 1;
        let mut reader = FrameReader::default();
        reader.extend(&bytes);
        assert!(reader.take::<ToWorker>().is_err());
    }
}
