//! Work that can wait: batches, which run behind everything else and are bought by auction.
//!
//! Everything that a batch needs outlives the process. A request of a batch is marked before it is sent, is sent under an
//! idempotency id of its own, and its outcome is on disk before the mark says so: after a crash it is known which requests
//! may have been sent, and none of those is sent again.

mod auction;
mod folder;
mod line;
mod outcome;
mod policy;
mod validate;
mod work;

use std::{
    collections::HashSet,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

pub(crate) use auction::{BidInHand, Terms};
pub(crate) use folder::Folder;
pub use policy::BatchPolicy;
use rialto_api::openai::BatchStatus;
use tokio::{
    sync::{Notify, Semaphore},
    task::JoinSet,
    time::Instant,
};
use tokio_util::sync::CancellationToken;

use crate::{Error, desk::Desk, store::now};

/// Uploads at a time.
const UPLOADS: usize = 16;
/// Between two looks for batches that nobody works on, such as those whose work failed.
const LOOK: Duration = Duration::from_secs(10);
/// Between two times at which what has expired is removed.
const TIDY: Duration = Duration::from_secs(60);
/// How old a file must be that nobody knows, before it is removed: an upload may be about to be noted.
const LEFT_OVER: Duration = Duration::from_secs(2 * 3_600);
/// Seconds for which a batch is remembered after its files are gone.
const REMEMBERED: u64 = 7 * 24 * 3_600;

/// What batches share.
#[derive(Debug)]
pub(crate) struct Batches {
    pub(crate) folder: Folder,
    /// Places for uploads.
    pub(crate) uploads: Arc<Semaphore>,
    /// Places for requests of batches.
    slots: Arc<Semaphore>,
    /// Batches that are worked on.
    active: AtomicUsize,
    auctions: auction::Auctions,
    wake: Notify,
}

impl Batches {
    /// Opens the folder of files.
    pub(crate) async fn open(folder: &Path, policy: &BatchPolicy) -> Result<Self, Error> {
        Ok(Self {
            folder: Folder::open(folder).await?,
            uploads: Arc::new(Semaphore::new(UPLOADS)),
            slots: Arc::new(Semaphore::new(policy.concurrency)),
            active: AtomicUsize::new(0),
            auctions: auction::Auctions::default(),
            wake: Notify::new(),
        })
    }

    /// Has new batches looked for at once.
    pub(crate) fn wake(&self) {
        self.wake.notify_one();
    }

    /// Requests that one batch may have under way: all batches share alike.
    fn share(&self, policy: &BatchPolicy) -> usize {
        let active = self.active.load(Ordering::Relaxed).max(1);
        (policy.concurrency / active).max(1)
    }
}

/// Removes what an earlier run left half done. Whoever could be uploading may not have begun.
pub(crate) async fn clear(desk: &Desk) {
    if let Err(error) = tidy(desk, Duration::ZERO).await {
        tracing::warn!(%error, "files that nobody knows were not removed");
    }
}

/// Works on batches until the gateway stops.
pub(crate) async fn run(desk: Arc<Desk>, stop: CancellationToken) {
    let mut tasks = JoinSet::new();
    let mut running: HashSet<String> = HashSet::new();
    let mut tidied = Instant::now();
    loop {
        match desk.store.unfinished_batches().await {
            Ok(list) => {
                for id in list {
                    if running.insert(id.clone()) {
                        tasks.spawn(one(Arc::clone(&desk), id, stop.clone()));
                    }
                }
            }
            Err(error) => tracing::warn!(%error, "batches could not be looked for"),
        }
        tokio::select! {
            () = stop.cancelled() => break,
            () = desk.batches.wake.notified() => {}
            Some(ended) = tasks.join_next() => match ended {
                Ok(id) => { running.remove(&id); }
                Err(error) => tracing::error!(%error, "work on a batch broke down; it goes on after a restart"),
            },
            () = tokio::time::sleep(LOOK) => {}
        }
        if tidied.elapsed() >= TIDY {
            tidied = Instant::now();
            if let Err(error) = tidy(&desk, LEFT_OVER).await {
                tracing::warn!(%error, "what has expired was not removed");
            }
        }
    }
    // Requests under way end; what does not end in time is looked at again after the next start.
    while tasks.join_next().await.is_some() {}
}

/// Works on one batch for as long as there is something to do.
async fn one(desk: Arc<Desk>, id: String, stop: CancellationToken) -> String {
    desk.batches.active.fetch_add(1, Ordering::Relaxed);
    let worked = drive(&desk, &id, &stop).await;
    desk.batches.active.fetch_sub(1, Ordering::Relaxed);
    if let Err(error) = worked {
        tracing::warn!(batch = %id, %error, "work on a batch failed; it is tried again");
        // Not at once: what failed may fail for a while.
        tokio::select! {
            () = stop.cancelled() => {}
            () = tokio::time::sleep(LOOK) => {}
        }
    }
    id
}

async fn drive(desk: &Arc<Desk>, id: &str, stop: &CancellationToken) -> Result<(), Error> {
    while !stop.is_cancelled() {
        let Some(batch) = desk.store.any_batch(id).await? else {
            return Ok(());
        };
        match batch.status {
            BatchStatus::Validating => validate::run(desk, &batch).await?,
            BatchStatus::InProgress | BatchStatus::Cancelling => work::run(desk, batch, stop).await?,
            BatchStatus::Finalizing => work::finish(desk, &batch, BatchStatus::Completed).await?,
            BatchStatus::Failed | BatchStatus::Completed | BatchStatus::Expired | BatchStatus::Cancelled => {
                tracing::info!(batch = %id, status = batch.status.name(), "a batch ended");
                return Ok(());
            }
        }
    }
    Ok(())
}

/// Removes what has expired, and files that are at least so old and that nobody knows.
async fn tidy(desk: &Desk, age: Duration) -> Result<(), Error> {
    desk.store.expire_files(now()).await?;
    let policy = &desk.config.batches;
    let kept = policy.file_seconds.saturating_add(REMEMBERED);
    desk.store.prune_batches(now().saturating_sub(kept)).await?;
    let mut known: HashSet<String> = desk.store.file_ids().await?.into_iter().collect();
    for batch in desk.store.unfinished_batches().await? {
        known.extend(outcome::file_ids(&batch));
    }
    desk.batches.folder.sweep(&known, age).await;
    Ok(())
}
