//! Reading a whole journal, and judging what is wrong with a damaged one.

use super::{
    HEADER_LENGTH, MAGIC, TornTail, VERSION,
    frame::{self, Unreadable},
};
use crate::error::Error;
use std::{fs::File, io::Read, path::Path};

/// What a journal holds.
pub(super) struct Contents {
    pub(super) records: Vec<(u64, Vec<u8>)>,
    /// Bytes of header and intact records.
    pub(super) length: u64,
    pub(super) torn: Option<TornTail>,
}

/// Reads the journal in `file`. `path` is for messages only.
pub(super) fn read(file: &mut File, path: &Path, chain_id: u64) -> Result<Contents, Error> {
    let mut bytes = Vec::new();
    file.read_to_end(&mut bytes)
        .map_err(|source| Error::file("read", path, source))?;
    parse(&bytes, path, chain_id)
}

fn parse(bytes: &[u8], path: &Path, chain_id: u64) -> Result<Contents, Error> {
    let corrupted = |offset: usize, reason: &str| Error::JournalCorrupted {
        path: path.to_owned(),
        offset: wide(offset),
        reason: reason.to_owned(),
    };
    // The header and the first block were moved into place together, so a short header is no torn write.
    let rest = check_header(bytes, chain_id, &corrupted)?;

    let mut records = Vec::new();
    let mut rest = rest;
    let mut offset = HEADER_LENGTH;
    let mut torn = None;
    while !rest.is_empty() {
        let sequence = wide(records.len());
        match frame::decode(rest, sequence) {
            Ok(payload) => {
                records.push((wide(offset), payload.to_vec()));
                let length = frame::HEAD + payload.len();
                rest = rest.get(length..).unwrap_or_default();
                offset += length;
            }
            Err(problem) => {
                let later = rest.get(1..).is_some_and(|rest| frame::follows(rest, sequence));
                if later || records.is_empty() {
                    let reason = match problem {
                        Unreadable::Short => "record is cut short, and others follow",
                        Unreadable::Damaged(reason) => reason,
                    };
                    return Err(corrupted(offset, reason));
                }
                torn = Some(TornTail {
                    offset: wide(offset),
                    length: wide(rest.len()),
                });
                break;
            }
        }
    }
    if records.is_empty() {
        return Err(corrupted(HEADER_LENGTH, "the first block is missing"));
    }
    Ok(Contents {
        records,
        length: wide(offset),
        torn,
    })
}

fn check_header<'b>(
    bytes: &'b [u8],
    chain_id: u64,
    corrupted: &dyn Fn(usize, &str) -> Error,
) -> Result<&'b [u8], Error> {
    let parts = bytes.split_first_chunk::<8>().and_then(|(magic, rest)| {
        let (version, rest) = rest.split_first_chunk::<4>()?;
        let (chain, rest) = rest.split_first_chunk::<8>()?;
        Some((magic, u32::from_le_bytes(*version), u64::from_le_bytes(*chain), rest))
    });
    let (magic, version, found, rest) = parts.ok_or_else(|| corrupted(0, "file is too short"))?;
    if *magic != MAGIC {
        return Err(corrupted(0, "not a journal of a development chain"));
    }
    if version != VERSION {
        return Err(corrupted(8, "written by another version of this program"));
    }
    if found != chain_id {
        return Err(Error::ChainIdMismatch {
            found,
            expected: chain_id,
        });
    }
    Ok(rest)
}

fn wide(length: usize) -> u64 {
    u64::try_from(length).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::journal::header;
    use proptest::prelude::*;

    fn journal(payloads: &[Vec<u8>]) -> Vec<u8> {
        let mut bytes = header(5).to_vec();
        for (sequence, payload) in payloads.iter().enumerate() {
            frame::encode(wide(sequence), payload, &mut bytes).unwrap();
        }
        bytes
    }

    fn parsed(bytes: &[u8]) -> Result<Contents, Error> {
        parse(bytes, Path::new("journal"), 5)
    }

    proptest! {
        #[test]
        fn a_cut_anywhere_loses_only_the_record_it_hit(
            payloads in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..40), 2..6),
            cut in any::<prop::sample::Index>(),
        ) {
            let whole = journal(&payloads);
            let first = HEADER_LENGTH + frame::HEAD + payloads[0].len();
            let cut = first + cut.index(whole.len() - first);
            let contents = parsed(&whole[..cut]).unwrap();
            let mut end = HEADER_LENGTH;
            let intact = payloads.iter().take_while(|payload| {
                end += frame::HEAD + payload.len();
                end <= cut
            });
            let read: Vec<_> = contents.records.into_iter().map(|(_, payload)| payload).collect();
            prop_assert_eq!(read, intact.cloned().collect::<Vec<_>>());
            prop_assert_eq!(contents.torn.is_some(), contents.length < wide(cut));
        }

        #[test]
        fn damage_before_an_intact_record_is_an_error(
            payloads in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..40), 2..6),
            at in any::<prop::sample::Index>(),
            bit in 0u8..8,
        ) {
            let mut bytes = journal(&payloads);
            let last = frame::HEAD + payloads.last().unwrap().len();
            let middle = bytes.len() - last - HEADER_LENGTH;
            bytes[HEADER_LENGTH + at.index(middle)] ^= 1 << bit;
            let corrupted = matches!(parsed(&bytes), Err(Error::JournalCorrupted { .. }));
            prop_assert!(corrupted);
        }

        #[test]
        fn random_bytes_are_refused(bytes: Vec<u8>) {
            prop_assert!(parsed(&bytes).is_err());
        }
    }

    #[test]
    fn a_zero_filled_tail_is_torn() {
        let mut bytes = journal(&[vec![1], vec![2]]);
        let intact = wide(bytes.len());
        bytes.extend([0; 4096]);
        let contents = parsed(&bytes).unwrap();
        assert_eq!(
            contents.torn,
            Some(TornTail {
                offset: intact,
                length: 4096
            })
        );
        assert_eq!(contents.records.len(), 2);
    }

    #[test]
    fn another_chain_and_another_version_are_told_apart() {
        let bytes = journal(&[vec![1]]);
        assert!(matches!(
            parse(&bytes, Path::new("journal"), 6),
            Err(Error::ChainIdMismatch { found: 5, expected: 6 })
        ));
        let mut bytes = bytes;
        bytes[8] = 9;
        assert!(matches!(parsed(&bytes), Err(Error::JournalCorrupted { offset: 8, .. })));
    }
}
