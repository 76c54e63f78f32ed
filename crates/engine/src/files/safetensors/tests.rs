//! Files of a few bytes, and what must not pass.

use std::io::Cursor;

use super::*;

fn file(header: &str, data: &[u8]) -> Vec<u8> {
    [&(header.len() as u64).to_le_bytes(), header.as_bytes(), data].concat()
}

fn read(bytes: &[u8]) -> Result<Header, Malformed> {
    Header::read(Cursor::new(bytes), bytes.len() as u64)
}

fn fault(header: &str, data: usize) -> String {
    read(&file(header, &vec![0; data])).unwrap_err().to_string()
}

/// The JSON of a tensor.
fn tensor(name: &str, dtype: &str, shape: &str, start: u64, end: u64) -> String {
    format!(r#""{name}":{{"dtype":"{dtype}","shape":[{shape}],"data_offsets":[{start},{end}]}}"#)
}

fn one(dtype: &str, shape: &str, start: u64, end: u64) -> String {
    format!("{{{}}}", tensor("w", dtype, shape, start, end))
}

#[test]
fn an_honest_file_is_read_in_the_order_of_its_data() {
    let (second, first) = (tensor("b", "F16", "2,3", 8, 20), tensor("a", "F32", "2", 0, 8));
    let scalar = tensor("c", "F4", "2", 20, 21);
    let header = format!(r#"{{"__metadata__":{{"format":"pt","n":"\u00e9"}},{second},{first},{scalar}}}   "#);
    let bytes = file(&header, &[0; 21]);
    let header = read(&bytes).unwrap();
    let tensors: Vec<_> = header.tensors().collect();
    assert_eq!(tensors, [("a", "F32", 8), ("b", "F16", 12), ("c", "F4", 1)]);
    assert_eq!(header.tensor_bytes(), 21);
    header.check_weights(Cursor::new(&bytes), bytes.len() as u64).unwrap();
}

#[test]
fn a_number_in_the_file_takes_no_memory() {
    for length in [100, 100_000_001, u64::MAX] {
        let bytes = [&length.to_le_bytes()[..], b"{}"].concat();
        assert!(matches!(read(&bytes), Err(Malformed::Truncated { .. })));
    }
    assert_eq!(fault(&"[".repeat(1 << 16), 0), "it is not a safetensors file");
    assert_eq!(fault(&r#"{"a":"#.repeat(1 << 16), 0), "it is nested too deeply");
    assert!(matches!(read(b"{}"), Err(Malformed::Truncated { .. })));
}

#[test]
fn the_json_says_one_thing_only() {
    let a = tensor("a", "U8", "1", 0, 1);
    assert_eq!(fault(&format!("{{{a},{a}}}"), 1), "the tensor `a` is there twice");
    let metadata = r#""__metadata__":{}"#;
    let twice = format!("{{{metadata},{metadata},{a}}}");
    assert_eq!(fault(&twice, 1), "the key `__metadata__` is there twice");
    let escaped = format!("{{{},{a}}}", tensor("\\u0061", "U8", "1", 0, 1));
    assert_eq!(fault(&escaped, 1), "the name of a tensor at byte 9 is not a valid text");
    assert!(fault(&format!(r#"{{"__metadata__":{{"n":1}},{a}}}"#), 1).contains("an object of texts"));
    let unknown = r#"{"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1],"more":1}}"#;
    assert!(
        fault(unknown, 1).contains("unknown field `more`"),
        "{}",
        fault(unknown, 1)
    );
    let doubled = r#"{"a":{"dtype":"U8","dtype":"I8","shape":[1],"data_offsets":[0,1]}}"#;
    assert!(fault(doubled, 1).contains("duplicate field `dtype`"));
    assert!(fault(&format!("{{{a}}}{{}}"), 1).contains("trailing characters"));
    assert!(fault("{", 1).starts_with("its structure is broken at byte 9"));
    assert_eq!(fault("{}", 0), "it has no tensors");
}

#[test]
fn shapes_offsets_and_data_agree() {
    assert!(fault(&one("U8", "-1", 0, 1), 1).contains("invalid value: integer `-1`"));
    assert!(fault(&one("U8", "1.5", 0, 1), 1).contains("invalid type"));
    assert!(fault(&one("U8", "0", 0, 0), 0).contains("a dimension of zero"));
    assert!(fault(&one("F32", "4294967296,4294967296", 0, 4), 4).contains("can be counted"));
    assert!(fault(&one("F32", "4611686018427387904", 0, 4), 4).contains("can be counted"));
    assert!(fault(&one("U8", "1,1,1,1,1,1,1,1,1", 0, 1), 1).contains("too many dimensions"));
    assert!(fault(&one("F4", "3", 0, 1), 1).contains("whole number of bytes"));
    assert!(fault(&one("F33", "1", 0, 4), 4).contains("the unknown element type F33"));
    assert!(fault(&one("F32", "2", 0, 4), 4).contains("is 4 long, its shape asks for 8"));
    assert!(fault(&one("F32", "1", 4, 0), 4).contains("ends before it begins"));
    assert!(fault(&one("F32", "2", 0, 8), 4).contains("behind the end of the file"));
    assert!(fault(&one("F32", "1", 4, 8), 8).contains("leaves a gap"));
    assert!(fault(&one("F32", "1", 0, 4), 8).contains("more bytes follow"));
    let (a, b) = (tensor("a", "U8", "4", 0, 4), tensor("b", "U8", "4", 3, 7));
    assert_eq!(
        fault(&format!("{{{a},{b}}}"), 7),
        "the data of tensor `b` overlaps another tensor's"
    );
}

#[test]
fn nan_is_named_and_infinity_passes() {
    let header = one("F32", "3", 0, 12);
    let check = |weights: [f32; 3]| {
        let bytes = file(&header, &weights.map(f32::to_le_bytes).concat());
        let header = read(&bytes).unwrap();
        header.check_weights(Cursor::new(&bytes), bytes.len() as u64)
    };
    check([1.0, f32::NEG_INFINITY, f32::MAX]).unwrap();
    let expected = "tensor `w` has a weight that is not a finite number, at byte 8 of its data";
    assert_eq!(check([1.0, 0.0, f32::NAN]).unwrap_err().to_string(), expected);
}
