//! Penalties: a seller that failed, was busy or cheated is avoided for a while, longer each time.

use std::{
    collections::HashMap,
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

use rialto_protocol::Address;

/// Why a seller is avoided.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Penalty {
    /// It is busy, and said for how long.
    Busy(Duration),
    /// It could not be reached or broke off.
    Failed,
    /// It billed wrongly or broke the protocol.
    Cheated,
}

/// Most sellers that are remembered.
const MAX_KNOWN: usize = 16_384;
const FAILED: Duration = Duration::from_secs(2);
const FAILED_MOST: Duration = Duration::from_secs(120);
const CHEATED: Duration = Duration::from_secs(24 * 3_600);

#[derive(Debug, Clone, Copy)]
struct Record {
    until: Instant,
    failures: u32,
    cheated: bool,
}

/// What is held against sellers.
#[derive(Debug, Default)]
pub(crate) struct Health(Mutex<HashMap<Address, Record>>);

impl Health {
    /// Notes a penalty.
    pub(crate) fn punish(&self, provider: Address, penalty: Penalty) {
        let mut records = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let now = Instant::now();
        if records.len() >= MAX_KNOWN {
            records.retain(|_, record| record.until > now);
        }
        let record = records.entry(provider).or_insert(Record {
            until: now,
            failures: 0,
            cheated: false,
        });
        let pause = match penalty {
            Penalty::Busy(pause) => pause.min(Duration::from_secs(60)),
            Penalty::Failed => {
                record.failures = record.failures.saturating_add(1);
                FAILED
                    .saturating_mul(1 << record.failures.min(6).saturating_sub(1))
                    .min(FAILED_MOST)
            }
            Penalty::Cheated => {
                record.cheated = true;
                CHEATED
            }
        };
        record.until = record.until.max(now + pause);
    }

    /// Notes that a seller answered well.
    pub(crate) fn praise(&self, provider: Address) {
        let mut records = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if records.get(&provider).is_some_and(|record| !record.cheated) {
            records.remove(&provider);
        }
    }

    /// Whether a seller is avoided now.
    pub(crate) fn is_penalised(&self, provider: Address) -> bool {
        let records = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        records
            .get(&provider)
            .is_some_and(|record| record.until > Instant::now())
    }

    /// Whether a seller cheated and is not asked at all for now.
    pub(crate) fn is_distrusted(&self, provider: Address) -> bool {
        let records = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        records
            .get(&provider)
            .is_some_and(|record| record.cheated && record.until > Instant::now())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cheat_is_not_forgiven_for_one_good_answer() {
        let (health, provider) = (Health::default(), Address([1; 20]));
        health.punish(provider, Penalty::Failed);
        assert!(health.is_penalised(provider) && !health.is_distrusted(provider));
        health.praise(provider);
        assert!(!health.is_penalised(provider));
        health.punish(provider, Penalty::Cheated);
        health.praise(provider);
        assert!(health.is_penalised(provider) && health.is_distrusted(provider));
    }
}
