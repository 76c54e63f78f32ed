//! Tensors between the protocol's bytes and ONNX Runtime's values, and the run itself.

use ort::{
    ErrorCode,
    session::{NoSelectedOutputs, RunOptions, Session, SessionInputValue},
    value::{DynValue, PrimitiveTensorElementType, Tensor as Value},
};
use rialto_protocol::job::{Datatype, Tensor};

use rialto_engine::Error;

use super::{agreement, maps};

/// What can stop a run from another thread.
pub(super) type Stop = RunOptions<NoSelectedOutputs>;

/// Runs a batch and copies the wanted outputs, at most `max_bytes` of them. The signature was checked.
pub(super) fn run(
    session: &mut Session,
    inputs: &[Tensor],
    outputs: &[String],
    stop: Option<&Stop>,
    max_bytes: u64,
) -> Result<Vec<Tensor>, Error> {
    let value = |name: &str| {
        let tensor = inputs.iter().find(|tensor| tensor.name == name);
        let tensor = tensor.ok_or_else(|| Error::bad("inputs", format!("tensor `{name}` is missing")))?;
        Ok(SessionInputValue::from(to_value(tensor)?))
    };
    // In the session's order, so that names need not cross once more.
    let values = session.inputs().iter().map(|outlet| value(outlet.name()));
    let values = values.collect::<Result<Vec<SessionInputValue<'_>>, Error>>()?;
    let results = match stop {
        Some(stop) => session.run_with_options(values.as_slice(), stop),
        None => session.run(values.as_slice()),
    };
    let results = results.map_err(not_run)?;
    let mut left = max_bytes;
    outputs
        .iter()
        .map(|name| {
            let value = results.get(name);
            let value = value.ok_or_else(|| Error::Failed(format!("the output `{name}` is missing")))?;
            from_value(name, value, &mut left)
        })
        .collect()
}

/// Refuses strings that ONNX Runtime cannot take. Its own are C strings, so a NUL inside is refused.
pub(super) fn check_strings(tensor: &Tensor) -> Result<(), Error> {
    match tensor.datatype {
        Datatype::Bytes => strings(tensor).map(drop),
        _ => Ok(()),
    }
}

/// A protocol tensor as a value of ONNX Runtime. The tensor was checked: its data has the length of its shape.
fn to_value(tensor: &Tensor) -> Result<DynValue, Error> {
    let data = tensor.data.as_slice();
    match tensor.datatype {
        Datatype::Bool => value(tensor, data.iter().map(|byte| *byte != 0).collect()),
        Datatype::Uint8 => value(tensor, data.to_vec()),
        Datatype::Int32 => value(tensor, numbers(data, i32::from_le_bytes)),
        Datatype::Int64 => value(tensor, numbers(data, i64::from_le_bytes)),
        Datatype::Fp32 => value(tensor, numbers(data, f32::from_le_bytes)),
        Datatype::Fp64 => value(tensor, numbers(data, f64::from_le_bytes)),
        Datatype::Int8 => value(tensor, numbers(data, i8::from_le_bytes)),
        Datatype::Int16 => value(tensor, numbers(data, i16::from_le_bytes)),
        Datatype::Uint16 => value(tensor, numbers(data, u16::from_le_bytes)),
        Datatype::Uint32 => value(tensor, numbers(data, u32::from_le_bytes)),
        Datatype::Uint64 => value(tensor, numbers(data, u64::from_le_bytes)),
        Datatype::Fp16 => value(tensor, numbers(data, half::f16::from_le_bytes)),
        Datatype::Bytes => {
            let strings = strings(tensor)?;
            let value = Value::from_string_array((shape(tensor)?, strings.as_slice())).map_err(failed)?;
            Ok(value.into_dyn())
        }
    }
}

fn value<T>(tensor: &Tensor, data: Vec<T>) -> Result<DynValue, Error>
where
    T: PrimitiveTensorElementType + std::fmt::Debug + Clone + 'static,
{
    let value = Value::from_array((shape(tensor)?, data)).map_err(failed)?;
    Ok(value.into_dyn())
}

fn numbers<T, const N: usize>(data: &[u8], read: impl Fn([u8; N]) -> T) -> Vec<T> {
    let (chunks, _) = data.as_chunks::<N>();
    chunks.iter().map(|bytes| read(*bytes)).collect()
}

fn shape(tensor: &Tensor) -> Result<Vec<i64>, Error> {
    let extents = tensor.shape.iter().map(|extent| i64::try_from(*extent));
    extents
        .collect::<Result<Vec<i64>, _>>()
        .map_err(|_| Error::bad("inputs", format!("tensor `{}` is too large", tensor.name)))
}

fn strings(tensor: &Tensor) -> Result<Vec<String>, Error> {
    let bad = |reason: &str| Error::bad("inputs", format!("tensor `{}`: {reason}", tensor.name));
    let mut rest = tensor.data.as_slice();
    let mut strings = Vec::new();
    while let Some((length, tail)) = rest.split_first_chunk::<4>() {
        let length = usize::try_from(u32::from_le_bytes(*length)).unwrap_or(usize::MAX);
        let (bytes, tail) = tail
            .split_at_checked(length)
            .ok_or_else(|| bad("a string is cut short"))?;
        let text = std::str::from_utf8(bytes).map_err(|_| bad("a string is not UTF-8"))?;
        if text.contains('\0') {
            return Err(bad("a string contains a NUL"));
        }
        strings.push(text.to_owned());
        rest = tail;
    }
    Ok(strings)
}

fn from_value(name: &str, value: &DynValue, left: &mut u64) -> Result<Tensor, Error> {
    if maps::is_maps(value.dtype()) {
        return from_maps(name, value, left);
    }
    let element = value.dtype().tensor_type();
    let datatype = element.and_then(agreement::datatype);
    let datatype = datatype.ok_or_else(|| Error::Failed(format!("the output `{name}` has an unknown type")))?;
    let (shape, data) = match datatype {
        Datatype::Bool => copy::<bool, 1>(value, left, |value| [u8::from(value)])?,
        Datatype::Uint8 => copy::<u8, 1>(value, left, |value| [value])?,
        Datatype::Int32 => copy::<i32, 4>(value, left, i32::to_le_bytes)?,
        Datatype::Int64 => copy::<i64, 8>(value, left, i64::to_le_bytes)?,
        Datatype::Fp32 => copy::<f32, 4>(value, left, f32::to_le_bytes)?,
        Datatype::Fp64 => copy::<f64, 8>(value, left, f64::to_le_bytes)?,
        Datatype::Int8 => copy::<i8, 1>(value, left, i8::to_le_bytes)?,
        Datatype::Int16 => copy::<i16, 2>(value, left, i16::to_le_bytes)?,
        Datatype::Uint16 => copy::<u16, 2>(value, left, u16::to_le_bytes)?,
        Datatype::Uint32 => copy::<u32, 4>(value, left, u32::to_le_bytes)?,
        Datatype::Uint64 => copy::<u64, 8>(value, left, u64::to_le_bytes)?,
        Datatype::Fp16 => copy::<half::f16, 2>(value, left, half::f16::to_le_bytes)?,
        Datatype::Bytes => copy_strings(value, left)?,
    };
    let shape = shape.iter().map(|extent| u64::try_from(*extent).unwrap_or(0)).collect();
    let name = name.to_owned();
    Ok(Tensor {
        name,
        datatype,
        shape,
        data,
    })
}

fn from_maps(name: &str, value: &DynValue, left: &mut u64) -> Result<Tensor, Error> {
    let (shape, numbers) = maps::to_rows(value)?;
    take(left, numbers.len().saturating_mul(4))?;
    Ok(Tensor {
        name: name.to_owned(),
        datatype: Datatype::Fp32,
        shape: shape.map(|extent| u64::try_from(extent).unwrap_or(0)).to_vec(),
        data: numbers.iter().flat_map(|number| number.to_le_bytes()).collect(),
    })
}

fn copy<T, const N: usize>(
    value: &DynValue,
    left: &mut u64,
    write: impl Fn(T) -> [u8; N],
) -> Result<(Vec<i64>, Vec<u8>), Error>
where
    T: PrimitiveTensorElementType + Copy,
{
    let (shape, values) = value.try_extract_tensor::<T>().map_err(failed)?;
    let length = values.len().saturating_mul(N);
    take(left, length)?;
    let mut data = vec![0; length];
    // Element by element this way is one copy of memory to the compiler, and by an iterator of bytes it is not.
    for (place, value) in data.as_chunks_mut::<N>().0.iter_mut().zip(values) {
        *place = write(*value);
    }
    Ok((shape.to_vec(), data))
}

fn copy_strings(value: &DynValue, left: &mut u64) -> Result<(Vec<i64>, Vec<u8>), Error> {
    let (shape, values) = value.try_extract_strings().map_err(failed)?;
    let mut data = Vec::new();
    for text in values {
        take(left, text.len().saturating_add(4))?;
        let length = u32::try_from(text.len()).map_err(failed)?;
        data.extend_from_slice(&length.to_le_bytes());
        data.extend_from_slice(text.as_bytes());
    }
    Ok((shape.to_vec(), data))
}

/// Takes from the bytes that the outputs may still have.
fn take(left: &mut u64, bytes: usize) -> Result<(), Error> {
    let rest = u64::try_from(bytes).ok().and_then(|bytes| left.checked_sub(bytes));
    *left = rest.ok_or_else(|| Error::bad("inputs", "the outputs of this batch are too large: send fewer rows"))?;
    Ok(())
}

/// A run that failed. What ONNX Runtime calls an invalid argument is the request's fault: an index that is out of bounds,
/// a length that does not go with another.
fn not_run(error: ort::Error) -> Error {
    match error.code() {
        ErrorCode::InvalidArgument => Error::bad("inputs", error.to_string()),
        _ => failed(error),
    }
}

fn failed(error: impl std::fmt::Display) -> Error {
    Error::Failed(error.to_string())
}
