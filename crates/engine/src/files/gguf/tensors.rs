//! The list of tensors of a GGUF file: what they are and where their data is.

use std::io::{Read, Seek};

use super::{
    super::{Label, Malformed, floats::Stretch, input::Input},
    blocks::Block,
    metadata::{bounded, hash, read_name},
};

/// Most tensors of a file. The largest mixtures of experts have a few thousand.
const MAX_TENSORS: u64 = 65_536;

/// Most bytes of a tensor's name: llama.cpp keeps names in 64 bytes with a zero at the end.
const MAX_NAME: usize = 63;

/// Most dimensions: what ggml computes with.
const MAX_DIMENSIONS: u32 = 4;

/// Bytes of the shortest entry: a length and a letter, one dimension, a type and an offset.
const SHORTEST_ENTRY: u64 = 8 + 1 + 4 + 8 + 4 + 8;

/// A tensor. 48 bytes in memory for at least 33 in the file.
#[derive(Debug)]
pub(super) struct Tensor {
    hash: [u8; 16],
    /// Where its entry is.
    entry: u64,
    /// Where its data begins: from the beginning of the data, until that is known; then of the file.
    start: u64,
    bytes: u64,
    pub(super) block: &'static Block,
}

impl Tensor {
    /// Bytes of data.
    pub(super) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Where its data is.
    pub(super) fn stretch(&self) -> Stretch {
        Stretch {
            start: self.start,
            length: self.bytes,
            floats: self.block.floats,
        }
    }

    fn end(&self) -> u64 {
        self.start.saturating_add(self.bytes)
    }

    /// Reads its name again, for a message.
    pub(super) fn label<R: Read + Seek>(&self, input: &mut Input<R>) -> Result<Label, Malformed> {
        input.go_to(self.entry, "a tensor's name")?;
        let mut buffer = [0; MAX_NAME];
        read_name(input, &mut buffer, "a tensor's name").map(Label::new)
    }
}

/// Reads `count` entries, of which at least one must be there, and finds their data, which begins at the next multiple
/// of `alignment`. In the order of their data.
pub(super) fn read<R: Read + Seek>(input: &mut Input<R>, count: u64, alignment: u64) -> Result<Vec<Tensor>, Malformed> {
    if count == 0 {
        return Err(Malformed::Missing("tensors"));
    }
    let limit = MAX_TENSORS.min(input.remaining() / SHORTEST_ENTRY);
    let capacity = bounded("the number of tensors", count, limit, input.at())?;
    let mut tensors = Vec::with_capacity(capacity);
    for _ in 0..count {
        tensors.push(read_entry(input, alignment)?);
    }
    tensors.sort_unstable_by_key(|tensor| tensor.hash);
    if let Some([first, _]) = tensors.array_windows().find(|[a, b]: &&[Tensor; 2]| a.hash == b.hash) {
        let name = first.label(input)?;
        return Err(Malformed::Duplicate { what: "tensor", name });
    }
    place(input, &mut tensors, alignment)?;
    Ok(tensors)
}

fn read_entry<R: Read + Seek>(input: &mut Input<R>, alignment: u64) -> Result<Tensor, Malformed> {
    const WHAT: &str = "the entry of a tensor";
    let entry = input.at();
    let mut buffer = [0; MAX_NAME];
    let name = read_name(input, &mut buffer, "a tensor's name")?;
    let shape = |problem| {
        let tensor = Label::new(name);
        Malformed::Shape { tensor, problem }
    };
    let dimensions = input.u32(WHAT)?;
    if dimensions == 0 || dimensions > MAX_DIMENSIONS {
        return Err(shape("must have between one and four dimensions"));
    }
    let (mut weights, mut row) = (1u64, None);
    for _ in 0..dimensions {
        let extent = input.u64(WHAT)?;
        if extent == 0 {
            return Err(shape("has a dimension of zero"));
        }
        row.get_or_insert(extent);
        // llama.cpp counts in 64 bits with a sign.
        let product = weights
            .checked_mul(extent)
            .filter(|product| i64::try_from(*product).is_ok());
        weights = product.ok_or_else(|| shape("has more elements than can be counted"))?;
    }
    let code = input.u32(WHAT)?;
    let block = Block::find(code).ok_or_else(|| Malformed::Elements {
        tensor: Label::new(name),
        found: Label::from(code.to_string().as_str()),
    })?;
    if !row.unwrap_or(0).is_multiple_of(block.weights) {
        return Err(shape("has rows that are not a whole number of blocks"));
    }
    let bytes = (weights / block.weights).checked_mul(block.bytes);
    let bytes = bytes.ok_or_else(|| shape("has more bytes than can be counted"))?;
    let start = input.u64(WHAT)?;
    if !start.is_multiple_of(alignment) {
        return Err(Malformed::Place {
            tensor: Label::new(name),
            problem: "is not aligned",
        });
    }
    Ok(Tensor {
        hash: hash(name),
        entry,
        start,
        bytes,
        block,
    })
}

/// Turns offsets into places of the file and checks that all data is inside the file, each byte in one tensor only.
fn place<R: Read + Seek>(input: &mut Input<R>, tensors: &mut [Tensor], alignment: u64) -> Result<(), Malformed> {
    let (size, header) = (input.size(), input.at());
    let base = header.checked_next_multiple_of(alignment).filter(|base| *base <= size);
    let base = base.ok_or(Malformed::Truncated {
        what: "the header",
        offset: header,
    })?;
    let mut outside = None;
    for tensor in tensors.iter_mut() {
        let start = base.checked_add(tensor.start);
        let end = start.and_then(|start| start.checked_add(tensor.bytes));
        match (start, end) {
            (Some(start), Some(end)) if end <= size => tensor.start = start,
            _ => outside = outside.or(Some(tensor.entry)),
        }
    }
    let problem = |entry: &Tensor, input: &mut Input<R>, problem| {
        let tensor = entry.label(input)?;
        Err(Malformed::Place { tensor, problem })
    };
    if let Some(tensor) = tensors.iter().find(|tensor| Some(tensor.entry) == outside) {
        return problem(tensor, input, "ends behind the end of the file");
    }
    tensors.sort_unstable_by_key(|tensor| tensor.start);
    match tensors
        .array_windows()
        .find(|[first, second]| second.start < first.end())
    {
        Some([_, second]) => problem(second, input, "overlaps another tensor's"),
        None => Ok(()),
    }
}
