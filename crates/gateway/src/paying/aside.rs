//! Money that is still in its place and spoken for: signed orders about it are with sellers, who take their time.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use rialto_protocol::{ChannelId, MicroDollars};
use rialto_settlement::Funds;

type Orders = HashMap<ChannelId, (Funds, MicroDollars)>;

/// What orders under way will take.
#[derive(Debug, Default, Clone)]
pub(super) struct Aside(Arc<Mutex<Orders>>);

/// An order under way until this is dropped.
#[must_use]
#[derive(Debug)]
pub(super) struct SetAside {
    aside: Aside,
    channel: ChannelId,
}

impl Drop for SetAside {
    fn drop(&mut self) {
        self.aside.lock().remove(&self.channel);
    }
}

impl Aside {
    /// Notes what the order to open a channel takes.
    pub(super) fn set(&self, channel: ChannelId, funds: Funds, amount: MicroDollars) -> SetAside {
        self.lock().insert(channel, (funds, amount));
        SetAside {
            aside: self.clone(),
            channel,
        }
    }

    /// What orders under way take of one place.
    pub(super) fn of(&self, place: Funds) -> MicroDollars {
        let orders = self.lock();
        let taken = orders.values().filter(|(funds, _)| *funds == place);
        taken.fold(MicroDollars::ZERO, |sum, (_, amount)| {
            sum.checked_add(*amount).unwrap_or(MicroDollars::MAX)
        })
    }

    fn lock(&self) -> MutexGuard<'_, Orders> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn money_is_spoken_for_while_its_order_is_under_way() {
        let (aside, amount) = (Aside::default(), MicroDollars::new);
        let first = aside.set(ChannelId([1; 32]), Funds::Account, amount(5));
        let second = aside.set(ChannelId([2; 32]), Funds::Account, amount(7));
        let third = aside.set(ChannelId([3; 32]), Funds::FreeBalance, amount(1));
        assert_eq!(
            (aside.of(Funds::Account), aside.of(Funds::FreeBalance)),
            (amount(12), amount(1))
        );
        drop(first);
        drop(third);
        assert_eq!(
            (aside.of(Funds::Account), aside.of(Funds::FreeBalance)),
            (amount(7), amount(0))
        );
        drop(second);
        assert_eq!(aside.of(Funds::Account), amount(0));
    }
}
