//! Jobs: what a buyer asks a model to do. Bounded and checked before an engine sees them.

use std::borrow::Cow;

use serde::{Deserialize, Deserializer, Serialize};

use crate::{Digest, RequestId, bounded, hash::keccak256};

pub use tensor::{Datatype, Tensor};

mod tensor;

/// Most bytes of text or tensor data in one job.
pub const MAX_INPUT_BYTES: usize = 16 << 20;

/// Most messages of a conversation, calls of tools in all of them, inputs of an embedding request, or tensors of an
/// inference.
pub const MAX_PARTS: usize = 4_096;

/// Most tokens that one request may ask for.
pub const MAX_OUTPUT_UNITS: u64 = 1 << 20;

/// The same, of a list that is decoded.
const MAX_OUTPUT_TOKENS: usize = 1 << 20;

/// Most texts that end an answer, and most bytes of one.
const MAX_STOPS: usize = 16;
const MAX_STOP: usize = 256;

/// Most tools that a conversation may offer.
pub const MAX_TOOLS: usize = 128;

/// Most bytes of a JSON schema.
pub const MAX_SCHEMA_BYTES: usize = 256 << 10;

/// Most alternatives of each token whose log-probabilities can be asked for.
pub const MAX_TOP_LOGPROBS: u8 = 20;

/// A field of a job that cannot be accepted.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error, Serialize, Deserialize)]
#[error("{field}: {reason}")]
pub struct BadJob {
    /// The field, as the OpenAI and Open Inference protocols spell it.
    pub field: Cow<'static, str>,
    /// What is wrong with it.
    pub reason: String,
}

impl BadJob {
    /// A complaint about a field.
    pub fn new(field: impl Into<Cow<'static, str>>, reason: impl Into<String>) -> Self {
        Self {
            field: field.into(),
            reason: reason.into(),
        }
    }
}

/// What a model is asked to do.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum Job {
    /// Continue a conversation, through the model's own chat template.
    Chat {
        /// Oldest first.
        #[serde(deserialize_with = "messages")]
        messages: Vec<Message>,
        /// What the model may call instead of answering in words; empty for nothing.
        tools: Tools,
        /// How tokens are chosen and when to stop.
        generation: Generation,
    },
    /// Continue a text.
    Completion {
        /// The text.
        #[serde(deserialize_with = "bounded::text::<_, MAX_INPUT_BYTES>")]
        prompt: String,
        /// How tokens are chosen and when to stop.
        generation: Generation,
    },
    /// Turn texts into vectors.
    Embedding {
        /// The texts.
        #[serde(deserialize_with = "bounded::texts::<_, MAX_PARTS, MAX_INPUT_BYTES>")]
        inputs: Vec<String>,
    },
    /// Run a predictive model on tensors.
    Predict {
        /// Named as in the model's signature.
        #[serde(deserialize_with = "bounded::list::<_, _, MAX_PARTS>")]
        inputs: Vec<Tensor>,
        /// Names of the outputs wanted; empty for all.
        #[serde(deserialize_with = "bounded::texts::<_, MAX_PARTS, MAX_INPUT_BYTES>")]
        outputs: Vec<String>,
    },
}

/// One message of a conversation.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Message {
    /// `system`, `user`, `assistant`, `tool`, …: the template decides what it accepts.
    #[serde(deserialize_with = "bounded::text::<_, MAX_INPUT_BYTES>")]
    pub role: String,
    /// The text.
    #[serde(deserialize_with = "bounded::text::<_, MAX_INPUT_BYTES>")]
    pub content: String,
    /// What an assistant called instead of, or after, its text.
    #[serde(deserialize_with = "bounded::list::<_, _, MAX_PARTS>")]
    pub tool_calls: Vec<ToolCall>,
    /// The id of the call that a `tool` message answers; empty in every other message.
    #[serde(deserialize_with = "bounded::text::<_, MAX_INPUT_BYTES>")]
    pub tool_call_id: String,
}

impl Message {
    /// A message of text.
    pub fn text(role: impl Into<String>, content: impl Into<String>) -> Self {
        Self {
            role: role.into(),
            content: content.into(),
            ..Self::default()
        }
    }

    /// A template adds at most 64 tokens around a message or a call.
    fn most_tokens(&self) -> u64 {
        let calls = self.tool_calls.iter().map(|call| as_json(&call.arguments));
        let text = u64::try_from(self.bytes()).unwrap_or(u64::MAX).saturating_add(64);
        calls.fold(text, u64::saturating_add)
    }

    fn bytes(&self) -> usize {
        let calls = self.tool_calls.iter();
        let calls = calls.map(|call| call.id.len() + call.name.len() + call.arguments.len());
        calls.fold(
            self.role.len() + self.content.len() + self.tool_call_id.len(),
            usize::saturating_add,
        )
    }
}

/// A call of a tool, as a model asked for it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ToolCall {
    /// Chosen by whoever keeps the conversation; an answer refers to it.
    #[serde(deserialize_with = "bounded::text::<_, MAX_INPUT_BYTES>")]
    pub id: String,
    /// Which tool.
    #[serde(deserialize_with = "bounded::text::<_, MAX_INPUT_BYTES>")]
    pub name: String,
    /// A JSON object, as text.
    #[serde(deserialize_with = "bounded::text::<_, MAX_INPUT_BYTES>")]
    pub arguments: String,
}

/// The tools of a conversation.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tools {
    /// What may be called.
    #[serde(deserialize_with = "bounded::list::<_, _, MAX_TOOLS>")]
    pub offered: Vec<Tool>,
    /// Whether one has to be.
    pub choice: ToolChoice,
}

/// A tool that a model may call.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tool {
    /// Letters, digits, dashes and underscores.
    #[serde(deserialize_with = "bounded::text::<_, MAX_INPUT_BYTES>")]
    pub name: String,
    /// What it is for, for the model.
    #[serde(deserialize_with = "bounded::text::<_, MAX_INPUT_BYTES>")]
    pub description: String,
    /// The JSON schema of its arguments, as text; empty for an object with any members.
    #[serde(deserialize_with = "bounded::text::<_, MAX_SCHEMA_BYTES>")]
    pub parameters: String,
}

/// Whether a model has to call a tool.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum ToolChoice {
    /// It decides.
    #[default]
    Auto,
    /// It must not; the tools are not shown to it.
    Never,
    /// It must call one of them.
    Required,
    /// It must call this one.
    Named(#[serde(deserialize_with = "bounded::text::<_, MAX_INPUT_BYTES>")] String),
}

/// What an answer has to be.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum AnswerFormat {
    /// Any text.
    #[default]
    Text,
    /// Any JSON object.
    JsonObject,
    /// A JSON value of this schema, as text.
    JsonSchema(#[serde(deserialize_with = "bounded::text::<_, MAX_SCHEMA_BYTES>")] String),
}

/// How tokens are chosen and when to stop.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Generation {
    /// Most tokens to generate.
    pub max_tokens: u64,
    /// Zero picks the most likely token.
    pub temperature: f32,
    /// Nucleus sampling; 1 keeps every token.
    pub top_p: f32,
    /// Keeps the k most likely tokens; 0 keeps all.
    pub top_k: u32,
    /// Keeps tokens at least this likely compared with the likeliest; 0 keeps all.
    pub min_p: f32,
    /// Penalty on tokens by how often they occurred.
    pub frequency_penalty: f32,
    /// Penalty on tokens that occurred.
    pub presence_penalty: f32,
    /// Same seed, same engine, same answer.
    pub seed: u64,
    /// Texts that end the answer and are not part of it.
    #[serde(deserialize_with = "bounded::texts::<_, MAX_STOPS, MAX_STOP>")]
    pub stop: Vec<String>,
    /// What the answer has to be; tokens that would break it are never chosen.
    pub format: AnswerFormat,
    /// How many of the likeliest alternatives to tell with each token, besides its own log-probability; `None` for no
    /// log-probabilities at all. At most [`MAX_TOP_LOGPROBS`].
    pub logprobs: Option<u8>,
    /// What another seller has given of this answer already; by default nothing.
    pub so_far: SoFar,
}

/// The part of an answer that another seller gave before it broke off: the answer goes on after it. It is a part of the
/// prompt for whoever goes on, and counts as input; `max_tokens` counts what is still to come. The hash of the job, and
/// with it the receipt, so names the request that it continues.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SoFar {
    /// The tokens that came, in the model's own vocabulary: the draw of the next token goes on where it was.
    #[serde(deserialize_with = "bounded::list::<_, _, MAX_OUTPUT_TOKENS>")]
    pub ids: Vec<u32>,
    /// The text that came with them. An engine that finds another text for these tokens refuses the job.
    #[serde(deserialize_with = "bounded::text::<_, MAX_INPUT_BYTES>")]
    pub text: String,
    /// The request that broke off; zero where nothing came before.
    pub request: RequestId,
}

impl SoFar {
    /// Whether the answer begins here.
    pub fn is_empty(&self) -> bool {
        self.ids.is_empty() && self.text.is_empty()
    }

    fn most_tokens(&self) -> u64 {
        // An engine of text alone counts the text anew.
        u64::try_from(self.ids.len().max(self.text.len())).unwrap_or(u64::MAX)
    }

    fn check(&self) -> Result<(), BadJob> {
        let count = u64::try_from(self.ids.len()).unwrap_or(u64::MAX);
        if count > MAX_OUTPUT_UNITS || self.text.len() > MAX_INPUT_BYTES {
            return Err(BadJob::new("so_far", "is longer than any answer"));
        }
        Ok(())
    }
}

impl Default for Generation {
    fn default() -> Self {
        Self {
            max_tokens: 256,
            temperature: 1.0,
            top_p: 1.0,
            top_k: 0,
            min_p: 0.0,
            frequency_penalty: 0.0,
            presence_penalty: 0.0,
            seed: 0,
            stop: Vec::new(),
            format: AnswerFormat::Text,
            logprobs: None,
            so_far: SoFar::default(),
        }
    }
}

impl Job {
    /// Checks every bound and number of the job.
    pub fn check(&self) -> Result<(), BadJob> {
        match self {
            Self::Chat {
                messages,
                tools,
                generation,
            } => {
                check_count("messages", messages.len())?;
                if messages.iter().map(|message| message.tool_calls.len()).sum::<usize>() > MAX_PARTS {
                    return Err(BadJob::new("messages", format!("at most {MAX_PARTS} calls of tools")));
                }
                check_bytes("messages", messages.iter().map(Message::bytes))?;
                tools.check()?;
                generation.check()
            }
            Self::Completion { prompt, generation } => {
                check_bytes("prompt", [prompt.len()])?;
                generation.check()
            }
            Self::Embedding { inputs } => {
                check_count("input", inputs.len())?;
                check_bytes("input", inputs.iter().map(String::len))
            }
            Self::Predict { inputs, outputs } => {
                check_count("inputs", inputs.len())?;
                if outputs.len() > MAX_PARTS {
                    return Err(BadJob::new("outputs", format!("at most {MAX_PARTS} names")));
                }
                check_bytes("inputs", inputs.iter().map(|tensor| tensor.data.len()))?;
                inputs.iter().try_for_each(Tensor::check)
            }
        }
    }

    /// Most units of output that the job can ask for.
    pub fn max_output(&self) -> u64 {
        match self {
            Self::Chat { generation, .. } | Self::Completion { generation, .. } => generation.max_tokens,
            Self::Embedding { .. } | Self::Predict { .. } => 0,
        }
    }

    /// An upper bound of the units of input that an honest provider can count. A token stands for at least one byte;
    /// a chat template adds at most 64 tokens around a message.
    pub fn max_input(&self) -> u64 {
        let bytes = |length: usize| u64::try_from(length).unwrap_or(u64::MAX);
        match self {
            Self::Chat {
                messages,
                tools,
                generation,
            } => {
                let said = messages.iter().map(Message::most_tokens);
                let shown = tools.offered.iter().map(Tool::most_tokens);
                // What a template says about tools in general.
                let about_tools: u64 = if tools.offered.is_empty() { 64 } else { 2_048 };
                let begun = generation.so_far.most_tokens();
                said.chain(shown)
                    .fold(about_tools.saturating_add(begun), u64::saturating_add)
            }
            Self::Completion { prompt, generation } => bytes(prompt.len())
                .saturating_add(8)
                .saturating_add(generation.so_far.most_tokens()),
            Self::Embedding { inputs } => inputs.iter().map(|text| bytes(text.len()) + 8).sum(),
            Self::Predict { inputs, .. } => inputs.first().map_or(0, Tensor::rows),
        }
    }

    /// The hash that a receipt carries. The request's id salts it, so that equal requests cannot be linked.
    pub fn hash(&self, request: RequestId) -> Digest {
        let bytes = postcard::to_stdvec(self).unwrap_or_default();
        Digest(keccak256(&[&request.0, &bytes]))
    }
}

/// An upper bound of the tokens of a text inside JSON, which may escape a byte as six.
fn as_json(text: &str) -> u64 {
    u64::try_from(text.len())
        .unwrap_or(u64::MAX)
        .saturating_mul(6)
        .saturating_add(64)
}

impl Tool {
    fn most_tokens(&self) -> u64 {
        let texts = [&self.name, &self.description, &self.parameters];
        texts
            .into_iter()
            .map(|text| as_json(text))
            .fold(64, u64::saturating_add)
    }

    fn bytes(&self) -> usize {
        self.name.len() + self.description.len() + self.parameters.len()
    }
}

impl Tools {
    fn check(&self) -> Result<(), BadJob> {
        if self.offered.len() > MAX_TOOLS {
            return Err(BadJob::new("tools", format!("at most {MAX_TOOLS} tools")));
        }
        let named = |tool: &Tool| {
            let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"_-".contains(&byte);
            (1..=64).contains(&tool.name.len()) && tool.name.bytes().all(plain)
        };
        if !self.offered.iter().all(named) {
            let reason = "a tool's name has 1 to 64 letters, digits, dashes and underscores";
            return Err(BadJob::new("tools", reason));
        }
        if self.offered.iter().any(|tool| tool.parameters.len() > MAX_SCHEMA_BYTES) {
            return Err(BadJob::new(
                "tools",
                format!("a schema has at most {MAX_SCHEMA_BYTES} bytes"),
            ));
        }
        check_bytes("tools", self.offered.iter().map(Tool::bytes))?;
        match &self.choice {
            ToolChoice::Required if self.offered.is_empty() => {
                Err(BadJob::new("tool_choice", "a tool is demanded, and none is offered"))
            }
            ToolChoice::Named(name) if !self.offered.iter().any(|tool| tool.name == *name) => {
                Err(BadJob::new("tool_choice", "names a tool that is not offered"))
            }
            _ => Ok(()),
        }
    }
}

impl Generation {
    fn check(&self) -> Result<(), BadJob> {
        let range = |field, value: f32, low: f32, high: f32| {
            if (low..=high).contains(&value) {
                Ok(())
            } else {
                Err(BadJob::new(field, format!("must be between {low} and {high}")))
            }
        };
        if self.max_tokens == 0 || self.max_tokens > MAX_OUTPUT_UNITS {
            return Err(BadJob::new(
                "max_tokens",
                format!("must be between 1 and {MAX_OUTPUT_UNITS}"),
            ));
        }
        if self.stop.len() > MAX_STOPS || self.stop.iter().any(|stop| stop.is_empty() || stop.len() > MAX_STOP) {
            return Err(BadJob::new("stop", "at most 16 texts of 1 to 256 bytes"));
        }
        if self.logprobs.is_some_and(|top| top > MAX_TOP_LOGPROBS) {
            return Err(BadJob::new("top_logprobs", format!("at most {MAX_TOP_LOGPROBS}")));
        }
        if matches!(&self.format, AnswerFormat::JsonSchema(schema) if schema.len() > MAX_SCHEMA_BYTES) {
            return Err(BadJob::new(
                "response_format",
                format!("a schema has at most {MAX_SCHEMA_BYTES} bytes"),
            ));
        }
        self.so_far.check()?;
        range("temperature", self.temperature, 0.0, 2.0)?;
        range("top_p", self.top_p, 0.0, 1.0)?;
        range("min_p", self.min_p, 0.0, 1.0)?;
        range("frequency_penalty", self.frequency_penalty, -2.0, 2.0)?;
        range("presence_penalty", self.presence_penalty, -2.0, 2.0)
    }
}

/// Messages, which may have as many calls of tools together as there may be messages.
fn messages<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<Message>, D::Error> {
    bounded::list_of(
        deserializer,
        MAX_PARTS,
        |message: &Message| message.tool_calls.len(),
        MAX_PARTS,
    )
}

fn check_count(field: &'static str, count: usize) -> Result<(), BadJob> {
    if count == 0 || count > MAX_PARTS {
        return Err(BadJob::new(
            field,
            format!("must have between 1 and {MAX_PARTS} entries"),
        ));
    }
    Ok(())
}

fn check_bytes(field: &'static str, lengths: impl IntoIterator<Item = usize>) -> Result<(), BadJob> {
    let total = lengths.into_iter().fold(0usize, usize::saturating_add);
    if total > MAX_INPUT_BYTES {
        return Err(BadJob::new(
            field,
            format!("{total} bytes are more than the {MAX_INPUT_BYTES} allowed"),
        ));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bad_numbers_are_refused_with_the_field_named() {
        let generation = Generation {
            temperature: f32::NAN,
            ..Generation::default()
        };
        let job = Job::Completion {
            prompt: "a".into(),
            generation,
        };
        assert_eq!(job.check().unwrap_err().field, "temperature");
    }

    #[test]
    fn a_tensor_must_have_the_data_its_shape_says() {
        let tensor = |shape: Vec<u64>, data| Tensor {
            name: "x".into(),
            datatype: Datatype::Fp32,
            shape,
            data,
        };
        tensor(vec![2, 2], vec![0; 16]).check().unwrap();
        for bad in [vec![2, 3], vec![0, 4], vec![u64::MAX, u64::MAX]] {
            assert!(tensor(bad, vec![0; 16]).check().is_err());
        }
        let strings = Tensor {
            name: "s".into(),
            datatype: Datatype::Bytes,
            shape: vec![1],
            data: vec![9, 0, 0, 0],
        };
        assert!(strings.check().is_err());
    }

    #[test]
    fn equal_jobs_of_two_requests_have_different_hashes() {
        let job = Job::Embedding {
            inputs: vec!["a".into()],
        };
        assert_ne!(job.hash(RequestId([1; 32])), job.hash(RequestId([2; 32])));
    }
}
