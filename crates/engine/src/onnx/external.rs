//! Which other files an ONNX model reads.
//!
//! Tensors of an ONNX file may live in files that it names. ONNX Runtime would open them, so the names are found here
//! first, by walking the protobuf: every tensor, wherever it is nested. The walk is strict; what it cannot read is
//! refused, because then it could not say that no file is named.

/// Deepest nesting of messages that is followed. Each subgraph costs four.
const MAX_DEPTH: usize = 96;

/// Most names of files that are collected.
const MAX_LOCATIONS: usize = 1_024;

/// Why a file is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(super) enum Malformed {
    /// The protobuf ends inside a field, or has a field of unknown wire type.
    #[error("it is not a well-formed ONNX file")]
    Protobuf,
    /// Nested deeper than any honest model.
    #[error("its graphs are nested too deeply")]
    Depth,
    /// A tensor outside the file without a name, with two, or with too many in all.
    #[error("it does not say clearly which files it reads")]
    Location,
}

/// Messages of `onnx.proto` on the way to a tensor.
#[derive(Debug, Clone, Copy)]
enum Message {
    Model,
    Training,
    Function,
    Graph,
    Node,
    Attribute,
    SparseTensor,
}

impl Message {
    /// What a length-delimited field holds: another message, a tensor, or nothing that matters.
    fn field(self, number: u64) -> Inside {
        use Inside::{Other, Tensor};
        match (self, number) {
            (Self::Model, 7) => Inside::Message(Self::Graph),
            (Self::Model, 20) => Inside::Message(Self::Training),
            (Self::Model, 25) => Inside::Message(Self::Function),
            (Self::Training, 1 | 2) => Inside::Message(Self::Graph),
            (Self::Function, 7) | (Self::Graph, 1) => Inside::Message(Self::Node),
            (Self::Function, 11) | (Self::Node, 5) => Inside::Message(Self::Attribute),
            (Self::Graph, 5) => Tensor,
            (Self::Graph, 15) => Inside::Message(Self::SparseTensor),
            (Self::Attribute, 5 | 10) => Tensor,
            (Self::Attribute, 6 | 11) => Inside::Message(Self::Graph),
            (Self::Attribute, 22 | 23) => Inside::Message(Self::SparseTensor),
            (Self::SparseTensor, 1 | 2) => Tensor,
            _ => Other,
        }
    }
}

enum Inside {
    Message(Message),
    Tensor,
    Other,
}

/// The names of all files that tensors of this model live in, without repetition.
pub(super) fn locations(model: &[u8]) -> Result<Vec<String>, Malformed> {
    let mut found = Vec::new();
    walk(model, Message::Model, 0, &mut found)?;
    Ok(found)
}

fn walk(bytes: &[u8], message: Message, depth: usize, found: &mut Vec<String>) -> Result<(), Malformed> {
    if depth > MAX_DEPTH {
        return Err(Malformed::Depth);
    }
    let mut fields = Fields(bytes);
    while let Some(field) = fields.next()? {
        let Value::Bytes(inner) = field.value else { continue };
        match message.field(field.number) {
            Inside::Message(next) => walk(inner, next, depth + 1, found)?,
            Inside::Tensor => tensor(inner, found)?,
            Inside::Other => {}
        }
    }
    Ok(())
}

/// `TensorProto`: `external_data` is field 13, `data_location` field 14 with 1 for external.
fn tensor(bytes: &[u8], found: &mut Vec<String>) -> Result<(), Malformed> {
    let mut fields = Fields(bytes);
    let (mut external, mut location) = (false, None);
    while let Some(field) = fields.next()? {
        match (field.number, field.value) {
            (13, Value::Bytes(entry)) => {
                external = true;
                if let Some(name) = entry_location(entry)?
                    && location.replace(name).is_some()
                {
                    return Err(Malformed::Location);
                }
            }
            (14, Value::Number(number)) => external |= number != 0,
            _ => {}
        }
    }
    if !external {
        return Ok(());
    }
    let location = location.ok_or(Malformed::Location)?;
    if !found.contains(&location) {
        if found.len() == MAX_LOCATIONS {
            return Err(Malformed::Location);
        }
        found.push(location);
    }
    Ok(())
}

/// `StringStringEntryProto`: the value, when the key is `location`.
fn entry_location(bytes: &[u8]) -> Result<Option<String>, Malformed> {
    let mut fields = Fields(bytes);
    let (mut key, mut value) = (None, None);
    while let Some(field) = fields.next()? {
        match (field.number, field.value) {
            (1, Value::Bytes(bytes)) => key = Some(bytes),
            (2, Value::Bytes(bytes)) => value = Some(bytes),
            _ => {}
        }
    }
    if key != Some(b"location".as_slice()) {
        return Ok(None);
    }
    let value = std::str::from_utf8(value.unwrap_or_default()).map_err(|_| Malformed::Location)?;
    Ok(Some(value.to_owned()))
}

struct Field<'a> {
    number: u64,
    value: Value<'a>,
}

enum Value<'a> {
    Number(u64),
    Bytes(&'a [u8]),
    Fixed,
}

/// The fields of a protobuf message, in order.
struct Fields<'a>(&'a [u8]);

impl<'a> Fields<'a> {
    fn next(&mut self) -> Result<Option<Field<'a>>, Malformed> {
        if self.0.is_empty() {
            return Ok(None);
        }
        let tag = self.varint()?;
        let value = match tag & 7 {
            0 => Value::Number(self.varint()?),
            1 => self.take(8).map(|_| Value::Fixed)?,
            2 => {
                let length = self.varint()?;
                Value::Bytes(self.take(length)?)
            }
            5 => self.take(4).map(|_| Value::Fixed)?,
            // Groups are not used by ONNX.
            _ => return Err(Malformed::Protobuf),
        };
        Ok(Some(Field {
            number: tag >> 3,
            value,
        }))
    }

    fn take(&mut self, length: u64) -> Result<&'a [u8], Malformed> {
        let length = usize::try_from(length).map_err(|_| Malformed::Protobuf)?;
        let (taken, rest) = self.0.split_at_checked(length).ok_or(Malformed::Protobuf)?;
        self.0 = rest;
        Ok(taken)
    }

    fn varint(&mut self) -> Result<u64, Malformed> {
        let mut value = 0u64;
        for shift in (0..70).step_by(7) {
            let (byte, rest) = self.0.split_first().ok_or(Malformed::Protobuf)?;
            self.0 = rest;
            // Parsers drop what does not fit into 64 bits, so this one does too.
            value |= u64::from(byte & 0x7f).checked_shl(shift).unwrap_or(0);
            if byte & 0x80 == 0 {
                return Ok(value);
            }
        }
        Err(Malformed::Protobuf)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A length-delimited field; the numbers of these tests and their lengths fit into two bytes.
    fn field(number: u8, content: &[u8]) -> Vec<u8> {
        let tag = u32::from(number) << 3 | 2;
        let mut bytes = varint(tag);
        bytes.extend(varint(u32::try_from(content.len()).unwrap()));
        bytes.extend_from_slice(content);
        bytes
    }

    fn varint(mut value: u32) -> Vec<u8> {
        let mut bytes = vec![];
        while value >= 0x80 {
            bytes.push(u8::try_from(value & 0x7f).unwrap() | 0x80);
            value >>= 7;
        }
        bytes.push(u8::try_from(value).unwrap());
        bytes
    }

    fn external(location: &str) -> Vec<u8> {
        let entry = [field(2, location.as_bytes()), field(1, b"location")].concat();
        [field(8, b"weight"), field(13, &entry), vec![14 << 3, 1]].concat()
    }

    #[test]
    fn tensors_in_other_files_are_found_wherever_they_are() {
        let tensor = external("weights.bin");
        let in_attribute = field(1, &field(5, &field(5, &tensor)));
        let subgraph = field(1, &field(5, &field(6, &in_attribute)));
        let sparse = field(15, &field(2, &tensor));
        for graph in [field(5, &tensor), in_attribute.clone(), subgraph, sparse] {
            assert_eq!(locations(&field(7, &graph)).unwrap(), ["weights.bin"]);
        }
        let function = field(25, &in_attribute_of_function(&tensor));
        assert_eq!(locations(&function).unwrap(), ["weights.bin"]);
    }

    fn in_attribute_of_function(tensor: &[u8]) -> Vec<u8> {
        field(7, &field(5, &field(10, tensor)))
    }

    #[test]
    fn the_flag_or_the_entries_alone_count_as_external() {
        let only_flag = field(7, &field(5, &[14 << 3, 1]));
        assert_eq!(locations(&only_flag), Err(Malformed::Location));
        let entry = field(13, &[field(1, b"location"), field(2, b"x")].concat());
        assert_eq!(locations(&field(7, &field(5, &entry))).unwrap(), ["x"]);
        let twice = field(7, &field(5, &[entry.clone(), entry].concat()));
        assert_eq!(locations(&twice), Err(Malformed::Location));
        let inside = field(7, &field(5, &field(9, b"raw data")));
        assert_eq!(locations(&inside).unwrap(), Vec::<String>::new());
    }

    #[test]
    fn what_is_cut_short_or_nested_without_end_is_refused() {
        let whole = field(7, &field(5, &external("weights.bin")));
        for length in 1..whole.len() {
            assert_eq!(locations(&whole[..length]), Err(Malformed::Protobuf), "{length}");
        }
        let mut graph = vec![];
        for _ in 0..200 {
            graph = field(1, &field(5, &field(6, &graph)));
        }
        assert_eq!(locations(&field(7, &graph)), Err(Malformed::Depth));
    }
}
