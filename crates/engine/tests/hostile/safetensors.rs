//! Corrupt safetensors files, made of a small one.

use rialto_engine::files::Malformed;

use super::{Case, cut};

/// What a header says of a tensor.
#[derive(Clone)]
struct Tensor {
    name: String,
    dtype: &'static str,
    shape: String,
    start: i128,
    end: i128,
}

impl Tensor {
    fn json(&self) -> String {
        let Self {
            name,
            dtype,
            shape,
            start,
            end,
        } = self;
        format!(r#""{name}":{{"dtype":"{dtype}","shape":[{shape}],"data_offsets":[{start},{end}]}}"#)
    }
}

/// Ten tensors of five types, as a small network would have.
fn tensors() -> Vec<Tensor> {
    let mut start = 0;
    let mut tensors = vec![];
    for layer in 0..2 {
        for (part, dtype, bytes) in [
            ("q", "F32", 4),
            ("k", "F16", 2),
            ("v", "BF16", 2),
            ("norm", "F64", 8),
            ("ids", "I64", 8),
        ] {
            let end = start + 8 * 16 * bytes;
            tensors.push(Tensor {
                name: format!("layer.{layer}.{part}"),
                dtype,
                shape: "8,16".into(),
                start,
                end,
            });
            start = end;
        }
    }
    tensors
}

fn header(tensors: &[Tensor]) -> String {
    let entries: Vec<String> = tensors.iter().map(Tensor::json).collect();
    format!(r#"{{"__metadata__":{{"format":"pt"}},{}}}"#, entries.join(","))
}

fn with_header(header: &str) -> Vec<u8> {
    let data = tensors().last().unwrap().end as usize;
    let mut file = (header.len() as u64).to_le_bytes().to_vec();
    file.extend(header.as_bytes());
    file.resize(file.len() + data, 0);
    file
}

/// An honest file.
pub(crate) fn honest() -> Vec<u8> {
    with_header(&header(&tensors()))
}

/// Every corrupt file with what must be said of it.
pub(crate) fn cases() -> Vec<Case> {
    let file = honest();
    let data = 8 + header(&tensors()).len();
    let mut cases = cut(&file.clone().into(), &[0, 1, 7, 8, 9, data - 1, data], |error| {
        matches!(error, Malformed::Truncated { .. } | Malformed::Place { .. })
    });
    for length in [
        data as u64 * 2,
        1 << 31,
        1 << 32,
        1 << 63,
        (1 << 63) - 1,
        u64::MAX - 7,
        u64::MAX,
    ] {
        let bytes = [&length.to_le_bytes()[..], &file[8..]].concat();
        cases.push(Case::new("count", format!("a header of {length}"), bytes, |error| {
            matches!(
                error,
                Malformed::Truncated { .. } | Malformed::Structure { .. } | Malformed::Place { .. }
            )
        }));
    }
    for length in 1..40 {
        let bytes = [&(data as u64 - 8 - length).to_le_bytes()[..], &file[8..]].concat();
        cases.push(Case::new(
            "count",
            format!("a header shorter by {length}"),
            bytes,
            |error| matches!(error, Malformed::Structure { .. }),
        ));
    }
    cases.extend(entries());
    cases.extend(structures());
    cases.extend(weights(&file, data));
    cases
}

/// One thing changed in one tensor, for each of them.
fn entries() -> Vec<Case> {
    let honest = tensors();
    let mut cases = vec![];
    for index in 0..honest.len() {
        let mut push = |category, what: &str, expected: fn(&Malformed) -> bool, change: &dyn Fn(&mut Tensor)| {
            let mut tensors = honest.clone();
            change(&mut tensors[index]);
            let name = format!("{what} in {}", honest[index].name);
            let case = Case::new(category, name, with_header(&header(&tensors)), expected);
            cases.push(case.about(tensors[index].name.clone()));
        };
        let shape = |error: &Malformed| matches!(error, Malformed::Shape { .. });
        for extents in [
            "0,16",
            "8,0",
            "4294967296,4294967296",
            "9223372036854775807,3",
            "1,1,1,1,1,1,1,1,1",
        ] {
            push("dimension", extents, shape, &|tensor| tensor.shape = extents.into());
        }
        let size = |error: &Malformed| matches!(error, Malformed::Size { .. });
        for extents in ["8", "8,17", ""] {
            push("dimension", extents, size, &|tensor| tensor.shape = extents.into());
        }
        let place = |error: &Malformed| matches!(error, Malformed::Place { .. });
        push("place", "ends before it begins", place, &|tensor| {
            std::mem::swap(&mut tensor.start, &mut tensor.end);
        });
        push("place", "behind the end", place, &|tensor| {
            tensor.start += 1 << 40;
            tensor.end += 1 << 40;
        });
        let elements = |error: &Malformed| matches!(error, Malformed::Elements { .. });
        for dtype in ["F33", "f32", ""] {
            push("element type", dtype, elements, &|tensor| tensor.dtype = dtype);
        }
    }
    cases
}

/// The JSON itself.
fn structures() -> Vec<Case> {
    let honest = header(&tensors());
    let mut cases = vec![];
    let mut push = |what: &str, header: String, expected: fn(&Malformed) -> bool| {
        cases.push(Case::new("structure", what.to_owned(), with_header(&header), expected));
    };
    let structure = |error: &Malformed| matches!(error, Malformed::Structure { .. });
    for token in [
        ":",
        "{",
        "}",
        "[",
        "]",
        ",",
        "\"dtype\"",
        "\"shape\"",
        "\"data_offsets\"",
    ] {
        push(token, honest.replacen(token, "", 3), |error| {
            matches!(
                error,
                Malformed::Structure { .. } | Malformed::Magic(_) | Malformed::Value { .. } | Malformed::Depth
            )
        });
    }
    for number in ["-1", "1.5", "1e3", "18446744073709551616", "null", "\"8\"", "[8]"] {
        push(number, honest.replacen("8,16", number, 1), |error| {
            matches!(error, Malformed::Structure { .. } | Malformed::Depth)
        });
    }
    push(
        "unknown field",
        honest.replacen("\"dtype\"", "\"x\":1,\"dtype\"", 1),
        structure,
    );
    push(
        "field twice",
        honest.replacen("\"dtype\"", "\"dtype\":\"U8\",\"dtype\"", 1),
        structure,
    );
    push("a second object", format!("{honest}{{}}"), structure);
    push("nested", honest.replacen("8,16", &"[".repeat(1 << 16), 1), |error| {
        *error == Malformed::Depth
    });
    push("tensor twice", honest.replacen("layer.1.q", "layer.0.q", 1), |error| {
        matches!(error, Malformed::Duplicate { .. })
    });
    push(
        "metadata twice",
        honest.replacen('{', "{\"__metadata__\":{},", 1),
        |error| matches!(error, Malformed::Duplicate { .. }),
    );
    push("metadata of numbers", honest.replacen("\"pt\"", "1", 1), |error| {
        matches!(error, Malformed::Value { .. })
    });
    for name in ["", "\\u006c", &"x".repeat(513)] {
        push("name", honest.replacen("layer.0.q", name, 1), |error| {
            matches!(error, Malformed::Text { .. })
        });
    }
    push("no tensors", "{}".to_owned(), |error| {
        matches!(error, Malformed::Missing(_))
    });
    push("another format", "[]".to_owned(), |error| {
        matches!(error, Malformed::Magic(_))
    });
    cases
}

fn weights(file: &[u8], data: usize) -> Vec<Case> {
    let mut cases = vec![];
    for tensor in tensors() {
        let bad: &[u8] = match tensor.dtype {
            "F32" => &[0, 0, 0xc0, 0x7f],
            "F16" => &[0, 0x7e],
            "BF16" => &[0xc0, 0xff],
            "F64" => &[1, 0, 0, 0, 0, 0, 0xf0, 0x7f],
            _ => continue,
        };
        for index in [0, 1, 63, 126, 127] {
            let offset = index * bad.len();
            let mut bytes = file.to_vec();
            let at = data + tensor.start as usize + offset;
            bytes[at..at + bad.len()].copy_from_slice(bad);
            let case = Case::new(
                "weight",
                format!("NaN at {offset} of {}", tensor.name),
                bytes,
                move |error| matches!(error, Malformed::NotFinite { offset: found, .. } if *found == offset as u64),
            );
            cases.push(case.about(tensor.name.clone()));
        }
    }
    cases
}

/// A file of the smallest tensors that there are: what costs most memory for each of its bytes.
pub(crate) fn heaviest(count: usize) -> Vec<u8> {
    let entry = |index: usize| {
        format!(
            r#""{index:x}":{{"dtype":"U8","shape":[],"data_offsets":[{index},{}]}}"#,
            index + 1
        )
    };
    let header = format!("{{{}}}", (0..count).map(entry).collect::<Vec<_>>().join(","));
    let mut file = (header.len() as u64).to_le_bytes().to_vec();
    file.extend(header.as_bytes());
    file.resize(file.len() + count, 0);
    file
}
