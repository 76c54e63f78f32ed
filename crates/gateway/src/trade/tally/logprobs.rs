//! Log-probabilities: one for each token if they were asked for, and numbers that can be true.

use rialto_protocol::{job::Job, output::TokenLogprob};

use super::Unasked;

/// Bytes of a token on average over an answer, at most; texts of vocabularies have a tenth of it.
const MEAN_BYTES: u64 = 64;

/// Bytes of one token, at most.
const MAX_BYTES: usize = 1_024;

/// What was asked for, and what came.
#[derive(Debug, Clone, Default)]
pub(super) struct Logprobs {
    /// Alternatives that were asked for; `None` for no log-probabilities.
    top: Option<u8>,
    /// Tokens that were told, alternatives included.
    told: u64,
    /// Their bytes.
    bytes: u64,
}

impl Logprobs {
    pub(super) fn of(job: &Job) -> Self {
        let top = match job {
            Job::Chat { generation, .. } | Job::Completion { generation, .. } => generation.logprobs,
            Job::Embedding { .. } | Job::Predict { .. } => None,
        };
        Self { top, ..Self::default() }
    }

    /// Notes what was told with so many tokens.
    pub(super) fn take(&mut self, tokens: usize, told: &[TokenLogprob]) -> Result<(), Unasked> {
        let Some(top) = self.top else {
            return match told {
                [] => Ok(()),
                _ => Err(Unasked("it sent log-probabilities that were not asked for")),
            };
        };
        if told.len() != tokens {
            return Err(Unasked("it did not send one log-probability for each token"));
        }
        told.iter().try_for_each(|token| self.token(token, top))
    }

    fn token(&mut self, token: &TokenLogprob, top: u8) -> Result<(), Unasked> {
        if token.top.len() > usize::from(top) {
            return Err(Unasked("it sent more alternatives than were asked for"));
        }
        self.one(&token.bytes, token.logprob)?;
        let mut before = 0.0;
        for other in &token.top {
            self.one(&other.bytes, other.logprob)?;
            if other.logprob > before {
                return Err(Unasked("it did not send the likeliest alternative first"));
            }
            before = other.logprob;
        }
        Ok(())
    }

    fn one(&mut self, bytes: &[u8], logprob: f32) -> Result<(), Unasked> {
        // Not a number compares with nothing.
        if !(f32::NEG_INFINITY..=0.0).contains(&logprob) {
            return Err(Unasked("it sent a log-probability that no token can have"));
        }
        self.told = self.told.saturating_add(1);
        self.bytes = self
            .bytes
            .saturating_add(u64::try_from(bytes.len()).unwrap_or(u64::MAX));
        let room = self.told.saturating_mul(MEAN_BYTES).saturating_add(16 << 10);
        if bytes.len() > MAX_BYTES || self.bytes > room {
            return Err(Unasked("it sent longer tokens than any model has"));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use rialto_protocol::{job::Generation, output::Alternative};

    use super::*;

    fn asked(logprobs: Option<u8>) -> Logprobs {
        Logprobs::of(&Job::Completion {
            prompt: "to be".into(),
            generation: Generation {
                logprobs,
                ..Generation::default()
            },
        })
    }

    fn token(logprob: f32, others: &[f32]) -> TokenLogprob {
        let top = others.iter().map(|logprob| Alternative {
            id: 1,
            bytes: b"b".to_vec(),
            logprob: *logprob,
        });
        TokenLogprob {
            bytes: b"a".to_vec(),
            logprob,
            top: top.collect(),
        }
    }

    #[test]
    fn each_token_has_one_and_none_unless_asked() {
        let told = [token(-1.0, &[]), token(0.0, &[])];
        asked(None).take(2, &[]).unwrap();
        assert!(asked(None).take(2, &told).is_err());
        asked(Some(0)).take(2, &told).unwrap();
        for tokens in [0, 1, 3] {
            assert!(asked(Some(0)).take(tokens, &told).is_err(), "{tokens}");
        }
        assert!(asked(Some(0)).take(1, &[]).is_err());
    }

    #[test]
    fn alternatives_are_as_many_as_asked_for_and_the_likeliest_comes_first() {
        let likely = token(-3.0, &[-0.5, -0.5, -2.0]);
        asked(Some(3)).take(1, std::slice::from_ref(&likely)).unwrap();
        assert!(asked(Some(2)).take(1, &[likely]).is_err());
        assert!(asked(Some(3)).take(1, &[token(-3.0, &[-2.0, -0.5])]).is_err());
    }

    #[test]
    fn a_number_that_is_no_log_probability_is_refused() {
        for wrong in [0.1, f32::NAN, f32::INFINITY] {
            assert!(asked(Some(1)).take(1, &[token(wrong, &[])]).is_err(), "{wrong}");
            assert!(asked(Some(1)).take(1, &[token(-1.0, &[wrong])]).is_err(), "{wrong}");
        }
        // A vocabulary may have tokens that can never be.
        asked(Some(1)).take(1, &[token(-1.0, &[f32::NEG_INFINITY])]).unwrap();
    }

    #[test]
    fn tokens_have_a_greatest_length_and_a_greatest_mean() {
        let long = |length| TokenLogprob {
            bytes: vec![b'x'; length],
            logprob: -1.0,
            top: vec![],
        };
        let mut told = asked(Some(0));
        assert!(told.clone().take(1, &[long(1_025)]).is_err());
        for _ in 0..17 {
            told.take(1, &[long(1_024)]).unwrap();
        }
        assert!(told.take(1, &[long(1_024)]).is_err());
    }
}
