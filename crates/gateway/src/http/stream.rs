//! A streamed answer as server-sent events.

use std::{collections::VecDeque, sync::Arc};

use bytes::Bytes;
use futures::{StreamExt as _, stream::BoxStream};
use rialto_api::openai::ToolCallDelta;
use rialto_protocol::output::{Output, TokenLogprob};

use super::{
    answer::{Source, finish_reason},
    error,
    said::{call_id, check_calls},
    script::Script,
    serving::Presence,
};
use crate::{
    Error,
    buying::{Bill, Purchase},
    desk::Desk,
    trade::Event,
};

struct Playing {
    desk: Arc<Desk>,
    purchase: Purchase,
    presence: Presence,
    script: Script,
    waiting: VecDeque<Bytes>,
    /// Log-probabilities that no piece has told yet.
    untold: Vec<TokenLogprob>,
    ended: bool,
    begun: bool,
    called: bool,
}

/// The events of a purchase. Dropping the stream cancels the purchase.
pub(crate) fn events(
    desk: Arc<Desk>,
    purchase: Purchase,
    presence: Presence,
    script: Script,
) -> BoxStream<'static, Bytes> {
    let playing = Playing {
        desk,
        purchase,
        presence,
        waiting: script.opening().map(Bytes::from).into_iter().collect(),
        script,
        untold: Vec::new(),
        ended: false,
        begun: false,
        called: false,
    };
    futures::stream::unfold(playing, async |mut playing| {
        let bytes = playing.next().await?;
        Some((bytes, playing))
    })
    .boxed()
}

impl Playing {
    async fn next(&mut self) -> Option<Bytes> {
        loop {
            if let Some(bytes) = self.waiting.pop_front() {
                return Some(bytes);
            }
            if self.ended {
                return None;
            }
            let event = self.purchase.next().await;
            self.take(event);
        }
    }

    fn take(&mut self, event: Option<Event>) {
        match event {
            Some(Event::Accepted { .. }) => {}
            Some(Event::Output(output)) => self.output(output),
            Some(Event::Finished(bill)) => self.finish(&bill),
            Some(Event::Failed { error, .. }) => self.fail(&error),
            None => self.fail(&Error::Stopping),
        }
    }

    fn output(&mut self, output: Output) {
        if !self.begun {
            self.begun = true;
            self.presence.first_output();
        }
        match output {
            Output::Tokens { text, logprobs, .. } => {
                self.untold.extend(logprobs);
                // Tokens whose text is still incomplete have nothing to show.
                if !text.is_empty() {
                    let piece = self.script.text(&text, &mut self.untold);
                    self.waiting.push_back(piece.into());
                }
            }
            Output::ToolCall { index, .. } if index > 0 && !self.script.parallel => {}
            Output::ToolCall { index, name, arguments } => self.call(index, name, arguments),
            Output::Embedding { .. } | Output::Tensors(_) => self.fail(&Error::ProviderFailed {
                reason: "it sent something else than text".into(),
                charged: true,
            }),
        }
    }

    /// A call is announced by its name alone, as clients are used to.
    fn call(&mut self, index: u32, name: String, arguments: String) {
        self.called = true;
        let begin = (!name.is_empty()).then(|| ToolCallDelta::begin(index, call_id(), name));
        let more = (!arguments.is_empty()).then(|| ToolCallDelta::more(index, arguments));
        for delta in begin.into_iter().chain(more) {
            let piece = self.script.call(delta, &mut self.untold);
            self.waiting.push_back(piece.into());
        }
    }

    fn finish(&mut self, bill: &Bill) {
        self.desk.metrics.bill(bill);
        let reason = finish_reason(bill).and_then(|reason| check_calls(bill, self.called).map(|()| reason));
        match reason {
            Ok(reason) => {
                let usage = Source::of(&self.purchase).usage(bill, true);
                let closing = self.script.closing(reason, usage, &mut self.untold);
                self.waiting.push_back(closing.into());
                self.presence.ended("ok");
                self.ended = true;
            }
            Err(error) => self.fail(&error),
        }
    }

    /// An error event ends the stream; without `[DONE]` nobody takes the answer for whole.
    fn fail(&mut self, error: &Error) {
        tracing::info!(%error, "a stream failed");
        self.waiting.push_back(error::event(error).into());
        self.presence.ended(error.public().code);
        self.ended = true;
    }
}
