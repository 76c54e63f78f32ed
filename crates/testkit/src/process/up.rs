//! `rialto up` and `rialto provide`, started, killed and started again.

use std::{
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
};

use anyhow::{Context, Result, bail};
use rialto_protocol::ticket::Ticket;
use rialto_settlement::Chain;
use serde_json::Value;

use super::{command, lines::Lines};
use crate::{PATIENCE, client::Client};

/// A market started with `rialto up`. It is killed when this is dropped.
pub struct Up {
    child: Child,
    lines: Lines,
    data_dir: PathBuf,
    serving: Value,
}

impl Up {
    /// Starts a market and waits until it serves; `extra` are further flags.
    pub fn start(data_dir: &Path, extra: &[&str]) -> Result<Self> {
        let (child, lines) = spawn(data_dir, &[&["up", "--listen", "127.0.0.1:0"], extra].concat(), "up")?;
        let serving = lines.wait(PATIENCE, |value| value.get("base_url").map(|_| value.clone()));
        let serving = serving.with_context(|| logs(data_dir))?;
        Ok(Self {
            child,
            lines,
            data_dir: data_dir.to_owned(),
            serving,
        })
    }

    /// A market with the embedded chain, on ports of its own.
    pub fn on_devchain(data_dir: &Path) -> Result<Self> {
        Self::start(data_dir, &["--chain-listen", "127.0.0.1:0"])
    }

    /// What it said when it began to serve.
    pub fn said(&self, name: &str) -> Result<String> {
        let found = self.serving.get(name).and_then(Value::as_str);
        found
            .map(str::to_owned)
            .with_context(|| format!("`rialto up` did not say its {name}"))
    }

    /// The first trade, as it showed it.
    pub fn first_trade(&self) -> Result<Value> {
        self.lines.wait(PATIENCE, |value| value.get("first_trade").cloned())
    }

    /// The process of a part: `chain`, `gateway` or `provider`. The latest one, if it was started again.
    pub fn pid_of(&self, part: &str) -> Result<u32> {
        self.lines.wait_in(PATIENCE, |said| latest_pid(said, part))
    }

    /// The process of a part once it is another one than `before`.
    pub fn pid_after(&self, part: &str, before: u32) -> Result<u32> {
        self.lines
            .wait_in(PATIENCE, |said| latest_pid(said, part).filter(|pid| *pid != before))
    }

    /// Kills a part as a power cut does and waits until it was started again.
    pub fn kill_and_wait(&self, part: &str) -> Result<()> {
        let before = self.pid_of(part)?;
        super::sigkill(before)?;
        self.pid_after(part, before)?;
        Ok(())
    }

    /// An OpenAI client of its gateway.
    pub fn client(&self) -> Result<Client> {
        Ok(Client::new(&self.said("base_url")?, &self.said("api_key")?))
    }

    /// The market's ticket.
    pub fn ticket(&self) -> Result<Ticket> {
        Ok(self.said("ticket")?.parse()?)
    }

    /// Its chain.
    pub fn chain(&self) -> Result<Chain> {
        let ticket = self.ticket()?;
        Ok(Chain::connect(&ticket.rpc_url, ticket.contracts)?)
    }

    /// Its data directory.
    pub fn data_dir(&self) -> &Path {
        &self.data_dir
    }

    /// Runs another command on its data directory and returns the JSON that it prints.
    pub fn ask(&self, arguments: &[&str]) -> Result<Value> {
        let output = command()?
            .args(arguments)
            .arg("--json")
            .arg("--data-dir")
            .arg(&self.data_dir)
            .output()?;
        if !output.status.success() {
            bail!("rialto {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
        }
        Ok(serde_json::from_slice(&output.stdout)?)
    }

    /// Stops it as Ctrl-C does, and waits for its end.
    pub fn stop(mut self) -> Result<()> {
        let status = Command::new("kill")
            .args(["-INT", &self.child.id().to_string()])
            .status()?;
        anyhow::ensure!(status.success(), "the market is gone already");
        let ended = self.child.wait()?;
        anyhow::ensure!(
            ended.success(),
            "the market ended with {ended}\n{}",
            logs(&self.data_dir)
        );
        Ok(())
    }

    /// Kills the supervisor itself; its parts notice and end.
    pub fn kill(mut self) -> Result<()> {
        self.child.kill()?;
        self.child.wait()?;
        Ok(())
    }
}

impl Drop for Up {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

/// A provider that joined by a ticket, with a data directory of its own. It is killed when this is dropped.
pub struct Joined {
    child: Child,
    account: String,
}

impl Joined {
    /// Joins a market; `extra` are further flags. It measures nothing first: no story asks how fast its models are.
    pub fn start(data_dir: &Path, ticket: &str, extra: &[&str]) -> Result<Self> {
        let arguments = [&["provide", "--no-bench", "--ticket", ticket], extra].concat();
        let (child, lines) = spawn(data_dir, &arguments, "provide")?;
        let account = lines.wait(PATIENCE, |value| {
            value.get("provider").and_then(Value::as_str).map(str::to_owned)
        });
        Ok(Self {
            child,
            account: account.with_context(|| logs(data_dir))?,
        })
    }

    /// Its account.
    pub fn account(&self) -> &str {
        &self.account
    }

    /// Kills it as a power cut does.
    pub fn kill(&mut self) -> Result<()> {
        self.child.kill()?;
        self.child.wait()?;
        Ok(())
    }
}

impl Drop for Joined {
    fn drop(&mut self) {
        drop(self.kill());
    }
}

/// The process that a part ran in when it last said so.
fn latest_pid(said: &[Value], part: &str) -> Option<u32> {
    let named = |value: &&Value| value.get("part").and_then(Value::as_str) == Some(part);
    let pid = said.iter().rev().find(named)?.get("pid").and_then(Value::as_u64)?;
    u32::try_from(pid).ok()
}

fn spawn(data_dir: &Path, arguments: &[&str], name: &str) -> Result<(Child, Lines)> {
    std::fs::create_dir_all(data_dir.join("logs"))?;
    let log = std::fs::File::create(data_dir.join("logs").join(format!("{name}.log")))?;
    let mut child = command()?
        .args(arguments)
        .args(["--json", "--data-dir"])
        .arg(data_dir)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(log)
        .spawn()?;
    let lines = Lines::read(child.stdout.take().context("no output")?);
    Ok((child, lines))
}

/// The ends of all logs, to explain a failure.
fn logs(data_dir: &Path) -> String {
    let mut text = String::from("the logs:\n");
    for entry in std::fs::read_dir(data_dir.join("logs")).into_iter().flatten().flatten() {
        let log = std::fs::read_to_string(entry.path()).unwrap_or_default();
        let tail: Vec<&str> = log.lines().rev().take(8).collect();
        text += &format!("{}:\n", entry.path().display());
        for line in tail.iter().rev() {
            text += &format!("  {line}\n");
        }
    }
    text
}
