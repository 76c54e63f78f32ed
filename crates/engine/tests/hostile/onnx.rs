//! Corrupt ONNX files, made of the shipped one.

use rialto_engine::files::Malformed;

use super::{Case, cut};

fn varint(mut value: u64) -> Vec<u8> {
    let mut bytes = vec![];
    while value >= 0x80 {
        bytes.push((value & 0x7f) as u8 | 0x80);
        value >>= 7;
    }
    bytes.push(value as u8);
    bytes
}

/// A length-delimited field.
fn field(number: u64, content: &[u8]) -> Vec<u8> {
    [&varint(number << 3 | 2), &varint(content.len() as u64)[..], content].concat()
}

fn number(number: u64, value: u64) -> Vec<u8> {
    [varint(number << 3), varint(value)].concat()
}

/// What is hostile about it, itself, and whether that was said.
type Hostile = (&'static str, Vec<u8>, fn(&Malformed) -> bool);

/// The fields of a message: their numbers, and the bytes of each with and without its head.
fn fields(mut message: &[u8]) -> Vec<(u64, &[u8], &[u8])> {
    let take = |bytes: &mut &[u8]| {
        let mut value = 0;
        for shift in (0..).step_by(7) {
            let byte = bytes[0];
            *bytes = &bytes[1..];
            value |= u64::from(byte & 0x7f) << shift;
            if byte < 0x80 {
                break;
            }
        }
        value
    };
    let mut fields = vec![];
    while !message.is_empty() {
        let whole = message;
        let tag = take(&mut message);
        let length = match tag & 7 {
            0 => {
                take(&mut message);
                0
            }
            1 => 8,
            2 => take(&mut message) as usize,
            _ => 4,
        };
        let (content, rest) = message.split_at(length);
        fields.push((tag >> 3, &whole[..whole.len() - rest.len()], content));
        message = rest;
    }
    fields
}

/// The model with its graph replaced.
fn with_graph(model: &[u8], change: impl Fn(&[u8]) -> Vec<u8>) -> Vec<u8> {
    let fields = fields(model).into_iter();
    let changed = fields.map(|(number, whole, content)| match number {
        7 => field(7, &change(content)),
        _ => whole.to_vec(),
    });
    changed.collect::<Vec<_>>().concat()
}

/// The model without a field.
fn without(message: &[u8], number: u64) -> Vec<u8> {
    let fields = fields(message).into_iter().filter(|field| field.0 != number);
    fields.map(|field| field.1.to_vec()).collect::<Vec<_>>().concat()
}

/// The places of a graph where a tensor can be, each as a field of the graph.
fn everywhere(tensor: &[u8]) -> [(&'static str, Vec<u8>); 4] {
    let node = |attribute: &[u8]| field(1, &[field(4, b"Constant"), field(5, attribute)].concat());
    let attribute = node(&field(5, tensor));
    [
        ("a weight", field(5, tensor)),
        ("an attribute", attribute.clone()),
        ("a subgraph", node(&field(6, &attribute))),
        ("a sparse tensor", field(15, &[field(1, tensor), number(3, 8)].concat())),
    ]
}

fn entry(key: &str, value: &[u8]) -> Vec<u8> {
    field(13, &[field(1, key.as_bytes()), field(2, value)].concat())
}

fn tensor(extents: &[u64], code: u64, data: &[u8]) -> Vec<u8> {
    let extents: Vec<u8> = extents.iter().flat_map(|extent| number(1, *extent)).collect();
    [extents, number(2, code), field(8, b"hostile"), data.to_vec()].concat()
}

/// The shipped model with one more tensor in another file.
pub(crate) fn with_external(model: &[u8], location: &str) -> Vec<u8> {
    let data = [entry("location", location.as_bytes()), number(14, 1)].concat();
    with_graph(model, |graph| [graph, &field(5, &tensor(&[2], 1, &data))].concat())
}

/// Names of files that must not be opened.
pub(crate) const TRICKS: [&str; 25] = [
    "",
    ".",
    "..",
    "/",
    "/etc/passwd",
    "//etc/passwd",
    "../weights.bin",
    "../../../../etc/passwd",
    "a/../../weights.bin",
    "a/..",
    "a/./b",
    "./weights.bin",
    "a//b",
    "a/",
    "..\\weights.bin",
    "\\\\host\\share\\weights.bin",
    "C:\\weights.bin",
    "C:weights.bin",
    "file:///etc/passwd",
    "weights.bin\0",
    "weights.bin\0.txt",
    "weights\n.bin",
    "*/_ORT_MEM_ADDR_/*",
    "\u{7f}",
    "weights?.bin",
];

/// Every corrupt file with what must be said of it.
pub(crate) fn cases(model: &[u8]) -> Vec<Case> {
    let mut cases = cut(&model.into(), &[0, 1, 2], |error| {
        matches!(error, Malformed::Truncated { .. } | Malformed::Missing(_))
    });
    cases.extend(lengths(model));
    cases.extend(locations(model));
    cases.extend(shapes(model));
    cases.extend(weights(model));
    cases.extend(structures(model));
    cases
}

/// Fields that say they are longer than the file.
fn lengths(model: &[u8]) -> Vec<Case> {
    let huge = [1 << 20, i32::MAX as u64, 1 << 32, (1 << 63) - 1, 1 << 63, u64::MAX];
    let case = |what: &str, bytes: Vec<u8>| {
        Case::new("count", what.to_owned(), bytes, |error| {
            matches!(error, Malformed::Truncated { .. })
        })
    };
    let mut cases = vec![];
    for length in huge {
        let long = |number: u64| [varint(number << 3 | 2), varint(length)].concat();
        cases.push(case("the file", [model, &long(7)].concat()));
        for number in [1, 5, 11, 12, 15] {
            let bytes = with_graph(model, |graph| [graph, &long(number)].concat());
            cases.push(case("the graph", bytes));
        }
        for number in [4, 7, 9, 10, 13] {
            let hostile = tensor(&[1], 1, &long(number));
            let bytes = with_graph(model, |graph| [graph, &field(5, &hostile)].concat());
            cases.push(case("a tensor", bytes));
        }
    }
    cases
}

fn locations(model: &[u8]) -> Vec<Case> {
    let mut cases = vec![];
    for location in TRICKS
        .iter()
        .map(|location| location.as_bytes())
        .chain([&b"\xff\xfe"[..], &[b'x'; 300]])
    {
        let data = [entry("location", location), number(14, 1)].concat();
        for (place, extra) in everywhere(&tensor(&[2], 1, &data)) {
            let name = format!("{:?} in {place}", String::from_utf8_lossy(location));
            let bytes = with_graph(model, |graph| [graph, &extra].concat());
            cases.push(Case::new("path", name, bytes, |error| {
                matches!(error, Malformed::Location { .. })
            }));
        }
    }
    let undeclared = with_external(model, "weights.bin");
    cases.push(Case::new(
        "path",
        "undeclared".to_owned(),
        undeclared,
        |error| matches!(error, Malformed::Location { problem, .. } if problem.contains("not among")),
    ));
    cases
}

fn shapes(model: &[u8]) -> Vec<Case> {
    let raw = field(9, &[0; 8]);
    let shape: fn(&Malformed) -> bool = |error| matches!(error, Malformed::Shape { .. });
    let size: fn(&Malformed) -> bool = |error| matches!(error, Malformed::Size { .. });
    let elements: fn(&Malformed) -> bool = |error| matches!(error, Malformed::Elements { .. });
    let place: fn(&Malformed) -> bool = |error| matches!(error, Malformed::Place { .. });
    let hostile: [Hostile; 14] = [
        ("negative", tensor(&[u64::MAX], 1, &raw), shape),
        ("most negative", tensor(&[1 << 63, 2], 1, &raw), shape),
        ("product overflows", tensor(&[1 << 32, 1 << 32], 1, &raw), shape),
        ("bytes overflow", tensor(&[1 << 62], 1, &raw), shape),
        ("many dimensions", tensor(&[1; 65], 1, &raw), shape),
        ("zero with data", tensor(&[0, 2], 1, &raw), size),
        ("too large", tensor(&[3], 1, &raw), size),
        ("too small", tensor(&[1], 1, &raw), size),
        ("no data", tensor(&[2], 1, &[]), size),
        ("a huge one without data", tensor(&[1 << 40], 7, &[]), size),
        ("undefined elements", tensor(&[2], 0, &raw), elements),
        ("unknown elements", tensor(&[2], 99, &raw), elements),
        ("raw texts", tensor(&[2], 8, &raw), place),
        (
            "data twice",
            tensor(&[2], 1, &[raw.clone(), raw.clone()].concat()),
            place,
        ),
    ];
    let mut cases = vec![];
    for (what, hostile, expected) in hostile {
        for (place, extra) in everywhere(&hostile) {
            let bytes = with_graph(model, |graph| [graph, &extra].concat());
            let case = Case::new("dimension", format!("{what} in {place}"), bytes, expected);
            cases.push(case.about("hostile".to_owned()));
        }
    }
    cases
}

fn weights(model: &[u8]) -> Vec<Case> {
    let repeated = |bytes: &[u8], bad: &[u8]| [bytes.repeat(5), bad.to_vec(), bytes.repeat(2)].concat();
    let single = repeated(&1f32.to_le_bytes(), &f32::NAN.to_le_bytes());
    let double = repeated(&1f64.to_le_bytes(), &f64::NAN.to_le_bytes());
    let half = repeated(&[0, 0x3c], &[1, 0xfc]);
    let brain = repeated(&[0x80, 0x3f], &[0x81, 0x7f]);
    let halves: Vec<u64> = [[0x3c00; 5].as_slice(), &[0x7e00], &[0x3c00; 2]].concat();
    let halves = halves_packed(&halves);
    let data = [
        ("single, raw", 1, field(9, &single)),
        ("single, typed", 1, field(4, &single)),
        ("double, raw", 11, field(9, &double)),
        ("double, typed", 11, field(10, &double)),
        ("half, raw", 10, field(9, &half)),
        ("half, typed", 10, field(5, &halves)),
        ("bfloat16, raw", 16, field(9, &brain)),
    ];
    let mut cases = vec![];
    for (what, code, data) in data {
        for (place, extra) in everywhere(&tensor(&[8], code, &data)) {
            // NaN in a constant is a mark of what is missing.
            if !["a weight", "a sparse tensor"].contains(&place) {
                continue;
            }
            let bytes = with_graph(model, |graph| [graph, &extra].concat());
            let case = Case::new("weight", format!("{what} in {place}"), bytes, |error| {
                matches!(error, Malformed::NotFinite { .. })
            });
            cases.push(case.about("hostile".to_owned()));
        }
    }
    cases
}

fn structures(model: &[u8]) -> Vec<Case> {
    let mut nested = vec![];
    for _ in 0..2_000 {
        nested = field(1, &[field(4, b"If"), field(5, &field(6, &nested))].concat());
    }
    let structure: fn(&Malformed) -> bool = |error| matches!(error, Malformed::Structure { .. });
    let missing: fn(&Malformed) -> bool = |error| matches!(error, Malformed::Missing(_));
    let depth: fn(&Malformed) -> bool = |error| *error == Malformed::Depth;
    let sparse = [field(1, &tensor(&[1], 7, &field(7, &[1]))), number(3, 1 << 40)].concat();
    let hostile: [Hostile; 14] = [
        ("no version", without(model, 1), missing),
        ("no operators", without(model, 8), missing),
        ("no graph", without(model, 7), missing),
        ("no nodes", with_graph(model, |graph| without(graph, 1)), missing),
        ("no outputs", with_graph(model, |graph| without(graph, 12)), missing),
        ("two graphs", [model, &field(7, b"")].concat(), structure),
        (
            "a node without operator",
            with_graph(model, |graph| [graph, &field(1, b"")].concat()),
            structure,
        ),
        ("nested", with_graph(model, |graph| [graph, &nested].concat()), depth),
        ("a group", [model, &[0x0b]].concat(), structure),
        ("a reserved type", [model, &[0x0f]].concat(), structure),
        ("field zero", [model, &[0x02, 0x00]].concat(), structure),
        ("a long number", [model, &[0x80; 11]].concat(), structure),
        ("a number without end", [model, &[0x08, 0x80]].concat(), |error| {
            matches!(error, Malformed::Truncated { .. })
        }),
        (
            "a huge sparse tensor",
            with_graph(model, |graph| [graph, &field(15, &sparse)].concat()),
            |error| matches!(error, Malformed::Shape { .. }),
        ),
    ];
    hostile
        .map(|(what, bytes, expected)| Case::new("structure", what.to_owned(), bytes, expected))
        .into()
}

fn halves_packed(halves: &[u64]) -> Vec<u8> {
    halves.iter().flat_map(|half| varint(*half)).collect()
}
