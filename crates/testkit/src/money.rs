//! Conservation: where every dollar of a market is, read from the chain alone.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Result, ensure};
use rialto_protocol::{Address, ChannelId, MicroDollars, channel::ChannelState};
use rialto_settlement::{Chain, EventKind};

/// Where the escrow's money is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Books {
    /// Every channel ever opened.
    pub channels: BTreeMap<ChannelId, ChannelState>,
    /// Sum of free balances and credits of all accounts that appear in events.
    pub free_and_credit: u128,
    /// What the escrow holds of the stablecoin.
    pub held: u128,
}

impl Books {
    /// Reads the books, and checks invariants 1 and 2 of the contracts' specification on them.
    ///
    /// They are read by many calls; when a block comes in between, they are read again.
    pub async fn check(chain: &Chain) -> Result<Self> {
        loop {
            let block = chain.block_number().await?;
            let books = Self::read(chain).await;
            if chain.block_number().await? == block {
                return books;
            }
        }
    }

    async fn read(chain: &Chain) -> Result<Self> {
        let (mut from, mut accounts, mut ids) = (0, BTreeSet::new(), BTreeSet::new());
        loop {
            let (events, next) = chain.events(from).await?;
            for event in &events {
                collect(&event.kind, &mut accounts, &mut ids);
            }
            if next == from {
                break;
            }
            from = next;
        }
        accounts.insert(chain.fee_recipient().await?);
        let mut channels = BTreeMap::new();
        for id in ids {
            let state = chain.channel(id).await?;
            ensure!(
                state.redeemed <= state.funded,
                "channel {id} paid out more than it was given: {state:?}"
            );
            channels.insert(id, state);
        }
        let mut free_and_credit = 0;
        for account in accounts {
            free_and_credit += chain.free_balance(account).await?.get()
                + chain.credit_of(account).await?.get()
                + chain.fees_of(account).await?.get();
        }
        let held = chain.token_balance(chain.contracts().escrow).await?.get();
        let in_channels: u128 = channels
            .values()
            .filter(|one| !one.closed)
            .map(|one| one.remainder().get())
            .sum();
        ensure!(
            held == free_and_credit + in_channels,
            "the escrow holds {held}, and owes {free_and_credit} of balances and {in_channels} of channels"
        );
        Ok(Self {
            channels,
            free_and_credit,
            held,
        })
    }

    /// What was paid out of all channels so far.
    pub fn redeemed(&self) -> MicroDollars {
        let sum: u128 = self.channels.values().map(|one| one.redeemed.get()).sum();
        MicroDollars::try_from(sum).unwrap_or(MicroDollars::MAX)
    }
}

fn collect(kind: &EventKind, accounts: &mut BTreeSet<Address>, ids: &mut BTreeSet<ChannelId>) {
    match kind {
        EventKind::Opened { params, .. } => {
            accounts.insert(params.payer);
            ids.insert(params.id());
        }
        EventKind::Redeemed { royalties, fees, .. } => {
            accounts.extend(royalties.iter().chain(fees).map(|(holder, _)| *holder));
        }
        EventKind::Deposited { payer, .. } => {
            accounts.insert(*payer);
        }
        EventKind::Withdrawn { .. }
        | EventKind::CreditClaimed { .. }
        | EventKind::FeesClaimed { .. }
        | EventKind::Paused { .. }
        | EventKind::Unpaused
        | EventKind::ToppedUp { .. }
        | EventKind::CloseRequested { .. }
        | EventKind::CloseCancelled { .. }
        | EventKind::Closed { .. } => {}
    }
}
