//! A streamed answer as server-sent events.

use std::{collections::VecDeque, sync::Arc};

use bytes::Bytes;
use futures::{StreamExt as _, stream::BoxStream};
use rialto_api::{
    openai::{ChatChunk, ChatChunkChoice, ChatDelta, Completion, CompletionChoice, Usage},
    sse,
};
use rialto_protocol::output::Output;

use super::{
    answer::{Source, finish_reason},
    error,
    serving::Presence,
};
use crate::{
    Error,
    desk::{Bill, Desk, Purchase},
    trade::Event,
};

/// Which API the pieces belong to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Shape {
    Chat,
    Completion,
}

/// How a stream's pieces look.
#[derive(Debug, Clone)]
pub(crate) struct Script {
    pub(crate) shape: Shape,
    pub(crate) id: String,
    pub(crate) created: u64,
    pub(crate) model: String,
    pub(crate) include_usage: bool,
}

impl Script {
    fn chunk(&self, delta: ChatDelta, text: &str, finish: Option<&str>) -> String {
        match self.shape {
            Shape::Chat => self.chat(
                vec![ChatChunkChoice {
                    index: 0,
                    delta,
                    finish_reason: finish.map(str::to_owned),
                    logprobs: None,
                }],
                None,
            ),
            Shape::Completion => self.completion(
                vec![CompletionChoice {
                    index: 0,
                    text: text.to_owned(),
                    finish_reason: finish.map(str::to_owned),
                    logprobs: None,
                }],
                None,
            ),
        }
    }

    fn chat(&self, choices: Vec<ChatChunkChoice>, usage: Option<Usage>) -> String {
        sse::event(&ChatChunk {
            id: self.id.clone(),
            object: "chat.completion.chunk".into(),
            created: self.created,
            model: self.model.clone(),
            choices,
            usage,
        })
    }

    fn completion(&self, choices: Vec<CompletionChoice>, usage: Option<Usage>) -> String {
        sse::event(&Completion {
            id: self.id.clone(),
            object: "text_completion".into(),
            created: self.created,
            model: self.model.clone(),
            choices,
            usage,
        })
    }

    /// What comes before any text.
    fn opening(&self) -> Option<String> {
        let delta = ChatDelta {
            role: Some("assistant".into()),
            content: Some(String::new()),
        };
        (self.shape == Shape::Chat).then(|| self.chunk(delta, "", None))
    }

    fn piece(&self, text: &str) -> String {
        let delta = ChatDelta {
            role: None,
            content: Some(text.to_owned()),
        };
        self.chunk(delta, text, None)
    }

    fn closing(&self, reason: &str, usage: Usage) -> String {
        let mut text = self.chunk(ChatDelta::default(), "", Some(reason));
        if self.include_usage {
            text.push_str(&match self.shape {
                Shape::Chat => self.chat(Vec::new(), Some(usage)),
                Shape::Completion => self.completion(Vec::new(), Some(usage)),
            });
        }
        text.push_str(sse::DONE);
        text
    }
}

struct Playing {
    desk: Arc<Desk>,
    purchase: Purchase,
    presence: Presence,
    script: Script,
    source: Source,
    waiting: VecDeque<Bytes>,
    ended: bool,
    begun: bool,
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
        source: Source::of(&purchase),
        purchase,
        presence,
        waiting: script.opening().map(Bytes::from).into_iter().collect(),
        script,
        ended: false,
        begun: false,
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
            Some(Event::Output(Output::Tokens { text, .. })) => {
                if !self.begun {
                    self.begun = true;
                    self.presence.first_output();
                }
                // Tokens whose text is still incomplete have nothing to show.
                if !text.is_empty() {
                    self.waiting.push_back(self.script.piece(&text).into());
                }
            }
            Some(Event::Output(_)) => self.fail(&Error::ProviderFailed {
                reason: "it sent something else than text".into(),
                charged: true,
            }),
            Some(Event::Finished(bill)) => self.finish(&bill),
            Some(Event::Failed { error, .. }) => self.fail(&error),
            None => self.fail(&Error::Stopping),
        }
    }

    fn finish(&mut self, bill: &Bill) {
        self.desk.metrics.bill(bill);
        match finish_reason(bill) {
            Ok(reason) => {
                let usage = self.source.usage(bill, true);
                self.waiting.push_back(self.script.closing(reason, usage).into());
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

#[cfg(test)]
mod tests {
    use super::*;

    fn script(shape: Shape, include_usage: bool) -> Script {
        Script {
            shape,
            id: "x-1".into(),
            created: 5,
            model: "m".into(),
            include_usage,
        }
    }

    fn usage() -> Usage {
        Usage {
            prompt_tokens: 1,
            completion_tokens: Some(2),
            total_tokens: 3,
            cost: Some(0.5),
            trade: None,
        }
    }

    fn documents(text: &str) -> Vec<serde_json::Value> {
        let lines = text.split("\n\n").filter_map(|event| event.strip_prefix("data: "));
        lines
            .filter(|line| *line != "[DONE]")
            .map(|line| serde_json::from_str(line).unwrap())
            .collect()
    }

    #[test]
    fn a_chat_begins_with_its_role_and_ends_with_done() {
        let script = script(Shape::Chat, true);
        let opening = documents(&script.opening().unwrap());
        assert_eq!(opening[0]["choices"][0]["delta"]["role"], "assistant");
        let piece = documents(&script.piece("hi"));
        assert_eq!(piece[0]["choices"][0]["delta"], serde_json::json!({"content": "hi"}));
        assert_eq!(piece[0]["object"], "chat.completion.chunk");
        let closing = script.closing("stop", usage());
        assert!(closing.ends_with("data: [DONE]\n\n"));
        let closing = documents(&closing);
        assert_eq!(closing[0]["choices"][0]["finish_reason"], "stop");
        assert_eq!(closing[1]["choices"], serde_json::json!([]));
        assert_eq!(closing[1]["usage"]["total_tokens"], 3);
    }

    #[test]
    fn a_completion_has_text_and_no_usage_unless_asked() {
        let script = script(Shape::Completion, false);
        assert!(script.opening().is_none());
        assert_eq!(documents(&script.piece("hi"))[0]["choices"][0]["text"], "hi");
        assert_eq!(documents(&script.closing("length", usage())).len(), 1);
    }
}
