//! The buyer's ledger of one channel.

use std::collections::BTreeMap;

use super::{Interruption, MAX_INTERRUPTIONS, Statement};
use crate::{
    ChannelId, ChannelParams, Digest, Domain, MicroDollars, NanoDollars, Price, Receipt, ReceiptStatus, ReceiptsHead,
    RequestId, SignedReceipt, SignedVoucher, SigningKey, Usage, Voucher, money::TooLarge, signature::SignatureError,
};

/// Receipts that may be missing before one that is taken in: out of order is honest, out of all bounds is not.
const MAX_AHEAD: u64 = 4_096;

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

    /// Takes the chain's word after a reorganisation, which may have dropped a top-up or the channel itself. What was
    /// signed stays signed: the provider may have worked for it.
    pub fn correct_funded(&mut self, funded: MicroDollars) {
        self.funded = funded;
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

    /// Whether this request holds a reservation: it is under way.
    pub fn is_active(&self, request: &RequestId) -> bool {
        self.reserved.contains_key(request)
    }

    /// The total that is spent or spoken for.
    pub fn committed(&self) -> NanoDollars {
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
    /// A request is billed once: a new receipt for one that is neither under way nor interrupted is refused. `observed` is
    /// `None` for a request whose record was lost in a crash: then the signature, the chain of totals and
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
            let open = self.reserved.contains_key(&receipt.request) || self.interrupted.contains_key(&receipt.request);
            if observed.is_some() && !open {
                return Err(BillError::Mismatch("the request is settled"));
            }
            if !self.fits(receipt) {
                return Err(BillError::Total);
            }
            self.ahead.insert(receipt.sequence, *receipt);
            self.catch_up();
        }
        self.reserved.remove(&receipt.request);
        self.interrupted.remove(&receipt.request);
        Ok(())
    }

    /// Whether a new receipt agrees with the receipts next to it, as far as they are here.
    fn fits(&self, receipt: &Receipt) -> bool {
        if receipt.sequence > self.sequence.saturating_add(MAX_AHEAD) {
            return false;
        }
        let follows = |head: ReceiptsHead, total: NanoDollars, next: &Receipt| {
            next.previous_head == head && next.total == total.plus(next.cost)
        };
        let before = if receipt.sequence == self.sequence + 1 {
            Some((self.head, self.spent))
        } else {
            let neighbour = self.ahead.get(&(receipt.sequence - 1));
            neighbour.map(|one| (one.head(), one.total))
        };
        let after = self.ahead.get(&(receipt.sequence + 1));
        before.is_none_or(|(head, total)| follows(head, total, receipt))
            && after.is_none_or(|next| follows(receipt.head(), receipt.total, next))
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Address, ModelId, Region};

    const PRICE: Price = Price {
        input: 0,
        output: 1_000,
        request: 0,
    };
    const OBSERVED: Observed = Observed {
        price: PRICE,
        request_hash: Digest([4; 32]),
        usage: Usage { input: 0, output: 4 },
        response_hash: None,
    };

    fn domain() -> Domain {
        Domain {
            chain_id: 31_337,
            escrow: Address([3; 20]),
        }
    }

    fn provider() -> SigningKey {
        SigningKey::from_bytes(&[2; 32]).unwrap()
    }

    /// An account with so many requests under way.
    fn account(requests: u8) -> BuyerAccount {
        let params = ChannelParams {
            payer: Address([9; 20]),
            signer: SigningKey::from_bytes(&[1; 32]).unwrap().address(),
            provider: provider().address(),
            model: ModelId([7; 32]),
            token: Address([8; 20]),
            salt: 1,
        };
        let mut account = BuyerAccount::new(params, MicroDollars::new(1_000));
        for number in 0..requests {
            account.reserve(RequestId([number; 32]), NanoDollars(4_000)).unwrap();
        }
        account
    }

    /// A receipt over one unit that follows another.
    fn receipt(account: &BuyerAccount, request: u8, after: Option<&Receipt>) -> Receipt {
        let usage = Usage { input: 0, output: 1 };
        let cost = PRICE.cost(usage);
        Receipt {
            channel: account.id(),
            sequence: after.map_or(1, |one| one.sequence + 1),
            request: RequestId([request; 32]),
            model: account.params().model,
            request_hash: OBSERVED.request_hash,
            response_hash: Digest([5; 32]),
            usage,
            cost,
            total: after.map_or(NanoDollars::ZERO, |one| one.total).plus(cost),
            status: ReceiptStatus::Complete,
            finished_at: 1,
            region: Region::default(),
            energy_millijoules: 0,
            fingerprint_root: Digest::default(),
            previous_head: after.map(Receipt::head).unwrap_or_default(),
        }
    }

    fn settle(account: &mut BuyerAccount, receipt: &Receipt) -> Result<(), BillError> {
        account.settle(&receipt.sign(&domain(), &provider()), Some(&OBSERVED), &domain())
    }

    #[test]
    fn a_request_is_billed_once() {
        let mut account = account(2);
        let first = receipt(&account, 0, None);
        settle(&mut account, &first).unwrap();
        settle(&mut account, &first).unwrap();
        let again = receipt(&account, 0, Some(&first));
        assert!(!account.is_active(&again.request));
        assert!(matches!(settle(&mut account, &again), Err(BillError::Mismatch(_))));
        assert_eq!((account.position().0, account.spent()), (1, NanoDollars(1_000)));
        // An interrupted request still gets its bill.
        account.interrupt(RequestId([1; 32]), Usage::default()).unwrap();
        let second = receipt(&account, 1, Some(&first));
        settle(&mut account, &second).unwrap();
        assert_eq!(account.position().0, 2);
    }

    #[test]
    fn a_receipt_far_ahead_is_refused() {
        let mut account = account(1);
        let mut far = receipt(&account, 0, None);
        far.sequence = MAX_AHEAD + 1;
        assert_eq!(settle(&mut account, &far), Err(BillError::Total));
        far.sequence = u64::MAX;
        assert_eq!(settle(&mut account, &far), Err(BillError::Total));
        far.sequence = MAX_AHEAD;
        settle(&mut account, &far).unwrap();
    }

    #[test]
    fn receipts_out_of_order_must_fit_their_neighbours() {
        let mut account = account(4);
        let first = receipt(&account, 0, None);
        let second = receipt(&account, 1, Some(&first));
        let third = receipt(&account, 2, Some(&second));
        let fourth = receipt(&account, 3, Some(&third));
        settle(&mut account, &third).unwrap();
        for bogus in [
            Receipt {
                previous_head: ReceiptsHead([1; 32]),
                ..fourth
            },
            Receipt {
                total: fourth.total.plus(NanoDollars(1)),
                ..fourth
            },
            Receipt {
                finished_at: 2,
                ..second
            },
        ] {
            assert_eq!(settle(&mut account, &bogus), Err(BillError::Total));
        }
        for honest in [fourth, second, first] {
            settle(&mut account, &honest).unwrap();
        }
        assert_eq!((account.position().0, account.spent()), (4, NanoDollars(4_000)));
    }
}
