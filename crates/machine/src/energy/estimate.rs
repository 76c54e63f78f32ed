//! What a busy core or GPU draws where nothing measures it. The figures are of machines under load, shared among the
//! threads that run at a time; they are good to a factor of two, which is why they are marked as estimates.

use crate::{Cpu, CpuClass, Gpu, Vendor};

/// Milliwatts of one busy logical core.
///
/// | class | figure | from |
/// |---|---|---|
/// | server | 3.5 W | the mean of a cloud's thread under full load, Cloud Carbon Footprint's coefficients for AWS; makers' figures agree: 350 W for 112 threads (Xeon 8480+), 360 W for 192 (EPYC 9654), 250 W for 128 (Altra) |
/// | desktop | 7 W | 88 to 142 W for 16 threads of a socket's usual limits (Ryzen 7), 125 to 253 W for 24 to 32 (Core i7, i9) |
/// | laptop | 3 W | 28 W sustained for 8 to 16 threads (Core U and P, Ryzen U) |
/// | Apple | 3.5 W | about 4 W for a fast core and under 1 W for a slow one, of which there are fewer |
/// | board | 1.2 W | 5 to 8 W above nothing for four cores (Raspberry Pi 4 and 5) |
pub(crate) fn cpu_milliwatts(cpu: &Cpu) -> u64 {
    match cpu.class {
        CpuClass::Server | CpuClass::Apple => 3_500,
        CpuClass::Desktop => 7_000,
        CpuClass::Laptop => 3_000,
        CpuClass::Board => 1_200,
    }
}

/// Milliwatts of one busy GPU, the mean of those that something here could use; `None` without one.
///
/// Cards of their own: 200 W, as a middle one (RTX 4070, RX 7800 XT) is limited to. Graphics within a processor: 15 W,
/// half of what such a processor may draw in all.
pub(crate) fn gpu_milliwatts(gpus: &[Gpu]) -> Option<u64> {
    let each = |gpu: &Gpu| match gpu.vendor {
        Vendor::Nvidia | Vendor::Amd => 200_000,
        Vendor::Intel | Vendor::Apple => 15_000,
    };
    let usable: Vec<u64> = gpus.iter().filter(|gpu| gpu.has_driver).map(each).collect();
    let count = u64::try_from(usable.len()).ok()?;
    usable.iter().sum::<u64>().checked_div(count)
}
