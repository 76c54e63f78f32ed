//! Requests, holds and receipts through a whole life, and a ledger that is restored from them.

use rialto_protocol::{
    Address, ChannelParams, Digest, Domain, MicroDollars, ModelId, NanoDollars, Price, Receipt, ReceiptStatus, Region,
    RequestId, SignedReceipt, SigningKey, Usage, account::BuyerAccount,
};

use super::*;
use crate::{Limits, limits::Use};

pub(crate) const PRICE: Price = Price {
    input: 100,
    output: 1_000,
    request: 0,
};

pub(crate) fn domain() -> Domain {
    Domain {
        chain_id: 31_337,
        escrow: Address([3; 20]),
    }
}

pub(crate) fn provider() -> SigningKey {
    SigningKey::from_bytes(&[2; 32]).unwrap()
}

pub(crate) fn params() -> ChannelParams {
    ChannelParams {
        payer: Address([9; 20]),
        signer: Address([4; 20]),
        provider: provider().address(),
        model: ModelId([7; 32]),
        token: Address([8; 20]),
        salt: 1,
    }
}

async fn open_channel(store: &Store) {
    let funded = MicroDollars::new(1_000_000);
    store
        .begin_channel(&params(), "rialto/example:v1", funded)
        .await
        .unwrap();
    store.set_channel(params().id(), ChannelStatus::Open, 0).await.unwrap();
}

/// Begins a request over at most 20 micro-dollars for a new key; returns the key's id.
pub(crate) async fn begin(store: &Store, idempotency: Option<[u8; 32]>) -> String {
    open_channel(store).await;
    let key = store.create_key("k", Some(MicroDollars::new(30))).await.unwrap().row.id;
    store.begin_request(&request(&key, 1, idempotency)).await.unwrap();
    key
}

fn request(key: &str, number: u8, idempotency: Option<[u8; 32]>) -> Begin {
    Begin {
        request: RequestId([number; 32]),
        channel: params().id(),
        key: key.to_owned(),
        idempotency,
        price: PRICE,
        request_hash: Digest([4; 32]),
        max_input: 100,
        covered_output: 5,
        reserved: NanoDollars(6_000),
        hold: NanoDollars(20_000),
        hold_units: 110,
        signed: MicroDollars::new(6),
    }
}

pub(crate) fn receipt(number: u8) -> SignedReceipt {
    let cost = PRICE.cost(Usage { input: 10, output: 2 });
    let receipt = Receipt {
        channel: params().id(),
        sequence: 1,
        request: RequestId([number; 32]),
        model: params().model,
        request_hash: Digest([4; 32]),
        response_hash: Digest([5; 32]),
        usage: Usage { input: 10, output: 2 },
        cost,
        total: cost,
        status: ReceiptStatus::Complete,
        finished_at: 5,
        region: Region::default(),
        energy_millijoules: 0,
        fingerprint_root: Digest::default(),
        previous_head: Default::default(),
    };
    receipt.sign(&domain(), &provider())
}

async fn store() -> (tempfile::TempDir, Store) {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(&folder.path().join("gateway.db")).await.unwrap();
    (folder, store)
}

#[tokio::test]
async fn a_request_holds_its_most_and_a_receipt_charges_its_cost_once() {
    let (_folder, store) = store().await;
    let key = begin(&store, None).await;
    let row = store.key(&key).await.unwrap().unwrap();
    assert_eq!((row.held, row.spent), (NanoDollars(20_000), NanoDollars(0)));
    let refused = store.begin_request(&request(&key, 2, None)).await;
    assert!(matches!(refused, Err(Error::BudgetExhausted { .. })), "{refused:?}");
    for _ in 0..2 {
        store.settle_request(&receipt(1)).await.unwrap();
        let row = store.key(&key).await.unwrap().unwrap();
        assert_eq!((row.held, row.spent), (NanoDollars(0), NanoDollars(3_000)));
    }
    let spend = store.spend(0).await.unwrap();
    assert_eq!(
        (spend[0].key.as_deref(), spend[0].cost),
        (Some(key.as_str()), NanoDollars(3_000))
    );
    assert_eq!(store.receipts(10).await.unwrap()[0].listing, "rialto/example:v1");
}

#[tokio::test]
async fn a_crash_leaves_the_reservation_and_the_late_receipt_settles_it() {
    let (folder, store) = store().await;
    let key = begin(&store, None).await;
    let usage = Usage { input: 10, output: 4 };
    store
        .extend_request(
            RequestId([1; 32]),
            params().id(),
            9,
            usage,
            NanoDollars(9_500),
            MicroDollars::new(10),
        )
        .await
        .unwrap();
    store.close().await;
    let store = Store::open(&folder.path().join("gateway.db")).await.unwrap();
    assert_eq!(store.interrupt_all().await.unwrap(), 1);
    assert_eq!(store.key(&key).await.unwrap().unwrap().held, NanoDollars(9_500));
    let channel = store.channel(params().id()).await.unwrap().unwrap();
    assert_eq!(channel.signed, MicroDollars::new(10));
    let history = store.history(channel.id).await.unwrap();
    let mut account = BuyerAccount::new(channel.params, channel.funded).restore(
        channel.signed,
        &history.receipts,
        &history.interrupted,
    );
    assert_eq!(account.statement().interrupted[0].usage, usage);
    let known = store.request(RequestId([1; 32])).await.unwrap().unwrap();
    assert_eq!((known.covered_output, known.max_input), (9, 100));
    assert_eq!(known.received_input, usage.input);
    account.settle(&receipt(1), None, &domain()).unwrap();
    store.settle_request(&receipt(1)).await.unwrap();
    let history = store.history(channel.id).await.unwrap();
    assert_eq!((history.receipts.len(), history.interrupted.len()), (1, 0));
    let again = BuyerAccount::new(channel.params, channel.funded).restore(channel.signed, &history.receipts, &[]);
    assert_eq!(again.position(), account.position());
}

#[tokio::test]
async fn a_refused_request_and_a_closed_channel_free_what_was_held() {
    let (_folder, store) = store().await;
    let key = begin(&store, None).await;
    store.forget_request(RequestId([1; 32])).await.unwrap();
    assert_eq!(store.key(&key).await.unwrap().unwrap().held, NanoDollars(0));
    store.begin_request(&request(&key, 2, None)).await.unwrap();
    store
        .interrupt_request(RequestId([2; 32]), Usage::default())
        .await
        .unwrap();
    assert_eq!(store.key(&key).await.unwrap().unwrap().held, NanoDollars(6_000));
    store.void_requests(params().id()).await.unwrap();
    assert_eq!(store.key(&key).await.unwrap().unwrap().held, NanoDollars(0));
}

#[tokio::test]
async fn a_reader_sees_what_a_writer_wrote_and_another_version_is_refused() {
    let (folder, store) = store().await;
    begin(&store, None).await;
    let path = folder.path().join("gateway.db");
    let reader = Store::open_read_only(&path).await.unwrap();
    assert_eq!(reader.channels().await.unwrap().len(), 1);
    assert!(reader.create_key("no", None).await.is_err());
    sqlx::raw_sql("PRAGMA user_version = 99")
        .execute(&store.writer)
        .await
        .unwrap();
    assert!(matches!(Store::open(&path).await, Err(Error::BadStore(_))));
}

#[tokio::test]
async fn a_file_of_the_first_version_is_brought_up_to_date() {
    let (folder, store) = store().await;
    begin(&store, None).await;
    sqlx::raw_sql("DROP TABLE notes; ALTER TABLE channels DROP COLUMN closed_at; DROP TABLE files; DROP TABLE batches; DROP TABLE batch_lines;
         DROP INDEX receipts_idempotency; ALTER TABLE receipts DROP COLUMN idempotency;
         ALTER TABLE keys DROP COLUMN limits; ALTER TABLE keys DROP COLUMN provider; DROP TABLE uses;
         ALTER TABLE requests DROP COLUMN hold_units; PRAGMA user_version = 1")
        .execute(&store.writer)
        .await
        .unwrap();
    store.close().await;
    let path = folder.path().join("gateway.db");
    let reader = Store::open_read_only(&path).await.unwrap();
    assert_eq!(
        reader.channels().await.unwrap().len(),
        1,
        "whoever only reads need not wait for that"
    );
    reader.close().await;
    let store = Store::open(&path).await.unwrap();
    assert_eq!(store.trail().await.unwrap(), None);
    let trail = rialto_settlement::Trail::starting_at(7);
    store.set_trail(&trail).await.unwrap();
    assert_eq!(store.trail().await.unwrap(), Some(trail));
    assert!(store.closed_since(0).await.unwrap().is_empty());
    let id = params().id();
    store.set_channel(id, ChannelStatus::Closed, 0).await.unwrap();
    assert_eq!(store.closed_since(1).await.unwrap()[0].id, id);
    store.set_channel(id, ChannelStatus::Closing, 0).await.unwrap();
    assert!(store.closed_since(0).await.unwrap().is_empty());
    // What was under way then holds nothing of limits that nobody had set.
    let key = store.keys().await.unwrap().remove(0);
    assert!(key.limits.is_empty() && key.provider.is_none());
    assert_eq!(store.used(&key.id).await.unwrap().held.tokens, 0);
    store.correct_funded(id, MicroDollars::new(3)).await.unwrap();
    assert_eq!(store.channel(id).await.unwrap().unwrap().funded, MicroDollars::new(3));
}

#[tokio::test]
async fn what_is_written_goes_past_the_drives_cache() {
    let (_folder, store) = store().await;
    for pragma in ["PRAGMA fullfsync", "PRAGMA checkpoint_fullfsync"] {
        let (set,): (i64,) = sqlx::query_as(pragma).fetch_one(&store.writer).await.unwrap();
        assert_eq!(set, 1, "{pragma}");
    }
}

fn limits() -> Limits {
    Limits {
        tokens_a_minute: Some(150),
        dollars_a_day: Some(MicroDollars::new(41)),
        ..Limits::default()
    }
}

#[tokio::test]
async fn limits_reserve_the_most_and_count_what_was_used() {
    let (_folder, store) = store().await;
    open_channel(&store).await;
    let key = store.create_key("k", None).await.unwrap().row.id;
    assert!(store.set_limits(&key, &limits()).await.unwrap());
    assert_eq!(store.key(&key).await.unwrap().unwrap().limits, limits());
    store.begin_request(&request(&key, 1, None)).await.unwrap();
    let refused = store.begin_request(&request(&key, 2, None)).await;
    let Err(Error::LimitReached(reached)) = refused else {
        panic!("{refused:?}")
    };
    assert_eq!((reached.limit, reached.used.as_str()), ("tokens a minute", "110"));
    // The receipt is over 12 units and 3,000 nano-dollars; settling it again counts nothing.
    for _ in 0..2 {
        store.settle_request(&receipt(1)).await.unwrap();
        let used = store.used(&key).await.unwrap();
        assert_eq!(used.held, Use::default());
        assert_eq!(used.minute[0].used.tokens, 12);
        assert_eq!(used.day[0].used.cost, NanoDollars(3_000));
    }
    // Another process sees it.
    store.begin_request(&request(&key, 2, None)).await.unwrap();
    assert_eq!(store.used(&key).await.unwrap().held.tokens, 110);
    // A request that was forgotten before any work counts nothing.
    store.forget_request(RequestId([2; 32])).await.unwrap();
    assert_eq!(store.used(&key).await.unwrap().held.tokens, 0);
    // Without limits nothing is counted, and nothing refused.
    assert!(store.set_limits(&key, &Limits::default()).await.unwrap());
    assert_eq!(store.used(&key).await.unwrap(), Default::default());
    for number in 3..6 {
        store.begin_request(&request(&key, number, None)).await.unwrap();
    }
}

#[tokio::test]
async fn what_a_crash_cut_off_counts_with_its_most_and_once() {
    let (folder, store) = store().await;
    open_channel(&store).await;
    let key = store.create_key("k", None).await.unwrap().row.id;
    store.set_limits(&key, &limits()).await.unwrap();
    store.begin_request(&request(&key, 1, None)).await.unwrap();
    store.close().await;
    let store = Store::open(&folder.path().join("gateway.db")).await.unwrap();
    store.interrupt_all().await.unwrap();
    let used = store.used(&key).await.unwrap();
    assert_eq!((used.held.tokens, used.minute[0].used.tokens), (0, 110));
    // No voucher was for more than what was reserved.
    assert_eq!(used.day[0].used.cost, NanoDollars(6_000));
    // Its receipt comes late.
    store.settle_request(&receipt(1)).await.unwrap();
    store
        .interrupt_request(RequestId([1; 32]), Usage::default())
        .await
        .unwrap();
    assert_eq!(store.used(&key).await.unwrap(), used);
    assert_eq!(store.key(&key).await.unwrap().unwrap().spent, NanoDollars(3_000));
}

#[tokio::test]
async fn a_provider_object_of_a_key_is_checked_when_it_is_set() {
    let (_folder, store) = store().await;
    let key = store.create_key("k", None).await.unwrap().row.id;
    for wrong in [r#"{"sort":"best"}"#, r#"{"only":["nobody"]}"#, "3"] {
        let value = serde_json::from_str(wrong).unwrap();
        assert!(store.set_provider(&key, Some(&value)).await.is_err(), "{wrong}");
    }
    let good = serde_json::json!({"sort": "price", "region": "eu"});
    assert!(store.set_provider(&key, Some(&good)).await.unwrap());
    assert_eq!(store.key(&key).await.unwrap().unwrap().provider, Some(good));
    assert!(store.set_provider(&key, None).await.unwrap());
    assert_eq!(store.key(&key).await.unwrap().unwrap().provider, None);
    assert!(!store.set_provider("nobody", None).await.unwrap());
}
