//! One record on disk: length, sequence number, checksum, payload.

use alloy::primitives::keccak256;
use std::io;

/// Length (4), sequence (8) and checksum (8), all little endian.
pub(super) const HEAD: usize = 20;
/// The most bytes of a record. A block of 30 million gas stays far below.
pub(super) const MAX_PAYLOAD: usize = 64 << 20;

/// Why no record could be read at a place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Unreadable {
    /// The bytes end before the record does.
    Short,
    /// The bytes are not a record with the expected number.
    Damaged(&'static str),
}

/// Appends the frame of `payload` to `out`.
///
/// # Errors
/// Refuses a payload that no reader would accept.
pub(super) fn encode(sequence: u64, payload: &[u8], out: &mut Vec<u8>) -> io::Result<()> {
    let length = u32::try_from(payload.len())
        .ok()
        .filter(|_| payload.len() <= MAX_PAYLOAD);
    let length = length.ok_or_else(|| io::Error::other("record too large for the journal"))?;
    out.extend_from_slice(&length.to_le_bytes());
    out.extend_from_slice(&sequence.to_le_bytes());
    out.extend_from_slice(&checksum(length, sequence, payload));
    out.extend_from_slice(payload);
    Ok(())
}

/// Reads the record at the start of `bytes`, which must have number `sequence`; returns the payload.
pub(super) fn decode(bytes: &[u8], sequence: u64) -> Result<&[u8], Unreadable> {
    let head = Head::read(bytes).ok_or(Unreadable::Short)?;
    if head.sequence != sequence {
        return Err(Unreadable::Damaged("record number out of sequence"));
    }
    head.payload(bytes)
}

/// Whether an intact record with a number above `sequence` begins anywhere in `bytes`.
///
/// This tells damage in the middle from a torn tail. A false match needs a 64-bit checksum to agree by chance.
pub(super) fn follows(bytes: &[u8], sequence: u64) -> bool {
    let numbers = sequence.saturating_add(1)..=sequence.saturating_add(1 << 20);
    (0..bytes.len())
        .filter_map(|start| bytes.get(start..))
        .any(|rest| Head::read(rest).is_some_and(|head| numbers.contains(&head.sequence) && head.payload(rest).is_ok()))
}

struct Head {
    length: u32,
    sequence: u64,
    checksum: [u8; 8],
}

impl Head {
    fn read(bytes: &[u8]) -> Option<Self> {
        let (length, rest) = bytes.split_first_chunk::<4>()?;
        let (sequence, rest) = rest.split_first_chunk::<8>()?;
        let (checksum, _) = rest.split_first_chunk::<8>()?;
        Some(Self {
            length: u32::from_le_bytes(*length),
            sequence: u64::from_le_bytes(*sequence),
            checksum: *checksum,
        })
    }

    fn payload<'b>(&self, bytes: &'b [u8]) -> Result<&'b [u8], Unreadable> {
        let length = usize::try_from(self.length)
            .ok()
            .filter(|length| *length <= MAX_PAYLOAD);
        let length = length.ok_or(Unreadable::Damaged("record length out of bounds"))?;
        let payload = bytes.get(HEAD..HEAD + length).ok_or(Unreadable::Short)?;
        if checksum(self.length, self.sequence, payload) != self.checksum {
            return Err(Unreadable::Damaged("checksum does not match"));
        }
        Ok(payload)
    }
}

fn checksum(length: u32, sequence: u64, payload: &[u8]) -> [u8; 8] {
    let mut hasher = alloy::primitives::Keccak256::new();
    hasher.update(length.to_le_bytes());
    hasher.update(sequence.to_le_bytes());
    hasher.update(keccak256(payload));
    let [a, b, c, d, e, f, g, h, ..] = hasher.finalize().0;
    [a, b, c, d, e, f, g, h]
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn frame(sequence: u64, payload: &[u8]) -> Vec<u8> {
        let mut out = Vec::new();
        encode(sequence, payload, &mut out).unwrap();
        out
    }

    proptest! {
        #[test]
        fn reads_what_was_written(sequence: u64, payload: Vec<u8>, tail: Vec<u8>) {
            let mut bytes = frame(sequence, &payload);
            bytes.extend(tail);
            prop_assert_eq!(decode(&bytes, sequence), Ok(payload.as_slice()));
        }

        #[test]
        fn any_changed_bit_is_noticed(payload: Vec<u8>, at: prop::sample::Index, bit in 0u8..8) {
            let mut bytes = frame(7, &payload);
            let at = at.index(bytes.len());
            bytes[at] ^= 1 << bit;
            prop_assert!(decode(&bytes, 7).is_err());
        }

        #[test]
        fn random_bytes_are_never_a_record(bytes: Vec<u8>, sequence: u64) {
            prop_assert!(decode(&bytes, sequence).is_err());
        }
    }

    #[test]
    fn a_later_record_is_found_behind_damage() {
        let mut bytes = vec![9; 33];
        bytes.extend(frame(8, b"later"));
        assert!(follows(&bytes, 7));
        assert!(!follows(&bytes, 8));
        bytes.truncate(bytes.len() - 1);
        assert!(!follows(&bytes, 7));
    }
}
