//! Who takes part in a trace, and the two ledgers of each channel, which trade as provider and gateway do.

use rialto_protocol::{
    Address, ChannelParams, Digest, Domain, MicroDollars, NanoDollars, ReceiptStatus, Region, RequestId, SignedVoucher,
    SigningKey, Usage, Voucher,
    account::{BuyerAccount, SellerAccount, Settlement},
};

use crate::rng::Rng;

/// Accounts of the trace, by what they mostly do; everybody may try anything.
pub(crate) struct Parties {
    pub(crate) payers: Vec<SigningKey>,
    pub(crate) sessions: Vec<SigningKey>,
    pub(crate) providers: Vec<SigningKey>,
    /// Publishers of models, the fee's recipient, the guardian and a stranger.
    pub(crate) others: Vec<SigningKey>,
}

impl Parties {
    pub(crate) fn new(rng: &mut Rng) -> Self {
        let mut keys = |count: usize| {
            let key = |_| loop {
                if let Ok(key) = SigningKey::from_bytes(&rng.bytes()) {
                    return key;
                }
            };
            (0..count).map(key).collect::<Vec<_>>()
        };
        Self {
            payers: keys(4),
            sessions: keys(4),
            providers: keys(3),
            others: keys(5),
        }
    }

    pub(crate) fn fee_recipient(&self) -> Address {
        self.others[2].address()
    }

    pub(crate) fn guardian(&self) -> Address {
        self.others[3].address()
    }

    pub(crate) fn stranger(&self) -> Address {
        self.others[4].address()
    }

    /// Everybody who can hold money.
    pub(crate) fn accounts(&self) -> Vec<Address> {
        let keys = self
            .payers
            .iter()
            .chain(&self.sessions)
            .chain(&self.providers)
            .chain(&self.others);
        keys.map(SigningKey::address).collect()
    }

    /// The key of an account; another one's if it has none here.
    pub(crate) fn key(&self, account: Address) -> &SigningKey {
        let mut keys = self
            .payers
            .iter()
            .chain(&self.sessions)
            .chain(&self.providers)
            .chain(&self.others);
        keys.find(|key| key.address() == account).unwrap_or(&self.others[4])
    }
}

/// A channel with the ledgers of both sides.
pub(crate) struct Trade {
    pub(crate) params: ChannelParams,
    buyer: BuyerAccount,
    pub(crate) seller: SellerAccount,
    /// All that the session key signed, old and new, honest and foolish.
    pub(crate) signed: Vec<SignedVoucher>,
}

/// Vouchers that are kept of a channel.
const KEPT: usize = 24;

impl Trade {
    pub(crate) fn new(params: ChannelParams) -> Self {
        Self {
            params,
            buyer: BuyerAccount::new(params, MicroDollars::ZERO),
            seller: SellerAccount::new(params, MicroDollars::ZERO),
            signed: Vec::new(),
        }
    }

    /// Both sides see what the channel holds.
    pub(crate) fn fund(&mut self, funded: MicroDollars) {
        self.buyer.set_funded(funded);
        self.seller.set_funded(funded);
    }

    /// The highest total that the session key ever signed.
    pub(crate) fn promised(&self) -> MicroDollars {
        let all = self.signed.iter().map(|signed| signed.voucher.cumulative);
        all.max().unwrap_or_default()
    }

    /// One request, paid for: reservation, voucher, receipt. Nothing happens on a channel without money.
    pub(crate) fn request(&mut self, parties: &Parties, domain: &Domain, rng: &mut Rng) -> anyhow::Result<()> {
        let request = RequestId(rng.bytes());
        let funded = self.seller.funded().get();
        let most = u64::try_from(funded.min(50_000_000)).unwrap_or(0) * 300;
        let reservation = NanoDollars(u128::from(rng.below(most)));
        let Ok(voucher) = self.buyer.reserve(request, reservation) else {
            return Ok(());
        };
        let signed = voucher.sign(domain, parties.key(self.params.signer));
        self.keep(signed);
        self.seller.reserve(request, reservation, &signed)?;
        let cost = NanoDollars(reservation.0 * u128::from(rng.below(101)) / 100);
        let receipt = self.seller.settle(Settlement {
            request,
            usage: Usage { input: 1, output: 1 },
            cost,
            request_hash: Digest([1; 32]),
            response_hash: Digest([2; 32]),
            status: ReceiptStatus::Complete,
            finished_at: 1_700_000_000,
            region: Region::default(),
            energy_millijoules: 0,
            fingerprint_root: Digest([0; 32]),
        });
        let receipt = receipt.sign(domain, parties.key(self.params.provider));
        self.buyer.settle(&receipt, None, domain)?;
        Ok(())
    }

    /// A session key that signs whatever it is asked for.
    pub(crate) fn sign(
        &mut self,
        parties: &Parties,
        domain: &Domain,
        total: MicroDollars,
        rng: &mut Rng,
    ) -> SignedVoucher {
        let voucher = Voucher {
            channel: self.params.id(),
            cumulative: total,
            receipts_head: rialto_protocol::ReceiptsHead(rng.bytes()),
        };
        let signed = voucher.sign(domain, parties.key(self.params.signer));
        self.keep(signed);
        signed
    }

    fn keep(&mut self, signed: SignedVoucher) {
        if self.signed.len() >= KEPT {
            // Never the highest, which is what the channel may pay at most.
            let lowest = (0..self.signed.len()).min_by_key(|index| self.signed[*index].voucher.cumulative);
            lowest.map(|index| self.signed.swap_remove(index));
        }
        self.signed.push(signed);
    }
}
