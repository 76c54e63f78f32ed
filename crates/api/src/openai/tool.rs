//! Tools: what a client offers, what a model calls, and what a client sends back of it.

use std::collections::HashSet;

use serde::{
    Deserialize, Deserializer, Serialize,
    de::{MapAccess, Visitor, value::MapAccessDeserializer},
};
use serde_json::value::RawValue;

use crate::{BadRequest, json};

/// Most tools of a request.
pub const MAX_TOOLS: usize = 128;

/// Most bytes of a JSON schema, without needless space.
pub const MAX_SCHEMA_BYTES: usize = 256 << 10;

/// The tools of a request, checked.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Toolbox {
    /// What may be called; each name occurs once.
    pub offered: Vec<Function>,
    /// Whether one has to be.
    pub choice: Choice,
    /// Whether the answer may have several calls.
    pub parallel: bool,
}

/// A function that a model may call.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Function {
    /// 1 to 64 letters, digits, dashes and underscores.
    pub name: String,
    /// What it is for, for the model.
    pub description: String,
    /// The JSON schema of its arguments, as text; empty for an object with any members.
    pub parameters: String,
}

/// Whether a model has to call a tool.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Choice {
    /// It decides.
    #[default]
    Auto,
    /// It must not.
    Never,
    /// It must call one.
    Required,
    /// It must call this one.
    Named(String),
}

/// What a request says of tools.
#[derive(Debug, Default, Deserialize)]
pub(super) struct Fields {
    tools: Option<Vec<ToolField>>,
    tool_choice: Option<ChoiceField>,
    parallel_tool_calls: Option<bool>,
}

#[derive(Debug, Deserialize)]
struct ToolField {
    #[serde(rename = "type")]
    kind: String,
    function: Option<FunctionField>,
}

#[derive(Debug, Deserialize)]
struct FunctionField {
    name: String,
    description: Option<String>,
    parameters: Option<Box<RawValue>>,
    // Arguments that have to fit always do; only the type is checked.
    #[serde(rename = "strict")]
    _strict: Option<bool>,
}

#[derive(Debug)]
enum ChoiceField {
    Word(String),
    Tool(ChosenField),
}

#[derive(Debug, Deserialize)]
struct ChosenField {
    #[serde(rename = "type")]
    kind: String,
    function: Option<NameField>,
}

#[derive(Debug, Deserialize)]
struct NameField {
    name: String,
}

struct ChoiceVisitor;

impl<'de> Visitor<'de> for ChoiceVisitor {
    type Value = ChoiceField;

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("'none', 'auto', 'required' or a function")
    }

    fn visit_str<E>(self, text: &str) -> Result<ChoiceField, E> {
        Ok(ChoiceField::Word(text.to_owned()))
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<ChoiceField, A::Error> {
        ChosenField::deserialize(MapAccessDeserializer::new(map)).map(ChoiceField::Tool)
    }
}

impl<'de> Deserialize<'de> for ChoiceField {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(ChoiceVisitor)
    }
}

impl Fields {
    /// Checks what is offered and demanded.
    pub(super) fn check(self) -> Result<Toolbox, BadRequest> {
        let tools = self.tools.unwrap_or_default();
        if tools.len() > MAX_TOOLS {
            return Err(BadRequest::value("tools", format!("at most {MAX_TOOLS} tools")));
        }
        let tools = tools.into_iter().enumerate();
        let offered: Vec<Function> = tools
            .map(|(index, tool)| tool.check(&format!("tools[{index}]")))
            .collect::<Result<_, _>>()?;
        let mut names = HashSet::new();
        if let Some(index) = offered.iter().position(|tool| !names.insert(tool.name.as_str())) {
            let reason = "another tool has the same name";
            return Err(BadRequest::value(format!("tools[{index}].function.name"), reason));
        }
        let choice = self
            .tool_choice
            .map_or(Ok(Choice::Auto), |choice| choice.check(&names))?;
        Ok(Toolbox {
            choice,
            parallel: self.parallel_tool_calls.unwrap_or(true),
            offered,
        })
    }
}

impl ToolField {
    fn check(self, at: &str) -> Result<Function, BadRequest> {
        must_be_function(&self.kind, at)?;
        let function = self
            .function
            .ok_or_else(|| BadRequest::missing(format!("{at}.function")))?;
        check_name(&function.name, &format!("{at}.function.name"))?;
        let schema = |raw: Box<RawValue>| {
            let at = format!("{at}.function.parameters");
            json::object(raw.get(), &at, MAX_SCHEMA_BYTES)
        };
        Ok(Function {
            name: function.name,
            description: function.description.unwrap_or_default(),
            parameters: function.parameters.map(schema).transpose()?.unwrap_or_default(),
        })
    }
}

impl ChoiceField {
    fn check(self, offered: &HashSet<&str>) -> Result<Choice, BadRequest> {
        const AT: &str = "tool_choice";
        match self {
            Self::Word(word) => match word.as_str() {
                "auto" => Ok(Choice::Auto),
                "none" => Ok(Choice::Never),
                "required" if offered.is_empty() => {
                    Err(BadRequest::value(AT, "a call is demanded, and no tools are offered"))
                }
                "required" => Ok(Choice::Required),
                other => Err(BadRequest::value(
                    AT,
                    format!("'{other}' is not 'none', 'auto', 'required' or a function"),
                )),
            },
            Self::Tool(tool) => {
                must_be_function(&tool.kind, AT)?;
                let function = tool
                    .function
                    .ok_or_else(|| BadRequest::missing(format!("{AT}.function")))?;
                if !offered.contains(function.name.as_str()) {
                    return Err(BadRequest::value(
                        format!("{AT}.function.name"),
                        "no tool of this name is offered",
                    ));
                }
                Ok(Choice::Named(function.name))
            }
        }
    }
}

/// Refuses tools of types that came later.
pub(super) fn must_be_function(kind: &str, at: &str) -> Result<(), BadRequest> {
    if kind == "function" {
        return Ok(());
    }
    let reason = format!("'{kind}' is not supported; only 'function' is");
    Err(BadRequest::unsupported(format!("{at}.type"), reason))
}

/// Names of tools and of schemas go into prompts and into what a client's programs call.
pub(super) fn check_name(name: &str, at: &str) -> Result<(), BadRequest> {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"_-".contains(&byte);
    if (1..=64).contains(&name.len()) && name.bytes().all(plain) {
        return Ok(());
    }
    Err(BadRequest::value(
        at,
        "1 to 64 letters, digits, dashes and underscores are allowed",
    ))
}

/// A call, in an answer and in what a client sends back of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ToolCall {
    /// Unique; the answer of the tool refers to it.
    pub id: String,
    /// Always `function`.
    #[serde(rename = "type")]
    pub kind: String,
    /// What is called.
    pub function: FunctionCall,
}

/// What is called.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FunctionCall {
    /// Which function.
    pub name: String,
    /// A JSON object, as text. In an answer that was cut off, the beginning of one.
    pub arguments: String,
}

/// What is new of a call, in a piece of an answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ToolCallDelta {
    /// Counts the calls of the answer from 0.
    pub index: u32,
    /// In the first piece of a call.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub id: Option<String>,
    /// In the first piece of a call: `function`.
    #[serde(default, rename = "type", skip_serializing_if = "Option::is_none")]
    pub kind: Option<String>,
    /// What is called.
    pub function: FunctionDelta,
}

/// What is new of what is called.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FunctionDelta {
    /// In the first piece of a call.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Text to append to the arguments.
    pub arguments: String,
}

impl ToolCallDelta {
    /// The first piece of a call.
    pub fn begin(index: u32, id: String, name: String) -> Self {
        Self {
            index,
            id: Some(id),
            kind: Some("function".into()),
            function: FunctionDelta {
                name: Some(name),
                arguments: String::new(),
            },
        }
    }

    /// A later piece of a call.
    pub fn more(index: u32, arguments: String) -> Self {
        Self {
            index,
            id: None,
            kind: None,
            function: FunctionDelta { name: None, arguments },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::parse;

    fn read(body: &str) -> Result<Toolbox, BadRequest> {
        parse::<Fields>(body.as_bytes())?.check()
    }

    fn with_choice(choice: &str) -> Result<Choice, BadRequest> {
        let tools = r#"[{"type":"function","function":{"name":"look"}}]"#;
        read(&format!(r#"{{"tools":{tools},"tool_choice":{choice}}}"#)).map(|tools| tools.choice)
    }

    #[test]
    fn an_offered_function_keeps_the_order_of_its_schema() {
        let read = read(
            r#"{"tools":[{"type":"function","function":{"name":"look","description":"Looks.","strict":true,
            "parameters":{ "type":"object", "properties":{"z":{"type":"string"}, "a":{}} }}}],"parallel_tool_calls":false}"#,
        )
        .unwrap();
        assert_eq!(
            read,
            Toolbox {
                offered: vec![Function {
                    name: "look".into(),
                    description: "Looks.".into(),
                    parameters: r#"{"type":"object","properties":{"z":{"type":"string"},"a":{}}}"#.into(),
                }],
                choice: Choice::Auto,
                parallel: false,
            }
        );
    }

    #[test]
    fn nothing_offered_is_nothing_asked() {
        for body in [
            "{}",
            r#"{"tools":null,"tool_choice":null}"#,
            r#"{"tools":[],"tool_choice":"none"}"#,
        ] {
            let tools = read(body).unwrap();
            assert!(tools.offered.is_empty() && tools.parallel, "{body}");
        }
    }

    #[test]
    fn a_choice_is_a_word_or_a_function() {
        assert_eq!(with_choice("\"auto\"").unwrap(), Choice::Auto);
        assert_eq!(with_choice("\"none\"").unwrap(), Choice::Never);
        assert_eq!(with_choice("\"required\"").unwrap(), Choice::Required);
        let named = with_choice(r#"{"type":"function","function":{"name":"look"}}"#);
        assert_eq!(named.unwrap(), Choice::Named("look".into()));
        for (choice, param) in [
            ("\"any\"", "tool_choice"),
            ("7", "tool_choice"),
            (r#"{"type":"function"}"#, "tool_choice.function"),
            (r#"{"type":"function","function":{}}"#, "tool_choice.function.name"),
            (
                r#"{"type":"function","function":{"name":"wait"}}"#,
                "tool_choice.function.name",
            ),
            (r#"{"type":"allowed_tools","allowed_tools":{}}"#, "tool_choice.type"),
        ] {
            assert_eq!(
                with_choice(choice).unwrap_err().param.as_deref(),
                Some(param),
                "{choice}"
            );
        }
        let bare = read(r#"{"tool_choice":"required"}"#).unwrap_err();
        assert_eq!(bare.param.as_deref(), Some("tool_choice"));
    }

    #[test]
    fn a_tool_that_cannot_be_offered_is_named_to_the_field() {
        let good = r#"{"type":"function","function":{"name":"look"}}"#;
        for (tool, param) in [
            ("{}", "tools[1].type"),
            ("7", "tools[1]"),
            (r#"{"type":"custom","custom":{}}"#, "tools[1].type"),
            (r#"{"type":"function"}"#, "tools[1].function"),
            (r#"{"type":"function","function":{}}"#, "tools[1].function.name"),
            (
                r#"{"type":"function","function":{"name":"a b"}}"#,
                "tools[1].function.name",
            ),
            (good, "tools[1].function.name"),
            (
                r#"{"type":"function","function":{"name":"b","strict":"yes"}}"#,
                "tools[1].function.strict",
            ),
            (
                r#"{"type":"function","function":{"name":"b","parameters":[]}}"#,
                "tools[1].function.parameters",
            ),
            (
                r#"{"type":"function","function":{"name":"b","parameters":"{}"}}"#,
                "tools[1].function.parameters",
            ),
        ] {
            let fault = read(&format!(r#"{{"tools":[{good},{tool}]}}"#)).unwrap_err();
            assert_eq!(fault.param.as_deref(), Some(param), "{tool}");
        }
        let many: Vec<String> = (0..129)
            .map(|index| format!(r#"{{"type":"function","function":{{"name":"t{index}"}}}}"#))
            .collect();
        let fault = read(&format!(r#"{{"tools":[{}]}}"#, many.join(","))).unwrap_err();
        assert_eq!(fault.param.as_deref(), Some("tools"));
        let large = format!(
            r#"{{"tools":[{{"type":"function","function":{{"name":"b","parameters":{{"a":"{}"}}}}}}]}}"#,
            "x".repeat(MAX_SCHEMA_BYTES)
        );
        let fault = read(&large).unwrap_err();
        assert_eq!(fault.param.as_deref(), Some("tools[0].function.parameters"));
    }

    #[test]
    fn pieces_of_a_call_look_as_clients_expect() {
        let begin = serde_json::to_value(ToolCallDelta::begin(0, "call_1".into(), "look".into())).unwrap();
        let expected = serde_json::json!({
            "index": 0, "id": "call_1", "type": "function", "function": {"name": "look", "arguments": ""}
        });
        assert_eq!(begin, expected);
        let more = serde_json::to_value(ToolCallDelta::more(0, "{}".into())).unwrap();
        assert_eq!(more, serde_json::json!({"index": 0, "function": {"arguments": "{}"}}));
    }
}
