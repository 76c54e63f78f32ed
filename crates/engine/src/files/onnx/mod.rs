//! ONNX: a graph in protobuf (`onnx.proto`), with weights inside or in other files.
//!
//! The file is walked where it lies in memory, message by message, every tensor wherever it is nested. The walk is
//! strict: what it cannot read is refused, because then it could not say that no other file is named. It takes no memory
//! but for its stack, which is bounded by [`MAX_DEPTH`], and the names of other files.
//!
//! | check | against |
//! |---|---|
//! | data in other files only under plain names, and only where whoever calls allows it | reading the machine's files: CVE-2022-25882, CVE-2024-27318, CVE-2026-27489, CVE-2026-34446 |
//! | extents not negative, their product in 63 bits and equal to the data that is there | buffers smaller than what is copied into them |
//! | nesting | a stack that overflows |
//! | messages and fields that may be there once are there once | parsers that merge or replace them see another model |
//! | how large a sparse tensor becomes when it is filled | gigabytes taken for a file of a hundred bytes |
//! | a graph, with nodes and outputs, and the versions that it is written in | engines that fail later and less clearly |
//! | no NaN among the weights | answers of garbage that somebody pays for. Attributes and constants may have them: scikit-learn's models mark with NaN what is missing, and their trees have infinite thresholds. So may the weights of a graph that asks `IsNaN` somewhere: it expects them |

mod external;
mod protobuf;
mod tensor;

pub use external::External;

use super::{Label, Malformed};
use protobuf::{Bytes, Fields, Value, structure};

/// Deepest nesting of messages that is followed. Each subgraph costs four.
const MAX_DEPTH: usize = 96;

/// Most names of files that are collected.
const MAX_LOCATIONS: usize = 1_024;

/// Most elements of a sparse tensor once it is filled with zeros.
const MAX_SPARSE: u64 = 1 << 28;

/// Messages of `onnx.proto` on the way to a tensor.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Message {
    Model,
    Training,
    Function,
    Graph,
    Node,
    Attribute,
    /// Whether it is one of the graph's weights.
    SparseTensor(bool),
}

/// What a length-delimited field holds.
enum Inside {
    /// Another message.
    Message(Message),
    /// A tensor, and whether it is one of the graph's weights.
    Tensor(bool),
    /// Nothing that matters.
    Other,
}

impl Message {
    /// What a field holds.
    fn field(self, number: u64) -> Inside {
        use Inside::{Other, Tensor};
        match (self, number) {
            (Self::Model, 7) => Inside::Message(Self::Graph),
            (Self::Model, 20) => Inside::Message(Self::Training),
            (Self::Model, 25) => Inside::Message(Self::Function),
            (Self::Training, 1 | 2) => Inside::Message(Self::Graph),
            (Self::Function, 7) | (Self::Graph, 1) => Inside::Message(Self::Node),
            (Self::Function, 11) | (Self::Node, 5) => Inside::Message(Self::Attribute),
            (Self::Graph, 5) => Tensor(true),
            (Self::Graph, 15) => Inside::Message(Self::SparseTensor(true)),
            (Self::Attribute, 5 | 10) => Tensor(false),
            (Self::Attribute, 6 | 11) => Inside::Message(Self::Graph),
            (Self::Attribute, 22 | 23) => Inside::Message(Self::SparseTensor(false)),
            (Self::SparseTensor(weights), 1) => Tensor(weights),
            (Self::SparseTensor(_), 2) => Tensor(false),
            _ => Other,
        }
    }

    /// Whether a field may be there once only. Parsers merge what is there twice.
    fn is_single(self, number: u64) -> bool {
        match self {
            Self::Model => number == 7,
            Self::Training | Self::SparseTensor(_) => matches!(number, 1 | 2),
            Self::Attribute => matches!(number, 5 | 6 | 22),
            Self::Function | Self::Graph | Self::Node => false,
        }
    }
}

/// What is done with every tensor whose data is in another file.
type Visit<'v> = &'v mut dyn FnMut(&External<'_>) -> Result<(), Malformed>;

/// A walk over a model.
struct Walk<'v> {
    external: Visit<'v>,
    /// The first weight that is not a number. It is judged when all operators were seen.
    nan: Option<Malformed>,
    /// Whether the graph looks for what is not a number.
    expects_nan: bool,
}

/// Checks a whole model. `external` is called for every tensor whose data is in another file, and refuses it or not.
///
/// Fails with every variant of [`Malformed`] but [`Malformed::Magic`], and with what `external` fails with.
pub fn check(model: &[u8], external: Visit<'_>) -> Result<(), Malformed> {
    let model = whole(model);
    let mut fields = Fields::of(model);
    let (mut version, mut operators, mut graph) = (0, false, None);
    while let Some(field) = fields.next()? {
        match (field.number, field.value) {
            (1, Value::Number(number)) => version = number,
            (8, Value::Bytes(_)) => operators = true,
            (7, Value::Bytes(bytes)) => graph = graph.or(Some(bytes)),
            _ => {}
        }
    }
    let graph = graph.ok_or(Malformed::Missing("graph"))?;
    let mut walk = Walk::new(external);
    walk.message(model, Message::Model, 0)?;
    if let Some(nan) = walk.nan.filter(|_| !walk.expects_nan) {
        return Err(nan);
    }
    if version == 0 {
        return Err(Malformed::Missing("version of the format"));
    }
    if !operators {
        return Err(Malformed::Missing("version of its operators"));
    }
    let (mut nodes, mut outputs) = (false, false);
    let mut fields = Fields::of(graph);
    while let Some(field) = fields.next()? {
        nodes |= field.number == 1;
        outputs |= field.number == 12;
    }
    match (nodes, outputs) {
        (true, true) => Ok(()),
        (false, _) => Err(Malformed::Missing("nodes")),
        (true, false) => Err(Malformed::Missing("outputs")),
    }
}

/// The names of all files that tensors of this model live in, without repetition. Each is relative to the model's
/// folder and stays inside.
///
/// Fails like [`check`], except that it asks neither for a whole model nor for weights that are numbers.
pub fn locations(model: &[u8]) -> Result<Vec<String>, Malformed> {
    let mut found: Vec<String> = Vec::new();
    let mut collect = |external: &External<'_>| {
        if found.iter().any(|location| location == external.location) {
            return Ok(());
        }
        if found.len() == MAX_LOCATIONS {
            return Err(external.refuse("is one of too many"));
        }
        found.push(external.location.to_owned());
        Ok(())
    };
    Walk::new(&mut collect).message(whole(model), Message::Model, 0)?;
    Ok(found)
}

fn whole(content: &[u8]) -> Bytes<'_> {
    Bytes { content, at: 0 }
}

impl<'v> Walk<'v> {
    fn new(external: Visit<'v>) -> Self {
        Self {
            external,
            nan: None,
            expects_nan: false,
        }
    }

    fn message(&mut self, bytes: Bytes<'_>, message: Message, depth: usize) -> Result<(), Malformed> {
        if depth > MAX_DEPTH {
            return Err(Malformed::Depth);
        }
        let mut fields = Fields::of(bytes);
        let (mut seen, mut operator) = (0u32, None);
        let mut dense = Some(1u64);
        while let Some(field) = fields.next()? {
            let number = field.number;
            if message.is_single(number) {
                let bit = u32::try_from(number).ok().and_then(|number| 1u32.checked_shl(number));
                let bit = bit.unwrap_or(0);
                if seen & bit != 0 {
                    return Err(structure(bytes.at, "a message that may be there once is there twice"));
                }
                seen |= bit;
            }
            let inner = match (message, number, field.value) {
                (Message::SparseTensor(_), 3, value) => {
                    dense = sparse_extents(dense, value)?;
                    continue;
                }
                (Message::Node, 4, Value::Bytes(name)) => {
                    operator = Some(name.content);
                    continue;
                }
                (_, _, Value::Bytes(inner)) => inner,
                _ => continue,
            };
            match message.field(number) {
                Inside::Message(next) => self.message(inner, next, depth + 1)?,
                Inside::Tensor(weights) => self.tensor(inner, weights)?,
                Inside::Other => {}
            }
        }
        self.expects_nan |= operator == Some(b"IsNaN".as_slice());
        if message == Message::Node && operator.is_none_or(<[u8]>::is_empty) {
            return Err(structure(bytes.at, "a node without an operator"));
        }
        if dense.is_none_or(|elements| elements > MAX_SPARSE) {
            let tensor = Label::from("(sparse)");
            let problem = "has too many elements";
            return Err(Malformed::Shape { tensor, problem });
        }
        Ok(())
    }

    fn tensor(&mut self, bytes: Bytes<'_>, weights: bool) -> Result<(), Malformed> {
        let checked = tensor::check(bytes, weights).and_then(|external| match external {
            Some(external) => (self.external)(&external),
            None => Ok(()),
        });
        match checked {
            Err(nan @ Malformed::NotFinite { .. }) => {
                self.nan.get_or_insert(nan);
                Ok(())
            }
            checked => checked,
        }
    }
}

/// The product of a sparse tensor's extents, with these too; none when it cannot be counted. A negative extent is a
/// very large one here.
fn sparse_extents(product: Option<u64>, value: Value<'_>) -> Result<Option<u64>, Malformed> {
    Ok(match value {
        Value::Number(extent) => product.and_then(|product| product.checked_mul(extent)),
        Value::Bytes(packed) => {
            let (mut product, mut extents) = (product, Fields::of(packed));
            while !extents.is_empty() {
                let extent = extents.varint()?;
                product = product.and_then(|product| product.checked_mul(extent));
            }
            product
        }
        Value::Fixed(_) => None,
    })
}

#[cfg(test)]
pub(super) mod tests;
