//! Language models through llama.cpp.
//!
//! A model has one thread that owns its context; requests reach it through a bounded queue. Counting tokens happens
//! on the caller's side, because the vocabulary can be read from every thread.

mod asked;
mod chat;
mod continuation;
mod embed;
mod exact;
mod generate;
mod grammar;
mod logprobs;
mod memory;
mod model;
mod reread;
mod sequence;
mod tools;

use std::{
    path::Path,
    sync::{Arc, atomic::Ordering},
    thread,
};

use async_trait::async_trait;
use llama_cpp_2::token::LlamaToken;
use rialto_protocol::{
    job::{AnswerFormat, Generation, Job},
    manifest::{Manifest, TaskKind},
};
use tokio::sync::{mpsc, oneshot, watch};

use rialto_engine::{Answer, Engine, EngineInfo, Error, LoadOptions, Mode, Prepared, Replay, Scope};

use crate::steps::Steps;
use asked::Asked;
use generate::{Counters, Settings};
use model::Model;

/// Bytes of text above which tokens are counted on a thread that may block.
const LONG_TEXT: usize = 16 << 10;

/// Bytes of weights below which one thread is enough.
const TINY_MODEL: u64 = 32 << 20;

/// A language model, or an embedding model, in llama.cpp.
#[derive(Debug)]
pub struct LlamaEngine {
    info: EngineInfo,
    model: Arc<Model>,
    queue: Queue,
    counters: Arc<Counters>,
}

/// Work done so far by a [`LlamaEngine`], in tokens. Rises only while something is computed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Work {
    /// Tokens of prompts that the model has read.
    pub prompt: u64,
    /// Tokens of prompts that it remembered from earlier ones.
    pub reused: u64,
    /// Tokens sampled.
    pub sampled: u64,
}

#[derive(Debug, Clone)]
enum Queue {
    Generate(mpsc::Sender<generate::Request>),
    Embed(mpsc::Sender<embed::Request>),
}

impl LlamaEngine {
    /// Loads the file, which was verified, and starts its thread. Blocks.
    pub fn load(manifest: &Manifest, folder: &Path, options: &LoadOptions, steps: &Steps) -> Result<Self, Error> {
        let [file] = manifest.artifacts.as_slice() else {
            return Err(Error::Model("a GGUF model must be one file".to_owned()));
        };
        let model = Arc::new(Model::load(manifest, &folder.join(&file.path), options)?);
        let counters = Arc::new(Counters::default());
        let places = usize::try_from(options.queue).unwrap_or(64).clamp(1, 1 << 16);
        let settings = Settings {
            slots: options.slot_count(),
            threads: threads(&model, options),
            mode: options.mode,
        };
        if options.mode == Mode::Exact {
            exact::demand()?;
        }
        let (queue, slots) = match manifest.task {
            TaskKind::Chat | TaskKind::Completion => {
                let (sender, requests) = mpsc::channel(places);
                let (model, counters, steps) = (model.clone(), counters.clone(), steps.clone());
                start(move |ready| {
                    run(
                        &ready,
                        generate::Worker::new(&model, settings, requests, counters, steps),
                        |worker| worker.run(),
                    );
                })?;
                (Queue::Generate(sender), settings.slots)
            }
            TaskKind::Embedding => {
                let (sender, requests) = mpsc::channel(places);
                let (model, steps) = (model.clone(), steps.clone());
                start(move |ready| {
                    run(
                        &ready,
                        embed::Worker::new(&model, settings.threads, requests, steps),
                        |worker| worker.run(),
                    );
                })?;
                (Queue::Embed(sender), 1)
            }
            TaskKind::Predict => return Err(Error::Model("a GGUF model takes no tensors".to_owned())),
        };
        let (name, context) = (manifest.listing(), model.limit);
        tracing::info!(model = name, file = file.path, slots, context, "language model loaded");
        Ok(Self {
            info: EngineInfo {
                name,
                class: match options.mode {
                    Mode::Fast => "llama.cpp fast".to_owned(),
                    Mode::Exact => "llama.cpp exact".to_owned(),
                },
                slots,
            },
            model,
            queue,
            counters,
        })
    }

    /// Work done so far, of all requests.
    pub fn work(&self) -> Work {
        Work {
            prompt: self.counters.prompt.load(Ordering::Relaxed),
            reused: self.counters.reused.load(Ordering::Relaxed),
            sampled: self.counters.sampled.load(Ordering::Relaxed),
        }
    }
}

/// Threads to compute with. More than one costs a tiny model more in waiting for each other than it gains, above all
/// when the machine has other work.
fn threads(model: &Model, options: &LoadOptions) -> usize {
    if options.threads.is_none() && model.llama.size() < TINY_MODEL {
        return 1;
    }
    options.thread_count()
}

/// Tells whoever loads the model how making its context went.
type Ready = std::sync::mpsc::Sender<Result<(), Error>>;

/// Starts a model's thread and waits until its context is made.
fn start(body: impl FnOnce(Ready) + Send + 'static) -> Result<(), Error> {
    let (ready, made) = std::sync::mpsc::channel();
    let thread = thread::Builder::new().name("llama".to_owned());
    thread
        .spawn(move || body(ready))
        .map_err(|error| Error::Model(format!("no thread can be started: {error}")))?;
    made.recv()
        .unwrap_or_else(|_| Err(Error::Model("llama.cpp gave up while it made a context".to_owned())))
}

fn run<W>(ready: &Ready, worker: Result<W, Error>, body: impl FnOnce(W)) {
    match worker {
        Ok(worker) => {
            if ready.send(Ok(())).is_ok() {
                body(worker);
            }
        }
        Err(error) => {
            let _ = ready.send(Err(error));
        }
    }
}

#[async_trait]
impl Engine for LlamaEngine {
    fn info(&self) -> &EngineInfo {
        &self.info
    }

    async fn prepare(&self, job: Job, scope: Scope) -> Result<Box<dyn Prepared>, Error> {
        job.check()?;
        let (model, queue) = (self.model.clone(), self.queue.clone());
        if is_short(&job) {
            return prepare(&model, queue, job, scope);
        }
        let prepared = tokio::task::spawn_blocking(move || prepare(&model, queue, job, scope)).await;
        prepared.unwrap_or_else(|error| Err(Error::Failed(error.to_string())))
    }

    async fn replay(&self, job: Job, answer: Vec<u32>) -> Result<Replay, Error> {
        job.check()?;
        let Queue::Generate(queue) = self.queue.clone() else {
            return Err(Error::bad("model", "this model generates no text"));
        };
        let model = self.model.clone();
        let asked = tokio::task::spawn_blocking(move || Asked::of(&model, job)?.with_answer(&model, &answer)).await;
        let (asked, answer) = asked.unwrap_or_else(|error| Err(Error::Failed(error.to_string())))?;
        let (reply, replay) = oneshot::channel();
        let request = generate::Request::Reread(reread::Request {
            prompt: asked.prompt,
            answer,
            generation: asked.generation,
            grammar: asked.grammar,
            reply,
        });
        queue.try_send(request).map_err(|error| refusal(error).0)?;
        replay
            .await
            .unwrap_or_else(|_| Err(Error::Failed("the engine's thread has ended".to_owned())))
    }
}

/// Whether a job is prepared quickly: little text, and no form to work out.
fn is_short(job: &Job) -> bool {
    let free = |generation: &Generation| {
        let so_far = &generation.so_far;
        generation.format == AnswerFormat::Text && so_far.ids.len().max(so_far.text.len()) <= LONG_TEXT
    };
    let bytes = match job {
        Job::Chat {
            messages,
            tools,
            generation,
        } if tools.offered.is_empty() && free(generation) => messages.iter().map(|message| message.content.len()).sum(),
        Job::Completion { prompt, generation } if free(generation) => prompt.len(),
        Job::Embedding { inputs } => inputs.iter().map(String::len).sum(),
        Job::Predict { .. } => 0,
        Job::Chat { .. } | Job::Completion { .. } => usize::MAX,
    };
    bytes <= LONG_TEXT
}

fn prepare(model: &Model, queue: Queue, job: Job, scope: Scope) -> Result<Box<dyn Prepared>, Error> {
    match (job, queue) {
        (Job::Embedding { inputs }, Queue::Embed(queue)) => prepare_embedding(model, queue, &inputs),
        (Job::Embedding { .. }, _) => Err(Error::bad("model", "this model generates text and gives no embeddings")),
        (Job::Predict { .. }, _) => Err(Error::bad("model", "this model takes text and no tensors")),
        (_, Queue::Embed(_)) => Err(Error::bad("model", "this model gives embeddings and generates no text")),
        (job, Queue::Generate(queue)) => {
            let asked = Asked::of(model, job)?;
            Ok(Box::new(PreparedGeneration { queue, asked, scope }))
        }
    }
}

fn prepare_embedding(
    model: &Model,
    queue: mpsc::Sender<embed::Request>,
    inputs: &[String],
) -> Result<Box<dyn Prepared>, Error> {
    let mut texts = Vec::with_capacity(inputs.len());
    for input in inputs {
        model.check_bytes(input.len())?;
        let tokens = model.tokenize(input);
        if tokens.is_empty() {
            return Err(Error::bad("input", "a text is empty"));
        }
        // Nothing is generated after a text, so it may fill the whole context.
        model.check_tokens(u64::try_from(tokens.len()).unwrap_or(u64::MAX).saturating_sub(1))?;
        texts.push(tokens);
    }
    Ok(Box::new(PreparedEmbedding { queue, texts }))
}

struct PreparedGeneration {
    queue: mpsc::Sender<generate::Request>,
    asked: Asked,
    scope: Scope,
}

impl Prepared for PreparedGeneration {
    fn input_units(&self) -> u64 {
        u64::try_from(self.asked.prompt.len()).unwrap_or(u64::MAX)
    }

    fn max_output(&self) -> u64 {
        self.asked.max_output
    }

    fn start(self: Box<Self>, grant: watch::Receiver<u64>) -> Answer {
        let (sender, pieces) = mpsc::channel(sequence::PIECES);
        let request = sequence::Request {
            prompt: self.asked.prompt,
            generation: self.asked.generation,
            max_output: self.asked.max_output,
            scope: self.scope,
            grammar: self.asked.grammar,
            text: self.asked.text,
            calls: self.asked.calls,
            grant,
            pieces: sender.clone(),
        };
        if let Err(error) = self.queue.try_send(generate::Request::Write(request)) {
            let (refusal, _request) = refusal(error);
            let _ = sender.try_send(Err(refusal));
        }
        Answer::new(pieces)
    }
}

struct PreparedEmbedding {
    queue: mpsc::Sender<embed::Request>,
    texts: Vec<Vec<LlamaToken>>,
}

impl Prepared for PreparedEmbedding {
    fn input_units(&self) -> u64 {
        let tokens = self.texts.iter().map(Vec::len).sum::<usize>();
        u64::try_from(tokens).unwrap_or(u64::MAX)
    }

    fn max_output(&self) -> u64 {
        0
    }

    fn start(self: Box<Self>, _grant: watch::Receiver<u64>) -> Answer {
        let (sender, pieces) = mpsc::channel(self.texts.len() + 1);
        let request = embed::Request {
            texts: self.texts,
            pieces: sender,
        };
        if let Err(error) = self.queue.try_send(request) {
            let (refusal, request) = refusal(error);
            let _ = request.pieces.try_send(Err(refusal));
        }
        Answer::new(pieces)
    }
}

/// Why the queue did not take a request, and the request.
fn refusal<R>(error: mpsc::error::TrySendError<R>) -> (Error, R) {
    match error {
        mpsc::error::TrySendError::Full(request) => (Error::Busy, request),
        mpsc::error::TrySendError::Closed(request) => {
            (Error::Failed("the engine's thread has ended".to_owned()), request)
        }
    }
}
