//! Whether a loaded model keeps what its manifest promises.

use super::maps;
use ort::{
    session::Session,
    value::{Outlet, TensorElementType, ValueType},
};
use rialto_engine::Error;
use rialto_protocol::{
    job::Datatype,
    manifest::{Manifest, TensorSpec},
};

/// Compares the manifest's signature with the model's: the same inputs, and no output that the model lacks.
pub(super) fn check(manifest: &Manifest, session: &Session) -> Result<(), Error> {
    for outlet in session.inputs() {
        if !manifest.inputs.iter().any(|spec| spec.name == outlet.name()) {
            let name = outlet.name();
            return Err(Error::Model(format!("its input `{name}` is not in the manifest")));
        }
    }
    compare("input", &manifest.inputs, session.inputs())?;
    compare("output", &manifest.outputs, session.outputs())
}

fn compare(kind: &str, declared: &[TensorSpec], found: &[Outlet]) -> Result<(), Error> {
    for spec in declared {
        let name = &spec.name;
        let differs = |what: String| Error::Model(format!("its {kind} `{name}` {what}"));
        let Some(outlet) = found.iter().find(|outlet| outlet.name() == name) else {
            return Err(differs("is in the manifest and not in the model".to_owned()));
        };
        if maps::fits(outlet.dtype(), spec) {
            continue;
        }
        let ValueType::Tensor { ty, shape, .. } = outlet.dtype() else {
            let found = outlet.dtype();
            return Err(differs(format!(
                "is {found}, no tensor; a classifier's probabilities may be declared as FP32 [-1, CLASSES], or be \
                 exported with zipmap=False"
            )));
        };
        if datatype(*ty) != Some(spec.datatype) {
            return Err(differs(format!("is {ty:?}, the manifest says {:?}", spec.datatype)));
        }
        let fits = |(one, other): (&i64, &i64)| one == other || *one < 0 || *other < 0;
        // ONNX Runtime gives no extents at all for a shape that the model does not state.
        let agrees = shape.is_empty() || (shape.len() == spec.shape.len() && shape.iter().zip(&spec.shape).all(fits));
        if !agrees {
            let found = shape.to_vec();
            return Err(differs(format!(
                "has the shape {found:?}, the manifest says {:?}",
                spec.shape
            )));
        }
    }
    Ok(())
}

/// The protocol's name of an element type.
pub(super) fn datatype(element: TensorElementType) -> Option<Datatype> {
    match element {
        TensorElementType::Bool => Some(Datatype::Bool),
        TensorElementType::Uint8 => Some(Datatype::Uint8),
        TensorElementType::Int32 => Some(Datatype::Int32),
        TensorElementType::Int64 => Some(Datatype::Int64),
        TensorElementType::Float32 => Some(Datatype::Fp32),
        TensorElementType::Float64 => Some(Datatype::Fp64),
        TensorElementType::Int8 => Some(Datatype::Int8),
        TensorElementType::Int16 => Some(Datatype::Int16),
        TensorElementType::Uint16 => Some(Datatype::Uint16),
        TensorElementType::Uint32 => Some(Datatype::Uint32),
        TensorElementType::Uint64 => Some(Datatype::Uint64),
        TensorElementType::Float16 => Some(Datatype::Fp16),
        TensorElementType::String => Some(Datatype::Bytes),
        _ => None,
    }
}
