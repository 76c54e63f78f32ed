//! Tensors: JSON values to little-endian bytes and back.

use serde::{
    Deserialize, Deserializer, Serialize,
    de::{DeserializeSeed, Error, SeqAccess, Visitor},
};
use serde_json::value::RawValue;

use super::Parameters;
use crate::BadRequest;

/// Deepest nesting of a tensor's data.
const MAX_RANK: usize = 16;

/// The element types that are accepted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Datatype {
    /// True and false.
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
    /// Texts.
    Bytes,
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
    const ALL: [(Self, &'static str); 13] = [
        (Self::Bool, "BOOL"),
        (Self::Uint8, "UINT8"),
        (Self::Int32, "INT32"),
        (Self::Int64, "INT64"),
        (Self::Fp32, "FP32"),
        (Self::Fp64, "FP64"),
        (Self::Bytes, "BYTES"),
        (Self::Int8, "INT8"),
        (Self::Int16, "INT16"),
        (Self::Uint16, "UINT16"),
        (Self::Uint32, "UINT32"),
        (Self::Uint64, "UINT64"),
        (Self::Fp16, "FP16"),
    ];

    /// As the protocol spells it.
    pub fn name(self) -> &'static str {
        Self::ALL
            .iter()
            .find(|(one, _)| *one == self)
            .map_or("", |(_, name)| name)
    }

    /// From the protocol's spelling.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.iter().find(|(_, known)| *known == name).map(|(one, _)| *one)
    }
}

/// A tensor of a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RequestTensor {
    /// Its name.
    pub name: String,
    /// Extents.
    pub shape: Vec<u64>,
    /// Its element type.
    pub datatype: Datatype,
    /// Row-major and little-endian; texts each with a 32-bit length before them.
    pub data: Vec<u8>,
}

/// A tensor of an answer.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ResponseTensor {
    /// Its name.
    pub name: String,
    /// Extents.
    pub shape: Vec<u64>,
    /// Its element type.
    pub datatype: String,
    /// The elements, row-major and flat.
    pub data: Vec<serde_json::Value>,
}

#[derive(Deserialize)]
pub(super) struct Fields {
    name: String,
    shape: Vec<u64>,
    datatype: String,
    data: Option<Box<RawValue>>,
    #[serde(default)]
    parameters: Parameters,
}

impl Fields {
    pub(super) fn read(self, index: usize) -> Result<RequestTensor, BadRequest> {
        let at = |field: &str| format!("inputs[{index}].{field}");
        self.parameters.check(&at("parameters"))?;
        if self.shape.len() > MAX_RANK {
            return Err(BadRequest::value(
                at("shape"),
                format!("more than {MAX_RANK} dimensions"),
            ));
        }
        let datatype = Datatype::from_name(&self.datatype).ok_or_else(|| {
            let names: Vec<_> = Datatype::ALL.iter().map(|(_, name)| *name).collect();
            BadRequest::value(at("datatype"), format!("must be one of {}", names.join(", ")))
        })?;
        let raw = self.data.ok_or_else(|| BadRequest::missing(at("data")))?;
        let mut sink = Sink {
            datatype,
            bytes: Vec::new(),
            count: 0,
        };
        let mut deserializer = serde_json::Deserializer::from_str(raw.get());
        let outer = List {
            sink: &mut sink,
            depth: 0,
        };
        outer.deserialize(&mut deserializer).map_err(|error| {
            let text = error.to_string();
            BadRequest::value(at("data"), text.split(" at line ").next().unwrap_or_default())
        })?;
        let expected = self
            .shape
            .iter()
            .try_fold(1u64, |product, extent| product.checked_mul(*extent));
        if expected != Some(sink.count) {
            let reason = format!("{} elements given, and the shape does not say so", sink.count);
            return Err(BadRequest::value(at("data"), reason));
        }
        Ok(RequestTensor {
            name: self.name,
            shape: self.shape,
            datatype,
            data: sink.bytes,
        })
    }
}

/// Where elements are written while they are read: a large tensor is never held as JSON values.
struct Sink {
    datatype: Datatype,
    bytes: Vec<u8>,
    count: u64,
}

/// A list of elements or of lists.
struct List<'a> {
    sink: &'a mut Sink,
    depth: usize,
}

/// An element, or a list one level deeper.
struct Item<'a>(List<'a>);

impl<'de> DeserializeSeed<'de> for List<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_seq(self)
    }
}

impl<'de> Visitor<'de> for List<'_> {
    type Value = ();

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "a list of {} elements", self.sink.datatype.name())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<(), A::Error> {
        if self.depth >= MAX_RANK {
            return Err(A::Error::custom(format!("nested deeper than {MAX_RANK}")));
        }
        let depth = self.depth + 1;
        while seq
            .next_element_seed(Item(List {
                sink: &mut *self.sink,
                depth,
            }))?
            .is_some()
        {}
        Ok(())
    }
}

impl<'de> DeserializeSeed<'de> for Item<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl Item<'_> {
    fn put<E: Error>(self, bytes: Option<&[u8]>, shown: &dyn std::fmt::Display) -> Result<(), E> {
        let sink = self.0.sink;
        let bytes = bytes.ok_or_else(|| E::custom(format!("{shown} is not a {}", sink.datatype.name())))?;
        sink.bytes.extend_from_slice(bytes);
        sink.count += 1;
        Ok(())
    }

    /// Puts a number that has the type's width, if the value had a place in the type.
    fn put_exactly<const N: usize, E: Error>(
        self,
        bytes: Option<[u8; N]>,
        shown: &dyn std::fmt::Display,
    ) -> Result<(), E> {
        self.put(bytes.as_ref().map(<[u8; N]>::as_slice), shown)
    }

    fn put_integer<E: Error>(self, value: i128) -> Result<(), E> {
        let (wide, shown) = (value, value);
        match self.0.sink.datatype {
            Datatype::Uint8 => self.put_exactly(u8::try_from(wide).ok().map(u8::to_le_bytes), &shown),
            Datatype::Int8 => self.put_exactly(i8::try_from(wide).ok().map(i8::to_le_bytes), &shown),
            Datatype::Uint16 => self.put_exactly(u16::try_from(wide).ok().map(u16::to_le_bytes), &shown),
            Datatype::Int16 => self.put_exactly(i16::try_from(wide).ok().map(i16::to_le_bytes), &shown),
            Datatype::Uint32 => self.put_exactly(u32::try_from(wide).ok().map(u32::to_le_bytes), &shown),
            Datatype::Int32 => self.put_exactly(i32::try_from(wide).ok().map(i32::to_le_bytes), &shown),
            Datatype::Uint64 => self.put_exactly(u64::try_from(wide).ok().map(u64::to_le_bytes), &shown),
            Datatype::Int64 => self.put_exactly(i64::try_from(wide).ok().map(i64::to_le_bytes), &shown),
            Datatype::Bool => {
                let bit = u8::try_from(wide).ok().filter(|bit| *bit <= 1).map(|bit| [bit]);
                self.put_exactly(bit, &shown)
            }
            #[expect(
                clippy::cast_precision_loss,
                reason = "a float holds the nearest value, as JSON numbers do"
            )]
            Datatype::Fp16 | Datatype::Fp32 | Datatype::Fp64 => self.put_float(wide as f64),
            Datatype::Bytes => self.put(None, &shown),
        }
    }

    fn put_float<E: Error>(self, value: f64) -> Result<(), E> {
        #[expect(
            clippy::cast_possible_truncation,
            reason = "rounding is what single precision means; overflow is refused"
        )]
        let single = value as f32;
        let half = half::f16::from_f64(value);
        match self.0.sink.datatype {
            Datatype::Fp16 if half.is_finite() => self.put(Some(&half.to_le_bytes()), &value),
            Datatype::Fp32 if single.is_finite() => self.put(Some(&single.to_le_bytes()), &value),
            Datatype::Fp64 => self.put(Some(&value.to_le_bytes()), &value),
            _ => self.put(None, &value),
        }
    }
}

impl<'de> Visitor<'de> for Item<'_> {
    type Value = ();

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "a {} or a list of them", self.0.sink.datatype.name())
    }

    fn visit_bool<E: Error>(self, value: bool) -> Result<(), E> {
        let fits = self.0.sink.datatype == Datatype::Bool;
        self.put(fits.then_some(&[u8::from(value)]), &value)
    }

    fn visit_u64<E: Error>(self, value: u64) -> Result<(), E> {
        self.put_integer(value.into())
    }

    fn visit_i64<E: Error>(self, value: i64) -> Result<(), E> {
        self.put_integer(value.into())
    }

    fn visit_f64<E: Error>(self, value: f64) -> Result<(), E> {
        self.put_float(value)
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<(), E> {
        let length = u32::try_from(text.len()).ok();
        let Some(length) = length.filter(|_| self.0.sink.datatype == Datatype::Bytes) else {
            return self.put(None, &"a text");
        };
        self.0.sink.bytes.extend_from_slice(&length.to_le_bytes());
        self.put(Some(text.as_bytes()), &"")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, seq: A) -> Result<(), A::Error> {
        self.0.visit_seq(seq)
    }
}

/// The elements of little-endian data as JSON values; `None` if the length does not fit the type. What JSON cannot say
/// (NaN, infinities) becomes null; bytes that are not UTF-8 are replaced.
pub fn values(datatype: Datatype, data: &[u8]) -> Option<Vec<serde_json::Value>> {
    use serde_json::Value;
    fn fixed<const N: usize>(data: &[u8], read: impl Fn([u8; N]) -> Value) -> Option<Vec<Value>> {
        let (elements, rest) = data.as_chunks::<N>();
        rest.is_empty()
            .then(|| elements.iter().map(|bytes| read(*bytes)).collect())
    }
    match datatype {
        Datatype::Bool => fixed(data, |[byte]| Value::from(byte != 0)),
        Datatype::Uint8 => fixed(data, |[byte]| Value::from(byte)),
        Datatype::Int8 => fixed(data, |bytes| Value::from(i8::from_le_bytes(bytes))),
        Datatype::Int16 => fixed(data, |bytes| Value::from(i16::from_le_bytes(bytes))),
        Datatype::Uint16 => fixed(data, |bytes| Value::from(u16::from_le_bytes(bytes))),
        Datatype::Uint32 => fixed(data, |bytes| Value::from(u32::from_le_bytes(bytes))),
        Datatype::Uint64 => fixed(data, |bytes| Value::from(u64::from_le_bytes(bytes))),
        Datatype::Fp16 => fixed(data, |bytes| Value::from(half::f16::from_le_bytes(bytes).to_f32())),
        Datatype::Int32 => fixed(data, |bytes| Value::from(i32::from_le_bytes(bytes))),
        Datatype::Int64 => fixed(data, |bytes| Value::from(i64::from_le_bytes(bytes))),
        Datatype::Fp32 => fixed(data, |bytes| Value::from(f32::from_le_bytes(bytes))),
        Datatype::Fp64 => fixed(data, |bytes| Value::from(f64::from_le_bytes(bytes))),
        Datatype::Bytes => texts(data),
    }
}

fn texts(mut data: &[u8]) -> Option<Vec<serde_json::Value>> {
    let mut texts = Vec::new();
    while !data.is_empty() {
        let (length, rest) = data.split_first_chunk::<4>()?;
        let (text, rest) = rest.split_at_checked(usize::try_from(u32::from_le_bytes(*length)).ok()?)?;
        texts.push(String::from_utf8_lossy(text).into_owned().into());
        data = rest;
    }
    Some(texts)
}
