//! The thread that generates: it owns the context, and every sequence takes its turn in one batch.
//!
//! Each step reads chunks of prompts, each alone and cut at fixed places, and then one token of every sequence that may
//! go on. What a sequence computes so does not depend on who else is there, as far as llama.cpp's kernels give the
//! same bits for a row in a larger batch. A sequence whose grant is used up, or whose reader is slow, keeps its slot
//! and costs nothing until it can go on.

use std::{
    future::poll_fn,
    num::NonZeroU32,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    task::Poll,
};

use llama_cpp_2::{
    context::{LlamaContext, params::LlamaContextParams},
    llama_batch::LlamaBatch,
    token::LlamaToken,
};
use rialto_engine::{Error, Mode, Scope};
use tokio::sync::mpsc;

use super::{
    exact,
    memory::Memory,
    model::{Model, backend},
    reread::{self, Rereading},
    sequence::{self, Sequence, Turn},
};
use crate::steps::Steps;

/// Tokens of a prompt that are read in one step.
const CHUNK: u32 = 256;

/// llama.cpp divides its memory into parts of a multiple of this.
const MEMORY_UNIT: u32 = 256;

/// Bytes of logits that one step may make.
const LOGITS: usize = 64 << 20;

/// What was done so far; shows whether cancelled work stopped, and whether prompts were remembered.
#[derive(Debug, Default)]
pub(super) struct Counters {
    /// Tokens of prompts that the model has read.
    pub(super) prompt: AtomicU64,
    /// Tokens of prompts that it did not have to read.
    pub(super) reused: AtomicU64,
    /// Tokens sampled.
    pub(super) sampled: AtomicU64,
}

/// What the thread is asked for.
#[derive(Debug)]
pub(super) enum Request {
    Write(sequence::Request),
    Reread(reread::Request),
}

/// How the thread is set up.
#[derive(Debug, Clone, Copy)]
pub(super) struct Settings {
    pub(super) slots: u32,
    pub(super) threads: usize,
    pub(super) mode: Mode,
}

/// Who has a slot.
#[derive(Debug)]
enum Occupant {
    Writing(Box<Sequence>),
    Rereading(Box<Rereading>),
}

#[derive(Debug, Default)]
struct Slot {
    occupant: Option<Occupant>,
    memory: Memory,
}

impl Slot {
    fn writing(&mut self) -> Option<&mut Sequence> {
        match &mut self.occupant {
            Some(Occupant::Writing(sequence)) => Some(sequence),
            _ => None,
        }
    }

    fn rereading(&mut self) -> Option<&mut Rereading> {
        match &mut self.occupant {
            Some(Occupant::Rereading(rereading)) => Some(rereading),
            _ => None,
        }
    }
}

/// The thread's state.
pub(super) struct Worker<'m> {
    model: &'m Model,
    context: LlamaContext<'m>,
    batch: LlamaBatch<'static>,
    slots: Vec<Slot>,
    /// The slot whose prompt was read last, so that the next one gets its turn.
    last_read: usize,
    /// Counts requests, to tell what was used longest ago.
    clock: u64,
    requests: mpsc::Receiver<Request>,
    /// Whether more requests can come.
    open: bool,
    runtime: tokio::runtime::Runtime,
    counters: Arc<Counters>,
    steps: Steps,
    settings: Settings,
}

impl<'m> Worker<'m> {
    /// Makes the context. Fails when there is not enough memory for it.
    pub(super) fn new(
        model: &'m Model,
        settings: Settings,
        requests: mpsc::Receiver<Request>,
        counters: Arc<Counters>,
        steps: Steps,
    ) -> Result<Self, Error> {
        let batch_size = CHUNK.max(settings.slots);
        let context = context(model, settings, batch_size)?;
        let runtime = tokio::runtime::Builder::new_current_thread().build();
        let mut worker = Self {
            model,
            context,
            batch: LlamaBatch::new(usize::try_from(batch_size).unwrap_or(512), 1),
            slots: (0..settings.slots).map(|_| Slot::default()).collect(),
            last_read: 0,
            clock: 0,
            requests,
            open: true,
            runtime: runtime.map_err(|error| Error::Model(error.to_string()))?,
            counters,
            steps,
            settings,
        };
        worker.warm_up()?;
        Ok(worker)
    }

    /// Reads one chunk: the weights come into memory, a model that cannot compute is refused now, and it is known how long
    /// a step takes.
    fn warm_up(&mut self) -> Result<(), Error> {
        let count = chunk_size().min(usize::try_from(self.model.limit).unwrap_or(1));
        let tokens: Vec<Entry> = (0..count)
            .zip(0i32..)
            .map(|(_, position)| Entry {
                token: self.model.filler(),
                position,
                slot: 0,
                logits: position + 1 == i32::try_from(count).unwrap_or(1),
            })
            .collect();
        let computed = self.compute(&tokens);
        computed.map_err(|error| Error::Model(format!("it cannot compute: {error}")))?;
        self.forget(0, 0);
        Ok(())
    }

    /// Works until nobody can ask any more and every answer has ended.
    pub(super) fn run(mut self) {
        loop {
            self.admit_waiting();
            self.drop_ended();
            let mut moved = self.read_prompts();
            moved |= self.decode();
            if moved {
                continue;
            }
            if !self.open && self.slots.iter().all(|slot| slot.occupant.is_none()) {
                return;
            }
            self.wait();
        }
    }

    fn admit_waiting(&mut self) {
        while self.slots.iter().any(|slot| slot.occupant.is_none()) {
            match self.requests.try_recv() {
                Ok(request) => self.admit(request),
                Err(mpsc::error::TryRecvError::Empty) => return,
                Err(mpsc::error::TryRecvError::Disconnected) => {
                    self.open = false;
                    return;
                }
            }
        }
    }

    /// Gives a request the free slot that remembers most of its prompt; else one that remembers nothing, else the one that
    /// was used longest ago.
    fn admit(&mut self, request: Request) {
        let (prompt, scope): (&[LlamaToken], Scope) = match &request {
            Request::Write(request) => (&request.prompt, request.scope),
            Request::Reread(_) => (&[], Scope::Alone),
        };
        let mode = self.settings.mode;
        let free = (0usize..).zip(&self.slots).filter(|(_, slot)| slot.occupant.is_none());
        let best = free
            .map(|(place, slot)| {
                let reused = slot.memory.reusable(prompt, scope, mode, chunk_size());
                (place, reused, slot.memory.is_worth_keeping(), slot.memory.used())
            })
            .max_by_key(|(_, reused, kept, used)| (*reused, !*kept, std::cmp::Reverse(*used)));
        let Some((place, reused, ..)) = best else { return };
        let reused = self.forget(place, reused);
        self.clock += 1;
        let used = self.clock;
        add(&self.counters.reused, reused);
        if let Some(slot) = self.slots.get_mut(place) {
            slot.memory.begin(scope, reused, used);
            slot.occupant = Some(match request {
                Request::Write(request) => Occupant::Writing(Box::new(Sequence::new(request, reused))),
                Request::Reread(request) => Occupant::Rereading(Box::new(Rereading::new(request))),
            });
        }
    }

    /// Forgets what a slot holds beyond its first tokens. Gives how many it still holds: some models can only forget all.
    fn forget(&mut self, place: usize, kept: usize) -> usize {
        let sequence = u32::try_from(place).unwrap_or_default();
        let from = u32::try_from(kept).unwrap_or_default();
        if from > 0
            && matches!(
                self.context.clear_kv_cache_seq(Some(sequence), Some(from), None),
                Ok(true)
            )
        {
            return kept;
        }
        if !matches!(self.context.clear_kv_cache_seq(Some(sequence), None, None), Ok(true)) {
            tracing::error!(place, "llama.cpp did not forget a sequence");
        }
        0
    }

    fn drop_ended(&mut self) {
        for place in 0..self.slots.len() {
            let over = self.slots.get_mut(place).is_some_and(|slot| match &mut slot.occupant {
                Some(Occupant::Writing(sequence)) => sequence.is_over(),
                Some(Occupant::Rereading(rereading)) => rereading.is_over(),
                None => false,
            });
            if over {
                self.release(place);
            }
        }
    }

    /// Reads the next chunks of prompts, at most as many tokens as one whole chunk has. Says whether there was one.
    ///
    /// Each is computed alone. That short prompts take one step together keeps their answers in step, so that each run
    /// of the model gives as many tokens as it can.
    fn read_prompts(&mut self) -> bool {
        let vocabulary = usize::try_from(self.model.llama.n_vocab()).unwrap_or(1).max(1);
        let few = (LOGITS / 4 / vocabulary).clamp(1, chunk_size());
        let (first, mut left) = (self.last_read + 1, chunk_size());
        for step in 0..self.slots.len() {
            let place = (first + step) % self.slots.len();
            let found = self.slots.get(place).and_then(|slot| entries(slot, place, few));
            let Some(entries) = found else { continue };
            // A first one always fits.
            let Some(rest) = left.checked_sub(entries.len()) else {
                break;
            };
            left = rest;
            self.last_read = place;
            self.read_chunk(place, &entries);
        }
        left < chunk_size()
    }

    fn read_chunk(&mut self, place: usize, entries: &[Entry]) {
        let micros = match self.compute(entries) {
            Ok(micros) => micros,
            Err(error) => return self.fail(place, &error),
        };
        add(&self.counters.prompt, entries.len());
        let tokens: Vec<LlamaToken> = entries.iter().map(|entry| entry.token).collect();
        let Some(slot) = self.slots.get_mut(place) else { return };
        slot.memory.read(&tokens);
        if let Some(sequence) = slot.writing() {
            sequence.charge(micros);
            if sequence.advance_prompt(entries.len()) {
                self.sample(place, entries.len().saturating_sub(1));
            }
        } else {
            self.judge(place, entries);
        }
    }

    /// Judges the tokens of an answer that is read again.
    fn judge(&mut self, place: usize, entries: &[Entry]) {
        let Some(rereading) = self.slots.get_mut(place).and_then(Slot::rereading) else {
            return;
        };
        let judged = (0i32..)
            .zip(entries)
            .filter(|(_, entry)| entry.logits)
            .try_for_each(|(index, _)| rereading.judge(self.context.get_logits_ith(index)));
        let last = rereading.advance(entries.len());
        if last || judged.is_err() {
            rereading.finish(judged);
            self.release(place);
        }
    }

    /// Gives out sampled tokens and reads them, one of each sequence. Says whether anything moved.
    fn decode(&mut self) -> bool {
        let mut entries = Vec::new();
        let mut moved = false;
        let vocabulary = self.model.llama.vocab();
        for place in 0..self.slots.len() {
            let sequence = self.slots.get_mut(place).and_then(Slot::writing);
            let Some(sequence) = sequence.filter(|sequence| sequence.has_next()) else {
                continue;
            };
            match sequence.turn(&vocabulary) {
                Turn::Decode(token, position) => entries.push(Entry {
                    token,
                    position,
                    slot: place,
                    logits: true,
                }),
                Turn::Blocked => {}
                Turn::Ended => {
                    moved = true;
                    self.release(place);
                }
            }
        }
        if entries.is_empty() {
            return moved;
        }
        let micros = match self.compute(&entries) {
            Ok(micros) => micros / u64::try_from(entries.len()).unwrap_or(1),
            Err(error) => {
                for entry in &entries {
                    self.fail(entry.slot, &error);
                }
                return true;
            }
        };
        for (index, entry) in entries.iter().enumerate() {
            if let Some(slot) = self.slots.get_mut(entry.slot) {
                slot.memory.generated(entry.token);
                if let Some(sequence) = slot.writing() {
                    sequence.advance_output();
                    sequence.charge(micros);
                }
            }
            self.sample(entry.slot, index);
        }
        true
    }

    /// Samples from the logits at this place of the batch; ends the sequence when the model did.
    fn sample(&mut self, place: usize, index: usize) {
        let index = i32::try_from(index).unwrap_or(0);
        let vocabulary = self.model.llama.vocab();
        let logits = self.context.get_logits_ith(index);
        let sequence = self.slots.get_mut(place).and_then(Slot::writing);
        let goes_on = sequence.is_some_and(|sequence| sequence.sample(logits, &vocabulary));
        add(&self.counters.sampled, 1);
        if !goes_on {
            self.release(place);
        }
    }

    /// One run of the model. Gives the processor time that it took, in microseconds.
    fn compute(&mut self, entries: &[Entry]) -> Result<u64, Error> {
        self.batch.clear();
        for entry in entries {
            let sequence = i32::try_from(entry.slot).unwrap_or_default();
            self.batch
                .add(entry.token, entry.position, &[sequence], entry.logits)
                .map_err(|error| Error::Failed(error.to_string()))?;
        }
        let step = self.steps.begin(entries.len());
        let before = crate::steps::processor_micros();
        let decoded = self.context.decode(&mut self.batch);
        self.context.synchronize();
        let micros = crate::steps::processor_micros().saturating_sub(before);
        step.end();
        decoded.map_err(|error| Error::Failed(error.to_string()))?;
        Ok(micros)
    }

    fn fail(&mut self, place: usize, error: &Error) {
        tracing::warn!(place, %error, "a computation failed");
        match self.slots.get_mut(place).and_then(|slot| slot.occupant.as_mut()) {
            Some(Occupant::Writing(sequence)) => sequence.fail(error.clone()),
            Some(Occupant::Rereading(rereading)) => rereading.finish(Err(error.clone())),
            None => {}
        }
        self.release(place);
        // What a failed computation left in the model's memory is not known.
        self.clear(place);
    }

    /// Frees a slot. What nobody may use again is forgotten.
    fn release(&mut self, place: usize) {
        let Some(slot) = self.slots.get_mut(place) else { return };
        slot.occupant = None;
        if !slot.memory.is_worth_keeping() {
            self.clear(place);
        }
    }

    fn clear(&mut self, place: usize) {
        self.forget(place, 0);
        if let Some(slot) = self.slots.get_mut(place) {
            slot.memory = Memory::default();
        }
    }

    /// Sleeps until a request comes or a blocked sequence may go on.
    fn wait(&mut self) {
        let Self {
            slots,
            requests,
            open,
            runtime,
            ..
        } = self;
        let listen = *open && slots.iter().any(|slot| slot.occupant.is_none());
        let mut waits: Vec<Pin<Box<dyn Future<Output = ()> + '_>>> = Vec::new();
        for sequence in slots.iter_mut().filter_map(Slot::writing) {
            waits.push(Box::pin(sequence.unblocked()));
        }
        let arrival = runtime.block_on(poll_fn(|context| {
            if waits.iter_mut().any(|wait| wait.as_mut().poll(context).is_ready()) {
                return Poll::Ready(None);
            }
            match listen {
                true => requests.poll_recv(context).map(Some),
                false => Poll::Pending,
            }
        }));
        drop(waits);
        match arrival {
            Some(Some(request)) => self.admit(request),
            Some(None) => self.open = false,
            None => {}
        }
    }
}

fn context<'m>(model: &'m Model, settings: Settings, batch_size: u32) -> Result<LlamaContext<'m>, Error> {
    let memory = model.limit.div_ceil(MEMORY_UNIT).saturating_mul(MEMORY_UNIT);
    let memory = memory.checked_mul(settings.slots).and_then(NonZeroU32::new);
    let memory = memory.ok_or_else(|| Error::Model("its context is too large for so many slots".to_owned()))?;
    let threads = i32::try_from(settings.threads).unwrap_or(1);
    let mut parameters = LlamaContextParams::default()
        .with_n_ctx(Some(memory))
        .with_n_seq_max(settings.slots)
        .with_n_batch(batch_size)
        .with_n_ubatch(batch_size)
        .with_n_threads(threads)
        .with_n_threads_batch(threads)
        // Every sequence has memory of its own: attention then does not even see that there are others.
        .with_kv_unified(false)
        .with_no_perf(true);
    if settings.mode == Mode::Exact {
        parameters = parameters.with_flash_attention_policy(exact::NO_FLASH_ATTENTION);
    }
    let context = model.llama.new_context(backend()?, parameters);
    context.map_err(|_| Error::Model("llama.cpp cannot make a context; its log says why".to_owned()))
}

fn chunk_size() -> usize {
    usize::try_from(CHUNK).unwrap_or(256)
}

/// The next chunk of a slot's prompt.
fn entries(slot: &Slot, place: usize, few: usize) -> Option<Vec<Entry>> {
    let entry = |token: &LlamaToken, position, logits| Entry {
        token: *token,
        position,
        slot: place,
        logits,
    };
    match slot.occupant.as_ref()? {
        Occupant::Writing(sequence) => {
            let (chunk, position) = sequence.chunk(chunk_size())?;
            let last = chunk.len().saturating_sub(1);
            let tokens = chunk.iter().enumerate().zip(position..);
            Some(
                tokens
                    .map(|((index, token), position)| entry(token, position, index == last))
                    .collect(),
            )
        }
        Occupant::Rereading(rereading) => {
            // Logits of a whole chunk may be more than fits; the part of the prompt before them has none.
            let (whole, first) = rereading.chunk(chunk_size())?;
            let silent = whole
                .iter()
                .zip(first..)
                .take_while(|(_, place)| !rereading.chooses(*place))
                .count();
            let chunk = whole.get(..silent.saturating_add(few).min(whole.len()))?;
            let tokens = chunk.iter().zip(first..);
            Some(
                tokens
                    .map(|(token, place)| {
                        let position = i32::try_from(place).unwrap_or(i32::MAX);
                        entry(token, position, rereading.chooses(place))
                    })
                    .collect(),
            )
        }
    }
}

/// A token in a batch.
#[derive(Debug, Clone, Copy)]
struct Entry {
    token: LlamaToken,
    position: i32,
    slot: usize,
    logits: bool,
}

fn add(counter: &AtomicU64, count: usize) {
    counter.fetch_add(u64::try_from(count).unwrap_or_default(), Ordering::Relaxed);
}
