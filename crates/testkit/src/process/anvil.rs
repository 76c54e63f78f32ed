//! Foundry's anvil: another chain than ours, on which everything must hold too.

use std::{
    io::{BufRead as _, BufReader},
    os::unix::process::CommandExt as _,
    path::PathBuf,
    process::{Child, Command, Stdio},
};

use anyhow::{Context, Result, bail};

use super::repository;

/// A running anvil on a port of its own. It ends when this is dropped.
pub struct Anvil {
    child: Child,
    rpc_url: String,
}

impl Anvil {
    /// Starts it and waits until it says where it listens: the system gives it a port, which nobody else can take meanwhile.
    pub fn start() -> Result<Self> {
        let mut child = Command::new(foundry("anvil"))
            .args(["--port", "0"])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            // Where there is only the launcher that npm puts before it, the program outlives it: they end together.
            .process_group(0)
            .spawn()
            .context("anvil does not start: `npm ci` in contracts/ installs it")?;
        let output = child.stdout.take();
        let mut anvil = Self {
            child,
            rpc_url: String::new(),
        };
        let mut lines = BufReader::new(output.context("no output")?).lines();
        let address = lines
            .by_ref()
            .map_while(std::io::Result::ok)
            .find_map(|line| line.strip_prefix("Listening on ").map(str::to_owned));
        anvil.rpc_url = format!("http://{}", address.context("anvil ended before it listened")?.trim());
        // It says every call, and must not wait for us.
        std::thread::spawn(move || lines.for_each(drop));
        Ok(anvil)
    }

    /// Where it answers.
    pub fn rpc_url(&self) -> &str {
        &self.rpc_url
    }
}

impl Drop for Anvil {
    fn drop(&mut self) {
        let group = format!("-{}", self.child.id());
        drop(Command::new("kill").args(["-KILL", "--", &group]).status());
        drop(self.child.wait());
    }
}

/// A program of Foundry: the one that `contracts/` pins, itself rather than the launcher that npm puts before it, which costs
/// more than most calls; else the one on the path.
pub(crate) fn foundry(name: &str) -> PathBuf {
    let packages = repository().join("contracts/node_modules");
    let platforms = std::fs::read_dir(packages.join("@foundry-rs"))
        .into_iter()
        .flatten()
        .flatten();
    let programs = platforms
        .filter(|entry| entry.file_name().to_string_lossy().starts_with(&format!("{name}-")))
        .map(|entry| entry.path().join("bin").join(name));
    let launcher = packages.join(".bin").join(name);
    let pinned = programs.chain([launcher]).find(|path| path.exists());
    pinned.unwrap_or_else(|| name.into())
}

/// Runs `cast` and returns what it prints.
pub fn cast(arguments: &[&str]) -> Result<String> {
    let output = Command::new(foundry("cast"))
        .args(arguments)
        .output()
        .context("cast does not start")?;
    if !output.status.success() {
        bail!("cast {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    }
    Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
}
