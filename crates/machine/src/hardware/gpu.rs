//! GPUs: whose they are, how much memory they have, and which build of the worker uses them.

use serde::Serialize;

use super::{Cpu, CpuClass};
use crate::Root;

/// PCI's numbers of the makers.
const NVIDIA: u32 = 0x10de;
const AMD: u32 = 0x1002;
const INTEL: u32 = 0x8086;

/// Who made a GPU.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Vendor {
    /// NVIDIA, asked through its management library.
    Nvidia,
    /// AMD, asked through the kernel's files.
    Amd,
    /// Intel: named only.
    Intel,
    /// Apple silicon's, which shares the machine's memory.
    Apple,
}

impl Vendor {
    /// The cargo features of `rialto-worker` whose build uses a GPU of this maker, the best first.
    pub fn worker_features(self) -> &'static [&'static str] {
        match self {
            Self::Nvidia => &["cuda", "vulkan"],
            Self::Amd => &["rocm", "vulkan"],
            Self::Intel => &["vulkan"],
            Self::Apple => &["metal"],
        }
    }
}

/// Where a GPU's counters are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Place {
    /// At this index of NVIDIA's library.
    Nvidia(u32),
    /// In this folder below the root.
    Kernel(String),
    /// Nowhere.
    None,
}

/// A GPU.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Gpu {
    /// What its maker calls it, or its PCI numbers.
    pub name: String,
    /// Who made it.
    pub vendor: Vendor,
    /// Bytes of its own memory; `None` when it shares the machine's, or they are not told.
    pub memory_bytes: Option<u64>,
    /// Whether it works in the machine's memory.
    pub shares_memory: bool,
    /// Whether a driver answers for it.
    pub has_driver: bool,
    /// The cargo features of `rialto-worker` whose build uses it, the best first.
    pub worker_features: &'static [&'static str],
    /// Where its counters are.
    #[serde(skip)]
    pub(crate) place: Place,
}

impl Gpu {
    /// A GPU of this maker with a driver, of which nothing else is known.
    pub(crate) fn new(name: String, vendor: Vendor, place: Place) -> Self {
        Self {
            name,
            vendor,
            memory_bytes: None,
            shares_memory: false,
            has_driver: true,
            worker_features: vendor.worker_features(),
            place,
        }
    }
}

/// All GPUs: `nvidia` as its library told them, the others from the kernel's files.
pub(crate) fn detect(root: &Root, cpu: &Cpu, nvidia: Vec<Gpu>) -> Vec<Gpu> {
    let mut gpus = if nvidia.is_empty() { driverless(root) } else { nvidia };
    for card in root.names("sys/class/drm") {
        // `card0` is a card; `card0-DP-1` is a connector of it.
        let is_card = card
            .strip_prefix("card")
            .is_some_and(|rest| rest.parse::<u32>().is_ok());
        let folder = format!("sys/class/drm/{card}/device");
        match root.hex(&format!("{folder}/vendor")) {
            Some(AMD) if is_card => gpus.push(amd(root, folder)),
            Some(INTEL) if is_card => gpus.push(Gpu {
                shares_memory: true,
                ..Gpu::new(named(root, &folder, "Intel graphics"), Vendor::Intel, Place::None)
            }),
            _ => {}
        }
    }
    if cpu.class == CpuClass::Apple {
        gpus.push(Gpu {
            shares_memory: true,
            ..Gpu::new(format!("{} GPU", cpu.brand), Vendor::Apple, Place::None)
        });
    }
    gpus
}

/// NVIDIA's display controllers on the bus, for a machine on which its library does not answer.
fn driverless(root: &Root) -> Vec<Gpu> {
    let folder = "sys/bus/pci/devices";
    let devices = root.names(folder).into_iter().map(|name| format!("{folder}/{name}"));
    let of_nvidia = devices.filter(|device| {
        let class = root.hex(&format!("{device}/class")).unwrap_or(0);
        // The upper byte of three: 3 is a display controller, with a screen or without.
        root.hex(&format!("{device}/vendor")) == Some(NVIDIA) && class >> 16 == 0x03
    });
    let gpu = |device: String| Gpu {
        has_driver: false,
        ..Gpu::new(named(root, &device, "NVIDIA GPU"), Vendor::Nvidia, Place::None)
    };
    of_nvidia.map(gpu).collect()
}

fn amd(root: &Root, folder: String) -> Gpu {
    let name = root.line(&format!("{folder}/product_name"));
    let name = name.unwrap_or_else(|| named(root, &folder, "AMD GPU"));
    Gpu {
        memory_bytes: root.number(&format!("{folder}/mem_info_vram_total")),
        ..Gpu::new(name, Vendor::Amd, Place::Kernel(folder))
    }
}

/// `AMD GPU 744c`: the kernel gives numbers only.
fn named(root: &Root, folder: &str, what: &str) -> String {
    match root.hex(&format!("{folder}/device")) {
        Some(device) => format!("{what} {device:04x}"),
        None => what.to_owned(),
    }
}
