//! What work draws, measured where the machine tells it and estimated where not, and always marked as what it is.
//!
//! A request's energy is its CPU time times what a second of CPU time cost of late: all that the processor's packages
//! drew, divided by all CPU time that the machine was busy for. Nothing is taken off for what an idle machine would have
//! drawn, since a seller pays for that too; but times in which the machine hardly worked say nothing about work, and do
//! not count. GPUs are counted likewise, by the time in which they were busy.

mod counters;
mod estimate;
mod mean;
mod rapl;

use std::{
    fmt,
    path::PathBuf,
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

use rialto_protocol::EnergySource;
use serde::Serialize;

use crate::{Hardware, Root};
use counters::Counters;
use mean::Mean;

/// Two looks that are closer together than this say little: the kernel counts CPU time in hundredths of a second.
const SHORTEST: Duration = Duration::from_millis(200);

/// Two looks that are further apart say little about now, and the counters may have gone round more than once.
const LONGEST: Duration = Duration::from_secs(60);

/// What a request used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Used {
    /// Time of all its threads together.
    pub cpu: Duration,
    /// Time that it kept a GPU busy; zero without one.
    pub gpu: Duration,
}

/// What it drew.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Energy {
    /// Millionths of a joule; rounded up, so that only what used nothing drew nothing.
    pub microjoules: u64,
    /// How that is known: the weaker of its parts. `Unknown` for what used nothing.
    pub source: EnergySource,
}

impl Energy {
    /// Nothing is known.
    pub const UNKNOWN: Self = Self {
        microjoules: 0,
        source: EnergySource::Unknown,
    };

    /// In thousandths of a joule, as receipts count it; rounded up.
    pub fn millijoules(self) -> u64 {
        self.microjoules.div_ceil(1_000)
    }
}

/// What a second of work costs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Rate {
    /// Millijoules for a second that one logical core, or one GPU, was busy: that is milliwatts.
    pub milliwatts: u64,
    /// How that is known.
    pub source: EnergySource,
}

/// Where the processor's energy comes from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum CpuReadout {
    /// From these domains of the kernel's power capping, such as `package-0`.
    Rapl(Vec<String>),
    /// From nowhere: it is estimated.
    Estimated(Obstacle),
}

/// Why the processor's energy is not measured. Its text says how to mend that.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Obstacle {
    /// The counters are there, and this user may not read them.
    Unreadable(PathBuf),
    /// A virtual machine is not told.
    Virtual,
    /// This kernel, or this processor, has no such counters.
    Absent,
}

impl fmt::Display for Obstacle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unreadable(path) => write!(
                f,
                "{} can be read by root only: `sudo chmod a+r {}` until the next start of the machine, or for good a line \
                 in /etc/tmpfiles.d: `z {} 0444` (then every program here can see how hard the processor works)",
                path.display(),
                path.display(),
                path.display()
            ),
            Self::Virtual => f.write_str(
                "a virtual machine is not told what its host draws: to measure, sell from the host or from a machine of \
                 your own",
            ),
            Self::Absent => f.write_str(
                "the kernel has no energy counters of this processor (/sys/class/powercap): on Intel and AMD load them \
                 with `sudo modprobe intel_rapl_msr`",
            ),
        }
    }
}

/// Measures and attributes energy. One for a machine: what it learns is about all that runs there.
#[derive(Debug)]
pub struct Meter {
    counters: Counters,
    started: Instant,
    fallback: Fallback,
    state: Mutex<State>,
}

/// Milliwatts where nothing is measured.
#[derive(Debug, Clone, Copy)]
struct Fallback {
    cpu: u64,
    gpu: Option<u64>,
}

/// What was read last, and what was learnt.
#[derive(Debug, Default)]
struct State {
    last: Option<(Duration, counters::Reading)>,
    cpu: Mean,
    gpu: Mean,
}

impl Meter {
    /// A meter for this machine.
    pub fn new(hardware: &Hardware) -> Self {
        Self::in_root(Root::system(), hardware)
    }

    /// A meter for the machine whose files are below `root`.
    pub fn in_root(root: Root, hardware: &Hardware) -> Self {
        Self {
            fallback: Fallback {
                cpu: estimate::cpu_milliwatts(&hardware.cpu),
                gpu: estimate::gpu_milliwatts(&hardware.gpus),
            },
            counters: Counters::find(root, hardware),
            started: Instant::now(),
            state: Mutex::default(),
        }
    }

    /// Where the processor's energy comes from.
    pub fn cpu_readout(&self) -> &CpuReadout {
        self.counters.cpu_readout()
    }

    /// Looks at the counters, and learns from the difference to the last look. To be called about once a second while
    /// the machine works; too often does no harm.
    pub fn sample(&self) {
        self.sample_at(self.started.elapsed());
    }

    /// Looks at the counters at this time since the start.
    fn sample_at(&self, now: Duration) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((at, _)) = &state.last
            && now.saturating_sub(*at) < SHORTEST
        {
            return;
        }
        let reading = self.counters.read();
        if let Some((at, before)) = &state.last {
            let passed = now.saturating_sub(*at);
            if passed <= LONGEST {
                let cpu = self.counters.cpu_since(before, &reading);
                let gpu = self.counters.gpu_since(before, &reading, passed);
                // The two means are learnt apart: a machine may tell one and not the other.
                if let Some(drawn) = cpu {
                    state.cpu.learn(drawn, passed);
                }
                if let Some(drawn) = gpu {
                    state.gpu.learn(drawn, passed);
                }
            }
        }
        state.last = Some((now, reading));
    }

    /// What a second of one busy logical core costs now.
    pub fn cpu_rate(&self) -> Rate {
        let state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        rate(&state.cpu, self.fallback.cpu)
    }

    /// What a second of one busy GPU costs now; `None` without one.
    pub fn gpu_rate(&self) -> Option<Rate> {
        let state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        self.fallback.gpu.map(|fallback| rate(&state.gpu, fallback))
    }

    /// What a request drew that used so much time, by what was learnt so far. Reads nothing.
    pub fn energy(&self, used: Used) -> Energy {
        let parts = [(used.cpu, Some(self.cpu_rate())), (used.gpu, self.gpu_rate())];
        let mut energy = Energy::UNKNOWN;
        for (time, rate) in parts {
            let Some(rate) = rate.filter(|_| !time.is_zero()) else {
                continue;
            };
            // Milliwatts times nanoseconds are picojoules.
            let picojoules = u128::from(rate.milliwatts).saturating_mul(time.as_nanos());
            let microjoules = u64::try_from(picojoules.div_ceil(1_000_000)).unwrap_or(u64::MAX);
            energy = Energy {
                microjoules: energy.microjoules.saturating_add(microjoules),
                source: match (energy.source, rate.source) {
                    (EnergySource::Unknown, source) => source,
                    (EnergySource::Measured, EnergySource::Measured) => EnergySource::Measured,
                    _ => EnergySource::Estimated,
                },
            };
        }
        energy
    }
}

fn rate(mean: &Mean, fallback: u64) -> Rate {
    match mean.milliwatts() {
        Some(milliwatts) => Rate {
            milliwatts,
            source: EnergySource::Measured,
        },
        None => Rate {
            milliwatts: fallback,
            source: EnergySource::Estimated,
        },
    }
}

#[cfg(test)]
mod tests;
