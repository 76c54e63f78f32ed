//! JSON that is passed on as text: schemas, and arguments of calls.

use serde_json::{Map, Value};

use crate::BadRequest;

/// A JSON object as text without needless space. Its members stay in the client's order, because a model writes them in
/// that order. `at` names the field, `most` is how many bytes it may have.
pub fn object(text: &str, at: &str, most: usize) -> Result<String, BadRequest> {
    let compact = compact(text);
    if compact.len() > most {
        return Err(BadRequest::value(at, format!("at most {most} bytes of JSON")));
    }
    // Also refuses what a parser that only skips it lets pass: too deep, a half of a character, a number out of range.
    match serde_json::from_str::<Map<String, Value>>(&compact) {
        Ok(_) => Ok(compact),
        Err(error) => Err(BadRequest::value(at, format!("must be a JSON object: {error}"))),
    }
}

/// Takes space between the parts away.
fn compact(text: &str) -> String {
    let (mut quoted, mut escaped) = (false, false);
    let kept = text.chars().filter(|next| {
        if quoted {
            quoted = escaped || *next != '"';
            escaped = !escaped && *next == '\\';
            return true;
        }
        quoted = *next == '"';
        !matches!(*next, ' ' | '\t' | '\n' | '\r')
    });
    kept.collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn only_space_between_parts_goes_and_the_order_stays() {
        let text = "{ \"z\" : \"a \\\" b\\\\\" ,\n\t\"a\": [ 1 , 2 ] }";
        assert_eq!(object(text, "x", 100).unwrap(), r#"{"z":"a \" b\\","a":[1,2]}"#);
    }

    #[test]
    fn what_is_no_object_or_too_much_is_refused_by_name() {
        let deep = format!("{}1{}", r#"{"a":"#.repeat(200), "}".repeat(200));
        let half = r#"{"a":"\ud800"}"#;
        for bad in [
            "",
            "[]",
            "1",
            "\"{}\"",
            "null",
            "{",
            "{} {}",
            half,
            &deep,
            "{\"a\":1e999}",
            "{1 2}",
        ] {
            let fault = object(bad, "tools[3].function.parameters", 10_000).unwrap_err();
            assert_eq!(fault.param.as_deref(), Some("tools[3].function.parameters"), "{bad}");
        }
        assert!(object("{\"a\":1}", "x", 7).is_ok() && object("{\"a\":1}", "x", 6).is_err());
    }

    proptest! {
        #[test]
        fn compact_text_means_the_same(key in ".{0,8}", text in ".{0,20}", number: i64) {
            let value = serde_json::json!({ key: [text, { "n": number }] });
            let spaced = serde_json::to_string_pretty(&value).unwrap();
            let compact = object(&spaced, "x", 1_000).unwrap();
            prop_assert_eq!(&compact, &value.to_string());
        }
    }
}
