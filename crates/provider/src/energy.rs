//! Energy: what each request drew, for its receipt, and what a unit draws, for the offers.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use rialto_machine::{Energy, Meter, Used};
use rialto_protocol::{EnergySource, Usage};
use tokio::time::MissedTickBehavior;
use tokio_util::sync::CancellationToken;

/// How often the machine's counters are looked at.
const LOOK: Duration = Duration::from_secs(1);

/// Units after which what was learnt of them counts half.
const HALF: u64 = 4_096;

/// What is known of one model's energy.
#[derive(Debug)]
pub(crate) struct Tally {
    meter: Option<Arc<Meter>>,
    /// Millijoules a unit, as the listing says; counts until the first receipt that knows better.
    declared: u64,
    mean: Mutex<Mean>,
}

/// The quotient of two sums, in which what is old weighs less.
#[derive(Debug, Clone, Copy, Default)]
struct Mean {
    microjoules: u64,
    units: u64,
    source: EnergySource,
}

impl Tally {
    pub(crate) fn new(meter: Option<Arc<Meter>>, declared: u64) -> Self {
        Self {
            meter,
            declared,
            mean: Mutex::default(),
        }
    }

    /// Millijoules of a request that took so much processor time; zero when nothing is known. A request whose engine
    /// did not get to say its time, because the buyer left, is counted as its units usually are.
    pub(crate) fn spent(&self, cpu_micros: u64, usage: Usage) -> u64 {
        let units = counted(usage);
        let energy = self.meter.as_ref().map_or(Energy::UNKNOWN, |meter| {
            meter.energy(Used {
                cpu: Duration::from_micros(cpu_micros),
                ..Used::default()
            })
        });
        if energy.source == EnergySource::Unknown {
            return self.per_unit().0.saturating_mul(units);
        }
        let mut mean = self.mean.lock().unwrap_or_else(PoisonError::into_inner);
        mean.learn(energy, units);
        energy.millijoules()
    }

    /// Millijoules a unit of output, or of input where output is not counted, rounded up; and how that is known.
    pub(crate) fn per_unit(&self) -> (u64, EnergySource) {
        let mean = *self.mean.lock().unwrap_or_else(PoisonError::into_inner);
        match mean.microjoules.checked_div(mean.units) {
            Some(microjoules) => (microjoules.div_ceil(1_000), mean.source),
            None if self.declared > 0 => (self.declared, EnergySource::Estimated),
            None => (0, EnergySource::Unknown),
        }
    }
}

impl Mean {
    fn learn(&mut self, energy: Energy, units: u64) {
        if units == 0 {
            return;
        }
        self.microjoules = self.microjoules.saturating_add(energy.microjoules);
        self.units = self.units.saturating_add(units);
        self.source = energy.source;
        while self.units > HALF.saturating_mul(2) {
            self.microjoules /= 2;
            self.units /= 2;
        }
    }
}

/// Units that energy is told for: tokens generated, or rows and tokens read where nothing is.
fn counted(usage: Usage) -> u64 {
    if usage.output > 0 { usage.output } else { usage.input }
}

/// Keeps the meter up to date until `stop`.
pub(crate) async fn watch(meter: Option<Arc<Meter>>, stop: CancellationToken) {
    let Some(meter) = meter else { return };
    let mut beat = tokio::time::interval(LOOK);
    beat.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            _ = beat.tick() => {}
        }
        let meter = meter.clone();
        // Files of the kernel and a GPU's library may each take some milliseconds.
        if tokio::task::spawn_blocking(move || meter.sample()).await.is_err() {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use rialto_machine::{Hardware, Root};

    use super::*;

    /// A machine without any counter, of which 7 W a busy core are assumed.
    fn desktop() -> Arc<Meter> {
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir(folder.path().join("proc")).unwrap();
        std::fs::write(
            folder.path().join("proc/cpuinfo"),
            "processor: 0\nmodel name: Desktop\n",
        )
        .unwrap();
        let root = Root::at(folder.path());
        let hardware = Hardware::detect_in(&root);
        Arc::new(Meter::in_root(root, &hardware))
    }

    fn output(units: u64) -> Usage {
        Usage {
            input: 10,
            output: units,
        }
    }

    #[test]
    fn a_receipt_says_what_the_request_drew_and_the_offer_their_mean() {
        let tally = Tally::new(Some(desktop()), 0);
        assert_eq!(tally.per_unit(), (0, EnergySource::Unknown));
        assert_eq!(tally.spent(1_000_000, output(100)), 7_000);
        assert_eq!(tally.per_unit(), (70, EnergySource::Estimated));
        assert_eq!(tally.spent(3_000_000, output(100)), 21_000);
        assert_eq!(tally.per_unit(), (140, EnergySource::Estimated));
    }

    #[test]
    fn who_left_before_the_engine_said_its_time_is_counted_by_the_mean() {
        let tally = Tally::new(Some(desktop()), 0);
        assert_eq!(tally.spent(0, output(100)), 0);
        tally.spent(1_000_000, output(100));
        assert_eq!(tally.spent(0, output(50)), 3_500);
        assert_eq!(tally.per_unit().0, 70);
    }

    #[test]
    fn rows_count_where_nothing_is_generated() {
        let tally = Tally::new(Some(desktop()), 0);
        let rows = Usage {
            input: 1_000,
            output: 0,
        };
        assert_eq!(tally.spent(1_000_000, rows), 7_000);
        assert_eq!(tally.per_unit().0, 7);
    }

    #[test]
    fn without_a_meter_the_listing_is_believed() {
        let tally = Tally::new(None, 2);
        assert_eq!(tally.spent(1_000_000, output(300)), 600);
        assert_eq!(tally.per_unit(), (2, EnergySource::Estimated));
        let silent = Tally::new(None, 0);
        assert_eq!(silent.spent(1_000_000, output(300)), 0);
        assert_eq!(silent.per_unit(), (0, EnergySource::Unknown));
    }

    #[test]
    fn the_mean_follows_a_change() {
        let tally = Tally::new(Some(desktop()), 0);
        for _ in 0..200 {
            tally.spent(1_000_000, output(100));
        }
        for _ in 0..200 {
            tally.spent(2_000_000, output(100));
        }
        let (now, _) = tally.per_unit();
        assert!((125..=140).contains(&now), "{now}");
    }

    #[tokio::test]
    async fn the_watch_ends_when_it_is_told_to() {
        let stop = CancellationToken::new();
        let task = tokio::spawn(watch(Some(desktop()), stop.clone()));
        stop.cancel();
        task.await.unwrap();
    }
}
