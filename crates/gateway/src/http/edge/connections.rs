//! The open connections: how many there may be, and which of them are dropped.

use std::{
    collections::HashMap,
    net::{IpAddr, Ipv6Addr},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError, Weak,
        atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering::Relaxed},
    },
};

use tokio::sync::Notify;

use super::pace::{Clock, Pace, Watch};
use crate::{config::ConnectionLimits, metrics::Metrics};

/// Why a connection was dropped or not taken; the label of its count.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Dropped {
    /// The head of a request did not come in time.
    HalfOpen,
    /// Nothing was asked for a while.
    Idle,
    /// The client does not read.
    Stalled,
    /// It was waiting, and another needed its place.
    Crowded,
    /// Its address has as many as it may have.
    Address,
    /// All places are taken by requests.
    Full,
}

impl Dropped {
    fn name(self) -> &'static str {
        match self {
            Self::HalfOpen => "half_open",
            Self::Idle => "idle",
            Self::Stalled => "stalled",
            Self::Crowded => "crowded",
            Self::Address => "address",
            Self::Full => "full",
        }
    }
}

/// An open connection, as far as its being dropped goes.
#[derive(Debug)]
pub(super) struct Connection {
    clock: Clock,
    limits: ConnectionLimits,
    /// Whom it counts for; `None` for this machine itself.
    address: Option<IpAddr>,
    /// Requests being read or answered.
    requests: AtomicUsize,
    /// When it began to wait for a request.
    waiting_since: AtomicU64,
    /// When the head of the next request began to arrive; zero if it did not.
    head_since: AtomicU64,
    /// Whether it had a request before.
    served: AtomicBool,
    /// Whether it carries several requests at a time: HTTP/2.
    multiplexed: AtomicBool,
    /// When patience with the client runs out, for each thing that it should read.
    ends: Mutex<Vec<Weak<AtomicU64>>>,
    dropped: Notify,
}

impl Connection {
    fn new(clock: Clock, limits: ConnectionLimits, address: Option<IpAddr>) -> Self {
        Self {
            clock,
            limits,
            address,
            requests: AtomicUsize::new(0),
            waiting_since: AtomicU64::new(clock.now()),
            head_since: AtomicU64::new(0),
            served: AtomicBool::new(false),
            multiplexed: AtomicBool::new(false),
            ends: Mutex::default(),
            dropped: Notify::new(),
        }
    }

    /// Ends when the connection is to be dropped.
    pub(super) async fn dropped(&self) {
        self.dropped.notified().await;
    }

    /// A watch over something that the client should read.
    pub(super) fn watch(&self) -> Watch {
        let watch = Watch::new(self.clock, Pace::new(self.limits.stall_ms, self.limits.min_rate));
        let mut ends = self.ends.lock().unwrap_or_else(PoisonError::into_inner);
        ends.retain(|end| end.strong_count() > 0);
        ends.push(Arc::downgrade(watch.end()));
        watch
    }

    /// Bytes came.
    pub(super) fn received(&self) {
        if !self.is_busy() {
            let _ = self.head_since.compare_exchange(0, self.clock.now(), Relaxed, Relaxed);
        }
    }

    /// The client took bytes.
    pub(super) fn sent(&self) {
        if !self.is_busy() {
            self.waiting_since.store(self.clock.now(), Relaxed);
        }
    }

    /// A request begins; it lasts until what this returns is dropped.
    pub(super) fn begin(self: &Arc<Self>, multiplexed: bool) -> Busy {
        self.requests.fetch_add(1, Relaxed);
        self.head_since.store(0, Relaxed);
        self.served.store(true, Relaxed);
        self.multiplexed.store(multiplexed, Relaxed);
        Busy(Arc::clone(self))
    }

    fn is_busy(&self) -> bool {
        self.requests.load(Relaxed) > 0
    }

    /// Why the connection should be dropped now, if it should.
    fn verdict(&self, now: u64, stopping: bool) -> Option<Dropped> {
        let ends = self.ends.lock().unwrap_or_else(PoisonError::into_inner);
        let stalled = |end: u64| end != 0 && end <= now;
        if ends
            .iter()
            .filter_map(Weak::upgrade)
            .any(|end| stalled(end.load(Relaxed)))
        {
            return Some(Dropped::Stalled);
        }
        drop(ends);
        if self.is_busy() {
            return None;
        }
        if stopping {
            return Some(Dropped::Idle);
        }
        let since = self.waiting_since.load(Relaxed);
        let head = self.head_since.load(Relaxed);
        let late = |since: u64, limit: u64| now.saturating_sub(since) >= limit;
        // A client of HTTP/2 also sends what is no request.
        if !self.served.load(Relaxed) {
            late(since, self.limits.header_ms).then_some(Dropped::HalfOpen)
        } else if head != 0 && !self.multiplexed.load(Relaxed) {
            late(head, self.limits.header_ms).then_some(Dropped::HalfOpen)
        } else {
            late(since, self.limits.idle_ms).then_some(Dropped::Idle)
        }
    }

    /// The place in the line of those that give way to others; `None` for one with a request. Those that never had one come
    /// first, and then those that wait for longest.
    fn rank(&self) -> Option<(bool, u64)> {
        (!self.is_busy()).then(|| (self.served.load(Relaxed), self.waiting_since.load(Relaxed)))
    }
}

/// A request of a connection, until its answer has ended.
#[derive(Debug)]
pub(super) struct Busy(Arc<Connection>);

impl Busy {
    pub(super) fn watch(&self) -> Watch {
        self.0.watch()
    }
}

impl Drop for Busy {
    fn drop(&mut self) {
        self.0.waiting_since.store(self.0.clock.now(), Relaxed);
        self.0.requests.fetch_sub(1, Relaxed);
    }
}

#[derive(Debug, Default)]
struct Open {
    next: u64,
    all: HashMap<u64, Arc<Connection>>,
    by_address: HashMap<IpAddr, usize>,
}

impl Open {
    fn remove(&mut self, number: u64) -> Option<Arc<Connection>> {
        let connection = self.all.remove(&number)?;
        if let Some(address) = connection.address
            && let Some(count) = self.by_address.get_mut(&address)
        {
            *count = count.saturating_sub(1);
            if *count == 0 {
                self.by_address.remove(&address);
            }
        }
        Some(connection)
    }
}

/// All open connections.
#[derive(Debug)]
pub(super) struct Connections {
    clock: Clock,
    limits: ConnectionLimits,
    open: Mutex<Open>,
    stopping: AtomicBool,
}

impl Connections {
    pub(super) fn new(limits: ConnectionLimits) -> Arc<Self> {
        Arc::new(Self {
            clock: Clock::new(),
            limits,
            open: Mutex::default(),
            stopping: AtomicBool::new(false),
        })
    }

    fn lock(&self) -> MutexGuard<'_, Open> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes a connection from this address, if there is room or room can be made.
    pub(super) fn admit(self: &Arc<Self>, address: IpAddr, metrics: &Metrics) -> Result<Admitted, Dropped> {
        let address = counted(address);
        let mut open = self.lock();
        let same = address.and_then(|address| open.by_address.get(&address)).copied();
        if same.unwrap_or(0) >= self.limits.max_per_address {
            metrics.dropped(Dropped::Address.name());
            return Err(Dropped::Address);
        }
        if open.all.len() >= self.limits.max && self.make_room(&mut open, metrics) == 0 {
            metrics.dropped(Dropped::Full.name());
            return Err(Dropped::Full);
        }
        let number = open.next;
        open.next = open.next.wrapping_add(1);
        let connection = Arc::new(Connection::new(self.clock, self.limits, address));
        open.all.insert(number, Arc::clone(&connection));
        if let Some(address) = address {
            *open.by_address.entry(address).or_default() += 1;
        }
        drop(open);
        Ok(Admitted {
            all: Arc::clone(self),
            number,
            connection,
        })
    }

    /// Drops some of the connections that wait, as there is no room for another: the system has no descriptor left.
    pub(super) fn give_way(&self, metrics: &Metrics) {
        self.make_room(&mut self.lock(), metrics);
    }

    /// Drops one connection in 64 at once, so that a flood of new ones does not look at all of them each time. Returns how
    /// many.
    fn make_room(&self, open: &mut Open, metrics: &Metrics) -> usize {
        let mut waiting: Vec<((bool, u64), u64)> = open
            .all
            .iter()
            .filter_map(|(number, connection)| Some((connection.rank()?, *number)))
            .collect();
        let count = (self.limits.max / 64).max(1).min(waiting.len());
        if count < waiting.len() {
            waiting.select_nth_unstable(count);
        }
        for (_, number) in waiting.iter().take(count) {
            if let Some(connection) = open.remove(*number) {
                connection.dropped.notify_one();
                metrics.dropped(Dropped::Crowded.name());
            }
        }
        count
    }

    /// Drops the connections whose client is too slow, and counts the others.
    pub(super) fn sweep(&self, metrics: &Metrics) {
        let now = self.clock.now();
        let stopping = self.stopping.load(Relaxed);
        let mut open = self.lock();
        let due: Vec<(u64, Dropped)> = open
            .all
            .iter()
            .filter_map(|(number, connection)| Some((*number, connection.verdict(now, stopping)?)))
            .collect();
        for (number, why) in due {
            if let Some(connection) = open.remove(number) {
                connection.dropped.notify_one();
                metrics.dropped(why.name());
            }
        }
        let count = i64::try_from(open.all.len()).unwrap_or(i64::MAX);
        metrics.connections.set(count);
    }

    /// From now on no connection waits for a request.
    pub(super) fn stop(&self) {
        self.stopping.store(true, Relaxed);
    }
}

/// A connection's place; it is free again when this is dropped.
#[derive(Debug)]
pub(super) struct Admitted {
    all: Arc<Connections>,
    number: u64,
    connection: Arc<Connection>,
}

impl Admitted {
    pub(super) fn connection(&self) -> &Arc<Connection> {
        &self.connection
    }
}

impl Drop for Admitted {
    fn drop(&mut self) {
        self.all.lock().remove(self.number);
    }
}

/// What an address counts as: this machine not at all, and the 2^64 addresses that one user of IPv6 has as one.
fn counted(address: IpAddr) -> Option<IpAddr> {
    let address = address.to_canonical();
    if address.is_loopback() {
        return None;
    }
    Some(match address {
        IpAddr::V4(_) => address,
        IpAddr::V6(six) => IpAddr::V6(Ipv6Addr::from_bits(six.to_bits() >> 64 << 64)),
    })
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use futures::FutureExt as _;

    use super::*;

    fn limits() -> ConnectionLimits {
        ConnectionLimits {
            max: 3,
            max_per_address: 2,
            ..ConnectionLimits::default()
        }
    }

    async fn pass(milliseconds: u64) {
        tokio::time::advance(Duration::from_millis(milliseconds)).await;
    }

    fn is_dropped(admitted: &Admitted) -> bool {
        admitted.connection().dropped().now_or_never().is_some()
    }

    const HERE: IpAddr = IpAddr::V4(std::net::Ipv4Addr::LOCALHOST);

    #[tokio::test(start_paused = true)]
    async fn the_longest_half_open_connection_gives_way_before_an_idle_one_and_never_a_busy_one() {
        let (all, metrics) = (Connections::new(limits()), Metrics::new());
        let idle = all.admit(HERE, &metrics).unwrap();
        drop(idle.connection().begin(false));
        pass(1).await;
        let busy = all.admit(HERE, &metrics).unwrap();
        let request = busy.connection().begin(false);
        pass(1).await;
        let half_open = all.admit(HERE, &metrics).unwrap();
        half_open.connection().received();
        pass(1).await;
        let fourth = all.admit(HERE, &metrics).unwrap();
        assert_eq!([&idle, &busy, &half_open].map(is_dropped), [false, false, true]);
        let second = fourth.connection().begin(false);
        let fifth = all.admit(HERE, &metrics).unwrap();
        assert!(is_dropped(&idle) && !is_dropped(&busy) && !is_dropped(&fourth));
        let third = fifth.connection().begin(true);
        assert_eq!(all.admit(HERE, &metrics).unwrap_err(), Dropped::Full);
        drop((request, second, third, fifth));
        assert!(all.admit(HERE, &metrics).is_ok());
    }

    #[tokio::test(start_paused = true)]
    async fn an_address_has_its_share_and_this_machine_has_none() {
        let (all, metrics) = (Connections::new(limits()), Metrics::new());
        let one: IpAddr = "2001:db8::1".parse().unwrap();
        let other: IpAddr = "2001:db8::ffff:2".parse().unwrap();
        let first = all.admit(one, &metrics).unwrap();
        let _second = all.admit(other, &metrics).unwrap();
        assert_eq!(all.admit(one, &metrics).unwrap_err(), Dropped::Address);
        drop(first);
        let _third = all.admit(one, &metrics).unwrap();
        let mapped: IpAddr = "::ffff:127.0.0.1".parse().unwrap();
        assert_eq!(counted(mapped), None);
        let _here = all.admit(mapped, &metrics).unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn heads_and_pauses_end_in_time() {
        let (all, metrics) = (
            Connections::new(ConnectionLimits { max: 9, ..limits() }),
            Metrics::new(),
        );
        let limits = ConnectionLimits::default();
        let half_open = all.admit(HERE, &metrics).unwrap();
        let dripping = all.admit(HERE, &metrics).unwrap();
        let idle = all.admit(HERE, &metrics).unwrap();
        let answering = all.admit(HERE, &metrics).unwrap();
        for one in [&dripping, &idle] {
            drop(one.connection().begin(false));
        }
        let _request = answering.connection().begin(false);
        let step = limits.header_ms / 4;
        for _ in 0..4 {
            dripping.connection().received();
            pass(step).await;
        }
        all.sweep(&metrics);
        let states = || [&half_open, &dripping, &idle, &answering].map(is_dropped);
        assert_eq!(states(), [true, true, false, false]);
        pass(limits.idle_ms).await;
        all.sweep(&metrics);
        assert_eq!(states(), [false, false, true, false]);
        assert_eq!(all.lock().all.len(), 1);
    }
}
