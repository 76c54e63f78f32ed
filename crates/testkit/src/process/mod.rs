//! The processes that users run: `rialto up`, more providers, and anvil.

mod anvil;
mod lines;
mod proxy;
mod up;

pub use anvil::{Anvil, cast};
pub use proxy::Proxy;
pub use up::{Joined, Up};

use std::{path::PathBuf, process::Command};

use anyhow::{Context, Result};

/// The `rialto` program of this build: the gate builds it before the stories.
pub fn rialto() -> Result<PathBuf> {
    let test = std::env::current_exe().context("this test's own path")?;
    let built = test
        .ancestors()
        .skip(1)
        .map(|folder| folder.join("rialto"))
        .find(|path| path.is_file());
    built.context("no `rialto` beside the tests: build it with `cargo build --release --workspace`")
}

/// The folder of the source tree.
pub fn repository() -> PathBuf {
    PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../.."))
}

/// A `rialto` command with the environment of the stories: only what is given, nothing of the user's.
pub(crate) fn command() -> Result<Command> {
    let mut command = Command::new(rialto()?);
    for name in [
        "RIALTO_TICKET",
        "RIALTO_RPC_URL",
        "RIALTO_CONFIG",
        "OPENAI_API_KEY",
        "OPENAI_BASE_URL",
    ] {
        command.env_remove(name);
    }
    command.env("RIALTO_MODELS_DIR", repository().join("models"));
    if std::env::var_os("ORT_DYLIB_PATH").is_none() {
        command.env(
            "ORT_DYLIB_PATH",
            repository().join("target/onnxruntime/libonnxruntime.so"),
        );
    }
    Ok(command)
}

/// Ends a process at once, as a power cut does.
pub fn sigkill(pid: u32) -> Result<()> {
    let status = Command::new("kill").args(["-KILL", &pid.to_string()]).status()?;
    anyhow::ensure!(status.success(), "process {pid} is gone already");
    Ok(())
}
