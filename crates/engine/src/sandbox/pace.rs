//! A generation across the border: the grant is passed on, but never far beyond what the reader has taken, so that a slow
//! reader pauses its own generation and nothing piles up on this side.

use std::sync::Arc;

use tokio::sync::{mpsc, watch};

use super::link::{Link, Waiting};
use crate::{Answer, Error, Piece, border::ToWorker};

/// Units of output that may be on their way.
const WINDOW: u64 = 256;

/// Pieces that may be on their way: a piece can be without units.
const PIECES: usize = 1_024;

/// Pieces that may wait for a slow reader.
const READER: usize = 64;

struct Pacing {
    link: Arc<Link>,
    id: u64,
    pieces: mpsc::Receiver<Result<Piece, Error>>,
    reader: mpsc::Sender<Result<Piece, Error>>,
    paid: watch::Receiver<u64>,
    /// Whether more can be paid for.
    paying: bool,
    /// Units that the worker may give out.
    granted: u64,
    /// Units that the reader was given.
    delivered: u64,
    max_output: u64,
}

pub(super) fn start(link: Arc<Link>, id: u64, max_output: u64, paid: watch::Receiver<u64>) -> Answer {
    let (sender, pieces) = mpsc::channel(PIECES);
    let (reader, answer) = mpsc::channel(READER);
    let granted = (*paid.borrow()).min(WINDOW);
    link.begin_prepared(id, Waiting::Paced(sender));
    link.send(&ToWorker::Start { id, grant: granted });
    let pacing = Pacing {
        link,
        id,
        pieces,
        reader,
        paid,
        paying: true,
        granted,
        delivered: 0,
        max_output,
    };
    tokio::spawn(pacing.run());
    Answer::new(answer)
}

impl Pacing {
    async fn run(mut self) {
        loop {
            tokio::select! {
                biased;
                () = self.reader.closed() => return self.link.forget(self.id),
                piece = self.pieces.recv() => if self.pass_on(piece).await { return },
                changed = self.paid.changed(), if self.paying => if changed.is_err() {
                    self.paying = false;
                    self.link.send(&ToWorker::Settle { id: self.id });
                },
            }
            self.grant();
        }
    }

    /// Gives a piece to the reader. Says whether it was the last.
    async fn pass_on(&mut self, piece: Option<Result<Piece, Error>>) -> bool {
        let piece = piece.unwrap_or_else(|| Err(Error::Failed("its worker died".to_owned())));
        let units = match &piece {
            Ok(Piece::Output(output)) => output.units(),
            _ => 0,
        };
        let last = !matches!(piece, Ok(Piece::Output(_)));
        if self.reader.send(piece).await.is_err() {
            self.link.forget(self.id);
            return true;
        }
        self.delivered = self.delivered.saturating_add(units);
        last
    }

    /// Passes the grant on when there is something new that is worth a frame.
    fn grant(&mut self) {
        let paid = (*self.paid.borrow_and_update()).min(self.max_output);
        let target = paid.min(self.delivered.saturating_add(WINDOW));
        let all = target == paid && target > self.granted;
        if all || target >= self.granted.saturating_add(WINDOW / 4) {
            self.granted = target;
            self.link.send(&ToWorker::Grant {
                id: self.id,
                grant: target,
            });
        }
    }
}
