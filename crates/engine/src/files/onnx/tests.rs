//! Graphs of a few bytes, and what must not pass.

use super::*;

/// A length-delimited field.
fn field(number: u8, content: &[u8]) -> Vec<u8> {
    [
        &varint(u64::from(number) << 3 | 2),
        &varint(content.len() as u64)[..],
        content,
    ]
    .concat()
}

fn number(number: u8, value: u64) -> Vec<u8> {
    [varint(u64::from(number) << 3), varint(value)].concat()
}

fn varint(mut value: u64) -> Vec<u8> {
    let mut bytes = vec![];
    while value >= 0x80 {
        bytes.push(u8::try_from(value & 0x7f).unwrap() | 0x80);
        value >>= 7;
    }
    bytes.push(u8::try_from(value).unwrap());
    bytes
}

/// A tensor of shape [2] in single precision, with these fields.
fn tensor(fields: &[Vec<u8>]) -> Vec<u8> {
    [number(1, 2), number(2, 1), field(8, b"weight"), fields.concat()].concat()
}

fn entry(key: &str, value: &str) -> Vec<u8> {
    field(13, &[field(2, value.as_bytes()), field(1, key.as_bytes())].concat())
}

fn external(location: &str) -> Vec<u8> {
    tensor(&[entry("location", location), number(14, 1)])
}

/// A node with this field.
fn node(inner: &[u8]) -> Vec<u8> {
    field(1, &[field(4, b"Constant"), inner.to_vec()].concat())
}

/// A whole model of one node, with these fields in its graph.
fn model(graph: &[u8]) -> Vec<u8> {
    let graph = [node(&[]), field(12, b""), graph.to_vec()].concat();
    [number(1, 8), field(8, b""), field(7, &graph)].concat()
}

/// A model with one weight, eight bytes in another file.
pub(crate) fn with_external(location: &str, offset: u64, length: u64) -> Vec<u8> {
    let place = [
        entry("offset", &offset.to_string()),
        entry("length", &length.to_string()),
    ];
    model(&field(
        5,
        &tensor(&[entry("location", location), place.concat(), number(14, 1)]),
    ))
}

fn fault_of(model: &[u8]) -> String {
    check(model, &mut |_| Ok(())).unwrap_err().to_string()
}

/// What is wrong with a weight.
fn fault(tensor: &[u8]) -> String {
    fault_of(&model(&field(5, tensor)))
}

fn passes(tensor: &[u8]) {
    check(&model(&field(5, tensor)), &mut |_| Ok(())).unwrap();
}

#[test]
fn tensors_in_other_files_are_found_wherever_they_are() {
    let tensor = external("weights.bin");
    let in_attribute = node(&field(5, &field(5, &tensor)));
    let subgraph = node(&field(5, &field(6, &in_attribute)));
    let sparse = field(15, &field(2, &tensor));
    for graph in [field(5, &tensor), in_attribute, subgraph, sparse] {
        assert_eq!(locations(&field(7, &graph)).unwrap(), ["weights.bin"]);
    }
    let function = field(25, &field(7, &[field(4, b"f"), field(5, &field(10, &tensor))].concat()));
    assert_eq!(locations(&function).unwrap(), ["weights.bin"]);
}

#[test]
fn the_flag_or_the_entries_alone_count_as_external() {
    assert!(fault(&tensor(&[number(14, 1)])).contains("which has no name"));
    let location = entry("location", "x");
    let only_entry = field(7, &field(5, &tensor(std::slice::from_ref(&location))));
    assert_eq!(locations(&only_entry).unwrap(), ["x"]);
    let twice = tensor(&[location.clone(), location.clone()]);
    assert!(fault(&twice).contains("an entry is there twice"));
    let both = tensor(&[location.clone(), field(9, &[0; 8])]);
    assert!(fault(&both).contains("is in two places"));
    let odd = tensor(&[location, entry("basepath", "/etc")]);
    assert!(fault(&odd).contains("an entry that is not understood"));
    let inside = field(7, &field(5, &tensor(&[field(9, &[0; 8])])));
    assert_eq!(locations(&inside).unwrap(), Vec::<String>::new());
}

#[test]
fn names_that_lead_out_of_the_folder_are_refused() {
    for location in [
        "/etc/passwd",
        "../x",
        "a/../../x",
        "C:\\x",
        "",
        "x\0y",
        "*/_ORT_MEM_ADDR_/*",
    ] {
        let error = check(&with_external(location, 0, 8), &mut |_| Ok(())).unwrap_err();
        assert!(matches!(error, Malformed::Location { .. }), "{location}: {error}");
    }
    let wrong = check(&with_external("x", 0, 12), &mut |_| Ok(())).unwrap_err();
    assert!(
        matches!(
            wrong,
            Malformed::Size {
                expected: 8,
                found: 12,
                ..
            }
        ),
        "{wrong}"
    );
}

#[test]
fn what_is_cut_short_or_nested_without_end_is_refused() {
    let whole = model(&field(5, &tensor(&[field(9, &[0; 8])])));
    check(&whole, &mut |_| Ok(())).unwrap();
    for length in 0..whole.len() {
        let error = check(&whole[..length], &mut |_| Ok(())).unwrap_err();
        let expected = matches!(error, Malformed::Truncated { .. } | Malformed::Missing(_));
        assert!(expected, "{length} bytes: {error}");
    }
    let mut graph = vec![];
    for _ in 0..200 {
        graph = node(&field(5, &field(6, &graph)));
    }
    assert_eq!(locations(&field(7, &graph)), Err(Malformed::Depth));
}

#[test]
fn a_model_has_a_graph_with_nodes_and_outputs_once() {
    assert_eq!(fault_of(&[]), "it has no graph");
    let graph = |graph: &[u8]| [number(1, 8), field(8, b""), field(7, graph)].concat();
    assert_eq!(fault_of(&graph(&field(12, b""))), "it has no nodes");
    assert_eq!(fault_of(&graph(&node(&[]))), "it has no outputs");
    assert!(fault_of(&graph(&field(1, b""))).contains("a node without an operator"));
    let twice = [model(&[]), field(7, b"")].concat();
    assert!(fault_of(&twice).contains("may be there once is there twice"));
    assert!(fault_of(&[0x0b]).contains("of a type that ONNX does not have"));
    let unversioned = field(7, &[node(&[]), field(12, b"")].concat());
    assert_eq!(fault_of(&unversioned), "it has no version of the format");
}

#[test]
fn data_is_what_the_shape_says() {
    passes(&tensor(&[field(9, &[0; 8])]));
    passes(&tensor(&[field(4, &[0; 8])]));
    let typed = |code: u64, fields: &[Vec<u8>]| [number(1, 3), number(2, code), fields.concat()].concat();
    passes(&typed(7, &[field(7, &[1, 2, 3])]));
    passes(&typed(7, &[number(7, 1), number(7, 1 << 60), field(7, &[3])]));
    passes(&typed(8, &[field(6, b"a"), field(6, b""), field(6, b"b")]));
    passes(&typed(22, &[field(9, &[0; 2])]));
    passes(&typed(22, &[field(5, &[1, 2])]));
    passes(&typed(14, &[field(4, &[0; 24])]));
    passes(&[number(1, 0), number(2, 1), field(8, b"empty")].concat());

    assert!(fault(&tensor(&[])).contains("is 0 long, its shape asks for 2"));
    assert!(fault(&tensor(&[field(9, &[0; 4])])).contains("is 4 long, its shape asks for 8"));
    assert!(fault(&tensor(&[field(4, &[0; 12])])).contains("is 3 long, its shape asks for 2"));
    assert!(fault(&tensor(&[field(4, &[0; 9])])).contains("ends inside a number"));
    assert!(fault(&tensor(&[field(7, &[1, 2])])).contains("a field of another type"));
    assert!(fault(&tensor(&[field(4, &[0; 8]), field(9, &[0; 8])])).contains("in two places"));
    assert!(fault(&tensor(&[field(9, &[0; 8]), field(9, &[0; 8])])).contains("there twice"));
    assert!(fault(&typed(8, &[field(6, b"a")])).contains("is 1 long, its shape asks for 3"));
    assert!(fault(&typed(8, &[field(9, b"abc")])).contains("no raw form"));
    assert!(fault(&typed(0, &[])).contains("the unknown element type 0"));
    let shape = |extents: &[u64]| {
        let extents: Vec<u8> = extents.iter().flat_map(|extent| number(1, *extent)).collect();
        fault(&[extents, number(2, 1), field(9, &[0; 8])].concat())
    };
    assert!(shape(&[u64::MAX]).contains("a negative dimension"));
    assert!(shape(&[1 << 32, 1 << 32]).contains("more elements than can be counted"));
    assert!(shape(&[1 << 62]).contains("more bytes than can be counted"));
    assert!(shape(&[0]).contains("is 8 long, its shape asks for 0"));
    assert!(shape(&[1; 65]).contains("too many dimensions"));
}

#[test]
fn a_sparse_tensor_cannot_grow_without_bound() {
    let values = tensor(&[field(9, &[0; 8])]);
    let sparse = |extents: &[u64]| {
        let extents: Vec<u8> = extents.iter().flat_map(|extent| number(3, *extent)).collect();
        model(&field(15, &[field(1, &values), extents].concat()))
    };
    check(&sparse(&[1_000, 1_000]), &mut |_| Ok(())).unwrap();
    for extents in [&[1 << 40][..], &[1 << 40, 1 << 40], &[u64::MAX]] {
        assert!(fault_of(&sparse(extents)).contains("too many elements"));
    }
}

#[test]
fn nan_is_refused_among_the_weights_and_allowed_as_a_mark() {
    let nan = f32::NAN.to_le_bytes();
    let bytes = [&1f32.to_le_bytes()[..], &nan].concat();
    assert!(fault(&tensor(&[field(9, &bytes)])).contains("`weight` has a weight that is not a finite number"));
    assert!(fault(&tensor(&[field(4, &bytes)])).contains("a finite number"));
    let single = |bytes: &[u8]| [vec![4 << 3 | 5], bytes.to_vec()].concat();
    assert!(fault(&tensor(&[single(&nan), single(&nan)])).contains("a finite number"));
    // Halves are integers, and their type may come after them.
    let half = [number(5, 0x7e00), number(1, 1), number(2, 10)].concat();
    assert!(fault(&half).contains("a finite number"));
    passes(&tensor(&[field(
        9,
        &[f32::INFINITY, f32::MIN].map(f32::to_le_bytes).concat(),
    )]));
    let constant = node(&field(5, &field(5, &tensor(&[field(9, &bytes)]))));
    check(&model(&constant), &mut |_| Ok(())).unwrap();
    // K nearest neighbours keep what is missing in their weights, and ask for it.
    let asks = field(1, &field(4, b"IsNaN"));
    let neighbours = model(&[field(5, &tensor(&[field(9, &bytes)])), asks].concat());
    check(&neighbours, &mut |_| Ok(())).unwrap();
}
