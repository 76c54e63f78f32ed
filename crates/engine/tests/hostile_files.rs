//! A stranger's model files must not hurt a provider: hundreds of corrupt files of each format, made of the shipped ones.
//! Each gets an error that says what is wrong, and costs at most twice its size in memory.

#![expect(
    clippy::unwrap_used,
    clippy::panic,
    clippy::print_stdout,
    clippy::indexing_slicing,
    clippy::cast_possible_truncation,
    reason = "a test fails by panicking, and its numbers are small"
)]

mod hostile;

use std::{io::Cursor, path::Path};

use hostile::{Case, gguf, memory, onnx, safetensors};
use rialto_engine::{
    ArtifactFault, Error, artifact,
    files::{self, Checked, Refused, Source},
};
use rialto_protocol::manifest::{Format, Manifest};

#[global_allocator]
static ALLOCATOR: memory::Counting = memory::Counting;

/// What a check may take beyond twice the file: 8 KiB that are read ahead, and the texts of a message.
const CONSTANT: usize = 12 << 10;

fn shipped(path: &str) -> Vec<u8> {
    std::fs::read(Path::new(env!("CARGO_MANIFEST_DIR")).join("../../models").join(path)).unwrap()
}

/// Checks one file and sees to it that this costs no more memory than it may.
fn check(format: Format, name: &str, bytes: &[u8]) -> Result<Checked, Refused> {
    let mut source = [Source {
        name,
        size: bytes.len() as u64,
        reader: Cursor::new(bytes),
    }];
    let (result, peak) = memory::peak(|| files::check_sources(format, &mut source));
    let limit = 2 * bytes.len() + CONSTANT;
    assert!(
        peak <= limit,
        "{peak} bytes of memory for a file of {}: {result:?}",
        bytes.len()
    );
    result
}

/// What is wrong with how a case was refused.
fn judge(format: Format, name: &str, case: &Case) -> Option<String> {
    let what = format!("{}: {}", case.category, case.name);
    let refused = match check(format, name, &case.bytes.make()) {
        Ok(_) => return Some(format!("{what}: accepted")),
        Err(refused) => refused,
    };
    let message = refused.to_string();
    let named = case.about.as_ref().is_none_or(|about| message.contains(about));
    let begins = message.starts_with(&format!("model file `{name}`: "));
    let clean = message.len() < 500 && !message.contains(char::is_control);
    let right = (case.expected)(&refused.malformed) && named && begins && clean;
    (!right).then(|| format!("{what}: {message}"))
}

/// Runs all cases.
fn refuse_all(format: Format, name: &str, cases: &[Case]) {
    let wrong: Vec<String> = cases.iter().filter_map(|case| judge(format, name, case)).collect();
    assert!(
        wrong.is_empty(),
        "{} of {}:\n{}",
        wrong.len(),
        cases.len(),
        wrong.join("\n")
    );
    assert!(cases.len() >= 200, "only {} cases", cases.len());
    println!("{} corrupt files refused", cases.len());
}

#[test]
fn corrupt_gguf_files_are_refused() {
    for name in ["shakespeare-q4_0.gguf", "shakespeare-q8_0.gguf"] {
        let file = shipped(&format!("shakespeare/{name}"));
        assert!(matches!(check(Format::Gguf, name, &file), Ok(Checked::Gguf(_))));
        refuse_all(Format::Gguf, name, &gguf::cases(&file.into()));
    }
}

#[test]
fn corrupt_safetensors_files_are_refused() {
    let name = "model.safetensors";
    assert!(matches!(
        check(Format::Safetensors, name, &safetensors::honest()),
        Ok(Checked::Safetensors(_))
    ));
    refuse_all(Format::Safetensors, name, &safetensors::cases());
}

#[test]
fn corrupt_onnx_files_are_refused() {
    let name = "breast-cancer.onnx";
    let file = shipped("breast-cancer/breast-cancer.onnx");
    assert!(matches!(check(Format::Onnx, name, &file), Ok(Checked::Onnx)));
    refuse_all(Format::Onnx, name, &onnx::cases(&file));
}

#[test]
fn flipped_bits_are_no_crash_and_cost_no_memory() {
    let gguf = shipped("shakespeare/shakespeare-q4_0.gguf");
    let onnx = shipped("breast-cancer/breast-cancer.onnx");
    let honest = [
        (Format::Gguf, "x.gguf", &gguf[..70_000]),
        (Format::Onnx, "x.onnx", &onnx),
        (Format::Safetensors, "x.safetensors", &safetensors::honest()),
    ];
    let mut random = 0x2545_f491_4f6c_dd1du64;
    for (format, name, honest) in honest {
        for round in 0..2_000 {
            let mut bytes = honest.to_vec();
            for _ in 0..=round % 4 {
                random ^= random << 13;
                random ^= random >> 7;
                random ^= random << 17;
                // Headers are where the harm is done.
                let reach = if round % 2 == 0 { 1_024 } else { bytes.len() as u64 };
                let place = (random >> 8) % reach;
                bytes[place as usize] ^= 1 << (random & 7);
            }
            drop(check(format, name, &bytes));
        }
    }
}

#[test]
fn what_costs_most_memory_costs_less_than_twice_the_file() {
    for (keys, tensors) in [(65_536, 1), (1, 65_536), (30_000, 30_000)] {
        // It is refused at the end, when all of it has been read.
        check(Format::Gguf, "x.gguf", &gguf::heaviest(keys, tensors)).unwrap_err();
    }
    check(Format::Safetensors, "x.safetensors", &safetensors::heaviest(50_000)).unwrap();
    let locations = (0..1_000).map(|index| format!("{index:x}"));
    let model = shipped("breast-cancer/breast-cancer.onnx");
    let model = locations.fold(model, |model, location| onnx::with_external(&model, &location));
    let (found, peak) = memory::peak(|| files::onnx::locations(&model));
    assert_eq!(found.unwrap().len(), 1_000);
    assert!(peak < model.len(), "{peak} bytes of memory");
}

/// The shipped model in a folder of its own.
fn copied() -> (tempfile::TempDir, Manifest) {
    let folder = tempfile::tempdir().unwrap();
    let name = "shakespeare-q4_0.gguf";
    std::fs::write(folder.path().join(name), shipped(&format!("shakespeare/{name}"))).unwrap();
    let text = String::from_utf8(shipped("shakespeare/manifest-q4_0.toml")).unwrap();
    (folder, Manifest::from_toml(&text).unwrap())
}

#[test]
fn a_valid_file_under_anothers_hash_is_not_opened_by_a_parser() {
    let (folder, manifest) = copied();
    let files = artifact::verify(&manifest, folder.path()).unwrap();
    files::check(&manifest, &files).unwrap();
    assert_eq!(
        files::kv_bytes_per_token(&files[0].path).unwrap(),
        4 * 2 * (64 + 64) * 2
    );

    let path = folder.path().join(&manifest.artifacts[0].path);
    let fault = || match artifact::verify(&manifest, folder.path()).unwrap_err() {
        Error::Artifact { fault, .. } => fault,
        other => panic!("{other}"),
    };
    // A valid model, and not the one that was asked for.
    std::fs::write(&path, shipped("shakespeare/shakespeare-q8_0.gguf")).unwrap();
    assert!(matches!(fault(), ArtifactFault::Size { .. }));
    let mut other = shipped("shakespeare/shakespeare-q4_0.gguf");
    *other.last_mut().unwrap() ^= 1;
    std::fs::write(&path, &other).unwrap();
    assert!(matches!(fault(), ArtifactFault::Hash { .. }));
    std::fs::write(&path, shipped("breast-cancer/breast-cancer.onnx")).unwrap();
    assert!(matches!(fault(), ArtifactFault::Size { .. }));
}

#[test]
fn a_manifest_cannot_name_a_file_outside_its_folder() {
    let (folder, manifest) = copied();
    let outer = folder.path().join("outer");
    std::fs::create_dir(&outer).unwrap();
    for trick in onnx::TRICKS {
        let mut hostile = manifest.clone();
        hostile.artifacts[0].path = trick.to_owned();
        let refused = hostile.check().is_err() || artifact::verify(&hostile, &outer).is_err();
        assert!(refused, "{trick:?}");
        // Even when nobody checked the manifest, the file beside the folder is not read.
        assert!(artifact::verify(&hostile, &outer).is_err(), "{trick:?}");
    }
    let mut hostile = manifest.clone();
    hostile.artifacts[0].path = format!("../{}", manifest.artifacts[0].path);
    assert!(hostile.check().is_err());
    assert!(matches!(
        artifact::verify(&hostile, &outer),
        Err(Error::Artifact {
            fault: ArtifactFault::Outside,
            ..
        })
    ));
}
