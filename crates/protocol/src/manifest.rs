//! Manifests: what exactly a model is. Their hash is on chain, so "Q4 sold as Q8" is a wrong id and not an opinion.

use serde::{Deserialize, Serialize};

use crate::{
    Address, Digest, ManifestHash, ModelId, bounded,
    hash::{Words, keccak256},
    job::Datatype,
};

/// The version of the manifest's schema that this crate reads.
pub const SCHEMA: u32 = 1;

/// Most bytes of a manifest file.
pub const MAX_FILE_BYTES: usize = 256 << 10;

/// Most bytes of a manifest as it is hashed, and as it travels with every offer.
pub const MAX_CANONICAL_BYTES: usize = 64 << 10;

/// Most files of a model.
pub const MAX_ARTIFACTS: usize = 64;

/// Most input tensors of a model, and most output tensors.
pub const MAX_TENSORS: usize = 64;

/// Most bytes of a tensor's name.
pub const MAX_TENSOR_NAME: usize = 256;

/// Most dimensions of a tensor.
pub const MAX_DIMENSIONS: usize = 16;

/// A manifest that cannot be accepted.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ManifestError {
    /// Not the TOML of a manifest.
    #[error("the manifest cannot be read: {0}")]
    Syntax(String),
    /// A field is out of bounds.
    #[error("manifest field `{field}`: {reason}")]
    Field {
        /// Which.
        field: &'static str,
        /// Why.
        reason: &'static str,
    },
}

/// What a model does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TaskKind {
    /// Continues conversations and texts.
    Chat,
    /// Continues texts.
    Completion,
    /// Turns texts into vectors.
    Embedding,
    /// Maps tensors to tensors.
    Predict,
}

/// The file format, which decides the engine.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Format {
    /// llama.cpp's format.
    Gguf,
    /// Open Neural Network Exchange.
    Onnx,
    /// Hugging Face's format; served by an engine of its own behind HTTP.
    Safetensors,
}

/// One file of a model.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Artifact {
    /// Relative to the manifest; no parent folders.
    #[serde(deserialize_with = "bounded::text::<_, MAX_CANONICAL_BYTES>")]
    pub path: String,
    /// BLAKE3 of the file.
    pub blake3: Digest,
    /// Bytes.
    pub size: u64,
}

/// A named tensor of a predictive model's signature.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TensorSpec {
    /// As in the model file.
    #[serde(deserialize_with = "bounded::text::<_, MAX_CANONICAL_BYTES>")]
    pub name: String,
    /// Element type.
    pub datatype: Datatype,
    /// Extents; -1 for any.
    #[serde(deserialize_with = "bounded::list::<_, _, MAX_DIMENSIONS>")]
    pub shape: Vec<i64>,
}

/// What a model is, without who publishes it: the content of a `manifest.toml`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Manifest {
    /// [`SCHEMA`].
    pub schema: u32,
    /// The publisher's short name, the first part of what clients ask for.
    #[serde(deserialize_with = "bounded::text::<_, MAX_CANONICAL_BYTES>")]
    pub publisher_name: String,
    /// The model's name.
    #[serde(deserialize_with = "bounded::text::<_, MAX_CANONICAL_BYTES>")]
    pub name: String,
    /// The variant, for example its quantisation.
    #[serde(deserialize_with = "bounded::text::<_, MAX_CANONICAL_BYTES>")]
    pub tag: String,
    /// What it does.
    pub task: TaskKind,
    /// One line for people.
    #[serde(deserialize_with = "bounded::text::<_, MAX_CANONICAL_BYTES>")]
    pub description: String,
    /// Exactly how the weights are stored.
    #[serde(deserialize_with = "bounded::text::<_, MAX_CANONICAL_BYTES>")]
    pub quantisation: String,
    /// SPDX expression.
    #[serde(deserialize_with = "bounded::text::<_, MAX_CANONICAL_BYTES>")]
    pub licence: String,
    /// The publisher's part of every payment, in basis points; at most 1,000.
    pub royalty_bps: u16,
    /// Most tokens of prompt and answer together; zero for predictive models.
    pub context_length: u64,
    /// The file format.
    pub format: Format,
    /// keccak-256 of the chat template, 64 hexadecimal digits in lower case; or empty.
    #[serde(deserialize_with = "bounded::text::<_, MAX_CANONICAL_BYTES>")]
    pub chat_template_hash: String,
    /// keccak-256 of the tokenizer, 64 hexadecimal digits in lower case; or empty.
    #[serde(deserialize_with = "bounded::text::<_, MAX_CANONICAL_BYTES>")]
    pub tokenizer_hash: String,
    /// The files.
    #[serde(deserialize_with = "bounded::list::<_, _, MAX_ARTIFACTS>")]
    pub artifacts: Vec<Artifact>,
    /// Input tensors of a predictive model.
    #[serde(default, deserialize_with = "bounded::list::<_, _, MAX_TENSORS>")]
    pub inputs: Vec<TensorSpec>,
    /// Output tensors of a predictive model.
    #[serde(default, deserialize_with = "bounded::list::<_, _, MAX_TENSORS>")]
    pub outputs: Vec<TensorSpec>,
}

impl Manifest {
    /// Reads and checks a `manifest.toml`.
    pub fn from_toml(text: &str) -> Result<Self, ManifestError> {
        if text.len() > MAX_FILE_BYTES {
            return Err(ManifestError::Syntax(format!("longer than {MAX_FILE_BYTES} bytes")));
        }
        let manifest: Self = toml::from_str(text).map_err(|error| ManifestError::Syntax(error.message().to_owned()))?;
        manifest.check()?;
        Ok(manifest)
    }

    /// Checks every bound. A manifest from a peer must pass this before it is used.
    pub fn check(&self) -> Result<(), ManifestError> {
        let field = |field, reason| Err(ManifestError::Field { field, reason });
        if self.schema != SCHEMA {
            return field("schema", "not a version that this software knows");
        }
        let names = [
            ("publisher_name", &self.publisher_name),
            ("name", &self.name),
            ("tag", &self.tag),
        ];
        for (key, value) in names {
            if !is_name(value) {
                return field(key, "use 1 to 64 letters, digits, dots, dashes and underscores");
            }
        }
        if self.royalty_bps > 1_000 {
            return field("royalty_bps", "at most 1000 (10 %)");
        }
        if self.description.len() > 1_024 || self.licence.len() > 64 || self.quantisation.len() > 64 {
            return field("description", "too long a text");
        }
        let hashes = [
            ("chat_template_hash", &self.chat_template_hash),
            ("tokenizer_hash", &self.tokenizer_hash),
        ];
        for (key, value) in hashes {
            if !value.is_empty() && !is_hash(value) {
                return field(key, "empty, or 64 hexadecimal digits in lower case");
            }
        }
        if self.artifacts.is_empty() || self.artifacts.len() > MAX_ARTIFACTS {
            return field("artifacts", "between 1 and 64 files");
        }
        if !self.artifacts.iter().all(|artifact| is_inside(&artifact.path)) {
            return field("artifacts", "a path must stay inside the manifest's folder");
        }
        for (key, tensors) in [("inputs", &self.inputs), ("outputs", &self.outputs)] {
            if tensors.len() > MAX_TENSORS {
                return field(key, "at most 64 tensors");
            }
            if tensors.iter().any(|tensor| tensor.name.len() > MAX_TENSOR_NAME) {
                return field(key, "a tensor's name has at most 256 bytes");
            }
            if tensors.iter().any(|tensor| tensor.shape.len() > MAX_DIMENSIONS) {
                return field(key, "a tensor has at most 16 dimensions");
            }
        }
        // Each is within its own bound: only the lists of files and tensors together can be too much.
        if self.canonical().len() > MAX_CANONICAL_BYTES {
            return field("inputs", "files and tensors together take more than 64 KiB");
        }
        Ok(())
    }

    /// What clients ask for: `publisher/name:tag`.
    pub fn listing(&self) -> String {
        format!("{}/{}:{}", self.publisher_name, self.name, self.tag)
    }

    /// The bytes that are hashed: postcard, whose encoding of a value is unique.
    pub fn canonical(&self) -> Vec<u8> {
        postcard::to_stdvec(self).unwrap_or_default()
    }

    /// keccak-256 of the canonical bytes.
    pub fn hash(&self) -> ManifestHash {
        ManifestHash(keccak256(&[&self.canonical()]))
    }

    /// The id of this model on a publisher's terms, as `Models.register` computes it.
    pub fn model_id(&self, publisher: Address) -> ModelId {
        model_id(publisher, self.hash())
    }
}

/// `keccak256(abi.encode(publisher, manifest hash))`.
pub fn model_id(publisher: Address, manifest: ManifestHash) -> ModelId {
    ModelId(Words::new().left(&publisher.0).right(&manifest.0).keccak())
}

fn is_name(text: &str) -> bool {
    (1..=64).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"._-".contains(&b))
}

fn is_hash(text: &str) -> bool {
    text.len() == 64 && text.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b))
}

fn is_inside(path: &str) -> bool {
    let clean = path
        .split('/')
        .all(|part| !part.is_empty() && part != "." && part != "..");
    clean && !path.contains(['\\', '\0', ':']) && path.len() <= 256
}

#[cfg(test)]
mod tests {
    use super::*;

    const EXAMPLE: &str = r#"
        schema = 1
        publisher_name = "rialto"
        name = "example"
        tag = "v1"
        task = "predict"
        description = "an example"
        quantisation = "F32"
        licence = "MIT OR Apache-2.0"
        royalty_bps = 500
        context_length = 0
        format = "onnx"
        chat_template_hash = ""
        tokenizer_hash = ""
        [[artifacts]]
        path = "example.onnx"
        blake3 = "0000000000000000000000000000000000000000000000000000000000000001"
        size = 12
        [[inputs]]
        name = "input"
        datatype = "FP32"
        shape = [-1, 30]
    "#;

    #[test]
    fn the_example_is_read_and_its_id_depends_on_the_publisher() {
        let manifest = Manifest::from_toml(EXAMPLE).unwrap();
        assert_eq!(manifest.listing(), "rialto/example:v1");
        assert_ne!(manifest.model_id(Address([1; 20])), manifest.model_id(Address([2; 20])));
        let decoded: Manifest = postcard::from_bytes(&manifest.canonical()).unwrap();
        assert_eq!(decoded, manifest);
    }

    #[test]
    fn finding_h4_no_field_of_a_manifest_is_without_a_bound() {
        let refused = |change: fn(&mut Manifest)| {
            let mut manifest = Manifest::from_toml(EXAMPLE).unwrap();
            change(&mut manifest);
            match manifest.check() {
                Err(ManifestError::Field { field, .. }) => field,
                other => panic!("{other:?}"),
            }
        };
        let hash = "chat_template_hash";
        assert_eq!(refused(|m| m.chat_template_hash = "x".repeat(1 << 20)), hash);
        assert_eq!(refused(|m| m.chat_template_hash = "A".repeat(64)), hash);
        assert_eq!(refused(|m| m.chat_template_hash = "0".repeat(63)), hash);
        assert_eq!(refused(|m| m.tokenizer_hash = "0".repeat(1 << 20)), "tokenizer_hash");
        assert_eq!(refused(|m| m.inputs[0].name = "n".repeat(257)), "inputs");
        assert_eq!(refused(|m| m.inputs[0].shape = vec![1; 17]), "inputs");
        assert_eq!(refused(|m| m.outputs = vec![m.inputs[0].clone(); 65]), "outputs");
        // Each within its own bound, and all together too much for a book.
        let all = |m: &mut Manifest| {
            m.inputs[0].name = "n".repeat(256);
            m.inputs[0].shape = vec![i64::MIN; 16];
            m.inputs = vec![m.inputs[0].clone(); 64];
            m.outputs = m.inputs.clone();
            m.artifacts[0].path = "p".repeat(256);
            m.artifacts = vec![m.artifacts[0].clone(); 64];
        };
        assert_eq!(refused(all), "inputs");
    }

    #[test]
    fn what_is_out_of_bounds_is_refused() {
        for (from, to) in [
            ("schema = 1", "schema = 2"),
            ("royalty_bps = 500", "royalty_bps = 1001"),
            ("example.onnx", "../example.onnx"),
            ("example.onnx", "/etc/passwd"),
            ("name = \"example\"", "name = \"a/b\""),
            ("size = 12", "size = 12\nsurprise = 1"),
        ] {
            assert!(Manifest::from_toml(&EXAMPLE.replace(from, to)).is_err(), "{to}");
        }
    }
}
