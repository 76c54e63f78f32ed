use proptest::prelude::*;

use super::*;
use crate::store::Writer;

const POSTED: Price = Price {
    input: 101,
    output: 400,
    request: 0,
};

fn key(number: u8) -> SigningKey {
    SigningKey::from_bytes(&[number; 32]).unwrap()
}

fn channel() -> ChannelParams {
    ChannelParams {
        payer: key(9).address(),
        signer: key(1).address(),
        provider: key(2).address(),
        model: ModelId([7; 32]),
        token: rialto_protocol::Address([8; 20]),
        salt: 1,
    }
}

fn bid(number: u8, units: u64) -> SignedBid {
    let bid = Bid {
        provider: key(2).address(),
        tender: Digest([number; 32]),
        buyer: key(1).address(),
        model: ModelId([7; 32]),
        price: BidPolicy::default().price(ModelId([7; 32]), POSTED).unwrap(),
        usage: Usage {
            input: units,
            output: units,
        },
        expires_at: clock::now() + 600,
    };
    bid.sign(&key(2))
}

fn usage(units: u64) -> Usage {
    Usage {
        input: units,
        output: units,
    }
}

async fn open(folder: &tempfile::TempDir) -> (Arc<Bids>, Store, Writer) {
    let (store, writer) = Store::open(&folder.path().join("provider.db")).await.unwrap();
    (Arc::new(Bids::restore(store.clone()).await.unwrap()), store, writer)
}

async fn make(bids: &Bids, store: &Store, bid: SignedBid) {
    bids.note(bid, clock::now()).unwrap();
    store.submit(vec![Write::Bid(Box::new(bid))]).durable().await.unwrap();
}

#[test]
fn a_bid_is_below_the_posted_price_and_never_below_what_it_may_cost() {
    let model = ModelId([7; 32]);
    let mut policy = BidPolicy::default();
    let half = policy.price(model, POSTED).unwrap();
    assert_eq!((half.input, half.output, half.request), (51, 200, 0));
    policy.floor.output = 300;
    policy.costs.insert(
        model,
        Price {
            input: 90,
            ..Price::default()
        },
    );
    let bound = policy.price(model, POSTED).unwrap();
    assert_eq!((bound.input, bound.output), (90, 300));
    // Where the floor is the posted price or more, there is nothing to bid.
    policy.floor = POSTED;
    assert_eq!(policy.price(model, POSTED), None);
    policy.floor.input += 1;
    assert_eq!(policy.price(model, POSTED), None);
    assert!(
        BidPolicy {
            discount: 101,
            ..BidPolicy::default()
        }
        .check()
        .is_err()
    );
}

#[tokio::test]
async fn a_bid_survives_a_restart_with_what_was_drawn_and_is_not_sold_over() {
    let folder = tempfile::tempdir().unwrap();
    let (bids, store, writer) = open(&folder).await;
    let made = bid(1, 100);
    let price = made.bid.price;
    assert!(!bids.knows(&channel(), price));
    make(&bids, &store, made).await;
    assert!(bids.knows(&channel(), price));
    assert!(!bids.knows(&channel(), POSTED), "another price was not bid");
    let stranger = ChannelParams {
        signer: key(3).address(),
        ..channel()
    };
    assert!(!bids.knows(&stranger, price), "a bid is one buyer's");
    let cut_off = bids.draw(&channel(), price, usage(60)).unwrap();
    let done = bids.draw(&channel(), price, usage(30)).unwrap();
    done.settle(usage(10));
    assert!(bids.draw(&channel(), price, usage(31)).is_err());
    store.flush().await.unwrap();
    // A crash: what the first request drew was never given back.
    std::mem::forget(cut_off);
    store.close(writer).await;

    let (bids, store, _writer) = open(&folder).await;
    assert!(bids.knows(&channel(), price));
    let refused = bids.draw(&channel(), price, usage(31)).unwrap_err();
    assert_eq!(refused.code, RefusalCode::PriceChanged);
    let rest = bids.draw(&channel(), price, usage(30)).unwrap();
    drop(rest);
    assert!(
        bids.draw(&channel(), price, usage(30)).is_ok(),
        "what was not used is there again"
    );
    store.flush().await.unwrap();
}

#[tokio::test]
async fn the_same_tender_gets_the_same_bid_and_bids_are_bounded() {
    let folder = tempfile::tempdir().unwrap();
    let (bids, _store, _writer) = open(&folder).await;
    let now = clock::now();
    assert!(bids.note(bid(1, 10), now).unwrap().1);
    let (again, new) = bids.note(bid(1, 99), now).unwrap();
    assert!(!new && again.bid.usage == usage(10), "what was promised first counts");
    for number in 2..=u8::try_from(MAX_OF_BUYER).unwrap() {
        assert!(bids.note(bid(number, 10), now).unwrap().1);
    }
    assert_eq!(bids.note(bid(200, 10), now).unwrap_err().code, RefusalCode::Busy);
    // Once they have expired, there is room again.
    assert!(bids.note(bid(200, 10), now + 10_000).unwrap().1);
    let (peer, start) = (NodeKey([1; 32]), Instant::now());
    assert!((0..OF_PEER).all(|_| bids.admit(peer, start)) && !bids.admit(peer, start));
    assert!(bids.admit(NodeKey([2; 32]), start) && bids.admit(peer, start + WINDOW));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]

    /// However requests come and go, no more is served at a bid's price than was bid.
    #[test]
    fn what_is_used_never_exceeds_the_bid(steps in prop::collection::vec((1u64..40, 0u64..40, any::<bool>()), 1..60)) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let folder = tempfile::tempdir().unwrap();
            let (bids, store, _writer) = open(&folder).await;
            let made = bid(1, 100);
            make(&bids, &store, made).await;
            let (mut open, mut used) = (Vec::new(), 0);
            for (wanted, needed, end) in steps {
                if let Ok(drawn) = bids.draw(&channel(), made.bid.price, usage(wanted)) {
                    open.push((drawn, needed.min(wanted)));
                }
                if end && let Some((drawn, needed)) = open.pop() {
                    used += needed;
                    drawn.settle(usage(needed));
                }
                let reserved: u64 = open.iter().map(|(drawn, _)| drawn.reserved.output).sum();
                assert!(used + reserved <= 100);
            }
            drop(open);
            store.flush().await.unwrap();
            let kept = store.bids(clock::now()).await.unwrap();
            assert_eq!(kept[0].1, usage(used), "the store counts what was used");
        });
    }
}
