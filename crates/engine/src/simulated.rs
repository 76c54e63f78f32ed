//! A simulated engine that behaves: a bounded number of slots and a bounded queue, tokens at a pace, grants, stop
//! texts, cancellation and failures. For market stories and benches, where a real model would only cost time. The
//! same job with the same seed gives the same answer.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;
use rialto_protocol::{
    hash::keccak256,
    job::{Datatype, Generation, Job, Tensor},
    output::{FinishReason, Output},
};
use tokio::{sync::watch, time::Instant};

use crate::{
    Answer, Ending, Engine, EngineInfo, Error, Piece, Prepared, Scope, TextStream,
    engine::is_told,
    places::{Places, Sender},
};

/// What the simulated engine says.
const WORDS: [&str; 32] = [
    "all",
    "the",
    "world's",
    "a",
    "stage",
    "and",
    "men",
    "women",
    "merely",
    "players",
    "they",
    "have",
    "their",
    "exits",
    "entrances",
    "one",
    "man",
    "in",
    "his",
    "time",
    "plays",
    "many",
    "parts",
    "acts",
    "being",
    "seven",
    "ages",
    "at",
    "first",
    "infant",
    "nurse's",
    "arms",
];

/// How a simulated engine behaves.
#[derive(Debug, Clone)]
pub struct SimulatedConfig {
    /// The model it pretends to run, as `publisher/name:tag`.
    pub name: String,
    /// Requests at the same time.
    pub slots: u32,
    /// Requests that may wait for a slot.
    pub queue: u32,
    /// Time before the first token.
    pub first_token: Duration,
    /// Time between tokens; zero for as fast as possible.
    pub token_interval: Duration,
    /// Most tokens of prompt and answer.
    pub context: u64,
    /// Tokens after which an answer ends by itself; `None` to go on to the limit.
    pub answer_tokens: Option<u64>,
    /// Tokens after which every answer fails; `None` for never. [`SimulatedEngine::fail_after`] changes it.
    pub fail_after: Option<u64>,
}

impl Default for SimulatedConfig {
    fn default() -> Self {
        Self {
            name: "rialto/simulated:v1".to_owned(),
            slots: 4,
            queue: 64,
            first_token: Duration::ZERO,
            token_interval: Duration::ZERO,
            context: 4_096,
            answer_tokens: None,
            fail_after: None,
        }
    }
}

/// An engine that only pretends. Must be used inside a tokio runtime.
#[derive(Debug)]
pub struct SimulatedEngine {
    info: EngineInfo,
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    config: SimulatedConfig,
    places: Arc<Places>,
    /// Tokens after which answers fail; `u64::MAX` for never.
    fail_after: AtomicU64,
    /// Tokens generated so far, in all answers.
    generated: AtomicU64,
}

impl SimulatedEngine {
    /// An engine of this behaviour.
    pub fn new(config: SimulatedConfig) -> Self {
        let info = EngineInfo {
            name: config.name.clone(),
            class: "simulated".to_owned(),
            slots: config.slots.max(1),
        };
        let shared = Shared {
            places: Places::new(config.slots.max(1), config.queue),
            fail_after: AtomicU64::new(config.fail_after.unwrap_or(u64::MAX)),
            generated: AtomicU64::new(0),
            config,
        };
        let shared = Arc::new(shared);
        Self { info, shared }
    }

    /// Makes every answer fail after so many tokens, running ones included; `None` makes the engine well again.
    pub fn fail_after(&self, tokens: Option<u64>) {
        self.shared
            .fail_after
            .store(tokens.unwrap_or(u64::MAX), Ordering::Relaxed);
    }

    /// Tokens generated so far, in all answers: shows whether cancelled work stopped.
    pub fn generated(&self) -> u64 {
        self.shared.generated.load(Ordering::Relaxed)
    }
}

#[async_trait]
impl Engine for SimulatedEngine {
    fn info(&self) -> &EngineInfo {
        &self.info
    }

    async fn prepare(&self, job: Job, _scope: Scope) -> Result<Box<dyn Prepared>, Error> {
        job.check()?;
        let limit = self.shared.config.context;
        let (mut input, output) = match &job {
            Job::Chat { messages, .. } => {
                let words = messages.iter().map(|message| words(&message.content) + 1).sum::<u64>();
                (words, Some(job.max_output()))
            }
            Job::Completion { prompt, .. } => (words(prompt).max(1), Some(job.max_output())),
            Job::Embedding { inputs } => (inputs.iter().map(|text| words(text).max(1)).sum(), None),
            Job::Predict { inputs, .. } => (inputs.first().map_or(0, Tensor::rows), None),
        };
        let generation = match &job {
            Job::Chat { generation, .. } | Job::Completion { generation, .. } => Some(generation),
            Job::Embedding { .. } | Job::Predict { .. } => None,
        };
        if let Some(generation) = generation {
            input = input.saturating_add(begun(generation));
        }
        if output.is_some() && input >= limit {
            return Err(Error::ContextExceeded { prompt: input, limit });
        }
        if let Some(generation) = generation {
            go_on(generation, &key(&job, generation))?;
        }
        let output = output.map_or(0, |wanted| wanted.min(limit.saturating_sub(input)));
        let shared = self.shared.clone();
        Ok(Box::new(SimulatedJob {
            shared,
            job,
            input,
            output,
        }))
    }
}

struct SimulatedJob {
    shared: Arc<Shared>,
    job: Job,
    input: u64,
    output: u64,
}

impl Prepared for SimulatedJob {
    fn input_units(&self) -> u64 {
        self.input
    }

    fn max_output(&self) -> u64 {
        self.output
    }

    fn start(self: Box<Self>, grant: watch::Receiver<u64>) -> Answer {
        let places = Arc::clone(&self.shared.places);
        places.answer(|sender| async move { self.run(grant, &sender).await.map(Ending::from) })
    }
}

impl SimulatedJob {
    async fn run(&self, grant: watch::Receiver<u64>, sender: &Sender) -> Result<FinishReason, Error> {
        tokio::time::sleep(self.shared.config.first_token).await;
        match &self.job {
            Job::Chat { generation, .. } | Job::Completion { generation, .. } => {
                self.generate(generation, grant, sender).await
            }
            Job::Embedding { inputs } => {
                for (index, text) in (0u32..).zip(inputs) {
                    let vector = embed(text);
                    pass_on(sender, Output::Embedding { index, vector }).await;
                }
                Ok(FinishReason::Stop)
            }
            Job::Predict { inputs, .. } => {
                pass_on(sender, Output::Tensors(vec![sums(inputs)])).await;
                Ok(FinishReason::Stop)
            }
        }
    }

    async fn generate(
        &self,
        generation: &Generation,
        mut grant: watch::Receiver<u64>,
        sender: &Sender,
    ) -> Result<FinishReason, Error> {
        let key = key(&self.job, generation);
        let mut text = go_on(generation, &key)?;
        let begun = begun(generation);
        let left = self
            .shared
            .config
            .answer_tokens
            .unwrap_or(u64::MAX)
            .saturating_sub(begun);
        let mut due = Instant::now();
        for place in 0..self.output.min(left) {
            if grant.wait_for(|paid| *paid > place).await.is_err() {
                return flush(&mut text, sender, FinishReason::Cancelled).await;
            }
            if place >= self.shared.fail_after.load(Ordering::Relaxed) {
                return Err(Error::Failed("told to fail".to_owned()));
            }
            self.pace(&mut due, place).await;
            let (id, said) = token(&key, begun.saturating_add(place));
            self.shared.generated.fetch_add(1, Ordering::Relaxed);
            let added = text.push(said.as_bytes());
            let (text, ids, logprobs) = (added.text, vec![id], vec![]);
            pass_on(sender, Output::Tokens { text, ids, logprobs }).await;
            if added.stopped {
                return Ok(FinishReason::Stop);
            }
        }
        let reason = if left <= self.output {
            FinishReason::Stop
        } else {
            FinishReason::Length
        };
        flush(&mut text, sender, reason).await
    }

    /// Waits for the time of the next token. Time spent waiting for a grant is not caught up.
    async fn pace(&self, due: &mut Instant, place: u64) {
        let interval = self.shared.config.token_interval;
        if interval.is_zero() {
            if place % 32 == 31 {
                // Without a pace, other tasks must still get their turn.
                tokio::task::yield_now().await;
            }
            return;
        }
        if place > 0 {
            *due = (*due + interval).max(Instant::now());
            tokio::time::sleep_until(*due).await;
        }
    }
}

async fn flush(text: &mut TextStream, sender: &Sender, reason: FinishReason) -> Result<FinishReason, Error> {
    let text = text.finish();
    if !text.is_empty() {
        let (ids, logprobs) = (vec![], vec![]);
        pass_on(sender, Output::Tokens { text, ids, logprobs }).await;
    }
    Ok(reason)
}

async fn pass_on(sender: &Sender, output: Output) {
    // A reader that is gone is noticed by the caller's select.
    let _ = sender.send(Ok(Piece::Output(output))).await;
}

fn words(text: &str) -> u64 {
    u64::try_from(text.split_whitespace().count()).unwrap_or(u64::MAX)
}

fn prompt(job: &Job) -> &[u8] {
    match job {
        Job::Chat { messages, .. } => messages.last().map_or(&[], |message| message.content.as_bytes()),
        Job::Completion { prompt, .. } => prompt.as_bytes(),
        Job::Embedding { .. } | Job::Predict { .. } => &[],
    }
}

/// What an answer follows from.
fn key(job: &Job, generation: &Generation) -> [u8; 32] {
    keccak256(&[&generation.seed.to_le_bytes(), prompt(job)])
}

/// Tokens of an answer that another seller has given.
fn begun(generation: &Generation) -> u64 {
    let so_far = &generation.so_far;
    match is_told(so_far) {
        true => u64::try_from(so_far.ids.len()).unwrap_or(u64::MAX),
        false => words(&so_far.text),
    }
}

/// The text of an answer at the place where it goes on: its beginning, or what another seller has given, if that is how
/// this answer begins.
fn go_on(generation: &Generation, key: &[u8; 32]) -> Result<TextStream, Error> {
    let so_far = &generation.so_far;
    let tokens = (0..begun(generation)).map(|position| token(key, position));
    let (ids, said): (Vec<u32>, String) = tokens.unzip();
    if is_told(so_far) && ids != so_far.ids {
        return Err(Error::bad("so_far", "has other tokens than this answer"));
    }
    TextStream::after(generation.stop.clone(), said.as_bytes(), &so_far.text)
}

/// The token at a place of an answer, and what it says.
fn token(key: &[u8; 32], position: u64) -> (u32, String) {
    let [first, ..] = keccak256(&[key, &position.to_le_bytes()]);
    let id = u32::from(first) % 32;
    let word = usize::try_from(id).ok().and_then(|id| WORDS.get(id));
    let space = if position == 0 { "" } else { " " };
    (id, format!("{space}{}", word.copied().unwrap_or_default()))
}

/// Eight numbers between -1 and 1 that depend on the text only.
fn embed(text: &str) -> Vec<f32> {
    let hash = keccak256(&[text.as_bytes()]);
    hash.iter().take(8).map(|byte| f32::from(*byte) / 127.5 - 1.0).collect()
}

/// The sum of each row of the first FP32 input, zero for other types.
fn sums(inputs: &[Tensor]) -> Tensor {
    let rows = inputs.first().map_or(1, Tensor::rows);
    let values = inputs.iter().find(|tensor| tensor.datatype == Datatype::Fp32);
    let values: Vec<f32> = values.map_or_else(Vec::new, |tensor| {
        let (numbers, _) = tensor.data.as_chunks::<4>();
        numbers.iter().map(|bytes| f32::from_le_bytes(*bytes)).collect()
    });
    let count = usize::try_from(rows).unwrap_or(1).max(1);
    let width = (values.len() / count).max(1);
    let mut data: Vec<u8> = values
        .chunks(width)
        .flat_map(|row| row.iter().sum::<f32>().to_le_bytes())
        .collect();
    data.resize(count.saturating_mul(4), 0);
    Tensor {
        name: "sum".to_owned(),
        datatype: Datatype::Fp32,
        shape: vec![rows],
        data,
    }
}
