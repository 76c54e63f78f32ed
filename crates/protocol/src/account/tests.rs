//! Both ledgers against each other and against the escrow's rules, on random traces with crashes on either side.

use proptest::prelude::*;

use super::*;
use crate::{
    Address, Digest, Domain, MicroDollars, ModelId, NanoDollars, Price, ReceiptStatus, Region, SignedReceipt,
    SignedVoucher, SigningKey, Usage,
    channel::{ChannelParams, ChannelState, Split},
};

const PRICE: Price = Price {
    input: 333,
    output: 777,
    request: 0,
};
const FUNDED: u64 = 60;

fn domain() -> Domain {
    Domain {
        chain_id: 31_337,
        escrow: Address([3; 20]),
    }
}

fn keys() -> (SigningKey, SigningKey) {
    (
        SigningKey::from_bytes(&[1; 32]).unwrap(),
        SigningKey::from_bytes(&[2; 32]).unwrap(),
    )
}

fn params() -> ChannelParams {
    let (session, provider) = keys();
    ChannelParams {
        payer: Address([9; 20]),
        signer: session.address(),
        provider: provider.address(),
        model: ModelId([7; 32]),
        token: Address([8; 20]),
        salt: 1,
    }
}

/// One step of a trace. Requests are numbered so that traces interleave.
#[derive(Debug, Clone)]
enum Step {
    Begin(u8),
    Deliver { request: u8, units: u8, arrives: bool },
    Finish { request: u8, receipt_arrives: bool },
    SellerCrashes,
    BuyerCrashes,
    Redeem,
    TopUp(u8),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        3 => (0u8..6).prop_map(Step::Begin),
        6 => (0u8..6, 0u8..5, prop::bool::weighted(0.9)).prop_map(|(request, units, arrives)| Step::Deliver { request, units, arrives }),
        3 => (0u8..6, prop::bool::weighted(0.8)).prop_map(|(request, receipt_arrives)| Step::Finish { request, receipt_arrives }),
        1 => Just(Step::SellerCrashes),
        1 => Just(Step::BuyerCrashes),
        1 => Just(Step::Redeem),
        1 => (1u8..20).prop_map(Step::TopUp),
    ]
}

/// A live request: what each side knows.
#[derive(Debug, Clone, Copy)]
struct Live {
    request: RequestId,
    delivered: u64,
    received: u64,
    covered: u64,
}

/// A channel with both ledgers, their stores, and the contract.
struct World {
    buyer: BuyerAccount,
    seller: SellerAccount,
    buyer_store: Vec<crate::Receipt>,
    buyer_signed: MicroDollars,
    seller_store: Vec<crate::Receipt>,
    seller_open: Vec<(RequestId, u64)>,
    live: Vec<Option<Live>>,
    channel: ChannelState,
    balances: [u128; 4],
    wallet: u128,
    serial: u64,
}

impl World {
    fn new() -> Self {
        let funded = MicroDollars::new(FUNDED);
        Self {
            buyer: BuyerAccount::new(params(), funded),
            seller: SellerAccount::new(params(), funded),
            buyer_store: Vec::new(),
            buyer_signed: MicroDollars::ZERO,
            seller_store: Vec::new(),
            seller_open: Vec::new(),
            live: vec![None; 6],
            channel: ChannelState {
                funded,
                ..Default::default()
            },
            balances: [0; 4],
            wallet: 1_000,
            serial: 0,
        }
    }

    fn settlement(request: RequestId, output: u64, status: ReceiptStatus) -> Settlement {
        let usage = Usage { input: 2, output };
        Settlement {
            request,
            usage,
            cost: PRICE.cost(usage),
            request_hash: Digest([4; 32]),
            response_hash: Digest([5; 32]),
            status,
            finished_at: 1,
            region: Region::default(),
            energy_millijoules: 0,
            fingerprint_root: Digest::default(),
        }
    }

    fn write_receipt(&mut self, request: RequestId, output: u64, status: ReceiptStatus) -> SignedReceipt {
        let receipt = self.seller.settle(Self::settlement(request, output, status));
        self.seller_store.push(receipt);
        self.seller_open.retain(|(open, _)| *open != request);
        receipt.sign(&domain(), &keys().1)
    }

    fn take_in(&mut self, signed: &SignedReceipt) {
        self.buyer.settle(signed, None, &domain()).unwrap();
        if !self
            .buyer_store
            .iter()
            .any(|receipt| receipt.sequence == signed.receipt.sequence)
        {
            self.buyer_store.push(signed.receipt);
        }
    }

    fn sign(&mut self, request: RequestId, covered: u64) -> Option<SignedVoucher> {
        let reservation = PRICE.cost(Usage {
            input: 2,
            output: covered,
        });
        let voucher = self.buyer.reserve(request, reservation).ok()?;
        self.buyer_signed = self.buyer.signed();
        Some(voucher.sign(&domain(), &keys().0))
    }

    /// The seller settles what its crash cut off and tells the buyer what it missed.
    fn reconcile(&mut self) {
        let statement = self.buyer.statement();
        for (request, floor) in self.seller_open.clone() {
            if self.seller.is_active(&request) {
                continue;
            }
            let said = statement
                .interrupted
                .iter()
                .find(|known| known.request == request)
                .map(|known| known.usage.output);
            self.write_receipt(request, said.unwrap_or(floor).max(floor), ReceiptStatus::Interrupted);
        }
        let missing: Vec<_> = self
            .seller_store
            .iter()
            .filter(|receipt| receipt.sequence > statement.sequence)
            .copied()
            .collect();
        for receipt in missing {
            self.take_in(&receipt.sign(&domain(), &keys().1));
        }
    }

    fn begin(&mut self, slot: u8) {
        if self.live[usize::from(slot)].is_some() {
            return;
        }
        self.reconcile();
        self.serial += 1;
        let mut id = [0; 32];
        id[..8].copy_from_slice(&self.serial.to_be_bytes());
        let request = RequestId(id);
        let Some(voucher) = self.sign(request, 4) else { return };
        let reservation = PRICE.cost(Usage { input: 2, output: 4 });
        self.seller.reserve(request, reservation, &voucher).unwrap();
        self.seller_open.push((request, 0));
        self.live[usize::from(slot)] = Some(Live {
            request,
            delivered: 0,
            received: 0,
            covered: 4,
        });
    }

    fn deliver(&mut self, slot: u8, units: u8, arrives: bool) {
        let Some(mut live) = self.live[usize::from(slot)] else {
            return;
        };
        let wanted = live.delivered + u64::from(units);
        if wanted > live.covered {
            let Some(voucher) = self.sign(live.request, wanted) else {
                return;
            };
            let reservation = PRICE.cost(Usage {
                input: 2,
                output: wanted,
            });
            self.seller.reserve(live.request, reservation, &voucher).unwrap();
            live.covered = wanted;
            let floor = live.delivered.min(live.received);
            for open in self.seller_open.iter_mut().filter(|open| open.0 == live.request) {
                open.1 = floor;
            }
        }
        live.delivered = wanted;
        if arrives {
            live.received = wanted;
        }
        self.live[usize::from(slot)] = Some(live);
    }

    fn finish(&mut self, slot: u8, receipt_arrives: bool) {
        let Some(live) = self.live[usize::from(slot)].take() else {
            return;
        };
        let signed = self.write_receipt(live.request, live.delivered, ReceiptStatus::Complete);
        if receipt_arrives {
            self.take_in(&signed);
        } else {
            self.buyer.interrupt(
                live.request,
                Usage {
                    input: 2,
                    output: live.received,
                },
            );
        }
    }

    fn seller_crashes(&mut self) {
        let best = self.seller.best().copied();
        self.seller = SellerAccount::new(params(), self.channel.funded).restore(best, &self.seller_store);
        for live in std::mem::replace(&mut self.live, vec![None; 6]).into_iter().flatten() {
            self.buyer.interrupt(
                live.request,
                Usage {
                    input: 2,
                    output: live.received,
                },
            );
        }
    }

    fn buyer_crashes(&mut self) {
        for live in std::mem::replace(&mut self.live, vec![None; 6]).into_iter().flatten() {
            self.write_receipt(live.request, live.delivered, ReceiptStatus::Cancelled);
        }
        let mut receipts = self.buyer_store.clone();
        receipts.sort_by_key(|receipt| receipt.sequence);
        self.buyer = BuyerAccount::new(params(), self.channel.funded).restore(self.buyer_signed, &receipts, &[]);
    }

    fn redeem(&mut self) {
        let Some(claim) = self.seller.claim() else { return };
        let paid = self.channel.payable(claim.amount, claim.voucher.voucher.cumulative);
        let split = Split::of(paid, 500, 100);
        self.channel.redeemed = self.channel.redeemed.checked_add(paid).unwrap();
        for (balance, part) in self.balances.iter_mut().zip([split.provider, split.royalty, split.fee]) {
            *balance += part.get();
        }
    }

    fn top_up(&mut self, amount: u8) {
        let amount = u128::from(amount).min(self.wallet);
        self.wallet -= amount;
        self.channel.funded = MicroDollars::try_from(self.channel.funded.get() + amount).unwrap();
        self.buyer.set_funded(self.channel.funded);
        self.seller.set_funded(self.channel.funded);
    }

    fn check(&self) {
        let held = self.channel.remainder().get();
        let all = self.wallet + held + self.balances.iter().sum::<u128>();
        assert_eq!(all, 1_000 + u128::from(FUNDED), "money was made or lost");
        assert!(
            self.channel.redeemed <= self.buyer_signed,
            "more was taken than was signed"
        );
        assert!(self.buyer_signed <= self.channel.funded);
        assert!(
            self.seller.earned().round_up().unwrap() <= self.buyer_signed,
            "unpaid work"
        );
    }

    fn run(&mut self, step: &Step) {
        match *step {
            Step::Begin(slot) => self.begin(slot),
            Step::Deliver {
                request,
                units,
                arrives,
            } => self.deliver(request, units, arrives),
            Step::Finish {
                request,
                receipt_arrives,
            } => self.finish(request, receipt_arrives),
            Step::SellerCrashes => self.seller_crashes(),
            Step::BuyerCrashes => self.buyer_crashes(),
            Step::Redeem => self.redeem(),
            Step::TopUp(amount) => self.top_up(amount),
        }
        self.check();
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn no_trace_of_trades_and_crashes_makes_or_loses_money(steps in prop::collection::vec(step(), 1..80)) {
        let mut world = World::new();
        for step in &steps {
            world.run(step);
        }
        world.seller_crashes();
        world.reconcile();
        prop_assert_eq!(world.buyer.spent(), world.seller.earned());
        prop_assert_eq!(world.buyer.position(), world.seller.position());
        world.redeem();
        world.check();
        let earned = world.seller.earned().round_up().unwrap();
        prop_assert_eq!(world.channel.redeemed, earned, "the provider was not paid what its receipts say");
    }
}

#[test]
fn vouchers_that_do_not_pay_are_refused_and_change_nothing() {
    let mut seller = SellerAccount::new(params(), MicroDollars::new(10));
    let request = RequestId([1; 32]);
    let voucher = |cumulative, channel, head| {
        crate::Voucher {
            channel,
            cumulative: MicroDollars::new(cumulative),
            receipts_head: head,
        }
        .sign(&domain(), &keys().0)
    };
    let (id, head) = (params().id(), ReceiptsHead::default());
    let wanted = NanoDollars(3_001);
    let other = voucher(4, crate::ChannelId([1; 32]), head);
    assert_eq!(seller.reserve(request, wanted, &other), Err(VoucherError::OtherChannel));
    let low = seller.reserve(request, wanted, &voucher(3, id, head));
    assert_eq!(
        low,
        Err(VoucherError::TooLow {
            needed: MicroDollars::new(4),
            offered: MicroDollars::new(3)
        })
    );
    let high = seller.reserve(request, wanted, &voucher(11, id, head));
    assert_eq!(
        high,
        Err(VoucherError::Unfunded {
            needed: MicroDollars::new(11),
            funded: MicroDollars::new(10)
        })
    );
    let unknown = seller.reserve(request, wanted, &voucher(4, id, ReceiptsHead([1; 32])));
    assert_eq!(unknown, Err(VoucherError::UnknownHead));
    assert_eq!((seller.active(), seller.best()), (0, None));
    assert_eq!(seller.reserve(request, wanted, &voucher(4, id, head)), Ok(true));
}

#[test]
fn an_inflated_bill_is_refused() {
    let mut world = World::new();
    world.begin(0);
    let request = world.live[0].unwrap().request;
    let observed = Observed {
        price: PRICE,
        request_hash: Digest([4; 32]),
        usage: Usage { input: 2, output: 3 },
        response_hash: Some(Digest([5; 32])),
    };
    let signed = world.write_receipt(request, 4, ReceiptStatus::Complete);
    let refused = world.buyer.settle(&signed, Some(&observed), &domain());
    assert_eq!(
        refused,
        Err(BillError::Inflated {
            side: "output",
            billed: 4,
            received: 3
        })
    );
    let forged = SignedReceipt {
        receipt: crate::Receipt {
            usage: Usage { input: 2, output: 3 },
            ..signed.receipt
        },
        ..signed
    };
    assert!(matches!(
        world.buyer.settle(&forged, Some(&observed), &domain()),
        Err(BillError::Signature(_))
    ));
}

#[test]
fn a_receipt_over_nothing_frees_a_request_that_left_no_trace() {
    let mut world = World::new();
    let request = RequestId([6; 32]);
    world.sign(request, 4).unwrap();
    world.buyer.interrupt(request, Usage::default()).unwrap();
    let nothing = Settlement {
        usage: Usage::default(),
        cost: NanoDollars::ZERO,
        request_hash: Digest::default(),
        ..World::settlement(request, 0, ReceiptStatus::Interrupted)
    };
    let observed = Observed {
        price: PRICE,
        request_hash: Digest([4; 32]),
        usage: Usage { input: 2, output: 4 },
        response_hash: None,
    };
    let complete = Settlement {
        status: ReceiptStatus::Complete,
        ..nothing
    };
    let key = keys().1;
    let other_job = world.seller.clone().settle(complete).sign(&domain(), &key);
    let refused = world.buyer.settle(&other_job, Some(&observed), &domain());
    assert_eq!(refused, Err(BillError::Mismatch("request")));
    let receipt = world.seller.settle(nothing).sign(&domain(), &key);
    world.buyer.settle(&receipt, Some(&observed), &domain()).unwrap();
    assert!(world.buyer.statement().interrupted.is_empty());
    assert_eq!(world.buyer.free(), world.buyer.funded().to_nano());
}
