//! The Open Inference Protocol V2 over HTTP with JSON tensors.

mod tensor;

use serde::{Deserialize, Serialize};
pub use tensor::{Datatype, RequestTensor, ResponseTensor, values};

use crate::{BadRequest, parse, wish::Wish};

/// `GET /v2`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServerMetadata {
    /// The server's name.
    pub name: String,
    /// The server's version.
    pub version: String,
    /// Extensions of the protocol; none.
    pub extensions: Vec<String>,
}

/// `GET /v2/health/live`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Live {
    /// Whether the server answers.
    pub live: bool,
}

/// `GET /v2/health/ready` and `GET /v2/models/{m}/ready`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ready {
    /// Whether inference would be accepted.
    pub ready: bool,
}

/// `GET /v2/models/{m}`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ModelMetadata {
    /// The model's name.
    pub name: String,
    /// Its versions.
    pub versions: Vec<String>,
    /// The file format, such as `onnx`.
    pub platform: String,
    /// Tensors it takes.
    pub inputs: Vec<TensorMetadata>,
    /// Tensors it gives.
    pub outputs: Vec<TensorMetadata>,
}

/// A tensor of a model's signature.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TensorMetadata {
    /// Its name.
    pub name: String,
    /// Its element type, such as `FP32`.
    pub datatype: String,
    /// Extents; -1 for any.
    pub shape: Vec<i64>,
}

/// `POST /v2/models/{m}/infer`, checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InferRequest {
    /// Echoed in the answer.
    pub id: Option<String>,
    /// The tensors; never empty.
    pub inputs: Vec<RequestTensor>,
    /// Names of the outputs wanted; empty for all.
    pub outputs: Vec<String>,
}

#[derive(Deserialize)]
struct Fields {
    id: Option<String>,
    inputs: Vec<tensor::Fields>,
    outputs: Option<Vec<RequestedOutput>>,
    #[serde(default)]
    parameters: Parameters,
}

#[derive(Deserialize)]
struct RequestedOutput {
    name: String,
    #[serde(default)]
    parameters: Parameters,
}

/// Parameters that would change what the answer is.
#[derive(Default, Deserialize)]
pub(crate) struct Parameters {
    #[serde(default)]
    classification: Wish,
    #[serde(default)]
    sequence_id: Wish,
    #[serde(default)]
    pub(crate) binary_data_size: Wish,
    #[serde(default)]
    binary_data: Wish,
    #[serde(default)]
    binary_data_output: Wish,
}

impl Parameters {
    fn check(&self, at: &str) -> Result<(), BadRequest> {
        let extensions = [
            ("classification", &self.classification),
            ("sequence_id", &self.sequence_id),
            ("binary_data_size", &self.binary_data_size),
            ("binary_data", &self.binary_data),
            ("binary_data_output", &self.binary_data_output),
        ];
        extensions
            .iter()
            .try_for_each(|(name, wish)| wish.refuse(&format!("{at}.{name}"), &[], "this extension is not supported"))
    }
}

impl InferRequest {
    /// Reads a body, and refuses what is not supported and would change the answer.
    pub fn parse(body: &[u8]) -> Result<Self, BadRequest> {
        let fields: Fields = parse(body)?;
        fields.parameters.check("parameters")?;
        if fields.inputs.is_empty() {
            return Err(BadRequest::value("inputs", "at least one tensor is needed"));
        }
        let inputs = fields.inputs.into_iter().enumerate();
        let mut outputs = Vec::new();
        for (index, output) in fields.outputs.unwrap_or_default().into_iter().enumerate() {
            output.parameters.check(&format!("outputs[{index}].parameters"))?;
            outputs.push(output.name);
        }
        Ok(Self {
            id: fields.id,
            inputs: inputs
                .map(|(index, tensor)| tensor.read(index))
                .collect::<Result<_, _>>()?,
            outputs,
        })
    }
}

/// The answer of `POST /v2/models/{m}/infer`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct InferResponse {
    /// The model that answered.
    pub model_name: String,
    /// Its version.
    pub model_version: String,
    /// The request's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub id: Option<String>,
    /// The tensors.
    pub outputs: Vec<ResponseTensor>,
    /// What it cost and where it was bought.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub parameters: Option<crate::openai::Trade>,
}

/// The body of every error.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct InferError {
    /// What went wrong.
    pub error: String,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(inputs: &str) -> Result<InferRequest, BadRequest> {
        InferRequest::parse(format!(r#"{{"id":"7","inputs":{inputs}}}"#).as_bytes())
    }

    #[test]
    fn tensors_are_read_flat_or_nested() {
        let flat = request(r#"[{"name":"x","shape":[2,2],"datatype":"FP32","data":[1,2.5,-3,4e0]}]"#).unwrap();
        let nested = request(r#"[{"name":"x","shape":[2,2],"datatype":"FP32","data":[[1,2.5],[-3,4.0]]}]"#).unwrap();
        assert_eq!(flat, nested);
        assert_eq!(flat.inputs[0].data.len(), 16);
        assert_eq!(flat.inputs[0].data[4..8], 2.5f32.to_le_bytes());
        assert_eq!(flat.id.as_deref(), Some("7"));
    }

    #[test]
    fn what_is_wrong_with_a_tensor_is_named() {
        for (inputs, param) in [
            ("[]", "inputs"),
            (r#"[{"shape":[1],"datatype":"FP32","data":[1]}]"#, "inputs[0].name"),
            (
                r#"[{"name":"x","shape":[1],"datatype":"FP8","data":[1]}]"#,
                "inputs[0].datatype",
            ),
            (
                r#"[{"name":"x","shape":[-1],"datatype":"FP32","data":[1]}]"#,
                "inputs[0].shape[0]",
            ),
            (
                r#"[{"name":"x","shape":[2],"datatype":"FP32","data":[1]}]"#,
                "inputs[0].data",
            ),
            (
                r#"[{"name":"x","shape":[1],"datatype":"FP32","data":["1"]}]"#,
                "inputs[0].data",
            ),
            (
                r#"[{"name":"x","shape":[1],"datatype":"UINT8","data":[256]}]"#,
                "inputs[0].data",
            ),
            (
                r#"[{"name":"x","shape":[1],"datatype":"INT64","data":[1.5]}]"#,
                "inputs[0].data",
            ),
            (
                r#"[{"name":"x","shape":[1],"datatype":"FP32","data":[1e300]}]"#,
                "inputs[0].data",
            ),
            (r#"[{"name":"x","shape":[1],"datatype":"FP32"}]"#, "inputs[0].data"),
            (
                r#"[{"name":"x","shape":[1],"datatype":"FP32","parameters":{"binary_data_size":4},"data":[1]}]"#,
                "inputs[0].parameters.binary_data_size",
            ),
        ] {
            assert_eq!(request(inputs).unwrap_err().param.as_deref(), Some(param), "{inputs}");
        }
    }

    #[test]
    fn deep_nesting_is_refused_and_not_followed() {
        let deep = format!("{}1{}", "[".repeat(100_000), "]".repeat(100_000));
        let body = format!(r#"[{{"name":"x","shape":[1],"datatype":"FP32","data":{deep}}}]"#);
        assert!(request(&body).is_err());
    }

    #[test]
    fn values_survive_the_way_there_and_back() {
        let body = r#"[{"name":"s","shape":[2],"datatype":"BYTES","data":["to","bé"]},
            {"name":"b","shape":[2],"datatype":"BOOL","data":[true,false]},
            {"name":"i","shape":[1],"datatype":"INT64","data":[-9007199254740993]}]"#;
        let read = request(body).unwrap();
        let back = |index: usize| {
            let tensor = &read.inputs[index];
            serde_json::to_string(&values(tensor.datatype, &tensor.data).unwrap()).unwrap()
        };
        assert_eq!(back(0), r#"["to","bé"]"#);
        assert_eq!(back(1), "[true,false]");
        assert_eq!(back(2), "[-9007199254740993]");
    }
}
