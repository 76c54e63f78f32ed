//! The seller's ledger of one channel.

use std::collections::{BTreeMap, VecDeque};

use crate::{
    ChannelId, ChannelParams, Digest, MicroDollars, ModelId, NanoDollars, Receipt, ReceiptStatus, ReceiptsHead, Region,
    RequestId, SignedVoucher, Usage, claim::Claim, money::TooLarge,
};

/// Heads that a voucher may still name: receipts and vouchers cross on the wire.
const RECENT_HEADS: usize = 256;

/// Why a voucher does not pay for the work it came with. Nothing was changed and no work was done.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum VoucherError {
    /// It is drawn on another channel.
    #[error("the voucher is for another channel")]
    OtherChannel,
    /// Its total does not cover what was done and what was asked for.
    #[error("the voucher is over {offered}, and {needed} is needed")]
    TooLow {
        /// The total that would do.
        needed: MicroDollars,
        /// The total that was offered.
        offered: MicroDollars,
    },
    /// Its total, or the total needed, is more than the channel holds.
    #[error("{needed} is needed, and the channel holds {funded}")]
    Unfunded {
        /// The total needed.
        needed: MicroDollars,
        /// What the channel holds.
        funded: MicroDollars,
    },
    /// It acknowledges receipts that were never written.
    #[error("the voucher names an unknown receipts head")]
    UnknownHead,
    /// The amounts do not fit a channel.
    #[error(transparent)]
    TooLarge(#[from] TooLarge),
}

/// What a receipt says beyond the account's own numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Settlement {
    /// The request.
    pub request: RequestId,
    /// Units billed.
    pub usage: Usage,
    /// What they cost.
    pub cost: NanoDollars,
    /// [`crate::job::Job::hash`].
    pub request_hash: Digest,
    /// Hash of what was delivered.
    pub response_hash: Digest,
    /// How it ended.
    pub status: ReceiptStatus,
    /// Seconds since 1970.
    pub finished_at: u64,
    /// Where it ran.
    pub region: Region,
    /// Millijoules, zero if unknown.
    pub energy_millijoules: u64,
    /// Root of the fingerprint, zero if none.
    pub fingerprint_root: Digest,
}

/// The seller's ledger of one channel.
#[derive(Debug, Clone)]
pub struct SellerAccount {
    params: ChannelParams,
    id: ChannelId,
    funded: MicroDollars,
    best: Option<SignedVoucher>,
    earned: NanoDollars,
    sequence: u64,
    head: ReceiptsHead,
    recent: VecDeque<ReceiptsHead>,
    reserved: BTreeMap<RequestId, NanoDollars>,
}

impl SellerAccount {
    /// A channel on which nothing happened yet.
    pub fn new(params: ChannelParams, funded: MicroDollars) -> Self {
        Self {
            id: params.id(),
            params,
            funded,
            best: None,
            earned: NanoDollars::ZERO,
            sequence: 0,
            head: ReceiptsHead::default(),
            recent: VecDeque::from([ReceiptsHead::default()]),
            reserved: BTreeMap::new(),
        }
    }

    /// The channel as a store kept it: the best voucher and the latest receipts, oldest first.
    #[must_use]
    pub fn restore(mut self, best: Option<SignedVoucher>, receipts: &[Receipt]) -> Self {
        self.best = best;
        for receipt in receipts {
            self.advance(receipt);
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

    /// The best voucher so far.
    pub fn best(&self) -> Option<&SignedVoucher> {
        self.best.as_ref()
    }

    /// What all receipts add up to.
    pub fn earned(&self) -> NanoDollars {
        self.earned
    }

    /// Receipts written, and the head after them.
    pub fn position(&self) -> (u64, ReceiptsHead) {
        (self.sequence, self.head)
    }

    /// The model that the channel buys.
    pub fn model(&self) -> ModelId {
        self.params.model
    }

    /// What the channel holds, as last seen on chain.
    pub fn funded(&self) -> MicroDollars {
        self.funded
    }

    /// Notes a top-up seen on chain. The contract never lowers this.
    pub fn set_funded(&mut self, funded: MicroDollars) {
        self.funded = self.funded.max(funded);
    }

    /// Takes the chain's word after a reorganisation, which may have dropped a top-up or the channel itself. Receipts
    /// and vouchers stay: what they are about may come back.
    pub fn correct_funded(&mut self, funded: MicroDollars) {
        self.funded = funded;
    }

    /// Requests that hold a reservation.
    pub fn active(&self) -> usize {
        self.reserved.len()
    }

    /// Whether this request holds a reservation.
    pub fn is_active(&self, request: &RequestId) -> bool {
        self.reserved.contains_key(request)
    }

    /// The total a voucher must reach for this request to be covered up to `reservation`.
    pub fn required(&self, request: &RequestId, reservation: NanoDollars) -> Result<MicroDollars, TooLarge> {
        let others = self
            .reserved
            .iter()
            .filter(|(id, _)| *id != request)
            .map(|(_, amount)| *amount);
        others.fold(self.earned.plus(reservation), NanoDollars::plus).round_up()
    }

    /// Reserves up to `reservation` in all for a request, on the strength of a voucher whose signature was verified.
    ///
    /// Returns whether the voucher is the best so far; the caller stores it before it releases the work.
    pub fn reserve(
        &mut self,
        request: RequestId,
        reservation: NanoDollars,
        voucher: &SignedVoucher,
    ) -> Result<bool, VoucherError> {
        let acknowledged = self.acknowledges(voucher);
        self.reserve_if(request, reservation, voucher, acknowledged)
    }

    /// As [`Self::reserve`], for a voucher that waited after [`Self::acknowledges`] was true of it: more receipts may have
    /// been written since than are remembered.
    pub fn reserve_acknowledged(
        &mut self,
        request: RequestId,
        reservation: NanoDollars,
        voucher: &SignedVoucher,
    ) -> Result<bool, VoucherError> {
        self.reserve_if(request, reservation, voucher, true)
    }

    /// Whether a voucher names the head after one of the latest receipts.
    pub fn acknowledges(&self, voucher: &SignedVoucher) -> bool {
        self.recent.contains(&voucher.voucher.receipts_head)
    }

    fn reserve_if(
        &mut self,
        request: RequestId,
        reservation: NanoDollars,
        voucher: &SignedVoucher,
        acknowledged: bool,
    ) -> Result<bool, VoucherError> {
        let offered = voucher.voucher.cumulative;
        if voucher.voucher.channel != self.id {
            return Err(VoucherError::OtherChannel);
        }
        let needed = self.required(&request, reservation)?;
        if needed.max(offered) > self.funded {
            return Err(VoucherError::Unfunded {
                needed: needed.max(offered),
                funded: self.funded,
            });
        }
        if offered < needed {
            return Err(VoucherError::TooLow { needed, offered });
        }
        if !acknowledged {
            return Err(VoucherError::UnknownHead);
        }
        self.reserved.insert(request, reservation);
        let better = self.best.as_ref().is_none_or(|best| offered >= best.voucher.cumulative);
        if better {
            self.best = Some(*voucher);
        }
        Ok(better)
    }

    /// Gives a reservation back without a receipt: the request was refused before it cost anything.
    pub fn release(&mut self, request: &RequestId) {
        self.reserved.remove(request);
    }

    /// Writes the next receipt, to be signed and stored; frees what the request had reserved beyond its cost.
    ///
    /// The cost is clamped to what the best voucher leaves, so that receipts never add up to more than was signed.
    pub fn settle(&mut self, settlement: Settlement) -> Receipt {
        self.reserved.remove(&settlement.request);
        let signed = self
            .best
            .as_ref()
            .map_or(MicroDollars::ZERO, |best| best.voucher.cumulative)
            .to_nano();
        let cost = NanoDollars(settlement.cost.0.min(signed.saturating_sub(self.earned).0));
        let receipt = Receipt {
            channel: self.id,
            sequence: self.sequence.saturating_add(1),
            request: settlement.request,
            model: self.params.model,
            request_hash: settlement.request_hash,
            response_hash: settlement.response_hash,
            usage: settlement.usage,
            cost,
            total: self.earned.plus(cost),
            status: settlement.status,
            finished_at: settlement.finished_at,
            region: settlement.region,
            energy_millijoules: settlement.energy_millijoules,
            fingerprint_root: settlement.fingerprint_root,
            previous_head: self.head,
        };
        self.advance(&receipt);
        receipt
    }

    fn advance(&mut self, receipt: &Receipt) {
        self.sequence = receipt.sequence;
        self.earned = receipt.total;
        self.head = receipt.head();
        self.recent.push_back(self.head);
        if self.recent.len() > RECENT_HEADS {
            self.recent.pop_front();
        }
    }

    /// What can be claimed on chain now: what the receipts add up to, never more than was signed.
    pub fn claim(&self) -> Option<Claim> {
        let voucher = *self.best.as_ref()?;
        let amount = self.earned.round_up().ok()?.min(voucher.voucher.cumulative);
        (amount > MicroDollars::ZERO).then_some(Claim {
            channel: self.params,
            voucher,
            amount,
        })
    }
}
