//! The requests of one batch, a few at a time, until each has an outcome.

use std::{
    collections::{HashMap, VecDeque},
    sync::Arc,
    time::Duration,
};

use rialto_api::openai::BatchStatus;
use tokio::{
    task::{Id, JoinSet},
    time::{Instant, timeout},
};
use tokio_util::sync::CancellationToken;

use super::{
    line::{self, Fate},
    outcome::{Outcome, Outputs, file_ids},
};
use crate::{
    Error,
    desk::Desk,
    store::{BatchRow, FileRow, LineRow, now},
};

/// Between two looks at whether there is room for more, or whether the batch was cancelled.
const LOOK: Duration = Duration::from_millis(250);
/// Requests that are read from the store at a time, and outcomes that are written at a time.
const GROUP: u32 = 64;

/// Why no further request begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Halt {
    Cancelled,
    Expired,
    Stopping,
}

struct Work<'a> {
    desk: &'a Arc<Desk>,
    batch: Arc<BatchRow>,
    outputs: Outputs,
    flying: JoinSet<Fate>,
    /// What each task works on: one that breaks down cannot say so itself.
    lines: HashMap<Id, LineRow>,
    ready: VecDeque<LineRow>,
    /// Requests that are asked again, and when.
    later: Vec<(Instant, LineRow)>,
    /// Until when none begins.
    paused: Option<Instant>,
    /// The last line that was read from the store.
    cursor: u64,
    /// Whether the store has no more after it.
    read_all: bool,
}

/// Works on a batch until its requests have ended, or the gateway stops.
pub(super) async fn run(desk: &Arc<Desk>, batch: BatchRow, stop: &CancellationToken) -> Result<(), Error> {
    let outputs = Outputs::resume(desk, &batch).await?;
    let mut work = Work {
        desk,
        batch: Arc::new(batch),
        outputs,
        flying: JoinSet::new(),
        lines: HashMap::new(),
        ready: VecDeque::new(),
        later: Vec::new(),
        paused: None,
        cursor: 0,
        read_all: false,
    };
    let lost = desk.store.lost_lines(&work.batch.id).await?;
    let lost: Vec<Outcome> = lost.iter().map(Outcome::lost).collect();
    work.outputs.write(desk, &work.batch.id, &lost).await?;
    let halted = work.turn(stop).await;
    // Requests under way are never dropped: what they cost is to be known.
    let drained = work.drain().await;
    let halt = halted?;
    drained?;
    work.end(halt).await
}

impl Work<'_> {
    /// Begins and collects requests until there is nothing more to begin; says why.
    async fn turn(&mut self, stop: &CancellationToken) -> Result<Option<Halt>, Error> {
        loop {
            if let Some(halt) = self.halt(stop).await? {
                return Ok(Some(halt));
            }
            self.begin().await?;
            let idle = self.ready.is_empty() && self.later.is_empty() && self.read_all;
            if idle && self.flying.is_empty() {
                return Ok(None);
            }
            let outcomes = self.collect(LOOK).await;
            self.outputs.write(self.desk, &self.batch.id, &outcomes).await?;
        }
    }

    async fn halt(&self, stop: &CancellationToken) -> Result<Option<Halt>, Error> {
        if stop.is_cancelled() {
            return Ok(Some(Halt::Stopping));
        }
        let status = self
            .desk
            .store
            .any_batch(&self.batch.id)
            .await?
            .map(|batch| batch.status);
        if status == Some(BatchStatus::Cancelling) {
            return Ok(Some(Halt::Cancelled));
        }
        let expires = self.batch.times.expires_at;
        Ok(expires.is_some_and(|end| end <= now()).then_some(Halt::Expired))
    }

    /// Begins as many requests as there is room for.
    async fn begin(&mut self) -> Result<(), Error> {
        if self.paused.is_some_and(|until| Instant::now() < until) {
            return Ok(());
        }
        let share = self.desk.batches.share(&self.desk.config.batches);
        while self.flying.len() < share && has_room(self.desk) {
            let Some(line) = self.next().await? else { return Ok(()) };
            let Ok(slot) = Arc::clone(&self.desk.batches.slots).try_acquire_owned() else {
                self.ready.push_front(line);
                return Ok(());
            };
            let (desk, batch, known) = (Arc::clone(self.desk), Arc::clone(&self.batch), line.clone());
            let task = self.flying.spawn(async move {
                let fate = line::run(&desk, &batch, line).await;
                drop(slot);
                fate
            });
            self.lines.insert(task.id(), known);
        }
        Ok(())
    }

    /// The next request: one that waits for its second try, if its time has come, or the next in the file.
    async fn next(&mut self) -> Result<Option<LineRow>, Error> {
        let due = self.later.iter().position(|(at, _)| *at <= Instant::now());
        if let Some(place) = due {
            return Ok(Some(self.later.swap_remove(place).1));
        }
        if self.ready.is_empty() && !self.read_all {
            let read = self
                .desk
                .store
                .waiting_lines(&self.batch.id, self.cursor, GROUP)
                .await?;
            self.read_all = read.len() < usize::try_from(GROUP).unwrap_or(usize::MAX);
            self.cursor = read.last().map_or(self.cursor, |line| line.number);
            self.ready = read.into();
        }
        Ok(self.ready.pop_front())
    }

    /// Outcomes of requests that have ended, after so long a wait at most.
    async fn collect(&mut self, patience: Duration) -> Vec<Outcome> {
        let mut outcomes = Vec::new();
        if self.flying.is_empty() {
            tokio::time::sleep(patience).await;
            return outcomes;
        }
        let mut joined = timeout(patience, self.flying.join_next_with_id()).await.ok().flatten();
        while let Some(ended) = joined {
            let (id, fate) = match ended {
                Ok((id, fate)) => (id, Some(fate)),
                Err(error) => {
                    tracing::error!(%error, "a request of a batch broke down");
                    (error.id(), None)
                }
            };
            let line = self.lines.remove(&id);
            match (fate, line) {
                (Some(Fate::Ended(outcome)), _) => outcomes.push(outcome),
                (Some(Fate::Again(pause)), Some(line)) => self.later.push((Instant::now() + pause, line)),
                (Some(Fate::Pause(pause)), Some(line)) => {
                    self.paused = self.paused.max(Some(Instant::now() + pause));
                    self.ready.push_front(line);
                }
                // It may have been sent.
                (None, Some(line)) => outcomes.push(Outcome::lost(&line)),
                (Some(Fate::Again(_) | Fate::Pause(_)) | None, None) => {}
            }
            if outcomes.len() >= usize::try_from(GROUP).unwrap_or(usize::MAX) {
                break;
            }
            joined = self.flying.try_join_next_with_id();
        }
        outcomes
    }

    /// Waits for the requests under way.
    async fn drain(&mut self) -> Result<(), Error> {
        while !self.flying.is_empty() {
            let outcomes = self.collect(LOOK).await;
            self.outputs.write(self.desk, &self.batch.id, &outcomes).await?;
        }
        Ok(())
    }

    /// Ends the batch, or leaves it for the next start.
    async fn end(mut self, halt: Option<Halt>) -> Result<(), Error> {
        let id = self.batch.id.clone();
        match halt {
            Some(Halt::Stopping) => Ok(()),
            Some(Halt::Cancelled) => finish(self.desk, &self.batch, BatchStatus::Cancelled).await,
            Some(Halt::Expired) => {
                let mut expired = self.batch.times.expired_at.is_some();
                loop {
                    // Each of them leaves the list by being written.
                    let rest = self.desk.store.waiting_lines(&id, 0, GROUP).await?;
                    if rest.is_empty() {
                        break;
                    }
                    if !expired {
                        self.desk.store.mark_expired(&id, now()).await?;
                        expired = true;
                    }
                    let outcomes: Vec<Outcome> = rest.iter().map(Outcome::expired).collect();
                    self.outputs.write(self.desk, &id, &outcomes).await?;
                }
                let status = if expired {
                    BatchStatus::Expired
                } else {
                    BatchStatus::Completed
                };
                finish(self.desk, &self.batch, status).await
            }
            None => {
                let (from, to) = (BatchStatus::InProgress, BatchStatus::Finalizing);
                // False if it was cancelled meanwhile; the next turn sees to that.
                self.desk.store.move_batch(&id, from, to, now()).await?;
                Ok(())
            }
        }
    }
}

/// Whether requests of batches may begin: the other half of the places is for those who wait for their answers.
fn has_room(desk: &Desk) -> bool {
    desk.places.available_permits().saturating_mul(2) > desk.config.max_requests
}

/// Gives a batch its files, and ends it.
pub(super) async fn finish(desk: &Desk, batch: &BatchRow, status: BatchStatus) -> Result<(), Error> {
    let Some(batch) = desk.store.any_batch(&batch.id).await? else {
        return Ok(());
    };
    let [output, errors] = file_ids(&batch.id);
    let seconds = batch.output_seconds.unwrap_or(desk.config.batches.file_seconds);
    let row = |id: String, part: &str, bytes: u64| FileRow {
        name: format!("{}_{part}.jsonl", batch.id),
        id,
        key: batch.key.clone(),
        purpose: "batch_output".into(),
        bytes,
        created_at: now(),
        expires_at: Some(now().saturating_add(seconds)),
    };
    let output = row(output, "output", batch.written.output);
    let errors = row(errors, "error", batch.written.errors);
    for file in [&output, &errors] {
        if file.bytes == 0 {
            desk.batches.folder.remove(&file.id).await;
        }
    }
    let some = |file: &FileRow| file.bytes > 0;
    let (output, errors) = (
        Some(&output).filter(|one| some(one)),
        Some(&errors).filter(|one| some(one)),
    );
    desk.store.end_batch(&batch.id, status, output, errors, now()).await
}
