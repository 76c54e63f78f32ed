//! One purchase, and those who read its answer.

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use bytes::Bytes;
use futures::{
    StreamExt as _,
    future::BoxFuture,
    stream::{self, BoxStream, Stream},
};
use tokio::sync::OwnedSemaphorePermit;

use super::super::serving::{Reply, ReplyBody};
use crate::{Error, config::ms, desk::Desk};

/// Largest answer that is kept; a larger one is delivered, and a retry is told that it is gone.
const MAX_ANSWER: usize = 8 << 20;
/// So recently delivered that its client may be about to say that it did not arrive: above the official clients' longest
/// pause of their own.
const RECENT: Duration = Duration::from_secs(10);

/// A purchase and its answer so far.
pub(crate) struct Attempt {
    /// The name under which its requests are stored.
    pub(super) id: [u8; 32],
    standing: Mutex<Standing>,
    /// Where the answer comes from. Whoever needs the next piece draws it, for all: while nobody does, nothing is bought.
    source: tokio::sync::Mutex<Source>,
}

enum Source {
    Asking(BoxFuture<'static, Reply>),
    Telling(BoxStream<'static, Bytes>),
    Over,
}

/// What is known of an answer before its body.
#[derive(Debug, Clone)]
pub(super) struct Head {
    pub(super) status: u16,
    pub(super) headers: Vec<(String, String)>,
    streamed: bool,
}

/// How far an answer has come.
#[derive(Default)]
struct Standing {
    /// The number of the last attempt that it serves.
    count: u32,
    readers: usize,
    /// Since when nobody reads an answer that has not ended.
    left: Option<Instant>,
    /// Whether all of it was handed to a client.
    delivered: bool,
    head: Option<Head>,
    pieces: Vec<Bytes>,
    /// Pieces before those that are kept.
    skipped: usize,
    bytes: usize,
    ended: Option<Instant>,
    /// Whether it cannot be told from its start any more.
    gone: bool,
    /// Whether a retry does not take it over, but buys anew.
    forgotten: bool,
}

impl Attempt {
    /// A purchase that serves an attempt with this number, and has a reader.
    pub(super) fn new(id: [u8; 32], count: u32, asking: BoxFuture<'static, Reply>) -> Self {
        Self {
            id,
            standing: Mutex::new(Standing {
                count,
                readers: 1,
                ..Standing::default()
            }),
            source: tokio::sync::Mutex::new(Source::Asking(asking)),
        }
    }

    /// What an earlier run of the gateway left open.
    pub(super) fn lost(id: [u8; 32]) -> Self {
        Self {
            id,
            standing: Mutex::new(Standing {
                gone: true,
                ended: Some(Instant::now()),
                ..Standing::default()
            }),
            source: tokio::sync::Mutex::new(Source::Over),
        }
    }

    fn standing(&self) -> MutexGuard<'_, Standing> {
        self.standing.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How well it fits a retry with this number: above all the highest number below, then what most probably did not
    /// arrive. `None` if it served a later attempt.
    pub(super) fn fit(&self, count: u32) -> Option<(u32, u8)> {
        let standing = self.standing();
        let likely = match standing.ended {
            _ if standing.gone => 0,
            Some(ended) if standing.delivered => {
                if ended.elapsed() < RECENT {
                    3
                } else {
                    1
                }
            }
            _ if standing.readers > 0 => 2,
            _ => 4,
        };
        (standing.count < count).then_some((standing.count, likely))
    }

    /// Lets an attempt with this number read; false if the answer is gone.
    pub(super) fn serve(&self, count: u32) -> bool {
        let mut standing = self.standing();
        if standing.gone {
            return false;
        }
        standing.count = standing.count.max(count);
        standing.readers += 1;
        standing.left = None;
        true
    }

    /// What equal calls have in common: the first half of the name.
    pub(super) fn scope(&self) -> [u8; 16] {
        let mut scope = [0; 16];
        for (byte, from) in scope.iter_mut().zip(self.id) {
            *byte = from;
        }
        scope
    }

    /// For how long it is over; `None` while it goes on.
    pub(super) fn over_for(&self) -> Option<Duration> {
        let standing = self.standing();
        if standing.forgotten {
            return Some(Duration::MAX);
        }
        standing.ended.map(|ended| ended.elapsed())
    }

    /// A retry that comes from now on buys anew.
    pub(super) fn forget(&self) {
        self.standing().forgotten = true;
    }

    /// Forgets the answer; a retry is told so.
    pub(super) fn drop_answer(&self) {
        let mut standing = self.standing();
        standing.gone = true;
        standing.skipped += standing.pieces.len();
        standing.pieces = Vec::new();
    }

    /// Cancels the purchase if nobody has read for so long.
    pub(super) fn give_up(&self, after: Duration) {
        {
            let mut standing = self.standing();
            if standing.left.is_none_or(|left| left.elapsed() < after) {
                return;
            }
            standing.left = None;
            standing.ended = Some(Instant::now());
        }
        tracing::debug!("no retry came for an answer that nobody reads");
        self.drop_answer();
        // Nobody reads, so nobody holds it.
        if let Ok(mut source) = self.source.try_lock() {
            *source = Source::Over;
        }
    }
}

/// Somebody who reads an answer from its start.
pub(super) struct Reader {
    desk: Arc<Desk>,
    attempt: Arc<Attempt>,
    next: usize,
    /// A body that did not come in pieces.
    whole: Option<Bytes>,
}

impl Reader {
    /// The first reader of a new purchase.
    pub(super) fn first(desk: &Arc<Desk>, id: [u8; 32], count: u32, asking: BoxFuture<'static, Reply>) -> Self {
        Self::of(desk, &Arc::new(Attempt::new(id, count, asking)))
    }

    fn of(desk: &Arc<Desk>, attempt: &Arc<Attempt>) -> Self {
        Self {
            desk: Arc::clone(desk),
            attempt: Arc::clone(attempt),
            next: 0,
            whole: None,
        }
    }

    /// What is read.
    pub(super) fn attempt(&self) -> &Arc<Attempt> {
        &self.attempt
    }

    /// Reads for an attempt with this number; `None` if the answer is gone.
    pub(super) fn attach(desk: &Arc<Desk>, attempt: &Arc<Attempt>, count: u32) -> Option<Self> {
        attempt.serve(count).then(|| Self::of(desk, attempt))
    }

    /// Waits for the beginning of the answer.
    pub(super) async fn head(&mut self) -> Result<Head, Error> {
        let attempt = Arc::clone(&self.attempt);
        let known = || attempt.standing().head.clone();
        if let Some(head) = known() {
            return Ok(head);
        }
        let mut source = attempt.source.lock().await;
        // Another reader may have waited for it meanwhile.
        if let Some(head) = known() {
            return Ok(head);
        }
        // Dropped here, the answer stays where it is, and the next reader waits for it.
        let reply = match &mut *source {
            Source::Asking(answer) => answer.await,
            Source::Telling(_) | Source::Over => return Err(Error::RetryLost),
        };
        let head = Head {
            status: reply.status,
            headers: reply.headers,
            streamed: matches!(reply.body, ReplyBody::Stream(_)),
        };
        attempt.standing().head = Some(head.clone());
        match reply.body {
            ReplyBody::Stream(pieces) => *source = Source::Telling(pieces),
            ReplyBody::Whole(bytes) => {
                *source = Source::Over;
                self.whole = Some(bytes.clone());
                self.take(bytes);
                self.end();
            }
        }
        if !reply.keep {
            self.desk.attempts.forget(&attempt);
        }
        Ok(head)
    }

    /// The body, if it does not come in pieces.
    pub(super) fn whole(&mut self) -> Option<Bytes> {
        let standing = self.attempt.standing();
        if standing.head.as_ref().is_none_or(|head| head.streamed) {
            return None;
        }
        self.next = standing.skipped + standing.pieces.len();
        self.whole.take().or_else(|| standing.pieces.first().cloned())
    }

    /// The body in pieces.
    pub(super) fn pieces(self) -> impl Stream<Item = Result<Bytes, Behind>> + Send + 'static {
        stream::unfold(self, async |mut reader| {
            let piece = reader.piece().await.transpose()?;
            Some((piece, reader))
        })
    }

    async fn piece(&mut self) -> Result<Option<Bytes>, Behind> {
        if let Some(known) = self.known()? {
            return Ok(Some(known));
        }
        let attempt = Arc::clone(&self.attempt);
        let mut source = attempt.source.lock().await;
        // Another reader may have drawn it meanwhile.
        if let Some(known) = self.known()? {
            return Ok(Some(known));
        }
        let Source::Telling(pieces) = &mut *source else {
            return Ok(None);
        };
        let piece = pieces.next().await;
        if let Some(piece) = &piece {
            self.next += 1;
            self.take(piece.clone());
        } else {
            *source = Source::Over;
            self.end();
        }
        Ok(piece)
    }

    /// The next piece, if it was drawn.
    fn known(&mut self) -> Result<Option<Bytes>, Behind> {
        let standing = self.attempt.standing();
        let place = self.next.checked_sub(standing.skipped).ok_or(Behind)?;
        let piece = standing.pieces.get(place).cloned();
        self.next += usize::from(piece.is_some());
        Ok(piece)
    }

    fn take(&self, piece: Bytes) {
        let mut standing = self.attempt.standing();
        standing.bytes += piece.len();
        if standing.bytes > MAX_ANSWER {
            standing.gone = true;
            standing.skipped += standing.pieces.len() + 1;
            standing.pieces.clear();
        } else {
            standing.pieces.push(piece);
        }
    }

    fn end(&self) {
        let bytes = {
            let mut standing = self.attempt.standing();
            standing.ended = Some(Instant::now());
            if standing.gone { 0 } else { standing.bytes }
        };
        if bytes > 0 {
            self.desk.attempts.keep(&self.attempt, bytes);
        }
    }

    /// Gives the answer some time for a retry to come.
    fn leave(&self, place: Option<OwnedSemaphorePermit>) {
        let attempt = Arc::downgrade(&self.attempt);
        let pause = ms(self.desk.config.timeouts.retry_pause_ms);
        let (Some(place), Ok(runtime)) = (place, tokio::runtime::Handle::try_current()) else {
            return self.attempt.give_up(Duration::ZERO);
        };
        runtime.spawn(async move {
            let _place = place;
            tokio::time::sleep(pause).await;
            if let Some(attempt) = attempt.upgrade() {
                attempt.give_up(pause);
            }
        });
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        {
            let mut standing = self.attempt.standing();
            standing.readers = standing.readers.saturating_sub(1);
            if standing.ended.is_some() {
                standing.delivered |= self.next >= standing.skipped + standing.pieces.len();
                return;
            }
            if standing.readers > 0 {
                return;
            }
            standing.left = Some(Instant::now());
        }
        self.leave(self.desk.attempts.pause());
    }
}

/// A reader that was slower than another one of an answer that is too large to be kept.
#[derive(Debug, thiserror::Error)]
#[error("the answer is too large to be kept for a slow retry")]
pub(super) struct Behind;
