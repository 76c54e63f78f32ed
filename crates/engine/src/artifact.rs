//! Verification of a model's files before anything parses them.
//!
//! Size and BLAKE3 of every artifact are compared with the manifest. A file is read in blocks, so that memory does not
//! grow with its size. Files outside the model's folder are refused even when a link inside leads to them: what a
//! manifest from a stranger names must not reach into the rest of the machine.

use std::{
    fs::File,
    io::{ErrorKind, Read},
    path::{Path, PathBuf},
    sync::Arc,
};

use rialto_protocol::{
    Digest,
    manifest::{Artifact, Manifest},
};

use crate::{ArtifactFault, Error};

/// Bytes read at a time.
const BLOCK: usize = 1 << 20;

/// A file whose content is what the manifest says.
#[derive(Debug, Clone)]
pub struct VerifiedFile {
    /// As in the manifest.
    pub name: String,
    /// Where it is, without links.
    pub path: PathBuf,
}

/// The name and the verified bytes of a file.
pub type VerifiedContent = (String, Arc<[u8]>);

/// Verifies every artifact without keeping its content.
pub fn verify(manifest: &Manifest, folder: &Path) -> Result<Vec<VerifiedFile>, Error> {
    let verify = |artifact| {
        let path = locate(artifact, folder)?;
        let mut file = open(artifact, &path)?;
        let mut hasher = blake3::Hasher::new();
        let mut block = vec![0; BLOCK];
        read_blocks(artifact, &mut file, &mut block, |bytes| {
            hasher.update(bytes);
        })?;
        compare(artifact, hasher.finalize().into())?;
        let name = artifact.path.clone();
        Ok(VerifiedFile { name, path })
    };
    manifest.artifacts.iter().map(verify).collect()
}

/// Reads every artifact into memory and verifies exactly the bytes that are returned, so that nobody can exchange a
/// file between the check and its use. In the manifest's order.
pub fn read(manifest: &Manifest, folder: &Path) -> Result<Vec<VerifiedContent>, Error> {
    let read = |artifact: &Artifact| {
        let path = locate(artifact, folder)?;
        let mut file = open(artifact, &path)?;
        let size = usize::try_from(artifact.size).map_err(|_| fault(artifact, ArtifactFault::Outside))?;
        let mut content = Vec::with_capacity(size);
        let mut block = vec![0; BLOCK];
        read_blocks(artifact, &mut file, &mut block, |bytes| {
            content.extend_from_slice(bytes)
        })?;
        compare(artifact, blake3::hash(&content).into())?;
        Ok((artifact.path.clone(), Arc::from(content)))
    };
    manifest.artifacts.iter().map(read).collect()
}

/// The BLAKE3 hash of these bytes, as manifests have it.
pub fn hash(content: &[u8]) -> [u8; 32] {
    blake3::hash(content).into()
}

/// Follows links and checks that the file is inside the folder.
fn locate(artifact: &Artifact, folder: &Path) -> Result<PathBuf, Error> {
    let io = |error: std::io::Error| match error.kind() {
        ErrorKind::NotFound => fault(artifact, ArtifactFault::Missing),
        _ => fault(artifact, ArtifactFault::Unreadable(error.to_string())),
    };
    let folder = folder.canonicalize().map_err(io)?;
    let path = folder.join(&artifact.path).canonicalize().map_err(io)?;
    if !path.starts_with(&folder) || !path.is_file() {
        return Err(fault(artifact, ArtifactFault::Outside));
    }
    Ok(path)
}

/// Opens the file and checks its size before a byte is read.
fn open(artifact: &Artifact, path: &Path) -> Result<File, Error> {
    let unreadable = |error: std::io::Error| fault(artifact, ArtifactFault::Unreadable(error.to_string()));
    let file = File::open(path).map_err(unreadable)?;
    let found = file.metadata().map_err(unreadable)?.len();
    check_size(artifact, found)?;
    Ok(file)
}

/// Feeds the content to `sink` and checks that it is as long as it should be, even when the file grows meanwhile.
fn read_blocks(
    artifact: &Artifact,
    file: &mut File,
    block: &mut [u8],
    mut sink: impl FnMut(&[u8]),
) -> Result<(), Error> {
    let mut total = 0u64;
    loop {
        let read = match file.read(block) {
            Ok(read) => read,
            Err(error) if error.kind() == ErrorKind::Interrupted => continue,
            Err(error) => return Err(fault(artifact, ArtifactFault::Unreadable(error.to_string()))),
        };
        total = total.saturating_add(u64::try_from(read).unwrap_or(u64::MAX));
        if total > artifact.size || read == 0 {
            return check_size(artifact, total);
        }
        sink(block.get(..read).unwrap_or_default());
    }
}

fn check_size(artifact: &Artifact, found: u64) -> Result<(), Error> {
    let expected = artifact.size;
    if found == expected {
        return Ok(());
    }
    Err(fault(artifact, ArtifactFault::Size { expected, found }))
}

fn compare(artifact: &Artifact, found: [u8; 32]) -> Result<(), Error> {
    let expected = artifact.blake3;
    if expected.0 == found {
        return Ok(());
    }
    let found = Digest(found);
    Err(fault(artifact, ArtifactFault::Hash { expected, found }))
}

fn fault(artifact: &Artifact, fault: ArtifactFault) -> Error {
    let path = artifact.path.clone();
    Error::Artifact { path, fault }
}

#[cfg(test)]
mod tests {
    use rialto_protocol::manifest::{Format, TaskKind};

    use super::*;

    fn manifest(path: &str, content: &[u8]) -> Manifest {
        Manifest {
            schema: 1,
            publisher_name: "rialto".into(),
            name: "test".into(),
            tag: "v1".into(),
            task: TaskKind::Predict,
            description: String::new(),
            quantisation: "F32".into(),
            licence: "MIT".into(),
            royalty_bps: 0,
            context_length: 0,
            format: Format::Onnx,
            chat_template_hash: String::new(),
            tokenizer_hash: String::new(),
            artifacts: vec![Artifact {
                path: path.into(),
                blake3: Digest(blake3::hash(content).into()),
                size: content.len() as u64,
            }],
            inputs: vec![],
            outputs: vec![],
        }
    }

    fn fault_of(manifest: &Manifest, folder: &Path) -> ArtifactFault {
        let by_reading = read(manifest, folder).unwrap_err();
        assert_eq!(
            verify(manifest, folder).unwrap_err(),
            by_reading,
            "both ways must agree"
        );
        match by_reading {
            Error::Artifact { path, fault } => {
                assert_eq!(path, manifest.artifacts[0].path);
                fault
            }
            other => panic!("{other}"),
        }
    }

    #[test]
    fn the_right_file_passes_and_every_wrong_one_is_named() {
        let content = vec![7u8; 3 * BLOCK + 17];
        let folder = tempfile::tempdir().unwrap();
        let manifest = manifest("weights.bin", &content);
        let path = folder.path().join("weights.bin");
        assert_eq!(fault_of(&manifest, folder.path()), ArtifactFault::Missing);

        std::fs::write(&path, &content).unwrap();
        assert_eq!(verify(&manifest, folder.path()).unwrap()[0].name, "weights.bin");
        assert_eq!(read(&manifest, folder.path()).unwrap()[0].1.as_ref(), content);

        let mut flipped = content.clone();
        flipped[2 * BLOCK] ^= 1;
        std::fs::write(&path, &flipped).unwrap();
        let expected = ArtifactFault::Hash {
            expected: manifest.artifacts[0].blake3,
            found: Digest(blake3::hash(&flipped).into()),
        };
        assert_eq!(fault_of(&manifest, folder.path()), expected);

        std::fs::write(&path, &content[1..]).unwrap();
        let (expected, found) = (content.len() as u64, content.len() as u64 - 1);
        assert_eq!(
            fault_of(&manifest, folder.path()),
            ArtifactFault::Size { expected, found }
        );
    }

    #[cfg(unix)]
    #[test]
    fn a_link_out_of_the_folder_is_refused_and_one_inside_is_followed() {
        let content = b"content";
        let (outer, folder) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        std::fs::write(outer.path().join("weights.bin"), content).unwrap();
        std::os::unix::fs::symlink(outer.path().join("weights.bin"), folder.path().join("out.bin")).unwrap();
        std::os::unix::fs::symlink(outer.path(), folder.path().join("folder")).unwrap();
        for path in ["out.bin", "folder/weights.bin"] {
            assert_eq!(
                fault_of(&manifest(path, content), folder.path()),
                ArtifactFault::Outside
            );
        }
        std::fs::write(folder.path().join("real.bin"), content).unwrap();
        std::os::unix::fs::symlink("real.bin", folder.path().join("in.bin")).unwrap();
        verify(&manifest("in.bin", content), folder.path()).unwrap();
        std::fs::create_dir(folder.path().join("dir")).unwrap();
        assert_eq!(
            fault_of(&manifest("dir", content), folder.path()),
            ArtifactFault::Outside
        );
    }
}
