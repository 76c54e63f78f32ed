//! Stake in and out, what is taken of it, and royalties that change: on anvil and on the development chain.

#![expect(clippy::unwrap_used, reason = "a test ends where it cannot go on")]

use crate::anvil::{NOBODY, ROYALTY_BPS, key, manifest, rich, usd};
use crate::node::Node;
use rialto_protocol::{
    Address, ChannelId, Digest, MicroDollars, ModelId, NanoDollars, NodeKey, Receipt, ReceiptStatus, ReceiptsHead,
    Region, RequestId, SignedReceipt, SigningKey, Usage,
};
use rialto_settlement::{
    Chain, DeployOptions, Deployment, Error, Unstaking, Wallet, deploy, fund_native, inspect, plan, verify,
};
use serde_json::json;

const DAY: u64 = 86_400;
const STAKE: MicroDollars = MicroDollars::new(100_000_000);
const CASE: Digest = Digest([0xca; 32]);

/// Contracts with a dispute account, a provider with stake, and others with coins for gas.
struct Stage {
    node: Node,
    chain: Chain,
    provider: Wallet,
    disputes: Wallet,
    recipient: Wallet,
    reporter: Wallet,
}

fn options() -> DeployOptions {
    DeployOptions {
        fee_recipient: key(4).address(),
        disputes: key(6).address(),
        slash_recipient: Some(key(7).address()),
        ..DeployOptions::default()
    }
}

impl Stage {
    async fn open(node: Node) -> Self {
        let deployed = deploy(node.url().as_str(), &rich(), &options()).await.unwrap();
        let chain = Chain::connect(node.url().as_str(), deployed.contracts).unwrap();
        for number in [2, 3, 6, 7, 8] {
            let account = key(number).address();
            fund_native(&chain, &rich(), account, 10u128.pow(18)).await.unwrap();
        }
        let wallet = |number| Wallet::new(chain.clone(), key(number));
        let provider = wallet(2);
        provider.mint(provider.address(), usd(150_000_000)).await.unwrap();
        let region = Region::from_name("eu-west").unwrap();
        provider
            .register_provider(STAKE, NodeKey([7; 32]), region, Digest::default())
            .await
            .unwrap();
        Self {
            provider,
            disputes: wallet(6),
            recipient: wallet(7),
            reporter: wallet(8),
            chain,
            node,
        }
    }

    async fn stake(&self) -> (u128, u128, bool) {
        let record = self.chain.provider_of(self.provider.address()).await.unwrap().unwrap();
        let leaving = self.chain.unstaking_of(self.provider.address()).await.unwrap();
        (record.stake.get(), leaving.amount.get(), record.active)
    }

    async fn signed(&self, key: &SigningKey, sequence: u64, answer: u8) -> SignedReceipt {
        let receipt = Receipt {
            channel: ChannelId([1; 32]),
            sequence,
            request: RequestId([3; 32]),
            model: ModelId([4; 32]),
            request_hash: Digest([5; 32]),
            response_hash: Digest([answer; 32]),
            usage: Usage { input: 7, output: 8 },
            cost: NanoDollars(9),
            total: NanoDollars(10),
            status: ReceiptStatus::Interrupted,
            finished_at: 11,
            region: Region::from_name("eu-west").unwrap(),
            energy_millijoules: 12,
            fingerprint_root: Digest([13; 32]),
            previous_head: ReceiptsHead([14; 32]),
        };
        receipt.sign(&self.chain.domain().await.unwrap(), key)
    }
}

#[tokio::test]
async fn stake_comes_and_goes_on_both_chains() {
    for node in Node::both().await {
        let stage = Stage::open(node).await;
        let (chain, provider) = (&stage.chain, &stage.provider);
        provider.add_stake(usd(20_000_000)).await.unwrap();
        assert_eq!(stage.stake().await, (120_000_000, 0, true));
        let poor = provider.add_stake(usd(31_000_000)).await.unwrap_err();
        assert!(matches!(poor, Error::InsufficientFunds { .. }), "{poor}");

        provider.request_unstake(usd(50_000_000)).await.unwrap();
        let delay = chain.unstake_delay().await.unwrap();
        assert_eq!(delay, 8 * DAY);
        let expected = Unstaking {
            amount: usd(50_000_000),
            available_at: chain.block_time().await.unwrap() + delay,
        };
        assert_eq!(chain.unstaking_of(provider.address()).await.unwrap(), expected);
        let early = provider.complete_unstake().await.unwrap_err();
        assert_eq!(early.revert_name(), Some("TooEarly"));
        stage.node.travel(delay).await;
        provider.complete_unstake().await.unwrap();
        assert_eq!(stage.stake().await, (70_000_000, 0, true));
        assert_eq!(chain.token_balance(provider.address()).await.unwrap(), usd(80_000_000));
        assert_eq!(chain.unstaking_of(NOBODY).await.unwrap(), Unstaking::default());
    }
}

#[tokio::test]
async fn a_freeze_ends_and_a_slash_reaches_what_is_leaving_on_both_chains() {
    for node in Node::both().await {
        let stage = Stage::open(node).await;
        let (chain, provider, disputes) = (&stage.chain, &stage.provider, &stage.disputes);
        let account = provider.address();
        let refused = stage.reporter.freeze(account, CASE).await.unwrap_err();
        assert_eq!(refused.revert_name(), Some("NotDisputes"));
        provider.request_unstake(usd(40_000_000)).await.unwrap();
        disputes.freeze(account, CASE).await.unwrap();
        let record = chain.provider_of(account).await.unwrap().unwrap();
        assert!(!record.active && !record.convicted);
        assert_eq!(record.frozen_until, chain.block_time().await.unwrap() + 30 * DAY);
        assert_eq!(
            chain.freezable_from(account).await.unwrap(),
            record.frozen_until + 7 * DAY
        );
        stage.node.travel(9 * DAY).await;
        let frozen = provider.complete_unstake().await.unwrap_err();
        assert_eq!(frozen.revert_name(), Some("Frozen"));

        let reporter = Some(stage.reporter.address());
        disputes.slash(account, STAKE, CASE, reporter).await.unwrap();
        assert_eq!(stage.stake().await, (60_000_000, 30_000_000, false));
        disputes.slash(account, STAKE, CASE, reporter).await.unwrap();
        assert_eq!(
            stage.stake().await,
            (60_000_000, 30_000_000, false),
            "once for an offence"
        );
        assert!(chain.is_judged(CASE).await.unwrap());
        disputes.unfreeze(account).await.unwrap();
        provider.complete_unstake().await.unwrap();
        assert_eq!(stage.stake().await, (60_000_000, 0, true));

        let credit = chain.stake_credit_of(stage.recipient.address()).await.unwrap();
        assert_eq!(credit, usd(9_500_000));
        stage.recipient.claim_stake_credit().await.unwrap();
        assert_eq!(chain.token_balance(stage.recipient.address()).await.unwrap(), credit);
    }
}

#[tokio::test]
async fn two_receipts_for_one_number_cost_the_whole_stake_on_both_chains() {
    for node in Node::both().await {
        let stage = Stage::open(node).await;
        let (chain, reporter) = (&stage.chain, &stage.reporter);
        let first = stage.signed(&key(2), 1, 6).await;
        let second = stage.signed(&key(2), 1, 7).await;
        for (one, other) in [
            (&first, &first),
            (&first, &stage.signed(&key(2), 2, 7).await),
            (&first, &stage.signed(&key(3), 1, 7).await),
        ] {
            let before = chain.block_number().await.unwrap();
            let error = reporter.prove_equivocation(one, other).await.unwrap_err();
            assert!(matches!(error, Error::Invalid { .. }), "{error}");
            assert_eq!(chain.block_number().await.unwrap(), before, "nothing was sent");
        }
        let (one, other) = (stage.signed(&key(3), 1, 6).await, stage.signed(&key(3), 1, 7).await);
        let stranger = reporter.prove_equivocation(&one, &other).await.unwrap_err();
        assert_eq!(stranger.revert_name(), Some("NotRegistered"));

        stage.provider.request_unstake(usd(30_000_000)).await.unwrap();
        reporter.prove_equivocation(&first, &second).await.unwrap();
        assert_eq!(stage.stake().await, (0, 0, false));
        let record = chain.provider_of(stage.provider.address()).await.unwrap().unwrap();
        assert!(record.convicted);
        assert_eq!(chain.stake_credit_of(reporter.address()).await.unwrap(), usd(5_000_000));
        let again = reporter.prove_equivocation(&second, &first).await.unwrap_err();
        assert_eq!(again.revert_name(), Some("ProviderConvicted"));
        let more = stage.provider.add_stake(usd(1)).await.unwrap_err();
        assert_eq!(more.revert_name(), Some("ProviderConvicted"));
        reporter.claim_stake_credit().await.unwrap();
        let paid = chain.token_balance(reporter.address()).await.unwrap();
        assert_eq!(paid, usd(5_000_000));
    }
}

#[tokio::test]
async fn a_royalty_falls_at_once_and_rises_after_a_week_on_both_chains() {
    for node in Node::both().await {
        let stage = Stage::open(node).await;
        let chain = &stage.chain;
        let publisher = Wallet::new(chain.clone(), key(3));
        let model = publisher.register_model(&manifest()).await.unwrap();
        let rate = async || chain.royalty_of(model).await.unwrap().unwrap();
        publisher.set_royalty(model, 100).await.unwrap();
        assert_eq!(rate().await, (publisher.address(), 100));
        assert_eq!(chain.pending_royalty_of(model).await.unwrap(), None);
        publisher.set_royalty(model, ROYALTY_BPS).await.unwrap();
        let from = chain.block_time().await.unwrap() + 7 * DAY;
        assert_eq!(
            chain.pending_royalty_of(model).await.unwrap(),
            Some((ROYALTY_BPS, from))
        );
        assert_eq!(rate().await.1, 100);
        stage.node.travel(7 * DAY).await;
        assert_eq!(rate().await.1, ROYALTY_BPS);
        assert_eq!(chain.pending_royalty_of(model).await.unwrap(), None);
        let greedy = publisher.set_royalty(model, 1_001).await.unwrap_err();
        assert_eq!(greedy.revert_name(), Some("RoyaltyTooHigh"));
        let foreign = stage.reporter.set_royalty(model, 1).await.unwrap_err();
        assert_eq!(foreign.revert_name(), Some("NotHolder"));
    }
}

#[tokio::test]
async fn a_deployment_is_planned_recorded_and_verified_on_both_chains() {
    for node in Node::both().await {
        let url = node.url();
        let development = DeployOptions::default();
        let planned = plan(&url, rich().address(), &development).await.unwrap();
        assert!(planned.test_dollar && planned.is_affordable());
        assert_eq!(planned.contracts.len(), 4);
        let before = balance(&url).await;
        let first = deploy(url.as_str(), &rich(), &development).await.unwrap();
        let spent = before - balance(&url).await;
        assert!(spent > 0 && spent <= planned.cost_wei_at_most, "{spent}: {planned:?}");
        let record = verify(&url, &first, &development, rich().address()).await.unwrap();
        assert!(record.test_dollar);
        assert_eq!(record.contracts.len(), 4);

        // A second market in a stablecoin that exists.
        let terms = DeployOptions {
            token: Some(first.contracts.token),
            fee_bps: 50,
            ..options()
        };
        let planned = plan(&url, rich().address(), &terms).await.unwrap();
        assert_eq!(planned.contracts.len(), 3);
        assert!(planned.test_dollar, "it is the same one that anybody mints");
        let second = deploy(url.as_str(), &rich(), &terms).await.unwrap();
        assert_eq!(second.contracts.token, first.contracts.token);
        let record = verify(&url, &second, &terms, rich().address()).await.unwrap();
        let providers = &record.contracts["Providers"].constructor;
        assert_eq!(providers["disputes"], json!(key(6).address()));
        assert_eq!(providers["slashRecipient"], json!(key(7).address()));
        let text = serde_json::to_string(&record).unwrap();
        assert_eq!(
            serde_json::from_str::<rialto_settlement::DeploymentRecord>(&text).unwrap(),
            record
        );

        // What was not asked for, and what is not there, is found.
        for other in [
            DeployOptions { fee_bps: 51, ..terms },
            DeployOptions {
                disputes: NOBODY,
                ..terms
            },
            DeployOptions {
                dispute_window: 1,
                ..terms
            },
            DeployOptions {
                token: Some(NOBODY),
                ..terms
            },
        ] {
            let error = verify(&url, &second, &other, rich().address()).await.unwrap_err();
            assert!(matches!(error, Error::Corrupt { .. }), "{error}");
        }
        let mut mixed = second;
        mixed.contracts.providers = first.contracts.providers;
        assert!(matches!(
            verify(&url, &mixed, &terms, rich().address()).await,
            Err(Error::Corrupt { .. })
        ));
        let gone = Deployment { chain_id: 5, ..second };
        assert!(matches!(
            inspect(&url, &gone, NOBODY).await,
            Err(Error::WrongChain { .. })
        ));
        let nothing = DeployOptions {
            token: Some(NOBODY),
            ..terms
        };
        let error = plan(&url, rich().address(), &nothing).await.unwrap_err();
        assert!(matches!(error, Error::NoContract { .. }), "{error}");
    }
}

async fn balance(url: &str) -> u128 {
    let nowhere = rialto_protocol::ticket::Contracts {
        token: Address::default(),
        escrow: Address::default(),
        providers: Address::default(),
        models: Address::default(),
    };
    let chain = Chain::connect(url, nowhere).unwrap();
    chain.native_balance(rich().address()).await.unwrap()
}
