//! Corrupt files, each with what must be said of it.

pub(crate) mod gguf;
pub(crate) mod memory;
pub(crate) mod onnx;
pub(crate) mod safetensors;

use std::rc::Rc;

use rialto_engine::files::Malformed;

/// Whether this is the right thing to say.
type Expected = Box<dyn Fn(&Malformed) -> bool>;

/// A corrupt file's content, made when it is needed: all of them together would be gigabytes.
pub(crate) enum Bytes {
    Whole(Vec<u8>),
    /// The beginning of a file.
    Cut(Rc<[u8]>, usize),
    /// A file with other bytes at a place.
    Patched(Rc<[u8]>, usize, Vec<u8>),
}

impl Bytes {
    pub(crate) fn make(&self) -> Vec<u8> {
        match self {
            Self::Whole(bytes) => bytes.clone(),
            Self::Cut(file, length) => file[..*length].to_vec(),
            Self::Patched(file, at, patch) => {
                let mut file = file.to_vec();
                file[*at..at + patch.len()].copy_from_slice(patch);
                file
            }
        }
    }
}

impl From<Vec<u8>> for Bytes {
    fn from(bytes: Vec<u8>) -> Self {
        Self::Whole(bytes)
    }
}

/// A corrupt file.
pub(crate) struct Case {
    /// The kind of fault.
    pub(crate) category: &'static str,
    pub(crate) name: String,
    pub(crate) bytes: Bytes,
    pub(crate) expected: Expected,
    /// A text that the message must have in it, such as a tensor's name.
    pub(crate) about: Option<String>,
}

impl Case {
    fn new(
        category: &'static str,
        name: String,
        bytes: impl Into<Bytes>,
        expected: impl Fn(&Malformed) -> bool + 'static,
    ) -> Self {
        Self {
            category,
            name,
            bytes: bytes.into(),
            expected: Box::new(expected),
            about: None,
        }
    }

    fn about(mut self, text: String) -> Self {
        self.about = Some(text);
        self
    }
}

/// The file cut short at these places and at forty more between its first byte and its last.
fn cut(file: &Rc<[u8]>, places: &[usize], expected: fn(&Malformed) -> bool) -> Vec<Case> {
    let more = (1..=40).map(|part| file.len() * part / 41);
    let last = [file.len() - 1];
    let places = places.iter().copied().chain(more).chain(last);
    places
        .map(|length| {
            Case::new(
                "cut",
                format!("at {length}"),
                Bytes::Cut(file.clone(), length),
                expected,
            )
        })
        .collect()
}
