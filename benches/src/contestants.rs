//! What engines are compared with: each contestant answers one prompt, or several at once, and says when the first and the
//! last token came.

use std::{
    io::{BufRead as _, BufReader, Write as _},
    net::TcpListener,
    path::{Path, PathBuf},
    process::{Child, ChildStdin, ChildStdout, Command, Stdio},
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};
use futures::{StreamExt as _, future::join_all};
use rialto_engine::{Engine, Piece, Scope};
use rialto_protocol::job::{Generation, Job};
use serde_json::{Value, json};
use tokio::sync::watch;

/// One answer's times, in seconds.
#[derive(Debug, Clone, Copy)]
pub struct Timed {
    /// Tokens of the prompt.
    pub prompt: f64,
    /// Tokens generated.
    pub tokens: f64,
    /// To the first token.
    pub first: f64,
    /// To the last.
    pub all: f64,
}

/// Something that answers.
#[derive(Debug)]
pub enum Contestant {
    /// An engine of ours.
    Ours(Arc<dyn EngineDebug>),
    /// llama.cpp's server.
    Server(Server),
    /// llama.cpp's Python library.
    Library(Box<Library>),
}

/// An engine that can stand in a structure that is printed.
pub trait EngineDebug: Engine + std::fmt::Debug {}
impl<E: Engine + std::fmt::Debug> EngineDebug for E {}

impl Contestant {
    /// Answers this prompt so many times at once.
    pub async fn answer(&mut self, prompt: &str, tokens: u64, times: u64) -> Result<Vec<Timed>> {
        match self {
            Self::Ours(engine) => {
                let answers = (0..times).map(|seed| ours(engine.as_ref(), prompt, tokens, seed));
                join_all(answers).await.into_iter().collect()
            }
            Self::Server(server) => {
                let answers = (0..times).map(|seed| server.answer(prompt, tokens, seed));
                join_all(answers).await.into_iter().collect()
            }
            Self::Library(_) if times > 1 => bail!("the library answers one prompt at a time"),
            Self::Library(library) => Ok(vec![library.answer(prompt, tokens)?]),
        }
    }
}

/// Settings that no contestant has to filter for.
fn generation(tokens: u64, seed: u64) -> Generation {
    Generation {
        max_tokens: tokens,
        seed,
        ..Generation::default()
    }
}

async fn ours(engine: &dyn EngineDebug, prompt: &str, tokens: u64, seed: u64) -> Result<Timed> {
    let job = Job::Completion {
        prompt: prompt.to_owned(),
        generation: generation(tokens, seed),
    };
    let begun = Instant::now();
    let prepared = engine.prepare(job, Scope::Alone).await?;
    let input = u32::try_from(prepared.input_units())?;
    let (_grant, paid) = watch::channel(u64::MAX);
    let mut answer = prepared.start(paid);
    let (mut first, mut count) = (None, 0u64);
    while let Piece::Output(output) = answer.pieces.recv().await.context("the engine ended")?? {
        count += output.units();
        first.get_or_insert_with(|| begun.elapsed().as_secs_f64());
    }
    Ok(Timed {
        prompt: input.into(),
        tokens: u32::try_from(count)?.into(),
        first: first.context("nothing came")?,
        all: begun.elapsed().as_secs_f64(),
    })
}

/// llama.cpp's server, ended when this is dropped.
#[derive(Debug)]
pub struct Server {
    child: Child,
    url: String,
    client: reqwest::Client,
}

impl Server {
    /// Starts the server with so many slots; each gets a context of this size.
    pub async fn start(program: &Path, model: &Path, threads: u32, slots: u32, context: u32) -> Result<Self> {
        let port = TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
        let threads = threads.to_string();
        let child = Command::new(program)
            .args([
                "--model",
                &model.display().to_string(),
                "--host",
                "127.0.0.1",
                "--port",
                &port.to_string(),
            ])
            .args([
                "--threads",
                &threads,
                "--threads-batch",
                &threads,
                "--parallel",
                &slots.to_string(),
            ])
            .args([
                "--ctx-size",
                &(context * slots).to_string(),
                "--no-webui",
                "--device",
                "none",
            ])
            .env("LD_LIBRARY_PATH", program.parent().unwrap_or(Path::new(".")))
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .with_context(|| format!("{}", program.display()))?;
        drop(rustls::crypto::ring::default_provider().install_default());
        // It closes connections that rest, now and then just when one is used again.
        let client = reqwest::Client::builder()
            .no_proxy()
            .pool_max_idle_per_host(0)
            .build()?;
        let server = Self {
            child,
            url: format!("http://127.0.0.1:{port}"),
            client,
        };
        for _ in 0..600 {
            let health = server.client.get(format!("{}/health", server.url)).send().await;
            if health.is_ok_and(|response| response.status().is_success()) {
                return Ok(server);
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        bail!("llama.cpp's server did not start");
    }

    async fn answer(&self, prompt: &str, tokens: u64, seed: u64) -> Result<Timed> {
        let body = json!({
            "prompt": prompt, "n_predict": tokens, "stream": true, "cache_prompt": false, "seed": seed,
            "temperature": 1.0, "top_k": 0, "top_p": 1.0, "min_p": 0.0, "samplers": ["temperature"],
        });
        let begun = Instant::now();
        let request = self.client.post(format!("{}/completion", self.url)).json(&body);
        let mut stream = request.send().await?.error_for_status()?.bytes_stream();
        let (mut text, mut first) = (String::new(), None);
        while let Some(bytes) = stream.next().await {
            text.push_str(&String::from_utf8_lossy(&bytes?));
            first.get_or_insert_with(|| begun.elapsed().as_secs_f64());
        }
        let last = text
            .lines()
            .rev()
            .find_map(|line| line.strip_prefix("data: "))
            .context("no end")?;
        let last: Value = serde_json::from_str(last)?;
        let number = |pointer: &str| last.pointer(pointer).and_then(Value::as_f64).context("no count");
        Ok(Timed {
            prompt: number("/timings/prompt_n")?,
            tokens: number("/timings/predicted_n")?,
            first: first.context("nothing came")?,
            all: begun.elapsed().as_secs_f64(),
        })
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// llama.cpp's Python library in a process that answers line by line.
#[derive(Debug)]
pub struct Library {
    child: Child,
    input: ChildStdin,
    output: BufReader<ChildStdout>,
}

impl Library {
    /// Starts the script with this interpreter.
    pub fn start(python: &Path, script: &Path, model: &Path, threads: u32) -> Result<Self> {
        let mut child = Command::new(python)
            .arg(script)
            .arg(model)
            .args(["--threads", &threads.to_string()])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()?;
        let input = child.stdin.take().context("no input")?;
        let output = BufReader::new(child.stdout.take().context("no output")?);
        let mut library = Self { child, input, output };
        library.line()?;
        Ok(library)
    }

    fn line(&mut self) -> Result<Value> {
        let mut line = String::new();
        anyhow::ensure!(
            self.output.read_line(&mut line)? > 0,
            "llama.cpp's Python library ended"
        );
        Ok(serde_json::from_str(&line)?)
    }

    fn answer(&mut self, prompt: &str, tokens: u64) -> Result<Timed> {
        writeln!(self.input, "{}", json!({ "prompt": prompt, "tokens": tokens }))?;
        self.input.flush()?;
        let said = self.line()?;
        let number = |name: &str| said.get(name).and_then(Value::as_f64).context("no figure");
        Ok(Timed {
            prompt: number("prompt_tokens")?,
            tokens: number("tokens")?,
            first: number("first")?,
            all: number("all")?,
        })
    }
}

impl Drop for Library {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The first of these that is there.
pub fn found(paths: &[PathBuf]) -> Option<PathBuf> {
    paths.iter().find(|path| path.exists()).cloned()
}
