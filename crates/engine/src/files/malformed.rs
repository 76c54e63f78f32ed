//! What can be wrong with a model's file, in words that are safe to print: texts out of a stranger's file are cut and
//! cleaned before they get into a message.

use std::fmt;

/// Most characters of a text out of a file that a message repeats.
const LABEL_CHARACTERS: usize = 80;

/// A name out of a stranger's file, for messages: at most 80 characters, without control characters, line breaks and
/// marks that turn a terminal's text around.
#[derive(Clone, PartialEq, Eq)]
pub struct Label(String);

impl Label {
    /// Cuts and cleans; what is no UTF-8 is replaced.
    pub fn new(bytes: &[u8]) -> Self {
        // Four bytes a character at most: what lies behind them would be cut anyway.
        let bytes = bytes.get(..4 * LABEL_CHARACTERS + 4).unwrap_or(bytes);
        let text = String::from_utf8_lossy(bytes);
        let mut label: String = text.chars().take(LABEL_CHARACTERS).map(clean).collect();
        if text.chars().nth(LABEL_CHARACTERS).is_some() {
            label.push('…');
        }
        Self(label)
    }
}

/// Letters and digits of every script and all of ASCII that shows; a dot for the rest.
fn clean(character: char) -> char {
    if character.is_alphanumeric() || character == ' ' || character.is_ascii_graphic() {
        character
    } else {
        '·'
    }
}

impl From<&str> for Label {
    fn from(text: &str) -> Self {
        Self::new(text.as_bytes())
    }
}

impl fmt::Display for Label {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for Label {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0, f)
    }
}

/// Why a model's file is refused. Trying again cannot help, and it is the publisher's fault, except for
/// [`Malformed::Unreadable`]. Offsets are in bytes from the beginning of the file.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Malformed {
    /// The operating system refused to read it.
    #[error("it cannot be read: {0}")]
    Unreadable(Label),
    /// It ends too early.
    #[error("it ends inside {what}, which begins at byte {offset}")]
    Truncated {
        /// What does not fit into the file.
        what: &'static str,
        /// Where that begins.
        offset: u64,
    },
    /// The first bytes are those of another format.
    #[error("it is not a {0} file")]
    Magic(&'static str),
    /// A version of the format that is not known.
    #[error("version {0} of its format is not supported")]
    Version(u64),
    /// A count or a length beyond what the file can hold, or beyond any honest model.
    #[error("{what} is {found} at byte {offset}, where at most {limit} is possible")]
    Count {
        /// Of what.
        what: &'static str,
        /// By the file.
        found: u64,
        /// Most that would be accepted.
        limit: u64,
        /// Where.
        offset: u64,
    },
    /// A text that is empty, or no UTF-8.
    #[error("{what} at byte {offset} is not a valid text")]
    Text {
        /// Which.
        what: &'static str,
        /// Where.
        offset: u64,
    },
    /// Neither the JSON nor the protobuf that its format asks for.
    #[error("its structure is broken at byte {offset}: {problem}")]
    Structure {
        /// Where, as near as is known.
        offset: u64,
        /// What.
        problem: Label,
    },
    /// Nested deeper than any honest model.
    #[error("it is nested too deeply")]
    Depth,
    /// Something that a model must have.
    #[error("it has no {0}")]
    Missing(&'static str),
    /// The same name for two things: engines differ in which of them they take.
    #[error("the {what} `{name}` is there twice")]
    Duplicate {
        /// Of what.
        what: &'static str,
        /// Which.
        name: Label,
    },
    /// A value of the metadata is of the wrong type or out of bounds.
    #[error("the value of `{name}` {problem}")]
    Value {
        /// Its key.
        name: Label,
        /// What.
        problem: &'static str,
    },
    /// The extents of a tensor are impossible.
    #[error("the shape of tensor `{tensor}` {problem}")]
    Shape {
        /// Which.
        tensor: Label,
        /// What.
        problem: &'static str,
    },
    /// A tensor of elements that are not known.
    #[error("tensor `{tensor}` has the unknown element type {found}")]
    Elements {
        /// Which.
        tensor: Label,
        /// The type's number or name.
        found: Label,
    },
    /// The data of a tensor is not as long as its shape says.
    #[error("the data of tensor `{tensor}` is {found} long, its shape asks for {expected}")]
    Size {
        /// Which.
        tensor: Label,
        /// Bytes, or elements where the format counts those.
        expected: u64,
        /// As many are there.
        found: u64,
    },
    /// The data of a tensor is not where it may be.
    #[error("the data of tensor `{tensor}` {problem}")]
    Place {
        /// Which.
        tensor: Label,
        /// What.
        problem: &'static str,
    },
    /// A weight, or the scale of a block of weights, is not a number, or infinite.
    #[error("tensor `{tensor}` has a weight that is not a finite number, at byte {offset} of its data")]
    NotFinite {
        /// Which.
        tensor: Label,
        /// Where in the tensor's data.
        offset: u64,
    },
    /// Data in another file, which may not be read.
    #[error("tensor `{tensor}` reads the file `{location}`, which {problem}")]
    Location {
        /// Which.
        tensor: Label,
        /// The file's name.
        location: Label,
        /// What.
        problem: &'static str,
    },
}

impl From<std::io::Error> for Malformed {
    fn from(error: std::io::Error) -> Self {
        Self::Unreadable(Label::from(error.to_string().as_str()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_strangers_text_cannot_write_on_the_providers_terminal() {
        let hostile = "blk.0\u{1b}[2J\r\nerror: all is well\u{202e}\0";
        assert_eq!(Label::from(hostile).to_string(), "blk.0·[2J··error: all is well··");
        assert_eq!(Label::new(b"\xff\xfeok").to_string(), "··ok");
        assert_eq!(Label::from("größe").to_string(), "größe");
    }

    #[test]
    fn a_message_is_short_however_long_the_name() {
        let name = "\u{10400}".repeat(1 << 20);
        let error = Malformed::Duplicate {
            what: "tensor",
            name: Label::from(name.as_str()),
        };
        assert_eq!(error.to_string().chars().filter(|c| *c == '\u{10400}').count(), 80);
        assert!(error.to_string().len() < 400);
    }
}
