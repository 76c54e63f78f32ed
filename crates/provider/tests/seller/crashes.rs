//! A seller that is killed, and a chain that goes away.

#![expect(clippy::unwrap_used, reason = "a test ends where it cannot go on")]

use std::time::Duration;

use crate::market::{End, Market, NEVER, PRICE, config, job, until, usd};
use rialto_engine::SimulatedConfig;
use rialto_protocol::{
    Price, ReceiptStatus, Usage,
    wire::{OffersRequest, OffersResponse, RefusalCode, SellerFrame},
};
use rialto_provider::{Config, RedeemPolicy, Trust, store::read::Reader};

const FUNDED: u64 = 1_000_000;

/// What a SIGKILL leaves: the store's files as they are at this moment.
fn crash_image(market: &Market) -> std::path::PathBuf {
    let image = market.folder.path().join("after-crash.db");
    for ending in ["", "-wal"] {
        let name = |path: &std::path::Path| std::path::PathBuf::from(format!("{}{ending}", path.display()));
        std::fs::copy(name(&market.store()), name(&image)).unwrap();
    }
    image
}

#[tokio::test]
async fn what_a_crash_cut_off_is_settled_by_the_next_statement() {
    let market = Market::open(SimulatedConfig::default()).await;
    let (killed, peer) = market.sell(&market.store(), config()).await;
    let mut buyer = market.buyer(1, FUNDED, peer).await;
    buyer.whole(10).await.receipt();

    // Two chunks are paid; the third is asked for and never paid, so the seller stands still.
    let mut call = buyer.ask(1_000).await;
    let mut paid = 0;
    while call.received < 96 {
        match call.receiver.next().await.unwrap().unwrap() {
            SellerFrame::Accepted { input_units, .. } => call.input = input_units,
            SellerFrame::Output(output) => call.received += output.units(),
            SellerFrame::VoucherWanted { output_units, .. } if paid == 0 => {
                paid = output_units;
                let voucher = buyer.pay(&mut call, output_units);
                let frame = rialto_protocol::wire::BuyerFrame::Voucher(voucher);
                call.sender.send(&frame).await.unwrap();
            }
            frame => assert!(matches!(frame, SellerFrame::VoucherWanted { .. }), "{frame:?}"),
        }
    }
    assert_eq!(paid, 96);
    let image = crash_image(&market);
    let usage = Usage {
        input: call.input,
        output: call.received,
    };
    buyer.account.interrupt(call.id, usage).unwrap();

    let (provider, peer) = market.sell(&image, config()).await;
    buyer.to = peer;
    let receipt = buyer.whole(10).await.receipt().receipt;
    assert_eq!(
        receipt.sequence, 3,
        "the cut-off request has its receipt, and came with the catch-up"
    );
    assert_eq!(buyer.account.active(), 0);
    let reader = Reader::open(&image).await.unwrap();
    let receipts = reader.receipts(&Default::default()).await.unwrap();
    let cut_off = receipts
        .iter()
        .find(|signed| signed.receipt.request == call.id)
        .unwrap();
    assert_eq!(cut_off.receipt.status, ReceiptStatus::Interrupted);
    assert_eq!(cut_off.receipt.usage, usage);
    assert_eq!(cut_off.receipt.cost, PRICE.cost(usage));

    provider.redeem_now().await.unwrap();
    let earned = buyer.account.spent().round_up().unwrap();
    assert_eq!(market.redeemed(&market.params(1)).await, earned);
    drop(killed);
    provider.shutdown().await;
}

#[tokio::test]
async fn a_buyer_that_says_less_than_it_paid_for_is_billed_for_what_it_had_for_certain() {
    let market = Market::open(SimulatedConfig::default()).await;
    let (killed, peer) = market.sell(&market.store(), config()).await;
    let mut buyer = market.buyer(1, FUNDED, peer).await;
    let mut call = buyer.ask(1_000).await;
    // Some 200 units were paid for in steps; whoever paid for the last step had 32 less at the least.
    assert!(buyer.read(&mut call, 200).await.is_none());
    let image = crash_image(&market);
    buyer.account.interrupt(call.id, Usage::default()).unwrap();
    let (provider, peer) = market.sell(&image, config()).await;
    buyer.to = peer;
    buyer.whole(10).await.receipt();
    let reader = Reader::open(&image).await.unwrap();
    let receipts = reader.receipts(&Default::default()).await.unwrap();
    let cut_off = receipts
        .iter()
        .find(|signed| signed.receipt.request == call.id)
        .unwrap();
    assert!(cut_off.receipt.usage.output >= 128, "{:?}", cut_off.receipt.usage);
    assert!(cut_off.receipt.usage.output <= call.covered);
    drop(killed);
    provider.shutdown().await;
}

#[tokio::test]
async fn a_request_that_left_no_trace_is_settled_over_nothing() {
    let market = Market::open(SimulatedConfig::default()).await;
    let (provider, peer) = market.sell(&market.store(), config()).await;
    let mut buyer = market.buyer(1, FUNDED, peer).await;
    let lost = buyer.request(job(10));
    buyer.account.interrupt(lost.id, Usage::default()).unwrap();
    let receipt = buyer.whole(10).await.receipt().receipt;
    assert_eq!(receipt.sequence, 2);
    assert!(
        buyer.account.statement().interrupted.is_empty(),
        "the reservation is free again"
    );
    assert_eq!(buyer.account.spent(), receipt.cost);
    provider.shutdown().await;
}

#[tokio::test]
async fn a_request_that_waited_when_the_seller_died_costs_nothing() {
    let market = Market::open(SimulatedConfig {
        slots: 1,
        first_token: Duration::from_secs(3_600),
        ..SimulatedConfig::default()
    })
    .await;
    let (killed, peer) = market.sell(&market.store(), config()).await;
    let mut buyer = market.buyer(1, FUNDED, peer).await;
    // One works, one is paid and next, one waits.
    let mut calls = Vec::new();
    for load in 1..=3 {
        calls.push(buyer.ask(10).await);
        until("the load", || async { killed.stats().models[0].load == load }).await;
    }
    let reader = Reader::open(&market.store()).await.unwrap();
    until("the two that are paid", || async {
        let channels = reader.channels().await.unwrap();
        channels.first().is_some_and(|channel| channel.open_requests == 2)
    })
    .await;
    let image = crash_image(&market);
    for call in &calls {
        buyer.account.interrupt(call.id, Usage::default()).unwrap();
    }
    // Before any of it is settled, nothing is signed beyond what is promised.
    let well = Market::engine(SimulatedConfig::default());
    let (provider, peer) = market.sell_on(&image, config(), PRICE, well).await;
    buyer.to = peer;
    let receipt = buyer.whole(10).await.receipt().receipt;
    assert_eq!(receipt.sequence, 4, "each of the three has its receipt");
    assert_eq!(buyer.account.spent(), receipt.cost, "and none of them costs anything");
    assert!(buyer.account.statement().interrupted.is_empty());
    drop(killed);
    provider.shutdown().await;
}

#[tokio::test]
async fn a_price_that_was_offered_holds_after_a_crash_and_a_rise() {
    let market = Market::open(SimulatedConfig::default()).await;
    let (killed, peer) = market.sell(&market.store(), config()).await;
    let mut buyer = market.buyer(1, FUNDED, peer.clone()).await;
    until("the offer", || async {
        let book = buyer.node.offers(&peer, &OffersRequest::Browse).await.unwrap();
        matches!(book, OffersResponse::Book(offers) if offers.iter().any(|one| one.offer.price == PRICE))
    })
    .await;
    let image = crash_image(&market);
    let dearer = Price {
        output: 2 * PRICE.output,
        ..PRICE
    };
    let (provider, peer) = market.sell_at(&image, config(), dearer).await;
    buyer.to = peer;
    let receipt = buyer.whole(10).await.receipt().receipt;
    assert_eq!(receipt.cost, PRICE.cost(receipt.usage), "billed at what was offered");
    let mut cheap = buyer.request(job(10));
    cheap.price.output -= 1;
    let mut call = buyer.send(cheap).await;
    let refusal = buyer.read(&mut call, u64::MAX).await.unwrap().refusal();
    assert_eq!(refusal.code, RefusalCode::PriceChanged);
    drop(killed);
    provider.shutdown().await;
    // A store that never offered it does not owe it.
    let empty = market.folder.path().join("empty.db");
    let (provider, peer) = market.sell_at(&empty, config(), dearer).await;
    let mut newcomer = market.buyer(2, FUNDED, peer).await;
    assert_eq!(newcomer.whole(10).await.refusal().code, RefusalCode::PriceChanged);
    provider.shutdown().await;
}

#[tokio::test]
async fn a_requested_close_is_answered_with_a_claim_at_once() {
    let market = Market::open(SimulatedConfig::default()).await;
    let (provider, peer) = market.sell(&market.store(), config()).await;
    let mut buyer = market.buyer(1, FUNDED, peer).await;
    buyer.whole(100).await.receipt();
    let params = market.params(1);
    assert_eq!(market.redeemed(&params).await, usd(0));
    market.buyer.request_close(&params).await.unwrap();
    let earned = buyer.account.spent().round_up().unwrap();
    until("the claim", || async { market.redeemed(&params).await == earned }).await;
    let refusal = buyer.whole(10).await.refusal();
    assert_eq!(refusal.code, RefusalCode::UnknownChannel);
    provider.shutdown().await;
}

#[tokio::test]
async fn a_close_that_is_requested_amid_an_answer_ends_it_and_what_arrived_is_paid() {
    let market = Market::open(SimulatedConfig {
        token_interval: Duration::from_millis(5),
        ..SimulatedConfig::default()
    })
    .await;
    let (provider, peer) = market.sell(&market.store(), config()).await;
    let mut buyer = market.buyer(1, FUNDED, peer).await;
    let params = market.params(1);
    let mut call = buyer.ask(4_000).await;
    assert!(buyer.read(&mut call, 20).await.is_none());
    market.buyer.request_close(&params).await.unwrap();
    let End::Finished { receipt, failure, .. } = buyer.read(&mut call, u64::MAX).await.unwrap() else {
        panic!("refused");
    };
    assert_eq!(failure.unwrap().code, RefusalCode::UnknownChannel);
    assert_eq!(receipt.receipt.status, ReceiptStatus::Cancelled);
    assert_eq!(receipt.receipt.usage.output, call.received);
    assert!(call.received < 4_000);
    let earned = buyer.account.spent().round_up().unwrap();
    assert!(earned > usd(0));
    until("the claim", || async { market.redeemed(&params).await == earned }).await;
    provider.shutdown().await;
}

#[tokio::test]
async fn a_top_up_is_seen_when_a_voucher_needs_it() {
    let market = Market::open(SimulatedConfig::default()).await;
    let (provider, peer) = market.sell(&market.store(), config()).await;
    let mut buyer = market.buyer(1, 60, peer).await;
    buyer.whole(50).await.receipt();
    market.buyer.top_up(&market.params(1), usd(100)).await.unwrap();
    buyer.account.set_funded(usd(160));
    assert_eq!(buyer.whole(60).await.receipt().receipt.usage.output, 60);
    provider.shutdown().await;
}

#[tokio::test]
async fn trades_go_on_while_the_chain_is_away_and_claims_wait() {
    let market = Market::open(SimulatedConfig::default()).await;
    let (provider, peer) = market.sell(&market.store(), config()).await;
    let mut buyer = market.buyer(1, FUNDED, peer.clone()).await;
    let mut stranger = market.buyer(2, FUNDED, peer).await;
    buyer.whole(10).await.receipt();
    drop(market.anvil);
    assert_eq!(buyer.whole(10).await.receipt().receipt.sequence, 2);
    let error = provider.redeem_now().await.unwrap_err();
    assert!(error.is_retryable(), "{error}");
    let refusal = stranger.whole(10).await.refusal();
    assert_eq!(refusal.code, RefusalCode::UnknownChannel);
    assert!(refusal.retry_after_ms.is_some());
    assert!(provider.stats().channels[0].unclaimed > usd(0));
    provider.shutdown().await;
}

#[tokio::test]
async fn small_earnings_are_claimed_by_value() {
    let market = Market::open(SimulatedConfig::default()).await;
    let config = Config {
        redeem: RedeemPolicy {
            min_value: usd(100),
            ..NEVER
        },
        ..config()
    };
    let (provider, peer) = market.sell(&market.store(), config).await;
    let mut buyer = market.buyer(1, FUNDED, peer).await;
    let params = market.params(1);
    buyer.whole(60).await.receipt();
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert_eq!(market.redeemed(&params).await, usd(0), "claimed for too little");
    let End::Finished { .. } = buyer.whole(80).await else {
        panic!("refused")
    };
    until("the claim", || async { market.redeemed(&params).await > usd(100) }).await;
    provider.shutdown().await;
}

/// Replaces the blocks from the one after `block` on by as many empty ones.
async fn drop_after(market: &Market, block: u64) {
    let depth = market.chain.block_number().await.unwrap() - block;
    market.anvil.rpc("anvil_reorg", &[&depth.to_string(), "[]"]);
}

#[tokio::test]
async fn a_redeem_that_a_reorganisation_dropped_is_claimed_again() {
    let market = Market::open(SimulatedConfig::default()).await;
    let (provider, peer) = market.sell(&market.store(), config()).await;
    let mut buyer = market.buyer(1, FUNDED, peer).await;
    let params = market.params(1);
    buyer.whole(50).await.receipt();
    let earned = buyer.account.spent().round_up().unwrap();
    let before = market.chain.block_number().await.unwrap();
    assert_eq!(provider.redeem_now().await.unwrap().len(), 1);
    assert_eq!(market.redeemed(&params).await, earned);
    until("the watcher", || async {
        provider.stats().channels[0].unclaimed == usd(0)
    })
    .await;
    drop_after(&market, before).await;
    assert_eq!(market.redeemed(&params).await, usd(0));
    until("the loss", || async {
        provider.stats().channels[0].unclaimed == earned
    })
    .await;
    let reader = Reader::open(&market.store()).await.unwrap();
    until("the book", || async { reader.redemptions(9).await.unwrap().is_empty() }).await;
    assert_eq!(provider.redeem_now().await.unwrap().len(), 1);
    assert_eq!(market.redeemed(&params).await, earned);
    until("the booking", || async {
        reader.redemptions(9).await.unwrap().len() == 1
    })
    .await;
    provider.shutdown().await;
}

#[tokio::test]
async fn an_open_that_a_reorganisation_dropped_is_not_served_and_nothing_earned_on_it_is_lost() {
    let market = Market::open(SimulatedConfig::default()).await;
    let (provider, peer) = market.sell(&market.store(), config()).await;
    let before = market.chain.block_number().await.unwrap();
    let mut buyer = market.buyer(1, FUNDED, peer).await;
    let params = market.params(1);
    buyer.whole(50).await.receipt();
    let earned = buyer.account.spent().round_up().unwrap();
    drop_after(&market, before).await;
    assert!(!market.chain.channel(params.id()).await.unwrap().is_open());
    until("the refusal", || async {
        provider.stats().channels[0].unclaimed == usd(0)
    })
    .await;
    assert_eq!(buyer.whole(10).await.refusal().code, RefusalCode::UnknownChannel);
    assert!(
        provider.redeem_now().await.unwrap().is_empty(),
        "there is nothing to claim from"
    );
    // Not even a restart forgets it.
    provider.shutdown().await;
    let (provider, peer) = market.sell(&market.store(), config()).await;
    buyer.to = peer;
    market.buyer.open(&params, usd(FUNDED)).await.unwrap();
    assert_eq!(
        buyer.whole(10).await.receipt().receipt.sequence,
        2,
        "the same channel goes on"
    );
    assert!(buyer.account.spent().round_up().unwrap() > earned);
    provider.redeem_now().await.unwrap();
    assert_eq!(
        market.redeemed(&params).await,
        buyer.account.spent().round_up().unwrap()
    );
    provider.shutdown().await;
}

#[tokio::test]
async fn a_close_that_a_reorganisation_dropped_leaves_the_channel_as_it_was() {
    let market = Market::open(SimulatedConfig::default()).await;
    let (provider, peer) = market.sell(&market.store(), config()).await;
    let mut buyer = market.buyer(1, FUNDED, peer).await;
    let params = market.params(1);
    buyer.whole(50).await.receipt();
    let before = market.chain.block_number().await.unwrap();
    provider.redeem_now().await.unwrap();
    let seller = market.provider();
    seller.close_by_provider(&params).await.unwrap();
    until("the close", || async { provider.stats().channels.is_empty() }).await;
    assert_eq!(buyer.whole(10).await.refusal().code, RefusalCode::UnknownChannel);
    drop_after(&market, before).await;
    until("the return", || async { provider.stats().channels.len() == 1 }).await;
    assert_eq!(
        provider.stats().channels[0].unclaimed,
        buyer.account.spent().round_up().unwrap()
    );
    assert_eq!(
        buyer.whole(10).await.receipt().receipt.sequence,
        2,
        "no number is given twice"
    );
    provider.redeem_now().await.unwrap();
    assert_eq!(
        market.redeemed(&params).await,
        buyer.account.spent().round_up().unwrap()
    );
    provider.shutdown().await;
}

#[tokio::test]
async fn money_that_may_still_be_taken_back_counts_only_up_to_a_limit() {
    let market = Market::open(SimulatedConfig::default()).await;
    let config = Config {
        trust: Trust {
            confirmations: 5,
            unconfirmed: usd(60),
        },
        ..config()
    };
    let (provider, peer) = market.sell(&market.store(), config).await;
    let mut buyer = market.buyer(1, FUNDED, peer).await;
    buyer.whole(10).await.receipt();
    let refusal = buyer.whole(200).await.refusal();
    assert_eq!(refusal.code, RefusalCode::ChannelExhausted, "{refusal}");
    market.anvil.rpc("anvil_mine", &["0x5"]);
    // The seller asks the chain about one channel once a second.
    tokio::time::sleep(Duration::from_millis(1_100)).await;
    buyer.whole(200).await.receipt();
    provider.shutdown().await;
}

#[tokio::test]
async fn a_lost_store_signs_no_second_receipt_on_a_channel_that_it_forgot() {
    let market = Market::open(SimulatedConfig::default()).await;
    let (provider, peer) = market.sell(&market.store(), config()).await;
    let mut buyer = market.buyer(1, FUNDED, peer).await;
    buyer.whole(50).await.receipt();
    provider.shutdown().await;

    let empty = market.folder.path().join("empty.db");
    let (provider, peer) = market.sell(&empty, config()).await;
    buyer.to = peer.clone();
    let forgotten = buyer.whole(10).await.refusal();
    assert_eq!(forgotten.code, RefusalCode::UnknownChannel);
    assert!(forgotten.message.contains("no records"), "{forgotten}");
    let mut newcomer = market.buyer(2, FUNDED, peer.clone()).await;
    assert_eq!(newcomer.whole(10).await.receipt().receipt.sequence, 1);
    // Once no node has the state of so long ago, the logs say it.
    let mut late = market.buyer(3, FUNDED, peer.clone()).await;
    market.anvil.rpc("anvil_mine", &["0x64"]);
    assert_eq!(late.whole(10).await.receipt().receipt.sequence, 1);
    assert_eq!(buyer.whole(10).await.refusal().code, RefusalCode::UnknownChannel);
    provider.shutdown().await;

    // The store that knows the channel goes on with it.
    let (provider, peer) = market.sell(&market.store(), config()).await;
    buyer.to = peer;
    assert_eq!(buyer.whole(10).await.receipt().receipt.sequence, 2);
    provider.shutdown().await;
}
