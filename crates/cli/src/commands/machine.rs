//! `rialto machine`: what this machine is, and what its work draws.

use anyhow::Result;
use rialto_machine::{CpuReadout, Hardware, Meter};
use rialto_protocol::EnergySource;
use serde_json::json;

use crate::{output, settings::Settings};

/// Prints it.
pub(crate) fn run(settings: &Settings) -> Result<()> {
    let hardware = Hardware::detect();
    let meter = Meter::new(&hardware);
    let value = json!({
        "hardware": hardware, "cpu_energy": meter.cpu_readout(), "cpu_rate": meter.cpu_rate(), "gpu_rate": meter.gpu_rate(),
    });
    output::either(settings.json, &value, || {
        for (what, said) in lines(&hardware, &meter) {
            output::line(format_args!("{what:<10} {said}"));
        }
    })
}

/// A line for each part.
fn lines(hardware: &Hardware, meter: &Meter) -> Vec<(&'static str, String)> {
    let mut lines = vec![("processor", processor(hardware)), ("memory", memory(hardware))];
    if hardware.gpus.is_empty() {
        lines.push(("GPU", "none".to_owned()));
    }
    for gpu in &hardware.gpus {
        let memory = gpu
            .memory_bytes
            .map(|bytes| format!(", {}", size(bytes)))
            .unwrap_or_default();
        let driver = if gpu.has_driver {
            ""
        } else {
            ", no driver answers for it"
        };
        let features = gpu.worker_features.join(" or ");
        lines.push((
            "GPU",
            format!("{}{memory}{driver}; a build with {features} uses it", gpu.name),
        ));
    }
    lines.push(("sandbox", sandbox(hardware)));
    lines.push(("energy", energy(meter)));
    lines
}

/// The processor in a line.
pub(super) fn processor(hardware: &Hardware) -> String {
    let cpu = &hardware.cpu;
    let place = if cpu.is_virtual { ", a virtual machine's" } else { "" };
    format!(
        "{}{place}; {} cores, {} threads; {}",
        cpu.brand,
        cpu.physical_cores,
        cpu.logical_cores,
        cpu.features.join(" ")
    )
}

/// The memory in a line.
pub(super) fn memory(hardware: &Hardware) -> String {
    let memory = hardware.memory;
    format!(
        "{}, of which {} are free",
        size(memory.total_bytes),
        size(memory.available_bytes)
    )
}

/// What the kernel can do, in a line.
pub(super) fn sandbox(hardware: &Hardware) -> String {
    let landlock = match hardware.sandbox.landlock {
        Some(version) => format!("Landlock {version}"),
        None => "no Landlock".to_owned(),
    };
    let seccomp = if hardware.sandbox.seccomp {
        "seccomp"
    } else {
        "no seccomp"
    };
    format!("{landlock}, {seccomp}")
}

/// How energy is known, in a line.
pub(super) fn energy(meter: &Meter) -> String {
    let rate = meter.cpu_rate();
    let watts = format!("{}.{} W", rate.milliwatts / 1_000, rate.milliwatts % 1_000 / 100);
    match (meter.cpu_readout(), rate.source) {
        (CpuReadout::Rapl(domains), EnergySource::Measured) => {
            format!("measured by {}: {watts} for a busy thread of late", domains.join(", "))
        }
        (CpuReadout::Rapl(domains), _) => {
            format!(
                "measured by {} once there is work; until then {watts} for a busy thread are assumed",
                domains.join(", ")
            )
        }
        (CpuReadout::Estimated(obstacle), _) => {
            format!("estimated at {watts} for a busy thread: {obstacle}")
        }
    }
}

/// Bytes for people: `3.8 GiB`, or `512 MiB` below one.
pub(super) fn size(bytes: u64) -> String {
    let mebibytes = bytes >> 20;
    if mebibytes < 1_024 {
        return format!("{mebibytes} MiB");
    }
    format!("{}.{} GiB", mebibytes / 1_024, mebibytes % 1_024 * 10 / 1_024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_told_as_people_tell_them() {
        assert_eq!(size(512 << 20), "512 MiB");
        assert_eq!(size((3 << 30) + (820 << 20)), "3.8 GiB");
        assert_eq!(size(0), "0 MiB");
    }

    #[test]
    fn every_part_has_a_line() {
        let hardware = Hardware::detect();
        let lines = lines(&hardware, &Meter::new(&hardware));
        for part in ["processor", "memory", "GPU", "sandbox", "energy"] {
            let line = lines.iter().find(|(what, _)| *what == part);
            assert!(line.is_some_and(|(_, said)| !said.is_empty()), "{part}: {lines:?}");
        }
    }
}
