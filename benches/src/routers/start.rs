//! The contestants, each started as its users start it, in front of the same server.

use std::{
    fs::{self, File},
    io::{BufRead as _, BufReader},
    net::TcpListener,
    os::unix::process::CommandExt as _,
    path::{Path, PathBuf},
    process::{Child, ChildStdin, Command, Stdio},
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};
use rialto_testkit::process::{Up, repository};

use super::{
    MODEL, OWN, Tree,
    load::{Load, Target},
};

/// How long a router may take to start.
const PATIENCE: Duration = Duration::from_secs(180);

/// LiteLLM wants a key that is not easily guessed.
const KEY: &str = "sk-bench-5f0c7a1e9d3b4826";

/// A process of a contestant.
#[derive(Debug, Clone)]
pub struct Part {
    /// Empty, if the contestant is one process.
    pub name: &'static str,
    /// The process and its children.
    pub tree: Tree,
}

/// Something between client and server. Its processes end when this is dropped.
pub struct Contestant {
    /// What it is called in the table.
    pub name: &'static str,
    /// Where its clients send requests.
    pub target: Target,
    /// What is measured.
    pub parts: Vec<Part>,
    _alive: Alive,
}

enum Alive {
    Process { _process: Group },
    Market { _up: Arc<Up> },
}

/// A process that leads a group of its own; the group is killed when this is dropped.
struct Group(Child);

impl Drop for Group {
    fn drop(&mut self) {
        let group = format!("-{}", self.0.id());
        drop(Command::new("kill").args(["-KILL", "--", &group]).status());
        drop(self.0.wait());
    }
}

/// The model's server. It ends when this is dropped, or with this process.
pub struct Upstream {
    child: Child,
    _stdin: ChildStdin,
    /// Without `/v1`.
    pub url: String,
}

impl Upstream {
    /// Starts this very program as the server.
    pub fn start() -> Result<Self> {
        let mut child = Command::new(std::env::current_exe()?)
            .arg("upstream")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        let stdin = child.stdin.take().context("no input")?;
        let mut said = String::new();
        BufReader::new(child.stdout.take().context("no output")?).read_line(&mut said)?;
        Ok(Self {
            child,
            _stdin: stdin,
            url: format!("http://{}", said.trim()),
        })
    }

    /// Where its clients send requests.
    pub fn target(&self) -> Result<Target> {
        Target::new(&format!("{}/v1", self.url), "none")
    }
}

impl Drop for Upstream {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

impl Contestant {
    /// A market of ours: a gateway, and a provider that sells what the server runs. Every answer is paid for. And the same
    /// gateway in front of the server as one of its owner's own, where nothing is.
    pub async fn rialto(upstream: &Upstream, folder: &Path) -> Result<[Self; 2]> {
        let path = folder.join("rialto.toml");
        let manifest = repository().join("models/shakespeare/manifest-q8_0.toml");
        let text = format!(
            "[[provider.upstream]]\nmanifest = {manifest:?}\nurl = {:?}\nmodel = \"{MODEL}\"\nkind = \"openai\"\n\
             slots = 1024\n\n[gateway]\nchannel_deposit = \"100\"\n\n[gateway.aliases]\n\
             {MODEL} = \"rialto/shakespeare:q8_0\"\n\n[[gateway.own]]\nurl = {:?}\nslots = 1024\n\n\
             [gateway.own.models]\n{OWN} = \"{MODEL}\"\n",
            upstream.url, upstream.url
        );
        fs::write(&path, text)?;
        let config = path.to_str().context("a path")?;
        let market = folder.join("market");
        let up = Up::start(&market, &["--chain-listen", "127.0.0.1:0", "--config", config])?;
        let target = Target::new(&up.said("base_url")?, &up.said("api_key")?)?;
        let mut parts = Vec::new();
        for name in ["gateway", "provider"] {
            let tree = Tree(up.pid_of(name)?);
            parts.push(Part { name, tree });
        }
        let up = Arc::new(up);
        let own = Self::ready(
            "rialto, own server",
            target.clone().of(OWN),
            parts.iter().take(1).cloned().collect(),
            Alive::Market { _up: Arc::clone(&up) },
        );
        let own = own.await?;
        let paid = Self::ready("rialto", target, parts, Alive::Market { _up: up }).await?;
        Ok([paid, own])
    }

    /// The least that there can be: see [`super::pass_on`].
    pub async fn bare(upstream: &Upstream, folder: &Path) -> Result<Self> {
        let port = free_port()?;
        let mut command = Command::new(std::env::current_exe()?);
        command.args(["bare", &port.to_string(), &upstream.url]);
        Self::process("bare proxy", command, port, folder).await
    }

    /// vLLM's router; `None` if it is not installed.
    pub async fn vllm(upstream: &Upstream, folder: &Path) -> Result<Option<Self>> {
        Self::rust("vllm-router", &[], upstream, folder).await
    }

    /// SGLang's router; `None` if it is not installed.
    pub async fn sglang(upstream: &Upstream, folder: &Path) -> Result<Option<Self>> {
        Self::rust("sglang-router", &["launch"], upstream, folder).await
    }

    async fn rust(name: &'static str, first: &[&str], upstream: &Upstream, folder: &Path) -> Result<Option<Self>> {
        let Some(program) = installed("rust", name) else {
            return Ok(None);
        };
        let (port, metrics) = (free_port()?, free_port()?);
        let mut command = Command::new(program);
        command
            .args(first)
            .args(["--host", "127.0.0.1", "--port", &port.to_string()])
            .args(["--prometheus-port", &metrics.to_string()])
            .args(["--policy", "round_robin", "--log-level", "error"])
            .args(["--worker-urls", &upstream.url]);
        Self::process(name, command, port, folder).await.map(Some)
    }

    /// LiteLLM's proxy, one worker; `None` if it is not installed.
    pub async fn litellm(upstream: &Upstream, folder: &Path) -> Result<Option<Self>> {
        let Some(program) = installed("litellm", "litellm") else {
            return Ok(None);
        };
        let port = free_port()?;
        let path = folder.join("litellm.yaml");
        let text = format!(
            "model_list:\n  - model_name: {MODEL}\n    litellm_params:\n      model: openai/{MODEL}\n      \
             api_base: {}/v1\n      api_key: none\ngeneral_settings:\n  master_key: {KEY}\n\
             litellm_settings:\n  telemetry: false\n",
            upstream.url
        );
        fs::write(&path, text)?;
        let mut command = Command::new(program);
        command
            .arg("--config")
            .arg(path)
            .args(["--host", "127.0.0.1", "--port", &port.to_string()])
            .args(["--num_workers", "1"])
            // Its list of prices comes with it; nothing is fetched.
            .env("LITELLM_LOCAL_MODEL_COST_MAP", "True")
            .env("LITELLM_LOG", "ERROR");
        Self::process("litellm", command, port, folder).await.map(Some)
    }

    async fn process(name: &'static str, mut command: Command, port: u16, folder: &Path) -> Result<Self> {
        let log = File::create(folder.join(format!("{name}.log")))?;
        let child = command
            .process_group(0)
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()
            .with_context(|| format!("{name} does not start"))?;
        let target = Target::new(&format!("http://127.0.0.1:{port}/v1"), KEY)?;
        let parts = vec![Part {
            name: "",
            tree: Tree(child.id()),
        }];
        let alive = Alive::Process { _process: Group(child) };
        let ready = Self::ready(name, target, parts, alive).await;
        let log = || fs::read_to_string(folder.join(format!("{name}.log"))).unwrap_or_default();
        ready.with_context(|| format!("{name}: {}", log()))
    }

    /// Waits until it answers.
    async fn ready(name: &'static str, target: Target, parts: Vec<Part>, alive: Alive) -> Result<Self> {
        let until = Instant::now() + PATIENCE;
        let load = Load {
            requests: 1,
            parallel: 1,
            tokens: 4,
            pace: None,
        };
        while let Err(error) = target.ask(load).await {
            if Instant::now() > until {
                bail!("{name} does not answer: {error:#}");
            }
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
        Ok(Self {
            name,
            target,
            parts,
            _alive: alive,
        })
    }
}

/// What `benches/python/routers/install.sh` made.
fn installed(environment: &str, program: &str) -> Option<PathBuf> {
    let folder = repository().join("target/bench/routers").join(environment);
    let program = folder.join("bin").join(program);
    program.is_file().then_some(program)
}

fn free_port() -> Result<u16> {
    Ok(TcpListener::bind("127.0.0.1:0")?.local_addr()?.port())
}
