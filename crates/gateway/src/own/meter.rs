//! Reads what an answer used while it passes.

use bytes::{Bytes, BytesMut};
use memchr::memmem;
use serde::Deserialize;

/// Longest event that is looked into; a longer one passes unread.
const MAX_EVENT: usize = 1 << 20;

/// Units of an answer.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub(crate) struct Units {
    /// Of input.
    #[serde(rename = "prompt_tokens")]
    pub(crate) input: u64,
    /// Of output.
    #[serde(rename = "completion_tokens")]
    pub(crate) output: u64,
}

#[derive(Deserialize)]
struct Told {
    #[serde(default)]
    usage: Option<Units>,
    #[serde(default)]
    choices: Option<Vec<serde::de::IgnoredAny>>,
}

/// What a whole answer says that it used.
pub(crate) fn whole(body: &[u8]) -> Units {
    let told = serde_json::from_slice::<Told>(body).ok();
    told.and_then(|told| told.usage).unwrap_or_default()
}

/// Reads a stream of events, and takes out the one that only tells the usage if its client did not ask for that.
#[derive(Debug)]
pub(crate) struct Meter {
    usage: Option<Units>,
    /// Events that passed: about as many as tokens.
    events: u64,
    /// Whether the usage is for the client too.
    keeps: bool,
    /// Of an event that has not ended.
    part: BytesMut,
    /// Whether an event was too long to be looked into: from then on everything passes.
    gave_up: bool,
    ended: bool,
}

impl Meter {
    pub(crate) fn new(keeps: bool) -> Self {
        Self {
            usage: None,
            events: 0,
            keeps,
            part: BytesMut::new(),
            gave_up: false,
            ended: false,
        }
    }

    /// What is passed on of these bytes; nothing while an event has not ended.
    pub(crate) fn pass(&mut self, bytes: Bytes) -> Bytes {
        // Nearly always whole events come, and none tells a usage.
        if self.gave_up || (self.part.is_empty() && bytes.ends_with(b"\n\n") && !is_told(&bytes)) {
            self.note(&bytes);
            return bytes;
        }
        self.part.extend_from_slice(&bytes);
        let mut passed = BytesMut::new();
        while let Some(end) = end_of_event(&self.part) {
            let event = self.part.split_to(end);
            self.note(&event);
            if !is_told(&event) || self.read(&event) {
                passed.extend_from_slice(&event);
            }
        }
        if self.part.len() > MAX_EVENT {
            self.gave_up = true;
            passed.unsplit(std::mem::take(&mut self.part));
        }
        passed.freeze()
    }

    /// What was kept of an event that never ended.
    pub(crate) fn rest(&mut self) -> Bytes {
        std::mem::take(&mut self.part).freeze()
    }

    /// Whether the answer came to its end.
    pub(crate) fn has_ended(&self) -> bool {
        self.ended
    }

    /// What it used: as it says, or else about as many units of output as events came.
    pub(crate) fn units(&self) -> Units {
        let counted = Units {
            input: 0,
            output: self.events,
        };
        self.usage.unwrap_or(counted)
    }

    fn note(&mut self, bytes: &[u8]) {
        let events = memmem::find_iter(bytes, b"data: {").count();
        self.events = self.events.saturating_add(u64::try_from(events).unwrap_or(0));
        self.ended |= memmem::find(bytes, b"data: [DONE]").is_some();
    }

    /// Reads an event; false if it is not for the client.
    fn read(&mut self, event: &[u8]) -> bool {
        let text = std::str::from_utf8(event).unwrap_or_default();
        let data = text.lines().find_map(|line| line.strip_prefix("data:"));
        let Some(told) = data.and_then(|data| serde_json::from_str::<Told>(data).ok()) else {
            return true;
        };
        let Some(usage) = told.usage else { return true };
        self.usage = Some(usage);
        self.keeps || told.choices.is_none_or(|choices| !choices.is_empty())
    }
}

fn is_told(bytes: &[u8]) -> bool {
    memmem::find(bytes, b"\"usage\"").is_some()
}

/// Where the first event ends, its blank line included.
fn end_of_event(bytes: &[u8]) -> Option<usize> {
    let mut from = 0;
    loop {
        let at = from + memchr::memchr(b'\n', bytes.get(from..)?)? + 1;
        match bytes.get(at..)? {
            [b'\n', ..] => return Some(at + 1),
            [b'\r', b'\n', ..] => return Some(at + 2),
            _ => from = at,
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const USED: &str =
        "data: {\"choices\":[],\"usage\": {\"prompt_tokens\":3,\"completion_tokens\":2,\"total_tokens\":5}}\n\n";

    fn stream(usage: &str) -> String {
        format!(
            "data: {{\"choices\":[{{\"delta\":{{\"content\":\"say \\\"usage\\\"\"}}}}]}}\n\n: warm\n\n\
             data: {{\"choices\":[{{}}],\"usage\":null}}\r\n\r\n{usage}data: [DONE]\n\n"
        )
    }

    fn passed(meter: &mut Meter, text: &str, cuts: &[usize]) -> String {
        let (mut out, mut rest) = (Vec::new(), text.as_bytes());
        for cut in cuts {
            let (head, tail) = rest.split_at((*cut).min(rest.len()));
            out.extend_from_slice(&meter.pass(Bytes::copy_from_slice(head)));
            rest = tail;
        }
        out.extend_from_slice(&meter.pass(Bytes::copy_from_slice(rest)));
        out.extend_from_slice(&meter.rest());
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn a_whole_answer_says_what_it_used() {
        assert_eq!(
            whole(b"{\"usage\":{\"prompt_tokens\":7}}"),
            Units { input: 7, output: 0 }
        );
        assert_eq!(whole(b"{\"usage\":null}"), Units::default());
        assert_eq!(whole(b"<html>"), Units::default());
    }

    #[test]
    fn where_no_usage_is_told_events_are_counted() {
        let mut meter = Meter::new(false);
        assert_eq!(passed(&mut meter, &stream(""), &[]), stream(""));
        assert_eq!(meter.units(), Units { input: 0, output: 2 });
    }

    #[test]
    fn what_is_longer_than_any_event_passes() {
        let mut meter = Meter::new(false);
        let endless = "data: ".to_owned() + &"x".repeat(MAX_EVENT);
        assert_eq!(passed(&mut meter, &endless, &[9, 1_000]), endless);
    }

    proptest! {
        #[test]
        fn wherever_it_is_cut_the_client_gets_all_but_a_usage_that_it_did_not_ask_for(
            cuts in prop::collection::vec(0usize..40, 0..30), keeps in any::<bool>()
        ) {
            let mut meter = Meter::new(keeps);
            let got = passed(&mut meter, &stream(USED), &cuts);
            prop_assert_eq!(got, stream(if keeps { USED } else { "" }));
            prop_assert_eq!(meter.units(), Units { input: 3, output: 2 });
            prop_assert!(meter.has_ended());
        }

        #[test]
        fn no_bytes_make_it_panic_and_without_a_usage_all_of_them_pass(
            bytes in "[data:\n\r {}u]{0,200}", cuts in prop::collection::vec(0usize..40, 0..30)
        ) {
            let mut meter = Meter::new(false);
            prop_assert_eq!(passed(&mut meter, &bytes, &cuts), bytes);
        }
    }
}
