//! The worker's life: its assignment, its sandbox, its model, and then one frame after another until its host is gone.

use std::{
    collections::HashMap,
    io::{self, Read as _},
    os::fd::{AsFd as _, OwnedFd},
    os::unix::net::UnixStream as BlockingStream,
    sync::Arc,
};

use rialto_engine::{
    Engine, Error, LoadOptions, Piece, Prepared,
    border::{Assignment, FrameReader, FromWorker, Outbox, ToWorker},
};
use rialto_protocol::manifest::{Format, Manifest};
use tokio::{
    net::UnixStream,
    sync::{mpsc, watch},
};

use crate::{
    llama::LlamaEngine,
    onnx::{self, OnnxEngine},
    sandbox::{self, Rights},
    steps::Steps,
};

/// Serves the host at the other end of standard input until it is gone.
pub fn run() -> io::Result<()> {
    tracing_subscriber::fmt()
        .with_writer(io::stderr)
        .with_ansi(false)
        .without_time()
        .with_env_filter(tracing_subscriber::EnvFilter::from_default_env().add_directive(tracing::Level::INFO.into()))
        .init();
    // On one line, as everything in the log.
    std::panic::set_hook(Box::new(|panic| tracing::error!(%panic, "a fault")));
    let stream: OwnedFd = io::stdin().as_fd().try_clone_to_owned()?;
    let mut stream = BlockingStream::from(stream);
    stream.set_nonblocking(false)?;
    let mut reader = FrameReader::default();
    let assignment = assignment(&mut stream, &mut reader)?;
    let steps = Steps::default();
    // Made before the sandbox: it has sockets of its own. It starts no thread until something is to be done.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let loaded = load(&assignment, &steps);
    let ready = FromWorker::Ready(
        loaded
            .as_ref()
            .map(|engine| engine.info().clone())
            .map_err(Clone::clone),
    );
    runtime.block_on(async {
        stream.set_nonblocking(true)?;
        let stream = Arc::new(UnixStream::from_std(stream)?);
        let outbox = Arc::new(Outbox::new(stream.clone()));
        tokio::spawn({
            let outbox = outbox.clone();
            async move { outbox.flush().await }
        });
        outbox.send(&ready)?;
        match loaded {
            Ok(engine) => {
                let desk = Desk {
                    engine,
                    outbox,
                    steps,
                    jobs: HashMap::new(),
                };
                desk.serve(&stream, reader).await
            }
            // The host says why; it closes the socket once it has read this.
            Err(_) => stream.readable().await,
        }
    })?;
    // Threads that compute for nobody are not waited for.
    runtime.shutdown_background();
    Ok(())
}

/// Reads the first frame.
fn assignment(stream: &mut BlockingStream, reader: &mut FrameReader) -> io::Result<Assignment> {
    let mut buffer = vec![0; 64 << 10];
    loop {
        match reader.take()? {
            Some(ToWorker::Load(assignment)) => return Ok(*assignment),
            Some(_) => return Err(io::Error::other("the first frame is no assignment")),
            None => {}
        }
        match stream.read(&mut buffer)? {
            0 => return Err(io::ErrorKind::UnexpectedEof.into()),
            count => reader.extend(buffer.get(..count).unwrap_or_default()),
        }
    }
}

/// Enters the sandbox and loads the model: trusted libraries before, the stranger's files after.
fn load(assignment: &Assignment, steps: &Steps) -> Result<Arc<dyn Engine>, Error> {
    let Assignment {
        manifest,
        folder,
        options,
        memory,
    } = assignment;
    match manifest.format {
        Format::Onnx => drop(onnx::environment(options.onnxruntime.as_deref())?),
        Format::Gguf | Format::Safetensors => {}
    }
    let rights = Rights {
        files: manifest
            .artifacts
            .iter()
            .map(|artifact| folder.join(&artifact.path))
            .collect(),
        memory: *memory,
        processors: options.threads,
        gpu: options.gpu_layers > 0,
    };
    alone()?;
    let report = sandbox::enter(&rights).map_err(|error| Error::Model(error.to_string()))?;
    if cfg!(target_os = "linux") && !(report.landlock && report.seccomp) {
        tracing::warn!(?report, "the sandbox of this machine has gaps");
    }
    engine(manifest, folder, options, steps)
}

/// Fails where a library has started a thread: what the kernel restricts is a thread and those that it starts, so that one
/// would stay outside the sandbox.
fn alone() -> Result<(), Error> {
    let threads = std::fs::read_dir("/proc/self/task").map_or(1, Iterator::count);
    if threads > 1 {
        return Err(Error::Model(format!(
            "a library has started {} threads before the sandbox was entered: use the ONNX Runtime that comes with Rialto",
            threads - 1
        )));
    }
    Ok(())
}

fn engine(
    manifest: &Manifest,
    folder: &std::path::Path,
    options: &LoadOptions,
    steps: &Steps,
) -> Result<Arc<dyn Engine>, Error> {
    match manifest.format {
        Format::Onnx => Ok(Arc::new(OnnxEngine::load(manifest, folder, options, steps)?)),
        Format::Gguf => Ok(Arc::new(LlamaEngine::load(manifest, folder, options, steps)?)),
        Format::Safetensors => Err(Error::Model("no engine here reads this format".to_owned())),
    }
}

/// A job's state.
enum Job {
    /// Counted; or, where the host did not wait for that, to be started once it is.
    Prepared(Box<dyn Prepared>),
    Running {
        grant: Option<watch::Sender<u64>>,
        task: tokio::task::AbortHandle,
    },
}

struct Desk {
    engine: Arc<dyn Engine>,
    outbox: Arc<Outbox>,
    steps: Steps,
    jobs: HashMap<u64, Job>,
}

/// What a task has found out.
type Found = (u64, Result<Box<dyn Prepared>, Error>);

impl Desk {
    async fn serve(mut self, stream: &UnixStream, mut reader: FrameReader) -> io::Result<()> {
        let mut buffer = vec![0; 64 << 10];
        let (finished, mut ended) = mpsc::unbounded_channel();
        loop {
            while let Some(frame) = reader.take()? {
                self.take(frame, &finished).await?;
            }
            tokio::select! {
                Some(id) = ended.recv() => drop(self.jobs.remove(&id)),
                readable = stream.readable() => {
                    readable?;
                    match stream.try_read(&mut buffer) {
                        Ok(0) => return Ok(()),
                        Ok(count) => reader.extend(buffer.get(..count).unwrap_or_default()),
                        Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                        Err(error) => return Err(error),
                    }
                }
            }
        }
    }

    async fn take(&mut self, frame: ToWorker, finished: &mpsc::UnboundedSender<u64>) -> io::Result<()> {
        match frame {
            ToWorker::Load(_) => Err(io::Error::other("a second assignment")),
            ToWorker::Prepare { id, job, scope } => {
                let prepared = self.engine.prepare(job, scope).await;
                self.prepared((id, prepared))
            }
            ToWorker::Start { id, grant } => self.start(id, grant, finished),
            ToWorker::Grant { id, grant } => {
                if let Some(Job::Running { grant: Some(paid), .. }) = self.jobs.get(&id) {
                    paid.send_replace(grant);
                }
                Ok(())
            }
            ToWorker::Settle { id } => {
                if let Some(Job::Running { grant, .. }) = self.jobs.get_mut(&id) {
                    *grant = None;
                }
                Ok(())
            }
            ToWorker::Forget { id } => {
                if let Some(Job::Running { task, .. }) = self.jobs.remove(&id) {
                    task.abort();
                }
                Ok(())
            }
            ToWorker::Replay { id, job, answer } => {
                let (engine, outbox, finished) = (self.engine.clone(), self.outbox.clone(), finished.clone());
                let task = tokio::spawn(async move {
                    let frame = match engine.replay(job, answer).await {
                        Ok(replay) => FromWorker::Replayed { id, replay },
                        Err(error) => FromWorker::Failed { id, error },
                    };
                    let _ = outbox.send(&frame);
                    let _ = finished.send(id);
                });
                let task = task.abort_handle();
                self.jobs.insert(id, Job::Running { grant: None, task });
                Ok(())
            }
            ToWorker::Ping { number } => {
                let (step_millis, limit_millis) = self.steps.pulse();
                self.outbox.send(&FromWorker::Pong {
                    number,
                    step_millis,
                    limit_millis,
                })
            }
        }
    }

    fn prepared(&mut self, (id, prepared): Found) -> io::Result<()> {
        match prepared {
            Ok(prepared) => {
                let frame = FromWorker::Prepared {
                    id,
                    input_units: prepared.input_units(),
                    max_output: prepared.max_output(),
                };
                self.jobs.insert(id, Job::Prepared(prepared));
                self.outbox.send(&frame)
            }
            Err(error) => self.outbox.send(&FromWorker::Failed { id, error }),
        }
    }

    fn start(&mut self, id: u64, grant: u64, finished: &mpsc::UnboundedSender<u64>) -> io::Result<()> {
        let Some(Job::Prepared(prepared)) = self.jobs.remove(&id) else {
            // It was refused, or forgotten.
            return Ok(());
        };
        let (paid, granted) = watch::channel(grant);
        let mut answer = prepared.start(granted);
        let (outbox, finished) = (self.outbox.clone(), finished.clone());
        let task = tokio::spawn(async move {
            loop {
                let piece = answer.pieces.recv().await;
                let (frame, last) = frame(id, piece);
                if outbox.send(&frame).is_err() || last {
                    break;
                }
            }
            let _ = finished.send(id);
        });
        let task = task.abort_handle();
        let grant = Some(paid);
        self.jobs.insert(id, Job::Running { grant, task });
        Ok(())
    }
}

/// A piece as a frame, and whether it is the last.
fn frame(id: u64, piece: Option<Result<Piece, Error>>) -> (FromWorker, bool) {
    match piece {
        Some(Ok(piece)) => {
            let last = matches!(piece, Piece::Finished(_));
            (FromWorker::Piece { id, piece }, last)
        }
        Some(Err(error)) => (FromWorker::Failed { id, error }, true),
        None => {
            let error = Error::Failed("the engine's thread has ended".to_owned());
            (FromWorker::Failed { id, error }, true)
        }
    }
}
