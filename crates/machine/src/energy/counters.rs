//! The counters of a machine, read all at once.

use std::time::Duration;

use super::{CpuReadout, Obstacle, mean::Drawn, rapl};
use crate::{
    Hardware, Root,
    hardware::{self, Driver, Place},
};

/// All counters that this machine has.
#[derive(Debug)]
pub(crate) struct Counters {
    root: Root,
    domains: Vec<rapl::Domain>,
    readout: CpuReadout,
    gpus: Vec<Place>,
    driver: Option<Driver>,
    /// The unit of `/proc/stat`.
    tick: Duration,
}

/// What they said at one time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Reading {
    /// Of each domain; `None` when one could not be read.
    cpu: Option<Vec<u64>>,
    /// Ticks in which the processors were busy.
    busy: Option<u64>,
    gpus: Vec<GpuReading>,
}

/// What one GPU said.
type GpuReading = hardware::Counters;

impl Counters {
    pub(crate) fn find(root: Root, hardware: &Hardware) -> Self {
        let (domains, readout) = match rapl::find(&root) {
            Ok(domains) => {
                let names = domains.iter().map(|domain| domain.name.clone()).collect();
                (domains, CpuReadout::Rapl(names))
            }
            Err(Obstacle::Absent) if hardware.cpu.is_virtual => (Vec::new(), CpuReadout::Estimated(Obstacle::Virtual)),
            Err(obstacle) => (Vec::new(), CpuReadout::Estimated(obstacle)),
        };
        let gpus: Vec<Place> = hardware.gpus.iter().map(|gpu| gpu.place.clone()).collect();
        let needs_driver = root.is_system() && gpus.iter().any(|place| matches!(place, Place::Nvidia(_)));
        Self {
            root,
            domains,
            readout,
            gpus,
            driver: needs_driver.then(Driver::load).flatten(),
            tick: tick(),
        }
    }

    pub(crate) fn cpu_readout(&self) -> &CpuReadout {
        &self.readout
    }

    pub(crate) fn read(&self) -> Reading {
        let cpu = self.domains.iter().map(|domain| domain.read(&self.root)).collect();
        Reading {
            cpu,
            busy: self.root.text("proc/stat").ok().as_deref().and_then(busy_ticks),
            gpus: self.gpus.iter().map(|place| self.gpu(place)).collect(),
        }
    }

    fn gpu(&self, place: &Place) -> GpuReading {
        match place {
            Place::Nvidia(index) => {
                let driver = self.driver.as_ref();
                driver.map(|driver| driver.counters(*index)).unwrap_or_default()
            }
            Place::Kernel(folder) => self.amd(folder),
            Place::None => GpuReading::default(),
        }
    }

    /// AMD's kernel driver gives power, which older cards average and newer ones do not.
    fn amd(&self, folder: &str) -> GpuReading {
        let monitors = self.root.names(&format!("{folder}/hwmon"));
        let files = ["power1_average", "power1_input"];
        let power = monitors.iter().find_map(|monitor| {
            let number = |file| self.root.number(&format!("{folder}/hwmon/{monitor}/{file}"));
            files.into_iter().find_map(number)
        });
        GpuReading {
            energy_microjoules: None,
            power_microwatts: power,
            busy_percent: self.root.number(&format!("{folder}/gpu_busy_percent")),
        }
    }

    /// What the processors drew between two readings, and how long they were busy.
    pub(crate) fn cpu_since(&self, before: &Reading, after: &Reading) -> Option<Drawn> {
        let (old, new) = (before.cpu.as_ref()?, after.cpu.as_ref()?);
        let mut microjoules = 0_u64;
        for ((domain, old), new) in self.domains.iter().zip(old).zip(new) {
            microjoules = microjoules.checked_add(domain.between(*old, *new)?)?;
        }
        let ticks = u32::try_from(after.busy?.checked_sub(before.busy?)?).ok()?;
        Some(Drawn {
            microjoules,
            busy: self.tick.checked_mul(ticks)?,
        })
    }

    /// What the GPUs drew in the time that passed between two readings, and how long they were busy.
    pub(crate) fn gpu_since(&self, before: &Reading, after: &Reading, passed: Duration) -> Option<Drawn> {
        let mut all: Option<Drawn> = None;
        for (old, new) in before.gpus.iter().zip(&after.gpus) {
            let counted = old.energy_microjoules.zip(new.energy_microjoules);
            let counted = counted.and_then(|(old, new)| new.checked_sub(old));
            let Some(microjoules) = counted.or_else(|| integral(old, new, passed)) else {
                continue;
            };
            let Some(percent) = mean(old.busy_percent, new.busy_percent) else {
                continue;
            };
            let percent = u32::try_from(percent.min(100)).unwrap_or(100);
            let sum = all.get_or_insert(Drawn {
                microjoules: 0,
                busy: Duration::ZERO,
            });
            sum.microjoules = sum.microjoules.saturating_add(microjoules);
            sum.busy = sum.busy.saturating_add(passed.saturating_mul(percent) / 100);
        }
        all
    }
}

/// Power over time, for a GPU that does not count its energy.
fn integral(old: &GpuReading, new: &GpuReading, passed: Duration) -> Option<u64> {
    let microwatts = mean(old.power_microwatts, new.power_microwatts)?;
    let microjoules = u128::from(microwatts).checked_mul(passed.as_micros())? / 1_000_000;
    u64::try_from(microjoules).ok()
}

fn mean(old: Option<u64>, new: Option<u64>) -> Option<u64> {
    Some(old?.midpoint(new?))
}

/// The first line of `/proc/stat`: user, nice, system, idle, iowait, irq, softirq, steal, … in ticks. What was stolen by
/// a host was not worked here.
fn busy_ticks(text: &str) -> Option<u64> {
    let line = text.lines().next()?.strip_prefix("cpu ")?;
    let columns: Vec<u64> = line
        .split_whitespace()
        .map_while(|column| column.parse().ok())
        .collect();
    let busy = [0, 1, 2, 5, 6].into_iter().filter_map(|column| columns.get(column));
    (columns.len() >= 4).then(|| busy.sum())
}

#[cfg(target_os = "linux")]
fn tick() -> Duration {
    let ticks = u32::try_from(rustix::param::clock_ticks_per_second()).unwrap_or(100);
    Duration::from_secs(1)
        .checked_div(ticks)
        .unwrap_or(Duration::from_millis(10))
}

/// There is no `/proc/stat` whose unit it could be.
#[cfg(not(target_os = "linux"))]
fn tick() -> Duration {
    Duration::from_millis(10)
}
