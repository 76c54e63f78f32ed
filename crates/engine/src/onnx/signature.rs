//! A predictive model's signature: what the manifest promises, checked against the model and against every job.

use ort::{
    session::Session,
    value::{Outlet, TensorElementType, ValueType},
};
use rialto_protocol::{
    job::{Datatype, Tensor},
    manifest::{Manifest, TensorSpec},
};

use crate::Error;

/// Inputs and outputs as the manifest declares them; the model was found to agree.
#[derive(Debug)]
pub(super) struct Signature {
    inputs: Vec<TensorSpec>,
    outputs: Vec<TensorSpec>,
}

impl Signature {
    /// Compares the manifest's signature with the model's: the same inputs, and no output that the model lacks.
    pub(super) fn new(manifest: &Manifest, session: &Session) -> Result<Self, Error> {
        if manifest.inputs.is_empty() || manifest.outputs.is_empty() {
            return Err(Error::Model("the manifest declares no inputs or no outputs".to_owned()));
        }
        for outlet in session.inputs() {
            if !manifest.inputs.iter().any(|spec| spec.name == outlet.name()) {
                let name = outlet.name();
                return Err(Error::Model(format!("its input `{name}` is not in the manifest")));
            }
        }
        compare("input", &manifest.inputs, session.inputs())?;
        compare("output", &manifest.outputs, session.outputs())?;
        Ok(Self {
            inputs: manifest.inputs.clone(),
            outputs: manifest.outputs.clone(),
        })
    }

    /// Checks a job's tensors and gives the rows, which are billed: the first dimension of the first tensor.
    pub(super) fn check(&self, inputs: &[Tensor], max_output_bytes: u64) -> Result<u64, Error> {
        for (index, tensor) in inputs.iter().enumerate() {
            let spec = self.inputs.iter().find(|spec| spec.name == tensor.name);
            let spec = spec.ok_or_else(|| self.unknown(&tensor.name))?;
            if inputs.iter().take(index).any(|other| other.name == tensor.name) {
                return Err(bad(tensor, "is given twice"));
            }
            check_tensor(spec, tensor)?;
        }
        if let Some(missing) = self
            .inputs
            .iter()
            .find(|spec| !inputs.iter().any(|one| one.name == spec.name))
        {
            return Err(Error::bad("inputs", format!("tensor `{}` is missing", missing.name)));
        }
        let rows = inputs.first().map_or(0, Tensor::rows);
        let batched = |tensor: &&Tensor| {
            let spec = self.inputs.iter().find(|spec| spec.name == tensor.name);
            spec.and_then(|spec| spec.shape.first())
                .is_some_and(|extent| *extent < 0)
        };
        if let Some(tensor) = inputs.iter().filter(batched).find(|tensor| tensor.rows() != rows) {
            return Err(bad(
                tensor,
                &format!("has {} rows, the first tensor {rows}", tensor.rows()),
            ));
        }
        self.check_output_bytes(rows, max_output_bytes)?;
        Ok(rows)
    }

    /// The names of the outputs wanted, all when none is named.
    pub(super) fn wanted(&self, outputs: Vec<String>) -> Result<Vec<String>, Error> {
        if outputs.is_empty() {
            return Ok(self.outputs.iter().map(|spec| spec.name.clone()).collect());
        }
        for (index, name) in outputs.iter().enumerate() {
            if !self.outputs.iter().any(|spec| spec.name == *name) {
                let known = names(&self.outputs);
                return Err(Error::bad(
                    "outputs",
                    format!("no output `{name}`: the model has {known}"),
                ));
            }
            if outputs.iter().take(index).any(|other| other == name) {
                return Err(Error::bad("outputs", format!("output `{name}` is named twice")));
            }
        }
        Ok(outputs)
    }

    /// Refuses a batch whose outputs are sure to be too large, before any work. Unknown extents count as one.
    fn check_output_bytes(&self, rows: u64, max: u64) -> Result<(), Error> {
        let bytes = |spec: &TensorSpec| {
            let width = u64::try_from(spec.datatype.width().unwrap_or(4)).unwrap_or(8);
            spec.shape.iter().enumerate().fold(width, |product, (axis, extent)| {
                let unknown = if axis == 0 { rows } else { 1 };
                product.saturating_mul(u64::try_from(*extent).unwrap_or(unknown))
            })
        };
        let total = self.outputs.iter().map(bytes).fold(0, u64::saturating_add);
        if total > max {
            let reason = format!("{rows} rows would give {total} bytes of output, at most {max} are allowed");
            return Err(Error::bad("inputs", reason));
        }
        Ok(())
    }

    fn unknown(&self, name: &str) -> Error {
        let known = names(&self.inputs);
        Error::bad("inputs", format!("no input `{name}`: the model has {known}"))
    }
}

fn check_tensor(spec: &TensorSpec, tensor: &Tensor) -> Result<(), Error> {
    if tensor.datatype != spec.datatype {
        let reason = format!("is {:?}, the model takes {:?}", tensor.datatype, spec.datatype);
        return Err(bad(tensor, &reason));
    }
    let fits = |(declared, given): (&i64, &u64)| *declared < 0 || u64::try_from(*declared) == Ok(*given);
    if spec.shape.len() != tensor.shape.len() || !spec.shape.iter().zip(&tensor.shape).all(fits) {
        let reason = format!("has the shape {:?}, the model takes {:?}", tensor.shape, spec.shape);
        return Err(bad(tensor, &reason));
    }
    Ok(())
}

fn compare(kind: &str, declared: &[TensorSpec], found: &[Outlet]) -> Result<(), Error> {
    for spec in declared {
        let name = &spec.name;
        let differs = |what: String| Error::Model(format!("its {kind} `{name}` {what}"));
        let Some(outlet) = found.iter().find(|outlet| outlet.name() == name) else {
            return Err(differs("is in the manifest and not in the model".to_owned()));
        };
        let ValueType::Tensor { ty, shape, .. } = outlet.dtype() else {
            return Err(differs(
                "is no tensor; export scikit-learn models with zipmap=False".to_owned(),
            ));
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
        TensorElementType::String => Some(Datatype::Bytes),
        _ => None,
    }
}

fn bad(tensor: &Tensor, reason: &str) -> Error {
    Error::bad("inputs", format!("tensor `{}` {reason}", tensor.name))
}

fn names(specs: &[TensorSpec]) -> String {
    let names: Vec<String> = specs.iter().map(|spec| format!("`{}`", spec.name)).collect();
    names.join(", ")
}
