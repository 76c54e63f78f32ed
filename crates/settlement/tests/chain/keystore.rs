//! Key files that other software reads and writes.

#![expect(clippy::unwrap_used, clippy::panic, reason = "a test ends where it cannot go on")]

use std::{
    path::{Path, PathBuf},
    process::Command,
};

use rialto_settlement::keystore;

fn cast() -> PathBuf {
    if let Some(path) = std::env::var_os("RIALTO_CAST") {
        return path.into();
    }
    let packages = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../contracts/node_modules/@foundry-rs");
    let installed = std::fs::read_dir(packages).into_iter().flatten().flatten();
    installed
        .map(|entry| entry.path().join("bin/cast"))
        .find(|path| path.is_file())
        .unwrap_or_else(|| "cast".into())
}

fn run(arguments: &[&str]) -> String {
    let output = Command::new(cast()).args(arguments).output().unwrap_or_else(|error| {
        panic!("cast is missing ({error}): run `npm ci` in contracts/, or set RIALTO_CAST to its path")
    });
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn cast_reads_our_file() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("key.json");
    let key = keystore::load_or_create(&path, b"a password").unwrap();
    let address = run(&[
        "wallet",
        "address",
        "--keystore",
        path.to_str().unwrap(),
        "--password",
        "a password",
    ]);
    assert_eq!(address.trim().to_lowercase(), key.address().to_string());
}

#[test]
fn we_read_the_file_of_cast() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().to_str().unwrap();
    let said = run(&["wallet", "new", path, "theirs", "--unsafe-password", "a password"]);
    let key = keystore::load(&folder.path().join("theirs"), b"a password").unwrap();
    assert!(said.to_lowercase().contains(&key.address().to_string()), "{said}");
}
