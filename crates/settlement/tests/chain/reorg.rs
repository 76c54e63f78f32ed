//! Chains that change their mind: a trail notices, and a mirror of the escrow's books ends up as the escrow itself.

#![expect(clippy::unwrap_used, reason = "a test ends where it cannot go on")]

use std::collections::BTreeSet;

use crate::anvil::{Anvil, CHALLENGE, FEE_BPS, Market, ROYALTY_BPS, usd};
use proptest::{
    prelude::*,
    strategy::ValueTree,
    test_runner::{Config, TestRunner},
};
use rialto_protocol::{Address, ChannelParams, ReceiptsHead, Voucher, claim::Claim};
use rialto_settlement::{Chain, EventKind, Mirror, Step, Trail, Wallet};
use serde_json::json;

/// Something that somebody does in the market, by numbers.
#[derive(Debug, Clone, Copy)]
enum Act {
    Deposit(u64),
    Open {
        salt: u8,
        amount: u64,
        from_balance: bool,
    },
    TopUp {
        salt: u8,
        amount: u64,
    },
    Redeem {
        salt: u8,
        total: u64,
    },
    RequestClose(u8),
    CancelClose(u8),
    CloseByProvider(u8),
    Finalize(u8),
    Withdraw(u64),
    ClaimCredit,
    ClaimFees,
    /// So many blocks are replaced by as many empty ones.
    Reorganise(u64),
    /// So many blocks are replaced by fewer, and others come after them.
    Shorten(u64),
}

fn act() -> impl Strategy<Value = Act> {
    let salt = || 0u8..4;
    prop_oneof![
        2 => (1u64..5_000).prop_map(Act::Deposit),
        4 => (salt(), 0u64..900, any::<bool>()).prop_map(|(salt, amount, from_balance)| Act::Open { salt, amount, from_balance }),
        2 => (salt(), 0u64..500).prop_map(|(salt, amount)| Act::TopUp { salt, amount }),
        4 => (salt(), 1u64..1_200).prop_map(|(salt, total)| Act::Redeem { salt, total }),
        1 => salt().prop_map(Act::RequestClose),
        1 => salt().prop_map(Act::CancelClose),
        1 => salt().prop_map(Act::CloseByProvider),
        1 => salt().prop_map(Act::Finalize),
        1 => (1u64..2_000).prop_map(Act::Withdraw),
        1 => Just(Act::ClaimCredit),
        1 => Just(Act::ClaimFees),
        2 => (1u64..6).prop_map(Act::Reorganise),
        1 => (1u64..6).prop_map(Act::Shorten),
    ]
}

/// Does it; what the escrow refuses is no matter.
async fn perform(market: &Market, act: Act) {
    let (buyer, params) = (&market.buyer, |salt: u8| market.params(u128::from(salt)));
    match act {
        Act::Deposit(amount) => drop(buyer.deposit(usd(amount)).await),
        Act::Open {
            salt,
            amount,
            from_balance: true,
        } => drop(buyer.open(&params(salt), usd(amount)).await),
        Act::Open { salt, amount, .. } => drop(buyer.deposit_and_open(&params(salt), usd(amount)).await),
        Act::TopUp { salt, amount } => drop(buyer.top_up(&params(salt), usd(amount)).await),
        Act::Redeem { salt, total } => drop(
            market
                .provider
                .redeem(&[claim(market, params(salt), total).await])
                .await,
        ),
        Act::RequestClose(salt) => drop(buyer.request_close(&params(salt)).await),
        Act::CancelClose(salt) => drop(buyer.cancel_close(&params(salt)).await),
        Act::CloseByProvider(salt) => drop(market.provider.close_by_provider(&params(salt)).await),
        Act::Finalize(salt) => {
            market.anvil.travel(CHALLENGE).await;
            drop(buyer.finalize_close(&params(salt)).await);
        }
        Act::Withdraw(amount) => drop(buyer.withdraw(usd(amount)).await),
        Act::ClaimCredit => drop(market.publisher.claim_credit().await),
        Act::ClaimFees => {
            let holders = [market.publisher.address(), market.fee_recipient.address()];
            drop(market.buyer.claim_fees(&holders).await);
        }
        Act::Reorganise(depth) => replace(market, depth).await,
        Act::Shorten(depth) => {
            market.anvil.rpc("anvil_rollback", json!([depth])).await;
            // Another time, so that the new blocks are others than the old ones even where they are empty too.
            market.anvil.travel(17).await;
        }
    }
}

async fn replace(market: &Market, depth: u64) {
    market.anvil.rpc("anvil_reorg", json!([depth, []])).await;
}

async fn claim(market: &Market, channel: ChannelParams, total: u64) -> Claim {
    let voucher = Voucher {
        channel: channel.id(),
        cumulative: usd(total),
        receipts_head: ReceiptsHead([6; 32]),
    };
    Claim {
        channel,
        voucher: voucher.sign(&market.chain.domain().await.unwrap(), &market.session),
        amount: usd(total),
    }
}

/// The mirror says what the escrow says, of every channel and account that there is.
async fn equals_the_escrow(mirror: &Mirror, market: &Market) {
    let (chain, books) = (&market.chain, mirror.books());
    for salt in 0..4 {
        let id = market.params(salt).id();
        let mirrored = books.channels.get(&id).map(|one| one.state).unwrap_or_default();
        assert_eq!(mirrored, chain.channel(id).await.unwrap(), "channel {salt}");
    }
    let wallets = [
        &market.buyer,
        &market.provider,
        &market.publisher,
        &market.fee_recipient,
    ];
    let mut accounts: BTreeSet<Address> = wallets.map(Wallet::address).into_iter().collect();
    accounts.extend(
        books
            .balances
            .keys()
            .chain(books.credits.keys())
            .chain(books.fees.keys()),
    );
    for account in accounts {
        let mirrored = books.balances.get(&account).copied().unwrap_or_default();
        assert_eq!(
            mirrored,
            chain.free_balance(account).await.unwrap(),
            "balance of {account}"
        );
        let mirrored = books.credits.get(&account).copied().unwrap_or_default();
        assert_eq!(mirrored, chain.credit_of(account).await.unwrap(), "credit of {account}");
        let mirrored = books.fees.get(&account).copied().unwrap_or_default();
        assert_eq!(mirrored, chain.fees_of(account).await.unwrap(), "fees of {account}");
    }
    let held = chain.token_balance(chain.contracts().escrow).await.unwrap();
    assert_eq!(books.owed(), held.get(), "invariant 1");
}

#[tokio::test]
async fn a_mirror_equals_the_escrow_after_any_trace_with_reorganisations() {
    let market = Market::open().await;
    let mut runner = TestRunner::new(Config::default());
    let first = market.chain.block_number().await.unwrap();
    let mut following = Mirror::begin(&market.chain, first).await.unwrap();
    let mut reorganised = 0;
    for round in 0..12 {
        let trace = prop::collection::vec(act(), 8).new_tree(&mut runner).unwrap().current();
        // Something to replace: the market itself must not be.
        market.anvil.rpc("anvil_mine", json!(["0x6"])).await;
        for act in &trace {
            if let Act::Reorganise(_) | Act::Shorten(_) = act {
                following.catch_up(&market.chain).await.unwrap();
                reorganised += 1;
            }
            perform(&market, *act).await;
        }
        market.anvil.rpc("anvil_mine", json!(["0x6"])).await;
        following.catch_up(&market.chain).await.unwrap();
        equals_the_escrow(&following, &market).await;
        let mut fresh = Mirror::begin(&market.chain, 0).await.unwrap();
        fresh.catch_up(&market.chain).await.unwrap();
        assert_eq!(fresh.books(), following.books(), "round {round}: {trace:?}");
    }
    assert!(reorganised > 0, "nothing was reorganised: this test shows nothing");
    let split = rialto_protocol::channel::Split::of(usd(1_000), ROYALTY_BPS, FEE_BPS);
    assert!(split.royalty > usd(0) && split.fee > usd(0), "credits are part of it");
}

/// Steps until the newest block; returns the events and the first block of the last reorganisation.
async fn walk(trail: &mut Trail, chain: &Chain) -> (Vec<EventKind>, Option<u64>) {
    let (mut kinds, mut from) = (Vec::new(), None);
    while trail.next_block() <= chain.block_number().await.unwrap() {
        let (step, next) = trail.step(chain).await.unwrap();
        *trail = next;
        match step {
            Step::Forward(events) => kinds.extend(events.into_iter().map(|event| event.kind)),
            Step::Reorganised { from_block } => {
                kinds.clear();
                from = Some(from_block);
            }
        }
    }
    (kinds, from)
}

#[tokio::test]
async fn a_trail_tells_of_an_open_that_was_dropped_and_of_one_that_came_back() {
    let market = Market::open().await;
    let chain = &market.chain;
    let mut trail = Trail::starting_at(chain.block_number().await.unwrap() + 1);
    market.anvil.rpc("anvil_mine", json!(["0x3"])).await;
    assert_eq!(walk(&mut trail, chain).await, (vec![], None));
    let before = trail.next_block();
    let params = market.params(1);
    market.buyer.deposit(usd(1_000)).await.unwrap();
    market.buyer.open(&params, usd(900)).await.unwrap();
    let (seen, _) = walk(&mut trail, chain).await;
    assert!(
        seen.iter()
            .any(|kind| matches!(kind, EventKind::Opened { params: opened, .. } if *opened == params))
    );

    // A shorter chain alone tells nothing: the node may be behind. It is kept as text, as a store keeps it.
    let kept = serde_json::to_string(&trail).unwrap();
    let depth = chain.block_number().await.unwrap() + 1 - before;
    market.anvil.rpc("anvil_rollback", json!([depth])).await;
    let (step, same) = trail.step(chain).await.unwrap();
    assert_eq!((step, &same), (Step::Forward(vec![]), &trail));
    market.anvil.travel(100).await;
    for _ in 0..depth {
        market.anvil.rpc("evm_mine", json!([])).await;
    }
    let mut trail: Trail = serde_json::from_str(&kept).unwrap();
    let (seen, from) = walk(&mut trail, chain).await;
    assert_eq!((seen, from), (vec![], Some(before)), "the open is gone");
    assert!(!chain.channel(params.id()).await.unwrap().is_open());

    market.buyer.deposit(usd(1_000)).await.unwrap();
    market.buyer.open(&params, usd(800)).await.unwrap();
    let (seen, from) = walk(&mut trail, chain).await;
    assert!(matches!(seen.last(), Some(EventKind::Opened { amount, .. }) if *amount == usd(800)));
    assert_eq!(from, None);
    // Without events it is noticed as well.
    replace(&market, 1).await;
    let (step, _) = trail.step_over(chain).await.unwrap();
    let head = chain.block_number().await.unwrap();
    assert!(
        matches!(step, Step::Reorganised { from_block } if from_block <= head && from_block >= before),
        "{step:?}"
    );
}

#[tokio::test]
async fn a_chain_that_was_made_anew_is_read_from_the_start() {
    let market = Market::open().await;
    let mut trail = Trail::starting_at(1);
    walk(&mut trail, &market.chain).await;
    // Blocks of the same content and second would be the same.
    let anvil = Anvil::start();
    anvil.travel(1_000).await;
    anvil.rpc("anvil_mine", json!(["0x40"])).await;
    let other = Chain::connect(&anvil.url(), market.contracts()).unwrap();
    assert!(other.block_number().await.unwrap() > trail.next_block());
    let (step, trail) = trail.step(&other).await.unwrap();
    assert_eq!(step, Step::Reorganised { from_block: 1 });
    assert_eq!(trail, Trail::starting_at(1));
}
