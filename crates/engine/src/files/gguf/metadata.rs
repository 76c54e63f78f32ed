//! The metadata of a GGUF file: keys with values of twelve types and arrays of them.
//!
//! Nothing is kept but where each key is, under a hash of it: lists of tokens can be most of a small file. A value is
//! read again, from its place, when it is asked for.

use std::io::{Read, Seek};

use super::super::{Label, Malformed, input::Input};

/// Most keys of a file. Honest ones have a few dozen.
const MAX_KEYS: u64 = 65_536;

/// Most bytes of a key. The format allows 65,535; honest keys are a tenth of this.
const MAX_KEY: usize = 256;

/// Most bytes of a text that is asked for.
const MAX_TEXT: usize = 256;

/// Bytes of the shortest entry: a length, a letter, a type and a byte.
const SHORTEST_ENTRY: u64 = 8 + 1 + 4 + 1;

/// Where a key is. 24 bytes in memory for at least 14 in the file.
struct Entry {
    hash: [u8; 16],
    at: u64,
}

/// Where every key of a file is, by its hash.
pub(super) struct Metadata(Vec<Entry>);

/// The types of values, by their numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    U8 = 0,
    I8,
    U16,
    I16,
    U32,
    I32,
    F32,
    Bool,
    Text,
    Array,
    U64,
    I64,
    F64,
}

impl Kind {
    fn read<R: Read + Seek>(input: &mut Input<R>, key: &[u8]) -> Result<Self, Malformed> {
        Ok(match input.u32("the type of a value")? {
            0 => Self::U8,
            1 => Self::I8,
            2 => Self::U16,
            3 => Self::I16,
            4 => Self::U32,
            5 => Self::I32,
            6 => Self::F32,
            7 => Self::Bool,
            8 => Self::Text,
            9 => Self::Array,
            10 => Self::U64,
            11 => Self::I64,
            12 => Self::F64,
            _ => {
                return Err(Malformed::Value {
                    name: Label::new(key),
                    problem: "is of a type that GGUF does not have",
                });
            }
        })
    }

    /// Bytes of a value; none for those whose length is in the file.
    fn size(self) -> Option<u64> {
        match self {
            Self::U8 | Self::I8 | Self::Bool => Some(1),
            Self::U16 | Self::I16 => Some(2),
            Self::U32 | Self::I32 | Self::F32 => Some(4),
            Self::U64 | Self::I64 | Self::F64 => Some(8),
            Self::Text | Self::Array => None,
        }
    }
}

/// What a list is: the type of its elements and how many there are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct List {
    pub(super) kind: Kind,
    pub(super) count: u64,
}

impl Metadata {
    /// Reads and checks `count` entries, each to its end.
    pub(super) fn read<R: Read + Seek>(input: &mut Input<R>, count: u64) -> Result<Self, Malformed> {
        let limit = MAX_KEYS.min(input.remaining() / SHORTEST_ENTRY);
        let capacity = bounded("the number of metadata keys", count, limit, input.at())?;
        let mut entries = Vec::with_capacity(capacity);
        for _ in 0..count {
            let at = input.at();
            let mut buffer = [0; MAX_KEY];
            let key = read_key(input, &mut buffer)?;
            let kind = Kind::read(input, key)?;
            check_value(input, kind, key)?;
            let hash = hash(key);
            entries.push(Entry { hash, at });
        }
        entries.sort_unstable_by_key(|entry| entry.hash);
        let twice = entries
            .array_windows()
            .find(|[first, second]| first.hash == second.hash);
        if let Some([first, _]) = twice {
            input.go_to(first.at, "a key")?;
            let mut buffer = [0; MAX_KEY];
            let name = Label::new(read_key(input, &mut buffer)?);
            return Err(Malformed::Duplicate {
                what: "metadata key",
                name,
            });
        }
        Ok(Self(entries))
    }

    /// Goes to the value of a key.
    fn find<R: Read + Seek>(&self, input: &mut Input<R>, key: &str) -> Result<Option<Kind>, Malformed> {
        let hash = hash(key.as_bytes());
        let Ok(index) = self.0.binary_search_by_key(&hash, |entry| entry.hash) else {
            return Ok(None);
        };
        let Some(entry) = self.0.get(index) else {
            return Ok(None);
        };
        input.go_to(entry.at, "a key")?;
        let mut buffer = [0; MAX_KEY];
        let key = read_key(input, &mut buffer)?;
        Kind::read(input, key).map(Some)
    }

    /// Whether there is a value.
    pub(super) fn has<R: Read + Seek>(&self, input: &mut Input<R>, key: &str) -> Result<bool, Malformed> {
        self.find(input, key).map(|kind| kind.is_some())
    }

    /// A number without sign, of any width; or that such a number is there with a sign, negative, or something else.
    pub(super) fn number<R: Read + Seek>(&self, input: &mut Input<R>, key: &str) -> Result<Option<u64>, Malformed> {
        match self.find(input, key)? {
            None => Ok(None),
            Some(kind) => read_number(input, kind, key).map(Some),
        }
    }

    /// A text of at most 256 bytes.
    pub(super) fn text<R: Read + Seek>(&self, input: &mut Input<R>, key: &str) -> Result<Option<String>, Malformed> {
        let wrong = |problem| {
            let name = Label::from(key);
            Err(Malformed::Value { name, problem })
        };
        match self.find(input, key)? {
            None => return Ok(None),
            Some(Kind::Text) => {}
            Some(_) => return wrong("must be a text"),
        }
        let length = input.u64("a text")?;
        let mut buffer = [0; MAX_TEXT];
        let target = usize::try_from(length).ok().and_then(|length| buffer.get_mut(..length));
        let Some(target) = target else {
            return wrong("is too long");
        };
        input.fill(target, "a text")?;
        match std::str::from_utf8(target) {
            Ok(text) => Ok(Some(text.to_owned())),
            Err(_) => wrong("is not valid UTF-8"),
        }
    }

    /// What a list is.
    pub(super) fn list<R: Read + Seek>(&self, input: &mut Input<R>, key: &str) -> Result<Option<List>, Malformed> {
        match self.find(input, key)? {
            None => Ok(None),
            Some(Kind::Array) => {
                let kind = Kind::read(input, key.as_bytes())?;
                let count = input.u64("the length of a list")?;
                Ok(Some(List { kind, count }))
            }
            Some(_) => Err(Malformed::Value {
                name: Label::from(key),
                problem: "must be a list",
            }),
        }
    }

    /// A number, or a list of numbers with one for each of `layers`, which the caller has bounded.
    pub(super) fn for_layers<R: Read + Seek>(
        &self,
        input: &mut Input<R>,
        key: &str,
        layers: usize,
    ) -> Result<Option<Vec<u32>>, Malformed> {
        let (kind, count) = match self.find(input, key)? {
            None => return Ok(None),
            Some(Kind::Array) => {
                let kind = Kind::read(input, key.as_bytes())?;
                (kind, input.u64("the length of a list")?)
            }
            Some(kind) => (kind, 1),
        };
        if count != 1 && u64::try_from(layers) != Ok(count) {
            return Err(Malformed::Value {
                name: Label::from(key),
                problem: "must be one number, or one for each layer",
            });
        }
        let number = |_| {
            let number = read_number(input, kind, key)?;
            u32::try_from(number).map_err(|_| Malformed::Value {
                name: Label::from(key),
                problem: "is too large",
            })
        };
        (0..count).map(number).collect::<Result<_, _>>().map(Some)
    }
}

/// A count as a length of memory, after it was bounded by what the file can hold.
pub(super) fn bounded(what: &'static str, found: u64, limit: u64, offset: u64) -> Result<usize, Malformed> {
    let count = usize::try_from(found).ok().filter(|_| found <= limit);
    count.ok_or(Malformed::Count {
        what,
        found,
        limit,
        offset,
    })
}

/// 128 bits of BLAKE3: nobody makes two names with the same.
pub(super) fn hash(name: &[u8]) -> [u8; 16] {
    let hash = blake3::hash(name);
    hash.as_bytes().first_chunk().copied().unwrap_or_default()
}

fn read_key<'b, R: Read + Seek>(input: &mut Input<R>, buffer: &'b mut [u8]) -> Result<&'b [u8], Malformed> {
    read_name(input, buffer, "a metadata key")
}

/// A text that names something: its length, then UTF-8, not empty, at most as long as `buffer`.
pub(super) fn read_name<'b, R: Read + Seek>(
    input: &mut Input<R>,
    buffer: &'b mut [u8],
    what: &'static str,
) -> Result<&'b [u8], Malformed> {
    let offset = input.at();
    let length = input.u64(what)?;
    if length > input.remaining() {
        return Err(Malformed::Truncated { what, offset });
    }
    let limit = u64::try_from(buffer.len()).unwrap_or(u64::MAX);
    let length = bounded("the length of a name", length, limit, offset)?;
    let name = buffer.get_mut(..length).unwrap_or_default();
    input.fill(name, what)?;
    if name.is_empty() || name.contains(&0) || std::str::from_utf8(name).is_err() {
        return Err(Malformed::Text { what, offset });
    }
    Ok(name)
}

fn read_number<R: Read + Seek>(input: &mut Input<R>, kind: Kind, key: &str) -> Result<u64, Malformed> {
    const WHAT: &str = "a number of the metadata";
    let number = match kind {
        Kind::U8 => input.array(WHAT).map(u8::from_le_bytes).map(i128::from),
        Kind::I8 => input.array(WHAT).map(i8::from_le_bytes).map(i128::from),
        Kind::U16 => input.array(WHAT).map(u16::from_le_bytes).map(i128::from),
        Kind::I16 => input.array(WHAT).map(i16::from_le_bytes).map(i128::from),
        Kind::U32 => input.array(WHAT).map(u32::from_le_bytes).map(i128::from),
        Kind::I32 => input.array(WHAT).map(i32::from_le_bytes).map(i128::from),
        Kind::U64 => input.array(WHAT).map(u64::from_le_bytes).map(i128::from),
        Kind::I64 => input.array(WHAT).map(i64::from_le_bytes).map(i128::from),
        Kind::F32 | Kind::F64 | Kind::Bool | Kind::Text | Kind::Array => Ok(-1),
    }?;
    u64::try_from(number).map_err(|_| Malformed::Value {
        name: Label::from(key),
        problem: "must be an integer that is not negative",
    })
}

/// Goes over a value, of whatever type.
fn check_value<R: Read + Seek>(input: &mut Input<R>, kind: Kind, key: &[u8]) -> Result<(), Malformed> {
    const WHAT: &str = "the value of a metadata key";
    match kind {
        Kind::Bool => check_flags(input, 1, key),
        Kind::Text => skip_text(input),
        Kind::Array => {
            let offset = input.at();
            let element = Kind::read(input, key)?;
            let count = input.u64("the length of a list")?;
            // At least one byte, or eight for a text's length.
            let limit = input.remaining() / element.size().unwrap_or(8);
            bounded("the length of a list", count, limit, offset)?;
            match element {
                // The format allows lists of lists. llama.cpp does not read them, and a parser that did would have to
                // bound how deep they go.
                Kind::Array => Err(Malformed::Depth),
                Kind::Text => (0..count).try_for_each(|_| skip_text(input)),
                Kind::Bool => check_flags(input, count, key),
                _ => input.skip(count.saturating_mul(element.size().unwrap_or(1)), WHAT),
            }
        }
        _ => input.skip(kind.size().unwrap_or(1), WHAT),
    }
}

/// A byte that is neither 0 nor 1 is undefined behaviour in a program that takes it for a `bool`.
fn check_flags<R: Read + Seek>(input: &mut Input<R>, count: u64, key: &[u8]) -> Result<(), Malformed> {
    for _ in 0..count {
        let [flag] = input.array("a flag")?;
        if flag > 1 {
            return Err(Malformed::Value {
                name: Label::new(key),
                problem: "must be 0 or 1",
            });
        }
    }
    Ok(())
}

fn skip_text<R: Read + Seek>(input: &mut Input<R>) -> Result<(), Malformed> {
    let length = input.u64("the length of a text")?;
    input.skip(length, "a text")
}
