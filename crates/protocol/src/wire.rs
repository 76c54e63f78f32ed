//! What travels between gateway and provider. The network room frames these; here is only what they say.
//!
//! A trade is one bidirectional stream. The buyer opens it with [`BuyerFrame::Request`]; the provider answers with
//! [`SellerFrame::Accepted`] or [`SellerFrame::Refused`], then pieces of the answer, and asks for the next voucher before it
//! works further than what is paid. It ends with [`SellerFrame::Finished`] and the receipt.

use serde::{Deserialize, Serialize};

use crate::{
    ChannelId, ChannelParams, Digest, Domain, MicroDollars, NodeKey, Price, RequestId, Signature, SignedReceipt,
    SignedVoucher,
    account::Statement,
    bounded,
    eip712::Type,
    job::Job,
    offer::Announcement,
    order::SignedOrder,
    output::{FinishReason, Output},
    tender::{SignedBid, SignedTender},
    ticket::Peer,
};

/// ALPN of the trade protocol; the number is its version.
pub const TRADE_ALPN: &[u8] = b"rialto/trade/1";

/// ALPN of the offers protocol; the number is its version.
pub const OFFERS_ALPN: &[u8] = b"rialto/offers/1";

/// Most bytes of the first frame of a trade, which holds the job.
pub const MAX_REQUEST_FRAME: usize = crate::job::MAX_INPUT_BYTES + (1 << 20);

/// Most bytes of a frame with a piece of the answer.
pub const MAX_OUTPUT_FRAME: usize = 16 << 20;

/// Most bytes of any other frame.
pub const MAX_CONTROL_FRAME: usize = 256 << 10;

/// Most receipts in one catch-up; the rest comes with the next request.
pub const MAX_CATCH_UP: usize = 256;

/// Most bytes of a text that says why something was not done.
pub const MAX_MESSAGE: usize = 1_024;

/// Most bytes of the name of a field at fault.
pub const MAX_FIELD: usize = 256;

/// From buyer to provider.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum BuyerFrame {
    /// The first frame.
    Request(Box<TradeRequest>),
    /// Pays for the next part of the answer.
    Voucher(SignedVoucher),
    /// Stop working; bill what was delivered.
    Cancel,
}

/// A request for work.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct TradeRequest {
    /// Chosen at random by the buyer.
    pub id: RequestId,
    /// The channel that pays. Its model is the model asked for.
    pub channel: ChannelParams,
    /// The price that the buyer read in an offer.
    pub price: Price,
    /// What to do.
    pub job: Job,
    /// What the buyer knows of the channel's receipts.
    pub statement: Statement,
    /// Pays for the input, as the buyer estimates it, and the first chunk.
    pub voucher: SignedVoucher,
    /// The session key's signature that the calling node may use the channel ([`delegation_digest`]): vouchers become
    /// public once they are redeemed, so that holding one proves nothing. Which node calls, the connection proves; so one
    /// signature does for all requests of a node, and a seller verifies it once.
    pub delegation: Signature,
    /// Milliseconds until the buyer wants to see something: a seller that cannot begin by then refuses at once, before
    /// any work, and says when it could.
    pub patience_ms: u64,
}

static DELEGATION: Type = Type::new("Delegation(bytes32 channelId,bytes32 node)");

/// The digest that a channel's session key signs for a node that may use the channel.
pub fn delegation_digest(domain: &Domain, channel: ChannelId, node: NodeKey) -> Digest {
    let delegation = DELEGATION.words().right(&channel.0).right(&node.0).keccak();
    domain.digest(&delegation)
}

/// From provider to buyer.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum SellerFrame {
    /// Work will begin as soon as a voucher covers it.
    Accepted {
        /// Units of input, counted by the model's own tokenizer.
        input_units: u64,
        /// Receipts that the buyer does not have yet, oldest first.
        #[serde(deserialize_with = "bounded::list::<_, _, MAX_CATCH_UP>")]
        catch_up: Vec<SignedReceipt>,
    },
    /// No work was done and nothing is owed.
    Refused(Refusal),
    /// A voucher is needed that covers the input and this many units of output.
    VoucherWanted {
        /// Units of output in all. Never more than a chunk beyond what was delivered.
        output_units: u64,
        /// The channel's total that the provider counts; informative, the buyer counts for itself.
        cumulative: MicroDollars,
    },
    /// The next piece of the answer.
    Output(Output),
    /// The end.
    Finished {
        /// Why.
        reason: FinishReason,
        /// The bill.
        receipt: Box<SignedReceipt>,
        /// What went wrong, when the receipt's status is `Failed`.
        failure: Option<Refusal>,
    },
}

/// Why work was not done. Codes are stable and listed in `docs/status-codes.md`.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error, Serialize, Deserialize)]
#[error("{code:?}: {message}")]
pub struct Refusal {
    /// The reason, for programs.
    pub code: RefusalCode,
    /// The reason, for people. At most [`MAX_MESSAGE`] bytes; never a secret.
    #[serde(deserialize_with = "bounded::text::<_, MAX_MESSAGE>")]
    pub message: String,
    /// The field at fault in a bad request, as the public APIs spell it; at most [`MAX_FIELD`] bytes.
    #[serde(deserialize_with = "bounded::maybe_text::<_, MAX_FIELD>")]
    pub field: Option<String>,
    /// An honest estimate of when to try again, in milliseconds.
    pub retry_after_ms: Option<u64>,
}

/// Reasons for a refusal.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RefusalCode {
    /// The queue is full: try again, or elsewhere.
    Busy,
    /// The provider does not sell this model now.
    UnknownModel,
    /// The job is malformed, or the model cannot do it: the client's fault.
    BadRequest,
    /// Prompt and answer do not fit the model's context: the client's fault.
    ContextExceeded,
    /// The price was raised: read the new offer.
    PriceChanged,
    /// The channel is not open on chain, closing, or not this provider's.
    UnknownChannel,
    /// The voucher does not pay: wrong signer, channel, head, or total.
    BadVoucher,
    /// The channel does not hold enough: top it up.
    ChannelExhausted,
    /// The buyer did not send a voucher in time.
    PaymentTimeout,
    /// The engine failed: try elsewhere.
    EngineFailed,
    /// The provider is stopping.
    ShuttingDown,
}

impl Refusal {
    /// A refusal with a message for people, of which what is too long is cut off.
    pub fn new(code: RefusalCode, message: impl Into<String>) -> Self {
        Self {
            code,
            message: bounded::cut(message.into(), MAX_MESSAGE),
            field: None,
            retry_after_ms: None,
        }
    }

    /// Names the field at fault.
    #[must_use]
    pub fn with_field(mut self, field: impl Into<String>) -> Self {
        self.field = Some(bounded::cut(field.into(), MAX_FIELD));
        self
    }

    /// Says when to try again.
    #[must_use]
    pub fn with_retry_after(mut self, milliseconds: u64) -> Self {
        self.retry_after_ms = Some(milliseconds);
        self
    }
}

/// A request of the offers protocol; one stream each.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum OffersRequest {
    /// Put these into your book.
    Announce(#[serde(deserialize_with = "bounded::list::<_, _, MAX_ANNOUNCEMENTS>")] Vec<Announcement>),
    /// Tell me what is in your book.
    Browse,
    /// I want to trade with you and have no coin for gas: send this order of mine.
    Relay(Box<SignedOrder>),
    /// Work that can wait: at what price would you do it?
    Tender(Box<SignedTender>),
    /// I am here: whom do you know?
    Greet(Box<Greeting>),
    /// As [`Self::Relay`], of an order that opens a channel with you, and let me use the channel before that is in a block.
    Begin(Box<SignedOrder>),
}

/// How a node makes itself known to another.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Greeting {
    /// The market that it is a part of.
    pub market: Domain,
    /// Where it says that it can be dialled.
    pub own: Peer,
}

/// The answer of the offers protocol.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum OffersResponse {
    /// How many of the announced offers were taken, and why the first of the others was not.
    Noted {
        /// Taken.
        accepted: u32,
        /// The first complaint.
        #[serde(deserialize_with = "bounded::maybe_text::<_, MAX_MESSAGE>")]
        complaint: Option<String>,
    },
    /// The live offers.
    Book(#[serde(deserialize_with = "bounded::list::<_, _, MAX_ANNOUNCEMENTS>")] Vec<Announcement>),
    /// The order was sent, and its transaction is in a block. Whoever asked looks for itself whether that is true.
    Relayed {
        /// The transaction's hash.
        transaction: Digest,
    },
    /// The order was not sent.
    NotRelayed(Refusal),
    /// The work of a tender is done at this price.
    Bid(Box<SignedBid>),
    /// No bid is made: this node does not want the work now, or sells nothing.
    NoBid(Refusal),
    /// Welcome.
    Greeted {
        /// Whether this node keeps a book, and wants to be told of offers.
        listens: bool,
        /// Nodes that answered it lately; at most [`MAX_CONTACTS`] are read.
        #[serde(deserialize_with = "bounded::list::<_, _, MAX_CONTACTS>")]
        contacts: Vec<Peer>,
    },
    /// The order is being sent, and its channel may be used at once.
    Begun {
        /// Vouchers up to so much count before the chain knows the channel.
        credit: MicroDollars,
    },
}

/// Most nodes that are named in the answer to a greeting.
pub const MAX_CONTACTS: usize = 16;

/// Most announcements in one frame of the offers protocol.
pub const MAX_ANNOUNCEMENTS: usize = 256;
