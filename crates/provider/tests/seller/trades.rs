//! Trades over real QUIC, with money on a real chain.

#![expect(clippy::unwrap_used, reason = "a test ends where it cannot go on")]

use std::time::Duration;

use crate::market::{Buyer, CHUNK, End, Market, PRICE, config, job, until, usd};
use rialto_engine::SimulatedConfig;
use rialto_protocol::{
    ChannelId, ReceiptStatus, ReceiptsHead, RequestId, SigningKey, Usage, Voucher,
    account::Interruption,
    output::FinishReason,
    wire::{BuyerFrame, RefusalCode, SellerFrame, TradeRequest, delegation_digest},
};
use rialto_provider::{Config, Limits, store::read::Reader};

const FUNDED: u64 = 1_000_000;

#[tokio::test]
async fn an_answer_is_paid_chunk_by_chunk_and_settled_on_chain() {
    let market = Market::open(SimulatedConfig::default()).await;
    let (provider, peer) = market.sell(&market.store(), config()).await;
    let mut buyer = market.buyer(1, FUNDED, peer).await;
    let receipt = buyer.whole(300).await.receipt().receipt;
    assert_eq!((receipt.status, receipt.usage.output), (ReceiptStatus::Complete, 300));
    assert_eq!(receipt.cost, PRICE.cost(receipt.usage));
    assert_eq!(receipt.energy_millijoules, 600);
    assert_eq!(buyer.whole(10).await.receipt().receipt.sequence, 2);

    let earned = buyer.account.spent().round_up().unwrap();
    let redeemed = provider.redeem_now().await.unwrap();
    assert_eq!(redeemed.len(), 1);
    let split = &redeemed[0];
    assert_eq!(
        split.provider.get() + split.royalty.get() + split.fee.get(),
        earned.get()
    );
    assert!(split.royalty > usd(0) && split.fee > usd(0));
    assert_eq!(market.redeemed(&market.params(1)).await, earned);
    assert!(
        provider.redeem_now().await.unwrap().is_empty(),
        "nothing is claimed twice"
    );

    let reader = Reader::open(&market.store()).await.unwrap();
    until("the booking", || async {
        let booked = reader.redemptions(10).await.unwrap();
        booked.first().is_some_and(|one| one.transaction == split.transaction)
    })
    .await;
    assert_eq!(reader.receipts(&Default::default()).await.unwrap().len(), 2);
    let channels = reader.channels().await.unwrap();
    assert_eq!((channels[0].state.redeemed, channels[0].unclaimed()), (earned, usd(0)));
    let days = reader.earnings(0).await.unwrap();
    assert_eq!(days.iter().map(|day| day.output_units).sum::<u64>(), 310);
    provider.shutdown().await;
}

/// Sends a request as it is and returns the refusal's code.
async fn refused(buyer: &mut Buyer, request: TradeRequest) -> RefusalCode {
    let mut call = buyer.send(request).await;
    buyer.read(&mut call, u64::MAX).await.unwrap().refusal().code
}

#[tokio::test]
async fn vouchers_that_do_not_pay_are_refused_before_any_work() {
    let market = Market::open(SimulatedConfig::default()).await;
    let (provider, peer) = market.sell(&market.store(), config()).await;
    let mut buyer = market.buyer(1, 200, peer.clone()).await;
    buyer.whole(100).await.receipt();
    let worked = market.engine.generated();

    let thief = SigningKey::from_bytes(&[66; 32]).unwrap();
    let mut request = buyer.request(job(10));
    request.voucher = request.voucher.voucher.sign(&buyer.domain, &thief);
    assert_eq!(refused(&mut buyer, request).await, RefusalCode::BadVoucher);

    let sign = |buyer: &Buyer, voucher: Voucher| voucher.sign(&buyer.domain, &buyer.session);
    let wrong = |change: fn(&mut Voucher), buyer: &mut Buyer| {
        let mut request = buyer.request(job(10));
        change(&mut request.voucher.voucher);
        request.voucher = sign(buyer, request.voucher.voucher);
        request
    };
    let low = wrong(|voucher| voucher.cumulative = usd(1), &mut buyer);
    assert_eq!(refused(&mut buyer, low).await, RefusalCode::BadVoucher);
    let other = wrong(|voucher| voucher.channel = ChannelId([1; 32]), &mut buyer);
    assert_eq!(refused(&mut buyer, other).await, RefusalCode::BadVoucher);
    let head = wrong(|voucher| voucher.receipts_head = ReceiptsHead([1; 32]), &mut buyer);
    assert_eq!(refused(&mut buyer, head).await, RefusalCode::BadVoucher);
    let much = wrong(|voucher| voucher.cumulative = usd(201), &mut buyer);
    assert_eq!(refused(&mut buyer, much).await, RefusalCode::ChannelExhausted);

    let mut unknown = buyer.request(job(10));
    unknown.channel.salt = 77;
    unknown.voucher.voucher.channel = unknown.channel.id();
    unknown.voucher = sign(&buyer, unknown.voucher.voucher);
    assert_eq!(refused(&mut buyer, unknown).await, RefusalCode::UnknownChannel);
    let mut cheap = buyer.request(job(10));
    cheap.price.output -= 1;
    assert_eq!(refused(&mut buyer, cheap).await, RefusalCode::PriceChanged);

    assert_eq!(
        market.engine.generated(),
        worked,
        "work was done for a voucher that does not pay"
    );
    assert_eq!(
        buyer.whole(10).await.receipt().receipt.sequence,
        2,
        "the channel is as good as before"
    );
    provider.shutdown().await;
}

#[tokio::test]
async fn a_voucher_read_from_the_chain_buys_nothing_and_settles_nothing() {
    let market = Market::open(SimulatedConfig::default()).await;
    let (provider, peer) = market.sell(&market.store(), config()).await;
    let mut buyer = market.buyer(1, FUNDED, peer.clone()).await;
    buyer.whole(100).await.receipt();
    let worked = market.engine.generated();

    // The thief has all of the buyer's request, and a node, keys and invented interruptions of its own.
    let mut thief = market.buyer(2, FUNDED, peer).await;
    let mut stolen = buyer.request(job(10));
    buyer.account.release(&stolen.id);
    stolen.statement.interrupted = vec![Interruption {
        request: RequestId([99; 32]),
        usage: Usage { input: 1, output: 1 },
    }];
    assert_eq!(refused(&mut thief, stolen.clone()).await, RefusalCode::BadVoucher);
    // For the thief's node and the buyer's channel, by a key that is not the channel's.
    let digest = delegation_digest(&thief.domain, buyer.account.params().id(), thief.node.caller());
    stolen.delegation = SigningKey::from_bytes(&[66; 32]).unwrap().sign(&digest);
    assert_eq!(refused(&mut thief, stolen).await, RefusalCode::BadVoucher);

    assert_eq!(market.engine.generated(), worked, "a thief was served");
    let next = buyer.whole(10).await.receipt().receipt.sequence;
    assert_eq!(next, 2, "a receipt was written for a thief");
    provider.shutdown().await;
}

#[tokio::test]
async fn a_request_is_served_once_however_often_it_is_sent() {
    let market = Market::open(SimulatedConfig::default()).await;
    let (provider, peer) = market.sell(&market.store(), config()).await;
    let mut buyer = market.buyer(1, FUNDED, peer).await;
    let request = buyer.request(job(10));
    let mut call = buyer.send(request.clone()).await;
    buyer.read(&mut call, u64::MAX).await.unwrap().receipt();
    assert_eq!(refused(&mut buyer, request.clone()).await, RefusalCode::BadRequest);
    // By then its receipt is in the store alone.
    for _ in 0..40 {
        buyer.whole(1).await.receipt();
    }
    let worked = market.engine.generated();
    assert_eq!(refused(&mut buyer, request).await, RefusalCode::BadRequest);
    assert_eq!(market.engine.generated(), worked);
    assert_eq!(buyer.whole(1).await.receipt().receipt.sequence, 42);
    provider.shutdown().await;
}

#[tokio::test]
async fn a_bad_job_names_its_field_and_a_long_prompt_its_limit() {
    let market = Market::open(SimulatedConfig {
        context: 32,
        ..SimulatedConfig::default()
    })
    .await;
    let (provider, peer) = market.sell(&market.store(), config()).await;
    let mut buyer = market.buyer(1, FUNDED, peer).await;
    let refusal = buyer.whole(0).await.refusal();
    assert_eq!(
        (refusal.code, refusal.field.as_deref()),
        (RefusalCode::BadRequest, Some("max_tokens"))
    );
    let long = rialto_protocol::job::Job::Completion {
        prompt: "word ".repeat(100),
        generation: Default::default(),
    };
    let request = buyer.request(long);
    assert_eq!(refused(&mut buyer, request).await, RefusalCode::ContextExceeded);
    provider.shutdown().await;
}

#[tokio::test]
async fn a_cancel_stops_the_work_and_bills_what_was_delivered() {
    let market = Market::open(SimulatedConfig {
        token_interval: Duration::from_millis(2),
        ..SimulatedConfig::default()
    })
    .await;
    let (provider, peer) = market.sell(&market.store(), config()).await;
    let mut buyer = market.buyer(1, FUNDED, peer).await;
    let mut call = buyer.ask(4_000).await;
    assert!(buyer.read(&mut call, 20).await.is_none());
    call.sender.send(&BuyerFrame::Cancel).await.unwrap();
    let end = buyer.read(&mut call, u64::MAX).await.unwrap();
    assert!(matches!(
        &end,
        End::Finished {
            reason: FinishReason::Cancelled,
            ..
        }
    ));
    let receipt = end.receipt().receipt;
    assert_eq!(
        (receipt.status, receipt.usage.output),
        (ReceiptStatus::Cancelled, call.received)
    );
    assert!(market.engine.generated() < 200, "the engine went on");
    assert_eq!(buyer.account.active(), 0);
    provider.shutdown().await;
}

#[tokio::test]
async fn a_buyer_that_stops_paying_is_billed_for_what_it_got_and_no_more_is_done() {
    let market = Market::open(SimulatedConfig::default()).await;
    let config = Config {
        payment_timeout: Duration::from_millis(300),
        ..config()
    };
    let (provider, peer) = market.sell(&market.store(), config).await;
    let mut buyer = market.buyer(1, FUNDED, peer).await;
    let mut call = buyer.ask(1_000).await;
    let mut received = 0;
    let receipt = loop {
        match call.receiver.next().await.unwrap().unwrap() {
            SellerFrame::Output(output) => received += output.units(),
            SellerFrame::Finished { receipt, failure, .. } => {
                assert_eq!(failure.unwrap().code, RefusalCode::PaymentTimeout);
                break receipt.receipt;
            }
            _ => {}
        }
    };
    assert_eq!((received, receipt.usage.output), (CHUNK, CHUNK));
    assert_eq!(market.engine.generated(), CHUNK);
    provider.shutdown().await;
}

#[tokio::test]
async fn a_failing_engine_bills_what_arrived_and_nothing_before_the_first_output() {
    let market = Market::open(SimulatedConfig {
        fail_after: Some(5),
        ..SimulatedConfig::default()
    })
    .await;
    let (provider, peer) = market.sell(&market.store(), config()).await;
    let mut buyer = market.buyer(1, FUNDED, peer).await;
    let End::Finished { receipt, failure, .. } = buyer.whole(50).await else {
        panic!("refused");
    };
    assert_eq!(receipt.receipt.status, ReceiptStatus::Failed);
    assert_eq!(receipt.receipt.usage.output, 5);
    assert_eq!(failure.unwrap().code, RefusalCode::EngineFailed);
    market.engine.fail_after(Some(0));
    let receipt = buyer.whole(50).await.receipt().receipt;
    assert_eq!((receipt.usage.input, receipt.cost.0), (0, 0));
    provider.shutdown().await;
}

#[tokio::test]
async fn a_full_queue_is_busy_and_says_when_to_come_back() {
    let market = Market::open(SimulatedConfig {
        slots: 1,
        first_token: Duration::from_secs(3_600),
        ..SimulatedConfig::default()
    })
    .await;
    let config = Config { queue: 1, ..config() };
    let (provider, peer) = market.sell(&market.store(), config).await;
    let mut buyer = market.buyer(1, FUNDED, peer).await;
    let _running = buyer.ask(10).await;
    let _waiting = buyer.ask(10).await;
    until("the load", || async { provider.stats().models[0].load == 2 }).await;
    let refusal = buyer.whole(10).await.refusal();
    assert_eq!(refusal.code, RefusalCode::Busy);
    assert!(refusal.retry_after_ms.unwrap() > 0);
    provider.shutdown().await;
}

#[tokio::test]
async fn who_cannot_wait_is_refused_in_time_and_pays_nothing() {
    let market = Market::open(SimulatedConfig {
        slots: 1,
        first_token: Duration::from_secs(3_600),
        ..SimulatedConfig::default()
    })
    .await;
    let (provider, peer) = market.sell(&market.store(), config()).await;
    let mut buyer = market.buyer(1, FUNDED, peer).await;
    let _running = buyer.ask(10).await;
    let _next = buyer.ask(10).await;
    until("the load", || async { provider.stats().models[0].load == 2 }).await;
    let before = buyer.account.committed();
    let mut request = buyer.request(job(10));
    request.patience_ms = 400;
    let mut call = buyer.send(request).await;
    let refusal = buyer.read(&mut call, u64::MAX).await.unwrap().refusal();
    assert_eq!(refusal.code, RefusalCode::Busy);
    assert!(refusal.retry_after_ms.is_some());
    assert_eq!(buyer.account.committed(), before);
    // One that is cancelled while it waits costs nothing either.
    let mut call = buyer.ask(10).await;
    until("the load", || async { provider.stats().models[0].load == 3 }).await;
    call.sender.send(&BuyerFrame::Cancel).await.unwrap();
    buyer.read(&mut call, u64::MAX).await.unwrap().refusal();
    assert_eq!(buyer.account.committed(), before);
    let reader = Reader::open(&market.store()).await.unwrap();
    assert!(reader.receipts(&Default::default()).await.unwrap().is_empty());
    provider.shutdown().await;
}

#[tokio::test]
async fn a_voucher_that_is_asked_for_again_is_waited_for_outside_the_slots() {
    let market = Market::open(SimulatedConfig {
        slots: 1,
        ..SimulatedConfig::default()
    })
    .await;
    let (provider, peer) = market.sell(&market.store(), config()).await;
    // Their vouchers cover less input than there is, and the better ones are late.
    let mut stuck = Vec::new();
    for number in 1..=3 {
        let mut buyer = market.buyer(number, FUNDED, peer.clone()).await;
        let request = buyer.request_for(job(10), 0);
        let call = buyer.send(request).await;
        stuck.push((buyer, call));
    }
    let mut other = market.buyer(4, FUNDED, peer).await;
    other.whole(10).await.receipt();
    for (buyer, call) in &mut stuck {
        let receipt = buyer.read(call, u64::MAX).await.unwrap().receipt();
        assert_eq!(receipt.receipt.usage.output, 10);
    }
    provider.shutdown().await;
}

#[tokio::test]
async fn limits_a_minute_are_kept_and_told() {
    let market = Market::open(SimulatedConfig::default()).await;
    let a_minute = |requests, units| Limits {
        at_once: 8,
        requests_a_minute: requests,
        units_a_minute: units,
    };
    let by_payer = Config {
        payer_limits: a_minute(None, Some(20)),
        ..config()
    };
    let (provider, peer) = market.sell(&market.store(), by_payer).await;
    let mut buyer = market.buyer(1, FUNDED, peer).await;
    buyer.whole(300).await.receipt();
    // The payer has had a quarter of an hour more than its share.
    let refusal = buyer.whole(10).await.refusal();
    assert_eq!(refusal.code, RefusalCode::Busy);
    assert!(
        (60_000..=1_000_000).contains(&refusal.retry_after_ms.unwrap()),
        "{refusal:?}"
    );
    assert!(refusal.message.contains("payer"), "{refusal}");
    provider.shutdown().await;

    let by_node = Config {
        peer_limits: a_minute(Some(1), None),
        ..config()
    };
    let other = market.folder.path().join("other.db");
    let (provider, peer) = market.sell(&other, by_node).await;
    let mut buyer = market.buyer(2, FUNDED, peer).await;
    buyer.whole(10).await.receipt();
    let refusal = buyer.whole(10).await.refusal();
    assert_eq!(refusal.code, RefusalCode::Busy);
    assert!(refusal.message.contains("node"), "{refusal}");
    assert!(
        (1_000..=60_001).contains(&refusal.retry_after_ms.unwrap()),
        "{refusal:?}"
    );
    provider.shutdown().await;
}

#[tokio::test]
async fn many_requests_run_on_one_channel_at_a_time() {
    let market = Market::open(SimulatedConfig {
        token_interval: Duration::from_millis(1),
        slots: 6,
        ..SimulatedConfig::default()
    })
    .await;
    let (provider, peer) = market.sell(&market.store(), config()).await;
    let mut buyer = market.buyer(1, FUNDED, peer).await;
    let mut calls = Vec::new();
    for _ in 0..6 {
        calls.push(buyer.ask(100).await);
    }
    // The last is read first, so that vouchers overtake each other.
    for call in calls.iter_mut().rev() {
        let receipt = buyer.read(call, u64::MAX).await.unwrap().receipt();
        assert_eq!(receipt.receipt.usage.output, 100);
    }
    assert_eq!(buyer.account.position().0, 6);
    provider.redeem_now().await.unwrap();
    let earned = buyer.account.spent().round_up().unwrap();
    assert_eq!(market.redeemed(&market.params(1)).await, earned);
    provider.shutdown().await;
}

#[tokio::test]
async fn shutdown_cuts_off_with_a_receipt_and_refuses_what_comes() {
    let market = Market::open(SimulatedConfig {
        token_interval: Duration::from_millis(20),
        ..SimulatedConfig::default()
    })
    .await;
    let (provider, peer) = market.sell(&market.store(), config()).await;
    let mut buyer = market.buyer(1, FUNDED, peer).await;
    let mut call = buyer.ask(4_000).await;
    assert!(buyer.read(&mut call, 3).await.is_none());
    let stopping = tokio::spawn(provider.shutdown());
    let End::Finished { receipt, failure, .. } = buyer.read(&mut call, u64::MAX).await.unwrap() else {
        panic!("refused");
    };
    assert_eq!(failure.unwrap().code, RefusalCode::ShuttingDown);
    assert_eq!(receipt.receipt.usage.output, call.received);
    stopping.await.unwrap();
    let reader = Reader::open(&market.store()).await.unwrap();
    assert_eq!(reader.receipts(&Default::default()).await.unwrap(), vec![*receipt]);
}
