//! The processor: what it is called, how many cores it has, and which instructions matter to llama.cpp.

use std::collections::BTreeSet;

use serde::Serialize;

use crate::Root;

/// What a kernel calls an instruction set, and what the world calls it; in the order in which they are told.
const FEATURES: [(&str, &str); 17] = [
    ("avx", "avx"),
    ("avx2", "avx2"),
    ("fma", "fma"),
    ("f16c", "f16c"),
    ("avx_vnni", "avx_vnni"),
    ("avx512f", "avx512f"),
    ("avx512_vnni", "avx512_vnni"),
    ("avx512_bf16", "avx512_bf16"),
    ("avx512_fp16", "avx512_fp16"),
    ("amx_int8", "amx_int8"),
    ("amx_bf16", "amx_bf16"),
    ("asimd", "neon"),
    ("asimddp", "dotprod"),
    ("i8mm", "i8mm"),
    ("sve", "sve"),
    ("sve2", "sve2"),
    ("bf16", "bf16"),
];

/// Arm's parts that sellers have; a kernel gives only their numbers.
const ARM_PARTS: [(u32, &str, bool); 11] = [
    (0xd03, "Arm Cortex-A53", false),
    (0xd07, "Arm Cortex-A57", false),
    (0xd08, "Arm Cortex-A72", false),
    (0xd0a, "Arm Cortex-A75", false),
    (0xd0b, "Arm Cortex-A76", false),
    (0xd41, "Arm Cortex-A78", false),
    (0xd0c, "Arm Neoverse-N1", true),
    (0xd40, "Arm Neoverse-V1", true),
    (0xd49, "Arm Neoverse-N2", true),
    (0xd4f, "Arm Neoverse-V2", true),
    (0xd84, "Arm Neoverse-V3", true),
];

/// What kind of machine a processor is made for, by which its power is estimated where it cannot be measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum CpuClass {
    /// A server, or a part of one that a virtual machine got.
    Server,
    /// A desktop or a workstation.
    Desktop,
    /// A machine with a battery.
    Laptop,
    /// Apple silicon, with a battery or without.
    Apple,
    /// A single-board computer.
    Board,
}

/// The processor.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Cpu {
    /// What its maker calls it.
    pub brand: String,
    /// What kind of machine it is made for.
    pub class: CpuClass,
    /// Cores.
    pub physical_cores: u32,
    /// Threads that run at a time; the kernel counts CPU time of these.
    pub logical_cores: u32,
    /// The instruction sets that matter to llama.cpp, such as `avx2`, `avx512_vnni`, `neon` or `i8mm`.
    pub features: Vec<&'static str>,
    /// Whether it is a part of another machine: energy cannot be measured there.
    pub is_virtual: bool,
}

impl Cpu {
    /// Reads `/proc/cpuinfo`, or asks the system where there is none.
    pub(crate) fn detect(root: &Root) -> Self {
        match root.text("proc/cpuinfo") {
            Ok(text) => of_cpuinfo(root, &text),
            Err(_) => of_system(),
        }
    }
}

fn of_cpuinfo(root: &Root, text: &str) -> Cpu {
    let pairs = || text.lines().filter_map(|line| line.split_once(':'));
    let values = |name: &'static str| {
        pairs()
            .filter(move |(key, _)| key.trim() == name)
            .map(|(_, value)| value.trim())
    };
    let first = |name| values(name).next();

    let flags: BTreeSet<&str> = first("flags")
        .or_else(|| first("Features"))
        .unwrap_or("")
        .split(' ')
        .collect();
    let features = FEATURES.iter().filter(|(kernels, _)| flags.contains(kernels));
    let logical = values("processor").count().max(1);
    // A core is known by its package and its number there; the two come in this order for each thread.
    let cores: BTreeSet<(&str, &str)> = values("physical id").zip(values("core id")).collect();
    let physical = if cores.is_empty() { logical } else { cores.len() };

    let part = arm_part(first("CPU implementer"), first("CPU part"));
    let board = root.line("proc/device-tree/model");
    let named = first("model name")
        .or_else(|| part.map(|(name, _)| name))
        .map(str::to_owned);
    let brand = named
        .or_else(|| board.clone())
        .unwrap_or_else(|| "unknown processor".to_owned());
    let is_virtual = flags.contains("hypervisor");
    let is_server_part = part.is_some_and(|(_, server)| server);
    Cpu {
        class: class(root, &brand, is_virtual, is_server_part, board.is_some()),
        brand,
        physical_cores: u32::try_from(physical).unwrap_or(u32::MAX),
        logical_cores: u32::try_from(logical).unwrap_or(u32::MAX),
        features: features.map(|(_, name)| *name).collect(),
        is_virtual,
    }
}

fn arm_part(implementer: Option<&str>, part: Option<&str>) -> Option<(&'static str, bool)> {
    if implementer? != "0x41" {
        return None;
    }
    let part = u32::from_str_radix(part?.strip_prefix("0x")?, 16).ok()?;
    let known = ARM_PARTS.iter().find(|(number, ..)| *number == part)?;
    Some((known.1, known.2))
}

fn class(root: &Root, brand: &str, is_virtual: bool, is_server_part: bool, is_board: bool) -> CpuClass {
    let has_battery = root
        .names("sys/class/power_supply")
        .iter()
        .any(|name| name.starts_with("BAT"));
    let is_server = ["Xeon", "EPYC", "Opteron", "POWER"]
        .iter()
        .any(|name| brand.contains(name));
    if brand.starts_with("Apple") {
        CpuClass::Apple
    } else if is_server || is_server_part || is_virtual {
        CpuClass::Server
    } else if has_battery {
        CpuClass::Laptop
    } else if is_board {
        CpuClass::Board
    } else {
        CpuClass::Desktop
    }
}

/// What a system without `/proc` tells, such as macOS.
fn of_system() -> Cpu {
    let mut cpus: Vec<String> = Vec::new();
    if let Ok(mut system) = sysinfo::System::new() {
        system.refresh_cpu_list(sysinfo::CpuRefreshKind::nothing());
        cpus.extend(system.cpus().iter().map(|cpu| cpu.brand().trim().to_owned()));
    }
    let brand = cpus.first().filter(|brand| !brand.is_empty()).cloned();
    let brand = brand.unwrap_or_else(|| "unknown processor".to_owned());
    let logical = u32::try_from(cpus.len()).unwrap_or(u32::MAX).max(1);
    let physical = sysinfo::System::physical_core_count().ok();
    let physical = physical.and_then(|count| u32::try_from(count).ok());
    Cpu {
        class: if brand.starts_with("Apple") {
            CpuClass::Apple
        } else {
            CpuClass::Desktop
        },
        brand,
        physical_cores: physical.unwrap_or(logical),
        logical_cores: logical,
        features: compiled_features(),
        is_virtual: false,
    }
}

/// What the processor says of itself where no kernel's file does.
#[cfg(target_arch = "aarch64")]
fn compiled_features() -> Vec<&'static str> {
    let mut features = vec!["neon"];
    if std::arch::is_aarch64_feature_detected!("dotprod") {
        features.push("dotprod");
    }
    if std::arch::is_aarch64_feature_detected!("i8mm") {
        features.push("i8mm");
    }
    if std::arch::is_aarch64_feature_detected!("bf16") {
        features.push("bf16");
    }
    features
}

/// What the processor says of itself where no kernel's file does.
#[cfg(target_arch = "x86_64")]
fn compiled_features() -> Vec<&'static str> {
    let mut features = Vec::new();
    if std::arch::is_x86_feature_detected!("avx2") {
        features.push("avx2");
    }
    if std::arch::is_x86_feature_detected!("avx512f") {
        features.push("avx512f");
    }
    features
}

/// What the processor says of itself where no kernel's file does.
#[cfg(not(any(target_arch = "aarch64", target_arch = "x86_64")))]
fn compiled_features() -> Vec<&'static str> {
    Vec::new()
}
