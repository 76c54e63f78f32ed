//! Random traces with crashes: whatever the ledger knew when a commit was durable, it knows after a restart, and its
//! claims never exceed what was signed.

use std::path::Path;

use proptest::prelude::*;
use rialto_protocol::{Address, ModelId, Price, Voucher};

use super::*;
use crate::store::Writer;

const PRICE: Price = Price {
    input: 333,
    output: 777,
    request: 5,
};
const FUNDED: u64 = 100;

#[derive(Debug, Clone)]
enum Step {
    Cover {
        request: u8,
        units: u8,
    },
    Settle {
        request: u8,
        units: u8,
    },
    Crash {
        declared: u8,
    },
    Redeem,
    /// A reorganisation takes back the latest redemptions, or the channel itself.
    Reorganise {
        redemptions: u8,
        dropped: bool,
    },
    /// A channel that was dropped is opened again, with what it had paid by then or nothing.
    Return,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => (0u8..4, 1u8..9).prop_map(|(request, units)| Step::Cover { request, units }),
        2 => (0u8..4, 0u8..9).prop_map(|(request, units)| Step::Settle { request, units }),
        1 => (0u8..12).prop_map(|declared| Step::Crash { declared }),
        2 => Just(Step::Redeem),
        1 => (0u8..3, any::<bool>()).prop_map(|(redemptions, dropped)| Step::Reorganise { redemptions, dropped }),
        1 => Just(Step::Return),
    ]
}

fn seller() -> Arc<Seller> {
    Arc::new(Seller {
        key: Arc::new(SigningKey::from_bytes(&[2; 32]).unwrap()),
        domain: Domain {
            chain_id: 31_337,
            escrow: Address([3; 20]),
        },
        region: Region::default(),
    })
}

fn session() -> SigningKey {
    SigningKey::from_bytes(&[1; 32]).unwrap()
}

fn params() -> ChannelParams {
    ChannelParams {
        payer: Address([9; 20]),
        signer: session().address(),
        provider: seller().key.address(),
        model: ModelId([7; 32]),
        token: Address([8; 20]),
        salt: 1,
    }
}

fn voucher(cumulative: MicroDollars, channel: &Channel) -> SignedVoucher {
    Voucher {
        channel: channel.id(),
        cumulative,
        receipts_head: channel.position().1,
    }
    .sign(&seller().domain, &session())
}

/// A channel over a real store, and what the buyer signed in all.
struct World {
    store: Store,
    writer: Writer,
    channel: Arc<Channel>,
    open: Vec<OpenRequest>,
    signed: MicroDollars,
    /// What the chain says.
    state: ChannelState,
    /// Totals redeemed before, oldest first.
    earlier: Vec<MicroDollars>,
    serial: u64,
}

/// All money is trusted.
fn seen(state: ChannelState) -> Seen {
    Seen {
        state,
        trusted: state.funded,
    }
}

async fn open(path: &Path) -> (Store, Writer) {
    Store::open(path).await.unwrap()
}

impl World {
    async fn new(path: &Path) -> Self {
        let (store, writer) = open(path).await;
        let state = ChannelState {
            funded: MicroDollars::new(FUNDED),
            ..ChannelState::default()
        };
        let first = Write::Channel {
            params: params(),
            state,
            seen: 1,
        };
        store.submit(vec![first]).durable().await.unwrap();
        Self {
            channel: Arc::new(Channel::new(params(), seen(state), store.clone(), seller())),
            state,
            earlier: Vec::new(),
            store,
            writer,
            open: Vec::new(),
            signed: MicroDollars::ZERO,
            serial: 0,
        }
    }

    fn begin(&mut self) -> OpenRequest {
        self.serial += 1;
        let mut id = [0; 32];
        id[..8].copy_from_slice(&self.serial.to_be_bytes());
        OpenRequest {
            request: RequestId(id),
            request_hash: Digest([1; 32]),
            price: PRICE,
            input: 2,
            covered: 0,
            floor: 0,
        }
    }

    async fn cover(&mut self, slot: u8, units: u8) {
        let known = self.open.get(usize::from(slot)).copied();
        let mut wanted = known.unwrap_or_else(|| self.begin());
        wanted.floor = wanted.covered;
        wanted.covered += u64::from(units);
        let total = self.channel.required(&wanted).max(self.signed);
        let signed = voucher(total, &self.channel);
        self.channel.verify(&signed).unwrap();
        match self.channel.cover(&wanted, &signed, false) {
            Ok(commit) => {
                commit.durable().await.unwrap();
                self.signed = total;
                match self.open.get_mut(usize::from(slot)) {
                    Some(open) => *open = wanted,
                    None => self.open.push(wanted),
                }
            }
            Err(error) => assert!(matches!(error, VoucherError::Unfunded { .. }), "{error}"),
        }
    }

    async fn settle(&mut self, slot: u8, units: u8) {
        if usize::from(slot) >= self.open.len() {
            return;
        }
        let open = self.open.remove(usize::from(slot));
        let usage = Usage {
            input: open.input,
            output: u64::from(units).min(open.covered),
        };
        let (signed, commit) = self.channel.settle(Bill {
            request: open.request,
            request_hash: open.request_hash,
            response_hash: Digest::default(),
            usage,
            cost: cost(&open, usage),
            status: ReceiptStatus::Complete,
            energy_millijoules: 0,
            fingerprint: Fingerprint::default(),
        });
        commit.durable().await.unwrap();
        assert_eq!(signed.receipt.cost, cost(&open, usage), "a covered cost was cut");
    }

    async fn crash(self, path: &Path, declared: u8) -> Self {
        let before = (self.channel.position(), self.channel.earned(), self.channel.claim());
        let recent = self.channel.recent_after(0);
        self.store.close(self.writer).await;
        let (store, writer) = open(path).await;
        let stored = store.channels().await.unwrap().remove(0);
        let funded = stored.state.funded;
        let channel = Arc::new(Channel::restore(stored, funded, store.clone(), seller()));
        assert_eq!((channel.position(), channel.earned(), channel.claim()), before);
        assert_eq!(channel.recent_after(0), recent);
        let declared: BTreeMap<_, _> = self
            .open
            .iter()
            .map(|open| {
                let output = u64::from(declared);
                (open.request, Usage { input: 2, output })
            })
            .collect();
        let mut expected = BTreeMap::new();
        for open in &self.open {
            assert!(channel.begin(open.request).is_none(), "an orphan was taken for new");
            let output = declared[&open.request].output.max(open.floor).min(open.covered);
            expected.insert(open.request, output);
        }
        let settled = channel.settle_orphans(&declared);
        let billed: BTreeMap<_, _> = settled
            .iter()
            .map(|signed| (signed.receipt.request, signed.receipt.usage.output))
            .collect();
        assert_eq!(billed, expected);
        store.flush().await.unwrap();
        Self {
            store,
            writer,
            channel,
            open: Vec::new(),
            ..self
        }
    }

    async fn redeem(&mut self) {
        let Some(claim) = self.channel.claim() else { return };
        assert!(self.state.is_open(), "claimed on a channel that is not there");
        assert!(claim.amount > self.state.redeemed && claim.amount <= self.signed);
        self.earlier.push(self.state.redeemed);
        self.state.redeemed = claim.amount;
        self.channel.refresh(seen(self.state)).durable().await.unwrap();
        assert!(self.channel.claim().is_none(), "the same is claimed twice");
    }

    async fn reorganise(&mut self, redemptions: u8, dropped: bool) {
        for _ in 0..redemptions {
            self.state.redeemed = self.earlier.pop().unwrap_or_default();
        }
        if dropped {
            self.state = ChannelState::default();
            self.earlier.clear();
        }
        let (position, earned) = (self.channel.position(), self.channel.earned());
        let (_, commit) = self.channel.correct(seen(self.state));
        commit.durable().await.unwrap();
        assert_eq!((self.channel.position(), self.channel.earned()), (position, earned));
        assert_eq!(self.channel.state(), self.state, "only the chain counts");
        assert!(self.state.is_open() || self.channel.claim().is_none());
    }

    async fn come_back(&mut self) {
        if self.state.is_open() {
            return;
        }
        self.state.funded = MicroDollars::new(FUNDED);
        self.channel.refresh(seen(self.state)).durable().await.unwrap();
        assert_eq!(self.channel.state(), self.state);
    }

    fn check(&self) {
        assert!(self.signed <= MicroDollars::new(FUNDED));
        assert!(self.channel.earned().round_up().unwrap() <= self.signed, "unpaid work");
    }
}

async fn run(steps: Vec<Step>) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("provider.db");
    let mut world = World::new(&path).await;
    for step in steps {
        match step {
            Step::Cover { request, units } => world.cover(request, units).await,
            Step::Settle { request, units } => world.settle(request, units).await,
            Step::Crash { declared } => world = world.crash(&path, declared).await,
            Step::Redeem => world.redeem().await,
            Step::Reorganise { redemptions, dropped } => world.reorganise(redemptions, dropped).await,
            Step::Return => world.come_back().await,
        }
        world.check();
    }
    let mut world = world.crash(&path, 0).await;
    world.come_back().await;
    world.redeem().await;
    let earned = world.channel.earned().round_up().unwrap();
    assert_eq!(
        world.state.redeemed, earned,
        "not everything that was earned can be claimed"
    );
    let (receipts, _) = world.channel.position();
    let stored = world.store.receipts_after(&params().id(), 0, 10_000).await.unwrap();
    assert_eq!(stored.len(), usize::try_from(receipts).unwrap());
    let mut head = rialto_protocol::ReceiptsHead::default();
    for signed in stored {
        assert_eq!(signed.receipt.previous_head, head, "the chain of receipts is broken");
        signed.verify(&seller().domain, params().provider).unwrap();
        head = signed.receipt.head();
    }
    world.store.close(world.writer).await;
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn a_restart_at_any_point_loses_nothing_and_pays_nothing_twice(steps in prop::collection::vec(step(), 1..40)) {
        tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap()
            .block_on(run(steps));
    }
}

#[tokio::test]
async fn a_voucher_that_was_overtaken_still_lets_its_request_in() {
    let folder = tempfile::tempdir().unwrap();
    let mut world = World::new(&folder.path().join("provider.db")).await;
    let (mut one, mut two) = (world.begin(), world.begin());
    (one.covered, two.covered) = (4, 4);
    let early = voucher(world.channel.required(&one), &world.channel);
    let late = voucher(MicroDollars::new(20), &world.channel);
    world
        .channel
        .cover(&two, &late, false)
        .unwrap()
        .durable()
        .await
        .unwrap();
    world
        .channel
        .cover(&one, &early, false)
        .unwrap()
        .durable()
        .await
        .unwrap();
    let mut three = world.begin();
    three.covered = 60;
    let low = world.channel.cover(&three, &early, false);
    assert!(matches!(low, Err(VoucherError::TooLow { .. })));
    world.store.close(world.writer).await;
}

#[tokio::test]
async fn what_a_buyer_that_stays_away_had_for_certain_is_billed_and_claimed() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("provider.db");
    let mut world = World::new(&path).await;
    world.cover(0, 4).await;
    world.cover(0, 4).await;
    world.store.close(world.writer).await;
    let (store, writer) = open(&path).await;
    let stored = store.channels().await.unwrap().remove(0);
    let funded = stored.state.funded;
    let channel = Channel::restore(stored, funded, store.clone(), seller());
    let patience = Duration::from_secs(600);
    let now = clock::now();
    assert!(channel.settle_stale_orphans(now, patience).is_empty(), "too early");

    let later = now + 1_000;
    let settled = channel.settle_stale_orphans(later, patience);
    assert_eq!(settled.len(), 1);
    let receipt = settled[0].receipt;
    assert_eq!((receipt.status, receipt.usage.output), (ReceiptStatus::Interrupted, 4));
    let pending = channel.pending(later);
    assert_eq!(pending.orphans, 0);
    assert!(pending.unclaimed > MicroDollars::ZERO && pending.age >= patience);
    assert!(channel.claim().is_some());
    assert!(channel.settle_stale_orphans(later, patience).is_empty(), "billed twice");
    store.flush().await.unwrap();
    assert_eq!(store.receipts_after(&params().id(), 0, 9).await.unwrap(), settled);
    store.close(writer).await;
}

#[tokio::test]
async fn a_close_waits_for_work_and_claims_and_a_correction_waits_once() {
    let folder = tempfile::tempdir().unwrap();
    let mut world = World::new(&folder.path().join("provider.db")).await;
    assert!(!world.channel.has_more());
    let live = world.channel.begin(RequestId([9; 32])).unwrap();
    assert!(world.channel.has_more(), "work is under way");
    drop(live);
    assert!(!world.channel.has_more());
    world.cover(0, 8).await;
    world.settle(0, 8).await;
    assert!(world.channel.has_more(), "something is to be claimed");
    let redeemed = world.channel.claim().unwrap().amount;
    drop(world.channel.note_redeemed(redeemed));
    assert!(!world.channel.has_more());

    assert!(world.channel.may_wait());
    assert!(!world.channel.may_wait(), "not twice in a row");
    drop(world.channel.correct(seen(world.state)));
    assert!(world.channel.may_wait());
    drop(world.channel.correct(seen(world.state)));
    world.channel.must_not_wait();
    assert!(!world.channel.may_wait(), "never after a reorganisation");
}
