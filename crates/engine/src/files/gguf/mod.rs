//! GGUF, versions 2 and 3: llama.cpp's format (`docs/gguf.md` of ggml, and `gguf.cpp`, which is stricter).
//!
//! A strict reader of the header, which runs before llama.cpp sees a stranger's file. It reads forward in small blocks,
//! takes no memory by a count that it has not compared with the bytes that are left, and keeps 24 bytes of a metadata
//! entry and 48 of a tensor: always less than twice the file.
//!
//! | check | against |
//! |---|---|
//! | counts and lengths against the bytes that are left | gigabytes taken for a file of sixty bytes (candle #3533) |
//! | extents multiplied without overflow, in 63 bits; whole blocks; data inside the file | sums that wrap, so that a small buffer is taken for much data: CVE-2025-53630, CVE-2026-27940 |
//! | numbers of the architecture not negative and below generous limits | CVE-2026-21869, a negative parameter; an assertion that ends the process |
//! | data inside the file, no byte in two tensors | reading past the end of a heap block: CVE-2026-7482 |
//! | scores and types for each token | reading past the end of those lists |
//! | names without zeros, each once, shorter than ggml's 64 bytes | two programs that see two different models in one file |
//! | no lists of lists, flags 0 or 1, alignment a power of two | recursion, undefined behaviour, division by zero |
//! | one file only (`split.count`) | llama.cpp opens the other files of a split by itself, whatever their hash |
//! | no NaN or infinity in weights and scales | answers of garbage that somebody pays for |

mod blocks;
mod metadata;
mod tensors;

use std::io::{Read, Seek};

use self::{
    metadata::{Kind, List, Metadata},
    tensors::Tensor,
};
use super::{
    Label, Malformed,
    floats::{Refuse, Scan},
    input::Input,
};

/// Most layers that llama.cpp has room for; it ends its process at more.
const MAX_LAYERS: u64 = 512;

/// Most tokens of a context; ten times the longest there is.
const MAX_CONTEXT: u64 = 100_000_000;

/// Most numbers of an embedding, ten times the widest there is, and most heads.
const MAX_WIDTH: u64 = 1 << 18;

/// Largest alignment that is accepted; files have 32.
const MAX_ALIGNMENT: u64 = 1 << 16;

/// Tokens of the vocabulary that are accepted at most; ten times the largest there is.
const MAX_VOCABULARY: u64 = 4_000_000;

/// Bytes of an element of the key-value cache: half precision.
const CACHE_ELEMENT: u64 = 2;

/// What a provider needs to know of a model before it loads it.
#[derive(Debug)]
pub struct Header {
    /// The version of the format: 2 or 3.
    pub version: u32,
    /// `general.architecture`, for example `llama`. Letters, digits, dashes and underscores.
    pub architecture: String,
    /// Tokens of context that the model was made for.
    pub context_length: u64,
    /// Layers.
    pub block_count: u32,
    /// Numbers of an embedding.
    pub embedding_length: u32,
    /// Heads of attention: one number for all layers, or one for each. Empty when the model has no attention.
    pub head_count: Vec<u32>,
    /// Heads of keys and values, likewise; like `head_count` when the file does not say.
    pub head_count_kv: Vec<u32>,
    /// Numbers of a key of one head; an embedding's share of a head when the file does not say.
    pub key_length: u32,
    /// Numbers of a value of one head, likewise.
    pub value_length: u32,
    /// Tokens of the vocabulary; zero when the file does not say.
    pub vocabulary: u64,
    /// Whether the tokens themselves are in the file.
    pub has_vocabulary: bool,
    /// Whether a chat template is in the file. It is a program: render it with bounds.
    pub has_chat_template: bool,
    /// Bytes of all tensors together, without the gaps between them.
    pub tensor_bytes: u64,
    /// The element types of the tensors as llama.cpp calls them, each once, the one with the most bytes first.
    pub tensor_types: Vec<&'static str>,
    tensors: Vec<Tensor>,
}

impl Header {
    /// Reads and checks the header of a file of `size` bytes.
    ///
    /// Fails with every variant of [`Malformed`] but [`Malformed::NotFinite`] and [`Malformed::Location`].
    pub fn read<R: Read + Seek>(reader: R, size: u64) -> Result<Self, Malformed> {
        let mut input = Input::new(reader, size)?;
        let input = &mut input;
        if size < 4 || input.array("the first bytes")? != *b"GGUF" {
            return Err(Malformed::Magic("GGUF"));
        }
        let version = input.u32("the version")?;
        if !(2..=3).contains(&version) {
            return Err(Malformed::Version(version.into()));
        }
        let tensors = input.u64("the number of tensors")?;
        let keys = input.u64("the number of metadata keys")?;
        let metadata = Metadata::read(input, keys)?;
        let entries = input.at();
        let alignment = alignment(&metadata, input)?;
        refuse_split(&metadata, input)?;
        input.go_to(entries, "the entry of a tensor")?;
        let tensors = tensors::read(input, tensors, alignment)?;
        Self::from_metadata(version, &metadata, tensors, input)
    }

    fn from_metadata<R: Read + Seek>(
        version: u32,
        metadata: &Metadata,
        tensors: Vec<Tensor>,
        input: &mut Input<R>,
    ) -> Result<Self, Malformed> {
        let architecture = architecture(metadata, input)?;
        let mut numbers = Numbers {
            architecture: &architecture,
            metadata,
            input,
        };
        let context_length = numbers.required("context_length", MAX_CONTEXT)?;
        let block_count = narrow(numbers.required("block_count", MAX_LAYERS)?);
        let embedding_length = narrow(numbers.required("embedding_length", MAX_WIDTH)?);
        let head_count = numbers.heads("attention.head_count", block_count)?.unwrap_or_default();
        let head_count_kv = numbers.heads("attention.head_count_kv", block_count)?;
        let head_count_kv = head_count_kv.unwrap_or_else(|| head_count.clone());
        let fewest = head_count.iter().copied().filter(|heads| *heads > 0).min();
        let share = fewest
            .and_then(|heads| embedding_length.checked_div(heads))
            .unwrap_or(0);
        let key_length = numbers.optional("attention.key_length", MAX_WIDTH)?;
        let value_length = numbers.optional("attention.value_length", MAX_WIDTH)?;
        let stated = numbers.optional("vocab_size", MAX_VOCABULARY)?;
        let tokens = vocabulary(metadata, input)?;
        let (tensor_bytes, tensor_types) = summary(&tensors);
        Ok(Self {
            version,
            context_length,
            block_count,
            embedding_length,
            head_count,
            head_count_kv,
            key_length: key_length.map_or(share, narrow),
            value_length: value_length.map_or(share, narrow),
            vocabulary: tokens.or(stated).unwrap_or(0),
            has_vocabulary: tokens.is_some(),
            has_chat_template: metadata.has(input, "tokenizer.chat_template")?,
            tensor_bytes,
            tensor_types,
            tensors,
            architecture,
        })
    }

    /// Bytes that a token takes in the key-value cache, over all layers, with keys and values in half precision. An
    /// upper bound for models that look at a window only, or compress the cache.
    pub fn kv_bytes_per_token(&self) -> u64 {
        let heads: u64 = match self.head_count_kv.as_slice() {
            [heads] => u64::from(*heads).saturating_mul(self.block_count.into()),
            layers => layers.iter().copied().map(u64::from).sum(),
        };
        let numbers = u64::from(self.key_length).saturating_add(self.value_length.into());
        heads.saturating_mul(numbers).saturating_mul(CACHE_ELEMENT)
    }

    /// Reads all weights of the file that [`Self::read`] read and refuses the first that is not a finite number. Takes
    /// 256 KiB of memory at most.
    ///
    /// Fails with [`Malformed::NotFinite`], and with [`Malformed::Truncated`] and [`Malformed::Unreadable`].
    pub fn check_weights<R: Read + Seek>(&self, reader: R, size: u64) -> Result<(), Malformed> {
        let mut input = Input::new(reader, size)?;
        let mut scan = Scan::new(size, Refuse::Infinite);
        for tensor in &self.tensors {
            if let Some(offset) = scan.find(&mut input, tensor.stretch())? {
                let tensor = tensor.label(&mut input)?;
                return Err(Malformed::NotFinite { tensor, offset });
            }
        }
        Ok(())
    }
}

/// Numbers under the name of the architecture.
struct Numbers<'a, R> {
    architecture: &'a str,
    metadata: &'a Metadata,
    input: &'a mut Input<R>,
}

impl<R: Read + Seek> Numbers<'_, R> {
    fn key(&self, name: &str) -> String {
        format!("{}.{name}", self.architecture)
    }

    fn optional(&mut self, name: &str, limit: u64) -> Result<Option<u64>, Malformed> {
        let key = self.key(name);
        let number = self.metadata.number(self.input, &key)?;
        match number {
            Some(number) if number > limit => Err(value(&key, "is too large")),
            number => Ok(number),
        }
    }

    fn required(&mut self, name: &'static str, limit: u64) -> Result<u64, Malformed> {
        match self.optional(name, limit)? {
            None => Err(Malformed::Missing(name)),
            Some(0) => Err(value(&self.key(name), "must not be zero")),
            Some(number) => Ok(number),
        }
    }

    fn heads(&mut self, name: &str, layers: u32) -> Result<Option<Vec<u32>>, Malformed> {
        let key = self.key(name);
        let layers = usize::try_from(layers).unwrap_or(0);
        let heads = self.metadata.for_layers(self.input, &key, layers)?;
        let too_many = |heads: &u32| u64::from(*heads) > MAX_WIDTH;
        if heads.iter().flatten().any(too_many) {
            return Err(value(&key, "is too large"));
        }
        Ok(heads)
    }
}

/// Of a number that was compared with a limit below 2^32.
fn narrow(number: u64) -> u32 {
    u32::try_from(number).unwrap_or(u32::MAX)
}

fn value(key: &str, problem: &'static str) -> Malformed {
    let name = Label::from(key);
    Malformed::Value { name, problem }
}

fn architecture<R: Read + Seek>(metadata: &Metadata, input: &mut Input<R>) -> Result<String, Malformed> {
    const KEY: &str = "general.architecture";
    let name = metadata.text(input, KEY)?.ok_or(Malformed::Missing(KEY))?;
    let clean = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
    if name.is_empty() || name.len() > 64 || !name.bytes().all(clean) {
        return Err(value(KEY, "is not a name"));
    }
    Ok(name)
}

fn alignment<R: Read + Seek>(metadata: &Metadata, input: &mut Input<R>) -> Result<u64, Malformed> {
    const KEY: &str = "general.alignment";
    let alignment = metadata.number(input, KEY)?.unwrap_or(32);
    if !alignment.is_power_of_two() || alignment > MAX_ALIGNMENT {
        return Err(value(KEY, "must be a power of two of at most 65536"));
    }
    Ok(alignment)
}

fn refuse_split<R: Read + Seek>(metadata: &Metadata, input: &mut Input<R>) -> Result<(), Malformed> {
    const KEY: &str = "split.count";
    match metadata.number(input, KEY)? {
        Some(2..) => Err(value(KEY, "says that the model is in several files: merge them first")),
        _ => Ok(()),
    }
}

/// The number of tokens, when they are in the file, each with what belongs to it.
fn vocabulary<R: Read + Seek>(metadata: &Metadata, input: &mut Input<R>) -> Result<Option<u64>, Malformed> {
    const TOKENS: &str = "tokenizer.ggml.tokens";
    let Some(tokens) = metadata.list(input, TOKENS)? else {
        return Ok(None);
    };
    if tokens.kind != Kind::Text || tokens.count == 0 || tokens.count > MAX_VOCABULARY {
        return Err(value(TOKENS, "must be a list of between one and four million texts"));
    }
    for key in ["tokenizer.ggml.scores", "tokenizer.ggml.token_type"] {
        match metadata.list(input, key)? {
            None => {}
            Some(List {
                kind: Kind::F32 | Kind::I32 | Kind::U32,
                count,
            }) if count == tokens.count => {}
            Some(_) => return Err(value(key, "must have a number for each token")),
        }
    }
    Ok(Some(tokens.count))
}

fn summary(tensors: &[Tensor]) -> (u64, Vec<&'static str>) {
    let mut types: Vec<(&'static str, u64)> = Vec::new();
    for tensor in tensors {
        match types.iter_mut().find(|(name, _)| *name == tensor.block.name) {
            Some((_, bytes)) => *bytes = bytes.saturating_add(tensor.bytes()),
            None => types.push((tensor.block.name, tensor.bytes())),
        }
    }
    types.sort_by_key(|(_, bytes)| std::cmp::Reverse(*bytes));
    let bytes = types.iter().map(|(_, bytes)| *bytes).fold(0, u64::saturating_add);
    (bytes, types.into_iter().map(|(name, _)| name).collect())
}

#[cfg(test)]
mod tests;
