//! One answer on its way: its prompt, what was sampled, and what may be given out.

use llama_cpp_2::{token::LlamaToken, vocab::LlamaVocab};
use rialto_engine::{Ending, Error, Piece, Scope, TextStream};
use rialto_protocol::{
    fingerprint::{Fingerprint, Mark},
    job::Generation,
    output::{FinishReason, Output, TokenLogprob},
    sampler::{Allowed, Sampler},
};
use tokio::sync::{mpsc, watch};

use super::{
    grammar::Grammar,
    logprobs,
    tools::{Event, Reader},
};

/// Pieces that may wait for a slow reader.
pub(super) const PIECES: usize = 64;

/// Free places that a token needs: for itself, for text that was held back, and for the end.
const ROOM: usize = 3;

/// Calls of tools in one answer; there is room for them all at once. What is more is cut.
const MOST_CALLS: u32 = 32;

/// A request to generate.
#[derive(Debug)]
pub(super) struct Request {
    /// At least one token, and room in the context for one more.
    pub(super) prompt: Vec<LlamaToken>,
    pub(super) generation: Generation,
    /// Most tokens that both the request and the context allow.
    pub(super) max_output: u64,
    /// Whose prompts it may share memory with.
    pub(super) scope: Scope,
    /// The form that the answer has to have.
    pub(super) grammar: Option<Grammar>,
    /// Turns tokens into text.
    pub(super) text: TextStream,
    /// Finds calls of tools, where some were offered.
    pub(super) calls: Option<Reader>,
    /// Units of output that are paid for.
    pub(super) grant: watch::Receiver<u64>,
    pub(super) pieces: mpsc::Sender<Result<Piece, Error>>,
}

/// A token that was chosen and not given out: it waits for the grant, or for the reader.
#[derive(Debug)]
struct Chosen {
    token: LlamaToken,
    logprob: Option<TokenLogprob>,
}

/// An answer that has a slot.
#[derive(Debug)]
pub(super) struct Sequence {
    request: Request,
    /// Tokens of the prompt that the model has read.
    read: usize,
    /// Tokens in the model's memory, which is the position of the next.
    position: i32,
    sampler: Sampler,
    /// Tokens of the answer that came from elsewhere. Marks count from here, as the grant does.
    begun: u64,
    /// Tokens given out.
    output: u64,
    /// Calls given out.
    called: u32,
    next: Option<Chosen>,
    fingerprint: Fingerprint,
    cpu_micros: u64,
}

/// What a token adds to an answer. Control tokens are not shown, but those that stand around calls have to be seen by who
/// looks for calls.
pub(super) fn bytes(vocabulary: &LlamaVocab<'_>, token: LlamaToken, seeks_calls: bool) -> Vec<u8> {
    vocabulary.token_to_piece(token, seeks_calls, None)
}

/// What comes next for a sequence.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Turn {
    /// The model must read this token at this position.
    Decode(LlamaToken, i32),
    /// It waits for its grant or its reader.
    Blocked,
    /// It is over, and its slot is free.
    Ended,
}

impl Sequence {
    /// A sequence at its start; the model remembers so many tokens of its prompt.
    pub(super) fn new(request: Request, remembered: usize) -> Self {
        let sampler = Sampler::new(&request.generation);
        Self {
            begun: sampler.position(),
            sampler,
            read: remembered,
            position: i32::try_from(remembered).unwrap_or(i32::MAX),
            output: 0,
            called: 0,
            next: None,
            fingerprint: Fingerprint::default(),
            cpu_micros: 0,
            request,
        }
    }

    /// The next tokens of the prompt and the position of the first; nothing when it was read. Chunks are cut at the same
    /// places of a prompt whether it was remembered or not.
    pub(super) fn chunk(&self, most: usize) -> Option<(&[LlamaToken], i32)> {
        let rest = self.request.prompt.get(self.read..)?;
        let chunk = rest.get(..most.min(rest.len()))?;
        (!chunk.is_empty()).then_some((chunk, self.position))
    }

    /// Notes that the model read tokens of the prompt. Says whether that was the last of them.
    pub(super) fn advance_prompt(&mut self, count: usize) -> bool {
        self.read = self.read.saturating_add(count);
        self.position = self.position.saturating_add(i32::try_from(count).unwrap_or(i32::MAX));
        self.read >= self.request.prompt.len()
    }

    /// Notes that the model read a token that was given out.
    pub(super) fn advance_output(&mut self) {
        self.position = self.position.saturating_add(1);
    }

    /// Adds processor time that was spent on it.
    pub(super) fn charge(&mut self, micros: u64) {
        self.cpu_micros = self.cpu_micros.saturating_add(micros);
    }

    /// Chooses the token after what was read. Says whether the answer goes on.
    pub(super) fn sample(&mut self, logits: &[f32], vocabulary: &LlamaVocab<'_>) -> bool {
        match self.choose(logits, vocabulary) {
            Ok(chosen) if vocabulary.is_eog(chosen.token) => {
                self.finish(FinishReason::Stop);
                false
            }
            Ok(chosen) => {
                self.next = Some(chosen);
                true
            }
            Err(error) => {
                self.fail(error);
                false
            }
        }
    }

    fn choose(&mut self, logits: &[f32], vocabulary: &LlamaVocab<'_>) -> Result<Chosen, Error> {
        let failed = |error: &dyn std::fmt::Display| Error::Failed(error.to_string());
        let place = self.sampler.position().saturating_sub(self.begun);
        let mask = self.request.grammar.as_mut().map(Grammar::mask).transpose()?;
        let allowed = mask.as_ref().map(|mask| Allowed(mask.bits()));
        let id = self.sampler.choose(logits, allowed).map_err(|error| failed(&error))?;
        if let Some(grammar) = &mut self.request.grammar {
            grammar.accept(id)?;
        }
        if Mark::is_due(place) {
            let place = u32::try_from(place).map_err(|error| failed(&error))?;
            self.fingerprint.marks.extend(Mark::of(place, logits));
        }
        let logprob = self.request.generation.logprobs;
        let logprob = logprob.and_then(|top| logprobs::of(id, logits, top, vocabulary));
        let token = LlamaToken(i32::try_from(id).map_err(|error| failed(&error))?);
        Ok(Chosen { token, logprob })
    }

    /// Whether nobody waits for this answer, or nobody pays for it any more. The end is told to whoever listens.
    pub(super) fn is_over(&mut self) -> bool {
        if self.request.pieces.is_closed() {
            return true;
        }
        if self.request.grant.has_changed().is_err() {
            self.finish(FinishReason::Cancelled);
            return true;
        }
        false
    }

    /// Gives out the sampled token if it is paid for and the reader keeps up.
    pub(super) fn turn(&mut self, vocabulary: &LlamaVocab<'_>) -> Turn {
        let paid = *self.request.grant.borrow_and_update() > self.output;
        if !paid || self.request.pieces.capacity() < self.room() {
            return Turn::Blocked;
        }
        let Some(Chosen { token, logprob }) = self.next.take() else {
            return Turn::Blocked;
        };
        self.output += 1;
        let mut added = self
            .request
            .text
            .push(&bytes(vocabulary, token, self.request.calls.is_some()));
        let last = self.output >= self.request.max_output;
        if last && !added.stopped {
            added.text.push_str(&self.request.text.finish());
        }
        let ids = vec![u32::try_from(token.0).unwrap_or_default()];
        self.give(added.text, ids, logprob.into_iter().collect());
        if added.stopped || last {
            self.end(if added.stopped {
                FinishReason::Stop
            } else {
                FinishReason::Length
            });
            return Turn::Ended;
        }
        Turn::Decode(token, self.position)
    }

    fn room(&self) -> usize {
        match self.request.calls {
            Some(_) => ROOM + usize::try_from(MOST_CALLS).unwrap_or_default(),
            None => ROOM,
        }
    }

    /// Whether a token was sampled that is not given out.
    pub(super) fn has_next(&self) -> bool {
        self.next.is_some()
    }

    /// Waits until the reason for being blocked may be gone.
    pub(super) async fn unblocked(&mut self) {
        let room = self.room();
        let (pieces, grant) = (&self.request.pieces, &mut self.request.grant);
        // The reader or the payer may have moved since the sequence was found blocked, so what it waits for follows
        // from the grant alone: waiting for room that is already there, or for a grant that has grown, ends at once.
        let paid = *grant.borrow() > self.output;
        if paid {
            tokio::select! {
                _ = pieces.reserve_many(room) => {}
                _ = grant.changed() => {}
            }
        } else {
            tokio::select! {
                () = pieces.closed() => {}
                _ = grant.changed() => {}
            }
        }
    }

    /// Tells the reader that the answer failed.
    pub(super) fn fail(&self, error: Error) {
        self.send(Err(error));
    }

    /// Gives out text that waits for nothing any more, and ends.
    fn finish(&mut self, reason: FinishReason) {
        let text = self.request.text.finish();
        self.give(text, vec![], vec![]);
        self.end(reason);
    }

    /// Sends tokens, and what their text turned out to be.
    fn give(&mut self, text: String, ids: Vec<u32>, logprobs: Vec<TokenLogprob>) {
        let events = match &mut self.request.calls {
            Some(reader) => reader.push(&text),
            None => vec![Event::Text(text)],
        };
        self.tell(events, ids, logprobs);
    }

    fn tell(&mut self, events: Vec<Event>, mut ids: Vec<u32>, mut logprobs: Vec<TokenLogprob>) {
        for event in events {
            let output = match event {
                Event::Text(text) => Output::Tokens {
                    text,
                    ids: std::mem::take(&mut ids),
                    logprobs: std::mem::take(&mut logprobs),
                },
                Event::Call(_) if self.called >= MOST_CALLS => continue,
                Event::Call(call) => {
                    // The tokens that made the call were given out before it.
                    self.tell_tokens(&mut ids, &mut logprobs);
                    let index = self.called;
                    self.called += 1;
                    Output::ToolCall {
                        index,
                        name: call.name,
                        arguments: call.arguments,
                    }
                }
            };
            if !matches!(&output, Output::Tokens { text, ids, .. } if text.is_empty() && ids.is_empty()) {
                self.send(Ok(Piece::Output(output)));
            }
        }
        self.tell_tokens(&mut ids, &mut logprobs);
    }

    /// Sends tokens that have no text of their own.
    fn tell_tokens(&self, ids: &mut Vec<u32>, logprobs: &mut Vec<TokenLogprob>) {
        if !ids.is_empty() {
            self.send(Ok(Piece::Output(Output::Tokens {
                text: String::new(),
                ids: std::mem::take(ids),
                logprobs: std::mem::take(logprobs),
            })));
        }
    }

    fn end(&mut self, reason: FinishReason) {
        if let Some(reader) = &mut self.request.calls {
            let events = reader.finish();
            self.tell(events, vec![], vec![]);
        }
        let reason = match reason {
            FinishReason::Stop if self.called > 0 => FinishReason::ToolCalls,
            reason => reason,
        };
        // A place whose token was not given out is no part of the answer.
        let mut fingerprint = std::mem::take(&mut self.fingerprint);
        fingerprint.marks.retain(|mark| u64::from(mark.position) < self.output);
        self.send(Ok(Piece::Finished(Ending {
            reason,
            cpu_micros: self.cpu_micros,
            fingerprint,
        })));
    }

    fn send(&self, piece: Result<Piece, Error>) {
        // There is room, because a token is only given out when there is; a reader that left is noticed elsewhere.
        let _ = self.request.pieces.try_send(piece);
    }
}
