//! A GGUF file of a few hundred bytes, and what must not pass.

use std::io::Cursor;

use super::*;

/// A file in the making: entries as bytes, data behind them.
#[derive(Clone)]
struct File {
    keys: Vec<Vec<u8>>,
    tensors: Vec<Vec<u8>>,
    data: Vec<u8>,
}

fn text(text: &str) -> Vec<u8> {
    [&(text.len() as u64).to_le_bytes(), text.as_bytes()].concat()
}

fn key(name: &str, kind: u32, value: &[u8]) -> Vec<u8> {
    [&text(name), &kind.to_le_bytes()[..], value].concat()
}

fn number(name: &str, value: u32) -> Vec<u8> {
    key(name, 4, &value.to_le_bytes())
}

fn list(name: &str, kind: u32, count: u64, elements: &[u8]) -> Vec<u8> {
    key(
        name,
        9,
        &[&kind.to_le_bytes(), &count.to_le_bytes()[..], elements].concat(),
    )
}

fn tensor(name: &str, extents: &[u64], code: u32, start: u64) -> Vec<u8> {
    let mut entry = text(name);
    entry.extend(u32::try_from(extents.len()).unwrap().to_le_bytes());
    entry.extend(extents.iter().flat_map(|extent| extent.to_le_bytes()));
    entry.extend(code.to_le_bytes());
    entry.extend(start.to_le_bytes());
    entry
}

/// A llama of two layers, with one tensor in single precision and one in Q8_0.
fn small() -> File {
    File {
        keys: vec![
            key("general.architecture", 8, &text("llama")),
            number("llama.context_length", 128),
            number("llama.block_count", 2),
            number("llama.embedding_length", 64),
            number("llama.attention.head_count", 4),
            number("llama.attention.head_count_kv", 2),
            list("tokenizer.ggml.tokens", 8, 2, &[text("a"), text("b")].concat()),
            list("tokenizer.ggml.scores", 6, 2, &[0; 8]),
        ],
        tensors: vec![tensor("norm", &[8], 0, 0), tensor("embedding", &[32, 2], 8, 32)],
        data: vec![0; 32 + 68],
    }
}

impl File {
    fn bytes(&self) -> Vec<u8> {
        let mut bytes = b"GGUF\x03\0\0\0".to_vec();
        bytes.extend((self.tensors.len() as u64).to_le_bytes());
        bytes.extend((self.keys.len() as u64).to_le_bytes());
        bytes.extend(self.keys.concat());
        bytes.extend(self.tensors.concat());
        bytes.resize(bytes.len().next_multiple_of(32), 0);
        bytes.extend_from_slice(&self.data);
        bytes
    }

    fn with_key(mut self, key: Vec<u8>) -> Self {
        self.keys.push(key);
        self
    }

    fn with_tensor(mut self, tensor: Vec<u8>) -> Self {
        self.tensors.push(tensor);
        self
    }

    fn read(&self) -> Result<Header, Malformed> {
        read(&self.bytes())
    }

    fn fault(&self) -> String {
        self.read().unwrap_err().to_string()
    }
}

fn read(bytes: &[u8]) -> Result<Header, Malformed> {
    Header::read(Cursor::new(bytes), bytes.len() as u64)
}

#[test]
fn a_provider_learns_what_it_needs() {
    let header = small().read().unwrap();
    assert_eq!((header.version, header.architecture.as_str()), (3, "llama"));
    assert_eq!(
        (header.context_length, header.block_count, header.embedding_length),
        (128, 2, 64)
    );
    assert_eq!(
        (header.vocabulary, header.has_vocabulary, header.has_chat_template),
        (2, true, false)
    );
    assert_eq!(
        (header.tensor_bytes, header.tensor_types.as_slice()),
        (100, &["Q8_0", "F32"][..])
    );
    // Two layers of two heads of 16 numbers, for keys and for values, in two bytes each.
    assert_eq!(header.kv_bytes_per_token(), 2 * 2 * (16 + 16) * 2);

    let mut uneven = small();
    uneven.keys[5] = list(
        "llama.attention.head_count_kv",
        5,
        2,
        &[[1, 0, 0, 0], [3, 0, 0, 0]].concat(),
    );
    let uneven = uneven
        .with_key(number("llama.attention.key_length", 10))
        .with_key(number("llama.attention.value_length", 20))
        .read()
        .unwrap();
    assert_eq!(uneven.head_count_kv, [1, 3]);
    assert_eq!(uneven.kv_bytes_per_token(), (1 + 3) * (10 + 20) * 2);
}

#[test]
fn a_file_that_ends_early_says_so_wherever_it_ends() {
    let bytes = small().bytes();
    for length in 4..bytes.len() {
        let error = read(&bytes[..length]).unwrap_err();
        let expected = matches!(
            error,
            Malformed::Truncated { .. } | Malformed::Count { .. } | Malformed::Place { .. }
        );
        assert!(expected, "{length} bytes: {error}");
    }
    assert_eq!(read(b"GG").unwrap_err(), Malformed::Magic("GGUF"));
}

#[test]
fn counts_are_believed_no_further_than_the_file_is_long() {
    for place in [8, 16] {
        for count in [1 << 20, i64::MAX as u64, u64::MAX] {
            let mut bytes = small().bytes();
            bytes[place..place + 8].copy_from_slice(&count.to_le_bytes());
            let error = read(&bytes).unwrap_err();
            assert!(
                matches!(error, Malformed::Count { found, .. } if found == count),
                "{error}"
            );
        }
    }
    let long = small().with_key(list("long", 4, u64::MAX / 4 + 2, &[0; 16]));
    assert!(
        long.fault().contains("the length of a list is 4611686018427387905"),
        "{}",
        long.fault()
    );
    let nested = small().with_key(list("nested", 9, 1, &[0; 64]));
    assert_eq!(nested.read().unwrap_err(), Malformed::Depth);
}

#[test]
fn names_are_texts_and_each_is_there_once() {
    let twice = small().with_key(number("llama.block_count", 3));
    assert_eq!(twice.fault(), "the metadata key `llama.block_count` is there twice");
    let twice = small().with_tensor(tensor("norm", &[8], 0, 0));
    assert_eq!(twice.fault(), "the tensor `norm` is there twice");
    for name in ["", "zero\0inside"] {
        assert!(matches!(
            small().with_key(number(name, 0)).read(),
            Err(Malformed::Text { .. })
        ));
        let entry = tensor(name, &[8], 0, 0);
        assert!(matches!(small().with_tensor(entry).read(), Err(Malformed::Text { .. })));
    }
    let long = small().with_tensor(tensor(&"x".repeat(64), &[8], 0, 0));
    assert!(matches!(
        long.read(),
        Err(Malformed::Count {
            found: 64,
            limit: 63,
            ..
        })
    ));
}

#[test]
fn values_are_of_their_type_and_within_reason() {
    let fault = |key| small().with_key(key).fault();
    let kind = "is of a type that GGUF does not have";
    assert_eq!(fault(key("odd", 13, &[0; 8])), format!("the value of `odd` {kind}"));
    assert_eq!(fault(key("flag", 7, &[2])), "the value of `flag` must be 0 or 1");
    for alignment in [0, 24, 1 << 20] {
        assert!(fault(number("general.alignment", alignment)).contains("must be a power of two"));
    }
    assert!(fault(key("general.alignment", 8, &text("32"))).contains("must be an integer"));
    assert!(fault(number("split.count", 2)).contains("several files"));
    small().with_key(number("split.count", 1)).read().unwrap();

    let replaced = |index: usize, key| {
        let mut file = small();
        file.keys[index] = key;
        file.fault()
    };
    assert!(replaced(2, number("llama.block_count", 0)).contains("must not be zero"));
    assert!(replaced(2, number("llama.block_count", 513)).contains("is too large"));
    assert!(replaced(2, key("llama.block_count", 5, &(-1i32).to_le_bytes())).contains("not negative"));
    assert_eq!(replaced(2, number("other", 1)), "it has no block_count");
    assert_eq!(replaced(0, number("other", 1)), "it has no general.architecture");
    assert!(replaced(7, list("tokenizer.ggml.scores", 6, 1, &[0; 4])).contains("a number for each token"));
    let heads = list("llama.attention.head_count_kv", 4, 3, &[0; 12]);
    assert!(replaced(5, heads).contains("one for each layer"));
}

#[test]
fn a_tensor_is_as_large_as_its_shape_and_inside_the_file() {
    let with = |extents: &[u64], code, start| small().with_tensor(tensor("t", extents, code, start)).fault();
    assert!(with(&[8, 0], 0, 0).contains("a dimension of zero"));
    assert!(with(&[], 0, 0).contains("between one and four"));
    assert!(with(&[1; 5], 0, 0).contains("between one and four"));
    assert!(with(&[1 << 32, 1 << 32], 0, 0).contains("more elements than can be counted"));
    assert!(with(&[1 << 62], 0, 0).contains("more bytes than can be counted"));
    assert!(with(&[33], 8, 0).contains("whole number of blocks"));
    assert!(with(&[8], 4, 0).contains("the unknown element type 4"));
    assert!(with(&[8], 0, 4).contains("is not aligned"));
    assert!(with(&[8], 0, u64::MAX - 31).contains("behind the end of the file"));
    assert!(with(&[8], 0, 96).contains("behind the end of the file"));
    assert!(with(&[8], 0, 64).contains("overlaps"));
    let mut empty = small();
    empty.tensors.clear();
    assert_eq!(empty.fault(), "it has no tensors");
}

#[test]
fn weights_and_scales_that_are_no_numbers_are_named() {
    let check = |file: &File| {
        let bytes = file.bytes();
        let size = bytes.len() as u64;
        let header = Header::read(Cursor::new(&bytes), size).unwrap();
        header.check_weights(Cursor::new(&bytes), size)
    };
    check(&small()).unwrap();
    let mut file = small();
    file.data[12..16].copy_from_slice(&f32::INFINITY.to_le_bytes());
    let expected = "tensor `norm` has a weight that is not a finite number, at byte 12 of its data";
    assert_eq!(check(&file).unwrap_err().to_string(), expected);
    // The second block's scale, and not the weights behind it.
    let mut file = small();
    file.data[32 + 36..].fill(0xff);
    check(&file).unwrap();
    file.data[32 + 34..32 + 36].fill(0xff);
    let expected = "tensor `embedding` has a weight that is not a finite number, at byte 34 of its data";
    assert_eq!(check(&file).unwrap_err().to_string(), expected);
}
