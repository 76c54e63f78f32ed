//! A predictive model's signature: what the manifest promises, checked against every job. That the model keeps the promise
//! is checked where the model is loaded.

use rialto_protocol::{
    job::Tensor,
    manifest::{Manifest, TensorSpec},
};

use crate::Error;

/// Inputs and outputs as the manifest declares them.
#[derive(Debug, Clone)]
pub struct Signature {
    inputs: Vec<TensorSpec>,
    outputs: Vec<TensorSpec>,
}

impl Signature {
    /// The signature that a manifest declares. Fails with [`Error::Model`] when it declares none.
    pub fn new(manifest: &Manifest) -> Result<Self, Error> {
        if manifest.inputs.is_empty() || manifest.outputs.is_empty() {
            return Err(Error::Model("the manifest declares no inputs or no outputs".to_owned()));
        }
        Ok(Self {
            inputs: manifest.inputs.clone(),
            outputs: manifest.outputs.clone(),
        })
    }

    /// Checks a job's tensors and gives the rows, which are billed: the first dimension of the first tensor.
    pub fn check(&self, inputs: &[Tensor], max_output_bytes: u64) -> Result<u64, Error> {
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
    pub fn wanted(&self, outputs: Vec<String>) -> Result<Vec<String>, Error> {
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

fn bad(tensor: &Tensor, reason: &str) -> Error {
    Error::bad("inputs", format!("tensor `{}` {reason}", tensor.name))
}

fn names(specs: &[TensorSpec]) -> String {
    let names: Vec<String> = specs.iter().map(|spec| format!("`{}`", spec.name)).collect();
    names.join(", ")
}
