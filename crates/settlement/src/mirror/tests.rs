//! The books follow every event, go back as far as is asked, and refuse what cannot be.

use proptest::prelude::*;
use rialto_protocol::{ChannelId, ChannelParams, Digest, MicroDollars, ModelId};

use super::*;
use crate::EventKind;

const FEES: Address = Address([0xfe; 20]);

fn usd(micro: u64) -> MicroDollars {
    MicroDollars::new(micro)
}

fn account(number: u8) -> Address {
    Address([number % 3; 20])
}

fn params(number: u8) -> ChannelParams {
    ChannelParams {
        payer: account(number),
        signer: Address([5; 20]),
        provider: Address([6; 20]),
        model: ModelId([7; 32]),
        token: Address([8; 20]),
        salt: u128::from(number),
    }
}

fn id(number: u8) -> ChannelId {
    params(number).id()
}

/// An event of some kind about some channel or account; most follow from what is booked, some do not.
fn kind(choice: u8, number: u8, amount: u64, books: &EscrowBooks) -> EventKind {
    let amount = usd(amount);
    let (channel, provider) = (id(number), Address([6; 20]));
    let state = books.channels.get(&channel).map(|one| one.state).unwrap_or_default();
    match choice {
        0 => EventKind::Deposited {
            payer: account(number),
            amount,
        },
        1 => EventKind::Withdrawn {
            payer: account(number),
            amount,
        },
        2 if amount.get().is_multiple_of(2) => EventKind::CreditClaimed {
            account: account(1),
            amount,
        },
        2 => {
            // The recipient itself stands for models that nobody holds; naming it twice changes nothing.
            let holders = vec![FEES, account(number), FEES];
            let named: std::collections::BTreeSet<_> = holders.iter().collect();
            let due = named.iter().filter_map(|holder| books.fees.get(holder));
            let amount = due.fold(usd(0), |sum, part| sum.checked_add(*part).unwrap());
            EventKind::FeesClaimed {
                recipient: FEES,
                amount,
                holders,
            }
        }
        3 | 4 => EventKind::Opened {
            params: params(number),
            amount,
            from_balance: choice == 3,
        },
        5 => {
            let funded = state.funded.checked_add(amount).unwrap();
            EventKind::ToppedUp {
                channel,
                provider,
                amount,
                funded,
            }
        }
        6 => EventKind::CloseRequested {
            channel,
            provider,
            closes_at: 99,
        },
        7 => EventKind::CloseCancelled { channel, provider },
        8 => EventKind::Closed {
            channel,
            payer: account(number),
            provider,
            remainder: state.remainder(),
        },
        _ => {
            let total = state.redeemed.checked_add(amount).unwrap();
            let royalty = usd(u64::try_from(amount.get() / 10).unwrap());
            EventKind::Redeemed {
                provider,
                amount: amount.saturating_sub(royalty).saturating_sub(royalty),
                royalty,
                fee: royalty,
                channels: vec![(channel, total)],
                royalties: vec![(account(1), royalty)],
                fees: vec![(account(number), royalty)],
            }
        }
    }
}

fn event(block: u64, kind: EventKind) -> ChainEvent {
    ChainEvent {
        block,
        index: 0,
        transaction: Digest([1; 32]),
        kind,
    }
}

type Rows = Vec<(u8, u8, u64, u64)>;

fn rows() -> impl Strategy<Value = Rows> {
    prop::collection::vec((0u8..10, 0u8..5, 0u64..60, 0u64..40), 1..80)
}

/// A trace that the books accept, with the events that they refused left out.
fn trace(rows: &Rows) -> Vec<ChainEvent> {
    let (mut ledger, mut block, mut taken) = (Ledger::new(FEES), 0, Vec::new());
    for (choice, number, amount, blocks) in rows {
        block += blocks;
        let event = event(block, kind(*choice, *number, *amount, ledger.books()));
        let before = ledger.clone();
        if ledger.advance(vec![event.clone()]).is_ok() {
            taken.push(event);
        } else {
            assert_eq!(ledger, before, "a refused event left a trace");
        }
    }
    taken
}

proptest! {
    #[test]
    fn going_back_and_forth_ends_where_going_straight_does(rows in rows(), cuts in prop::collection::vec(0u64..900, 0..4)) {
        let events = trace(&rows);
        let mut straight = Ledger::new(FEES);
        straight.advance(events.clone()).unwrap();
        let mut ledger = Ledger::new(FEES);
        ledger.advance(events.clone()).unwrap();
        for cut in cuts {
            let from = if ledger.rewind(cut).unwrap() { cut } else { 0 };
            let mut alone = EscrowBooks::default();
            for event in events.iter().filter(|event| event.block < from) {
                alone.book(event, FEES).unwrap();
            }
            prop_assert_eq!(ledger.books(), &alone, "after going back to {}", from);
            let again = events.iter().filter(|event| event.block >= from).cloned().collect();
            ledger.advance(again).unwrap();
            prop_assert_eq!(ledger.books(), straight.books());
        }
    }

    #[test]
    fn no_money_is_made_between_the_accounts(rows in rows()) {
        let mut books = EscrowBooks::default();
        let mut held = 0u128;
        for event in trace(&rows) {
            books.book(&event, FEES).unwrap();
            match &event.kind {
                EventKind::Deposited { amount, .. } | EventKind::Opened { amount, from_balance: false, .. } => held += amount.get(),
                EventKind::Withdrawn { amount, .. } | EventKind::CreditClaimed { amount, .. } | EventKind::FeesClaimed { amount, .. } => held -= amount.get(),
                EventKind::Redeemed { amount, .. } => held -= amount.get(),
                _ => {}
            }
            prop_assert_eq!(books.owed(), held);
            prop_assert!(books.channels.values().all(|one| one.state.redeemed <= one.state.funded));
        }
    }
}

#[test]
fn what_is_too_long_ago_has_to_be_read_again() {
    let deposit = |block| {
        event(
            block,
            EventKind::Deposited {
                payer: account(1),
                amount: usd(1),
            },
        )
    };
    let mut ledger = Ledger::new(FEES);
    ledger.advance(vec![deposit(1), deposit(1_000)]).unwrap();
    assert!(ledger.rewind(1_000).unwrap());
    assert_eq!(ledger.books().owed(), 1);
    assert!(!ledger.rewind(1).unwrap());
    assert_eq!(ledger, Ledger::new(FEES));
}

#[test]
fn what_cannot_be_is_the_nodes_fault() {
    let mut ledger = Ledger::new(FEES);
    let withdrawn = EventKind::Withdrawn {
        payer: account(1),
        amount: usd(1),
    };
    let refused = ledger.advance(vec![event(3, withdrawn)]).unwrap_err();
    assert!(matches!(refused, Error::Corrupt { .. }), "{refused}");
}
