//! What a model said, put together from its pieces: text, calls of tools, and how likely its tokens were.

use std::collections::BTreeMap;

use rialto_api::openai::{
    ChatLogprobs, ChatMessage, CompletionLogprobs, ContentLogprob, FunctionCall, ToolCall, TopLogprob,
};
use rialto_protocol::output::{FinishReason, Output, TokenLogprob};

use crate::{Error, buying::Bill};

/// What OpenAI says of a token that cannot occur: JSON has no infinity.
const IMPOSSIBLE: f32 = -9_999.0;

/// A whole answer.
#[derive(Debug, Default)]
pub(crate) struct Said {
    pub(crate) text: String,
    calls: Vec<ToolCall>,
    logprobs: Vec<TokenLogprob>,
}

impl Said {
    /// Puts an answer together. Where calls may not be parallel, the first is the only one.
    pub(crate) fn of(outputs: Vec<Output>, parallel: bool) -> Self {
        let mut said = Self::default();
        for output in outputs {
            match output {
                Output::Tokens { text, logprobs, .. } => {
                    said.text.push_str(&text);
                    said.logprobs.extend(logprobs);
                }
                Output::ToolCall { index, .. } if index > 0 && !parallel => {}
                Output::ToolCall { name, arguments, .. } => said.call(name, &arguments),
                Output::Embedding { .. } | Output::Tensors(_) => {}
            }
        }
        said
    }

    fn call(&mut self, name: String, arguments: &str) {
        if !name.is_empty() {
            self.calls.push(ToolCall {
                id: call_id(),
                kind: "function".into(),
                function: FunctionCall {
                    name,
                    arguments: String::new(),
                },
            });
        }
        if let Some(call) = self.calls.last_mut() {
            call.function.arguments.push_str(arguments);
        }
    }

    /// Log-probabilities of a chat, if they were asked for.
    pub(crate) fn chat_logprobs(&self, asked: bool) -> Option<ChatLogprobs> {
        asked.then(|| chat_logprobs(&self.logprobs))
    }

    /// Log-probabilities of a completion, if they were asked for.
    pub(crate) fn completion_logprobs(&self, asked: bool) -> Option<CompletionLogprobs> {
        asked.then(|| completion_logprobs(&self.logprobs, &mut 0))
    }

    /// Refuses an answer that says it ended with calls, and has none: a client would wait for them.
    pub(crate) fn check(&self, bill: &Bill) -> Result<(), Error> {
        check_calls(bill, !self.calls.is_empty())
    }

    /// As a chat's message.
    pub(crate) fn message(self) -> ChatMessage {
        ChatMessage {
            role: "assistant".into(),
            content: (!self.text.is_empty() || self.calls.is_empty()).then_some(self.text),
            tool_calls: self.calls,
            refusal: None,
        }
    }
}

/// Refuses an answer that says it ended with calls, and has none.
pub(crate) fn check_calls(bill: &Bill, called: bool) -> Result<(), Error> {
    if bill.reason == FinishReason::ToolCalls && !called {
        return Err(Error::ProviderFailed {
            reason: "it said that tools were called, and named none".into(),
            charged: true,
        });
    }
    Ok(())
}

/// A new id of a call.
pub(crate) fn call_id() -> String {
    format!("call_{}", hex::encode(rand::random::<[u8; 12]>()))
}

/// Log-probabilities as chats tell them.
pub(crate) fn chat_logprobs(told: &[TokenLogprob]) -> ChatLogprobs {
    let content = told.iter().map(|token| ContentLogprob {
        token: lossy(&token.bytes),
        logprob: finite(token.logprob),
        bytes: token.bytes.clone(),
        top_logprobs: token
            .top
            .iter()
            .map(|one| TopLogprob {
                token: lossy(&one.bytes),
                logprob: finite(one.logprob),
                bytes: one.bytes.clone(),
            })
            .collect(),
    });
    ChatLogprobs {
        content: content.collect(),
        refusal: None,
    }
}

/// Log-probabilities as completions tell them. `offset` counts the characters of the answer.
pub(crate) fn completion_logprobs(told: &[TokenLogprob], offset: &mut u64) -> CompletionLogprobs {
    let mut list = CompletionLogprobs::default();
    for token in told {
        let name = spelt(&token.bytes);
        let mut top: BTreeMap<String, f32> = token
            .top
            .iter()
            .map(|one| (spelt(&one.bytes), finite(one.logprob)))
            .collect();
        top.insert(name.clone(), finite(token.logprob));
        list.tokens.push(name);
        list.token_logprobs.push(finite(token.logprob));
        list.top_logprobs.push(top);
        list.text_offset.push(*offset);
        // Every character has one byte that is no continuation, so cut characters count once.
        let begun = token.bytes.iter().filter(|byte| **byte & 0xC0 != 0x80).count();
        *offset = offset.saturating_add(u64::try_from(begun).unwrap_or(u64::MAX));
    }
    list
}

fn lossy(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// Text, or the bytes of what is none, so that two parts of characters are not the same name.
fn spelt(bytes: &[u8]) -> String {
    match std::str::from_utf8(bytes) {
        Ok(text) => text.to_owned(),
        Err(_) => {
            let bytes = bytes.iter().map(|byte| format!("\\x{byte:02x}"));
            format!("bytes:{}", bytes.collect::<String>())
        }
    }
}

fn finite(logprob: f32) -> f32 {
    if logprob.is_finite() { logprob } else { IMPOSSIBLE }
}

#[cfg(test)]
mod tests {
    use rialto_protocol::output::Alternative;

    use super::*;

    fn token(bytes: &[u8], logprob: f32, others: &[(&[u8], f32)]) -> TokenLogprob {
        let top = others.iter().map(|(bytes, logprob)| Alternative {
            id: 0,
            bytes: bytes.to_vec(),
            logprob: *logprob,
        });
        TokenLogprob {
            bytes: bytes.to_vec(),
            logprob,
            top: top.collect(),
        }
    }

    fn call(index: u32, name: &str, arguments: &str) -> Output {
        Output::ToolCall {
            index,
            name: name.into(),
            arguments: arguments.into(),
        }
    }

    fn text(text: &str) -> Output {
        Output::Tokens {
            text: text.into(),
            ids: vec![],
            logprobs: vec![],
        }
    }

    #[test]
    fn pieces_of_calls_are_put_together() {
        let pieces = || {
            vec![
                text("Let me see."),
                call(0, "look", "{\"at\""),
                call(0, "", ":1}"),
                call(1, "wait", "{}"),
            ]
        };
        let message = Said::of(pieces(), true).message();
        assert_eq!(message.content.as_deref(), Some("Let me see."));
        let [look, wait] = &message.tool_calls[..] else {
            panic!("{message:?}");
        };
        assert_eq!(
            (look.function.name.as_str(), look.function.arguments.as_str()),
            ("look", "{\"at\":1}")
        );
        assert_eq!(wait.function.name, "wait");
        assert!(look.id.starts_with("call_") && look.id != wait.id);
        assert_eq!(Said::of(pieces(), false).message().tool_calls.len(), 1);
    }

    #[test]
    fn text_is_null_only_where_calls_stand_for_it() {
        assert_eq!(Said::of(vec![call(0, "look", "{}")], true).message().content, None);
        assert_eq!(Said::of(vec![], true).message().content.as_deref(), Some(""));
    }

    #[test]
    fn a_part_of_a_character_has_exact_bytes_and_impossible_tokens_have_a_number() {
        let told = chat_logprobs(&[token(&[0xE2, 0x80], -0.5, &[(b"a", f32::NEG_INFINITY)])]);
        assert_eq!(told.content[0].token, "\u{FFFD}");
        assert_eq!(told.content[0].bytes, [0xE2, 0x80]);
        assert_eq!(told.content[0].top_logprobs[0].logprob, IMPOSSIBLE);
    }

    #[test]
    fn completions_count_characters_and_name_the_chosen_token_too() {
        let told = [
            token(b"a", -1.0, &[(b"b", -0.5)]),
            token(&[0xC3], -1.0, &[]),
            token(&[0xA9], -1.0, &[]),
            token(b"z", -1.0, &[]),
        ];
        let mut offset = 0;
        let list = completion_logprobs(&told, &mut offset);
        assert_eq!(list.tokens, ["a", "bytes:\\xc3", "bytes:\\xa9", "z"]);
        assert_eq!(list.text_offset, [0, 1, 2, 2]);
        assert_eq!(offset, 3);
        assert_eq!(
            list.top_logprobs[0],
            BTreeMap::from([("a".into(), -1.0), ("b".into(), -0.5)])
        );
    }
}
