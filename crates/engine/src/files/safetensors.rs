//! safetensors: eight bytes of length, a JSON header, and the data of all tensors without a gap
//! (`README.md` of huggingface/safetensors; this reader takes what that one takes, and less).
//!
//! The header is held in memory once, with 32 bytes for each of its tensors, each of which takes 51 bytes of JSON at
//! least: less than twice the file. Names point into the header; nothing is copied out of it.
//!
//! | check | against |
//! |---|---|
//! | the header's length against the file's, and 100 MB | memory taken by a number of the file |
//! | depth of the JSON before it is parsed | a parser's stack and its scratch space |
//! | every name once; no escapes in names | two programs that see two different models in one file |
//! | extents multiplied without overflow, equal to the data's length | reading past the end of a buffer |
//! | data without gaps, overlaps and remains, to the end of the file | weights smuggled in a file that hashes to what was audited, polyglots |
//! | no NaN | answers of garbage that somebody pays for |

use std::{
    fmt,
    io::{Read, Seek},
};

use serde::{
    Deserialize, Deserializer,
    de::{DeserializeSeed, Error as _, MapAccess, SeqAccess, Visitor},
};
use serde_json::value::RawValue;

use super::{
    Label, Malformed,
    floats::{Floats, Refuse, Scan, Stretch},
    input::Input,
};

/// Most bytes of the JSON header, as in the format's own reader.
const MAX_HEADER: u64 = 100_000_000;

/// Deepest nesting of the JSON: the header, a tensor, its shape.
const MAX_DEPTH: usize = 3;

/// Most dimensions of a tensor.
const MAX_DIMENSIONS: usize = 8;

/// Most bytes of JSON for one tensor, apart from its name.
const MAX_ENTRY: usize = 1_024;

/// Most bytes of a tensor's name.
const MAX_NAME: usize = 512;

/// The shortest JSON for a tensor: `"a":{"dtype":"U8","shape":[],"data_offsets":[0,1]},`.
const SHORTEST_ENTRY: usize = 51;

/// Where metadata are, which no tensor may be called.
const METADATA: &str = "__metadata__";

/// An element type.
#[derive(Debug)]
struct Elements {
    name: &'static str,
    bits: u64,
    floats: Floats,
}

static ELEMENTS: [Elements; 20] = [
    elements("BOOL", 8, Floats::None),
    elements("U8", 8, Floats::None),
    elements("I8", 8, Floats::None),
    elements("U16", 16, Floats::None),
    elements("I16", 16, Floats::None),
    elements("U32", 32, Floats::None),
    elements("I32", 32, Floats::None),
    elements("U64", 64, Floats::None),
    elements("I64", 64, Floats::None),
    elements("F16", 16, Floats::F16),
    elements("BF16", 16, Floats::Bf16),
    elements("F32", 32, Floats::F32),
    elements("F64", 64, Floats::F64),
    elements("C64", 64, Floats::F32),
    elements("F8_E4M3", 8, Floats::E4m3),
    elements("F8_E5M2", 8, Floats::E5m2),
    elements("F8_E8M0", 8, Floats::E8m0 { block: 1 }),
    elements("F6_E2M3", 6, Floats::None),
    elements("F6_E3M2", 6, Floats::None),
    elements("F4", 4, Floats::None),
];

const fn elements(name: &'static str, bits: u64, floats: Floats) -> Elements {
    Elements { name, bits, floats }
}

/// Where a tensor is. Its name is a part of the header.
#[derive(Debug)]
struct Tensor {
    name: (u32, u32),
    start: u64,
    end: u64,
    elements: &'static Elements,
}

/// The tensors of a file.
#[derive(Debug)]
pub struct Header {
    json: String,
    /// Bytes before the data.
    data: u64,
    /// In the order of their data.
    tensors: Vec<Tensor>,
}

impl Header {
    /// Reads and checks the header of a file of `size` bytes.
    ///
    /// Fails with every variant of [`Malformed`] but [`Malformed::NotFinite`], [`Malformed::Location`] and
    /// [`Malformed::Version`].
    pub fn read<R: Read + Seek>(reader: R, size: u64) -> Result<Self, Malformed> {
        let mut input = Input::new(reader, size)?;
        let length = input.u64("the length of the header")?;
        if length > input.remaining() {
            let (what, offset) = ("the header", 8);
            return Err(Malformed::Truncated { what, offset });
        }
        let count = usize::try_from(length).ok().filter(|_| length <= MAX_HEADER);
        let count = count.ok_or(Malformed::Count {
            what: "the length of the header",
            found: length,
            limit: MAX_HEADER,
            offset: 0,
        })?;
        let mut json = vec![0; count];
        input.fill(&mut json, "the header")?;
        if json.first() != Some(&b'{') {
            return Err(Malformed::Magic("safetensors"));
        }
        check_depth(&json)?;
        let json = String::from_utf8(json).map_err(|error| Malformed::Text {
            what: "the header",
            offset: 8 + u64::try_from(error.utf8_error().valid_up_to()).unwrap_or(0),
        })?;
        let mut header = Self {
            tensors: parse(&json, input.remaining())?,
            data: input.at(),
            json,
        };
        header.refuse_duplicates()?;
        header.refuse_gaps(input.remaining())?;
        Ok(header)
    }

    /// Name, element type and bytes of every tensor, in the order of their data.
    pub fn tensors(&self) -> impl Iterator<Item = (&str, &'static str, u64)> {
        let tensors = self.tensors.iter();
        tensors.map(|tensor| (self.name(tensor), tensor.elements.name, tensor.end - tensor.start))
    }

    /// Bytes of all tensors together.
    pub fn tensor_bytes(&self) -> u64 {
        self.tensors.last().map_or(0, |tensor| tensor.end)
    }

    fn name(&self, tensor: &Tensor) -> &str {
        let (start, end) = tensor.name;
        let place = usize::try_from(start).ok().zip(usize::try_from(end).ok());
        place
            .and_then(|(start, end)| self.json.get(start..end))
            .unwrap_or_default()
    }

    fn refuse_duplicates(&mut self) -> Result<(), Malformed> {
        let mut tensors = std::mem::take(&mut self.tensors);
        tensors.sort_unstable_by(|a, b| self.name(a).cmp(self.name(b)));
        let twice = tensors
            .array_windows()
            .find(|[a, b]: &&[Tensor; 2]| self.name(a) == self.name(b));
        if let Some([tensor, _]) = twice {
            return Err(Malformed::Duplicate {
                what: "tensor",
                name: Label::from(self.name(tensor)),
            });
        }
        self.tensors = tensors;
        Ok(())
    }

    /// The tensors must cover the data, each byte once.
    fn refuse_gaps(&mut self, data: u64) -> Result<(), Malformed> {
        self.tensors.sort_unstable_by_key(|tensor| (tensor.start, tensor.end));
        let mut covered = 0;
        for tensor in &self.tensors {
            let problem = match tensor.start.cmp(&covered) {
                std::cmp::Ordering::Less => "overlaps another tensor's",
                std::cmp::Ordering::Greater => "leaves a gap before it",
                std::cmp::Ordering::Equal if tensor.end > data => "ends behind the end of the file",
                std::cmp::Ordering::Equal => {
                    covered = tensor.end;
                    continue;
                }
            };
            let tensor = Label::from(self.name(tensor));
            return Err(Malformed::Place { tensor, problem });
        }
        match self.tensors.last() {
            None => Err(Malformed::Missing("tensors")),
            Some(last) if covered < data => Err(Malformed::Place {
                tensor: Label::from(self.name(last)),
                problem: "is the last, and more bytes follow",
            }),
            Some(_) => Ok(()),
        }
    }

    /// Reads all weights of the file that [`Self::read`] read and refuses the first that is not a number. Infinities
    /// pass: masks are made of them. Takes 256 KiB of memory at most.
    ///
    /// Fails with [`Malformed::NotFinite`], and with [`Malformed::Truncated`] and [`Malformed::Unreadable`].
    pub fn check_weights<R: Read + Seek>(&self, reader: R, size: u64) -> Result<(), Malformed> {
        let mut input = Input::new(reader, size)?;
        let mut scan = Scan::new(size, Refuse::Nan);
        for tensor in &self.tensors {
            let stretch = Stretch {
                start: self.data.saturating_add(tensor.start),
                length: tensor.end - tensor.start,
                floats: tensor.elements.floats,
            };
            scan.check(&mut input, stretch, self.name(tensor).as_bytes())?;
        }
        Ok(())
    }
}

/// Refuses what is nested deeper than a header can be. Whatever else is wrong with the JSON is left to its parser.
fn check_depth(json: &[u8]) -> Result<(), Malformed> {
    let (mut depth, mut inside, mut escaped) = (0usize, false, false);
    for byte in json {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if inside => escaped = true,
            b'"' => inside = !inside,
            b'{' | b'[' if !inside => {
                depth += 1;
                if depth > MAX_DEPTH {
                    return Err(Malformed::Depth);
                }
            }
            b'}' | b']' if !inside => depth = depth.saturating_sub(1),
            _ => {}
        }
    }
    Ok(())
}

fn parse(json: &str, data: u64) -> Result<Vec<Tensor>, Malformed> {
    let mut entries = Entries {
        json,
        data,
        tensors: Vec::with_capacity(json.len() / SHORTEST_ENTRY),
        metadata: false,
        fault: None,
    };
    let mut deserializer = serde_json::Deserializer::from_str(json);
    let result = entries.deserialize(&mut deserializer).and_then(|()| deserializer.end());
    match (entries.fault, result) {
        (Some(fault), _) => Err(fault),
        (None, Err(error)) => Err(structure(json, 0, &error)),
        (None, Ok(())) => Ok(entries.tensors),
    }
}

/// The parser's complaint, which it places by line and column in the part of the header that begins at `start`.
fn structure(part: &str, start: usize, error: &serde_json::Error) -> Malformed {
    let before = part.split_inclusive('\n').take(error.line().saturating_sub(1));
    let offset = before.map(str::len).sum::<usize>() + error.column() + start;
    Malformed::Structure {
        offset: 8 + u64::try_from(offset).unwrap_or(0),
        problem: Label::from(error.to_string().as_str()),
    }
}

/// Goes through the header's entries without copying them.
struct Entries<'h> {
    json: &'h str,
    data: u64,
    tensors: Vec<Tensor>,
    metadata: bool,
    /// What was wrong, when it was not the JSON.
    fault: Option<Malformed>,
}

impl<'h> DeserializeSeed<'h> for &mut Entries<'h> {
    type Value = ();

    fn deserialize<D: Deserializer<'h>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'h> Visitor<'h> for &mut Entries<'h> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object of tensors")
    }

    fn visit_map<A: MapAccess<'h>>(self, mut map: A) -> Result<(), A::Error> {
        while let Some(name) = map.next_key::<&RawValue>()? {
            let entry = map.next_value::<&RawValue>()?;
            if let Err(fault) = self.entry(name.get(), entry.get()) {
                self.fault = Some(fault);
                return Err(A::Error::custom("refused"));
            }
        }
        Ok(())
    }
}

/// What is said of a tensor. Fields that are not known are refused, as are fields that are there twice.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Entry<'h> {
    dtype: &'h str,
    shape: Shape,
    data_offsets: (u64, u64),
}

impl Entries<'_> {
    /// Takes an entry; `name` is with its quotes.
    fn entry(&mut self, name: &str, entry: &str) -> Result<(), Malformed> {
        let place = self.offset(name);
        let quoted = name.strip_prefix('"').and_then(|name| name.strip_suffix('"'));
        let name = quoted.filter(|name| !name.is_empty() && !name.contains('\\') && name.len() <= MAX_NAME);
        let name = name.ok_or(Malformed::Text {
            what: "the name of a tensor",
            offset: 8 + u64::from(place),
        })?;
        if name == METADATA {
            return self.metadata(entry);
        }
        if entry.len() > MAX_ENTRY {
            let limit = u64::try_from(MAX_ENTRY).unwrap_or(u64::MAX);
            return Err(Malformed::Count {
                what: "the length of a tensor's entry",
                found: u64::try_from(entry.len()).unwrap_or(u64::MAX),
                limit,
                offset: 8 + u64::from(self.offset(entry)),
            });
        }
        let start = usize::try_from(self.offset(entry)).unwrap_or(0);
        let entry: Entry<'_> = serde_json::from_str(entry).map_err(|error| structure(entry, start, &error))?;
        let (first, length) = (self.offset(name), u32::try_from(name.len()).unwrap_or(0));
        self.tensors.push(Tensor {
            name: (first, first.saturating_add(length)),
            start: entry.data_offsets.0,
            end: entry.data_offsets.1,
            elements: check(name, &entry, self.data)?,
        });
        Ok(())
    }

    fn metadata(&mut self, entry: &str) -> Result<(), Malformed> {
        if std::mem::replace(&mut self.metadata, true) {
            return Err(Malformed::Duplicate {
                what: "key",
                name: Label::from(METADATA),
            });
        }
        serde_json::from_str::<Texts>(entry)
            .map(drop)
            .map_err(|_| Malformed::Value {
                name: Label::from(METADATA),
                problem: "must be an object of texts",
            })
    }

    /// Where a part of the header is in it. Headers are below 4 GB.
    fn offset(&self, part: &str) -> u32 {
        let offset = part.as_ptr().addr().saturating_sub(self.json.as_ptr().addr());
        u32::try_from(offset).unwrap_or(u32::MAX)
    }
}

/// Checks what an entry says against itself.
fn check(name: &str, entry: &Entry<'_>, data: u64) -> Result<&'static Elements, Malformed> {
    let tensor = || Label::from(name);
    let elements = ELEMENTS.iter().find(|elements| elements.name == entry.dtype);
    let elements = elements.ok_or_else(|| Malformed::Elements {
        tensor: tensor(),
        found: Label::from(entry.dtype),
    })?;
    let shape = |problem| Malformed::Shape {
        tensor: tensor(),
        problem,
    };
    let bytes = match entry.shape {
        Shape::Elements(0) => return Err(shape("has a dimension of zero")),
        Shape::Elements(count) => count.checked_mul(elements.bits).map(|bits| (bits / 8, bits % 8)),
        Shape::Overflow => None,
        Shape::Dimensions => return Err(shape("has too many dimensions")),
    };
    let (expected, rest) = bytes.ok_or_else(|| shape("has more elements than can be counted"))?;
    if rest != 0 {
        return Err(shape("is not a whole number of bytes"));
    }
    let (start, end) = entry.data_offsets;
    let problem = match end.checked_sub(start) {
        None => "ends before it begins",
        Some(_) if end > data => "ends behind the end of the file",
        Some(found) if found != expected => {
            return Err(Malformed::Size {
                tensor: tensor(),
                expected,
                found,
            });
        }
        Some(_) => return Ok(elements),
    };
    Err(Malformed::Place {
        tensor: tensor(),
        problem,
    })
}

/// The product of a tensor's extents, which are not kept.
enum Shape {
    /// So many elements.
    Elements(u64),
    /// More than 64 bits can count.
    Overflow,
    /// More dimensions than are taken.
    Dimensions,
}

impl<'de> Deserialize<'de> for Shape {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Extents;
        impl<'de> Visitor<'de> for Extents {
            type Value = Shape;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a list of extents")
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut extents: A) -> Result<Shape, A::Error> {
                let (mut product, mut count, mut zero) = (Some(1u64), 0, false);
                while let Some(extent) = extents.next_element::<u64>()? {
                    count += 1;
                    zero |= extent == 0;
                    product = product.and_then(|product| product.checked_mul(extent));
                }
                Ok(match product {
                    _ if count > MAX_DIMENSIONS => Shape::Dimensions,
                    _ if zero => Shape::Elements(0),
                    Some(product) => Shape::Elements(product),
                    None => Shape::Overflow,
                })
            }
        }
        deserializer.deserialize_seq(Extents)
    }
}

/// An object of texts, none of which is kept.
struct Texts;

impl<'de> Deserialize<'de> for Texts {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Pairs;
        impl<'de> Visitor<'de> for Pairs {
            type Value = Texts;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object of texts")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut pairs: A) -> Result<Texts, A::Error> {
                while let Some((_, text)) = pairs.next_entry::<&RawValue, &RawValue>()? {
                    if !text.get().starts_with('"') {
                        return Err(A::Error::custom("not a text"));
                    }
                }
                Ok(Texts)
            }
        }
        deserializer.deserialize_map(Pairs)
    }
}

#[cfg(test)]
mod tests;
