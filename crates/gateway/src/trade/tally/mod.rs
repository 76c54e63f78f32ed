//! What arrived, counted by the buyer itself: the bill may not be over more.

mod calls;
mod logprobs;

use rialto_protocol::{
    Digest, Usage,
    job::Job,
    output::{Output, ResponseHasher},
};

use calls::Calls;
use logprobs::Logprobs;

/// Bytes of text that a token can stand for, with room for stop texts and for what was held back.
const TEXT_PER_TOKEN: u64 = 1_024;
/// Tokens by which text, and pieces with text alone, may be ahead of the tokens that came.
const SLACK: u64 = 64;
/// Pieces with nothing in them: an engine may end with one.
const MAX_EMPTY: u64 = 16;
/// Longest vector of a text.
const MAX_VECTOR: usize = 65_536;
/// Most values of all vectors of an answer: 64 MiB.
const MAX_VALUES: usize = 16 << 20;

/// Counts and hashes what arrives, and refuses what was not asked for. What it lets pass is bounded by what was asked for,
/// because an answer that is not streamed is kept whole.
#[derive(Debug, Clone)]
pub(crate) struct Tally {
    hasher: ResponseHasher,
    /// Units of input that the provider counted; zero until it has.
    input: u64,
    output: u64,
    max_input: u64,
    max_output: u64,
    /// Vectors or tensors that may still come.
    pieces: usize,
    /// Bytes of text.
    text: u64,
    /// Pieces with text and no token.
    bare: u64,
    /// Pieces with nothing.
    empty: u64,
    /// Values of all vectors.
    values: usize,
    any: bool,
    logprobs: Logprobs,
    calls: Calls,
}

/// What a provider sent that was not asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Unasked(pub(crate) &'static str);

impl Tally {
    pub(crate) fn new(job: &Job, max_input: u64) -> Self {
        Self {
            hasher: ResponseHasher::new(),
            input: 0,
            output: 0,
            max_input,
            max_output: job.max_output(),
            pieces: match job {
                Job::Chat { .. } | Job::Completion { .. } => 0,
                Job::Embedding { inputs } => inputs.len(),
                Job::Predict { .. } => 1,
            },
            text: 0,
            bare: 0,
            empty: 0,
            values: 0,
            any: false,
            logprobs: Logprobs::of(job),
            calls: Calls::of(job),
        }
    }

    /// Notes the provider's count of the input.
    pub(crate) fn accept(&mut self, input: u64) -> Result<(), Unasked> {
        if input > self.max_input {
            return Err(Unasked("it counts more input than there can be"));
        }
        self.input = input;
        Ok(())
    }

    /// Notes a piece of the answer. Returns whether there is anything in it to pass on.
    pub(crate) fn take(&mut self, output: &Output) -> Result<bool, Unasked> {
        let units = self.output.saturating_add(output.units());
        match output {
            Output::Tokens { ids, text, logprobs } => {
                if self.max_output == 0 {
                    return Err(Unasked("it sent tokens, and none were asked for"));
                }
                if units > self.max_output {
                    return Err(Unasked("it sent more tokens than were asked for"));
                }
                self.logprobs.take(ids.len(), logprobs)?;
                self.take_text(text.len(), ids.is_empty(), units)?;
                if ids.is_empty() && text.is_empty() {
                    return Ok(false);
                }
            }
            Output::Embedding { vector, .. } => {
                self.values = self.values.saturating_add(vector.len());
                if vector.len() > MAX_VECTOR || self.values > MAX_VALUES {
                    return Err(Unasked("it sent a longer vector than any model has"));
                }
                self.take_result()?;
            }
            Output::Tensors(_) => self.take_result()?,
            Output::ToolCall { index, name, arguments } => {
                self.calls.take(*index, name)?;
                // Whether the arguments are JSON is for whoever calls the tool to see: an answer that ends early is not.
                self.take_text(name.len().saturating_add(arguments.len()), true, units)?;
                if name.is_empty() && arguments.is_empty() {
                    return Ok(false);
                }
            }
        }
        self.output = units;
        self.any = true;
        self.hasher.update(output);
        Ok(true)
    }

    /// Bounds text by the tokens so far: text without tokens would be free for the provider and not for the client.
    fn take_text(&mut self, length: usize, alone: bool, tokens: u64) -> Result<(), Unasked> {
        let room = tokens.saturating_add(SLACK);
        self.text = self.text.saturating_add(u64::try_from(length).unwrap_or(u64::MAX));
        if self.text > room.saturating_mul(TEXT_PER_TOKEN) {
            return Err(Unasked("it sent more text than its tokens can stand for"));
        }
        if alone && length == 0 {
            self.empty += 1;
        } else if alone {
            self.bare += 1;
        }
        if self.empty > MAX_EMPTY || self.bare > room {
            return Err(Unasked("it sent pieces without tokens again and again"));
        }
        Ok(())
    }

    fn take_result(&mut self) -> Result<(), Unasked> {
        let left = self.pieces.checked_sub(1);
        self.pieces = left.ok_or(Unasked("it sent more results than were asked for"))?;
        Ok(())
    }

    /// Units that arrived. The input is the provider's count, which [`Self::accept`] bounded.
    pub(crate) fn usage(&self) -> Usage {
        Usage {
            input: self.input,
            output: self.output,
        }
    }

    /// Whether anything arrived.
    pub(crate) fn any(&self) -> bool {
        self.any
    }

    /// The hash of what arrived.
    pub(crate) fn hash(&self) -> Digest {
        self.hasher.finish()
    }
}

#[cfg(test)]
mod tests {
    use rialto_protocol::job::{Generation, Message, Tensor, Tool, Tools};

    use super::*;

    fn tokens(ids: usize) -> Output {
        Output::Tokens {
            text: "x".into(),
            ids: vec![1; ids],
            logprobs: vec![],
        }
    }

    #[test]
    fn more_than_was_asked_for_is_refused() {
        let job = Job::Completion {
            prompt: "to be".into(),
            generation: Generation {
                max_tokens: 3,
                ..Generation::default()
            },
        };
        let mut tally = Tally::new(&job, job.max_input());
        assert!(tally.accept(job.max_input() + 1).is_err());
        tally.accept(4).unwrap();
        tally.take(&tokens(2)).unwrap();
        assert_eq!(tally.usage(), Usage { input: 4, output: 2 });
        assert!(tally.take(&tokens(2)).is_err());
        assert!(tally.take(&Output::Tensors(Vec::new())).is_err());
    }

    #[test]
    fn a_prediction_comes_once_and_has_no_tokens() {
        let job = Job::Predict {
            inputs: Vec::<Tensor>::new(),
            outputs: Vec::new(),
        };
        let mut tally = Tally::new(&job, job.max_input());
        assert!(!tally.any());
        tally.take(&Output::Tensors(Vec::new())).unwrap();
        assert!(tally.any());
        assert!(tally.take(&Output::Tensors(Vec::new())).is_err());
        assert!(Tally::new(&job, job.max_input()).take(&tokens(0)).is_err());
    }

    fn completion(max_tokens: u64) -> Tally {
        let job = Job::Completion {
            prompt: "to be".into(),
            generation: Generation {
                max_tokens,
                ..Generation::default()
            },
        };
        Tally::new(&job, job.max_input())
    }

    fn text(text: &str) -> Output {
        Output::Tokens {
            text: text.into(),
            ids: Vec::new(),
            logprobs: Vec::new(),
        }
    }

    #[test]
    fn text_that_no_token_stands_for_is_bounded_over_the_whole_answer() {
        let mut tally = completion(100);
        let half = "x".repeat(32 << 10);
        assert_eq!(tally.take(&text(&half)), Ok(true));
        assert_eq!(tally.take(&text(&half)), Ok(true));
        assert!(tally.clone().take(&text("x")).is_err());
        // A token makes room for its own text.
        tally.take(&tokens(1)).unwrap();
        tally.take(&text("x")).unwrap();
        let mut tally = completion(100);
        for _ in 0..64 {
            tally.take(&text("x")).unwrap();
        }
        assert!(tally.take(&text("x")).is_err());
    }

    #[test]
    fn a_few_empty_pieces_are_ignored_and_many_are_refused() {
        let mut tally = completion(100);
        for _ in 0..16 {
            assert_eq!(tally.take(&text("")), Ok(false));
        }
        assert!(!tally.any());
        assert!(tally.take(&text("")).is_err());
    }

    #[test]
    fn a_vector_has_a_greatest_length() {
        let job = Job::Embedding {
            inputs: vec!["a".into(); 2],
        };
        let vector = |length| Output::Embedding {
            index: 0,
            vector: vec![0.5; length],
        };
        let mut tally = Tally::new(&job, job.max_input());
        tally.take(&vector(65_536)).unwrap();
        assert!(tally.take(&vector(65_537)).is_err());
    }

    #[test]
    fn calls_and_log_probabilities_are_counted_with_the_answer() {
        let tool = Tool {
            name: "look".into(),
            ..Tool::default()
        };
        let job = Job::Chat {
            messages: vec![Message::text("user", "hi")],
            tools: Tools {
                offered: vec![tool],
                ..Tools::default()
            },
            generation: Generation {
                logprobs: Some(0),
                ..Generation::default()
            },
        };
        let call = |name: &str, arguments: String| Output::ToolCall {
            index: 0,
            name: name.into(),
            arguments,
        };
        let mut tally = Tally::new(&job, job.max_input());
        assert!(tally.clone().take(&tokens(1)).is_err(), "no log-probability");
        assert_eq!(tally.take(&call("look", String::new())), Ok(true));
        let before = tally.hash();
        // What is no JSON is passed on, and an empty piece is not.
        assert_eq!(tally.take(&call("", "{\"at".into())), Ok(true));
        assert_ne!(tally.hash(), before);
        assert_eq!(tally.take(&call("", String::new())), Ok(false));
        assert_eq!(tally.usage().output, 0);
        assert!(tally.clone().take(&call("", "x".repeat(64 << 10))).is_err());
        assert!(completion(100).take(&call("look", String::new())).is_err());
    }
}
