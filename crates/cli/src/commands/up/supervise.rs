//! Child processes: started, watched, started again when they die, and stopped together.

use std::{fs::OpenOptions, path::PathBuf, process::Stdio, time::Duration};

use anyhow::{Context, Result, bail};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncBufReadExt, BufReader},
    net::TcpSocket,
    process::{Child, ChildStdin, Command},
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::{output, settings::Settings};

/// How long a part may take until it is ready: loading large models included.
const READY: Duration = Duration::from_secs(300);

/// How long a part may take to stop before it is killed.
const GRACE: Duration = Duration::from_secs(20);

/// The longest pause before a part that keeps dying is started again.
const LONGEST_PAUSE: Duration = Duration::from_secs(5);

/// The parts of a market.
pub(super) struct Supervisor {
    executable: PathBuf,
    data_dir: PathBuf,
    config: Option<PathBuf>,
    logs: PathBuf,
    json: bool,
    parts: TaskTracker,
    stops: std::sync::Mutex<Vec<CancellationToken>>,
    /// Addresses that are the parts' while they are started again.
    held: std::sync::Mutex<Vec<TcpSocket>>,
}

/// How one part is started.
#[derive(Clone)]
struct Spec {
    name: String,
    executable: PathBuf,
    arguments: Vec<String>,
    log: PathBuf,
    json: bool,
}

impl Supervisor {
    /// Nothing runs yet.
    pub(super) fn new(settings: &Settings) -> Result<Self> {
        Ok(Self {
            executable: std::env::current_exe().context("this program's own path")?,
            data_dir: settings.dir.root().to_owned(),
            config: settings.config.clone(),
            logs: settings.dir.folder("logs")?,
            json: settings.json,
            parts: TaskTracker::new(),
            stops: std::sync::Mutex::default(),
            held: std::sync::Mutex::default(),
        })
    }

    /// Keeps an address for a part, where a socket that does not listen lets another one listen.
    pub(super) fn hold(&self, socket: TcpSocket) {
        if cfg!(target_os = "linux")
            && let Ok(mut held) = self.held.lock()
        {
            held.push(socket);
        }
    }

    /// Starts a part and waits until it says that it is ready; what it said is returned. It is kept running from then
    /// on, with the same arguments.
    pub(super) async fn start(&self, name: &str, arguments: &[&str]) -> Result<Value> {
        let mut all: Vec<String> = arguments.iter().map(|&text| text.to_owned()).collect();
        all.extend(["--supervised".into(), "--json".into(), "--data-dir".into()]);
        all.push(self.data_dir.to_string_lossy().into_owned());
        if let Some(config) = &self.config {
            all.extend(["--config".into(), config.to_string_lossy().into_owned()]);
        }
        let log = self.logs.join(format!("{name}.log"));
        let spec = Spec {
            name: name.to_owned(),
            executable: self.executable.clone(),
            arguments: all,
            log,
            json: self.json,
        };
        let mut child = spec.spawn()?;
        let ready = tokio::time::timeout(READY, ready_line(&mut child)).await;
        let Some(ready) = ready.with_context(|| format!("the {name} was not ready in time"))? else {
            drop(child.wait().await);
            bail!("the {name} did not start: {}", spec.last_words());
        };
        spec.say_running(&child)?;
        let stop = CancellationToken::new();
        if let Ok(mut stops) = self.stops.lock() {
            stops.push(stop.clone());
        }
        self.parts.spawn(keep(spec, child, stop));
        Ok(ready)
    }

    /// Stops all parts: the latest first, each of them after those that depend on it.
    pub(super) async fn stop(&self) {
        let stops = self
            .stops
            .lock()
            .map(|mut stops| std::mem::take(&mut *stops))
            .unwrap_or_default();
        for stop in stops.into_iter().rev() {
            stop.cancel();
            // Give its last words, such as a final claim, a moment before what it depends on goes.
            tokio::time::sleep(Duration::from_millis(300)).await;
        }
        self.parts.close();
        self.parts.wait().await;
    }
}

impl Spec {
    fn spawn(&self) -> Result<Child> {
        let log = OpenOptions::new().create(true).append(true).open(&self.log);
        let log = log.with_context(|| format!("cannot write {}", self.log.display()))?;
        Command::new(&self.executable)
            .args(&self.arguments)
            // The child ends when this pipe does: also when we are killed.
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(log)
            // Ctrl-C in a terminal goes to the whole group; the parts are stopped in order instead.
            .process_group(0)
            .kill_on_drop(true)
            .spawn()
            .with_context(|| format!("cannot start the {}", self.name))
    }

    /// Tells who watches which process the part is now.
    fn say_running(&self, child: &Child) -> Result<()> {
        if self.json {
            output::json(&json!({ "part": self.name, "pid": child.id() }))?;
        }
        Ok(())
    }

    /// The last line of the log: the error with which a part ended.
    fn last_words(&self) -> String {
        let text = std::fs::read_to_string(&self.log).unwrap_or_default();
        let last = text
            .lines()
            .rev()
            .find(|line| !line.trim().is_empty())
            .unwrap_or("it said nothing");
        last.trim_start_matches("error: ").to_owned()
    }
}

/// The first line of output: a JSON object that says that the part is ready. `None` when it ends first.
async fn ready_line(child: &mut Child) -> Option<Value> {
    let output = child.stdout.as_mut()?;
    let mut lines = BufReader::new(output).lines();
    while let Ok(Some(line)) = lines.next_line().await {
        if let Ok(value) = serde_json::from_str::<Value>(&line)
            && value.get("ready").is_some()
        {
            return Some(value);
        }
    }
    None
}

async fn keep(spec: Spec, mut child: Child, stop: CancellationToken) {
    // Waiting for a child closes its input, which would end it: the input is held here.
    let mut lifeline = child.stdin.take();
    let mut pause = Duration::from_millis(200);
    loop {
        tokio::select! {
            ended = child.wait() => {
                let how = ended.map_or_else(|error| error.to_string(), |status| status.to_string());
                output::say(format_args!("the {} ended ({how}): {}; it is started again", spec.name, spec.last_words()));
            }
            () = stop.cancelled() => {
                end(&mut child, lifeline, &spec.name).await;
                return;
            }
        }
        child = loop {
            tokio::select! {
                () = tokio::time::sleep(pause) => {}
                () = stop.cancelled() => return,
            }
            pause = (pause * 2).min(LONGEST_PAUSE);
            match spec.spawn() {
                Ok(mut child) => {
                    if ready_or_stopped(&mut child, &stop).await {
                        drop(spec.say_running(&child));
                        pause = Duration::from_millis(200);
                    }
                    lifeline = child.stdin.take();
                    break child;
                }
                Err(error) => output::say(format_args!("{error:#}")),
            }
        };
    }
}

async fn ready_or_stopped(child: &mut Child, stop: &CancellationToken) -> bool {
    tokio::select! {
        ready = ready_line(child) => ready.is_some(),
        () = stop.cancelled() => false,
    }
}

/// Closes the child's input, which asks it to stop; kills it when it does not.
async fn end(child: &mut Child, lifeline: Option<ChildStdin>, name: &str) {
    drop(lifeline);
    if tokio::time::timeout(GRACE, child.wait()).await.is_err() {
        output::say(format_args!("the {name} does not stop and is killed"));
        drop(child.kill().await);
    }
}
