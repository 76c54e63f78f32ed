//! The wire format of protobuf, as far as ONNX uses it: fields one after the other, without a schema.

use super::super::{Label, Malformed};

/// A part of a file that is a message.
#[derive(Debug, Clone, Copy)]
pub(super) struct Bytes<'a> {
    /// What it consists of.
    pub(super) content: &'a [u8],
    /// Where it begins in the file.
    pub(super) at: u64,
}

/// A field of a message.
pub(super) struct Field<'a> {
    /// Its number in the schema.
    pub(super) number: u64,
    pub(super) value: Value<'a>,
}

/// What a field holds.
pub(super) enum Value<'a> {
    /// A varint.
    Number(u64),
    /// A text, a message, or packed numbers.
    Bytes(Bytes<'a>),
    /// Four or eight bytes.
    Fixed(&'a [u8]),
}

/// The fields of a message, in order.
pub(super) struct Fields<'a>(Bytes<'a>);

impl<'a> Fields<'a> {
    /// Of a message.
    pub(super) fn of(message: Bytes<'a>) -> Self {
        Self(message)
    }

    /// The next field; none at the end.
    pub(super) fn next(&mut self) -> Result<Option<Field<'a>>, Malformed> {
        if self.0.content.is_empty() {
            return Ok(None);
        }
        let at = self.0.at;
        let tag = self.varint()?;
        let value = match tag & 7 {
            0 => Value::Number(self.varint()?),
            1 => Value::Fixed(self.take(8)?.content),
            2 => {
                let length = self.varint()?;
                Value::Bytes(self.take(length)?)
            }
            5 => Value::Fixed(self.take(4)?.content),
            // Groups are not used by ONNX.
            _ => return Err(structure(at, "a field of a type that ONNX does not have")),
        };
        let number = tag >> 3;
        if number == 0 {
            return Err(structure(at, "a field without a number"));
        }
        Ok(Some(Field { number, value }))
    }

    fn take(&mut self, length: u64) -> Result<Bytes<'a>, Malformed> {
        let at = self.0.at;
        let taken = usize::try_from(length).ok();
        let taken = taken.and_then(|length| self.0.content.split_at_checked(length));
        let (content, rest) = taken.ok_or(Malformed::Truncated {
            what: "a field",
            offset: at,
        })?;
        self.0 = Bytes {
            content: rest,
            at: at.saturating_add(length),
        };
        Ok(Bytes { content, at })
    }

    /// The next number, alone. Used for packed numbers too.
    pub(super) fn varint(&mut self) -> Result<u64, Malformed> {
        let begin = self.0.at;
        let mut value = 0u64;
        for shift in (0..70).step_by(7) {
            let next = self.0.content.split_first();
            let (byte, rest) = next.ok_or(Malformed::Truncated {
                what: "a number",
                offset: begin,
            })?;
            self.0 = Bytes {
                content: rest,
                at: self.0.at.saturating_add(1),
            };
            // Parsers drop what does not fit into 64 bits, so this one does too.
            value |= u64::from(byte & 0x7f).checked_shl(shift).unwrap_or(0);
            if byte & 0x80 == 0 {
                return Ok(value);
            }
        }
        Err(structure(begin, "a number of more than ten bytes"))
    }

    /// Whether nothing is left.
    pub(super) fn is_empty(&self) -> bool {
        self.0.content.is_empty()
    }
}

/// A broken file.
pub(super) fn structure(offset: u64, problem: &str) -> Malformed {
    let problem = Label::from(problem);
    Malformed::Structure { offset, problem }
}
