//! One event of an answer: what is new in it, as far as it makes sense.

use rialto_protocol::{
    hash::keccak256,
    output::{Alternative, FinishReason, TokenLogprob},
};
use serde::{Deserialize, de::IgnoredAny};
use serde_json::Value;

use super::call::{Trouble, message};
use crate::engine::PSEUDO;

/// Most tokens that one event may tell of.
const MAX_TOKENS: usize = 4_096;

/// Most alternatives of a token that are read.
const MAX_TOP: usize = 32;

/// What a running count of tokens is called in `timings`.
const RUNNING: &str = "predicted_n";

/// What is new.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Delta {
    pub(super) text: String,
    pub(super) calls: Vec<CallDelta>,
    /// Tokens, if the server tells them one by one.
    pub(super) tokens: Vec<Token>,
    /// Whether it is about thoughts that the client does not see.
    pub(super) hidden: bool,
    pub(super) finish: Option<FinishReason>,
    pub(super) usage: Option<Usage>,
    /// Tokens of the answer so far, by the server.
    pub(super) running: Option<u64>,
}

/// What is new of a call of a tool.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct CallDelta {
    pub(super) index: u32,
    pub(super) name: String,
    pub(super) arguments: String,
}

/// A token of an answer.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Token {
    pub(super) id: u32,
    /// Its log-probability and those of its alternatives, likeliest first.
    pub(super) logprob: Option<TokenLogprob>,
    /// Whether the ids are the model's own.
    pub(super) told: bool,
}

/// Counts at the end of an answer, by the server.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
pub(super) struct Usage {
    #[serde(rename = "prompt_tokens", default)]
    pub(super) prompt: Option<u64>,
    #[serde(rename = "completion_tokens", default)]
    pub(super) completion: Option<u64>,
}

impl Delta {
    /// Bytes that the client sees of it.
    pub(super) fn visible(&self) -> usize {
        let calls = self.calls.iter().map(|call| call.name.len() + call.arguments.len());
        calls.fold(self.text.len(), usize::saturating_add)
    }
}

impl Token {
    /// A token of which only what it added is known. See [`pseudo_id`].
    pub(super) fn of(added: &[u8]) -> Self {
        Self {
            id: pseudo_id(added),
            logprob: None,
            told: false,
        }
    }
}

/// An id for a token whose own is not told: from the hash of its bytes, with the highest bit set, which no vocabulary's
/// ids have. Who knows the vocabulary can check it.
pub(super) fn pseudo_id(bytes: &[u8]) -> u32 {
    let [a, b, c, d, ..] = keccak256(&[b"rialto pseudo id", bytes]);
    u32::from_le_bytes([a, b, c, d]) | PSEUDO
}

#[derive(Deserialize)]
struct Chunk {
    #[serde(default)]
    choices: Vec<Choice>,
    #[serde(default)]
    usage: Option<Usage>,
    #[serde(default)]
    timings: Option<Value>,
    /// `None` also where it is null.
    #[serde(default)]
    error: Option<IgnoredAny>,
}

#[derive(Deserialize)]
struct Choice {
    #[serde(default)]
    delta: Option<Said>,
    #[serde(default)]
    text: Option<String>,
    #[serde(default)]
    logprobs: Option<Value>,
    #[serde(default)]
    finish_reason: Option<String>,
}

#[derive(Deserialize)]
struct Said {
    #[serde(default)]
    content: Option<String>,
    #[serde(default, alias = "reasoning")]
    reasoning_content: Option<String>,
    #[serde(default)]
    tool_calls: Option<Vec<Call>>,
}

#[derive(Deserialize)]
struct Call {
    #[serde(default)]
    index: Option<u32>,
    #[serde(default)]
    function: Option<Function>,
}

#[derive(Deserialize)]
struct Function {
    #[serde(default)]
    name: Option<String>,
    #[serde(default)]
    arguments: Option<String>,
}

/// Reads the data of one event.
pub(super) fn read(data: &str) -> Result<Delta, Trouble> {
    let chunk = match serde_json::from_str::<Chunk>(data) {
        Ok(chunk) if chunk.error.is_none() => chunk,
        _ => reread(data)?,
    };
    let running = chunk
        .timings
        .as_ref()
        .and_then(|timings| timings.get(RUNNING)?.as_u64());
    let mut delta = Delta {
        usage: chunk.usage,
        running: chunk.usage.and_then(|usage| usage.completion).or(running),
        ..Delta::default()
    };
    let mut choices = chunk.choices.into_iter();
    let Some(choice) = choices.next() else {
        return Ok(delta);
    };
    if choices.next().is_some() {
        return Err(Trouble::odd("two answers, and one was asked for"));
    }
    delta.tokens = choice.logprobs.as_ref().map_or(Ok(Vec::new()), tokens)?;
    delta.finish = choice.finish_reason.as_deref().map(finish);
    match choice.delta {
        Some(said) => {
            delta.hidden = said.reasoning_content.is_some_and(|thought| !thought.is_empty());
            delta.text = said.content.unwrap_or_default();
            delta.calls = calls(said.tool_calls.unwrap_or_default());
        }
        None => delta.text = choice.text.unwrap_or_default(),
    }
    Ok(delta)
}

/// Reads an event in which something is wrong, or said twice: the last counts.
fn reread(data: &str) -> Result<Chunk, Trouble> {
    let value: Value = serde_json::from_str(data).map_err(|_| Trouble::odd("an event is not JSON"))?;
    if value.get("error").is_some_and(|error| !error.is_null()) {
        return Err(Trouble::Failed(200, message(&value)));
    }
    serde_json::from_value(value).map_err(|_| Trouble::odd("an event is not a piece of an answer"))
}

fn finish(reason: &str) -> FinishReason {
    match reason {
        "length" => FinishReason::Length,
        "tool_calls" | "function_call" => FinishReason::ToolCalls,
        _ => FinishReason::Stop,
    }
}

fn calls(calls: Vec<Call>) -> Vec<CallDelta> {
    let calls = (0u32..).zip(calls).filter_map(|(place, call)| {
        let function = call.function?;
        Some(CallDelta {
            index: call.index.unwrap_or(place),
            name: function.name.unwrap_or_default(),
            arguments: function.arguments.unwrap_or_default(),
        })
    });
    calls.collect()
}

#[derive(Deserialize)]
struct Entry {
    token: String,
    #[serde(default)]
    id: Option<u32>,
    #[serde(default)]
    bytes: Option<Vec<u8>>,
    logprob: f64,
    #[serde(default)]
    top_logprobs: Vec<Entry>,
}

/// The older shape, of plain completions.
#[derive(Deserialize)]
struct Columns {
    tokens: Vec<String>,
    token_logprobs: Vec<Option<f64>>,
    #[serde(default)]
    top_logprobs: Option<Vec<Option<serde_json::Map<String, Value>>>>,
}

fn tokens(value: &Value) -> Result<Vec<Token>, Trouble> {
    let bad = |_| Trouble::odd("log-probabilities of no known shape");
    let entries = match value.get("content") {
        Some(Value::Null) => Vec::new(),
        Some(content) => Vec::<Entry>::deserialize(content).map_err(bad)?,
        None if value.get("tokens").is_some() => Columns::deserialize(value).map_err(bad)?.entries(),
        None => Vec::new(),
    };
    if entries.len() > MAX_TOKENS {
        return Err(Trouble::odd("more tokens in an event than a model makes"));
    }
    entries.into_iter().map(Entry::token).collect()
}

impl Columns {
    fn entries(self) -> Vec<Entry> {
        let entry = |(token, logprob): (String, f64)| Entry {
            token,
            id: None,
            bytes: None,
            logprob,
            top_logprobs: Vec::new(),
        };
        let mut tops = self.top_logprobs.unwrap_or_default().into_iter();
        let pairs = self.tokens.into_iter().zip(self.token_logprobs);
        let rows = pairs.map(|(token, logprob)| {
            let top = tops.next().flatten().unwrap_or_default().into_iter();
            let top = top.filter_map(|(token, logprob)| Some((token, logprob.as_f64()?)));
            Entry {
                top_logprobs: top.map(entry).collect(),
                ..entry((token, logprob.unwrap_or(0.0)))
            }
        });
        rows.collect()
    }
}

impl Entry {
    fn token(mut self) -> Result<Token, Trouble> {
        let mut top = std::mem::take(&mut self.top_logprobs);
        top.truncate(MAX_TOP);
        top.sort_by(|one, other| other.logprob.total_cmp(&one.logprob));
        let own = self.alternative()?;
        let (top, told): (Vec<Alternative>, Vec<bool>) = {
            let read: Result<Vec<(Alternative, bool)>, Trouble> = top.iter().map(Self::alternative).collect();
            read?.into_iter().unzip()
        };
        let (Alternative { id, bytes, logprob }, known) = own;
        Ok(Token {
            id,
            logprob: Some(TokenLogprob { bytes, logprob, top }),
            told: known && told.into_iter().all(|told| told),
        })
    }

    /// What it says of one token, and whether the id is the model's own.
    fn alternative(&self) -> Result<(Alternative, bool), Trouble> {
        #[expect(clippy::cast_possible_truncation, reason = "single precision is what is kept")]
        let logprob = self.logprob as f32;
        // A probability is at most one; rounding may be a little above.
        if logprob.is_nan() || logprob > 0.01 {
            return Err(Trouble::odd("a probability above one"));
        }
        let told = self.token.strip_prefix("token_id:").and_then(|id| id.parse().ok());
        let told = self.id.or(told);
        let bytes = self.bytes.clone().unwrap_or_else(|| self.token.clone().into_bytes());
        let alternative = Alternative {
            id: told.unwrap_or_else(|| pseudo_id(&bytes)),
            bytes,
            logprob: logprob.clamp(f32::MIN, 0.0),
        };
        Ok((alternative, told.is_some()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn llama_cpp_tells_ids_and_a_running_count() {
        let delta = read(
            r#"{"choices":[{"finish_reason":null,"index":0,"delta":{"content":"S"},"logprobs":{"content":[{"id":54,
            "token":"S","bytes":[83],"logprob":-4.6,"top_logprobs":[{"id":471,"token":"What","bytes":[87],"logprob":-3.2},
            {"id":44,"token":"I","bytes":[73],"logprob":-2.3}]}]}}],"timings":{"predicted_n":1}}"#,
        )
        .unwrap();
        assert_eq!((delta.text.as_str(), delta.running), ("S", Some(1)));
        let token = &delta.tokens[0];
        assert_eq!((token.id, token.told), (54, true));
        let ids: Vec<u32> = token.logprob.as_ref().unwrap().top.iter().map(|one| one.id).collect();
        assert_eq!(ids, [44, 471]);
    }

    #[test]
    fn vllm_tells_ids_in_place_of_texts_and_older_shapes_are_read() {
        let delta = read(
            r#"{"choices":[{"text":"ab","logprobs":{"tokens":["token_id:7","b"],"token_logprobs":[-1.0,null],
            "top_logprobs":[{"token_id:7":-1.0,"token_id:9":-2.0},null],"text_offset":[0,1]},"finish_reason":"length"}],
            "usage":{"prompt_tokens":3,"completion_tokens":2}}"#,
        )
        .unwrap();
        assert_eq!(delta.tokens.len(), 2);
        assert_eq!((delta.tokens[0].id, delta.tokens[0].told), (7, true));
        assert!(!delta.tokens[1].told && delta.tokens[1].id >= 1 << 31);
        assert_eq!(delta.finish, Some(FinishReason::Length));
        assert_eq!(delta.usage.unwrap().completion, Some(2));
    }

    #[test]
    fn calls_of_tools_and_hidden_thoughts_are_told_apart() {
        let delta = read(
            r#"{"choices":[{"delta":{"tool_calls":[{"index":0,"id":"x","type":"function",
            "function":{"name":"add","arguments":""}}]}}]}"#,
        )
        .unwrap();
        assert_eq!(delta.calls[0].name, "add");
        assert_eq!(delta.visible(), 3);
        let thought = read(r#"{"choices":[{"delta":{"content":null,"reasoning_content":"hm"}}]}"#).unwrap();
        assert!(thought.hidden && thought.visible() == 0);
    }

    #[test]
    fn what_is_said_twice_counts_as_it_was_said_last() {
        let twice = r#"{"error":null,"usage":{"completion_tokens":9},"choices":[{"text":"a"}],"usage":{"completion_tokens":1}}"#;
        let delta = read(twice).unwrap();
        assert_eq!((delta.text.as_str(), delta.running), ("a", Some(1)));
    }

    #[test]
    fn what_is_no_piece_of_an_answer_is_refused() {
        for odd in [
            "[DONE",
            "7",
            r#"{"choices":7}"#,
            r#"{"choices":[{},{}]}"#,
            r#"{"choices":[{"logprobs":{"content":[{"token":"a","logprob":0.5}]}}]}"#,
            r#"{"choices":[{"logprobs":{"content":[{"token":"a"}]}}]}"#,
        ] {
            assert!(matches!(read(odd), Err(Trouble::Odd(_))), "{odd}");
        }
        assert_eq!(
            read(r#"{"error":{"message":"out of memory"}}"#),
            Err(Trouble::Failed(200, "out of memory".into()))
        );
    }
}
