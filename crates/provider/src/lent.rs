//! What buyers may spend before the chain knows their channels: bounded for each and in all, because it is lost where an
//! order never gets into a block.

use std::{
    collections::HashMap,
    sync::{Mutex, MutexGuard, PoisonError},
};

use rialto_protocol::{Address, MicroDollars};

use crate::config::RelayPolicy;

/// What is lent, by payer. What is not taken back stays counted: whoever's order failed is lent nothing more.
#[derive(Debug, Default)]
pub(crate) struct Lent(Mutex<HashMap<Address, MicroDollars>>);

/// What was lent to one payer.
#[must_use]
#[derive(Debug)]
pub(crate) struct Loan {
    payer: Address,
    pub(crate) amount: MicroDollars,
}

impl Lent {
    fn lock(&self) -> MutexGuard<'_, HashMap<Address, MicroDollars>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Lends what a payer may have, or what is left of all; `None` if that is nothing.
    pub(crate) fn lend(&self, payer: Address, policy: &RelayPolicy) -> Option<Loan> {
        let mut lent = self.lock();
        let own = lent.get(&payer).copied().unwrap_or_default();
        let all = lent
            .values()
            .try_fold(MicroDollars::ZERO, |sum, one| sum.checked_add(*one));
        let left = policy.credit_in_all.saturating_sub(all.unwrap_or(MicroDollars::MAX));
        let amount = policy.credit.saturating_sub(own).min(left);
        if amount == MicroDollars::ZERO {
            return None;
        }
        lent.insert(payer, own.checked_add(amount)?);
        Some(Loan { payer, amount })
    }

    /// A loan is paid for: the chain knows the channel. Or it was not used.
    pub(crate) fn take_back(&self, loan: &Loan) {
        let mut lent = self.lock();
        let left = lent
            .get(&loan.payer)
            .copied()
            .unwrap_or_default()
            .saturating_sub(loan.amount);
        if left == MicroDollars::ZERO {
            lent.remove(&loan.payer);
        } else {
            lent.insert(loan.payer, left);
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn policy(credit: u64, credit_in_all: u64) -> RelayPolicy {
        RelayPolicy {
            credit: MicroDollars::new(credit),
            credit_in_all: MicroDollars::new(credit_in_all),
            ..RelayPolicy::default()
        }
    }

    #[test]
    fn whoever_owes_is_lent_nothing_more() {
        let (lent, policy, payer) = (Lent::default(), policy(10, 25), |number| Address([number; 20]));
        let first = lent.lend(payer(1), &policy).unwrap();
        assert_eq!(first.amount, MicroDollars::new(10));
        assert!(lent.lend(payer(1), &policy).is_none());
        let _second = lent.lend(payer(2), &policy).unwrap();
        let third = lent.lend(payer(3), &policy).unwrap();
        assert_eq!(third.amount, MicroDollars::new(5), "what is left of all");
        assert!(lent.lend(payer(4), &policy).is_none());
        lent.take_back(&first);
        assert!(lent.lend(payer(1), &policy).is_some());
        assert!(
            Lent::default()
                .lend(
                    payer(1),
                    &RelayPolicy {
                        credit: MicroDollars::ZERO,
                        ..policy
                    }
                )
                .is_none()
        );
    }

    proptest! {
        #[test]
        fn no_more_is_lent_than_the_policy_says(
            steps in proptest::collection::vec((0_u8..6, 0_usize..8), 0..100),
            credit in 0_u64..20,
            in_all in 0_u64..60,
        ) {
            let (lent, policy) = (Lent::default(), policy(credit, in_all));
            let mut out: Vec<Loan> = Vec::new();
            for (payer, which) in steps {
                if which < out.len() {
                    lent.take_back(&out.swap_remove(which));
                }
                out.extend(lent.lend(Address([payer; 20]), &policy));
                let sum = |of: &dyn Fn(&Loan) -> bool| {
                    out.iter().filter(|loan| of(loan)).map(|loan| loan.amount.get()).sum::<u128>()
                };
                prop_assert!(sum(&|_| true) <= in_all.into());
                prop_assert!(sum(&|loan| loan.payer == Address([payer; 20])) <= credit.into());
            }
        }
    }
}
