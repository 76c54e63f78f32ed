//! Data of a tensor that is in another file.

use super::{
    super::{Label, Malformed, floats::Floats},
    protobuf::{Bytes, Fields, Value},
};

/// Most bytes of a file's name.
const MAX_LOCATION: usize = 256;

/// Where the data of a tensor is, when it is in another file. Its name has passed the rules; whether such a file was
/// declared is for whoever knows the manifest.
#[derive(Debug, Clone, Copy)]
pub struct External<'a> {
    /// The tensor's name, as bytes of the file.
    pub(crate) tensor: &'a [u8],
    /// The file's name, relative to the model's folder, with slashes.
    pub location: &'a str,
    /// First byte in that file.
    pub offset: u64,
    /// Bytes, by the tensor's shape.
    pub length: u64,
    /// What lies there.
    pub(crate) floats: Floats,
}

impl External<'_> {
    /// The tensor's name, for messages.
    pub fn label(&self) -> Label {
        Label::new(self.tensor)
    }

    /// The file's name, refused.
    pub fn refuse(&self, problem: &'static str) -> Malformed {
        Malformed::Location {
            tensor: self.label(),
            location: Label::from(self.location),
            problem,
        }
    }
}

/// The entries of `TensorProto.external_data`.
#[derive(Default)]
pub(super) struct Entries<'a> {
    location: Option<&'a [u8]>,
    offset: Option<u64>,
    length: Option<u64>,
    twice: bool,
    odd: bool,
}

impl<'a> Entries<'a> {
    /// Takes a `StringStringEntryProto`.
    pub(super) fn take(&mut self, entry: Bytes<'a>) -> Result<(), Malformed> {
        let mut fields = Fields::of(entry);
        let (mut key, mut value) = (None, None);
        while let Some(field) = fields.next()? {
            let Value::Bytes(bytes) = field.value else { continue };
            match field.number {
                1 => self.twice |= key.replace(bytes.content).is_some(),
                2 => self.twice |= value.replace(bytes.content).is_some(),
                _ => {}
            }
        }
        let value = value.unwrap_or_default();
        match key.unwrap_or_default() {
            b"location" => self.twice |= self.location.replace(value).is_some(),
            b"offset" => self.number(value, |entries| &mut entries.offset),
            b"length" => self.number(value, |entries| &mut entries.length),
            b"checksum" => {}
            // ONNX Runtime writes these for weights that it has laid out for one processor.
            key => self.odd |= !key.starts_with(b"prepacked"),
        }
        Ok(())
    }

    fn number(&mut self, text: &[u8], place: impl Fn(&mut Self) -> &mut Option<u64>) {
        let digits = text.iter().all(u8::is_ascii_digit);
        let text = std::str::from_utf8(text).ok().filter(|_| digits);
        match text.and_then(|text| text.parse().ok()) {
            Some(number) => self.twice |= place(self).replace(number).is_some(),
            None => self.odd = true,
        }
    }

    /// Where `expected` bytes of a tensor are.
    pub(super) fn resolve(&self, tensor: &'a [u8], expected: u64, floats: Floats) -> Result<External<'a>, Malformed> {
        let bytes = self.location.unwrap_or_default();
        let refuse = |problem| Malformed::Location {
            tensor: Label::new(tensor),
            location: Label::new(bytes),
            problem,
        };
        if self.twice {
            return Err(refuse("is not said clearly: an entry is there twice"));
        }
        if self.odd {
            return Err(refuse("comes with an entry that is not understood"));
        }
        let location = std::str::from_utf8(bytes).map_err(|_| refuse("is not valid UTF-8"))?;
        check_location(location).map_err(refuse)?;
        if let Some(found) = self.length.filter(|length| *length != expected) {
            let tensor = Label::new(tensor);
            return Err(Malformed::Size {
                tensor,
                expected,
                found,
            });
        }
        Ok(External {
            tensor,
            location,
            offset: self.offset.unwrap_or(0),
            length: expected,
            floats,
        })
    }
}

/// Refuses every name that is not plainly one of a file beside the model. Engines resolved `..`, links and absolute
/// names in turn: CVE-2022-25882, CVE-2024-27318, CVE-2026-27489, CVE-2026-34446. And ONNX Runtime takes one name, with
/// stars in it, to mean that the offset is an address in its own memory.
fn check_location(location: &str) -> Result<(), &'static str> {
    if location.is_empty() {
        return Err("has no name");
    }
    if location.len() > MAX_LOCATION {
        return Err("has too long a name");
    }
    if location.starts_with('/') {
        return Err("has an absolute name");
    }
    if location.contains(['\\', ':', '*', '?', '|', '<', '>', '"']) || location.contains(char::is_control) {
        return Err("has a character in its name that is not allowed");
    }
    if location
        .split('/')
        .any(|part| part.is_empty() || part == "." || part == "..")
    {
        return Err("is not named by a plain path inside the model's folder");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_plain_names_inside_the_folder_pass() {
        for location in ["weights.bin", "data/weights.bin", "größe…", "..weights", "a..b", "_ORT"] {
            assert_eq!(check_location(location), Ok(()), "{location}");
        }
        let hostile = [
            "",
            "/etc/passwd",
            "../weights.bin",
            "data/../../weights.bin",
            "data/..",
            "./weights.bin",
            "data//weights.bin",
            "data/",
            "..\\weights.bin",
            "\\\\host\\share",
            "C:/weights.bin",
            "C:weights.bin",
            "weights.bin\0.txt",
            "weights\n.bin",
            "*/_ORT_MEM_ADDR_/*",
        ];
        for location in hostile {
            assert!(check_location(location).is_err(), "{location}");
        }
        assert!(check_location(&"x".repeat(257)).is_err());
    }
}
