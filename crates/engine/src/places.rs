//! A bounded number of answers that are worked on, and a bounded number that wait for their turn.

use std::sync::Arc;

use tokio::sync::{Semaphore, mpsc};

use crate::{Answer, Ending, Error, Piece};

/// Pieces that may wait for a slow reader.
const PIECES: usize = 16;

/// Where the pieces of an answer go.
pub(crate) type Sender = mpsc::Sender<Result<Piece, Error>>;

#[derive(Debug)]
pub(crate) struct Places {
    slots: Semaphore,
    /// Requests in slots and in the queue.
    admitted: Arc<Semaphore>,
}

impl Places {
    /// So many answers at work, and so many that wait.
    pub(crate) fn new(slots: u32, queue: u32) -> Arc<Self> {
        let permits = |count: u32| usize::try_from(count).unwrap_or(usize::MAX).min(1 << 20);
        Arc::new(Self {
            slots: Semaphore::new(permits(slots)),
            admitted: Arc::new(Semaphore::new(permits(slots.saturating_add(queue)))),
        })
    }

    /// Works in a slot once one is free; [`Error::Busy`] where the queue is full. How the work ends is the answer's last
    /// piece. Dropping the answer drops the work at its next point of waiting.
    pub(crate) fn answer<W, F>(self: &Arc<Self>, work: W) -> Answer
    where
        W: FnOnce(Sender) -> F + Send + 'static,
        F: Future<Output = Result<Ending, Error>> + Send,
    {
        let (sender, pieces) = mpsc::channel(PIECES);
        let Ok(place) = self.admitted.clone().try_acquire_owned() else {
            // The channel is new, so it has room.
            let _ = sender.try_send(Err(Error::Busy));
            return Answer::new(pieces);
        };
        let places = Arc::clone(self);
        tokio::spawn(async move {
            let _place = place;
            let answer = async {
                let Ok(_slot) = places.slots.acquire().await else {
                    return Err(Error::Failed("the engine was shut down".to_owned()));
                };
                work(sender.clone()).await
            };
            let last = tokio::select! {
                () = sender.closed() => return,
                last = answer => last.map(Piece::Finished),
            };
            let _ = sender.send(last).await;
        });
        Answer::new(pieces)
    }
}
