//! `POST /v1/chat/completions`.

mod answer;
mod message;
#[cfg(test)]
mod tests;

pub use answer::{ChatChoice, ChatChunk, ChatChunkChoice, ChatCompletion, ChatDelta, ChatMessage};
pub use message::ChatTurn;

use serde::Deserialize;

use super::{
    Sampling,
    format::{self, Format},
    tool::{self, Choice, Toolbox},
};
use crate::{BadRequest, parse, wish::Wish};

/// Most alternatives of each token.
const MAX_TOP_LOGPROBS: u8 = 20;

/// The request, checked.
#[derive(Debug, Clone, PartialEq)]
pub struct ChatRequest {
    /// `publisher/name:tag`, a model id, or an alias.
    pub model: String,
    /// The conversation, oldest first; never empty.
    pub messages: Vec<ChatTurn>,
    /// What the model may call.
    pub tools: Toolbox,
    /// What the answer has to be.
    pub format: Format,
    /// How many alternatives to tell with each token's log-probability; `None` for no log-probabilities.
    pub logprobs: Option<u8>,
    /// How tokens are chosen and the answer is delivered.
    pub sampling: Sampling,
}

#[derive(Deserialize)]
struct Fields {
    model: String,
    messages: Vec<message::Field>,
    #[serde(default)]
    functions: Wish,
    #[serde(default)]
    function_call: Wish,
    response_format: Option<format::Field>,
    logprobs: Option<bool>,
    top_logprobs: Option<u64>,
    modalities: Option<Vec<String>>,
    #[serde(default)]
    audio: Wish,
    #[serde(default)]
    web_search_options: Wish,
}

impl ChatRequest {
    /// Reads a body, and refuses what is not supported and would change the answer.
    pub fn parse(body: &[u8]) -> Result<Self, BadRequest> {
        let fields: Fields = parse(body)?;
        let sampling: Sampling = parse(body)?;
        let tools: tool::Fields = parse(body)?;
        sampling.check()?;
        fields.refuse_others()?;
        let logprobs = logprobs(fields.logprobs, fields.top_logprobs)?;
        let tools = tools.check()?;
        let format = fields.response_format.map_or(Ok(Format::Text), format::Field::check)?;
        if !tools.offered.is_empty() && tools.choice == Choice::Auto && format != Format::Text {
            return Err(BadRequest::unsupported(
                "response_format",
                "an answer that must be JSON leaves the model no choice to call a tool; set 'tool_choice' to 'none', \
                 'required' or a function",
            ));
        }
        Ok(Self {
            model: fields.model,
            messages: message::turns(fields.messages)?,
            tools,
            format,
            logprobs,
            sampling,
        })
    }
}

impl Fields {
    fn refuse_others(&self) -> Result<(), BadRequest> {
        const OLD: &str = "use 'tools' and 'tool_choice'";
        self.functions.refuse("functions", &[], OLD)?;
        self.function_call.refuse("function_call", &["none", "auto"], OLD)?;
        self.audio.refuse("audio", &[], "only text is supported")?;
        self.web_search_options
            .refuse("web_search_options", &[], "web search is not supported")?;
        let mut modalities = self.modalities.iter().flatten();
        if modalities.any(|one| one != "text") {
            return Err(BadRequest::unsupported("modalities", "only text is supported"));
        }
        Ok(())
    }
}

fn logprobs(wanted: Option<bool>, top: Option<u64>) -> Result<Option<u8>, BadRequest> {
    const AT: &str = "top_logprobs";
    match (wanted, top) {
        (Some(true), None) => Ok(Some(0)),
        (Some(true), Some(top)) => match u8::try_from(top) {
            Ok(top) if top <= MAX_TOP_LOGPROBS => Ok(Some(top)),
            _ => Err(BadRequest::value(
                AT,
                format!("must be between 0 and {MAX_TOP_LOGPROBS}"),
            )),
        },
        (_, None) => Ok(None),
        (_, Some(_)) => Err(BadRequest::value(AT, "allowed only with 'logprobs': true")),
    }
}
