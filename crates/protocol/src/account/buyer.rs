//! The buyer's ledger of one channel.

use std::collections::BTreeMap;

use super::{Interruption, MAX_INTERRUPTIONS, Statement};
use crate::{
    ChannelId, ChannelParams, Digest, Domain, MicroDollars, NanoDollars, Price, Receipt, ReceiptStatus, ReceiptsHead,
    RequestId, SignedReceipt, SignedVoucher, SigningKey, Usage, Voucher, money::TooLarge, signature::SignatureError,
};

/// The channel cannot pay for what was asked: top it up, or use another.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{needed} is needed, and the channel holds {funded}")]
pub struct Exhausted {
    /// The total that the channel would have to hold.
    pub needed: MicroDollars,
    /// What it holds.
    pub funded: MicroDollars,
}

/// What the buyer itself saw of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Observed {
    /// The price agreed on.
    pub price: Price,
    /// The hash of the job that was sent.
    pub request_hash: Digest,
    /// Units that arrived; for input, an upper bound.
    pub usage: Usage,
    /// The hash of what arrived; `None` when the answer was cut off and the tail may not have arrived.
    pub response_hash: Option<Digest>,
}

/// A receipt that does not agree with what arrived. The provider deserves distrust.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum BillError {
    /// Not signed by the channel's provider.
    #[error("the receipt is not signed by the provider")]
    Signature(#[from] SignatureError),
    /// For another channel, model, job or answer.
    #[error("the receipt is about something else: {0}")]
    Mismatch(&'static str),
    /// More units than arrived.
    #[error("billed {billed} units of {side}, and {received} arrived")]
    Inflated {
        /// `input` or `output`.
        side: &'static str,
        /// Units on the receipt.
        billed: u64,
        /// Units that arrived.
        received: u64,
    },
    /// The cost is not units times price.
    #[error("billed {billed}, and the units cost {computed}")]
    Arithmetic {
        /// The receipt's cost.
        billed: NanoDollars,
        /// Units times the agreed price.
        computed: NanoDollars,
    },
    /// The running total is not the sum of the receipts, or is more than was signed.
    #[error("the receipt's total does not follow from the ones before")]
    Total,
}

/// The buyer's ledger of one channel.
#[derive(Debug, Clone)]
pub struct BuyerAccount {
    params: ChannelParams,
    id: ChannelId,
    funded: MicroDollars,
    signed: MicroDollars,
    spent: NanoDollars,
    sequence: u64,
    head: ReceiptsHead,
    ahead: BTreeMap<u64, Receipt>,
    reserved: BTreeMap<RequestId, NanoDollars>,
    interrupted: BTreeMap<RequestId, (Usage, NanoDollars)>,
}

impl BuyerAccount {
    /// A channel on which nothing happened yet.
    pub fn new(params: ChannelParams, funded: MicroDollars) -> Self {
        Self {
            id: params.id(),
            params,
            funded,
            signed: MicroDollars::ZERO,
            spent: NanoDollars::ZERO,
            sequence: 0,
            head: ReceiptsHead::default(),
            ahead: BTreeMap::new(),
            reserved: BTreeMap::new(),
            interrupted: BTreeMap::new(),
        }
    }

    /// The channel as a store kept it: the highest total ever signed, the receipts in order of their numbers, and the
    /// requests that ended without one.
    #[must_use]
    pub fn restore(
        mut self,
        signed: MicroDollars,
        receipts: &[Receipt],
        interrupted: &[(Interruption, NanoDollars)],
    ) -> Self {
        self.signed = signed;
        for receipt in receipts {
            self.ahead.insert(receipt.sequence, *receipt);
        }
        self.catch_up();
        for (interruption, cost) in interrupted {
            self.interrupted
                .insert(interruption.request, (interruption.usage, *cost));
        }
        self
    }

    /// What the channel's id is made of.
    pub fn params(&self) -> &ChannelParams {
        &self.params
    }

    /// The channel's id.
    pub fn id(&self) -> ChannelId {
        self.id
    }

    /// What the channel holds.
    pub fn funded(&self) -> MicroDollars {
        self.funded
    }

    /// Notes a top-up.
    pub fn set_funded(&mut self, funded: MicroDollars) {
        self.funded = self.funded.max(funded);
    }

    /// What all receipts add up to, without those after a gap.
    pub fn spent(&self) -> NanoDollars {
        self.spent
    }

    /// The highest total ever signed: the most that the provider could take.
    pub fn signed(&self) -> MicroDollars {
        self.signed
    }

    /// Receipts received without a gap, and the head after them.
    pub fn position(&self) -> (u64, ReceiptsHead) {
        (self.sequence, self.head)
    }

    /// Requests that hold a reservation.
    pub fn active(&self) -> usize {
        self.reserved.len()
    }

    /// The total that is spent or spoken for.
    fn committed(&self) -> NanoDollars {
        let ahead = self.ahead.values().map(|receipt| receipt.cost);
        let interrupted = self.interrupted.values().map(|(_, cost)| *cost);
        self.reserved
            .values()
            .copied()
            .chain(ahead)
            .chain(interrupted)
            .fold(self.spent, NanoDollars::plus)
    }

    /// What is neither spent nor spoken for.
    pub fn free(&self) -> NanoDollars {
        self.funded.to_nano().saturating_sub(self.committed())
    }

    /// Reserves up to `reservation` in all for a request and makes the voucher that covers it.
    ///
    /// The caller stores the voucher's total before it sends it. On an error nothing has changed.
    pub fn reserve(&mut self, request: RequestId, reservation: NanoDollars) -> Result<Voucher, Exhausted> {
        let before = self.reserved.insert(request, reservation);
        let needed = self
            .committed()
            .round_up()
            .unwrap_or(MicroDollars::MAX)
            .max(self.signed);
        if needed > self.funded {
            match before {
                Some(amount) => self.reserved.insert(request, amount),
                None => self.reserved.remove(&request),
            };
            return Err(Exhausted {
                needed,
                funded: self.funded,
            });
        }
        self.signed = needed;
        Ok(Voucher {
            channel: self.id,
            cumulative: needed,
            receipts_head: self.head,
        })
    }

    /// Signs a voucher of this channel.
    pub fn sign(&self, voucher: Voucher, domain: &Domain, key: &SigningKey) -> SignedVoucher {
        voucher.sign(domain, key)
    }

    /// What the buyer tells the provider at the start of a request.
    pub fn statement(&self) -> Statement {
        let interrupted = self.interrupted.iter().take(MAX_INTERRUPTIONS);
        Statement {
            sequence: self.sequence,
            head: self.head,
            interrupted: interrupted
                .map(|(request, (usage, _))| Interruption {
                    request: *request,
                    usage: *usage,
                })
                .collect(),
        }
    }

    /// Whether this receipt was taken in before.
    pub fn knows(&self, sequence: u64) -> bool {
        sequence <= self.sequence || self.ahead.contains_key(&sequence)
    }

    /// Checks a receipt against what the buyer saw, and takes it in. Receipts may come out of order; one that is known
    /// already changes nothing.
    ///
    /// `observed` is `None` for a request whose record was lost in a crash: then the signature, the chain of totals and
    /// the highest total ever signed bound what it can claim.
    pub fn settle(
        &mut self,
        signed: &SignedReceipt,
        observed: Option<&Observed>,
        domain: &Domain,
    ) -> Result<(), BillError> {
        let receipt = &signed.receipt;
        signed.verify(domain, self.params.provider)?;
        if receipt.channel != self.id || receipt.model != self.params.model {
            return Err(BillError::Mismatch("channel or model"));
        }
        if let Some(observed) = observed {
            check_bill(receipt, observed)?;
        }
        let ceiling = self.signed.to_nano();
        if receipt.total > ceiling || receipt.cost > receipt.total {
            return Err(BillError::Total);
        }
        if !self.knows(receipt.sequence) {
            let follows = receipt.sequence == self.sequence + 1;
            if follows && (receipt.previous_head != self.head || receipt.total != self.spent.plus(receipt.cost)) {
                return Err(BillError::Total);
            }
            self.ahead.insert(receipt.sequence, *receipt);
            self.catch_up();
        }
        self.reserved.remove(&receipt.request);
        self.interrupted.remove(&receipt.request);
        Ok(())
    }

    /// Takes in receipts that follow each other; drops one that does not fit its predecessor.
    fn catch_up(&mut self) {
        while let Some(receipt) = self.ahead.remove(&(self.sequence + 1)) {
            let fits = receipt.previous_head == self.head && receipt.total == self.spent.plus(receipt.cost);
            if !fits {
                break;
            }
            self.sequence = receipt.sequence;
            self.spent = receipt.total;
            self.head = receipt.head();
        }
    }

    /// Notes a request that ended without a receipt. Its whole reservation stays spoken for until the provider's receipt
    /// comes, because the provider may not have noticed yet that it ended. Returns that reservation, to be stored.
    pub fn interrupt(&mut self, request: RequestId, usage: Usage) -> Option<NanoDollars> {
        let reservation = self.reserved.remove(&request)?;
        self.interrupted.insert(request, (usage, reservation));
        Some(reservation)
    }

    /// Gives a reservation back: the provider refused before it did any work.
    pub fn release(&mut self, request: &RequestId) {
        self.reserved.remove(request);
    }

    /// What the signed totals could still grow to: rounding included.
    pub fn exposure(&self) -> Result<MicroDollars, TooLarge> {
        Ok(self.signed.saturating_sub(self.spent.round_up()?))
    }
}

fn check_bill(receipt: &Receipt, observed: &Observed) -> Result<(), BillError> {
    // A provider that has no trace of an interrupted request, because it crashed before it stored one, bills nothing and
    // does not know the job's hash. Such a receipt claims nothing; it frees what was reserved.
    let nothing = receipt.usage == Usage::default() && receipt.cost == NanoDollars::ZERO;
    if nothing && receipt.status == ReceiptStatus::Interrupted {
        return Ok(());
    }
    if receipt.request_hash != observed.request_hash {
        return Err(BillError::Mismatch("request"));
    }
    if observed.response_hash.is_some_and(|hash| hash != receipt.response_hash) {
        return Err(BillError::Mismatch("response"));
    }
    let sides = [
        ("input", receipt.usage.input, observed.usage.input),
        ("output", receipt.usage.output, observed.usage.output),
    ];
    for (side, billed, received) in sides {
        if billed > received {
            return Err(BillError::Inflated { side, billed, received });
        }
    }
    let computed = observed.price.cost(receipt.usage);
    if receipt.cost > computed {
        return Err(BillError::Arithmetic {
            billed: receipt.cost,
            computed,
        });
    }
    Ok(())
}
