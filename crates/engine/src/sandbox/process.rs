//! The worker as a process: a clean environment, one socket, and its log in ours.

use std::{
    io,
    os::fd::OwnedFd,
    path::{Path, PathBuf},
    process::Stdio,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use tokio::{
    io::{AsyncBufReadExt as _, AsyncRead, AsyncReadExt as _, BufReader},
    net::UnixStream,
    process::{Child, Command},
    task::JoinHandle,
};

use super::link::Link;
use crate::{
    EngineInfo, Error,
    border::{Assignment, FrameReader, FromWorker, Outbox, ToWorker},
};

/// The worker's program.
const NAME: &str = "rialto-worker";

/// Time in which what a worker wrote before it ended arrives here.
const LAST_LINES: Duration = Duration::from_secs(5);

/// Longest that loading a model may take.
const LOADING: Duration = Duration::from_secs(1_800);

/// Bytes of one line of a worker's log.
const LOG_LINE: u64 = 4_096;

/// Characters of its last line that are kept.
const LAST_WORDS: usize = 300;

/// Variables that a worker may see: where libraries of a GPU are, and how much to log. No secret is among them.
const PASSED_ON: [&str; 3] = ["LD_LIBRARY_PATH", "RUST_LOG", "CUDA_VISIBLE_DEVICES"];

#[derive(Debug)]
pub(super) struct Worker {
    child: Child,
    /// The last line of its log, which tells more than how it ended.
    last_words: Arc<Mutex<String>>,
    /// Ends when all of its log has been read.
    log: Option<JoinHandle<()>>,
}

pub(super) struct Started {
    pub(super) worker: Worker,
    pub(super) link: Link,
    pub(super) info: EngineInfo,
}

/// The worker's program: the configured one, or `rialto-worker` beside this program or one folder up.
pub fn worker_program(configured: Option<&Path>) -> Result<PathBuf, Error> {
    if let Some(path) = configured {
        return if path.is_file() {
            Ok(path.to_owned())
        } else {
            Err(Error::WorkerMissing(format!("{} is not there", path.display())))
        };
    }
    let own = std::env::current_exe().map_err(|error| Error::WorkerMissing(error.to_string()))?;
    let name = format!("{NAME}{}", std::env::consts::EXE_SUFFIX);
    let beside = own.ancestors().skip(1).take(2).map(|folder| folder.join(&name));
    let found = beside.clone().find(|path| path.is_file());
    found.ok_or_else(|| {
        let looked: Vec<String> = beside.map(|path| path.display().to_string()).collect();
        Error::WorkerMissing(format!(
            "{} is not there; build it with `cargo build --release -p {NAME}`, or keep it beside `rialto`",
            looked.join(" and ")
        ))
    })
}

impl Worker {
    /// Starts a worker and waits until it has loaded its model.
    pub(super) async fn start(assignment: &Assignment) -> Result<Started, Error> {
        let program = worker_program(assignment.options.worker.as_deref())?;
        let missing = |error: io::Error| Error::WorkerMissing(format!("{}: {error}", program.display()));
        let (ours, theirs) = std::os::unix::net::UnixStream::pair().map_err(missing)?;
        ours.set_nonblocking(true).map_err(missing)?;
        let ours = UnixStream::from_std(ours).map_err(missing)?;
        let mut command = Command::new(&program);
        command
            .env_clear()
            // Each arena of the C library reserves address space, which is limited.
            .env("MALLOC_ARENA_MAX", "2")
            // ONNX Runtime reports to its makers, from a thread that starts before anything can be asked of the library.
            .env("ORT_DISABLE_TELEMETRY", "1")
            .current_dir("/")
            .stdin(Stdio::from(OwnedFd::from(theirs)))
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .kill_on_drop(true);
        for name in PASSED_ON {
            if let Some(value) = std::env::var_os(name) {
                command.env(name, value);
            }
        }
        let mut child = command.spawn().map_err(missing)?;
        // The child has its own copy; ours must not keep the socket open.
        drop(command);
        let last_words = Arc::new(Mutex::new(String::new()));
        let stderr = child.stderr.take();
        let log = stderr.map(|stderr| tokio::spawn(log(stderr, assignment.manifest.listing(), last_words.clone())));
        let mut worker = Self { child, last_words, log };
        let info = match tokio::time::timeout(LOADING, worker.load(&ours, assignment)).await {
            Ok(loaded) => loaded?,
            Err(_) => return Err(Error::Model(format!("it did not load within {} s", LOADING.as_secs()))),
        };
        let process_id = worker.child.id().unwrap_or_default();
        let link = Link::new(ours, process_id);
        Ok(Started { worker, link, info })
    }

    async fn load(&mut self, stream: &UnixStream, assignment: &Assignment) -> Result<EngineInfo, Error> {
        tokio::select! {
            ready = exchange(stream, assignment) => match ready {
                Ok(ready) => ready,
                // A worker that dies closes its socket first.
                Err(error) => Err(Error::Model(format!(
                    "the worker ended while it loaded the model: {}",
                    tokio::time::timeout(Duration::from_secs(1), self.ended())
                        .await
                        .unwrap_or_else(|_| error.to_string())
                ))),
            },
            why = self.ended() => Err(Error::Model(format!("the worker ended while it loaded the model: {why}"))),
        }
    }

    /// Waits for the end of the process and says how it ended.
    pub(super) async fn ended(&mut self) -> String {
        let ended = match self.child.wait().await {
            Ok(status) => status.to_string(),
            Err(error) => error.to_string(),
        };
        // What it wrote before it ended may still be on its way. Who else has its log open may keep it open.
        if let Some(log) = &mut self.log {
            drop(tokio::time::timeout(LAST_LINES, log).await);
            self.log = None;
        }
        let last = self.last_words.lock().unwrap_or_else(PoisonError::into_inner);
        if last.is_empty() {
            ended
        } else {
            format!("{ended}, after saying: {last}")
        }
    }

    pub(super) async fn kill(&mut self) {
        if let Err(error) = self.child.kill().await {
            tracing::debug!(%error, "a worker could not be killed");
        }
    }
}

/// Sends the assignment and waits for the answer.
async fn exchange(stream: &UnixStream, assignment: &Assignment) -> io::Result<Result<EngineInfo, Error>> {
    let frame = ToWorker::Load(Box::new(assignment.clone()));
    let (mut bytes, mut reader) = (Vec::new(), FrameReader::default());
    Outbox::encode(&mut bytes, &frame)?;
    let mut rest = bytes.as_slice();
    while !rest.is_empty() {
        stream.writable().await?;
        match stream.try_write(rest) {
            Ok(count) => rest = rest.get(count..).unwrap_or_default(),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) => return Err(error),
        }
    }
    let mut buffer = [0; 4_096];
    loop {
        stream.readable().await?;
        match stream.try_read(&mut buffer) {
            Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(count) => reader.extend(buffer.get(..count).unwrap_or_default()),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => continue,
            Err(error) => return Err(error),
        }
        match reader.take()? {
            Some(FromWorker::Ready(ready)) => return Ok(ready),
            Some(_) => return Err(io::Error::other("a worker spoke before it was ready")),
            None => {}
        }
    }
}

/// Passes a worker's log on, a bounded line at a time. What a stranger's file made a library say has no control characters.
async fn log(stderr: impl AsyncRead + Unpin, model: String, last_words: Arc<Mutex<String>>) {
    let mut lines = BufReader::new(stderr);
    let mut line = Vec::new();
    loop {
        line.clear();
        let mut bounded = (&mut lines).take(LOG_LINE);
        match bounded.read_until(b'\n', &mut line).await {
            Ok(0) | Err(_) => return,
            Ok(_) => {}
        }
        let text = String::from_utf8_lossy(&line);
        let text: String = text
            .trim_end()
            .chars()
            .map(|one| if one.is_control() { ' ' } else { one })
            .collect();
        let text = text.trim_start();
        if !text.is_empty() {
            let mut last = last_words.lock().unwrap_or_else(PoisonError::into_inner);
            *last = text.chars().take(LAST_WORDS).collect();
        }
        match text.split_once(' ') {
            Some(("ERROR" | "WARN", said)) => tracing::warn!(model, said, "worker"),
            Some(("INFO", said)) => tracing::info!(model, said, "worker"),
            _ => tracing::debug!(model, said = text, "worker"),
        }
    }
}
