//! One trace: a fresh market, and step after step by both the EVM and the model, compared after each.

use std::collections::{BTreeMap, VecDeque};

use alloy::primitives::{Address as EvmAddress, U256};
use anyhow::{Result, ensure};
use rialto_protocol::{
    Address, ChannelId, ChannelParams, Digest, Domain, MicroDollars, ModelId, channel::ChannelState,
};
use rialto_settlement::{ChainEvent, EscrowBooks, EventKind};

use crate::{
    abi::{Models, Token},
    evm::{CHAIN_ID, Evm, Outcome, Terms},
    model::{ModelTerms, Share, World, token},
    ops::{Op, evm},
    outcomes,
    parties::{Parties, Trade},
    rng::Rng,
};

/// When a trace begins, in seconds since 1970.
const BEGIN: u64 = 1_700_000_000;
/// Steps that are told when something is wrong.
const TOLD: usize = 12;
/// The most channels of one trace: each is compared after each step.
const MOST_CHANNELS: usize = 64;

/// How often each operation ended how.
pub(crate) type Tally = BTreeMap<(String, String), u64>;

/// A market in the EVM and its double.
pub(crate) struct Trace {
    pub(crate) rng: Rng,
    pub(crate) evm: Evm,
    pub(crate) world: World,
    pub(crate) parties: Parties,
    pub(crate) accounts: Vec<Address>,
    pub(crate) models: Vec<ModelId>,
    pub(crate) trades: Vec<Trade>,
    /// What production makes of the escrow's events; not with amounts beyond 96 bits, which no stablecoin has.
    books: Option<EscrowBooks>,
    /// The latest steps.
    told: VecDeque<String>,
    pub(crate) tally: Tally,
    steps: u64,
}

impl Trace {
    /// A market with its terms, accounts and money by chance.
    pub(crate) fn begin(seed: u64) -> Result<Self> {
        let mut rng = Rng::new(seed);
        let parties = Parties::new(&mut rng);
        let guarded = !rng.once_in(8);
        let fee_bps = *rng.pick(&[0, 1, 100, 100, 250, 999, 1_000]);
        let free = fee_bps == 0 && rng.once_in(2);
        let terms = Terms {
            guardian: if guarded {
                evm(parties.guardian())
            } else {
                EvmAddress::ZERO
            },
            fee_recipient: if free {
                EvmAddress::ZERO
            } else {
                evm(parties.fee_recipient())
            },
            fee_bps,
            challenge: *rng.pick(&[900, 3_600, 86_400, 30 * 86_400]),
        };
        let evm = Evm::deploy(&terms, BEGIN)?;
        let world = empty(&evm, &terms);
        let mut trace = Self {
            accounts: parties.accounts(),
            parties,
            rng,
            evm,
            world,
            models: Vec::new(),
            trades: Vec::new(),
            books: None,
            told: VecDeque::new(),
            tally: Tally::new(),
            steps: 0,
        };
        trace.endow()?;
        Ok(trace)
    }

    /// Money, approvals and models.
    fn endow(&mut self) -> Result<()> {
        let contracts = self.evm.contracts;
        let huge = self.rng.once_in(4);
        self.books = (!huge).then(EscrowBooks::default);
        for account in self.accounts.clone() {
            // One has more than a channel can hold, one has nothing.
            let amount = match self.rng.below(6) {
                0 if huge => 1 << 97,
                0 | 1 => 0,
                _ => u128::from(self.rng.below(1_000_000_000_000)),
            };
            let (to, amount256) = (evm(account), U256::from(amount));
            self.evm
                .must(to, contracts.token, &Token::mintCall { to, amount: amount256 })?;
            self.world.token.balances.insert(account, amount);
            if !self.rng.once_in(5) {
                let op = Op::Approve { amount: U256::MAX };
                self.step(account, &op)?;
            }
        }
        for number in 0..3u8 {
            let publisher = self.parties.others[usize::from(number % 2)].address();
            let royalty = u16::try_from(self.rng.below(1_001))?;
            let call = Models::registerCall {
                manifestHash: [number + 1; 32].into(),
                quantisation: "Q8_0".into(),
                licence: "MIT".into(),
                royaltyBps: royalty,
            };
            let id = ModelId(self.evm.must(evm(publisher), contracts.models, &call)?.0);
            let terms = ModelTerms {
                holder: publisher,
                rates: (0, royalty),
                from: 0,
            };
            self.world.models.insert(id, terms);
            self.models.push(id);
        }
        // One that nobody registered.
        self.models.push(ModelId([0x77; 32]));
        Ok(())
    }

    /// Chooses what happens next, lets it happen on both sides and compares them.
    pub(crate) fn advance(&mut self) -> Result<()> {
        self.pass_time();
        for _ in 0..self.rng.below(6) {
            self.trade()?;
        }
        let (from, op, honest) = self.choose();
        let open: Vec<_> = honest
            .into_iter()
            .filter(|(place, _)| self.state(*place).is_some_and(|state| !state.closed))
            .collect();
        self.step(from, &op)?;
        for (place, amount) in open {
            let redeemed = self.state(place).unwrap_or_default().redeemed;
            ensure!(
                redeemed >= amount,
                "an honest provider was not paid in full: {redeemed} of {amount}"
            );
        }
        if matches!(
            op,
            Op::Open { .. }
                | Op::OpenWithSig { .. }
                | Op::DepositAndOpen { .. }
                | Op::DepositAndOpenWithAuthorization { .. }
        ) {
            self.note_channel(from, &op);
        }
        for trade in &mut self.trades {
            if let Some(state) = self
                .world
                .channels
                .get(&trade.params.id())
                .filter(|state| !state.closed)
            {
                trade.fund(state.funded);
            }
        }
        Ok(())
    }

    /// What is known of the channel of a trade.
    pub(crate) fn state(&self, place: usize) -> Option<ChannelState> {
        let id = self.trades.get(place)?.params.id();
        self.world.channels.get(&id).copied()
    }

    fn pass_time(&mut self) {
        let seconds = match self.rng.below(60) {
            0 => self.world.challenge,
            1 => 8 * 86_400,
            2 => self.world.challenge.saturating_sub(1),
            3..20 => self.rng.below(3_600),
            _ => 0,
        };
        self.world.now += seconds;
        self.evm.travel_to(self.world.now);
    }

    /// Somebody uses a channel.
    fn trade(&mut self) -> Result<()> {
        let place = self.rng.index(self.trades.len());
        let open = self
            .state(place)
            .is_some_and(|state| !state.closed && state.closes_at == 0);
        if let Some(trade) = self.trades.get_mut(place).filter(|_| open) {
            trade.request(&self.parties, &self.world.domain, &mut self.rng)?;
        }
        Ok(())
    }

    fn note_channel(&mut self, from: Address, op: &Op) {
        let params = match op {
            Op::Open { params, .. } | Op::DepositAndOpen { params, .. } => ChannelParams { payer: from, ..*params },
            Op::OpenWithSig { params, .. } | Op::DepositAndOpenWithAuthorization { params, .. } => *params,
            _ => return,
        };
        let id = params.id();
        if self.world.channels.contains_key(&id) && self.trades.iter().all(|trade| trade.params.id() != id) {
            self.trades.push(Trade::new(params));
        }
    }

    /// Whether another channel may be opened.
    pub(crate) fn has_room(&self) -> bool {
        self.trades.len() < MOST_CHANNELS
    }

    /// One step on both sides.
    fn step(&mut self, from: Address, op: &Op) -> Result<()> {
        self.steps += 1;
        let (to, data) = op.encode(&self.evm.contracts);
        let real = self.evm.call(evm(from), to, data)?;
        let expected = self.world.apply(from, op);
        let ended = outcomes::name(&real);
        self.told
            .push_back(format!("at {} {from} {op:?}: {ended}", self.world.now));
        if self.told.len() > TOLD {
            self.told.pop_front();
        }
        ensure!(
            real == expected,
            "the EVM says {ended} {real:?}, and the model {} {expected:?}",
            outcomes::name(&expected)
        );
        let paid =
            matches!((&real, op), (Outcome::Returned(data), Op::Redeem { .. }) if data.iter().any(|byte| *byte != 0));
        let ended = if paid { "paid".to_owned() } else { ended };
        *self.tally.entry((outcomes::operation(op), ended)).or_default() += 1;
        self.book()?;
        self.compare()
    }

    /// Books what the escrow logged, and compares the books with the model.
    fn book(&mut self) -> Result<()> {
        let Some(books) = &mut self.books else {
            return Ok(());
        };
        for log in &self.evm.logs {
            let event = ChainEvent {
                block: self.steps,
                index: 0,
                transaction: Digest([0; 32]),
                kind: EventKind::of_log(log, self.world.token.address)?,
            };
            books.book(&event, self.world.fee_recipient)?;
        }
        let states = books.channels.iter().map(|(id, channel)| (id, &channel.state));
        ensure!(states.eq(&self.world.channels), "the mirror has other channels");
        let world = &self.world;
        let shares = |part: fn(&Share) -> u128| world.shares.iter().map(move |(account, share)| (account, part(share)));
        let balances = world.purses.iter().map(|(account, amount)| (account, *amount));
        same("balances", &books.balances, balances)?;
        same("royalties", &books.credits, shares(|share| share.royalty))?;
        same("fees", &books.fees, shares(|share| share.fee))
    }

    /// Every balance, every channel's slot, and that there is nothing else.
    fn compare(&mut self) -> Result<()> {
        for (id, state) in &self.world.channels {
            let word = self.evm.channel_word(id.0.into());
            ensure!(word == packed(state), "channel {id}: {word:#x} is not {state:?}");
        }
        let contracts = [self.world.token.escrow, Address([0; 20])];
        for account in self.accounts.iter().chain(&contracts) {
            let share = self.world.shares.get(account).copied().unwrap_or_default();
            let purse = self.world.purses.get(account).copied().unwrap_or_default();
            let address = evm(*account);
            ensure!(
                self.evm.purse(address) == U256::from(purse),
                "the balance of {account} is not {purse}"
            );
            let word = U256::from(share.fee) << 128 | U256::from(share.royalty);
            ensure!(
                self.evm.share(address) == word,
                "the credit of {account} is not {share:?}"
            );
            let tokens = self.world.token.balance(*account);
            ensure!(
                self.evm.tokens(address) == U256::from(tokens),
                "{account} does not hold {tokens}"
            );
        }
        ensure!(
            self.evm.escrow_words() == self.world.words(),
            "the escrow wrote something else"
        );
        let held = self.world.token.balance(self.world.token.escrow);
        ensure!(
            held == self.world.owed(),
            "invariant 1: {held} held, {} owed",
            self.world.owed()
        );
        for trade in &self.trades {
            let state = self.world.channels.get(&trade.params.id()).copied().unwrap_or_default();
            ensure!(state.redeemed <= state.funded, "invariant 2: {state:?}");
            ensure!(
                state.redeemed <= trade.promised(),
                "invariant 3: {state:?} of {}",
                trade.promised()
            );
        }
        if self.steps % 64 == 1 {
            self.compare_views()?;
        }
        Ok(())
    }

    /// The same by asking the contracts, for one account and one channel, and a voucher's digest.
    fn compare_views(&mut self) -> Result<()> {
        let account = *self.rng.pick(&self.accounts.clone());
        let channel = (!self.trades.is_empty()).then(|| {
            let place = self.rng.index(self.trades.len());
            self.trades[place].params
        });
        self.evm
            .check_views(evm(account), channel.map(|params| params.id().0.into()))?;
        self.evm
            .check_nonces(evm(account), self.world.nonce(account), self.world.token.nonce(account))?;
        self.evm.check_pauses(self.world.paused_until, self.world.next_pause)?;
        for (model, terms) in &self.world.models {
            let expected = (evm(terms.holder), terms.in_force(self.world.now));
            ensure!(
                self.evm.royalty(model.0.into())? == expected,
                "the royalty of {model} is not {expected:?}"
            );
        }
        if let Some(params) = channel {
            let (total, head) = (MicroDollars::new(self.rng.next()), self.rng.bytes());
            self.evm.check_digests(&self.world.domain, &params, total, head)?;
        }
        Ok(())
    }

    /// The latest steps, for whoever has to find out what went wrong.
    pub(crate) fn story(&self) -> String {
        let steps: Vec<_> = self.told.iter().map(String::as_str).collect();
        format!(
            "after {} steps, the last of them:\n  {}",
            self.steps,
            steps.join("\n  ")
        )
    }

    /// Ids of channels of this trace, for what refers to one.
    pub(crate) fn has(&self, id: ChannelId) -> bool {
        self.world.channels.contains_key(&id)
    }
}

/// Whether the mirror's amounts are these, but for zeros, which it leaves out.
fn same<'a>(
    what: &str,
    mirrored: &'a BTreeMap<Address, MicroDollars>,
    expected: impl Iterator<Item = (&'a Address, u128)>,
) -> Result<()> {
    let expected = expected.filter(|(_, amount)| *amount != 0);
    let equal = mirrored
        .iter()
        .map(|(account, amount)| (account, amount.get()))
        .eq(expected);
    ensure!(equal, "the mirror has other {what}");
    Ok(())
}

/// A channel's slot, as the contract packs it.
fn packed(state: &ChannelState) -> U256 {
    let flags = if state.closed { 3u64 } else { 1 };
    U256::from(state.funded.get())
        | U256::from(state.redeemed.get()) << 96
        | U256::from(state.closes_at) << 192
        | U256::from(flags) << 232
}

/// A market in which nothing has happened.
fn empty(evm: &Evm, terms: &Terms) -> World {
    let escrow = Address(evm.contracts.escrow.into_array());
    World {
        now: BEGIN,
        domain: Domain {
            chain_id: CHAIN_ID,
            escrow,
        },
        guardian: Address(terms.guardian.into_array()),
        fee_recipient: Address(terms.fee_recipient.into_array()),
        fee_bps: terms.fee_bps,
        challenge: terms.challenge,
        token: token::Token {
            address: Address(evm.contracts.token.into_array()),
            escrow,
            balances: BTreeMap::new(),
            allowances: BTreeMap::new(),
            nonces: BTreeMap::new(),
            used: std::collections::BTreeSet::new(),
        },
        models: BTreeMap::new(),
        purses: BTreeMap::new(),
        shares: BTreeMap::new(),
        channels: BTreeMap::new(),
        nonces: BTreeMap::new(),
        paused_until: 0,
        next_pause: 0,
    }
}
