//! How the pieces of a streamed answer look.

use rialto_api::{
    openai::{
        ChatChunk, ChatChunkChoice, ChatDelta, ChatLogprobs, Completion, CompletionChoice, CompletionLogprobs,
        ToolCallDelta, Usage,
    },
    sse,
};
use rialto_protocol::output::TokenLogprob;

use super::said::{chat_logprobs, completion_logprobs};

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
    /// Whether the answer may be calls instead of text.
    pub(crate) tools: bool,
    /// Whether it may have several.
    pub(crate) parallel: bool,
    /// Whether log-probabilities are told.
    pub(crate) logprobs: bool,
    /// Characters whose log-probabilities were told.
    pub(crate) offset: u64,
}

/// Log-probabilities of the tokens of a piece.
#[derive(Default)]
struct Told {
    chat: Option<ChatLogprobs>,
    completion: Option<CompletionLogprobs>,
}

impl Script {
    fn chunk(&self, delta: ChatDelta, text: &str, told: Told, finish: Option<&str>) -> String {
        match self.shape {
            Shape::Chat => self.chat(
                vec![ChatChunkChoice {
                    index: 0,
                    delta,
                    finish_reason: finish.map(str::to_owned),
                    logprobs: told.chat,
                }],
                None,
            ),
            Shape::Completion => self.completion(
                vec![CompletionChoice {
                    index: 0,
                    text: text.to_owned(),
                    finish_reason: finish.map(str::to_owned),
                    logprobs: told.completion,
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

    /// Log-probabilities that came since the last piece; they are told with the next one.
    fn tell(&mut self, waiting: &mut Vec<TokenLogprob>) -> Told {
        let tokens = std::mem::take(waiting);
        if !self.logprobs || tokens.is_empty() {
            return Told::default();
        }
        match self.shape {
            Shape::Chat => Told {
                chat: Some(chat_logprobs(&tokens)),
                completion: None,
            },
            Shape::Completion => Told {
                chat: None,
                completion: Some(completion_logprobs(&tokens, &mut self.offset)),
            },
        }
    }

    /// What comes before anything that the model says.
    pub(crate) fn opening(&self) -> Option<String> {
        let delta = ChatDelta {
            role: Some("assistant".into()),
            // An answer of calls alone has no text at all, not even an empty one.
            content: (!self.tools).then(String::new),
            tool_calls: Vec::new(),
        };
        (self.shape == Shape::Chat).then(|| self.chunk(delta, "", Told::default(), None))
    }

    /// Text, with the log-probabilities that wait.
    pub(crate) fn text(&mut self, text: &str, waiting: &mut Vec<TokenLogprob>) -> String {
        let told = self.tell(waiting);
        let delta = ChatDelta {
            content: Some(text.to_owned()),
            ..ChatDelta::default()
        };
        self.chunk(delta, text, told, None)
    }

    /// A piece of a call, with the log-probabilities that wait.
    pub(crate) fn call(&mut self, call: ToolCallDelta, waiting: &mut Vec<TokenLogprob>) -> String {
        let told = self.tell(waiting);
        let delta = ChatDelta {
            tool_calls: vec![call],
            ..ChatDelta::default()
        };
        self.chunk(delta, "", told, None)
    }

    /// The end of an answer that went well.
    pub(crate) fn closing(&mut self, reason: &str, usage: Usage, waiting: &mut Vec<TokenLogprob>) -> String {
        let told = self.tell(waiting);
        let mut text = self.chunk(ChatDelta::default(), "", told, Some(reason));
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

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn script(shape: Shape, include_usage: bool) -> Script {
        Script {
            shape,
            id: "x-1".into(),
            created: 5,
            model: "m".into(),
            include_usage,
            tools: false,
            parallel: true,
            logprobs: false,
            offset: 0,
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

    fn documents(text: &str) -> Vec<Value> {
        let lines = text.split("\n\n").filter_map(|event| event.strip_prefix("data: "));
        lines
            .filter(|line| *line != "[DONE]")
            .map(|line| serde_json::from_str(line).unwrap())
            .collect()
    }

    fn waiting() -> Vec<TokenLogprob> {
        vec![TokenLogprob {
            bytes: b"hi".to_vec(),
            logprob: -0.5,
            top: vec![],
        }]
    }

    #[test]
    fn a_chat_begins_with_its_role_and_ends_with_done() {
        let mut script = script(Shape::Chat, true);
        let opening = documents(&script.opening().unwrap());
        assert_eq!(
            opening[0]["choices"][0]["delta"],
            json!({"role": "assistant", "content": ""})
        );
        let piece = documents(&script.text("hi", &mut vec![]));
        assert_eq!(piece[0]["choices"][0]["delta"], json!({"content": "hi"}));
        assert_eq!(piece[0]["choices"][0]["logprobs"], Value::Null);
        assert_eq!(piece[0]["object"], "chat.completion.chunk");
        let closing = script.closing("stop", usage(), &mut vec![]);
        assert!(closing.ends_with("data: [DONE]\n\n"));
        let closing = documents(&closing);
        assert_eq!(closing[0]["choices"][0]["finish_reason"], "stop");
        assert_eq!(closing[1]["choices"], json!([]));
        assert_eq!(closing[1]["usage"]["total_tokens"], 3);
    }

    #[test]
    fn a_completion_has_text_and_no_usage_unless_asked() {
        let mut script = script(Shape::Completion, false);
        assert!(script.opening().is_none());
        assert_eq!(
            documents(&script.text("hi", &mut vec![]))[0]["choices"][0]["text"],
            "hi"
        );
        assert_eq!(documents(&script.closing("length", usage(), &mut vec![])).len(), 1);
    }

    #[test]
    fn a_chat_that_may_call_promises_no_text() {
        let mut script = Script {
            tools: true,
            ..script(Shape::Chat, false)
        };
        let opening = documents(&script.opening().unwrap());
        assert_eq!(opening[0]["choices"][0]["delta"], json!({"role": "assistant"}));
        let call = ToolCallDelta::more(0, "{}".into());
        let piece = documents(&script.call(call, &mut vec![]));
        assert_eq!(
            piece[0]["choices"][0]["delta"],
            json!({"tool_calls": [{"index": 0, "function": {"arguments": "{}"}}]})
        );
    }

    #[test]
    fn log_probabilities_come_once_with_the_next_piece() {
        let mut chat = Script {
            logprobs: true,
            ..script(Shape::Chat, false)
        };
        let mut tokens = waiting();
        let piece = documents(&chat.text("hi", &mut tokens));
        assert_eq!(
            piece[0]["choices"][0]["logprobs"]["content"],
            json!([{"token": "hi", "logprob": -0.5, "bytes": [104, 105], "top_logprobs": []}])
        );
        let closing = documents(&chat.closing("stop", usage(), &mut tokens));
        assert_eq!(closing[0]["choices"][0]["logprobs"], Value::Null);
        let mut completion = Script {
            logprobs: true,
            ..script(Shape::Completion, false)
        };
        for offset in [0, 2] {
            let piece = documents(&completion.text("hi", &mut waiting()));
            assert_eq!(piece[0]["choices"][0]["logprobs"]["text_offset"], json!([offset]));
        }
        // Tokens without text of their own, such as the one that ends an answer, are told at the end.
        let closing = documents(&completion.closing("stop", usage(), &mut waiting()));
        assert_eq!(closing[0]["choices"][0]["logprobs"]["tokens"], json!(["hi"]));
    }
}
