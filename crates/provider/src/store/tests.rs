//! What was submitted is there after a restart, in order, and never twice.

use rialto_protocol::{
    Address, Domain, ModelId, NanoDollars, Receipt, ReceiptStatus, ReceiptsHead, Region, SigningKey, Usage, Voucher,
    fingerprint::Mark,
};

use super::{read::Reader, *};

fn domain() -> Domain {
    Domain {
        chain_id: 31_337,
        escrow: Address([3; 20]),
    }
}

fn key() -> SigningKey {
    SigningKey::from_bytes(&[1; 32]).unwrap()
}

fn params() -> ChannelParams {
    ChannelParams {
        payer: Address([9; 20]),
        signer: key().address(),
        provider: key().address(),
        model: ModelId([7; 32]),
        token: Address([8; 20]),
        salt: u128::from(u64::MAX) + 1,
    }
}

fn state() -> ChannelState {
    ChannelState {
        // More than 64 bits: amounts must survive whole.
        funded: MicroDollars::MAX,
        redeemed: MicroDollars::new(3),
        closes_at: 12,
        closed: false,
    }
}

fn receipt(sequence: u64, request: u8) -> SignedReceipt {
    Receipt {
        channel: params().id(),
        sequence,
        request: RequestId([request; 32]),
        model: params().model,
        request_hash: Digest([1; 32]),
        response_hash: Digest([2; 32]),
        usage: Usage { input: 1, output: 2 },
        cost: NanoDollars(5),
        total: NanoDollars(5 * u128::from(sequence)),
        status: ReceiptStatus::Complete,
        finished_at: 86_400 * 3 + sequence,
        region: Region::default(),
        energy_millijoules: 0,
        fingerprint_root: Digest::default(),
        previous_head: ReceiptsHead([4; 32]),
    }
    .sign(&domain(), &key())
}

fn voucher(cumulative: u64) -> SignedVoucher {
    Voucher {
        channel: params().id(),
        cumulative: MicroDollars::new(cumulative),
        receipts_head: ReceiptsHead::default(),
    }
    .sign(&domain(), &key())
}

fn open_request(request: u8) -> OpenRequest {
    OpenRequest {
        request: RequestId([request; 32]),
        request_hash: Digest([5; 32]),
        price: Price {
            input: u64::MAX,
            output: 2,
            request: 3,
        },
        input: 4,
        covered: 64,
        floor: 32,
    }
}

fn first() -> Write {
    Write::Channel {
        params: params(),
        state: state(),
        seen: 1,
    }
}

#[tokio::test]
async fn everything_is_there_after_a_restart() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("provider.db");
    let id = params().id();
    let (store, writer) = Store::open(&path).await.unwrap();
    let early = store.submit(vec![
        first(),
        Write::Voucher(voucher(1)),
        Write::Open(id, open_request(1)),
        Write::Open(id, open_request(2)),
    ]);
    drop(early);
    drop(store.submit(vec![
        Write::Voucher(voucher(2)),
        Write::Receipt(Box::new(receipt(1, 1))),
    ]));
    store.submit(vec![Write::Mark("offers", 7)]).durable().await.unwrap();
    store.close(writer).await;
    assert!(
        matches!(store.flush().await, Err(Error::StoreFailed)),
        "a closed store takes nothing"
    );

    let (store, writer) = Store::open(&path).await.unwrap();
    let channels = store.channels().await.unwrap();
    assert_eq!(channels.len(), 1);
    let stored = &channels[0];
    assert_eq!((stored.params, stored.state), (params(), state()));
    assert_eq!(stored.best, Some(voucher(2)));
    assert_eq!(stored.receipts, vec![receipt(1, 1)]);
    assert_eq!(
        stored.open,
        vec![open_request(2)],
        "a receipt closes its request and no other"
    );
    assert_eq!(store.mark("offers").await.unwrap(), 7);
    assert!(store.has_receipt(&id, &RequestId([1; 32])).unwrap());
    assert!(!store.has_receipt(&id, &RequestId([2; 32])).unwrap());
    store.close(writer).await;
}

#[tokio::test]
async fn a_second_receipt_with_one_number_stops_the_store() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("provider.db");
    let (store, writer) = Store::open(&path).await.unwrap();
    let written = vec![first(), Write::Receipt(Box::new(receipt(1, 1)))];
    store.submit(written).durable().await.unwrap();
    let twice = store.submit(vec![Write::Receipt(Box::new(receipt(1, 2)))]);
    assert!(twice.durable().await.is_err());
    assert!(store.has_failed());
    let later = store.submit(vec![Write::Receipt(Box::new(receipt(2, 3)))]);
    assert!(later.durable().await.is_err(), "the store went on after a failure");
    assert_eq!(
        store.receipts_after(&params().id(), 0, 9).await.unwrap(),
        vec![receipt(1, 1)]
    );
    store.close(writer).await;
}

#[tokio::test]
async fn a_reader_reads_while_the_provider_writes_and_writes_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("provider.db");
    assert!(Reader::open(&path).await.is_err(), "a reader creates no store");
    let (store, writer) = Store::open(&path).await.unwrap();
    let reader = Reader::open(&path).await.unwrap();
    assert!(
        reader
            .receipts(&read::ReceiptFilter::default())
            .await
            .unwrap()
            .is_empty()
    );
    let redemption = Redemption {
        transaction: Digest([6; 32]),
        block: 5,
        redeemed_at: 4,
        provider: MicroDollars::MAX,
        royalty: MicroDollars::new(2),
        fee: MicroDollars::new(1),
        channels: vec![(params().id(), MicroDollars::MAX)],
    };
    let told = Write::Redemption(Box::new(redemption.clone()));
    let mut writes = vec![first(), told.clone(), told];
    writes.extend((1..=3).map(|sequence| Write::Receipt(Box::new(receipt(sequence, 1)))));
    store.submit(writes).durable().await.unwrap();

    assert_eq!(
        reader.redemptions(9).await.unwrap(),
        vec![redemption],
        "told twice, kept once"
    );
    let newest = read::ReceiptFilter {
        channel: Some(params().id()),
        limit: 2,
        ..Default::default()
    };
    assert_eq!(
        reader.receipts(&newest).await.unwrap(),
        vec![receipt(3, 1), receipt(2, 1)]
    );
    let days = reader.earnings(0).await.unwrap();
    assert_eq!((days.len(), days[0].day, days[0].requests), (1, 86_400 * 3, 3));
    assert_eq!(days[0].earned, NanoDollars(15));
    let channels = reader.channels().await.unwrap();
    assert_eq!((channels[0].receipts, channels[0].earned), (3, NanoDollars(15)));
    store.close(writer).await;
}

#[cfg(unix)]
#[tokio::test]
async fn the_files_are_their_owners_alone() {
    use std::os::unix::fs::PermissionsExt;

    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("provider.db");
    let (store, writer) = Store::open(&path).await.unwrap();
    store.submit(vec![Write::Mark("a", 1)]).durable().await.unwrap();
    let mut names = Vec::new();
    for file in std::fs::read_dir(folder.path()).unwrap() {
        let file = file.unwrap();
        assert_eq!(file.metadata().unwrap().permissions().mode() & 0o777, 0o600, "{file:?}");
        names.push(file.file_name());
    }
    assert!(names.len() >= 2, "no file beside the store: {names:?}");
    store.close(writer).await;
}

#[tokio::test]
async fn what_a_reorganisation_took_back_is_taken_back() {
    let folder = tempfile::tempdir().unwrap();
    let (store, writer) = Store::open(&folder.path().join("provider.db")).await.unwrap();
    let id = params().id();
    let closed = ChannelState {
        closed: true,
        ..state()
    };
    let redemption = |number: u8, block| {
        Write::Redemption(Box::new(Redemption {
            transaction: Digest([number; 32]),
            block,
            redeemed_at: 1,
            provider: MicroDollars::new(1),
            royalty: MicroDollars::ZERO,
            fee: MicroDollars::ZERO,
            channels: vec![(id, MicroDollars::new(1))],
        }))
    };
    let trail = rialto_settlement::Trail::starting_at(4);
    let writes = vec![
        first(),
        Write::State(id, closed),
        redemption(1, 5),
        redemption(2, 6),
        redemption(3, 7),
        Write::Trail(Box::new(trail.clone())),
    ];
    assert_eq!(store.trail().await.unwrap(), None);
    store.submit(writes).durable().await.unwrap();
    assert_eq!(store.trail().await.unwrap(), Some(trail));
    assert_eq!(store.closed_since(1).await.unwrap()[0].params, params());
    assert_eq!(store.stored_channel(&id).await.unwrap().unwrap().state, closed);
    // The second is found again in another block.
    let writes = vec![
        Write::Unredeem(6),
        redemption(2, 8),
        redemption(1, 9),
        Write::State(id, state()),
    ];
    store.submit(writes).durable().await.unwrap();
    assert!(store.closed_since(0).await.unwrap().is_empty());
    let reader = Reader::open(&folder.path().join("provider.db")).await.unwrap();
    let mut blocks: Vec<_> = reader
        .redemptions(9)
        .await
        .unwrap()
        .iter()
        .map(|one| one.block)
        .collect();
    blocks.sort_unstable();
    assert_eq!(blocks, vec![8, 9]);
    store.close(writer).await;
}

#[tokio::test]
async fn the_marks_behind_a_root_are_kept_as_long_as_they_can_be_asked_for() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("provider.db");
    let (store, writer) = Store::open(&path).await.unwrap();
    let fingerprint = Fingerprint {
        marks: vec![Mark {
            position: 0,
            top: vec![(7, -0.5), (3, -1.5)],
        }],
    };
    let recent = |sequence| Receipt {
        finished_at: crate::clock::now(),
        fingerprint_root: fingerprint.root(),
        ..receipt(sequence, 1).receipt
    };
    let write = |receipt: Receipt| Write::Fingerprint(Box::new((receipt, fingerprint.clone())));
    // The first is of the year 1970, and goes when the next is written.
    for receipt in [receipt(1, 1).receipt, recent(2)] {
        store.submit(vec![write(receipt)]).durable().await.unwrap();
    }
    let reader = Reader::open(&path).await.unwrap();
    let kept = async |sequence| reader.fingerprint(params().id(), sequence).await.unwrap();
    assert_eq!(kept(1).await, None);
    assert_eq!(kept(2).await.map(|kept| kept.root()), Some(fingerprint.root()));
    store.close(writer).await;
}
