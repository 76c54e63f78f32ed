//! NVIDIA's management library, loaded when it is there.

use std::{ffi::OsStr, fmt};

use nvml_wrapper::Nvml;

use super::{Gpu, Vendor, gpu::Place};

/// Most GPUs that are looked at.
const MAX_GPUS: u32 = 64;

/// What one GPU's counters say.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Counters {
    /// Microjoules since the driver started; boards before 2017 do not count them.
    pub(crate) energy_microjoules: Option<u64>,
    /// Microwatts now.
    pub(crate) power_microwatts: Option<u64>,
    /// Percent of the last moment in which it worked.
    pub(crate) busy_percent: Option<u64>,
}

/// The loaded library.
pub(crate) struct Driver {
    nvml: Nvml,
}

impl Driver {
    /// Loads it; `None` where there is no driver.
    pub(crate) fn load() -> Option<Self> {
        // The name without a number belongs to the development package, which sellers seldom have.
        let names = ["libnvidia-ml.so.1", "libnvidia-ml.so"];
        let loaded = names
            .iter()
            .find_map(|name| Nvml::builder().lib_path(OsStr::new(name)).init().ok());
        Some(Self { nvml: loaded? })
    }

    /// The GPUs that it knows.
    pub(crate) fn gpus(&self) -> Vec<Gpu> {
        let count = self.nvml.device_count().unwrap_or(0).min(MAX_GPUS);
        let gpu = |index| {
            let device = self.nvml.device_by_index(index).ok()?;
            let name = device.name().unwrap_or_else(|_| "NVIDIA GPU".to_owned());
            Some(Gpu {
                memory_bytes: device.memory_info().ok().map(|memory| memory.total),
                ..Gpu::new(name, Vendor::Nvidia, Place::Nvidia(index))
            })
        };
        (0..count).filter_map(gpu).collect()
    }

    /// One GPU's counters.
    pub(crate) fn counters(&self, index: u32) -> Counters {
        let Ok(device) = self.nvml.device_by_index(index) else {
            return Counters::default();
        };
        // Millijoules and milliwatts.
        let micro = |milli: u64| milli.saturating_mul(1_000);
        Counters {
            energy_microjoules: device.total_energy_consumption().ok().map(micro),
            power_microwatts: device.power_usage().ok().map(|power| micro(power.into())),
            busy_percent: device.utilization_rates().ok().map(|rates| rates.gpu.into()),
        }
    }
}

impl fmt::Debug for Driver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Driver").finish_non_exhaustive()
    }
}
