//! What a job asks of a model, in tokens: its prompt, its form, and where an answer that another seller began goes on.

use llama_cpp_2::token::LlamaToken;
use llguidance::api::TopLevelGrammar;
use rialto_engine::{Error, TextStream};
use rialto_protocol::job::{AnswerFormat, Generation, Job, Message, ToolChoice, Tools};

use super::{
    continuation,
    grammar::{self, Grammar},
    model::Model,
    tools::{Reader, Style},
};

/// What a generation was asked for.
pub(super) struct Asked {
    /// The prompt, and after it what came of the answer so far.
    pub(super) prompt: Vec<LlamaToken>,
    pub(super) generation: Generation,
    /// Most tokens that both the request and the context allow.
    pub(super) max_output: u64,
    /// Where the form of the answer stands.
    pub(super) grammar: Option<Grammar>,
    /// What of the answer waits to be shown.
    pub(super) text: TextStream,
    /// What of the answer may become a call.
    pub(super) calls: Option<Reader>,
}

impl Asked {
    /// Checks a job against the model and counts it.
    pub(super) fn of(model: &Model, job: Job) -> Result<Self, Error> {
        let asked = match job {
            Job::Chat {
                messages,
                tools,
                generation,
            } => Self::chat(model, &messages, &tools, generation)?,
            Job::Completion { prompt, generation } => {
                model.check_bytes(prompt.len())?;
                let prompt = model.tokenize(&prompt);
                Self::new(model, prompt, generation, "prompt")?
            }
            Job::Embedding { .. } | Job::Predict { .. } => {
                return Err(Error::bad("model", "this model generates text"));
            }
        };
        asked.after_so_far(model)
    }

    fn chat(model: &Model, messages: &[Message], tools: &Tools, generation: Generation) -> Result<Self, Error> {
        let template = model.template();
        let template = template.ok_or_else(|| Error::bad("model", "this model continues texts, it does not chat"))?;
        model.check_bytes(messages.iter().map(|message| message.content.len()).sum())?;
        let style = style(model, tools)?;
        let shown = style.map_or(&[][..], |_| tools.offered.as_slice());
        let prompt = model.tokenize_parts(&template.render(messages, shown)?);
        let form = style.map(|style| style.form(tools, &|text| model.is_control(text)));
        let form = form.transpose()?.flatten().map(|form| model.grammar(form, "tools"));
        let mut asked = Self::new(model, prompt, generation, "messages")?;
        if let Some(form) = form {
            asked.grammar = Some(form?);
        }
        asked.calls = style.map(Reader::new);
        Ok(asked)
    }

    fn new(model: &Model, prompt: Vec<LlamaToken>, generation: Generation, field: &'static str) -> Result<Self, Error> {
        if prompt.is_empty() {
            return Err(Error::bad(field, "is empty"));
        }
        model.check_tokens(u64::try_from(prompt.len()).unwrap_or(u64::MAX))?;
        let form = match &generation.format {
            AnswerFormat::Text => None,
            AnswerFormat::JsonObject => Some(serde_json::json!({ "type": "object" })),
            AnswerFormat::JsonSchema(schema) => {
                Some(serde_json::from_str(schema).map_err(|error| Error::bad("response_format", error.to_string()))?)
            }
        };
        let form = form.map(|schema| TopLevelGrammar::from_json_schema(grammar::without_idle_space(schema)));
        let grammar = form.map(|form| model.grammar(form, "response_format")).transpose()?;
        Ok(Self {
            prompt,
            max_output: 0,
            grammar,
            text: TextStream::new(generation.stop.clone()),
            calls: None,
            generation,
        })
    }

    /// Goes to where the answer goes on, which is its beginning unless another seller has given a part of it.
    fn after_so_far(mut self, model: &Model) -> Result<Self, Error> {
        continuation::follow(model, &mut self)?;
        let count = u64::try_from(self.prompt.len()).unwrap_or(u64::MAX);
        let room = u64::from(model.limit).saturating_sub(count);
        self.max_output = self.generation.max_tokens.min(room);
        Ok(self)
    }

    /// Checks a claimed answer to this: tokens of the vocabulary, and no more than the context holds.
    pub(super) fn with_answer(self, model: &Model, answer: &[u32]) -> Result<(Self, Vec<LlamaToken>), Error> {
        let tokens: Option<Vec<LlamaToken>> = answer.iter().map(|id| model.token(*id)).collect();
        let tokens = tokens.filter(|tokens| !tokens.is_empty());
        let tokens = tokens.ok_or_else(|| Error::bad("answer", "is empty, or has a token that the model lacks"))?;
        let count = self.prompt.len().saturating_add(tokens.len()).saturating_sub(1);
        model.check_tokens(u64::try_from(count).unwrap_or(u64::MAX))?;
        Ok((self, tokens))
    }
}

/// How the model writes calls, when tools are offered and may be called.
fn style(model: &Model, tools: &Tools) -> Result<Option<Style>, Error> {
    if tools.offered.is_empty() || tools.choice == ToolChoice::Never {
        return Ok(None);
    }
    let style = model.style();
    style
        .map(Some)
        .ok_or_else(|| Error::bad("tools", "this model's chat template knows no tools"))
}
