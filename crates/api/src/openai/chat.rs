//! `POST /v1/chat/completions`.

use serde::{
    Deserialize, Deserializer, Serialize,
    de::{SeqAccess, Visitor},
};

use super::{Sampling, Usage};
use crate::{BadRequest, parse, wish::Wish};

/// The request, checked.
#[derive(Debug, Clone, PartialEq)]
pub struct ChatRequest {
    /// `publisher/name:tag`, a model id, or an alias.
    pub model: String,
    /// The conversation, oldest first; never empty.
    pub messages: Vec<ChatTurn>,
    /// How tokens are chosen and the answer is delivered.
    pub sampling: Sampling,
}

/// One message of a conversation, as text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ChatTurn {
    /// Who speaks.
    pub role: String,
    /// What is said.
    pub content: String,
}

#[derive(Deserialize)]
struct Fields {
    model: String,
    messages: Vec<Message>,
    #[serde(default)]
    tools: Wish,
    #[serde(default)]
    tool_choice: Wish,
    #[serde(default)]
    functions: Wish,
    #[serde(default)]
    function_call: Wish,
    response_format: Option<ResponseFormat>,
    #[serde(default)]
    top_logprobs: Wish,
    modalities: Option<Vec<String>>,
    #[serde(default)]
    audio: Wish,
    #[serde(default)]
    web_search_options: Wish,
}

#[derive(Deserialize)]
struct ResponseFormat {
    #[serde(rename = "type")]
    kind: String,
}

#[derive(Deserialize)]
struct Message {
    role: String,
    content: Option<Content>,
    #[serde(default)]
    tool_calls: Wish,
    #[serde(default)]
    function_call: Wish,
    #[serde(default)]
    audio: Wish,
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

const NO_TOOLS: &str = "tools are not supported";

impl ChatRequest {
    /// Reads a body, and refuses what is not supported and would change the answer.
    pub fn parse(body: &[u8]) -> Result<Self, BadRequest> {
        let fields: Fields = parse(body)?;
        let sampling: Sampling = parse(body)?;
        sampling.check()?;
        fields.tools.refuse("tools", &[], NO_TOOLS)?;
        fields.tool_choice.refuse("tool_choice", &["none", "auto"], NO_TOOLS)?;
        fields.functions.refuse("functions", &[], NO_TOOLS)?;
        fields
            .function_call
            .refuse("function_call", &["none", "auto"], NO_TOOLS)?;
        fields.audio.refuse("audio", &[], "only text is supported")?;
        fields
            .top_logprobs
            .refuse("top_logprobs", &[], "log probabilities are not supported")?;
        fields
            .web_search_options
            .refuse("web_search_options", &[], "web search is not supported")?;
        if let Some(format) = fields.response_format.filter(|format| format.kind != "text") {
            let reason = format!("'{}' is not supported; only 'text' is", format.kind);
            return Err(BadRequest::unsupported("response_format.type", reason));
        }
        if fields
            .modalities
            .is_some_and(|list| list.iter().any(|one| one != "text"))
        {
            return Err(BadRequest::unsupported("modalities", "only text is supported"));
        }
        if fields.messages.is_empty() {
            return Err(BadRequest::value("messages", "at least one message is needed"));
        }
        let messages = fields.messages.into_iter().enumerate();
        Ok(Self {
            model: fields.model,
            messages: messages
                .map(|(index, message)| message.turn(index))
                .collect::<Result<_, _>>()?,
            sampling,
        })
    }
}

impl Message {
    fn turn(self, index: usize) -> Result<ChatTurn, BadRequest> {
        let at = |field: &str| format!("messages[{index}].{field}");
        match self.role.as_str() {
            "system" | "developer" | "user" | "assistant" => {}
            "tool" | "function" => return Err(BadRequest::unsupported(at("role"), NO_TOOLS)),
            other => return Err(BadRequest::value(at("role"), format!("'{other}' is not a role"))),
        }
        self.tool_calls.refuse(&at("tool_calls"), &[], NO_TOOLS)?;
        self.function_call.refuse(&at("function_call"), &[], NO_TOOLS)?;
        self.audio.refuse(&at("audio"), &[], "only text is supported")?;
        let content = match self.content {
            Some(Content::Text(text)) => text,
            Some(Content::Parts(parts)) => join(parts, &at("content"))?,
            None => return Err(BadRequest::missing(at("content"))),
        };
        Ok(ChatTurn {
            // OpenAI's newer name of the same thing; chat templates know the older one.
            role: if self.role == "developer" {
                "system".into()
            } else {
                self.role
            },
            content,
        })
    }
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

/// The answer when it comes whole.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ChatCompletion {
    /// Unique.
    pub id: String,
    /// Always `chat.completion`.
    pub object: String,
    /// Seconds since 1970.
    pub created: u64,
    /// The model that answered.
    pub model: String,
    /// Exactly one.
    pub choices: Vec<ChatChoice>,
    /// Units and cost.
    pub usage: Usage,
}

/// An answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChatChoice {
    /// Always 0.
    pub index: u32,
    /// What the model said.
    pub message: ChatMessage,
    /// `stop` or `length`.
    pub finish_reason: Option<String>,
    /// Always null.
    pub logprobs: Option<()>,
}

/// What the model said.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChatMessage {
    /// Always `assistant`.
    pub role: String,
    /// The text.
    pub content: String,
    /// Always null.
    pub refusal: Option<String>,
}

/// A piece of the answer when it is streamed.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ChatChunk {
    /// The same for all pieces of one answer.
    pub id: String,
    /// Always `chat.completion.chunk`.
    pub object: String,
    /// Seconds since 1970; the same for all pieces.
    pub created: u64,
    /// The model that answers.
    pub model: String,
    /// One, or none in the piece that carries the usage.
    pub choices: Vec<ChatChunkChoice>,
    /// In the last piece, if it was asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub usage: Option<Usage>,
}

/// A piece of an answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChatChunkChoice {
    /// Always 0.
    pub index: u32,
    /// What is new.
    pub delta: ChatDelta,
    /// In the last piece: `stop` or `length`.
    pub finish_reason: Option<String>,
    /// Always null.
    pub logprobs: Option<()>,
}

/// What is new in a piece.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChatDelta {
    /// In the first piece.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub role: Option<String>,
    /// Text to append.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub content: Option<String>,
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn request(extra: &str) -> Result<ChatRequest, BadRequest> {
        let body = format!(r#"{{"model":"m","messages":[{{"role":"user","content":"hi"}}]{extra}}}"#);
        ChatRequest::parse(body.as_bytes())
    }

    fn messages(list: &str) -> Result<ChatRequest, BadRequest> {
        ChatRequest::parse(format!(r#"{{"model":"m","messages":{list}}}"#).as_bytes())
    }

    #[test]
    fn a_request_with_everything_harmless_is_read() {
        let read = request(
            r#","temperature":0.5,"max_tokens":7,"max_completion_tokens":9,"stop":"x","seed":-1,"n":1,"stream":true,
            "stream_options":{"include_usage":true},"tools":[],"tool_choice":"none","response_format":{"type":"text"},
            "logprobs":false,"user":"u","unknown":{"a":[1]},"modalities":["text"],"store":false,"top_p":null"#,
        )
        .unwrap();
        assert_eq!(read.sampling.limit(), Some(9));
        assert_eq!(read.sampling.stop.0, ["x"]);
        assert!(read.sampling.streams() && read.sampling.includes_usage());
        assert_eq!(
            read.messages,
            [ChatTurn {
                role: "user".into(),
                content: "hi".into()
            }]
        );
    }

    #[test]
    fn content_may_come_in_text_parts() {
        let read = messages(
            r#"[{"role":"developer","content":[{"type":"text","text":"a"},{"type":"text","text":"b"}]},
                {"role":"user","content":"c"}]"#,
        )
        .unwrap();
        assert_eq!(
            read.messages[0],
            ChatTurn {
                role: "system".into(),
                content: "ab".into()
            }
        );
    }

    #[test]
    fn what_changes_the_answer_is_refused_by_name() {
        for (extra, param) in [
            (r#","n":2"#, "n"),
            (r#","tools":[{"type":"function"}]"#, "tools"),
            (r#","tool_choice":"required""#, "tool_choice"),
            (r#","tool_choice":{"type":"function"}"#, "tool_choice"),
            (r#","functions":[{}]"#, "functions"),
            (r#","response_format":{"type":"json_schema"}"#, "response_format.type"),
            (r#","response_format":{"type":"json_object"}"#, "response_format.type"),
            (r#","logprobs":true"#, "logprobs"),
            (r#","top_logprobs":3"#, "top_logprobs"),
            (r#","logit_bias":{"5":1}"#, "logit_bias"),
            (r#","audio":{"voice":"x"}"#, "audio"),
            (r#","modalities":["text","audio"]"#, "modalities"),
            (r#","provider":{"only":["x"]}"#, "provider"),
            (r#","stream_options":{"include_usage":true}"#, "stream_options"),
        ] {
            let fault = request(extra).unwrap_err();
            assert_eq!(fault.param.as_deref(), Some(param), "{extra}");
        }
    }

    #[test]
    fn wrong_types_are_named() {
        for (extra, param) in [
            (r#","temperature":"hot""#, "temperature"),
            (r#","max_tokens":-1"#, "max_tokens"),
            (r#","max_tokens":1.5"#, "max_tokens"),
            (r#","stream":"yes""#, "stream"),
            (r#","stop":[1]"#, "stop[0]"),
            (
                r#","stream":true,"stream_options":{"include_usage":1}"#,
                "stream_options.include_usage",
            ),
        ] {
            let fault = request(extra).unwrap_err();
            assert_eq!(
                (fault.param.as_deref(), fault.code),
                (Some(param), BadRequest::TYPE),
                "{extra}"
            );
        }
        for (list, param) in [
            ("[]", "messages"),
            ("\"hi\"", "messages"),
            (r#"[{"content":"x"}]"#, "messages[0].role"),
            (r#"[{"role":"user"}]"#, "messages[0].content"),
            (r#"[{"role":"user","content":5}]"#, "messages[0].content"),
            (r#"[{"role":"wizard","content":"x"}]"#, "messages[0].role"),
            (r#"[{"role":"tool","content":"x"}]"#, "messages[0].role"),
            (
                r#"[{"role":"user","content":[{"type":"image_url","image_url":{}}]}]"#,
                "messages[0].content[0].type",
            ),
            (
                r#"[{"role":"user","content":[{"type":"text","text":9}]}]"#,
                "messages[0].content[0].text",
            ),
        ] {
            let fault = messages(list).unwrap_err();
            assert_eq!(fault.param.as_deref(), Some(param), "{list}");
        }
        assert_eq!(
            ChatRequest::parse(b"{\"messages\":[]}").unwrap_err().param.as_deref(),
            Some("model")
        );
    }

    proptest! {
        #[test]
        fn no_bytes_make_the_parser_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = ChatRequest::parse(&bytes);
        }

        #[test]
        fn no_broken_request_makes_the_parser_panic(cut in 0usize..120, flip in 0usize..120, byte: u8) {
            let mut body = br#"{"model":"m","messages":[{"role":"user","content":[{"type":"text","text":"hi"}]}],"stop":["a"],"temperature":0.5}"#.to_vec();
            let length = body.len();
            body[flip % length] = byte;
            let _ = ChatRequest::parse(&body[..length - cut % length]);
        }
    }
}
