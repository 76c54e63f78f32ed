//! From the bytes of tokens to text that may be shown: whole characters only, and nothing of a stop text.

use crate::Error;

/// Turns the bytes of one token after another into text.
///
/// A character cut between tokens waits for its rest. Text that may be the beginning of a stop text waits until it is
/// clear that it is not one, so that no part of a stop text is ever shown.
#[derive(Debug)]
pub struct TextStream {
    stops: Vec<String>,
    /// Bytes of a character whose rest has not come.
    bytes: Vec<u8>,
    /// Text that may be the beginning of a stop text.
    held: String,
}

/// What a token added.
#[derive(Debug, PartialEq, Eq)]
pub struct Added {
    /// Text to show; may be empty.
    pub text: String,
    /// Whether a stop text was completed. The text then ends before it.
    pub stopped: bool,
}

impl TextStream {
    /// A stream that stops at any of these texts.
    pub fn new(stops: Vec<String>) -> Self {
        Self {
            stops,
            bytes: Vec::new(),
            held: String::new(),
        }
    }

    /// A stream after these bytes, of which this text was shown elsewhere. Fails with a bad `so_far` where it would not have
    /// been, and where the answer has ended.
    pub(crate) fn after(stops: Vec<String>, said: &[u8], shown: &str) -> Result<Self, Error> {
        let mut stream = Self::new(stops);
        let added = stream.push(said);
        if added.stopped {
            return Err(Error::bad("so_far", "has a text in it that ends the answer"));
        }
        if added.text != shown {
            return Err(Error::bad("so_far", "is no text that an answer breaks off with"));
        }
        Ok(stream)
    }

    /// Adds a token's bytes.
    pub fn push(&mut self, token: &[u8]) -> Added {
        self.bytes.extend_from_slice(token);
        self.take_characters();
        if let Some(at) = self.earliest_stop() {
            let mut text = std::mem::take(&mut self.held);
            text.truncate(at);
            return Added { text, stopped: true };
        }
        let rest = self.held.split_off(self.safe());
        let text = std::mem::replace(&mut self.held, rest);
        Added { text, stopped: false }
    }

    /// Ends the stream: what waited is text after all, and a character cut short becomes a replacement character.
    pub fn finish(&mut self) -> String {
        let mut text = std::mem::take(&mut self.held);
        text.push_str(&String::from_utf8_lossy(&self.bytes));
        self.bytes.clear();
        text
    }

    /// Moves whole characters from the bytes to the held text. Bytes that can never become a character are replaced at
    /// once, so that at most three bytes wait.
    fn take_characters(&mut self) {
        let mut taken = 0;
        for chunk in self.bytes.utf8_chunks() {
            self.held.push_str(chunk.valid());
            taken += chunk.valid().len();
            let at_end = taken + chunk.invalid().len() == self.bytes.len();
            if chunk.invalid().is_empty() || (at_end && may_become_character(chunk.invalid())) {
                continue;
            }
            self.held.push(char::REPLACEMENT_CHARACTER);
            taken += chunk.invalid().len();
        }
        self.bytes.drain(..taken);
    }

    fn earliest_stop(&self) -> Option<usize> {
        self.stops.iter().filter_map(|stop| self.held.find(stop)).min()
    }

    /// How much of the held text cannot be part of a stop text any more.
    fn safe(&self) -> usize {
        let length = self.held.len();
        let starts = self.held.char_indices().map(|(at, _)| at);
        let longest = self.stops.iter().map(String::len).max().unwrap_or(0);
        starts
            .skip_while(|at| length - at >= longest)
            .find(|at| {
                let tail = self.held.get(*at..).unwrap_or_default();
                self.stops.iter().any(|stop| stop.starts_with(tail))
            })
            .unwrap_or(length)
    }
}

/// Whether these bytes are the beginning of a character. `utf8_chunks` gives them as one invalid chunk.
fn may_become_character(bytes: &[u8]) -> bool {
    let wanted = match bytes.first() {
        Some(0xC2..=0xDF) => 2,
        Some(0xE0..=0xEF) => 3,
        Some(0xF0..=0xF4) => 4,
        _ => return false,
    };
    bytes.len() < wanted
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn run(stops: &[&str], tokens: &[&[u8]]) -> (String, bool) {
        let mut stream = TextStream::new(stops.iter().map(|stop| (*stop).to_owned()).collect());
        let mut text = String::new();
        for token in tokens {
            let added = stream.push(token);
            text.push_str(&added.text);
            if added.stopped {
                return (text, true);
            }
        }
        text.push_str(&stream.finish());
        (text, false)
    }

    #[test]
    fn characters_are_never_split_wherever_tokens_are_cut() {
        let whole = "To be — 'tis 🜚 né\u{0301}e 中";
        for width in 1..6 {
            let tokens: Vec<&[u8]> = whole.as_bytes().chunks(width).collect();
            let mut stream = TextStream::new(vec![]);
            let mut text = String::new();
            for token in tokens {
                let added = stream.push(token).text;
                assert!(!added.contains(char::REPLACEMENT_CHARACTER), "{added}");
                text.push_str(&added);
            }
            assert_eq!(text + &stream.finish(), whole, "width {width}");
        }
    }

    #[test]
    fn bytes_that_are_no_character_are_replaced_and_do_not_hold_up_the_rest() {
        assert_eq!(run(&[], &[b"a\xFF", b"b"]).0, "a\u{FFFD}b");
        assert_eq!(run(&[], &[b"\xE2\x82", b"x"]).0, "\u{FFFD}x");
        assert_eq!(run(&[], &[b"\xF0\x9F"]).0, "\u{FFFD}");
        let mut stream = TextStream::new(vec![]);
        for _ in 0..1_000 {
            stream.push(b"\xE2\x82");
            assert!(stream.bytes.len() <= 3);
        }
    }

    #[test]
    fn a_stop_text_ends_the_answer_wherever_tokens_are_cut_and_never_shows() {
        let whole = b"good night, good night";
        for width in 1..whole.len() {
            let tokens: Vec<&[u8]> = whole.chunks(width).collect();
            assert_eq!(run(&["ht, g"], &tokens), ("good nig".to_owned(), true), "width {width}");
        }
    }

    #[test]
    fn the_earliest_stop_wins_and_what_only_looked_like_one_is_shown() {
        assert_eq!(run(&["night", "od n"], &[b"good nig", b"ht"]), ("go".to_owned(), true));
        assert_eq!(
            run(&["nightly"], &[b"good night", b"!"]),
            ("good night!".to_owned(), false)
        );
        assert_eq!(run(&["aab"], &[b"a", b"a", b"a", b"b", b"c"]), ("a".to_owned(), true));
        let mut stream = TextStream::new(vec!["nightly".into()]);
        assert_eq!(stream.push(b"good nig").text, "good ");
        assert_eq!(stream.push(b"ht!").text, "night!");
    }

    proptest! {
        #[test]
        fn what_shows_and_what_waits_depend_on_the_bytes_and_not_on_where_they_are_cut(
            bytes in prop::collection::vec(prop_oneof![Just(b'a'), Just(b'b'), any::<u8>(), 0x80u8..0xC0, 0xE0u8..0xF4], 0..40),
            stops in prop::collection::vec("[abé]{1,4}", 0..3),
            width in 1usize..5,
        ) {
            let (mut whole, mut parts) = (TextStream::new(stops.clone()), TextStream::new(stops));
            let at_once = whole.push(&bytes);
            let (mut text, mut stopped) = (String::new(), false);
            for part in bytes.chunks(width) {
                let added = parts.push(part);
                text.push_str(&added.text);
                stopped |= added.stopped;
                if stopped {
                    break;
                }
            }
            prop_assert_eq!(at_once.stopped, stopped);
            if !stopped {
                prop_assert_eq!(at_once.text, text);
                prop_assert_eq!((whole.held, whole.bytes), (parts.held, parts.bytes));
            }
        }
    }
}
