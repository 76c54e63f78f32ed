//! What happens next: mostly what makes sense, often what does not.

use alloy::primitives::U256;
use rialto_protocol::{Address, ChannelParams, Digest, MicroDollars, ModelId, order::Order};

use crate::{
    claims,
    model::books::micro,
    ops::Op,
    orders::{Authorization, Permit, sign},
    trace::Trace,
};

/// The largest amount of calldata.
const MOST: u128 = u128::MAX >> 32;

/// Honest claims of a batch: the channel's place, and what has to be paid out of it in all.
type Honest = Vec<(usize, MicroDollars)>;

impl Trace {
    /// Who does what, and what an honest provider must have got by it.
    pub(crate) fn choose(&mut self) -> (Address, Op, Honest) {
        let (from, op) = match self.rng.below(100) {
            0..30 => {
                let (trades, parties) = (&mut self.trades, &self.parties);
                let batch = claims::batch(trades, parties, &self.world.domain, &mut self.rng);
                if let Some((provider, batch)) = batch {
                    let groups = batch
                        .groups
                        .into_iter()
                        .map(|(model, claims)| (model, claims.into()))
                        .collect();
                    return (provider, Op::Redeem { groups }, batch.honest);
                }
                self.open()
            }
            30..44 => self.open(),
            44..54 => self.deposit(),
            54..62 => self.withdraw(),
            62..72 => self.top_up(),
            72..88 => self.close(),
            88..93 => self.claim(),
            _ => self.rule(),
        };
        (from, op, Vec::new())
    }

    fn account(&mut self) -> Address {
        *self.rng.pick(&self.accounts)
    }

    fn payer(&mut self) -> Address {
        let place = self.rng.index(self.parties.payers.len());
        self.parties.payers[place].address()
    }

    /// Mostly this one, sometimes somebody.
    fn mostly(&mut self, one: Address) -> Address {
        if self.rng.once_in(10) { self.account() } else { one }
    }

    /// An amount that may come out of this much, mostly.
    fn amount(&mut self, of: u128) -> u128 {
        let amount = match self.rng.below(24) {
            0 => 0,
            1 => 1,
            2 => of,
            3 => of.saturating_add(1),
            4 => MOST,
            5..12 => of / 2,
            _ => u128::from(self.rng.below(20_000_000)),
        };
        amount.min(MOST)
    }

    fn purse(&self, account: Address) -> u128 {
        self.world.purses.get(&account).copied().unwrap_or_default()
    }

    /// A channel that is there, or nearly that.
    fn channel(&mut self) -> ChannelParams {
        let place = self.rng.index(self.trades.len());
        let Some(mut params) = self.trades.get(place).map(|trade| trade.params) else {
            return self.new_channel();
        };
        match self.rng.below(24) {
            0 => params.salt += 1,
            1 => params.provider = self.account(),
            2 => params.payer = self.account(),
            3 => params.model = ModelId(self.rng.bytes()),
            _ => {}
        }
        params.salt &= MOST;
        params
    }

    fn new_channel(&mut self) -> ChannelParams {
        let (sessions, providers) = (self.parties.sessions.len(), self.parties.providers.len());
        let (session, provider) = (self.rng.index(sessions), self.rng.index(providers));
        ChannelParams {
            payer: self.payer(),
            signer: self.parties.sessions[session].address(),
            provider: self.parties.providers[provider].address(),
            model: *self.rng.pick(&self.models),
            token: self.world.token.address,
            salt: if self.rng.once_in(10) {
                MOST
            } else {
                u128::from(self.rng.below(1_000))
            },
        }
    }

    /// Signed by this account, mostly.
    fn signed(&mut self, account: Address, digest: &Digest) -> [u8; 65] {
        let signer = self.mostly(account);
        let mut signature = sign(self.parties.key(signer), digest);
        if self.rng.once_in(10) {
            let bit = self.rng.index(65 * 8);
            signature[bit / 8] ^= 1 << (bit % 8);
        }
        signature
    }

    /// In the future, mostly.
    fn deadline(&mut self) -> u64 {
        match self.rng.below(10) {
            0 => self.world.now.saturating_sub(1 + self.rng.below(100)),
            1 => self.world.now,
            _ => self.world.now + 1_000,
        }
    }

    /// An authorization of the token for an order: good at once, as production makes it, or from some time on.
    fn authorization(&mut self, amount: u128, order: impl Fn(u64) -> Order) -> ((u64, u64), [u8; 65]) {
        let after = match self.rng.below(12) {
            0 => self.world.now,
            1..6 => self.world.now - 1,
            _ => 0,
        };
        let window = (after, self.deadline().saturating_add(1));
        let order = order(window.1);
        let authorization = Authorization {
            from: order.payer(),
            to: self.world.token.escrow,
            amount,
            after: window.0,
            before: window.1,
            nonce: order.authorization_nonce().unwrap_or(Digest([0; 32])).0,
        };
        let digest = match after {
            0 => self.world.digest(&order),
            _ => authorization.digest(self.world.token.address),
        };
        (window, self.signed(order.payer(), &digest))
    }

    fn open(&mut self) -> (Address, Op) {
        // Sometimes one that was there before.
        let fresh = self.has_room() && !self.rng.once_in(12);
        let params = if fresh { self.new_channel() } else { self.channel() };
        // No more channels than can be compared after each step.
        if !self.has_room() && !self.has(params.id()) {
            return self.close();
        }
        let payer = params.payer;
        match self.rng.below(4) {
            0 => (
                payer,
                Op::Open {
                    params,
                    amount: {
                        let of = self.purse(payer);
                        self.amount(of)
                    },
                },
            ),
            1 => {
                let of = self.purse(payer);
                let (amount, deadline) = (self.amount(of), self.deadline());
                let order = Order::Open {
                    channel: params,
                    amount: micro(amount),
                    deadline,
                };
                let digest = self.world.digest(&order);
                let signature = self.signed(payer, &digest);
                (
                    self.account(),
                    Op::OpenWithSig {
                        params,
                        amount,
                        signature,
                        deadline,
                    },
                )
            }
            2 => {
                let of = self.world.token.balance(payer);
                (
                    payer,
                    Op::DepositAndOpen {
                        params,
                        amount: self.amount(of),
                    },
                )
            }
            _ => {
                let of = self.world.token.balance(payer);
                let amount = self.amount(of);
                let (window, signature) = self.authorization(amount, |valid_before| Order::DepositAndOpen {
                    channel: params,
                    amount: micro(amount),
                    valid_before,
                });
                (
                    self.account(),
                    Op::DepositAndOpenWithAuthorization {
                        params,
                        amount,
                        window,
                        signature,
                    },
                )
            }
        }
    }

    fn deposit(&mut self) -> (Address, Op) {
        let payer = self.payer();
        let of = self.world.token.balance(payer);
        let amount = self.amount(of);
        match self.rng.below(4) {
            0 | 1 => (payer, Op::Deposit { amount }),
            2 => {
                let deadline = self.deadline();
                let permit = Permit {
                    owner: payer,
                    spender: self.world.token.escrow,
                    amount,
                    nonce: self.world.token.nonce(payer),
                    deadline,
                };
                let digest = permit.digest(self.world.token.address);
                let signature = self.signed(payer, &digest);
                let from = if self.rng.once_in(2) { payer } else { self.account() };
                (
                    from,
                    Op::DepositWithPermit {
                        payer,
                        amount,
                        deadline,
                        signature,
                    },
                )
            }
            _ => {
                // Few salts, so that some come twice.
                let mut salt = [0; 32];
                salt[31] = u8::try_from(self.rng.below(5)).unwrap_or(0);
                let (window, signature) = self.authorization(amount, |valid_before| Order::Deposit {
                    payer,
                    amount: micro(amount),
                    valid_before,
                    salt: Digest(salt),
                });
                (
                    self.account(),
                    Op::DepositWithAuthorization {
                        payer,
                        amount,
                        window,
                        salt,
                        signature,
                    },
                )
            }
        }
    }

    fn withdraw(&mut self) -> (Address, Op) {
        let payer = self.payer();
        let of = self.purse(payer);
        let amount = self.amount(of);
        if self.rng.once_in(2) {
            return (payer, Op::Withdraw { amount });
        }
        let deadline = self.deadline();
        let nonce = self.world.nonce(payer) + u64::from(self.rng.once_in(10));
        let order = Order::Withdraw {
            payer,
            amount: micro(amount),
            nonce,
            deadline,
        };
        let digest = self.world.digest(&order);
        let signature = self.signed(payer, &digest);
        (
            self.account(),
            Op::WithdrawWithSig {
                payer,
                amount,
                signature,
                deadline,
            },
        )
    }

    fn top_up(&mut self) -> (Address, Op) {
        let params = self.channel();
        let of = self.purse(params.payer);
        let amount = self.amount(of);
        (self.mostly(params.payer), Op::TopUp { params, amount })
    }

    fn close(&mut self) -> (Address, Op) {
        let params = self.channel();
        match self.rng.below(8) {
            0 if self.rng.once_in(2) => (self.mostly(params.provider), Op::CloseByProvider { params }),
            0..3 => (self.mostly(params.payer), Op::RequestClose { params }),
            3 => {
                let deadline = self.deadline();
                let nonce = self.world.nonce(params.payer) + u64::from(self.rng.once_in(10));
                let order = Order::RequestClose {
                    channel: params,
                    nonce,
                    deadline,
                };
                let digest = self.world.digest(&order);
                let signature = self.signed(params.payer, &digest);
                (
                    self.account(),
                    Op::RequestCloseWithSig {
                        params,
                        signature,
                        deadline,
                    },
                )
            }
            4 | 5 => (self.mostly(params.payer), Op::CancelClose { params }),
            _ => (self.account(), Op::FinalizeClose { params }),
        }
    }

    fn claim(&mut self) -> (Address, Op) {
        let owed: Vec<_> = self.world.shares.keys().copied().collect();
        let account = match owed.get(self.rng.index(owed.len())) {
            Some(account) if !self.rng.once_in(8) => *account,
            _ => self.account(),
        };
        if self.rng.once_in(2) {
            return (self.account(), Op::ClaimCredit { account });
        }
        let mut holders = vec![account, self.account()];
        if self.rng.once_in(4) {
            holders.push(account);
        }
        (self.account(), Op::ClaimFees { holders })
    }

    /// What is not about money: pauses, royalties, models sold, approvals.
    fn rule(&mut self) -> (Address, Op) {
        let model = *self.rng.pick(&self.models);
        let holder = self
            .world
            .models
            .get(&model)
            .map_or(self.parties.stranger(), |terms| terms.holder);
        match self.rng.below(8) {
            0 => (self.mostly(self.parties.guardian()), Op::Pause),
            1 | 2 => (self.mostly(self.parties.guardian()), Op::EndPause),
            3 | 4 => {
                let bps = u16::try_from(self.rng.below(1_050)).unwrap_or(0);
                (self.mostly(holder), Op::SetRoyalty { model, bps })
            }
            5 => {
                let (from, to) = (self.mostly(holder), self.account());
                (
                    from,
                    Op::SellModel {
                        model,
                        from: holder,
                        to,
                    },
                )
            }
            _ => {
                let amount = if self.rng.once_in(3) {
                    U256::from(self.rng.below(100_000_000))
                } else {
                    U256::MAX
                };
                (self.payer(), Op::Approve { amount })
            }
        }
    }
}
