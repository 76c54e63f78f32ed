//! The line to one buyer: sending with a limit to how slow it may read, while listening for vouchers and a cancel.

use std::{collections::VecDeque, pin::pin, time::Duration};

use rialto_network::{Error as NetworkError, FrameReceiver, FrameSender, Trade};
use rialto_protocol::{
    SignedVoucher,
    wire::{BuyerFrame, SellerFrame, TradeRequest},
};

/// Vouchers that may wait to be looked at; the stream is not read further until one is.
const MAX_WAITING: usize = 4;

/// The buyer went away, broke the protocol, or read too slowly.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Gone;

/// What a buyer says during a trade.
#[derive(Debug)]
pub(crate) enum Heard {
    /// Pays for more.
    Voucher(Box<SignedVoucher>),
    /// Stop.
    Cancel,
    /// It will say no more. A buyer keeps its side of the stream open until the receipt came.
    Gone,
}

/// The line to one buyer.
#[derive(Debug)]
pub(crate) struct Line {
    sender: FrameSender<SellerFrame>,
    ear: Ear,
    stall: Duration,
}

#[derive(Debug)]
struct Ear {
    receiver: FrameReceiver<BuyerFrame>,
    waiting: VecDeque<Box<SignedVoucher>>,
    cancelled: bool,
    gone: bool,
}

impl Ear {
    fn may_listen(&self) -> bool {
        !self.gone && self.waiting.len() < MAX_WAITING
    }

    fn note(&mut self, frame: Result<Option<BuyerFrame>, NetworkError>) {
        match frame {
            Ok(Some(BuyerFrame::Voucher(voucher))) => self.waiting.push_back(Box::new(voucher)),
            Ok(Some(BuyerFrame::Cancel)) => self.cancelled = true,
            Ok(Some(BuyerFrame::Request(_)) | None) | Err(_) => self.gone = true,
        }
    }
}

impl Line {
    /// A line over a trade's stream; a frame must be taken by the buyer within `stall`.
    pub(crate) fn new(trade: Trade<SellerFrame, BuyerFrame>, stall: Duration) -> Self {
        let (sender, receiver) = trade.split();
        Self {
            sender,
            ear: Ear {
                receiver,
                waiting: VecDeque::new(),
                cancelled: false,
                gone: false,
            },
            stall,
        }
    }

    /// The first frame, which must be a request and come in time.
    pub(crate) async fn request(&mut self, patience: Duration) -> Result<Box<TradeRequest>, Gone> {
        match tokio::time::timeout(patience, self.ear.receiver.next()).await {
            Ok(Ok(Some(BuyerFrame::Request(request)))) => Ok(request),
            _ => Err(Gone),
        }
    }

    /// The next thing that the buyer says. May be given up and begun again; a cancel and the end are told every time.
    pub(crate) async fn hear(&mut self) -> Heard {
        loop {
            if self.ear.gone {
                return Heard::Gone;
            }
            if self.ear.cancelled {
                return Heard::Cancel;
            }
            if let Some(voucher) = self.ear.waiting.pop_front() {
                return Heard::Voucher(voucher);
            }
            let frame = self.ear.receiver.next().await;
            self.ear.note(frame);
        }
    }

    /// Sends a frame, and goes on listening while the buyer is slow to take it. After [`Gone`] nothing more can be said.
    pub(crate) async fn say(&mut self, frame: &SellerFrame) -> Result<(), Gone> {
        let mut send = pin!(self.sender.send(frame));
        let mut stalled = pin!(tokio::time::sleep(self.stall));
        let sent = loop {
            let listening = self.ear.may_listen();
            tokio::select! {
                biased;
                sent = &mut send => break sent.is_ok(),
                () = &mut stalled => break false,
                frame = self.ear.receiver.next(), if listening => self.ear.note(frame),
            }
        };
        self.ear.gone |= !sent;
        sent.then_some(()).ok_or(Gone)
    }

    /// Says a last frame and ends the stream cleanly.
    pub(crate) async fn end(mut self, last: &SellerFrame) {
        match self.say(last).await {
            Ok(()) => self.sender.finish().await,
            Err(Gone) => self.sender.abort(),
        }
    }

    /// Breaks the stream off.
    pub(crate) fn hang_up(self) {
        self.sender.abort();
    }
}
