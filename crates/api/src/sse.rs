//! Server-sent events, as OpenAI's clients read them.

use serde::Serialize;

/// The event that ends a stream that went well.
pub const DONE: &str = "data: [DONE]\n\n";

/// A comment that keeps intermediaries from closing a silent connection.
pub const KEEP_ALIVE: &str = ": keep-alive\n\n";

/// One event with a JSON document. JSON has no raw line ends, so one `data:` line always suffices.
pub fn event<T: Serialize>(value: &T) -> String {
    let mut text = String::from("data: ");
    text.push_str(&serde_json::to_string(value).unwrap_or_else(|_| "{}".to_owned()));
    text.push_str("\n\n");
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_is_one_line_of_data_and_an_empty_one() {
        let text = event(&serde_json::json!({"delta": "a\n\ndata: b"}));
        assert_eq!(text, "data: {\"delta\":\"a\\n\\ndata: b\"}\n\n");
        assert_eq!(text.matches('\n').count(), 2);
    }
}
