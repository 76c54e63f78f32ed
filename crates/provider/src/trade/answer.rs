//! Doing the work: pieces go out as they come, the next voucher is asked for before it is needed, and the engine's grant
//! grows only once the voucher for it is stored.

use std::time::{Duration, Instant};

use rialto_engine::{Answer, Ending, Error as EngineError, Piece, Prepared};
use rialto_protocol::{
    Digest, ReceiptStatus,
    account::VoucherError,
    output::{FinishReason, Output, ResponseHasher},
    wire::{MAX_OUTPUT_FRAME, Refusal, RefusalCode, SellerFrame},
};
use tokio::sync::watch;

use super::{
    admit::verify,
    line::{Gone, Heard, Line},
};
use crate::{
    channel::Channel,
    channels::serving,
    queue::{Place, Turn},
    refusal,
    room::Room,
    store::{Commit, OpenRequest},
};

/// Room in a frame for everything but the values themselves.
const FRAME_MARGIN: usize = 64 << 10;

/// How a request ended.
#[derive(Debug)]
pub(crate) struct Outcome {
    pub(crate) status: ReceiptStatus,
    pub(crate) reason: FinishReason,
    pub(crate) failure: Option<Refusal>,
    /// Whether the engine began to work.
    pub(crate) began: bool,
    /// Whether anything was delivered, counted or not.
    pub(crate) anything: bool,
    /// Units of output that were delivered.
    pub(crate) delivered: u64,
    /// Of what was delivered.
    pub(crate) response_hash: Digest,
    /// What the engine said at the end, if it got there.
    pub(crate) ending: Option<Ending>,
}

/// Why the work ends.
#[derive(Debug)]
struct End {
    status: ReceiptStatus,
    reason: FinishReason,
    failure: Option<Refusal>,
}

impl End {
    fn complete(reason: FinishReason) -> Self {
        let status = if reason == FinishReason::Cancelled {
            ReceiptStatus::Cancelled
        } else {
            ReceiptStatus::Complete
        };
        Self {
            status,
            reason,
            failure: None,
        }
    }

    /// The buyer wants no more, or is gone.
    fn cancelled() -> Self {
        Self::complete(FinishReason::Cancelled)
    }

    /// The buyer's money ended.
    fn unpaid(failure: Refusal) -> Self {
        Self {
            failure: Some(failure),
            ..Self::cancelled()
        }
    }

    fn failed(failure: Refusal) -> Self {
        Self {
            status: ReceiptStatus::Failed,
            reason: FinishReason::Cancelled,
            failure: Some(failure),
        }
    }
}

/// A covered request, ready to be worked on.
pub(crate) struct Work<'a> {
    pub(crate) room: &'a Room,
    pub(crate) channel: &'a Channel,
    pub(crate) place: &'a mut Place,
    pub(crate) open: OpenRequest,
    pub(crate) max_output: u64,
    pub(crate) arrived: Instant,
}

/// What was asked of the buyer.
#[derive(Debug, Clone, Copy)]
struct Ask {
    covered: u64,
    floor: u64,
}

/// A voucher on its way to the disk.
#[derive(Debug)]
struct Paying {
    commit: Commit,
    open: OpenRequest,
}

/// The state of a running answer.
struct Run<'a> {
    work: Work<'a>,
    grant: watch::Sender<u64>,
    asked: Option<Ask>,
    paying: Option<Paying>,
    starved: Option<tokio::time::Instant>,
    delivered: u64,
    anything: bool,
    hasher: ResponseHasher,
    ending: Option<Ending>,
    first: Option<(Instant, u64)>,
    last: Option<Instant>,
}

impl<'a> Work<'a> {
    /// Waits for a slot, runs the job and passes on its pieces.
    pub(crate) async fn perform(mut self, prepared: Box<dyn Prepared>, line: &mut Line) -> Outcome {
        let turn = match self.turn(line).await {
            Ok(turn) => turn,
            Err(end) => return outcome(end, None),
        };
        let metrics = &self.room.metrics;
        let began = Instant::now();
        let (grant, granted) = watch::channel(self.open.covered);
        let mut answer = prepared.start(granted);
        let mut run = Run::new(self, grant);
        let end = run.run(&mut answer, line).await;
        drop(answer);
        drop(turn);
        let service = began.elapsed();
        metrics.service.observe(service.as_secs_f64());
        if end.status == ReceiptStatus::Complete {
            let (units, time) = run.pace();
            run.work.place.generated(units, time);
        }
        outcome(end, Some(run))
    }

    /// Waits for a slot, unless the buyer gives up or the provider stops.
    async fn turn(&mut self, line: &mut Line) -> Result<Turn, End> {
        let (room, channel) = (self.room, self.channel);
        let mut turn = std::pin::pin!(self.place.turn());
        loop {
            tokio::select! {
                biased;
                () = room.cut.cancelled() => return Err(End::failed(refusal::stopping())),
                heard = line.hear() => match heard {
                    // Not asked for; what is needed is paid.
                    Heard::Voucher(_) => {}
                    Heard::Cancel | Heard::Gone => return Err(End::cancelled()),
                },
                turn = &mut turn => {
                    let turn = turn.ok_or_else(|| End::failed(refusal::stopping()))?;
                    return payable(channel).map(|()| turn);
                }
            }
        }
    }
}

/// Ends the work once the channel closes: what was delivered is claimed while it still can be, and no more is begun.
fn payable(channel: &Channel) -> Result<(), End> {
    serving(&channel.state()).map_err(End::unpaid)
}

/// How a request ended whose work began, or did not.
fn outcome(end: End, run: Option<Run<'_>>) -> Outcome {
    let began = run.is_some();
    let (anything, delivered) = run.as_ref().map_or((false, 0), |run| (run.anything, run.delivered));
    let (hasher, ending) = run.map_or((ResponseHasher::new(), None), |run| (run.hasher, run.ending));
    Outcome {
        status: end.status,
        reason: end.reason,
        failure: end.failure,
        began,
        anything,
        delivered,
        response_hash: hasher.finish(),
        ending,
    }
}

impl<'a> Run<'a> {
    fn new(work: Work<'a>, grant: watch::Sender<u64>) -> Self {
        Self {
            work,
            grant,
            asked: None,
            paying: None,
            starved: None,
            delivered: 0,
            anything: false,
            hasher: ResponseHasher::new(),
            ending: None,
            first: None,
            last: None,
        }
    }

    /// Units after the first piece, and the time they took.
    fn pace(&self) -> (u64, Duration) {
        match (self.first, self.last) {
            (Some((first, units)), Some(last)) => (
                self.delivered.saturating_sub(units),
                last.saturating_duration_since(first),
            ),
            _ => (0, Duration::ZERO),
        }
    }

    async fn run(&mut self, answer: &mut Answer, line: &mut Line) -> End {
        let cut = self.work.room.cut.clone();
        loop {
            if let Err(Gone) = self.ask(line).await {
                return End::cancelled();
            }
            let deadline = self.starved;
            let step = tokio::select! {
                biased;
                () = cut.cancelled() => Err(End::failed(refusal::stopping())),
                heard = line.hear() => self.heard(heard).await,
                stored = stored(&mut self.paying), if self.paying.is_some() => self.paid(stored),
                piece = answer.pieces.recv() => self.piece(piece, line).await,
                () = until(deadline), if deadline.is_some() => Err(End::unpaid(Refusal::new(
                    RefusalCode::PaymentTimeout,
                    "no voucher came in time",
                ))),
            };
            if let Err(end) = step {
                return end;
            }
        }
    }

    /// Asks for the next voucher once half a chunk is left, never for more than a chunk beyond what was delivered.
    async fn ask(&mut self, line: &mut Line) -> Result<(), Gone> {
        let (chunk, covered) = (self.work.room.config.chunk, self.work.open.covered);
        let left = covered.saturating_sub(self.delivered);
        if self.asked.is_some() || covered >= self.work.max_output || left > chunk / 2 {
            return Ok(());
        }
        let target = self.delivered.saturating_add(chunk).min(self.work.max_output);
        if target <= covered {
            return Ok(());
        }
        self.asked = Some(Ask {
            covered: target,
            // Frames arrive in order: who answers this ask has everything that went out before it.
            floor: self.delivered,
        });
        let wanted = OpenRequest {
            covered: target,
            ..self.work.open
        };
        let cumulative = self.work.channel.required(&wanted);
        let frame = SellerFrame::VoucherWanted {
            output_units: target,
            cumulative,
        };
        self.starve();
        line.say(&frame).await
    }

    /// Starts the clock once everything that is paid for is delivered.
    fn starve(&mut self) {
        if self.asked.is_some() && self.delivered >= self.work.open.covered {
            let patience = self.work.room.config.payment_timeout;
            self.starved
                .get_or_insert_with(|| tokio::time::Instant::now() + patience);
        }
    }

    async fn heard(&mut self, heard: Heard) -> Result<(), End> {
        let voucher = match heard {
            Heard::Cancel | Heard::Gone => return Err(End::cancelled()),
            Heard::Voucher(voucher) => *voucher,
        };
        payable(self.work.channel)?;
        let Some(ask) = self.asked.filter(|_| self.paying.is_none()) else {
            // Nobody asked; the next ask says what is needed.
            return Ok(());
        };
        verify(self.work.channel, &voucher).map_err(End::unpaid)?;
        let open = OpenRequest {
            covered: ask.covered,
            floor: ask.floor,
            ..self.work.open
        };
        let (room, channel) = (self.work.room, self.work.channel);
        let mut attempt = channel.cover(&open, &voucher, false);
        if matches!(attempt, Err(VoucherError::Unfunded { .. })) && room.channels.top_up_seen(channel).await {
            attempt = channel.cover(&open, &voucher, false);
        }
        let commit = attempt.map_err(|complaint| End::unpaid(refusal::voucher(complaint)))?;
        self.paying = Some(Paying { commit, open });
        Ok(())
    }

    /// The voucher is stored: the engine may go on.
    fn paid(&mut self, stored: Result<(), crate::Error>) -> Result<(), End> {
        stored.map_err(|error| End::failed(refusal::internal(&error)))?;
        if let Some(paying) = self.paying.take() {
            self.work.open = paying.open;
            self.grant.send_replace(paying.open.covered);
            self.work.room.metrics.vouchers.inc();
        }
        self.asked = None;
        self.starved = None;
        Ok(())
    }

    async fn piece(&mut self, piece: Option<Result<Piece, EngineError>>, line: &mut Line) -> Result<(), End> {
        let output = match piece {
            Some(Ok(Piece::Output(output))) => output,
            Some(Ok(Piece::Finished(ending))) => {
                let end = End::complete(ending.reason);
                self.ending = Some(ending);
                return Err(end);
            }
            Some(Err(complaint)) => return Err(End::failed(refusal::engine(&complaint))),
            None => return Err(End::failed(refusal::engine(&EngineError::Failed("it died".into())))),
        };
        let units = output.units();
        let after = self.delivered.saturating_add(units);
        if after > self.work.open.covered {
            let overrun = EngineError::Failed("it gave out more than was granted".into());
            return Err(End::failed(refusal::engine(&overrun)));
        }
        if bytes(&output) > MAX_OUTPUT_FRAME - FRAME_MARGIN {
            let large = Refusal::new(
                RefusalCode::BadRequest,
                "the answer is too large to be sent, ask for less at once",
            );
            return Err(End::failed(large));
        }
        let frame = SellerFrame::Output(output);
        line.say(&frame).await.map_err(|Gone| End::cancelled())?;
        if let SellerFrame::Output(output) = &frame {
            self.hasher.update(output);
        }
        self.delivered = after;
        self.anything = true;
        let now = Instant::now();
        if self.first.is_none() {
            let waited = now.duration_since(self.work.arrived);
            self.work.room.metrics.first_output.observe(waited.as_secs_f64());
            self.first = Some((now, units));
        }
        self.last = Some(now);
        self.starve();
        Ok(())
    }
}

async fn stored(paying: &mut Option<Paying>) -> Result<(), crate::Error> {
    match paying {
        Some(paying) => paying.commit.wait().await,
        None => std::future::pending().await,
    }
}

async fn until(deadline: Option<tokio::time::Instant>) {
    match deadline {
        Some(deadline) => tokio::time::sleep_until(deadline).await,
        None => std::future::pending().await,
    }
}

/// Bytes of the values in a piece.
fn bytes(output: &Output) -> usize {
    match output {
        Output::Tokens { text, ids, logprobs } => {
            let details = logprobs
                .iter()
                .map(|one| 32 + one.bytes.len() + one.top.iter().map(|top| 16 + top.bytes.len()).sum::<usize>());
            details.fold(
                text.len().saturating_add(ids.len().saturating_mul(5)),
                usize::saturating_add,
            )
        }
        Output::ToolCall { name, arguments, .. } => name.len().saturating_add(arguments.len()),
        Output::Embedding { vector, .. } => vector.len().saturating_mul(4),
        Output::Tensors(tensors) => tensors
            .iter()
            .map(|tensor| tensor.data.len().saturating_add(tensor.name.len()))
            .fold(0, usize::saturating_add),
    }
}
