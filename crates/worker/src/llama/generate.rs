//! The thread that generates: it owns the context, and every sequence takes its turn in one batch.
//!
//! Each step reads one chunk of one prompt, alone and cut at fixed places, and then one token of every sequence that
//! may go on. What a sequence computes so does not depend on who else is there, as far as llama.cpp's kernels give the
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
use tokio::sync::mpsc;

use super::{
    model::{Model, backend},
    sequence::{Request, Sequence, Turn},
};
use crate::steps::Steps;
use rialto_engine::Error;

/// Tokens of a prompt that are read in one step.
const CHUNK: u32 = 256;

/// llama.cpp divides its memory into parts of a multiple of this.
const MEMORY_UNIT: u32 = 256;

/// What was done so far; shows whether cancelled work stopped.
#[derive(Debug, Default)]
pub(super) struct Counters {
    /// Tokens of prompts that the model has read.
    pub(super) prompt: AtomicU64,
    /// Tokens sampled.
    pub(super) sampled: AtomicU64,
}

/// How the thread is set up.
#[derive(Debug, Clone, Copy)]
pub(super) struct Settings {
    pub(super) slots: u32,
    pub(super) threads: usize,
}

/// The thread's state.
pub(super) struct Worker<'m> {
    model: &'m Model,
    context: LlamaContext<'m>,
    batch: LlamaBatch<'static>,
    slots: Vec<Option<Sequence>>,
    /// The slot whose prompt was read last, so that the next one gets its turn.
    last_read: usize,
    requests: mpsc::Receiver<Request>,
    /// Whether more requests can come.
    open: bool,
    runtime: tokio::runtime::Runtime,
    counters: Arc<Counters>,
    steps: Steps,
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
        let slots = usize::try_from(settings.slots).unwrap_or(1);
        let batch_size = CHUNK.max(settings.slots);
        let memory = model.limit.div_ceil(MEMORY_UNIT).saturating_mul(MEMORY_UNIT);
        let memory = memory.checked_mul(settings.slots).and_then(NonZeroU32::new);
        let memory = memory.ok_or_else(|| Error::Model("its context is too large for so many slots".to_owned()))?;
        let threads = i32::try_from(settings.threads).unwrap_or(1);
        let parameters = LlamaContextParams::default()
            .with_n_ctx(Some(memory))
            .with_n_seq_max(settings.slots)
            .with_n_batch(batch_size)
            .with_n_ubatch(batch_size)
            .with_n_threads(threads)
            .with_n_threads_batch(threads)
            // Every sequence has memory of its own: attention then does not even see that there are others.
            .with_kv_unified(false)
            .with_no_perf(true);
        let context = model
            .llama
            .new_context(backend()?, parameters)
            .map_err(|_| Error::Model("llama.cpp cannot make a context; its log says why".to_owned()))?;
        let runtime = tokio::runtime::Builder::new_current_thread().build();
        Ok(Self {
            model,
            context,
            batch: LlamaBatch::new(usize::try_from(batch_size).unwrap_or(512), 1),
            slots: (0..slots).map(|_| None).collect(),
            last_read: 0,
            requests,
            open: true,
            runtime: runtime.map_err(|error| Error::Model(error.to_string()))?,
            counters,
            steps,
        })
    }

    /// Works until nobody can ask any more and every answer has ended.
    pub(super) fn run(mut self) {
        loop {
            self.admit_waiting();
            self.drop_ended();
            let mut moved = self.read_prompt();
            moved |= self.decode();
            if moved {
                continue;
            }
            if !self.open && self.slots.iter().all(Option::is_none) {
                return;
            }
            self.wait();
        }
    }

    fn admit_waiting(&mut self) {
        while self.slots.iter().any(Option::is_none) {
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

    fn admit(&mut self, request: Request) {
        if let Some(slot) = self.slots.iter_mut().find(|slot| slot.is_none()) {
            *slot = Some(Sequence::new(request));
        }
    }

    fn drop_ended(&mut self) {
        for slot in 0..self.slots.len() {
            if self.sequence(slot).is_some_and(Sequence::is_over) {
                self.release(slot);
            }
        }
    }

    /// Reads one chunk of one prompt. Says whether there was one.
    fn read_prompt(&mut self) -> bool {
        let count = self.slots.len();
        let turns = (1..=count).map(|step| (self.last_read + step) % count);
        let chunk_size = usize::try_from(CHUNK).unwrap_or(256);
        let mut found = None;
        for slot in turns {
            let sequence = self.slots.get(slot).and_then(Option::as_ref);
            if let Some((chunk, position)) = sequence.and_then(|sequence| sequence.chunk(chunk_size)) {
                found = Some((slot, chunk.to_vec(), position));
                break;
            }
        }
        let Some((slot, chunk, position)) = found else {
            return false;
        };
        self.last_read = slot;
        let last = chunk.len().saturating_sub(1);
        let tokens = chunk.iter().enumerate().zip(position..);
        let tokens: Vec<Entry> = tokens
            .map(|((index, token), position)| Entry {
                token: *token,
                position,
                slot,
                logits: index == last,
            })
            .collect();
        if let Err(error) = self.compute(&tokens) {
            self.fail(slot, &error);
            return true;
        }
        add(&self.counters.prompt, chunk.len());
        let read_all = self.sequence(slot).is_some_and(|one| one.advance_prompt(chunk.len()));
        if read_all {
            self.sample(slot, last);
        }
        true
    }

    /// Gives out sampled tokens and reads them, one of each sequence. Says whether anything moved.
    fn decode(&mut self) -> bool {
        let mut entries = Vec::new();
        let mut moved = false;
        let vocabulary = self.model.llama.vocab();
        for slot in 0..self.slots.len() {
            let Some(sequence) = self.sequence(slot).filter(|sequence| sequence.has_next()) else {
                continue;
            };
            match sequence.turn(&vocabulary) {
                Turn::Decode(token, position) => entries.push(Entry {
                    token,
                    position,
                    slot,
                    logits: true,
                }),
                Turn::Blocked => {}
                Turn::Ended => {
                    moved = true;
                    self.release(slot);
                }
            }
        }
        if entries.is_empty() {
            return moved;
        }
        if let Err(error) = self.compute(&entries) {
            for entry in &entries {
                self.fail(entry.slot, &error);
            }
            return true;
        }
        for (index, entry) in entries.iter().enumerate() {
            if let Some(sequence) = self.sequence(entry.slot) {
                sequence.advance_output();
            }
            self.sample(entry.slot, index);
        }
        true
    }

    /// Samples from the logits at this place of the batch; ends the sequence when the model did.
    fn sample(&mut self, slot: usize, index: usize) {
        let index = i32::try_from(index).unwrap_or(0);
        let vocabulary = self.model.llama.vocab();
        let logits = self.context.get_logits_ith(index);
        let sequence = self.slots.get_mut(slot).and_then(Option::as_mut);
        let goes_on = sequence.is_some_and(|sequence| sequence.sample(logits, &vocabulary));
        add(&self.counters.sampled, 1);
        if !goes_on {
            self.release(slot);
        }
    }

    /// One run of the model.
    fn compute(&mut self, entries: &[Entry]) -> Result<(), Error> {
        self.batch.clear();
        for entry in entries {
            let sequence = i32::try_from(entry.slot).unwrap_or_default();
            self.batch
                .add(entry.token, entry.position, &[sequence], entry.logits)
                .map_err(|error| Error::Failed(error.to_string()))?;
        }
        let step = self.steps.begin(entries.len());
        let decoded = self.context.decode(&mut self.batch);
        step.end();
        decoded.map_err(|error| Error::Failed(error.to_string()))
    }

    fn sequence(&mut self, slot: usize) -> Option<&mut Sequence> {
        self.slots.get_mut(slot).and_then(Option::as_mut)
    }

    fn fail(&mut self, slot: usize, error: &Error) {
        tracing::warn!(slot, %error, "generation failed");
        if let Some(sequence) = self.sequence(slot) {
            sequence.fail(error.clone());
        }
        self.release(slot);
    }

    /// Frees a slot and forgets what the model remembers of its sequence.
    fn release(&mut self, slot: usize) {
        if let Some(place) = self.slots.get_mut(slot) {
            *place = None;
        }
        let sequence = u32::try_from(slot).unwrap_or_default();
        if !matches!(self.context.clear_kv_cache_seq(Some(sequence), None, None), Ok(true)) {
            tracing::error!(slot, "llama.cpp did not forget a sequence");
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
        let listen = *open && slots.iter().any(Option::is_none);
        let mut waits: Vec<Pin<Box<dyn Future<Output = ()> + '_>>> = Vec::new();
        for sequence in slots.iter_mut().flatten() {
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
