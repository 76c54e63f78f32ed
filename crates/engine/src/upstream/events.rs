//! Server-sent events, as much of them as OpenAI's protocol has: `data:` lines, comments, a blank line after each event.
//! Bounded, and strict: a line of another kind is an error, because it hides what went wrong.

use std::collections::VecDeque;

/// Longest event, its lines together.
pub(super) const MAX_EVENT: usize = 1 << 20;

/// What is wrong with a stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(super) enum BadStream {
    /// An event or a line does not end.
    #[error("an event is longer than {MAX_EVENT} bytes")]
    TooLong,
    /// Not UTF-8.
    #[error("an event is not text")]
    NotText,
    /// No field that the protocol has.
    #[error("a line is not a field of an event")]
    NotAField,
}

/// Cuts a stream of bytes into events, wherever the bytes were cut before.
#[derive(Debug, Default)]
pub(super) struct Events {
    /// Of the line that has not ended.
    line: Vec<u8>,
    /// Of the event that has not ended.
    data: Option<String>,
    ready: VecDeque<String>,
}

impl Events {
    /// Adds bytes. After an error nothing more comes of the stream.
    pub(super) fn push(&mut self, mut bytes: &[u8]) -> Result<(), BadStream> {
        while let Some(end) = bytes.iter().position(|byte| *byte == b'\n') {
            let (head, tail) = bytes.split_at(end);
            self.keep(head)?;
            let line = std::mem::take(&mut self.line);
            self.end_of_line(&line)?;
            bytes = tail.get(1..).unwrap_or_default();
        }
        self.keep(bytes)
    }

    /// The data of the next whole event.
    pub(super) fn next(&mut self) -> Option<String> {
        self.ready.pop_front()
    }

    fn keep(&mut self, bytes: &[u8]) -> Result<(), BadStream> {
        let data = self.data.as_ref().map_or(0, String::len);
        if self.line.len().saturating_add(bytes.len()).saturating_add(data) > MAX_EVENT {
            return Err(BadStream::TooLong);
        }
        self.line.extend_from_slice(bytes);
        Ok(())
    }

    fn end_of_line(&mut self, line: &[u8]) -> Result<(), BadStream> {
        let line = std::str::from_utf8(line).map_err(|_| BadStream::NotText)?;
        let line = line.strip_suffix('\r').unwrap_or(line);
        if line.is_empty() {
            self.ready.extend(self.data.take());
            return Ok(());
        }
        let (field, value) = line.split_once(':').unwrap_or((line, ""));
        let value = value.strip_prefix(' ').unwrap_or(value);
        match field {
            "data" => {
                match &mut self.data {
                    Some(data) => {
                        data.push('\n');
                        data.push_str(value);
                    }
                    None => self.data = Some(value.to_owned()),
                }
                Ok(())
            }
            // A comment keeps the connection warm; names and numbers of events mean nothing in this protocol.
            "" | "event" | "id" | "retry" => Ok(()),
            _ => Err(BadStream::NotAField),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn whole(bytes: &[u8], cuts: &[usize]) -> Result<Vec<String>, BadStream> {
        let (mut events, mut told, mut rest) = (Events::default(), Vec::new(), bytes);
        for cut in cuts {
            let (head, tail) = rest.split_at((*cut).min(rest.len()));
            events.push(head)?;
            told.extend(std::iter::from_fn(|| events.next()));
            rest = tail;
        }
        events.push(rest)?;
        told.extend(std::iter::from_fn(|| events.next()));
        Ok(told)
    }

    #[test]
    fn events_end_with_a_blank_line_and_half_of_one_is_none() {
        let stream = b": warm\n\ndata: {\"a\":1}\r\n\r\nevent: x\ndata:two\ndata: lines\n\ndata\n\ndata: half";
        assert_eq!(whole(stream, &[]).unwrap(), ["{\"a\":1}", "two\nlines", ""]);
    }

    #[test]
    fn what_is_no_stream_of_events_is_refused() {
        assert_eq!(whole(b"<html>\n", &[]), Err(BadStream::NotAField));
        assert_eq!(whole(b"error: {}\n\n", &[]), Err(BadStream::NotAField));
        assert_eq!(whole(b"data: \xFF\n\n", &[]), Err(BadStream::NotText));
        let endless = "data: ".to_owned() + &"x".repeat(MAX_EVENT);
        assert_eq!(whole(endless.as_bytes(), &[]), Err(BadStream::TooLong));
        let many = "data: 12345678\n".repeat(MAX_EVENT / 8);
        assert_eq!(whole(many.as_bytes(), &[]), Err(BadStream::TooLong));
    }

    proptest! {
        #[test]
        fn any_bytes_cut_anywhere_give_the_same_events(
            stream in "(data: ?[a-zé中]{0,9}(\r?\n){1,2}|: c\n|event: x\n){0,9}", cuts in prop::collection::vec(0usize..9, 0..40)
        ) {
            prop_assert_eq!(whole(stream.as_bytes(), &cuts), whole(stream.as_bytes(), &[]));
        }

        #[test]
        fn no_bytes_make_it_panic_or_keep_more_than_an_event(
            bytes in prop::collection::vec(any::<u8>(), 0..4_096), cuts in prop::collection::vec(0usize..99, 0..40)
        ) {
            drop(whole(&bytes, &cuts));
        }
    }
}
