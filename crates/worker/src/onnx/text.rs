//! Texts to vectors: the tokenizer beside a graph, and what the graph must look like.
//!
//! Each text runs alone, so that its vector depends on nothing else that was asked, and no padding is needed.

use ort::{
    session::{Session, SessionInputValue},
    value::{Outlet, Tensor as Value, TensorElementType, ValueType},
};
use rialto_engine::{Error, artifact::VerifiedContent};
use tokenizers::Tokenizer;

use super::{
    queue::{nanos, processor_time},
    tensor::Stop,
    trial::Trial,
};

/// The artifact that holds the tokenizer.
pub(super) const FILE: &str = "tokenizer.json";

/// What a graph may ask for of a text.
const INPUTS: [&str; 3] = ["input_ids", "attention_mask", "token_type_ids"];

/// A vector of the whole text, which is taken as it is.
const WHOLE: &str = "sentence_embedding";

/// A vector of each token, of which the mean is taken.
const EACH: [&str; 2] = ["last_hidden_state", "token_embeddings"];

/// Most bytes that an honest token stands for, and then some: longer texts are not worth counting.
const TOKEN_BYTES: usize = 64;

/// Counts texts.
pub(super) struct Reader {
    tokenizer: Tokenizer,
    /// Most tokens of a text.
    limit: u64,
}

impl std::fmt::Debug for Reader {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Reader")
            .field("limit", &self.limit)
            .finish_non_exhaustive()
    }
}

impl Reader {
    /// Reads the tokenizer among a model's files. What it says of cutting and filling up is not obeyed: a text is taken
    /// whole or refused.
    pub(super) fn load(files: &[VerifiedContent], limit: u64) -> Result<Self, Error> {
        let file = files.iter().find(|(name, _)| name == FILE);
        let (_, content) = file.ok_or_else(|| {
            Error::Model(format!(
                "it turns texts into vectors, so `{FILE}` must be among its artifacts"
            ))
        })?;
        if limit == 0 {
            return Err(Error::Model(
                "its manifest says that its context holds no tokens".to_owned(),
            ));
        }
        let mut tokenizer =
            Tokenizer::from_bytes(content).map_err(|error| Error::Model(format!("`{FILE}`: {error}")))?;
        tokenizer
            .with_padding(None)
            .with_truncation(None)
            .map_err(|error| Error::Model(format!("`{FILE}`: {error}")))?;
        Ok(Self { tokenizer, limit })
    }

    /// The tokens of a text. Fails with [`Error::ContextExceeded`] rather than cut it.
    pub(super) fn tokens(&self, index: usize, text: &str) -> Result<Vec<u32>, Error> {
        let limit = self.limit;
        let most = usize::try_from(limit).unwrap_or(usize::MAX).saturating_mul(TOKEN_BYTES);
        if text.len() > most {
            return Err(Error::ContextExceeded {
                prompt: limit.saturating_add(1),
                limit,
            });
        }
        let encoded = self.tokenizer.encode_fast(text, true);
        let encoded = encoded.map_err(|error| Error::bad("input", format!("text {index}: {error}")))?;
        let ids = encoded.get_ids();
        let prompt = u64::try_from(ids.len()).unwrap_or(u64::MAX);
        if prompt > limit {
            return Err(Error::ContextExceeded { prompt, limit });
        }
        if ids.is_empty() {
            return Err(Error::bad("input", format!("text {index} has no token")));
        }
        Ok(ids.to_vec())
    }
}

/// Refuses a graph that does not take tokens and give vectors under the usual names.
pub(super) fn check(session: &Session) -> Result<(), Error> {
    let refuse = |reason: String| Err(Error::Model(reason));
    let is = |outlet: &Outlet, element, ranks: &[usize]| match outlet.dtype() {
        // ONNX Runtime gives no extents at all for a shape that the model does not state.
        ValueType::Tensor { ty, shape, .. } => *ty == element && (shape.is_empty() || ranks.contains(&shape.len())),
        _ => false,
    };
    for outlet in session.inputs() {
        let name = outlet.name();
        if !INPUTS.contains(&name) {
            return refuse(format!("its input `{name}` is none of {}", INPUTS.join(", ")));
        }
        if !is(outlet, TensorElementType::Int64, &[2]) {
            return refuse(format!("its input `{name}` is not Int64 of [batch, tokens]"));
        }
    }
    if !session.inputs().iter().any(|outlet| outlet.name() == "input_ids") {
        return refuse("it has no input `input_ids`".to_owned());
    }
    match output(session) {
        None => refuse(format!("it has no output `{WHOLE}` or `{}`", EACH.join("` or `"))),
        Some(outlet)
            if is(
                outlet,
                TensorElementType::Float32,
                &[if outlet.name() == WHOLE { 2 } else { 3 }],
            ) =>
        {
            Ok(())
        }
        Some(outlet) => refuse(format!(
            "its output `{}` is not Float32 of the usual rank",
            outlet.name()
        )),
    }
}

/// The output that is used.
fn output(session: &Session) -> Option<&Outlet> {
    let named = |name: &str| session.outputs().iter().find(|outlet| outlet.name() == name);
    named(WHOLE).or_else(|| EACH.iter().find_map(|name| named(name)))
}

/// The vector of a text, of length one.
pub(super) fn embed(session: &mut Session, ids: &[u32], stop: Option<&Stop>) -> Result<Vec<f32>, Error> {
    let name = output(session).map(|outlet| outlet.name().to_owned());
    let name = name.ok_or_else(|| failed("the vector is missing"))?;
    let length = i64::try_from(ids.len()).map_err(failed)?;
    let value = |input: &str| {
        let data: Vec<i64> = match input {
            "input_ids" => ids.iter().map(|id| i64::from(*id)).collect(),
            "attention_mask" => vec![1; ids.len()],
            _ => vec![0; ids.len()],
        };
        Ok(SessionInputValue::from(
            Value::from_array(([1, length], data)).map_err(failed)?,
        ))
    };
    let values = session.inputs().iter().map(|outlet| value(outlet.name()));
    let values = values.collect::<Result<Vec<SessionInputValue<'_>>, Error>>()?;
    let results = match stop {
        Some(stop) => session.run_with_options(values.as_slice(), stop),
        None => session.run(values.as_slice()),
    };
    let results = results.map_err(failed)?;
    let value = results.get(&name).ok_or_else(|| failed("the vector is missing"))?;
    let (shape, numbers) = value.try_extract_tensor::<f32>().map_err(failed)?;
    let tokens = if name == WHOLE { 1 } else { ids.len() };
    let width = numbers.len() / tokens.max(1);
    let expected = shape.last().copied().and_then(|width| usize::try_from(width).ok());
    if width == 0 || expected != Some(width) || numbers.len() != width.saturating_mul(tokens) {
        return Err(failed("the vector has another shape than it should"));
    }
    normalised(mean(numbers, width))
}

/// How long a short text takes, on made-up tokens.
pub(super) fn trial(session: &mut Session) -> Trial {
    let ids = [1, 2, 3, 2, 1, 2, 3, 2];
    let mut alone = None;
    // The first run warms up.
    for _ in 0..2 {
        let before = processor_time();
        if embed(session, &ids, None).is_err() {
            return Trial::UNKNOWN;
        }
        alone = Some((nanos(processor_time().saturating_sub(before)), 8 * 8));
    }
    Trial {
        alone,
        ..Trial::UNKNOWN
    }
}

/// The mean of rows of this width.
fn mean(numbers: &[f32], width: usize) -> Vec<f32> {
    let mut sum = vec![0.0f32; width];
    for row in numbers.chunks_exact(width) {
        for (total, number) in sum.iter_mut().zip(row) {
            *total += number;
        }
    }
    // The vector is scaled to length one anyway, so the number of rows does not matter.
    sum
}

fn normalised(vector: Vec<f32>) -> Result<Vec<f32>, Error> {
    let length = vector.iter().map(|value| value * value).sum::<f32>().sqrt();
    if !length.is_finite() || length <= 0.0 {
        return Err(failed("the model gave a vector without a direction"));
    }
    Ok(vector.iter().map(|value| value / length).collect())
}

fn failed(error: impl std::fmt::Display) -> Error {
    Error::Failed(error.to_string())
}
