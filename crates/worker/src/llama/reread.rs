//! Reading an answer again: one pass over prompt and answer, which says for each place how far the claimed token is from
//! the one that the seed picks, and what the model thought.

use llama_cpp_2::token::LlamaToken;
use rialto_engine::{Error, Replay};
use rialto_protocol::{
    fingerprint::{Fingerprint, Mark},
    job::Generation,
    sampler::{Allowed, Sampler},
};
use tokio::sync::oneshot;

use super::grammar::Grammar;

/// A request to read an answer again.
#[derive(Debug)]
pub(super) struct Request {
    /// As for the generation.
    pub(super) prompt: Vec<LlamaToken>,
    /// At least one token; all fit into the context.
    pub(super) answer: Vec<LlamaToken>,
    pub(super) generation: Generation,
    pub(super) grammar: Option<Grammar>,
    pub(super) reply: oneshot::Sender<Result<Replay, Error>>,
}

/// An answer that is being read again.
#[derive(Debug)]
pub(super) struct Rereading {
    /// What the model reads: the prompt, and the answer but its last token, after which nothing was chosen.
    tokens: Vec<LlamaToken>,
    answer: Vec<LlamaToken>,
    prompt: usize,
    read: usize,
    sampler: Sampler,
    grammar: Option<Grammar>,
    replay: Replay,
    reply: Option<oneshot::Sender<Result<Replay, Error>>>,
}

impl Rereading {
    pub(super) fn new(request: Request) -> Self {
        let prompt = request.prompt.len();
        let mut tokens = request.prompt;
        let all_but_last = request.answer.len().saturating_sub(1);
        tokens.extend(request.answer.iter().take(all_but_last));
        Self {
            tokens,
            prompt,
            read: 0,
            sampler: Sampler::new(&request.generation),
            grammar: request.grammar,
            replay: Replay {
                input_units: u64::try_from(prompt).unwrap_or(u64::MAX),
                margins: Vec::with_capacity(request.answer.len()),
                fingerprint: Fingerprint::default(),
            },
            answer: request.answer,
            reply: Some(request.reply),
        }
    }

    /// The next tokens, cut where generation cuts the prompt, and the position of the first.
    pub(super) fn chunk(&self, most: usize) -> Option<(&[LlamaToken], usize)> {
        let rest = self.tokens.get(self.read..)?;
        let chunk = rest.get(..most.min(rest.len()))?;
        (!chunk.is_empty()).then_some((chunk, self.read))
    }

    /// Whether the logits at this position choose a token of the answer.
    pub(super) fn chooses(&self, position: usize) -> bool {
        position.saturating_add(1) >= self.prompt
    }

    /// Judges the next token of the answer by the logits before it.
    pub(super) fn judge(&mut self, logits: &[f32]) -> Result<(), Error> {
        let failed = |error: &dyn std::fmt::Display| Error::Failed(error.to_string());
        let place = self.replay.margins.len();
        let Some(claimed) = self.answer.get(place) else {
            return Ok(());
        };
        let claimed = u32::try_from(claimed.0).map_err(|error| failed(&error))?;
        let mask = self.grammar.as_mut().map(Grammar::mask).transpose()?;
        let allowed = mask.as_ref().map(|mask| Allowed(mask.bits()));
        let margin = self
            .sampler
            .margin(logits, claimed, allowed)
            .map_err(|error| failed(&error))?;
        // A token that no grammar allows ends what the grammar can say; its margin is infinite, and so are the next.
        if let Some(grammar) = &mut self.grammar
            && allowed.is_none_or(|allowed| allowed.contains(claimed))
        {
            grammar.accept(claimed)?;
        }
        #[expect(
            clippy::cast_possible_truncation,
            reason = "single precision is enough for a distance"
        )]
        self.replay.margins.push(margin as f32);
        let place = u32::try_from(place).map_err(|error| failed(&error))?;
        self.replay.fingerprint.marks.extend(Mark::of(place, logits));
        Ok(())
    }

    /// Notes that tokens were read. Says whether those were the last.
    pub(super) fn advance(&mut self, count: usize) -> bool {
        self.read = self.read.saturating_add(count);
        self.read >= self.tokens.len()
    }

    /// Whether nobody waits for it any more.
    pub(super) fn is_over(&self) -> bool {
        self.reply.as_ref().is_none_or(oneshot::Sender::is_closed)
    }

    /// Tells what was found.
    pub(super) fn finish(&mut self, result: Result<(), Error>) {
        if let Some(reply) = self.reply.take() {
            let replay = std::mem::take(&mut self.replay);
            let _ = reply.send(result.map(|()| replay));
        }
    }
}
