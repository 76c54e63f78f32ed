//! The files of models, checked before an engine sees them.
//!
//! A model comes from a stranger. Its hash says that it is the file which was meant, not that it is harmless, and
//! engines are large programs in C++ whose parsers had a memory error each year. So every file goes through a small
//! strict reader first, which refuses what no honest exporter writes. It takes at most twice the file's size in memory,
//! and what it says about a refused file is short and clean enough for a log ([`Malformed`]).
//!
//! [`gguf`], [`safetensors`] and [`onnx`] each begin with a table of what is checked, and against what. What remains,
//! engines that are wrong about honest files, is what the worker's sandbox is for.

mod floats;
pub mod gguf;
mod input;
mod malformed;
pub mod onnx;
pub mod safetensors;

pub use malformed::{Label, Malformed};

use std::{
    fs::File,
    io::{Read, Seek},
    path::Path,
};

use rialto_protocol::manifest::{Format, Manifest};

use crate::{Error, artifact::VerifiedFile};

use floats::{Refuse, Scan, Stretch};
use input::Input;

/// Most bytes of an ONNX file: protobuf's parsers read no more. Larger models have their weights in other files.
const MAX_ONNX: u64 = i32::MAX.unsigned_abs() as u64;

/// A file of a model, verified to be the one that its manifest names.
#[derive(Debug)]
pub struct Source<'a, R> {
    /// As in the manifest.
    pub name: &'a str,
    /// Bytes.
    pub size: u64,
    /// The open file: what is checked is what was opened.
    pub reader: R,
}

/// What was learnt of a model whose files are sound.
#[derive(Debug)]
pub enum Checked {
    /// The model's header.
    Gguf(Box<gguf::Header>),
    /// The header of each file of tensors, in the manifest's order.
    Safetensors(Vec<safetensors::Header>),
    /// A graph. Its inputs and outputs are the engine's to read.
    Onnx,
}

/// A file that no engine will see.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("model file `{file}`: {malformed}")]
pub struct Refused {
    /// As in the manifest.
    pub file: Label,
    /// What is wrong with it.
    pub malformed: Malformed,
}

impl From<Refused> for Error {
    fn from(refused: Refused) -> Self {
        Self::Model(refused.to_string())
    }
}

/// Checks all files of a model, in the manifest's order, which the caller has verified to be the manifest's. Blocks while
/// it reads them from their first byte to their last.
///
/// Fails with [`Error::Model`] at the first file that is not sound.
pub fn check(manifest: &Manifest, files: &[VerifiedFile]) -> Result<Checked, Error> {
    let open = files.iter().map(|file| open(&file.name, &file.path));
    let mut sources = open.collect::<Result<Vec<_>, _>>()?;
    Ok(check_sources(manifest.format, &mut sources)?)
}

/// Bytes of key-value cache for a token of a GGUF model ([`gguf::Header::kv_bytes_per_token`]).
///
/// Fails with [`Error::Model`] when the file's header is not sound.
pub fn kv_bytes_per_token(path: &Path) -> Result<u64, Error> {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let source = open(&name, path)?;
    let header = gguf::Header::read(source.reader, source.size).map_err(refuse(&name))?;
    Ok(header.kv_bytes_per_token())
}

fn open<'a>(name: &'a str, path: &Path) -> Result<Source<'a, File>, Refused> {
    let unreadable = |error: std::io::Error| refuse(name)(error.into());
    let reader = File::open(path).map_err(unreadable)?;
    let size = reader.metadata().map_err(unreadable)?.len();
    Ok(Source { name, size, reader })
}

/// Checks all files of a model, weights included. The first is the model; the others are an ONNX model's external data,
/// further tensors, or texts such as a tokenizer, which are not looked at.
///
/// Fails at the first file that is not sound.
pub fn check_sources<R: Read + Seek>(format: Format, files: &mut [Source<'_, R>]) -> Result<Checked, Refused> {
    match format {
        Format::Gguf => check_gguf(files),
        Format::Safetensors => check_safetensors(files),
        Format::Onnx => check_onnx(files),
    }
}

fn refuse(name: &str) -> impl Fn(Malformed) -> Refused {
    move |malformed| Refused {
        file: Label::from(name),
        malformed,
    }
}

fn check_gguf<R: Read + Seek>(files: &mut [Source<'_, R>]) -> Result<Checked, Refused> {
    let mut first = None;
    for (index, file) in files.iter_mut().enumerate() {
        if index > 0 && !file.name.ends_with(".gguf") {
            continue;
        }
        let refuse = refuse(file.name);
        let header = gguf::Header::read(&mut file.reader, file.size).map_err(&refuse)?;
        header.check_weights(&mut file.reader, file.size).map_err(&refuse)?;
        first.get_or_insert(header);
    }
    let first = first.ok_or_else(|| refuse("")(Malformed::Missing("file")))?;
    Ok(Checked::Gguf(Box::new(first)))
}

fn check_safetensors<R: Read + Seek>(files: &mut [Source<'_, R>]) -> Result<Checked, Refused> {
    let mut headers = Vec::new();
    for file in files.iter_mut().filter(|file| file.name.ends_with(".safetensors")) {
        let refuse = refuse(file.name);
        let header = safetensors::Header::read(&mut file.reader, file.size).map_err(&refuse)?;
        header.check_weights(&mut file.reader, file.size).map_err(&refuse)?;
        headers.push(header);
    }
    if headers.is_empty() {
        return Err(refuse("")(Malformed::Missing("file that ends in .safetensors")));
    }
    Ok(Checked::Safetensors(headers))
}

fn check_onnx<R: Read + Seek>(files: &mut [Source<'_, R>]) -> Result<Checked, Refused> {
    let Some((model, others)) = files.split_first_mut() else {
        return Err(refuse("")(Malformed::Missing("file")));
    };
    let refuse = refuse(model.name);
    let content = read_onnx(model).map_err(&refuse)?;
    // Tensors may share their data, but not so often that looking at it keeps a provider busy for ever.
    let mut budget = others
        .iter()
        .map(|file| file.size)
        .fold(0, u64::saturating_add)
        .saturating_mul(2);
    let mut visit = |external: &onnx::External<'_>| {
        let file = others.iter_mut().find(|file| file.name == external.location);
        let file = file.ok_or_else(|| external.refuse("is not among the manifest's artifacts"))?;
        let end = external.offset.checked_add(external.length);
        if end.is_none_or(|end| end > file.size) {
            return Err(external.refuse("is too short for it"));
        }
        let left = budget.checked_sub(external.length);
        budget = left.ok_or_else(|| external.refuse("is read too often"))?;
        let stretch = Stretch {
            start: external.offset,
            length: external.length,
            floats: external.floats,
        };
        let mut input = Input::new(&mut file.reader, file.size)?;
        Scan::new(stretch.length, Refuse::Nan).check(&mut input, stretch, external.tensor)
    };
    onnx::check(&content, &mut visit).map_err(&refuse)?;
    Ok(Checked::Onnx)
}

/// The whole file: a graph is walked from one end to the other, and into messages whose length comes before them.
fn read_onnx<R: Read + Seek>(model: &mut Source<'_, R>) -> Result<Vec<u8>, Malformed> {
    let length = usize::try_from(model.size).ok().filter(|_| model.size <= MAX_ONNX);
    let length = length.ok_or(Malformed::Count {
        what: "the file's length",
        found: model.size,
        limit: MAX_ONNX,
        offset: 0,
    })?;
    let mut content = vec![0; length];
    let mut input = Input::new(&mut model.reader, model.size)?;
    input.fill(&mut content, "the file")?;
    Ok(content)
}

#[cfg(test)]
mod tests {
    use std::io::Cursor;

    use super::*;

    fn sources<'a>(files: &'a [(&'a str, Vec<u8>)]) -> Vec<Source<'a, Cursor<&'a [u8]>>> {
        let source = |(name, content): &'a (&str, Vec<u8>)| Source {
            name,
            size: content.len() as u64,
            reader: Cursor::new(content.as_slice()),
        };
        files.iter().map(source).collect()
    }

    fn fault(format: Format, files: &[(&str, Vec<u8>)]) -> String {
        check_sources(format, &mut sources(files)).unwrap_err().to_string()
    }

    #[test]
    fn a_file_of_another_format_is_refused_by_name() {
        let text = || b"not a model at all".to_vec();
        assert_eq!(
            fault(Format::Gguf, &[("a.gguf", text())]),
            "model file `a.gguf`: it is not a GGUF file"
        );
        let tensors = fault(
            Format::Safetensors,
            &[("config.json", text()), ("a.safetensors", text())],
        );
        assert!(
            tensors.starts_with("model file `a.safetensors`: it ends inside the header"),
            "{tensors}"
        );
        assert!(fault(Format::Onnx, &[("a.onnx", text())]).starts_with("model file `a.onnx`: "));
    }

    #[test]
    fn a_model_has_a_file() {
        for format in [Format::Gguf, Format::Safetensors, Format::Onnx] {
            assert!(fault(format, &[]).contains("it has no file"));
        }
        assert!(fault(Format::Safetensors, &[("config.json", vec![])]).contains("ends in .safetensors"));
    }

    #[test]
    fn data_in_another_file_is_looked_at_there() {
        let model = onnx::tests::with_external("weights.bin", 4, 8);
        let files = |weights: &[f32]| {
            let weights = weights.iter().flat_map(|weight| weight.to_le_bytes()).collect();
            [("model.onnx", model.clone()), ("weights.bin", weights)]
        };
        check_sources(Format::Onnx, &mut sources(&files(&[f32::NAN, 1.0, 2.0]))).unwrap();
        let nan = fault(Format::Onnx, &files(&[0.0, 1.0, f32::NAN]));
        assert!(nan.contains("not a finite number, at byte 4"), "{nan}");
        let short = fault(Format::Onnx, &files(&[0.0, 1.0]));
        assert!(short.contains("`weights.bin`, which is too short for it"), "{short}");
        let alone = fault(Format::Onnx, &files(&[0.0; 3])[..1]);
        assert!(alone.contains("not among the manifest's artifacts"), "{alone}");
    }
}
