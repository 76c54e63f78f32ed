//! Bodies of clients' requests.

use super::{Seed, seed};

pub(super) fn seeds() -> Vec<Seed> {
    vec![
        seed("chat_request", "plain", CHAT),
        seed("chat_request", "tools", TOOLS),
        seed("completion_request", "plain", COMPLETION),
        seed("embedding_request", "one", r#"{"model":"a/b:c","input":"hello"}"#),
        seed(
            "embedding_request",
            "many",
            r#"{"model":"a/b:c","input":["a","b"],"encoding_format":"base64"}"#,
        ),
        seed("batch_lines", "request", BATCH),
        seed("batch_lines", "lines", LINES),
        seed("infer_request", "flat", INFER),
        seed("infer_request", "nested", NESTED),
        seed("infer_values", "half", [9, 0, 0x3c, 0, 0x7e]),
        seed("infer_values", "texts", [12, 1, 0, 0, 0, b'a', 0, 0, 0, 0]),
    ]
}

const CHAT: &str = r#"{"model":"a/b:c","messages":[{"role":"system","content":"be brief"},{"role":"user","content":[{"type":"text","text":"hello"}]}],"max_tokens":5,"temperature":0.5,"top_p":0.9,"stop":["\n"],"seed":1,"stream":true,"stream_options":{"include_usage":true}}"#;
const TOOLS: &str = r#"{"model":"a/b:c","messages":[{"role":"user","content":"what is the weather?"}],"tools":[{"type":"function","function":{"name":"weather","description":"tells it","parameters":{"type":"object","properties":{"city":{"type":"string"}},"required":["city"]}}}],"tool_choice":"auto"}"#;
const COMPLETION: &str = r#"{"model":"a/b:c","prompt":"once upon a time","max_tokens":5,"stop":"."}"#;
const BATCH: &str = r#"{"input_file_id":"file-1","endpoint":"/v1/completions","completion_window":"24h","metadata":{"a":"b"},"output_expires_after":{"anchor":"created_at","seconds":3600}}"#;
const LINES: &str = r#"{"custom_id":"a","method":"POST","url":"/v1/completions","body":{"model":"a/b:c","prompt":"once"}}
{"custom_id":"b","method":"POST","url":"/v1/embeddings","body":{"model":"a/b:c","input":"x"}}
"#;
const INFER: &str = r#"{"id":"1","inputs":[{"name":"input","shape":[2,2],"datatype":"FP32","data":[1,2.5,-3e-2,4]},{"name":"t","shape":[1],"datatype":"BYTES","data":["hello"]}],"outputs":[{"name":"label"}]}"#;
const NESTED: &str = r#"{"inputs":[{"name":"input","shape":[2,2],"datatype":"INT64","data":[[1,2],[3,4]]}]}"#;
