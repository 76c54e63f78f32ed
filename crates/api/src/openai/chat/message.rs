//! The messages of a conversation, as a client sends them.

use std::collections::HashSet;

use serde::{
    Deserialize, Deserializer,
    de::{SeqAccess, Visitor},
};

use crate::{
    BadRequest, json,
    openai::tool::{ToolCall, check_name, must_be_function},
    wish::Wish,
};

/// Most bytes of a call's arguments, without needless space.
const MAX_ARGUMENTS: usize = 1 << 20;

/// Most bytes of a call's id.
const MAX_ID: usize = 256;

/// One message of a conversation.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ChatTurn {
    /// Who speaks: `system`, `user`, `assistant` or `tool`.
    pub role: String,
    /// What is said; may be empty where an assistant only called tools.
    pub content: String,
    /// What an assistant called; the arguments are JSON objects.
    pub tool_calls: Vec<ToolCall>,
    /// The call that a `tool` message answers; empty in every other message.
    pub tool_call_id: String,
}

#[derive(Deserialize)]
pub(super) struct Field {
    role: String,
    content: Option<Content>,
    tool_calls: Option<Vec<CallField>>,
    tool_call_id: Option<String>,
    #[serde(default)]
    function_call: Wish,
    #[serde(default)]
    audio: Wish,
}

#[derive(Deserialize)]
struct CallField {
    id: String,
    #[serde(rename = "type")]
    kind: Option<String>,
    function: Option<CalledField>,
}

#[derive(Deserialize)]
struct CalledField {
    name: String,
    arguments: String,
}

enum Content {
    Text(String),
    Parts(Vec<Part>),
}

#[derive(Deserialize)]
struct Part {
    #[serde(rename = "type")]
    kind: String,
    text: Option<String>,
}

struct ContentVisitor;

impl<'de> Visitor<'de> for ContentVisitor {
    type Value = Content;

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("a text or a list of content parts")
    }

    fn visit_str<E>(self, text: &str) -> Result<Content, E> {
        Ok(Content::Text(text.to_owned()))
    }

    fn visit_string<E>(self, text: String) -> Result<Content, E> {
        Ok(Content::Text(text))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Content, A::Error> {
        let mut parts = Vec::new();
        while let Some(part) = seq.next_element()? {
            parts.push(part);
        }
        Ok(Content::Parts(parts))
    }
}

impl<'de> Deserialize<'de> for Content {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(ContentVisitor)
    }
}

/// Checks a conversation.
pub(super) fn turns(messages: Vec<Field>) -> Result<Vec<ChatTurn>, BadRequest> {
    if messages.is_empty() {
        return Err(BadRequest::value("messages", "at least one message is needed"));
    }
    let mut turns = Vec::with_capacity(messages.len());
    let mut called = HashSet::new();
    for (index, message) in messages.into_iter().enumerate() {
        let turn = message.turn(index)?;
        called.extend(turn.tool_calls.iter().map(|call| call.id.clone()));
        if turn.role == "tool" && !called.contains(&turn.tool_call_id) {
            let at = format!("messages[{index}].tool_call_id");
            return Err(BadRequest::value(at, "no message before it calls a tool with this id"));
        }
        turns.push(turn);
    }
    Ok(turns)
}

impl Field {
    fn turn(self, index: usize) -> Result<ChatTurn, BadRequest> {
        let at = |field: &str| format!("messages[{index}].{field}");
        match self.role.as_str() {
            "system" | "developer" | "user" | "assistant" | "tool" => {}
            "function" => return Err(BadRequest::unsupported(at("role"), "use 'tool'")),
            other => return Err(BadRequest::value(at("role"), format!("'{other}' is not a role"))),
        }
        self.function_call
            .refuse(&at("function_call"), &[], "use 'tool_calls'")?;
        self.audio.refuse(&at("audio"), &[], "only text is supported")?;
        let calls = self.tool_calls.unwrap_or_default();
        if self.role != "assistant" && !calls.is_empty() {
            return Err(BadRequest::value(at("tool_calls"), "only an assistant calls tools"));
        }
        let calls = calls.into_iter().enumerate();
        let tool_calls: Vec<ToolCall> = calls
            .map(|(place, call)| call.check(&at(&format!("tool_calls[{place}]"))))
            .collect::<Result<_, _>>()?;
        let content = match self.content {
            Some(Content::Text(text)) => text,
            Some(Content::Parts(parts)) => join(parts, &at("content"))?,
            None if !tool_calls.is_empty() => String::new(),
            None => return Err(BadRequest::missing(at("content"))),
        };
        let tool_call_id = match (self.role.as_str(), self.tool_call_id) {
            ("tool", Some(id)) => bounded_id(id, &at("tool_call_id"))?,
            ("tool", None) => return Err(BadRequest::missing(at("tool_call_id"))),
            _ => String::new(),
        };
        Ok(ChatTurn {
            // OpenAI's newer name of the same thing; chat templates know the older one.
            role: if self.role == "developer" {
                "system".into()
            } else {
                self.role
            },
            content,
            tool_calls,
            tool_call_id,
        })
    }
}

impl CallField {
    fn check(self, at: &str) -> Result<ToolCall, BadRequest> {
        must_be_function(self.kind.as_deref().unwrap_or("function"), at)?;
        let mut function = self
            .function
            .ok_or_else(|| BadRequest::missing(format!("{at}.function")))?;
        check_name(&function.name, &format!("{at}.function.name"))?;
        // Some libraries spell a call without arguments so.
        if function.arguments.is_empty() {
            "{}".clone_into(&mut function.arguments);
        }
        Ok(ToolCall {
            id: bounded_id(self.id, &format!("{at}.id"))?,
            kind: "function".into(),
            function: crate::openai::FunctionCall {
                arguments: json::object(&function.arguments, &format!("{at}.function.arguments"), MAX_ARGUMENTS)?,
                name: function.name,
            },
        })
    }
}

fn bounded_id(id: String, at: &str) -> Result<String, BadRequest> {
    if (1..=MAX_ID).contains(&id.len()) {
        return Ok(id);
    }
    Err(BadRequest::value(at, format!("must have between 1 and {MAX_ID} bytes")))
}

fn join(parts: Vec<Part>, at: &str) -> Result<String, BadRequest> {
    let mut text = String::new();
    for (index, part) in parts.into_iter().enumerate() {
        if part.kind != "text" {
            let reason = format!("'{}' is not supported; only text parts are", part.kind);
            return Err(BadRequest::unsupported(format!("{at}[{index}].type"), reason));
        }
        text.push_str(
            &part
                .text
                .ok_or_else(|| BadRequest::missing(format!("{at}[{index}].text")))?,
        );
    }
    Ok(text)
}
