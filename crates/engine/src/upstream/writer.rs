//! Giving an answer out: piece by piece, never more than is granted, text never before its tokens are paid for.

use rialto_protocol::{
    fingerprint::{Fingerprint, Mark, WIDTH},
    job::{Job, ToolChoice},
    output::{FinishReason, Output, TokenLogprob},
};
use tokio::sync::{mpsc, watch};

use super::{
    Shared,
    call::Trouble,
    count::{Meter, Suspicion},
    delta::{CallDelta, Delta, Token},
    tokens::Input,
};
use crate::{Ending, Error, Piece, TextStream};

/// Most bytes of text that a token stands for, with [`SLACK`] tokens of room: a buyer's gateway counts the same.
const TEXT_PER_TOKEN: u64 = 1_024;

/// Tokens by which text may be ahead.
const SLACK: u64 = 64;

/// Why an answer ends before the server ends it.
#[derive(Debug)]
pub(super) enum End {
    /// Whoever pays is gone.
    Revoked,
    /// Something failed.
    Failed(Error),
}

impl From<Error> for End {
    fn from(error: Error) -> Self {
        Self::Failed(error)
    }
}

/// Where an answer goes.
pub(super) struct Writer<'a> {
    shared: &'a Shared,
    grant: watch::Receiver<u64>,
    sender: &'a mpsc::Sender<Result<Piece, Error>>,
    meter: Meter,
    text: TextStream,
    /// Text whose tokens were not given out.
    held: String,
    held_calls: Vec<CallDelta>,
    /// Bytes of text and calls.
    bytes: u64,
    /// Tools that may be called.
    tools: Vec<String>,
    /// Whether one has to be.
    demanded: bool,
    calls: u32,
    /// Alternatives that the buyer wants to read with each token.
    wanted: Option<u8>,
    fingerprint: Fingerprint,
    prompt: Option<u64>,
}

impl<'a> Writer<'a> {
    pub(super) fn new(
        shared: &'a Shared,
        job: &Job,
        limit: u64,
        grant: watch::Receiver<u64>,
        sender: &'a mpsc::Sender<Result<Piece, Error>>,
    ) -> Self {
        let generation = match job {
            Job::Chat { generation, .. } | Job::Completion { generation, .. } => Some(generation),
            Job::Embedding { .. } | Job::Predict { .. } => None,
        };
        let tools = match job {
            Job::Chat { tools, .. } if tools.choice != ToolChoice::Never => tools.offered.iter(),
            _ => [].iter(),
        };
        Self {
            shared,
            grant,
            sender,
            meter: Meter::new(limit, shared.is_distrusted()),
            text: TextStream::new(generation.map_or_else(Vec::new, |generation| generation.stop.clone())),
            held: String::new(),
            held_calls: Vec::new(),
            bytes: 0,
            tools: tools.map(|tool| tool.name.clone()).collect(),
            demanded: matches!(job, Job::Chat { tools, .. }
                if matches!(tools.choice, ToolChoice::Required | ToolChoice::Named(_))),
            calls: 0,
            wanted: generation.and_then(|generation| generation.logprobs),
            fingerprint: Fingerprint::default(),
            prompt: None,
        }
    }

    /// Whether everything that was asked for was given out.
    pub(super) fn is_full(&self) -> bool {
        self.meter.is_full()
    }

    /// Takes what is new and gives out what is paid for. Returns why the answer ends here, if it does.
    pub(super) async fn take(&mut self, mut delta: Delta) -> Result<Option<FinishReason>, End> {
        let visible = u64::try_from(delta.visible()).unwrap_or(u64::MAX);
        self.bytes = self.bytes.saturating_add(visible);
        self.prompt = delta.usage.and_then(|usage| usage.prompt).or(self.prompt);
        if self.wanted.is_some() && visible > 0 && delta.tokens.is_empty() {
            return Err(self.odd("no log-probabilities came, and they were asked for"));
        }
        self.meter.add(&mut delta);
        for call in delta.calls {
            self.check(&call)?;
            self.held_calls.push(call);
        }
        let added = self.text.push(delta.text.as_bytes());
        self.held.push_str(&added.text);
        self.give().await?;
        if added.stopped {
            return Ok(Some(FinishReason::Stop));
        }
        if self.meter.is_over() {
            self.shared
                .suspect(Suspicion::Excess, "it sends more tokens than were asked for");
            return Ok(Some(FinishReason::Length));
        }
        Ok(None)
    }

    /// Ends the answer: what was held back is given out, and the server's counts are compared.
    pub(super) async fn finish(mut self, reason: FinishReason, input: Input) -> Result<Ending, End> {
        self.give().await?;
        if self.meter.was_told_less() {
            self.shared.distrust("its usage tells fewer tokens than it sent");
        }
        if input.exact && self.prompt.is_some_and(|prompt| prompt != input.units) {
            self.shared.suspect(
                Suspicion::Input,
                "its usage and its tokenizer count a prompt differently",
            );
        }
        self.held.push_str(&self.text.finish());
        self.check_text(self.meter.given())?;
        if !self.held.is_empty() {
            let text = std::mem::take(&mut self.held);
            self.send(Output::Tokens {
                text,
                ids: vec![],
                logprobs: vec![],
            })
            .await;
        }
        self.give_calls().await;
        if self.demanded && self.calls == 0 && reason == FinishReason::Stop {
            self.shared
                .suspect(Suspicion::Odd, "it calls no tool, and one was demanded");
        }
        let reason = match (reason, self.calls) {
            (FinishReason::ToolCalls, 0) => FinishReason::Stop,
            (FinishReason::Stop, 1..) => FinishReason::ToolCalls,
            (reason, _) => reason,
        };
        Ok(Ending {
            reason,
            cpu_micros: 0,
            fingerprint: self.fingerprint,
        })
    }

    /// Gives out what is due, and waits where it is not paid for. Nothing is read from the server meanwhile.
    async fn give(&mut self) -> Result<(), End> {
        self.check_text(
            self.meter
                .given()
                .saturating_add(self.meter.due())
                .saturating_add(SLACK),
        )?;
        while self.meter.due() > 0 {
            let given = self.meter.given();
            let granted = self.grant.wait_for(|paid| *paid > given).await.map(|paid| *paid);
            let granted = granted.map_err(|_| End::Revoked)?;
            let (first, tokens) = self.meter.take(granted.saturating_sub(given));
            self.mark(first, &tokens);
            let is_last = self.meter.due() == 0;
            let text = if is_last {
                std::mem::take(&mut self.held)
            } else {
                String::new()
            };
            let output = self.output(text, tokens);
            self.send(output).await;
            if is_last {
                self.give_calls().await;
            }
        }
        Ok(())
    }

    async fn give_calls(&mut self) {
        for CallDelta { index, name, arguments } in std::mem::take(&mut self.held_calls) {
            self.send(Output::ToolCall { index, name, arguments }).await;
        }
    }

    fn output(&self, text: String, tokens: Vec<Token>) -> Output {
        let ids = tokens.iter().map(|token| token.id).collect();
        let logprobs = self.wanted.map_or_else(Vec::new, |wanted| {
            let told = tokens.into_iter().filter_map(|token| token.logprob);
            told.map(
                |TokenLogprob {
                     bytes,
                     logprob,
                     mut top,
                 }| {
                    top.truncate(usize::from(wanted));
                    TokenLogprob { bytes, logprob, top }
                },
            )
            .collect()
        });
        Output::Tokens { text, ids, logprobs }
    }

    /// Notes the likeliest tokens at the places that are marked. Ids that only we made would match no audit.
    fn mark(&mut self, first: u64, tokens: &[Token]) {
        for (position, token) in (first..).zip(tokens) {
            let Some(logprob) = &token.logprob else { continue };
            let (true, true, Ok(place)) = (token.told, Mark::is_due(position), u32::try_from(position)) else {
                continue;
            };
            let top: Vec<(u32, f32)> = logprob.top.iter().map(|one| (one.id, one.logprob)).collect();
            if let Some(top) = top.get(..WIDTH) {
                let (position, top) = (place, top.to_vec());
                self.fingerprint.marks.push(Mark { position, top });
            }
        }
    }

    /// Checks that a call is of a tool that was offered, and that calls come in order.
    fn check(&mut self, call: &CallDelta) -> Result<(), End> {
        let is_new = call.index == self.calls && self.tools.contains(&call.name);
        let is_next = call.name.is_empty() && call.index.checked_add(1) == Some(self.calls);
        if is_new {
            self.calls = self.calls.saturating_add(1);
        }
        if is_new || is_next {
            return Ok(());
        }
        Err(self.odd("it calls a tool that was not offered, or calls out of order"))
    }

    /// Text that no token stands for would be refused by the buyer.
    fn check_text(&self, tokens: u64) -> Result<(), End> {
        if self.bytes > tokens.saturating_add(SLACK).saturating_mul(TEXT_PER_TOKEN) {
            return Err(self.odd("it sends more text than its tokens can stand for"));
        }
        Ok(())
    }

    fn odd(&self, what: &'static str) -> End {
        self.shared.suspect(Suspicion::Odd, what);
        End::Failed(Trouble::odd(what).into())
    }

    async fn send(&self, output: Output) {
        // A reader that is gone is noticed by whoever runs this.
        let _ = self.sender.send(Ok(Piece::Output(output))).await;
    }
}
