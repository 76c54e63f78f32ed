//! Foundry's anvil: another chain than ours, on which everything must hold too.

use std::{
    net::TcpListener,
    os::unix::process::CommandExt as _,
    path::PathBuf,
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};

use super::repository;

/// A running anvil on a port of its own. It ends when this is dropped.
pub struct Anvil {
    child: Child,
    rpc_url: String,
}

impl Anvil {
    /// Starts it and waits until it answers.
    pub fn start() -> Result<Self> {
        let port = TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
        let child = Command::new(foundry("anvil"))
            .args(["--port", &port.to_string(), "--silent"])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            // The program of the npm package is a script that starts the real one, which outlives it: they end together.
            .process_group(0)
            .spawn()
            .context("anvil does not start: `npm ci` in contracts/ installs it")?;
        let anvil = Self {
            child,
            rpc_url: format!("http://127.0.0.1:{port}"),
        };
        let until = Instant::now() + Duration::from_secs(30);
        while std::net::TcpStream::connect(("127.0.0.1", port)).is_err() {
            if Instant::now() > until {
                bail!("anvil does not answer");
            }
            std::thread::sleep(Duration::from_millis(20));
        }
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

/// A program of Foundry: the one that `contracts/` pins, else the one on the path.
pub(crate) fn foundry(name: &str) -> PathBuf {
    let pinned = repository().join("contracts/node_modules/.bin").join(name);
    if pinned.exists() { pinned } else { name.into() }
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
