//! What the machine is: its processor, its memory, its GPUs, and what its kernel can do to hold a model's process.

mod cpu;
mod gpu;
mod memory;
mod nvidia;
mod sandbox;

use serde::Serialize;

use crate::Root;

pub use cpu::{Cpu, CpuClass};
pub use gpu::{Gpu, Vendor};
pub use memory::Memory;
pub use sandbox::Sandbox;

pub(crate) use gpu::Place;
pub(crate) use nvidia::{Counters, Driver};

/// What the machine is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Hardware {
    /// Its processor.
    pub cpu: Cpu,
    /// Its memory.
    pub memory: Memory,
    /// Its GPUs, also those that nothing here can use yet.
    pub gpus: Vec<Gpu>,
    /// What the kernel can do to hold a model's process.
    pub sandbox: Sandbox,
}

impl Hardware {
    /// Looks at this machine. Takes some milliseconds, and tens of them where NVIDIA's library must be loaded.
    pub fn detect() -> Self {
        Self::detect_in(&Root::system())
    }

    /// Looks at the machine whose files are below `root`. NVIDIA's library, the kernel itself and what other systems
    /// than Linux tell are asked only for [`Root::system`].
    pub fn detect_in(root: &Root) -> Self {
        let cpu = Cpu::detect(root);
        let nvidia = if root.is_system() {
            Driver::load().map(|driver| driver.gpus()).unwrap_or_default()
        } else {
            Vec::new()
        };
        Self {
            memory: Memory::detect(root),
            gpus: gpu::detect(root, &cpu, nvidia),
            sandbox: Sandbox::detect(root),
            cpu,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixture::Machine;

    #[test]
    fn a_laptop_is_known_by_its_battery_and_its_little_cores() {
        let machine = Machine::laptop();
        let hardware = Hardware::detect_in(&machine.root());
        assert_eq!(hardware.cpu.brand, "13th Gen Intel(R) Core(TM) i7-1360P");
        assert_eq!((hardware.cpu.physical_cores, hardware.cpu.logical_cores), (2, 4));
        assert_eq!(hardware.cpu.class, CpuClass::Laptop);
        assert_eq!(hardware.cpu.features, ["avx", "avx2", "fma", "f16c", "avx_vnni"]);
        assert_eq!(hardware.memory.total_bytes, 16_384 << 10);
        assert_eq!(hardware.memory.available_bytes, 12_000 << 10);
        let [gpu] = hardware.gpus.as_slice() else {
            panic!("one GPU: {:?}", hardware.gpus)
        };
        assert_eq!((gpu.vendor, gpu.memory_bytes), (Vendor::Intel, None));
        assert!(gpu.shares_memory);
        assert!(hardware.sandbox.seccomp);
    }

    #[test]
    fn amd_tells_its_memory_and_names_its_features() {
        let machine = Machine::workstation();
        let hardware = Hardware::detect_in(&machine.root());
        assert_eq!(hardware.cpu.class, CpuClass::Desktop);
        assert!(hardware.cpu.features.contains(&"avx512_bf16"));
        let [gpu] = hardware.gpus.as_slice() else {
            panic!("one GPU: {:?}", hardware.gpus)
        };
        assert_eq!(gpu.vendor, Vendor::Amd);
        assert_eq!(gpu.name, "AMD Radeon RX 7900 XTX");
        assert_eq!(gpu.memory_bytes, Some(25_753_026_560));
        assert_eq!(gpu.worker_features, ["rocm", "vulkan"]);
        assert!(gpu.has_driver);
    }

    #[test]
    fn a_virtual_machine_with_nothing_is_a_server() {
        let machine = Machine::virtual_machine();
        let hardware = Hardware::detect_in(&machine.root());
        assert_eq!(hardware.cpu.class, CpuClass::Server);
        assert!(hardware.cpu.is_virtual);
        assert!(hardware.gpus.is_empty());
        assert_eq!(hardware.memory.total_bytes, 2_048 << 10, "the container's limit counts");
        assert!(!hardware.sandbox.seccomp);
    }

    #[test]
    fn an_nvidia_card_without_its_driver_is_seen() {
        let machine = Machine::virtual_machine();
        machine.write("sys/bus/pci/devices/0000:01:00.0/class", "0x030200\n");
        machine.write("sys/bus/pci/devices/0000:01:00.0/vendor", "0x10de\n");
        machine.write("sys/bus/pci/devices/0000:01:00.0/device", "0x2684\n");
        // Its sound device is no GPU.
        machine.write("sys/bus/pci/devices/0000:01:00.1/class", "0x040300\n");
        machine.write("sys/bus/pci/devices/0000:01:00.1/vendor", "0x10de\n");
        let hardware = Hardware::detect_in(&machine.root());
        let [gpu] = hardware.gpus.as_slice() else {
            panic!("one GPU: {:?}", hardware.gpus)
        };
        assert_eq!(gpu.vendor, Vendor::Nvidia);
        assert!(!gpu.has_driver);
        assert_eq!(gpu.worker_features, ["cuda", "vulkan"]);
    }

    #[test]
    fn an_arm_server_is_named_by_its_part() {
        let machine = Machine::empty();
        machine.write(
            "proc/cpuinfo",
            "processor\t: 0\nFeatures\t: fp asimd asimddp sve i8mm bf16\nCPU implementer\t: 0x41\nCPU part\t: 0xd40\n\n\
             processor\t: 1\nFeatures\t: fp asimd asimddp sve i8mm bf16\nCPU implementer\t: 0x41\nCPU part\t: 0xd40\n",
        );
        let cpu = Hardware::detect_in(&machine.root()).cpu;
        assert_eq!(cpu.brand, "Arm Neoverse-V1");
        assert_eq!(cpu.features, ["neon", "dotprod", "i8mm", "sve", "bf16"]);
        assert_eq!((cpu.class, cpu.physical_cores), (CpuClass::Server, 2));
    }

    #[test]
    fn this_machine_has_a_processor_and_memory() {
        let hardware = Hardware::detect();
        assert!(hardware.cpu.logical_cores >= hardware.cpu.physical_cores && hardware.cpu.physical_cores > 0);
        assert!(!hardware.cpu.brand.is_empty());
        assert!(hardware.memory.total_bytes >= hardware.memory.available_bytes);
        assert!(hardware.memory.available_bytes > 0);
        let text = serde_json::to_string(&hardware).unwrap();
        assert!(text.contains("logical_cores"), "{text}");
    }
}
