//! What arrived, counted by the buyer itself: the bill may not be over more.

use rialto_protocol::{
    Digest, Usage,
    job::Job,
    output::{Output, ResponseHasher},
};

/// Counts and hashes what arrives, and refuses what was not asked for.
#[derive(Debug)]
pub(crate) struct Tally {
    hasher: ResponseHasher,
    /// Units of input that the provider counted; zero until it has.
    input: u64,
    output: u64,
    max_input: u64,
    max_output: u64,
    /// Vectors or tensors that may still come.
    pieces: usize,
    any: bool,
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
            any: false,
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

    /// Notes a piece of the answer.
    pub(crate) fn take(&mut self, output: &Output) -> Result<(), Unasked> {
        match output {
            Output::Tokens { ids, text } => {
                if self.max_output == 0 {
                    return Err(Unasked("it sent tokens, and none were asked for"));
                }
                // Bounded by bytes too: text without tokens would be free for the provider and not for the client.
                if text.len() > (ids.len() + 64).saturating_mul(1_024) {
                    return Err(Unasked("it sent more text than its tokens can stand for"));
                }
            }
            Output::Embedding { .. } | Output::Tensors(_) => {
                self.pieces = self
                    .pieces
                    .checked_sub(1)
                    .ok_or(Unasked("it sent more results than were asked for"))?;
            }
        }
        self.output = self.output.saturating_add(output.units());
        if self.output > self.max_output {
            return Err(Unasked("it sent more tokens than were asked for"));
        }
        self.any = true;
        self.hasher.update(output);
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
    use rialto_protocol::job::{Generation, Tensor};

    use super::*;

    fn tokens(ids: usize) -> Output {
        Output::Tokens {
            text: "x".into(),
            ids: vec![1; ids],
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
}
