//! Model files of a few hundred bytes.

use super::{Seed, seed};

pub(super) fn seeds() -> Vec<Seed> {
    vec![
        seed(
            "gguf",
            "llama",
            gguf(&LLAMA, &[("norm", &[8], 0, 32), ("embedding", &[32, 2], 8, 68)]),
        ),
        seed(
            "gguf",
            "mixed",
            gguf(&UNEVEN, &[("a", &[256], 12, 144), ("b", &[2, 3, 1, 1], 30, 12)]),
        ),
        seed("safetensors", "two", safetensors(TWO, 20)),
        seed("safetensors", "eight-bits", safetensors(EIGHT_BITS, 7)),
        seed("onnx", "raw", onnx(&field(9, &[0; 8]))),
        seed("onnx", "typed", onnx(&field(4, &[0; 8]))),
    ]
}

const TWO: &str = r#"{"__metadata__":{"format":"pt"},"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]},"b":{"dtype":"BF16","shape":[2,3],"data_offsets":[8,20]}}"#;
const EIGHT_BITS: &str = r#"{"a":{"dtype":"F8_E4M3","shape":[2],"data_offsets":[0,2]},"b":{"dtype":"BOOL","shape":[],"data_offsets":[2,3]},"c":{"dtype":"F4","shape":[8],"data_offsets":[3,7]}}"#;

/// A value of a GGUF file's metadata.
enum Value {
    Text(&'static str),
    Number(u32),
    Flag(bool),
    Texts(&'static [&'static str]),
    Numbers(&'static [u32]),
    Floats(&'static [f32]),
}

static LLAMA: [(&str, Value); 10] = [
    ("general.architecture", Value::Text("llama")),
    ("general.alignment", Value::Number(32)),
    ("llama.context_length", Value::Number(128)),
    ("llama.block_count", Value::Number(2)),
    ("llama.embedding_length", Value::Number(64)),
    ("llama.attention.head_count", Value::Number(4)),
    ("llama.attention.head_count_kv", Value::Number(2)),
    ("tokenizer.ggml.tokens", Value::Texts(&["<s>", "a", "b"])),
    ("tokenizer.ggml.scores", Value::Floats(&[0.0, -1.0, -2.0])),
    ("tokenizer.ggml.add_bos_token", Value::Flag(true)),
];

static UNEVEN: [(&str, Value); 7] = [
    ("general.architecture", Value::Text("other")),
    ("other.context_length", Value::Number(1)),
    ("other.block_count", Value::Number(3)),
    ("other.embedding_length", Value::Number(1)),
    ("other.attention.head_count_kv", Value::Numbers(&[0, 1, 2])),
    ("other.attention.key_length", Value::Number(8)),
    ("split.count", Value::Number(1)),
];

fn length(bytes: usize) -> [u8; 8] {
    u64::try_from(bytes).unwrap_or(u64::MAX).to_le_bytes()
}

fn text(text: &str) -> Vec<u8> {
    [&length(text.len()), text.as_bytes()].concat()
}

fn list(kind: u32, count: usize, elements: Vec<u8>) -> (u32, Vec<u8>) {
    (
        9,
        [kind.to_le_bytes().to_vec(), length(count).to_vec(), elements].concat(),
    )
}

fn value(value: &Value) -> (u32, Vec<u8>) {
    match value {
        Value::Text(content) => (8, text(content)),
        Value::Number(number) => (4, number.to_le_bytes().to_vec()),
        Value::Flag(flag) => (7, vec![u8::from(*flag)]),
        Value::Texts(texts) => list(8, texts.len(), texts.iter().flat_map(|content| text(content)).collect()),
        Value::Numbers(numbers) => list(4, numbers.len(), numbers.iter().flat_map(|n| n.to_le_bytes()).collect()),
        Value::Floats(floats) => list(6, floats.len(), floats.iter().flat_map(|f| f.to_le_bytes()).collect()),
    }
}

/// Name, extents, element type and bytes of each tensor.
fn gguf(keys: &[(&str, Value)], tensors: &[(&str, &[u64], u32, u64)]) -> Vec<u8> {
    let mut file = b"GGUF\x03\0\0\0".to_vec();
    file.extend(length(tensors.len()));
    file.extend(length(keys.len()));
    for (name, content) in keys {
        let (kind, content) = value(content);
        file.extend(text(name));
        file.extend(kind.to_le_bytes());
        file.extend(content);
    }
    let mut start = 0u64;
    let mut end = 0;
    for (name, extents, code, bytes) in tensors {
        file.extend(text(name));
        file.extend(u32::try_from(extents.len()).unwrap_or(0).to_le_bytes());
        file.extend(extents.iter().flat_map(|extent| extent.to_le_bytes()));
        file.extend(code.to_le_bytes());
        file.extend(start.to_le_bytes());
        end = start.saturating_add(*bytes);
        start = end.next_multiple_of(32);
    }
    file.resize(file.len().next_multiple_of(32), 0);
    file.resize(file.len().saturating_add(usize::try_from(end).unwrap_or(0)), 0);
    file
}

fn safetensors(header: &str, data: usize) -> Vec<u8> {
    [text(header), vec![0; data]].concat()
}

/// A length-delimited field of protobuf; numbers and lengths of these seeds are small.
fn field(number: u8, content: &[u8]) -> Vec<u8> {
    let mut bytes = vec![number << 3 | 2];
    let mut left = content.len();
    while left >= 0x80 {
        bytes.push(u8::try_from(left & 0x7f).unwrap_or(0) | 0x80);
        left >>= 7;
    }
    bytes.push(u8::try_from(left).unwrap_or(0));
    bytes.extend_from_slice(content);
    bytes
}

/// A model with one weight of two elements in single precision, a constant, and a subgraph.
fn onnx(data: &[u8]) -> Vec<u8> {
    let tensor = [&[8, 2, 16, 1], field(8, b"weight").as_slice(), data].concat();
    let attribute = field(5, &[field(1, b"value"), field(5, &tensor)].concat());
    let constant = field(1, &[field(2, b"c"), field(4, b"Constant"), attribute].concat());
    let inner = field(5, &[field(1, b"body"), field(6, &constant)].concat());
    let outer = field(1, &[field(4, b"If"), inner].concat());
    let graph = [
        constant,
        outer,
        field(2, b"g"),
        field(5, &tensor),
        field(12, &field(1, b"y")),
    ]
    .concat();
    [
        &[8, 8],
        field(2, b"seed").as_slice(),
        &field(7, &graph),
        &field(8, &[16, 17]),
    ]
    .concat()
}
