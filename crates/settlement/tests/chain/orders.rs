//! Orders that are signed here and sent by somebody else: the contracts accept exactly what was signed, once, and the
//! payer never has a coin. On anvil and on the development chain.

#![expect(clippy::unwrap_used, reason = "a test ends where it cannot go on")]

use crate::anvil::{CHALLENGE, key, manifest, options, rich, usd};
use crate::node::Node;
use rialto_protocol::{ChannelParams, MicroDollars, channel::ChannelState, order::Order, order::SignedOrder};
use rialto_settlement::{Chain, Error, Funds, Wallet, deploy, fund_native};

/// More than any relaying costs here.
const DEAR: u128 = 10u128.pow(18);

/// A buyer with a thousand dollars and no coin, and a relay with coins and no dollar.
struct Stage {
    node: Node,
    chain: Chain,
    buyer: Wallet,
    relay: Wallet,
    params: ChannelParams,
}

impl Stage {
    async fn set(node: Node) -> Self {
        let deployed = deploy(node.url().as_str(), &rich(), &options()).await.unwrap();
        let chain = Chain::connect(node.url().as_str(), deployed.contracts).unwrap();
        fund_native(&chain, &rich(), key(2).address(), DEAR).await.unwrap();
        let (buyer, relay) = (Wallet::new(chain.clone(), key(1)), Wallet::new(chain.clone(), key(2)));
        relay.mint(buyer.address(), usd(1_000)).await.unwrap();
        let params = ChannelParams {
            payer: buyer.address(),
            signer: key(5).address(),
            provider: relay.address(),
            model: manifest().model_id(key(3).address()),
            token: deployed.contracts.token,
            salt: (1 << 96) - 1,
        };
        Self {
            node,
            chain,
            buyer,
            relay,
            params,
        }
    }

    /// Ten minutes from now.
    async fn soon(&self) -> u64 {
        self.chain.block_time().await.unwrap() + 600
    }

    async fn relay(&self, order: &SignedOrder) {
        self.relay.relay(order, DEAR).await.unwrap();
        let again = self.relay.relay(order, DEAR).await.unwrap_err();
        assert!(again.revert_name().is_some(), "carried out twice: {again}");
    }

    /// In the account, and free in the escrow.
    async fn money(&self) -> (u128, u128) {
        let account = self.buyer.address();
        let coins = self.chain.native_balance(account).await.unwrap();
        assert_eq!(coins, 0, "the buyer never has a coin");
        let (outside, free) = (
            self.chain.token_balance(account).await.unwrap(),
            self.chain.free_balance(account).await.unwrap(),
        );
        (outside.get(), free.get())
    }

    fn salted(&self, salt: u128) -> ChannelParams {
        ChannelParams { salt, ..self.params }
    }
}

#[tokio::test]
async fn a_payer_without_a_coin_deposits_opens_closes_and_withdraws_on_both_chains() {
    for node in Node::both().await {
        let stage = Stage::set(node).await;
        let (chain, buyer, until) = (&stage.chain, &stage.buyer, stage.soon().await);
        let own = buyer.deposit(usd(1)).await.unwrap_err();
        assert!(matches!(own, Error::InsufficientFunds { .. }), "{own}");

        stage.relay(&buyer.sign_deposit(usd(300), until).await.unwrap()).await;
        assert_eq!(stage.money().await, (700, 300));
        let direct = stage.params;
        let order = buyer.sign_open(&direct, usd(400), Funds::Account, until).await.unwrap();
        assert!(!chain.authorization_used(&order.order).await.unwrap());
        stage.relay(&order).await;
        assert!(chain.authorization_used(&order.order).await.unwrap());
        assert_eq!(stage.money().await, (300, 300));
        let second = stage.salted(2);
        let order = buyer
            .sign_open(&second, usd(250), Funds::FreeBalance, until)
            .await
            .unwrap();
        stage.relay(&order).await;
        assert_eq!(stage.money().await, (300, 50));
        for (params, funded) in [(direct, 400), (second, 250)] {
            let expected = ChannelState {
                funded: usd(funded),
                ..ChannelState::default()
            };
            assert_eq!(chain.channel(params.id()).await.unwrap(), expected);
        }

        stage
            .relay(&buyer.sign_request_close(&second, until).await.unwrap())
            .await;
        stage.relay.close_by_provider(&direct).await.unwrap();
        stage.node.travel(CHALLENGE).await;
        stage.relay.finalize_close(&second).await.unwrap();
        assert_eq!(stage.money().await, (300, 700));
        let until = stage.soon().await;
        stage.relay(&buyer.sign_withdraw(usd(650), until).await.unwrap()).await;
        stage.relay(&buyer.sign_withdraw(usd(50), until).await.unwrap()).await;
        assert_eq!(stage.money().await, (1_000, 0));
        assert_eq!(chain.order_nonce(buyer.address()).await.unwrap(), 3);
    }
}

#[tokio::test]
async fn what_was_not_signed_is_too_late_or_too_dear_is_not_sent() {
    for node in Node::both().await {
        let stage = Stage::set(node).await;
        let (buyer, until) = (&stage.buyer, stage.soon().await);
        stage.relay(&buyer.sign_deposit(usd(500), until).await.unwrap()).await;
        let before = stage.chain.block_number().await.unwrap();
        let orders = [
            buyer.sign_deposit(usd(1), until).await.unwrap(),
            buyer
                .sign_open(&stage.params, usd(1), Funds::Account, until)
                .await
                .unwrap(),
            buyer
                .sign_open(&stage.params, usd(1), Funds::FreeBalance, until)
                .await
                .unwrap(),
            buyer.sign_withdraw(usd(1), until).await.unwrap(),
        ];
        for signed in orders {
            let needed = stage.relay.try_order(&signed).await.unwrap();
            assert!(needed.gas > 21_000 && needed.cost > 0, "{needed:?}");
            let dear = stage.relay.relay(&signed, needed.cost / 1_000).await.unwrap_err();
            assert!(matches!(dear, Error::TooExpensive { .. }), "{dear}");
            for changed in altered(signed) {
                let refused = stage.relay.relay(&changed, DEAR).await.unwrap_err();
                assert!(
                    matches!(refused, Error::Reverted { .. } | Error::Invalid { .. }),
                    "{changed:?}: {refused}"
                );
            }
        }
        // A signature of somebody else, and one that is too old.
        let thief = Wallet::new(stage.chain.clone(), key(9));
        let mut stolen = thief.sign_withdraw(usd(1), until).await.unwrap();
        stolen.order = buyer.sign_withdraw(usd(1), until).await.unwrap().order;
        assert!(stage.relay.relay(&stolen, DEAR).await.is_err());
        let foreign = thief
            .sign_open(&stage.params, usd(1), Funds::Account, until)
            .await
            .unwrap_err();
        assert!(matches!(foreign, Error::Invalid { .. }), "{foreign}");
        let late = [
            buyer.sign_deposit(usd(1), until).await.unwrap(),
            buyer.sign_withdraw(usd(1), until).await.unwrap(),
        ];
        stage.node.travel(601).await;
        for order in late {
            let refused = stage.relay.relay(&order, DEAR).await.unwrap_err();
            assert!(matches!(refused, Error::Reverted { .. }), "{refused}");
        }
        assert_eq!(
            stage.chain.block_number().await.unwrap(),
            before + 1,
            "only the clock's own block: nothing was sent"
        );
        assert_eq!(stage.money().await, (500, 500));
    }
}

/// The same signature under something that the payer did not sign.
fn altered(signed: SignedOrder) -> Vec<SignedOrder> {
    let more = |amount: MicroDollars| amount.checked_add(usd(1)).unwrap();
    let mut elsewhere = signed;
    elsewhere.domain.chain_id += 1;
    let mut orders = Vec::new();
    let mut change = |alter: &dyn Fn(&mut Order)| {
        let mut order = signed.order;
        alter(&mut order);
        if order != signed.order {
            orders.push(SignedOrder { order, ..signed });
        }
    };
    change(&|order| match order {
        Order::Open { amount, .. }
        | Order::DepositAndOpen { amount, .. }
        | Order::Deposit { amount, .. }
        | Order::Withdraw { amount, .. } => *amount = more(*amount),
        Order::RequestClose { .. } => {}
    });
    change(&|order| match order {
        Order::Open { deadline, .. } | Order::RequestClose { deadline, .. } | Order::Withdraw { deadline, .. } => {
            *deadline += 1;
        }
        Order::DepositAndOpen { valid_before, .. } | Order::Deposit { valid_before, .. } => *valid_before += 1,
    });
    change(&|order| match order {
        Order::Open { channel, .. } | Order::DepositAndOpen { channel, .. } | Order::RequestClose { channel, .. } => {
            channel.provider = key(9).address();
        }
        Order::Deposit { salt, .. } => salt.0[0] ^= 1,
        Order::Withdraw { payer, .. } => *payer = key(9).address(),
    });
    orders.push(elsewhere);
    orders
}
