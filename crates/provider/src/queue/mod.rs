//! Admission: a bounded queue in front of each engine, fair among payers, with deadlines.
//!
//! A request waits here before anything is done for it or paid by it. Once it is let in it is checked and paid, which is
//! called its opening, and then it gets a slot. Only as many are let in as there are slots, and a few ahead so that no
//! slot waits for an opening; so the engine's own queue never holds what could be ordered here.

mod admission;
mod bookings;
mod lines;
mod pace;
#[cfg(test)]
mod tests;

use std::{
    hash::{BuildHasher, Hash, Hasher, RandomState},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use rialto_protocol::{Address, job::Job};
use tokio::{
    sync::{Notify, OwnedSemaphorePermit, Semaphore, oneshot},
    time::Instant,
};

use crate::clock::millis;

use admission::{Admission, Caller};
use lines::Ticket;
pub(crate) use pace::Load;

/// A request that cannot be served in time. Nothing was done for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Full {
    /// When to come back, in milliseconds: a place is kept then.
    pub(crate) retry_after_ms: u64,
    /// Whether it had been told to come at this very time.
    pub(crate) as_told: bool,
}

/// The queue in front of one engine.
#[derive(Debug)]
pub(crate) struct Queue {
    slots: Arc<Semaphore>,
    admission: Mutex<Admission<Waiter>>,
    changed: Arc<Notify>,
    epoch: Instant,
    hasher: RandomState,
}

/// A request in its payer's line.
#[derive(Debug)]
struct Waiter {
    job: u64,
    call: oneshot::Sender<Call>,
}

/// What a request hears that waits.
#[derive(Debug)]
enum Call {
    /// It is let in.
    Come,
    /// Its place was needed for a payer with fewer requests.
    Displaced(Full),
}

/// A request's place: it counts as load until this is dropped.
#[derive(Debug)]
pub(crate) struct Place {
    queue: Arc<Queue>,
    caller: Caller,
    deadline: Instant,
    stage: Stage,
}

#[derive(Debug)]
enum Stage {
    Waiting {
        ticket: Ticket,
        call: oneshot::Receiver<Call>,
    },
    Admitted {
        since: Instant,
        /// When it got a slot.
        began: Option<Instant>,
    },
    Out,
}

/// A request's turn in a slot.
#[derive(Debug)]
pub(crate) struct Turn {
    _permit: OwnedSemaphorePermit,
}

impl Queue {
    /// A queue for an engine with this many slots; `bound` requests may wait. `changed` is told when the load changes.
    pub(crate) fn new(slots: u32, bound: usize, changed: Arc<Notify>) -> Self {
        let slots = slots.max(1);
        Self {
            slots: Arc::new(Semaphore::new(usize::try_from(slots).unwrap_or(1))),
            admission: Mutex::new(Admission::new(slots, bound)),
            changed,
            epoch: Instant::now(),
            hasher: RandomState::new(),
        }
    }

    /// Requests worked on at a time.
    pub(crate) fn capacity(&self) -> u32 {
        self.lock().slots()
    }

    /// Requests being worked on or waiting.
    pub(crate) fn load(&self) -> usize {
        self.lock().load()
    }

    /// Units of output a second of one request; zero when nothing was measured.
    pub(crate) fn speed(&self) -> u32 {
        self.lock().pace.speed()
    }

    /// The load over time.
    pub(crate) fn load_so_far(&self) -> Load {
        self.lock().pace.load(self.now())
    }

    /// Takes a request into its payer's line. It is refused at once when it would have to wait longer than `patience`, or
    /// when the queue is full and its payer has its share of it.
    pub(crate) fn join(self: &Arc<Self>, payer: Address, job: &Job, patience: Duration) -> Result<Place, Full> {
        let caller = Caller {
            payer,
            job: self.likeness(job),
            patience: millis(patience),
        };
        let (call, hear) = oneshot::channel();
        let waiter = Waiter { job: caller.job, call };
        let now = self.now();
        let mut admission = self.lock();
        let joined = admission.join(&caller, now, waiter)?;
        if let Some((payer, waiter)) = joined.displaced {
            let full = Full {
                retry_after_ms: admission.book(payer, waiter.job, now, 0),
                as_told: false,
            };
            // One that just left needs no word.
            let _ = waiter.call.send(Call::Displaced(full));
        }
        self.call_next(&mut admission);
        drop(admission);
        Ok(Place {
            queue: self.clone(),
            caller,
            deadline: Instant::now() + patience,
            stage: Stage::Waiting {
                ticket: joined.ticket,
                call: hear,
            },
        })
    }

    /// Like [`Self::join`], for a request that only fills a slot that nobody else wants.
    pub(crate) fn fill(self: &Arc<Self>, payer: Address, job: &Job, patience: Duration) -> Result<Place, Full> {
        if let Some(retry_after_ms) = self.lock().idle_after() {
            let as_told = false;
            return Err(Full {
                retry_after_ms,
                as_told,
            });
        }
        self.join(payer, job, patience)
    }

    /// What tells a job from others, and does not change when the same is asked again: a seed may be new each time.
    fn likeness(&self, job: &Job) -> u64 {
        let mut hasher = self.hasher.build_hasher();
        match job {
            Job::Chat {
                messages, generation, ..
            } => {
                for message in messages {
                    (&message.role, &message.content).hash(&mut hasher);
                }
                generation.max_tokens.hash(&mut hasher);
            }
            Job::Completion { prompt, generation } => (prompt, generation.max_tokens).hash(&mut hasher),
            Job::Embedding { inputs } => inputs.hash(&mut hasher),
            Job::Predict { inputs, outputs } => {
                for tensor in inputs {
                    (&tensor.name, &tensor.shape, &tensor.data).hash(&mut hasher);
                }
                outputs.hash(&mut hasher);
            }
        }
        hasher.finish()
    }

    fn call_next(&self, admission: &mut Admission<Waiter>) {
        while let Some((payer, waiter)) = admission.next() {
            if waiter.call.send(Call::Come).is_err() {
                admission.lines.end(&payer, 0);
            }
        }
        let (load, now) = (admission.load(), self.now());
        admission.pace.set_load(load, now);
        self.changed.notify_one();
    }

    fn lock(&self) -> MutexGuard<'_, Admission<Waiter>> {
        self.admission.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Milliseconds since this queue began.
    fn now(&self) -> u64 {
        millis(self.epoch.elapsed())
    }
}

impl Place {
    /// Waits until the request is let in. May be given up and begun again.
    pub(crate) async fn admitted(&mut self) -> Result<(), Full> {
        let Stage::Waiting { call, .. } = &mut self.stage else {
            return Ok(());
        };
        let called = tokio::select! {
            biased;
            called = call => called.ok(),
            () = tokio::time::sleep_until(self.deadline) => None,
        };
        match called {
            Some(Call::Come) => self.enter(),
            Some(Call::Displaced(full)) => {
                self.stage = Stage::Out;
                return Err(full);
            }
            None => self.give_up()?,
        }
        Ok(())
    }

    fn enter(&mut self) {
        self.stage = Stage::Admitted {
            since: Instant::now(),
            began: None,
        };
    }

    /// Leaves the line because the patience is at its end, unless the call came just now.
    fn give_up(&mut self) -> Result<(), Full> {
        match self.leave() {
            Some(Call::Come) => {
                self.enter();
                Ok(())
            }
            Some(Call::Displaced(full)) => Err(full),
            None => {
                let Caller { payer, job, .. } = self.caller;
                Err(Full {
                    retry_after_ms: self.queue.lock().book(payer, job, self.queue.now(), 0),
                    as_told: false,
                })
            }
        }
    }

    /// Leaves the line. Returns what was called and not heard.
    fn leave(&mut self) -> Option<Call> {
        if !matches!(self.stage, Stage::Waiting { .. }) {
            return None;
        }
        let Stage::Waiting { ticket, mut call } = std::mem::replace(&mut self.stage, Stage::Out) else {
            return None;
        };
        let mut admission = self.queue.lock();
        if admission.lines.remove(&self.caller.payer, ticket).is_some() {
            self.queue.call_next(&mut admission);
            return None;
        }
        // Calls are made while the queue is locked, so it is there.
        call.try_recv().ok()
    }

    /// Lets others in for as long as the opening waits for the buyer. The request counts as load again once it comes
    /// back with [`Self::resume`].
    pub(crate) fn pause(&mut self) {
        if let Stage::Admitted { began: None, .. } = self.stage {
            self.end();
        }
    }

    /// Joins the front of its payer's line again.
    pub(crate) fn resume(&mut self) {
        if !matches!(self.stage, Stage::Out) {
            return;
        }
        let (call, hear) = oneshot::channel();
        let Caller { payer, job, patience } = self.caller;
        let mut admission = self.queue.lock();
        let ticket = admission.lines.push_front(payer, Waiter { job, call });
        self.queue.call_next(&mut admission);
        drop(admission);
        self.deadline = Instant::now() + Duration::from_millis(patience);
        self.stage = Stage::Waiting { ticket, call: hear };
    }

    /// Ends what was let in.
    fn end(&mut self) {
        let Stage::Admitted { began, .. } = self.stage else {
            return;
        };
        self.stage = Stage::Out;
        let mut admission = self.queue.lock();
        let service = began.map(|began| began.elapsed());
        if let Some(service) = service {
            admission.pace.served(service);
        }
        let used = service.map_or(0, |service| u64::try_from(service.as_micros()).unwrap_or(u64::MAX));
        admission.lines.end(&self.caller.payer, used);
        self.queue.call_next(&mut admission);
    }

    /// Waits for a slot, after the opening.
    pub(crate) async fn turn(&mut self) -> Option<Turn> {
        let permit = self.queue.slots.clone();
        if let Stage::Admitted { since, .. } = self.stage {
            self.queue.lock().pace.opened(since.elapsed());
        }
        let permit = permit.acquire_owned().await.ok()?;
        if let Stage::Admitted { began, .. } = &mut self.stage {
            *began = Some(Instant::now());
        }
        Some(Turn { _permit: permit })
    }

    /// Notes how fast a whole answer was generated: the time from its first to its last output, and the units that came
    /// after the first.
    pub(crate) fn generated(&self, units: u64, generating: Duration) {
        self.queue.lock().pace.generated(units, generating);
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        if let Some(Call::Come) = self.leave() {
            self.enter();
        }
        self.end();
    }
}
