//! A classifier's probabilities as skl2onnx exports them unless told otherwise: a map from class to probability for each
//! row.
//!
//! They become the tensor that the same model gives when it is exported with `zipmap=False`: rows by classes, the classes
//! in ascending order, which is scikit-learn's. So nothing is lost, and a manifest declares the same either way. Other
//! sequences are refused when a model is loaded: their parts may differ in shape, which no tensor can say.

use std::hash::Hash;

use ort::value::{
    DynMap, DynMapValueType, DynSequenceValueType, DynValue, IntoTensorElementType, TensorElementType, ValueType,
};
use rialto_engine::Error;
use rialto_protocol::{job::Datatype, manifest::TensorSpec};

/// Whether values of this type can become the declared tensor.
pub(super) fn fits(found: &ValueType, declared: &TensorSpec) -> bool {
    is_maps(found) && declared.datatype == Datatype::Fp32 && declared.shape.len() == 2
}

/// Whether it is a map of probabilities for each row.
pub(super) fn is_maps(found: &ValueType) -> bool {
    let ValueType::Sequence(inner) = found else {
        return false;
    };
    let keys = [TensorElementType::Int64, TensorElementType::String];
    matches!(&**inner, ValueType::Map { key, value: TensorElementType::Float32 } if keys.contains(key))
}

/// Rows by classes, and the probabilities in that order.
pub(super) fn to_rows(value: &DynValue) -> Result<([i64; 2], Vec<f32>), Error> {
    let sequence = value.view().downcast::<DynSequenceValueType>().map_err(failed)?;
    let maps: Vec<DynMap> = sequence.try_extract_sequence::<DynMapValueType>().map_err(failed)?;
    let mut numbers = Vec::new();
    let mut classes = None;
    for map in &maps {
        let row = match map.dtype() {
            ValueType::Map {
                key: TensorElementType::String,
                ..
            } => row::<String>(map)?,
            _ => row::<i64>(map)?,
        };
        if classes.is_some_and(|classes| classes != row.len()) {
            return Err(failed("its rows have different classes"));
        }
        classes = Some(row.len());
        numbers.extend(row);
    }
    let extent = |count: usize| i64::try_from(count).map_err(failed);
    Ok(([extent(maps.len())?, extent(classes.unwrap_or(0))?], numbers))
}

fn row<K: IntoTensorElementType + Clone + Hash + Ord>(map: &DynMap) -> Result<Vec<f32>, Error> {
    let mut pairs = map.try_extract_key_values::<K, f32>().map_err(failed)?;
    pairs.sort_by(|(one, _), (other, _)| one.cmp(other));
    Ok(pairs.into_iter().map(|(_, probability)| probability).collect())
}

fn failed(error: impl std::fmt::Display) -> Error {
    Error::Failed(error.to_string())
}
