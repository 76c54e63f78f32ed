//! Calls of tools: how a family of models writes them, how they are found in what a model writes, and how a model is made
//! to write one.
//!
//! Which family a model belongs to is read off its own chat template, which shows the model how calls look.

mod hermes;
mod json;
mod llama3;
mod mistral;
mod reader;

pub(super) use reader::{Event, Reader};

use llguidance::api::TopLevelGrammar;
use rialto_engine::Error;
use rialto_protocol::job::{Tool, ToolChoice, Tools};
use serde_json::{Value, json};

use super::grammar::without_idle_space;

/// How a family of models writes calls.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Style {
    /// `<tool_call>{"name": …, "arguments": …}</tool_call>`: Hermes, Qwen, and ours.
    Hermes,
    /// `[TOOL_CALLS][{"name": …, "arguments": …}]`.
    Mistral,
    /// The whole answer is `{"name": …, "parameters": …}`, perhaps after `<|python_tag|>`.
    Llama3,
}

/// The texts around calls.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Marks {
    /// Before a call, or before the list of calls. Empty where a call is the whole answer.
    pub(super) open: &'static str,
    /// After it; empty where the answer ends.
    pub(super) close: &'static str,
    /// What the arguments are called.
    pub(super) arguments: &'static str,
    /// Whether the calls come as a list.
    pub(super) list: bool,
}

impl Style {
    /// The style that a template shows; `None` when it knows no tools.
    pub(super) fn of(template: &str) -> Option<Self> {
        if !template.contains("tools") {
            return None;
        }
        if template.contains(hermes::MARKS.open) {
            Some(Self::Hermes)
        } else if template.contains(mistral::MARKS.open) {
            Some(Self::Mistral)
        } else if template.contains("\"parameters\"") || template.contains("<|python_tag|>") {
            Some(Self::Llama3)
        } else {
            None
        }
    }

    /// The texts around its calls.
    pub(super) fn marks(self) -> Marks {
        match self {
            Self::Hermes => hermes::MARKS,
            Self::Mistral => mistral::MARKS,
            Self::Llama3 => llama3::MARKS,
        }
    }

    /// The form of an answer that has to be a call; `None` when the model decides. `is_token` says whether a text is one
    /// control token of the vocabulary, which a form names in another way than text.
    pub(super) fn form(self, tools: &Tools, is_token: &dyn Fn(&str) -> bool) -> Result<Option<TopLevelGrammar>, Error> {
        let allowed: Vec<&Tool> = match &tools.choice {
            ToolChoice::Auto | ToolChoice::Never => return Ok(None),
            ToolChoice::Required => tools.offered.iter().collect(),
            ToolChoice::Named(name) => tools.offered.iter().filter(|tool| tool.name == *name).collect(),
        };
        let marks = self.marks();
        let call =
            json!({ "anyOf": allowed.into_iter().map(|tool| schema(tool, marks)).collect::<Result<Vec<_>, _>>()? });
        let schema = without_idle_space(if marks.list {
            json!({ "type": "array", "items": call, "minItems": 1, "maxItems": 1 })
        } else {
            call
        });
        let mark = |text: &str| match text {
            "" => String::new(),
            text if is_token(text) => text.to_owned(),
            text => json!(text).to_string(),
        };
        let form = match self {
            Self::Hermes => format!(
                "start: {} \"\\n\" call \"\\n\" {}\ncall: %json {schema}",
                mark(marks.open),
                mark(marks.close)
            ),
            Self::Mistral | Self::Llama3 => format!("start: {} call\ncall: %json {schema}", mark(marks.open)),
        };
        Ok(Some(TopLevelGrammar::from_lark(form)))
    }
}

/// The schema of a call of this tool.
fn schema(tool: &Tool, marks: Marks) -> Result<Value, Error> {
    let arguments = match tool.parameters.as_str() {
        "" => json!({ "type": "object" }),
        text => serde_json::from_str(text)
            .map_err(|error| Error::bad("tools", format!("the parameters of `{}`: {error}", tool.name)))?,
    };
    Ok(json!({
        "type": "object",
        "properties": { "name": { "const": tool.name }, (marks.arguments): arguments },
        "required": ["name", marks.arguments],
        "additionalProperties": false,
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_template_tells_its_style() {
        for (template, style) in [
            ("{% if tools %}<tool_call>{% endif %}", Some(Style::Hermes)),
            ("{% if tools %}[TOOL_CALLS]{% endif %}", Some(Style::Mistral)),
            (
                "{% if tools %}{\"name\": x, \"parameters\": y}{% endif %}",
                Some(Style::Llama3),
            ),
            ("{{ messages }}", None),
            ("{% if tools %}in some way of its own{% endif %}", None),
        ] {
            assert_eq!(Style::of(template), style, "{template}");
        }
    }

    #[test]
    fn only_what_has_to_be_a_call_has_a_form() {
        let offered = vec![Tool {
            name: "look".into(),
            ..Tool::default()
        }];
        let form = |choice| {
            let tools = Tools {
                offered: offered.clone(),
                choice,
            };
            Style::Hermes.form(&tools, &|_| false).unwrap()
        };
        assert!(form(ToolChoice::Auto).is_none() && form(ToolChoice::Never).is_none());
        assert!(form(ToolChoice::Required).is_some());
        let broken = Tools {
            offered: vec![Tool {
                name: "look".into(),
                parameters: "{".into(),
                ..Tool::default()
            }],
            choice: ToolChoice::Required,
        };
        assert!(matches!(
            Style::Hermes.form(&broken, &|_| false),
            Err(Error::BadRequest(bad)) if bad.field == "tools"
        ));
    }
}
