//! One tensor of an ONNX file (`TensorProto` in `onnx.proto`): its data must be what its shape says.

use super::{
    super::{
        Label, Malformed,
        floats::{Floats, Refuse},
    },
    external::{Entries, External},
    protobuf::{Bytes, Fields, Value},
};

/// Numbers of `TensorProto`'s fields.
const FLOAT_DATA: u64 = 4;
const INT32_DATA: u64 = 5;
const STRING_DATA: u64 = 6;
const INT64_DATA: u64 = 7;
const DOUBLE_DATA: u64 = 10;
const UINT64_DATA: u64 = 11;

/// Most dimensions of a tensor.
const MAX_DIMENSIONS: u32 = 64;

/// An element type.
struct Elements {
    code: u64,
    bits: u64,
    /// The field that holds elements of this type, when they are not raw bytes.
    field: u64,
    /// Numbers in that field for so many elements.
    numbers: (u64, u64),
    floats: Floats,
}

const fn elements(code: u64, bits: u64, field: u64, numbers: (u64, u64), floats: Floats) -> Elements {
    Elements {
        code,
        bits,
        field,
        numbers,
        floats,
    }
}

/// `TensorProto.DataType`, as far as ONNX Runtime knows it.
static ELEMENTS: [Elements; 26] = [
    elements(1, 32, FLOAT_DATA, (1, 1), Floats::F32),
    elements(2, 8, INT32_DATA, (1, 1), Floats::None),
    elements(3, 8, INT32_DATA, (1, 1), Floats::None),
    elements(4, 16, INT32_DATA, (1, 1), Floats::None),
    elements(5, 16, INT32_DATA, (1, 1), Floats::None),
    elements(6, 32, INT32_DATA, (1, 1), Floats::None),
    elements(7, 64, INT64_DATA, (1, 1), Floats::None),
    // Texts have no raw form.
    elements(8, 0, STRING_DATA, (1, 1), Floats::None),
    elements(9, 8, INT32_DATA, (1, 1), Floats::None),
    elements(10, 16, INT32_DATA, (1, 1), Floats::F16),
    elements(11, 64, DOUBLE_DATA, (1, 1), Floats::F64),
    elements(12, 32, UINT64_DATA, (1, 1), Floats::None),
    elements(13, 64, UINT64_DATA, (1, 1), Floats::None),
    elements(14, 64, FLOAT_DATA, (2, 1), Floats::F32),
    elements(15, 128, DOUBLE_DATA, (2, 1), Floats::F64),
    elements(16, 16, INT32_DATA, (1, 1), Floats::Bf16),
    // The kinds of eight bits differ in what is no number, and graphs with them are rare: they are not looked at.
    elements(17, 8, INT32_DATA, (1, 1), Floats::None),
    elements(18, 8, INT32_DATA, (1, 1), Floats::None),
    elements(19, 8, INT32_DATA, (1, 1), Floats::None),
    elements(20, 8, INT32_DATA, (1, 1), Floats::None),
    elements(21, 4, INT32_DATA, (1, 2), Floats::None),
    elements(22, 4, INT32_DATA, (1, 2), Floats::None),
    elements(23, 4, INT32_DATA, (1, 2), Floats::None),
    elements(24, 8, INT32_DATA, (1, 1), Floats::None),
    elements(25, 2, INT32_DATA, (1, 4), Floats::None),
    elements(26, 2, INT32_DATA, (1, 4), Floats::None),
];

/// What was found of a tensor.
#[derive(Default)]
struct Tensor<'a> {
    name: &'a [u8],
    dimensions: u32,
    /// The product of the extents; none when it does not fit into 63 bits.
    count: Option<u64>,
    negative: bool,
    /// The element type, before its field comes.
    expected: u64,
    code: Option<u64>,
    raw: Option<&'a [u8]>,
    /// Numbers or texts that are there, by the field they are in.
    typed: Option<(u64, u64)>,
    /// A number that is none, by its place in a typed field.
    nan: Option<u64>,
    is_external: bool,
    external: Entries<'a>,
    /// What must not be there.
    odd: Option<&'static str>,
}

/// Checks a tensor. Returns where its data is, when that is another file. `weights` says that it is one of the model's
/// weights, which must be numbers; constants inside the graph may be NaN, to mark what is missing.
pub(super) fn check(message: Bytes<'_>, weights: bool) -> Result<Option<External<'_>>, Malformed> {
    let mut tensor = Tensor {
        count: Some(1),
        expected: code(message)?,
        ..Tensor::default()
    };
    let mut fields = Fields::of(message);
    while let Some(field) = fields.next()? {
        tensor.take(field.number, field.value)?;
    }
    tensor.judge(weights)
}

/// The element type, which decides what the numbers are, wherever in the tensor it is said.
fn code(message: Bytes<'_>) -> Result<u64, Malformed> {
    let mut fields = Fields::of(message);
    while let Some(field) = fields.next()? {
        if let (2, Value::Number(code)) = (field.number, field.value) {
            return Ok(code);
        }
    }
    Ok(0)
}

impl<'a> Tensor<'a> {
    fn take(&mut self, number: u64, value: Value<'a>) -> Result<(), Malformed> {
        match (number, value) {
            (1, Value::Number(extent)) => self.extent(extent),
            (1, Value::Bytes(packed)) => {
                let mut extents = Fields::of(packed);
                while !extents.is_empty() {
                    let extent = extents.varint()?;
                    self.extent(extent);
                }
            }
            (2, Value::Number(code)) => self.once(code, |tensor| &mut tensor.code),
            (3, _) => self.odd = Some("is in segments, which no engine reads"),
            (8, Value::Bytes(name)) => self.name = name.content,
            (9, Value::Bytes(raw)) => self.once(raw.content, |tensor| &mut tensor.raw),
            (13, Value::Bytes(entry)) => {
                self.is_external = true;
                self.external.take(entry)?;
            }
            (14, Value::Number(place)) => {
                self.is_external |= place != 0;
                if place > 1 {
                    self.odd = Some("is in a place that ONNX does not have");
                }
            }
            (FLOAT_DATA | INT32_DATA | STRING_DATA | INT64_DATA | DOUBLE_DATA | UINT64_DATA, value) => {
                self.numbers(number, value)?;
            }
            _ => {}
        }
        Ok(())
    }

    /// Protobuf's parsers take the last of fields that are there twice. Nobody writes them twice honestly.
    fn once<T>(&mut self, value: T, place: impl Fn(&mut Self) -> &mut Option<T>) {
        if place(self).replace(value).is_some() {
            self.odd = Some("is not said clearly: a field is there twice");
        }
    }

    fn extent(&mut self, extent: u64) {
        self.dimensions = self.dimensions.saturating_add(1);
        match i64::try_from(extent) {
            Ok(_) => {
                let product = self.count.and_then(|count| count.checked_mul(extent));
                self.count = product.filter(|product| i64::try_from(*product).is_ok());
            }
            Err(_) => self.negative = true,
        }
    }

    /// Counts what is in a typed field and looks for NaN in it. Whether the field is the right one is judged at the end.
    fn numbers(&mut self, field: u64, value: Value<'a>) -> Result<(), Malformed> {
        let before = match self.typed {
            Some((other, _)) if other != field => {
                self.odd = Some("is in two fields");
                return Ok(());
            }
            Some((_, count)) => count,
            None => 0,
        };
        let width = match field {
            FLOAT_DATA => Some((4, Floats::F32)),
            DOUBLE_DATA => Some((8, Floats::F64)),
            _ => None,
        };
        let found = match (value, width) {
            (Value::Fixed(bytes), Some((width, floats))) => self.floats(bytes, width, floats, before),
            (Value::Bytes(packed), Some((width, floats))) => self.floats(packed.content, width, floats, before),
            (Value::Bytes(_), None) if field == STRING_DATA => 1,
            (Value::Number(number), None) => {
                self.half(number, before);
                1
            }
            (Value::Bytes(packed), None) => {
                let mut numbers = Fields::of(packed);
                let mut found = 0;
                while !numbers.is_empty() {
                    let number = numbers.varint()?;
                    self.half(number, before + found);
                    found += 1;
                }
                found
            }
            _ => {
                self.odd = Some("is in a field of the wrong type");
                0
            }
        };
        self.typed = Some((field, before.saturating_add(found)));
        Ok(())
    }

    fn floats(&mut self, bytes: &[u8], width: usize, floats: Floats, before: u64) -> u64 {
        if !bytes.len().is_multiple_of(width) {
            self.odd = Some("ends inside a number");
        }
        let index = |place: usize| u64::try_from(place / width).unwrap_or(u64::MAX);
        if let Some(place) = floats.find(bytes, Refuse::Nan) {
            let nan = before.saturating_add(index(place));
            self.nan = self.nan.or(Some(nan));
        }
        index(bytes.len())
    }

    /// Halves are in `int32_data`, one for each number.
    fn half(&mut self, number: u64, index: u64) {
        let bits = number & 0x7fff;
        let nan = match self.expected {
            10 => bits > 0x7c00,
            16 => bits > 0x7f80,
            _ => false,
        };
        if nan {
            self.nan = self.nan.or(Some(index));
        }
    }

    fn judge(self, weights: bool) -> Result<Option<External<'a>>, Malformed> {
        let tensor = || Label::new(self.name);
        let shape = |problem| Malformed::Shape {
            tensor: tensor(),
            problem,
        };
        if self.negative {
            return Err(shape("has a negative dimension"));
        }
        if self.dimensions > MAX_DIMENSIONS {
            return Err(shape("has too many dimensions"));
        }
        let count = self
            .count
            .ok_or_else(|| shape("has more elements than can be counted"))?;
        if let Some(problem) = self.odd {
            return Err(Malformed::Place {
                tensor: tensor(),
                problem,
            });
        }
        let code = self.code.unwrap_or(0);
        let elements = ELEMENTS.iter().find(|elements| elements.code == code);
        let elements = elements.ok_or_else(|| Malformed::Elements {
            tensor: tensor(),
            found: Label::from(code.to_string().as_str()),
        })?;
        let bits = count.checked_mul(elements.bits);
        let bytes = bits
            .ok_or_else(|| shape("has more bytes than can be counted"))?
            .div_ceil(8);
        self.check_data(elements, count, bytes, weights)
    }

    /// The data must be in one place, and as long as it should be.
    fn check_data(
        self,
        elements: &Elements,
        count: u64,
        bytes: u64,
        weights: bool,
    ) -> Result<Option<External<'a>>, Malformed> {
        let tensor = Label::new(self.name);
        let (field, typed) = self.typed.unwrap_or((elements.field, 0));
        let place = |problem| {
            let tensor = Label::new(self.name);
            Err(Malformed::Place { tensor, problem })
        };
        if typed > 0 && (self.raw.is_some() || self.is_external) || self.raw.is_some() && self.is_external {
            return place("is in two places");
        }
        if self.is_external || self.raw.is_some() {
            if elements.field == STRING_DATA {
                return place("are texts, which have no raw form");
            }
        } else if field != elements.field && typed > 0 {
            return place("is in a field of another type");
        }
        if self.is_external {
            let floats = if weights { elements.floats } else { Floats::None };
            return self.external.resolve(self.name, bytes, floats).map(Some);
        }
        let (expected, found) = match self.raw {
            Some(raw) => (bytes, u64::try_from(raw.len()).unwrap_or(u64::MAX)),
            None => {
                let (numbers, of) = elements.numbers;
                (count.saturating_mul(numbers).div_ceil(of), typed)
            }
        };
        if found != expected {
            return Err(Malformed::Size {
                tensor,
                expected,
                found,
            });
        }
        let raw = self.raw.unwrap_or_default();
        let bad = elements
            .floats
            .find(raw, Refuse::Nan)
            .and_then(|place| u64::try_from(place).ok());
        match bad.or(self.nan).filter(|_| weights) {
            Some(offset) => Err(Malformed::NotFinite { tensor, offset }),
            None => Ok(None),
        }
    }
}
