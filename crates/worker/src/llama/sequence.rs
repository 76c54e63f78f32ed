//! One answer on its way: its prompt, what was sampled, and what may be given out.

use llama_cpp_2::{token::LlamaToken, vocab::LlamaVocab};
use rialto_protocol::{
    job::Generation,
    output::{FinishReason, Output},
    sampler::Sampler,
};
use tokio::sync::{mpsc, watch};

use rialto_engine::{Error, Piece, TextStream};

/// Pieces that may wait for a slow reader.
pub(super) const PIECES: usize = 64;

/// Free places that a token needs: for itself, for text that was held back, and for the end.
const ROOM: usize = 3;

/// A request to generate.
#[derive(Debug)]
pub(super) struct Request {
    /// At least one token, and room in the context for one more.
    pub(super) prompt: Vec<LlamaToken>,
    pub(super) generation: Generation,
    /// Most tokens that both the request and the context allow.
    pub(super) max_output: u64,
    /// Units of output that are paid for.
    pub(super) grant: watch::Receiver<u64>,
    pub(super) pieces: mpsc::Sender<Result<Piece, Error>>,
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
    text: TextStream,
    /// Tokens given out.
    output: u64,
    /// Sampled and not given out: it waits for the grant, or for the reader.
    next: Option<LlamaToken>,
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
    /// A sequence at its start.
    pub(super) fn new(request: Request) -> Self {
        Self {
            sampler: Sampler::new(&request.generation),
            text: TextStream::new(request.generation.stop.clone()),
            read: 0,
            position: 0,
            output: 0,
            next: None,
            request,
        }
    }

    /// The next tokens of the prompt and the position of the first; nothing when it was read.
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

    /// Chooses the token after what was read. Says whether the answer goes on.
    pub(super) fn sample(&mut self, logits: &[f32], vocabulary: &LlamaVocab<'_>) -> bool {
        let chosen = self.sampler.choose(logits, None);
        let token = chosen
            .map_err(|error| error.to_string())
            .and_then(|id| i32::try_from(id).map_err(|error| error.to_string()));
        match token.map(LlamaToken) {
            Ok(token) if vocabulary.is_eog(token) => {
                self.finish(FinishReason::Stop);
                false
            }
            Ok(token) => {
                self.next = Some(token);
                true
            }
            Err(error) => {
                self.fail(Error::Failed(error));
                false
            }
        }
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
        if !paid || self.request.pieces.capacity() < ROOM {
            return Turn::Blocked;
        }
        let Some(token) = self.next.take() else {
            return Turn::Blocked;
        };
        self.output += 1;
        let mut added = self.text.push(&vocabulary.token_to_piece(token, false, None));
        let last = self.output >= self.request.max_output;
        if last && !added.stopped {
            added.text.push_str(&self.text.finish());
        }
        let ids = vec![u32::try_from(token.0).unwrap_or_default()];
        let text = added.text;
        self.send(Ok(Piece::Output(Output::Tokens {
            text,
            ids,
            logprobs: vec![],
        })));
        if added.stopped || last {
            let reason = if added.stopped {
                FinishReason::Stop
            } else {
                FinishReason::Length
            };
            self.send(Ok(Piece::Finished(reason.into())));
            return Turn::Ended;
        }
        Turn::Decode(token, self.position)
    }

    /// Whether a token was sampled that is not given out.
    pub(super) fn has_next(&self) -> bool {
        self.next.is_some()
    }

    /// Waits until the reason for being blocked may be gone.
    pub(super) async fn unblocked(&mut self) {
        let (pieces, grant) = (&self.request.pieces, &mut self.request.grant);
        // The reader or the payer may have moved since the sequence was found blocked, so what it waits for follows
        // from the grant alone: waiting for room that is already there, or for a grant that has grown, ends at once.
        let paid = *grant.borrow() > self.output;
        if paid {
            tokio::select! {
                _ = pieces.reserve_many(ROOM) => {}
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

    fn finish(&mut self, reason: FinishReason) {
        let text = self.text.finish();
        if !text.is_empty() {
            self.send(Ok(Piece::Output(Output::Tokens {
                text,
                ids: vec![],
                logprobs: vec![],
            })));
        }
        self.send(Ok(Piece::Finished(reason.into())));
    }

    fn send(&self, piece: Result<Piece, Error>) {
        // There is room, because a token is only given out when there is; a reader that left is noticed elsewhere.
        let _ = self.request.pieces.try_send(piece);
    }
}
