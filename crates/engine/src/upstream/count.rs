//! Counting an answer: what the client sees is what counts, and the server's own count is only ever a reason to count
//! less.

use std::{
    collections::VecDeque,
    sync::atomic::{AtomicU64, Ordering},
};

use super::delta::{Delta, Token};

/// What made a server's counts suspicious, and how often.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Suspicions {
    /// Its `usage` told fewer tokens of an answer than it had sent. The lower number is billed wherever it came in time,
    /// and from then on nothing is given out before it came.
    pub output: u64,
    /// Its `usage` told another number of tokens of a prompt than its own tokenizer.
    pub input: u64,
    /// It sent more than was asked for.
    pub excess: u64,
    /// What it sent made no sense.
    pub odd: u64,
}

/// One of the reasons for suspicion.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Suspicion {
    Output,
    Input,
    Excess,
    Odd,
}

/// The suspicions so far.
#[derive(Debug, Default)]
pub(super) struct Ledger([AtomicU64; 4]);

impl Ledger {
    pub(super) fn add(&self, suspicion: Suspicion) {
        let [output, input, excess, odd] = &self.0;
        let count = match suspicion {
            Suspicion::Output => output,
            Suspicion::Input => input,
            Suspicion::Excess => excess,
            Suspicion::Odd => odd,
        };
        count.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn read(&self) -> Suspicions {
        let [output, input, excess, odd] = self.0.each_ref().map(|count| count.load(Ordering::Relaxed));
        Suspicions {
            output,
            input,
            excess,
            odd,
        }
    }
}

/// Tokens of one answer that were seen, and how many of them may be given out.
#[derive(Debug)]
pub(super) struct Meter {
    /// Most that was asked for.
    limit: u64,
    /// Whether nothing counts before the server's own count came.
    distrusted: bool,
    /// Bytes that the client saw, or will with the next piece.
    bytes: u64,
    /// The server's own count so far.
    told: Option<u64>,
    /// Tokens that were given out.
    given: u64,
    /// Tokens that the client saw something of, in order.
    ripe: VecDeque<Token>,
    /// Tokens that nothing was seen of yet: the beginning of a character, or the end of an answer.
    unripe: Vec<Token>,
}

impl Meter {
    pub(super) fn new(limit: u64, distrusted: bool) -> Self {
        Self {
            limit,
            distrusted,
            bytes: 0,
            told: None,
            given: 0,
            ripe: VecDeque::new(),
            unripe: Vec::new(),
        }
    }

    /// Notes what is new. Tokens of hidden thoughts are not counted.
    pub(super) fn add(&mut self, delta: &mut Delta) {
        self.told = delta.running.or(self.told);
        let visible = delta.visible();
        self.bytes = self.bytes.saturating_add(u64::try_from(visible).unwrap_or(u64::MAX));
        let tokens = std::mem::take(&mut delta.tokens);
        if visible == 0 {
            if !delta.hidden {
                self.unripe.extend(tokens);
            }
            return;
        }
        self.ripe.extend(self.unripe.drain(..));
        if tokens.is_empty() {
            let mut added = delta.text.clone().into_bytes();
            for call in &delta.calls {
                added.extend([call.name.as_bytes(), call.arguments.as_bytes()].concat());
            }
            self.ripe.push_back(Token::of(&added));
        } else {
            self.ripe.extend(tokens);
        }
    }

    /// How many tokens may be given out now.
    pub(super) fn due(&self) -> u64 {
        let told = self.told.unwrap_or(if self.distrusted { 0 } else { u64::MAX });
        let seen = self.given.saturating_add(count(self.ripe.len()));
        let most = seen.min(self.bytes).min(told).min(self.limit);
        most.saturating_sub(self.given)
    }

    /// Takes at most so many tokens to give them out; the place of the first is returned with them.
    pub(super) fn take(&mut self, most: u64) -> (u64, Vec<Token>) {
        let number = usize::try_from(most.min(self.due())).unwrap_or(usize::MAX);
        let tokens: Vec<Token> = self.ripe.drain(..number.min(self.ripe.len())).collect();
        let first = self.given;
        self.given = self.given.saturating_add(count(tokens.len()));
        (first, tokens)
    }

    /// Tokens that were given out.
    pub(super) fn given(&self) -> u64 {
        self.given
    }

    /// Whether everything that was asked for was given out.
    pub(super) fn is_full(&self) -> bool {
        self.given >= self.limit
    }

    /// Whether more was seen than was asked for.
    pub(super) fn is_over(&self) -> bool {
        self.is_full() && !self.ripe.is_empty()
    }

    /// Whether the server's own count at the end is below what was seen of it.
    pub(super) fn was_told_less(&self) -> bool {
        let seen = self.given.saturating_add(count(self.ripe.len()));
        self.told.is_some_and(|told| told < seen)
    }
}

fn count(length: usize) -> u64 {
    u64::try_from(length).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn delta(text: &str, running: Option<u64>) -> Delta {
        Delta {
            text: text.into(),
            running,
            ..Delta::default()
        }
    }

    #[test]
    fn a_token_counts_once_something_of_it_can_be_seen() {
        let mut meter = Meter::new(10, false);
        let mut half = Delta {
            tokens: vec![Token::of(b"\xE2")],
            ..Delta::default()
        };
        meter.add(&mut half);
        assert_eq!(meter.due(), 0);
        let mut rest = Delta {
            tokens: vec![Token::of(b"\x82\xAC")],
            ..delta("€", None)
        };
        meter.add(&mut rest);
        assert_eq!(meter.due(), 2);
        let mut end = Delta {
            tokens: vec![Token::of(b"<end>")],
            ..Delta::default()
        };
        meter.add(&mut end);
        assert_eq!(meter.take(9).1.len(), 2);
    }

    #[test]
    fn hidden_thoughts_do_not_count() {
        let mut meter = Meter::new(10, false);
        let mut thought = Delta {
            hidden: true,
            tokens: vec![Token::of(b"hm")],
            ..Delta::default()
        };
        meter.add(&mut thought);
        meter.add(&mut delta("well", None));
        assert_eq!(meter.due(), 1);
    }

    #[test]
    fn a_distrusted_server_is_counted_when_it_has_counted_itself() {
        let mut meter = Meter::new(10, true);
        for _ in 0..5 {
            meter.add(&mut delta("word", None));
        }
        assert_eq!(meter.due(), 0);
        meter.add(&mut delta("", Some(2)));
        assert_eq!(meter.due(), 2);
        assert!(meter.was_told_less());
    }

    proptest! {
        #[test]
        fn never_more_than_was_seen_told_or_asked_for(
            limit in 0u64..20,
            steps in prop::collection::vec(("[a-z]{0,3}", prop::option::of(0u64..30), 0usize..4, 0u64..9), 0..30),
        ) {
            let mut meter = Meter::new(limit, false);
            let (mut bytes, mut given, mut least) = (0, 0, u64::MAX);
            for (text, running, tokens, most) in steps {
                bytes += text.len() as u64;
                let mut new = Delta { tokens: vec![Token::of(b"x"); tokens], ..delta(&text, running) };
                meter.add(&mut new);
                let (first, taken) = meter.take(most);
                prop_assert_eq!(first, given);
                prop_assert!(taken.len() as u64 <= most);
                given += taken.len() as u64;
                least = running.unwrap_or(least);
                prop_assert!(given <= bytes && given <= limit && meter.given() == given);
                prop_assert!(taken.is_empty() || given <= least);
            }
        }
    }
}
