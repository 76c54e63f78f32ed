//! A call as JSON.

use serde_json::Value;

use super::{Marks, reader::Call};

/// The calls in a text; `None` when it is something else.
pub(super) fn calls(text: &str, marks: Marks) -> Option<Vec<Call>> {
    let value: Value = serde_json::from_str(text.trim()).ok()?;
    match value {
        Value::Array(list) if marks.list => list.into_iter().map(|one| call(one, marks)).collect(),
        one => call(one, marks).map(|call| vec![call]),
    }
}

fn call(value: Value, marks: Marks) -> Option<Call> {
    let Value::Object(mut fields) = value else {
        return None;
    };
    let name = fields.remove("name")?.as_str()?.to_owned();
    // Some models mix up the two words.
    let arguments = fields
        .remove(marks.arguments)
        .or_else(|| fields.remove("arguments"))
        .or_else(|| fields.remove("parameters"));
    let arguments = match arguments {
        None => "{}".to_owned(),
        // Some models write the arguments as text with JSON in it.
        Some(Value::String(text)) => text,
        Some(value) => value.to_string(),
    };
    (!name.is_empty()).then_some(Call { name, arguments })
}
