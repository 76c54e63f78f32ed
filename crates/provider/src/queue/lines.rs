//! Lines of requests that wait, one for each payer: whoever has the fewest requests let in is next, so that the time of
//! the slots is shared equally among those who want it, however many requests one of them sends.
//!
//! Pure: no clock, no tasks. What waits is any `T`.

use std::collections::{BTreeMap, VecDeque};

use rialto_protocol::Address;

/// Names a request that waits.
pub(crate) type Ticket = u64;

/// The lines of all payers.
#[derive(Debug)]
pub(crate) struct Lines<T> {
    payers: BTreeMap<Address, Payer<T>>,
    waiting: usize,
    admitted: usize,
    serial: Ticket,
    /// How much slot time a payer had when it was let in last, in microseconds. Whoever comes anew starts here: it owes
    /// nothing for the time before, and has saved nothing up either.
    clock: u64,
}

#[derive(Debug)]
struct Payer<T> {
    line: VecDeque<(Ticket, T)>,
    /// Requests that were let in and have not ended.
    admitted: usize,
    /// Slot time that its requests took, in microseconds.
    used: u64,
}

impl<T> Default for Lines<T> {
    fn default() -> Self {
        Self {
            payers: BTreeMap::new(),
            waiting: 0,
            admitted: 0,
            serial: 0,
            clock: 0,
        }
    }
}

impl<T> Lines<T> {
    /// Requests that wait.
    pub(crate) fn waiting(&self) -> usize {
        self.waiting
    }

    /// Requests that were let in and have not ended.
    pub(crate) fn admitted(&self) -> usize {
        self.admitted
    }

    /// Requests of a payer that wait.
    pub(crate) fn line(&self, payer: &Address) -> usize {
        self.payers.get(payer).map_or(0, |one| one.line.len())
    }

    /// Requests in the longest line.
    pub(crate) fn longest(&self) -> usize {
        self.payers.values().map(|one| one.line.len()).max().unwrap_or(0)
    }

    /// Payers that have requests waiting.
    pub(crate) fn waiting_payers(&self) -> impl Iterator<Item = &Address> {
        let waiting = self.payers.iter().filter(|(_, one)| !one.line.is_empty());
        waiting.map(|(payer, _)| payer)
    }

    /// Puts a request at the end of its payer's line.
    pub(crate) fn push(&mut self, payer: Address, waiter: T) -> Ticket {
        self.serial = self.serial.saturating_add(1);
        let ticket = self.serial;
        self.payer(payer).line.push_back((ticket, waiter));
        self.waiting += 1;
        ticket
    }

    /// Puts a request at the front of its payer's line: one that was let in before.
    pub(crate) fn push_front(&mut self, payer: Address, waiter: T) -> Ticket {
        self.serial = self.serial.saturating_add(1);
        let ticket = self.serial;
        self.payer(payer).line.push_front((ticket, waiter));
        self.waiting += 1;
        ticket
    }

    fn payer(&mut self, payer: Address) -> &mut Payer<T> {
        let clock = self.clock;
        self.payers.entry(payer).or_insert_with(|| Payer {
            line: VecDeque::new(),
            admitted: 0,
            used: clock,
        })
    }

    /// Lets in the next request: of the payer with the fewest let in, of several the one that had the least slot time,
    /// of several the one whose request came first.
    pub(crate) fn next(&mut self) -> Option<(Address, T)> {
        let waiting = self.payers.iter().filter_map(|(payer, one)| {
            let (ticket, _) = one.line.front()?;
            Some(((one.admitted, one.used, *ticket), *payer))
        });
        let (_, payer) = waiting.min_by_key(|(rank, _)| *rank)?;
        let one = self.payers.get_mut(&payer)?;
        let (_, waiter) = one.line.pop_front()?;
        one.admitted += 1;
        self.clock = self.clock.max(one.used);
        self.waiting -= 1;
        self.admitted += 1;
        Some((payer, waiter))
    }

    /// Notes the end of a request that was let in, and the slot time that it took, in microseconds.
    pub(crate) fn end(&mut self, payer: &Address, used: u64) {
        let Some(one) = self.payers.get_mut(payer).filter(|one| one.admitted > 0) else {
            return;
        };
        one.admitted -= 1;
        one.used = one.used.saturating_add(used);
        self.admitted -= 1;
        self.forget(payer);
    }

    /// Takes a request that waits out of its line; `None` when it does not wait any more.
    pub(crate) fn remove(&mut self, payer: &Address, ticket: Ticket) -> Option<T> {
        let line = &mut self.payers.get_mut(payer)?.line;
        let place = line.iter().position(|(one, _)| *one == ticket)?;
        let (_, waiter) = line.remove(place)?;
        self.waiting -= 1;
        self.forget(payer);
        Some(waiter)
    }

    /// Takes the last request out of the longest line, if that line is longer than `least`.
    pub(crate) fn displace(&mut self, least: usize) -> Option<(Address, T)> {
        let longest = self.payers.iter().max_by_key(|(_, one)| one.line.len());
        let payer = longest
            .filter(|(_, one)| one.line.len() > least)
            .map(|(payer, _)| *payer)?;
        let (_, waiter) = self.payers.get_mut(&payer)?.line.pop_back()?;
        self.waiting -= 1;
        self.forget(&payer);
        Some((payer, waiter))
    }

    fn forget(&mut self, payer: &Address) {
        let idle = |one: &Payer<T>| one.line.is_empty() && one.admitted == 0;
        if self.payers.get(payer).is_some_and(idle) {
            self.payers.remove(payer);
        }
    }

    /// How many requests would be let in before one that joins now behind `own` others of its payer, if nobody else came.
    /// `more` says how many requests of a payer are expected besides those that wait.
    pub(crate) fn before(&self, payer: &Address, own: usize, more: impl Fn(&Address) -> usize) -> usize {
        let admitted = self.payers.get(payer).map_or(0, |one| one.admitted);
        // Its turn comes once nobody who waits has fewer let in.
        let level = admitted.saturating_add(own);
        let others = self.payers.iter().filter(|(other, _)| *other != payer);
        let before = others.map(|(other, one)| {
            let first = level.saturating_add(1).saturating_sub(one.admitted);
            first.min(one.line.len().saturating_add(more(other)))
        });
        before.fold(own, usize::saturating_add)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn payer(number: u8) -> Address {
        Address([number; 20])
    }

    #[test]
    fn a_thousand_requests_of_one_payer_do_not_keep_another_waiting() {
        let mut lines = Lines::default();
        for number in 0..1_000 {
            lines.push(payer(1), number);
        }
        for _ in 0..4 {
            assert_eq!(lines.next().unwrap().0, payer(1));
        }
        lines.push(payer(2), 7);
        assert_eq!(lines.before(&payer(2), 0, |_| 0), 0, "nobody has fewer let in");
        assert_eq!(
            lines.before(&payer(2), 5, |_| 0),
            7,
            "by then the other has six, two of them from here on"
        );
        assert_eq!(lines.next(), Some((payer(2), 7)));
        assert_eq!(lines.next().unwrap().0, payer(1));
    }

    #[test]
    fn with_one_slot_time_is_shared_and_not_turns() {
        let mut lines = Lines::default();
        for number in 0..200 {
            lines.push(payer(1), number);
            lines.push(payer(2), number);
        }
        let mut time = [0u64; 3];
        for _ in 0..110 {
            let (who, _) = lines.next().unwrap();
            // The first payer's requests take ten times as long.
            let took = if who == payer(1) { 10_000 } else { 1_000 };
            lines.end(&who, took);
            time[usize::from(who.0[0])] += took;
        }
        assert!(time[1].abs_diff(time[2]) <= 10_000, "{time:?}");
    }

    #[test]
    fn the_longest_line_makes_room() {
        let mut lines = Lines::default();
        lines.push(payer(1), 1);
        lines.push(payer(1), 2);
        lines.push(payer(2), 3);
        assert_eq!(lines.displace(2), None);
        assert_eq!(lines.displace(1), Some((payer(1), 2)));
        assert_eq!(lines.displace(1), None);
        assert_eq!(lines.waiting(), 2);
    }

    #[derive(Debug, Clone)]
    enum Step {
        Push(u8),
        Next,
        End(u8, u64),
        Leave(u8),
        PutBack(u8),
        Displace,
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            4 => (0u8..5).prop_map(Step::Push),
            3 => Just(Step::Next),
            3 => (0u8..5, 0u64..100_000).prop_map(|(who, used)| Step::End(who, used)),
            1 => (0u8..5).prop_map(Step::Leave),
            1 => (0u8..5).prop_map(Step::PutBack),
            1 => Just(Step::Displace),
        ]
    }

    proptest! {
        /// Whatever happens, nobody is let in while somebody with fewer waits; no request is lost or let in twice; and
        /// each payer's requests keep their order.
        #[test]
        fn fair_and_complete(steps in proptest::collection::vec(step(), 1..300)) {
            let mut lines = Lines::default();
            let mut model: BTreeMap<Address, (VecDeque<(Ticket, u64)>, usize)> = BTreeMap::new();
            let mut serial = 0u64;
            for step in steps {
                match step {
                    Step::Push(who) => {
                        serial += 1;
                        let ticket = lines.push(payer(who), serial);
                        model.entry(payer(who)).or_default().0.push_back((ticket, serial));
                    }
                    Step::Next => {
                        let fewest = model.values().filter(|one| !one.0.is_empty()).map(|one| one.1).min();
                        let next = lines.next();
                        prop_assert_eq!(next.is_some(), fewest.is_some());
                        if let Some((who, what)) = next {
                            let one = model.get_mut(&who).unwrap();
                            prop_assert_eq!(Some(one.1), fewest);
                            prop_assert_eq!(one.0.pop_front().unwrap().1, what);
                            one.1 += 1;
                        }
                    }
                    Step::End(who, used) => {
                        lines.end(&payer(who), used);
                        let one = model.entry(payer(who)).or_default();
                        one.1 = one.1.saturating_sub(1);
                    }
                    Step::Leave(who) => {
                        let one = model.entry(payer(who)).or_default();
                        if let Some((ticket, what)) = one.0.pop_back() {
                            prop_assert_eq!(lines.remove(&payer(who), ticket), Some(what));
                            prop_assert_eq!(lines.remove(&payer(who), ticket), None);
                        }
                    }
                    Step::PutBack(who) => {
                        let one = model.entry(payer(who)).or_default();
                        if one.1 > 0 {
                            serial += 1;
                            one.1 -= 1;
                            lines.end(&payer(who), 0);
                            let ticket = lines.push_front(payer(who), serial);
                            one.0.push_front((ticket, serial));
                        }
                    }
                    Step::Displace => {
                        let longest = model.values().map(|one| one.0.len()).max().unwrap_or(0);
                        if let Some((who, what)) = lines.displace(1) {
                            let line = &mut model.get_mut(&who).unwrap().0;
                            prop_assert!(line.len() == longest && longest > 1);
                            prop_assert_eq!(line.pop_back().unwrap().1, what);
                        }
                    }
                }
                prop_assert_eq!(lines.waiting(), model.values().map(|one| one.0.len()).sum::<usize>());
                prop_assert_eq!(lines.admitted(), model.values().map(|one| one.1).sum::<usize>());
            }
        }

        /// A newcomer among floods: every line in front of it lets at most one request by for each of its own.
        #[test]
        fn a_modest_payer_waits_for_one_request_of_each_other(floods in proptest::collection::vec(1usize..50, 1..6)) {
            let mut lines = Lines::default();
            for (number, flood) in (1u8..).zip(&floods) {
                for request in 0..*flood {
                    lines.push(payer(number), request);
                }
            }
            lines.push(payer(0), 0);
            let foreseen = lines.before(&payer(0), 0, |_| 0);
            let mut before = 0;
            while lines.next().unwrap().0 != payer(0) {
                before += 1;
            }
            prop_assert!(before <= floods.len());
            prop_assert!(before <= foreseen);
        }
    }
}
