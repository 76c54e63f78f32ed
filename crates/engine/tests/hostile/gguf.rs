//! Corrupt GGUF files, made of a shipped one.

use std::rc::Rc;

use rialto_engine::files::Malformed;

use super::{Bytes, Case, cut};

/// Where something is in the shipped file.
struct Key {
    name: String,
    /// Its length.
    at: usize,
    kind: u32,
    value: usize,
}

struct Tensor {
    name: String,
    at: usize,
    dimensions: usize,
    code: usize,
    offset: usize,
    start: usize,
    bytes: usize,
    kind: u32,
}

struct Map {
    keys: Vec<Key>,
    tensors: Vec<Tensor>,
    data: usize,
}

fn u32_at(file: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(file[at..at + 4].try_into().unwrap())
}

fn u64_at(file: &[u8], at: usize) -> usize {
    u64::from_le_bytes(file[at..at + 8].try_into().unwrap()) as usize
}

fn text_at(file: &[u8], at: usize) -> (String, usize) {
    let end = at + 8 + u64_at(file, at);
    (String::from_utf8(file[at + 8..end].to_vec()).unwrap(), end)
}

fn map(file: &[u8]) -> Map {
    let (mut keys, mut tensors, mut at) = (vec![], vec![], 24);
    for _ in 0..u64_at(file, 16) {
        let (name, kind) = text_at(file, at);
        let (begin, value) = (at, kind + 4);
        at = end_of(file, u32_at(file, kind), value);
        keys.push(Key {
            name,
            at: begin,
            kind: u32_at(file, kind),
            value,
        });
    }
    for _ in 0..u64_at(file, 8) {
        let (name, count) = text_at(file, at);
        let dimensions = count + 4;
        let code = dimensions + 8 * u32_at(file, count) as usize;
        let weights: usize = (dimensions..code).step_by(8).map(|at| u64_at(file, at)).product();
        let kind = u32_at(file, code);
        tensors.push(Tensor {
            name,
            at,
            dimensions,
            code,
            offset: code + 4,
            start: u64_at(file, code + 4),
            bytes: match kind {
                0 => weights * 4,
                2 => weights / 32 * 18,
                8 => weights / 32 * 34,
                other => panic!("a shipped file has no tensor of type {other}"),
            },
            kind,
        });
        at = code + 12;
    }
    let data = at.next_multiple_of(32);
    Map { keys, tensors, data }
}

/// Where a value ends.
fn end_of(file: &[u8], kind: u32, at: usize) -> usize {
    match kind {
        0 | 1 | 7 => at + 1,
        2 | 3 => at + 2,
        4..=6 => at + 4,
        8 => at + 8 + u64_at(file, at),
        9 => {
            let element = u32_at(file, at);
            (0..u64_at(file, at + 4)).fold(at + 12, |at, _| end_of(file, element, at))
        }
        _ => at + 8,
    }
}

/// Every corrupt file with what must be said of it.
pub(crate) fn cases(file: &Rc<[u8]>) -> Vec<Case> {
    let map = map(file);
    let mut cases = cut(file, &[0, 3, 4, 8, 16, 24, map.data - 32, map.data], |error| {
        use Malformed::{Count, Magic, Place, Truncated};
        matches!(error, Truncated { .. } | Count { .. } | Place { .. } | Magic(_))
    });
    cases.extend(counts(file, &map));
    cases.extend(shapes(file, &map));
    cases.extend(places(file, &map));
    cases.extend(names_and_values(file, &map));
    cases.extend(weights(file, &map));
    cases
}

fn patched(file: &Rc<[u8]>, at: usize, bytes: &[u8]) -> Bytes {
    Bytes::Patched(file.clone(), at, bytes.to_vec())
}

fn counts(file: &Rc<[u8]>, map: &Map) -> Vec<Case> {
    let list = map
        .keys
        .iter()
        .find(|key| key.name == "tokenizer.ggml.token_type")
        .unwrap();
    let texts = map.keys.iter().find(|key| key.name == "tokenizer.ggml.tokens").unwrap();
    let places = [
        ("number of tensors", 8),
        ("number of keys", 16),
        ("length of a key", map.keys[3].at),
        ("length of a text", map.keys[0].value),
        ("length of a list", list.value + 4),
        ("length of a list of texts", texts.value + 4),
        ("length of a text in a list", texts.value + 12),
        ("length of a tensor's name", map.tensors[5].at),
    ];
    let huge = [
        1 << 31,
        1 << 32,
        1 << 61,
        (1 << 63) - 1,
        1 << 63,
        (1 << 63) + 8,
        u64::MAX - 7,
        u64::MAX,
    ];
    let case = |(what, at): (&str, usize), count: u64| {
        let bytes = patched(file, at, &count.to_le_bytes());
        Case::new("count", format!("{what} {count}"), bytes, |error| {
            matches!(error, Malformed::Count { .. } | Malformed::Truncated { .. })
        })
    };
    let product = places.iter().flat_map(|place| huge.map(|count| case(*place, count)));
    product.collect()
}

fn shapes(file: &Rc<[u8]>, map: &Map) -> Vec<Case> {
    let mut cases = vec![];
    for tensor in &map.tensors {
        let mut extents = vec![("zero", 0u64), ("negative", u64::MAX), ("overflowing", 1 << 62)];
        if tensor.kind != 0 {
            extents.push(("no whole block", 33));
        }
        for (what, extent) in extents {
            let bytes = patched(file, tensor.dimensions, &extent.to_le_bytes());
            let about = tensor.name.clone();
            let case = Case::new("dimension", format!("{what} in {about}"), bytes, |error| {
                matches!(error, Malformed::Shape { .. })
            });
            cases.push(case.about(about));
        }
    }
    for count in [0u32, 5, 1 << 16, u32::MAX] {
        let bytes = patched(file, map.tensors[0].dimensions - 4, &count.to_le_bytes());
        cases.push(Case::new("dimension", format!("{count} of them"), bytes, |error| {
            matches!(error, Malformed::Shape { .. })
        }));
    }
    cases
}

fn places(file: &Rc<[u8]>, map: &Map) -> Vec<Case> {
    let mut cases = vec![];
    for tensor in map.tensors.iter().skip(1) {
        let offsets = [
            ("is not aligned", tensor.start as u64 + 4),
            ("behind the end", (file.len() - map.data).next_multiple_of(32) as u64),
            ("behind the end", u64::MAX - 31),
            ("overlaps", tensor.start as u64 - 32),
        ];
        for (what, offset) in offsets {
            let bytes = patched(file, tensor.offset, &offset.to_le_bytes());
            cases.push(Case::new(
                "place",
                format!("{} {what}", tensor.name),
                bytes,
                move |error| matches!(error, Malformed::Place { problem, .. } if problem.contains(what)),
            ));
        }
        for code in [4u32, 5, 31, 33, 43, 1 << 31, u32::MAX] {
            let bytes = patched(file, tensor.code, &code.to_le_bytes());
            let case = Case::new("element type", format!("{code} in {}", tensor.name), bytes, |error| {
                matches!(error, Malformed::Elements { .. })
            });
            cases.push(case.about(tensor.name.clone()));
        }
    }
    cases
}

fn names_and_values(file: &Rc<[u8]>, map: &Map) -> Vec<Case> {
    let mut cases = vec![];
    let mut push = |name: &str, at: usize, bytes: &[u8], expected: fn(&Malformed) -> bool| {
        cases.push(Case::new("value", name.to_owned(), patched(file, at, bytes), expected));
    };
    push("magic", 0, b"GGML", |error| matches!(error, Malformed::Magic(_)));
    for version in [0u32, 1, 4, 0x0300_0000, u32::MAX] {
        push("version", 4, &version.to_le_bytes(), |error| {
            matches!(error, Malformed::Version(_))
        });
    }
    // `blk.1.attn_norm.weight` under the name of `blk.0.attn_norm.weight`, and a key under another's.
    let twice = map
        .tensors
        .iter()
        .find(|tensor| tensor.name.starts_with("blk.1."))
        .unwrap();
    push("tensor twice", twice.at + 8, b"blk.0.", |error| {
        matches!(error, Malformed::Duplicate { .. })
    });
    let twice = map
        .keys
        .iter()
        .find(|key| key.name == "tokenizer.ggml.eos_token_id")
        .unwrap();
    push("key twice", twice.at + 8, b"tokenizer.ggml.eot_token_id", |error| {
        matches!(error, Malformed::Duplicate { .. })
    });
    for key in &map.keys {
        push("type of a value", key.value - 4, &[13, 0, 0, 0], |error| {
            matches!(error, Malformed::Value { .. })
        });
        push("key that is no text", key.at + 8, &[0xff], |error| {
            matches!(error, Malformed::Text { .. })
        });
        push("key with a zero", key.at + 8, &[0], |error| {
            matches!(error, Malformed::Text { .. })
        });
        if key.kind == 7 {
            push("flag of two", key.value, &[2], |error| {
                matches!(error, Malformed::Value { .. })
            });
        }
        if key.kind == 9 {
            push("list of lists", key.value, &[9, 0, 0, 0], |error| {
                matches!(error, Malformed::Depth | Malformed::Count { .. })
            });
        }
        let counted = ["llama.context_length", "llama.block_count", "llama.embedding_length"];
        if counted.contains(&key.name.as_str()) {
            for number in [0u32, u32::MAX] {
                push("number", key.value, &number.to_le_bytes(), |error| {
                    matches!(error, Malformed::Value { .. })
                });
            }
            push(
                "number with a sign",
                key.value - 4,
                &[5, 0, 0, 0, 0, 0, 0, 0x80],
                |error| matches!(error, Malformed::Value { .. }),
            );
        }
    }
    cases
}

fn weights(file: &Rc<[u8]>, map: &Map) -> Vec<Case> {
    let mut cases = vec![];
    for tensor in &map.tensors {
        let (block, bad): (usize, &[&[u8]]) = match tensor.kind {
            0 => (4, &[&[0, 0, 0xc0, 0x7f], &[0, 0, 0x80, 0xff]]),
            2 => (18, &[&[0, 0x7e], &[0, 0xfc]]),
            _ => (34, &[&[1, 0x7c], &[0, 0x7c]]),
        };
        let blocks = tensor.bytes / block;
        for (index, bad) in [0, blocks / 2, blocks - 1].iter().zip(bad.iter().cycle()) {
            let offset = index * block;
            let bytes = patched(file, map.data + tensor.start + offset, bad);
            let name = format!("{bad:?} at {offset} of {}", tensor.name);
            let case = Case::new(
                "weight",
                name,
                bytes,
                move |error| matches!(error, Malformed::NotFinite { offset: found, .. } if *found == offset as u64),
            );
            cases.push(case.about(tensor.name.clone()));
        }
    }
    cases
}

/// A file of the smallest metadata keys and of the smallest tensors that there are: what costs most memory for each of
/// its bytes.
pub(crate) fn heaviest(keys: usize, tensors: usize) -> Vec<u8> {
    let mut file = b"GGUF\x03\0\0\0".to_vec();
    file.extend((tensors as u64).to_le_bytes());
    file.extend((keys as u64).to_le_bytes());
    for index in 0..keys {
        let name = format!("{index:x}");
        file.extend((name.len() as u64).to_le_bytes());
        file.extend(name.as_bytes());
        file.extend([0, 0, 0, 0, 7]);
    }
    for index in 0..tensors {
        let name = format!("{index:x}");
        file.extend((name.len() as u64).to_le_bytes());
        file.extend(name.as_bytes());
        file.extend(1u32.to_le_bytes());
        file.extend(1u64.to_le_bytes());
        file.extend(24u32.to_le_bytes());
        file.extend(0u64.to_le_bytes());
    }
    file
}
