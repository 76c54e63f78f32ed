//! Whole lives of channels on a real chain.

#![expect(clippy::unwrap_used, reason = "a test ends where it cannot go on")]

use crate::anvil::{CHALLENGE, FEE_BPS, Market, NOBODY, ROYALTY_BPS, key, manifest, usd};
use rialto_protocol::{
    ChannelParams, Digest, MicroDollars, NodeKey, ReceiptsHead, Region, Signature, SignedVoucher, Voucher,
    channel::{ChannelState, Split},
    claim::Claim,
};
use rialto_settlement::{Error, EventKind, Purse, Redeemed, Wallet};

async fn claim(market: &Market, channel: ChannelParams, cumulative: u64, amount: u64) -> Claim {
    let domain = market.chain.domain().await.unwrap();
    let voucher = Voucher {
        channel: channel.id(),
        cumulative: usd(cumulative),
        receipts_head: ReceiptsHead([6; 32]),
    };
    Claim {
        channel,
        voucher: voucher.sign(&domain, &market.session),
        amount: usd(amount),
    }
}

/// Redeems claims that all pay, in one batch.
async fn redeem(market: &Market, claims: &[Claim]) -> Redeemed {
    let done = market.provider.redeem(claims).await;
    assert_eq!((done.failed.as_slice(), done.skipped.as_slice()), (&[][..], &[][..]));
    assert_eq!(done.redeemed.len(), 1);
    done.redeemed.into_iter().next().unwrap()
}

fn split(from: u64, to: u64) -> Split {
    Split::between(usd(from), usd(to), ROYALTY_BPS, FEE_BPS)
}

#[tokio::test]
async fn a_channel_lives_from_deposit_to_withdrawal() {
    let market = Market::open().await;
    let (chain, buyer) = (&market.chain, &market.buyer);
    let total = market.all_money().await;
    buyer.deposit(usd(50_000_000)).await.unwrap();
    assert_eq!(chain.free_balance(buyer.address()).await.unwrap(), usd(50_000_000));

    let params = market.params(1);
    buyer.open(&params, usd(20_000_001)).await.unwrap();
    let direct = market.params(2);
    buyer.deposit_and_open(&direct, usd(7_777_777)).await.unwrap();
    buyer.top_up(&params, usd(9)).await.unwrap();
    let open = ChannelState {
        funded: usd(20_000_010),
        ..ChannelState::default()
    };
    assert_eq!(chain.channel(params.id()).await.unwrap(), open);

    // The provider claims less than was signed, in steps that leave remainders.
    let mut parts = [MicroDollars::ZERO; 3];
    let mut add = |paid: &Redeemed| {
        for (sum, part) in parts.iter_mut().zip([paid.provider, paid.royalty, paid.fee]) {
            *sum = sum.checked_add(part).unwrap();
        }
    };
    let first = redeem(&market, &[claim(&market, params, 3_333_333, 3_333_331).await]).await;
    assert_eq!((first.provider, first.royalty, first.fee), {
        let expected = split(0, 3_333_331);
        (expected.provider, expected.royalty, expected.fee)
    });
    assert_eq!(first.channels, vec![(params.id(), usd(3_333_331))]);
    add(&first);
    let claims = [
        claim(&market, params, 4_444_444, 4_444_444).await,
        claim(&market, direct, 7_000_003, 7_000_003).await,
    ];
    let second = redeem(&market, &claims).await;
    let (one, other) = (split(3_333_331, 4_444_444), split(0, 7_000_003));
    assert_eq!(second.provider.get(), one.provider.get() + other.provider.get());
    assert_eq!(second.royalty.get(), one.royalty.get() + other.royalty.get());
    assert_eq!(second.fee.get(), one.fee.get() + other.fee.get());
    add(&second);

    // Everybody has exactly that.
    assert_eq!(chain.token_balance(market.provider.address()).await.unwrap(), parts[0]);
    assert_eq!(chain.credit_of(market.publisher.address()).await.unwrap(), parts[1]);
    let holder = market.publisher.address();
    assert_eq!(chain.fees_of(holder).await.unwrap(), parts[2]);
    let none = market.fee_recipient.claim_credit().await.unwrap_err();
    assert_eq!(none.revert_name(), Some("ZeroAmount"), "fees are no royalties");
    market.publisher.claim_credit().await.unwrap();
    assert_eq!(
        chain.fees_of(holder).await.unwrap(),
        parts[2],
        "the holder cannot take the fees"
    );
    market.buyer.claim_fees(&[holder, holder]).await.unwrap();
    assert_eq!(chain.fees_of(holder).await.unwrap(), MicroDollars::ZERO);
    assert_eq!(chain.token_balance(market.publisher.address()).await.unwrap(), parts[1]);
    assert_eq!(
        chain.token_balance(market.fee_recipient.address()).await.unwrap(),
        parts[2]
    );

    close_and_withdraw(&market, params, direct).await;
    assert_eq!(market.all_money().await, total, "money was made or lost");
}

async fn close_and_withdraw(market: &Market, params: ChannelParams, direct: ChannelParams) {
    let (chain, buyer) = (&market.chain, &market.buyer);
    buyer.request_close(&params).await.unwrap();
    let closes_at = chain.channel(params.id()).await.unwrap().closes_at;
    assert_eq!(closes_at, chain.block_time().await.unwrap() + CHALLENGE);
    buyer.cancel_close(&params).await.unwrap();
    assert_eq!(chain.channel(params.id()).await.unwrap().closes_at, 0);
    buyer.request_close(&params).await.unwrap();
    let early = buyer.finalize_close(&params).await.unwrap_err();
    assert_eq!(early.revert_name(), Some("TooEarly"));

    // The provider is paid in full although a close was requested.
    let last = redeem(market, &[claim(market, params, 5_000_000, 5_000_000).await]).await;
    assert_eq!(last.channels, vec![(params.id(), usd(5_000_000))]);
    market.anvil.travel(CHALLENGE).await;
    buyer.finalize_close(&params).await.unwrap();
    market.provider.close_by_provider(&direct).await.unwrap();
    for (id, paid) in [(params.id(), 5_000_000), (direct.id(), 7_000_003)] {
        let state = chain.channel(id).await.unwrap();
        assert!(state.closed && !state.is_open());
        assert_eq!((state.funded, state.redeemed), (usd(paid), usd(paid)));
    }
    let free = chain.free_balance(buyer.address()).await.unwrap();
    assert_eq!(free.get(), 50_000_000 + 7_777_777 - 5_000_000 - 7_000_003);
    buyer.withdraw(free).await.unwrap();
    let left = chain.token_balance(chain.contracts().escrow).await.unwrap();
    assert!(left > MicroDollars::ZERO, "the last redeem's credits are still there");
    let again = buyer.open(&params, usd(1)).await.unwrap_err();
    assert_eq!(again.revert_name(), Some("InsufficientBalance"));
    let again = buyer.deposit_and_open(&params, usd(1)).await.unwrap_err();
    assert_eq!(
        again.revert_name(),
        Some("ChannelExists"),
        "a closed channel never opens again"
    );
}

#[tokio::test]
async fn bad_claims_are_skipped_and_the_good_ones_paid() {
    let market = Market::open().await;
    market.buyer.deposit(usd(1_000)).await.unwrap();
    let mut claims = Vec::new();
    for salt in 0..7 {
        market.buyer.open(&market.params(salt), usd(100)).await.unwrap();
        claims.push(claim(&market, market.params(salt), 50, 50).await);
    }
    let domain = market.chain.domain().await.unwrap();
    // Signed by a thief; more claimed than signed; closed; never opened; on another provider's channel.
    claims[1].voucher = claims[1].voucher.voucher.sign(&domain, &key(9));
    claims[2].amount = usd(51);
    market.provider.close_by_provider(&market.params(3)).await.unwrap();
    claims.push(claim(&market, market.params(99), 50, 50).await);
    let foreign = ChannelParams {
        provider: NOBODY,
        ..market.params(100)
    };
    market.buyer.open(&foreign, usd(100)).await.unwrap();
    claims.push(claim(&market, foreign, 50, 50).await);
    // More than the channel holds is paid up to what it holds; a turned recovery bit does not cost the provider.
    claims[4] = claim(&market, market.params(4), 1_000, 1_000).await;
    let SignedVoucher { voucher, signature } = claims[5].voucher;
    let mut bytes = signature.to_bytes();
    bytes[64] = 55 - bytes[64];
    let signature = Signature::from_bytes(&bytes).unwrap();
    claims[5].voucher = SignedVoucher { voucher, signature };

    let done = market.provider.redeem(&claims).await;
    assert_eq!(done.failed, []);
    let mut skipped = done.skipped.clone();
    skipped.sort();
    let mut expected: Vec<_> = [1, 2, 3, 7, 8].map(|i: usize| claims[i].channel.id()).into();
    expected.sort();
    assert_eq!(skipped, expected);
    let mut paid = done.redeemed[0].channels.clone();
    paid.sort();
    let mut expected = [(0, 50), (4, 100), (5, 50), (6, 50)].map(|(salt, paid)| (market.params(salt).id(), usd(paid)));
    expected.sort();
    assert_eq!(paid, expected);

    // Again: nothing is left to pay, and nothing is sent.
    let before = market.chain.block_number().await.unwrap();
    let again = market.provider.redeem(&claims).await;
    assert_eq!(
        (again.redeemed.len(), again.failed.len(), again.skipped.len()),
        (0, 0, 9)
    );
    assert_eq!(market.chain.block_number().await.unwrap(), before);
}

#[tokio::test]
async fn more_claims_than_a_batch_are_all_paid() {
    let market = Market::open().await;
    market.buyer.deposit(usd(100_000)).await.unwrap();
    let salts: Vec<u128> = (0..120).collect();
    let opened = salts.iter().map(|salt| {
        let (buyer, params) = (market.buyer.clone(), market.params(*salt));
        async move { buyer.open(&params, usd(500)).await }
    });
    for result in join_all(opened).await {
        result.unwrap();
    }
    let mut claims = Vec::new();
    for salt in salts {
        claims.push(claim(&market, market.params(salt), 123, 123).await);
    }
    let done = market.provider.redeem(&claims).await;
    assert_eq!((done.failed.len(), done.skipped.len()), (0, 0));
    assert_eq!(
        done.redeemed
            .iter()
            .map(|batch| batch.channels.len())
            .collect::<Vec<_>>(),
        vec![100, 20]
    );
    let received: u128 = done.redeemed.iter().map(|batch| batch.provider.get()).sum();
    assert_eq!(received, 120 * split(0, 123).provider.get());
}

/// Runs futures side by side.
async fn join_all<F>(futures: impl Iterator<Item = F>) -> Vec<F::Output>
where
    F: Future + Send + 'static,
    F::Output: Send,
{
    let tasks: Vec<_> = futures.map(tokio::spawn).collect();
    let mut results = Vec::new();
    for task in tasks {
        results.push(task.await.unwrap());
    }
    results
}

#[tokio::test]
async fn events_tell_the_whole_story_in_order() {
    let market = Market::open().await;
    let params = market.params(5);
    market.buyer.deposit_and_open(&params, usd(1_000)).await.unwrap();
    market.buyer.deposit(usd(10)).await.unwrap();
    market.buyer.top_up(&params, usd(10)).await.unwrap();
    let paid = redeem(&market, &[claim(&market, params, 400, 399).await]).await;
    market.buyer.request_close(&params).await.unwrap();
    market.buyer.cancel_close(&params).await.unwrap();
    market.provider.close_by_provider(&params).await.unwrap();

    let (events, next) = market.chain.events(0).await.unwrap();
    assert_eq!(next, market.chain.block_number().await.unwrap() + 1);
    let expected = split(0, 399);
    assert_eq!(
        events[0].kind,
        EventKind::Opened {
            params,
            amount: usd(1_000),
            from_balance: false,
        }
    );
    assert!(
        matches!(events[1].kind, EventKind::Deposited { payer, amount } if (payer, amount) == (params.payer, usd(10)))
    );
    assert!(
        matches!(events[2].kind, EventKind::ToppedUp { amount, funded, .. } if (amount, funded) == (usd(10), usd(1_010)))
    );
    assert_eq!((events[3].transaction, events[3].block), (paid.transaction, paid.block));
    assert_eq!(
        events[3].kind,
        EventKind::Redeemed {
            provider: market.provider.address(),
            amount: expected.provider,
            royalty: expected.royalty,
            fee: expected.fee,
            channels: vec![(params.id(), usd(399))],
            royalties: vec![(market.publisher.address(), expected.royalty)],
            fees: vec![(market.publisher.address(), expected.fee)],
        }
    );
    assert!(matches!(events[4].kind, EventKind::CloseRequested { channel, .. } if channel == params.id()));
    assert!(matches!(events[5].kind, EventKind::CloseCancelled { channel, .. } if channel == params.id()));
    assert!(matches!(events[6].kind, EventKind::Closed { remainder, .. } if remainder == usd(1_010 - 399)));
    assert_eq!(events.len(), 7);
    assert_eq!(market.chain.events(next).await.unwrap(), (Vec::new(), next));
}

#[tokio::test]
async fn hashes_of_vouchers_equal_the_escrows() {
    let market = Market::open().await;
    let domain = market.chain.domain().await.unwrap();
    for cumulative in [MicroDollars::ZERO, usd(1), MicroDollars::MAX] {
        let voucher = Voucher {
            channel: market.params(3).id(),
            cumulative,
            receipts_head: ReceiptsHead([0x5a; 32]),
        };
        let theirs = market.chain.voucher_digest(&voucher).await.unwrap();
        assert_eq!(voucher.digest(&domain), theirs);
    }
}

#[tokio::test]
async fn registries_say_what_was_registered() {
    let market = Market::open().await;
    let (chain, provider) = (&market.chain, &market.provider);
    assert_eq!(
        chain.royalty_of(market.model).await.unwrap(),
        Some((market.publisher.address(), ROYALTY_BPS))
    );
    assert_eq!(market.model, manifest().model_id(market.publisher.address()));
    let record = chain.model_of(market.model).await.unwrap().unwrap();
    assert_eq!(
        (record.manifest, record.licence.as_str()),
        (manifest().hash(), "MIT OR Apache-2.0")
    );
    let unknown = rialto_protocol::ModelId([1; 32]);
    assert_eq!(
        (
            chain.royalty_of(unknown).await.unwrap(),
            chain.model_of(unknown).await.unwrap()
        ),
        (None, None)
    );
    let again = market.publisher.register_model(&manifest()).await.unwrap();
    assert_eq!(again, market.model, "registering twice is harmless");

    assert_eq!(chain.provider_of(provider.address()).await.unwrap(), None);
    let (node, region) = (NodeKey([7; 32]), Region::from_name("eu-west").unwrap());
    let poor = provider
        .register_provider(usd(5), node, region, Digest([8; 32]))
        .await
        .unwrap_err();
    assert!(
        matches!(
            poor,
            Error::InsufficientFunds {
                purse: Purse::Token,
                ..
            }
        ),
        "{poor}"
    );
    provider.mint(provider.address(), usd(5)).await.unwrap();
    provider
        .register_provider(usd(5), node, region, Digest([8; 32]))
        .await
        .unwrap();
    provider
        .update_provider(NodeKey([9; 32]), region, Digest::default())
        .await
        .unwrap();
    let record = chain.provider_of(provider.address()).await.unwrap().unwrap();
    assert_eq!(
        (record.stake, record.node, record.region.name().as_str()),
        (usd(5), NodeKey([9; 32]), "eu-west")
    );
    assert!(record.active);
    let head = chain.block_number().await.unwrap();
    let named = chain.registered_nodes(0, head).await.unwrap();
    assert_eq!(
        named,
        [node, NodeKey([9; 32])],
        "as it was registered, and as it was changed"
    );
    assert_eq!(chain.fee_bps().await.unwrap(), FEE_BPS);
    assert_eq!(chain.fee_recipient().await.unwrap(), market.fee_recipient.address());
    assert_eq!(chain.challenge_period().await.unwrap(), CHALLENGE);
}

#[tokio::test]
async fn refusals_have_names_and_lack_of_money_is_told_apart() {
    let market = Market::open().await;
    let params = market.params(1);
    let poor = market.buyer.open(&params, usd(1)).await.unwrap_err();
    assert!(
        matches!(
            poor,
            Error::InsufficientFunds {
                purse: Purse::FreeBalance,
                ..
            }
        ),
        "{poor}"
    );
    let poor = market.buyer.deposit(usd(2_000_000_000)).await.unwrap_err();
    assert!(
        matches!(
            poor,
            Error::InsufficientFunds {
                purse: Purse::Token,
                ..
            }
        ),
        "{poor}"
    );
    let penniless = Wallet::new(market.chain.clone(), key(77));
    let poor = penniless.mint(penniless.address(), usd(1)).await.unwrap_err();
    assert!(
        matches!(poor, Error::InsufficientFunds { purse: Purse::Gas, .. }),
        "{poor}"
    );

    market.buyer.deposit(usd(10)).await.unwrap();
    market.buyer.open(&params, usd(1)).await.unwrap();
    let error = market.buyer.open(&params, usd(1)).await.unwrap_err();
    assert_eq!(
        error,
        Error::Reverted {
            reason: format!("ChannelExists(channelId: {})", params.id())
        }
    );
    let error = market.buyer.close_by_provider(&params).await.unwrap_err();
    assert_eq!(error.revert_name(), Some("NotProvider"));
    let error = market.buyer.claim_credit().await.unwrap_err();
    assert_eq!(error.revert_name(), Some("ZeroAmount"));
    let error = market.provider.request_close(&params).await.unwrap_err();
    assert!(
        matches!(error, Error::Invalid { .. }),
        "refused before it is sent: {error}"
    );
}
