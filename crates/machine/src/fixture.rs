//! Machines that are not here: their files, in a folder.

use std::{fs, path::Path};

use tempfile::TempDir;

use crate::Root;

/// A folder that looks like a machine's `/`.
pub(crate) struct Machine {
    folder: TempDir,
}

impl Machine {
    /// The range of the laptop's counters, in microjoules.
    pub(crate) const RANGE: u64 = 262_143_328_850;

    /// Nothing.
    pub(crate) fn empty() -> Self {
        Self {
            folder: tempfile::tempdir().unwrap(),
        }
    }

    /// An Intel laptop with two cores of two threads, power capping, and graphics in its processor.
    pub(crate) fn laptop() -> Self {
        let machine = Self::empty();
        let thread = |number: u32, core: u32| {
            format!(
                "processor\t: {number}\nvendor_id\t: GenuineIntel\nmodel name\t: 13th Gen Intel(R) Core(TM) i7-1360P\n\
                 physical id\t: 0\ncore id\t\t: {core}\nflags\t\t: fpu sse avx f16c fma avx2 avx_vnni\n\n"
            )
        };
        let threads: Vec<String> = [(0, 0), (1, 0), (2, 4), (3, 4)]
            .iter()
            .map(|(n, c)| thread(*n, *c))
            .collect();
        machine.write("proc/cpuinfo", &threads.concat());
        machine.write(
            "proc/meminfo",
            "MemTotal:       16384 kB\nMemFree:         2000 kB\nMemAvailable:   12000 kB\n",
        );
        machine.write(
            "proc/sys/kernel/seccomp/actions_avail",
            "kill_process kill_thread errno allow\n",
        );
        machine.write("sys/class/power_supply/BAT0/type", "Battery\n");
        machine.write("sys/class/drm/card1/device/vendor", "0x8086\n");
        machine.write("sys/class/drm/card1/device/device", "0xa7a0\n");
        machine.write("sys/class/drm/card1-eDP-1/status", "connected\n");
        for (domain, name) in [
            ("intel-rapl:0", "package-0"),
            ("intel-rapl:0:0", "core"),
            ("intel-rapl:0:1", "uncore"),
            ("intel-rapl:0:2", "dram"),
            ("intel-rapl:1", "psys"),
            ("intel-rapl-mmio:0", "package-0"),
        ] {
            let folder = format!("sys/class/powercap/{domain}");
            machine.write(&format!("{folder}/name"), &format!("{name}\n"));
            machine.write(&format!("{folder}/energy_uj"), "7777777\n");
            machine.write(&format!("{folder}/max_energy_range_uj"), &format!("{}\n", Self::RANGE));
        }
        machine.counters(0, 0, 0);
        machine
    }

    /// An AMD desktop with a card of AMD's, and no power capping.
    pub(crate) fn workstation() -> Self {
        let machine = Self::empty();
        machine.write(
            "proc/cpuinfo",
            "processor\t: 0\nmodel name\t: AMD Ryzen 9 7950X 16-Core Processor\nphysical id\t: 0\ncore id\t: 0\n\
             flags\t: avx avx2 fma f16c avx512f avx512_bf16 avx512_vnni\n",
        );
        machine.write("proc/meminfo", "MemTotal: 65536 kB\nMemAvailable: 60000 kB\n");
        machine.write("proc/stat", "cpu  0 0 0 0 0 0 0 0 0 0\n");
        let card = "sys/class/drm/card0/device";
        machine.write(&format!("{card}/vendor"), "0x1002\n");
        machine.write(&format!("{card}/device"), "0x744c\n");
        machine.write(&format!("{card}/product_name"), "AMD Radeon RX 7900 XTX\n");
        machine.write(&format!("{card}/mem_info_vram_total"), "25753026560\n");
        machine.gpu(20_000_000, 0);
        machine
    }

    /// A virtual machine in which a container has two megabytes.
    pub(crate) fn virtual_machine() -> Self {
        let machine = Self::empty();
        machine.write(
            "proc/cpuinfo",
            "processor\t: 0\nmodel name\t: Intel(R) Xeon(R) Processor\nflags\t: avx avx2 hypervisor\n",
        );
        machine.write("proc/meminfo", "MemTotal: 8192 kB\nMemAvailable: 4096 kB\n");
        machine.write("proc/stat", "cpu  0 0 0 0\n");
        machine.write("sys/fs/cgroup/memory.max", "2097152\n");
        machine.write("sys/fs/cgroup/memory.current", "1048576\n");
        machine
    }

    /// The laptop's counters: microjoules of its package and its memory, and ticks in which it was busy.
    pub(crate) fn counters(&self, package: u64, memory: u64, ticks: u64) {
        self.write("sys/class/powercap/intel-rapl:0/energy_uj", &format!("{package}\n"));
        self.write("sys/class/powercap/intel-rapl:0:2/energy_uj", &format!("{memory}\n"));
        // Half of it is the programs', half the kernel's; waiting and what a host stole are no work.
        let (user, system) = (ticks / 2, ticks - ticks / 2);
        self.write(
            "proc/stat",
            &format!("cpu  {user} 0 {system} 900 77 0 0 55 0 0\ncpu0 1 2 3 4\n"),
        );
    }

    /// What the workstation's card says: microwatts, and percent of the time in which it is busy.
    pub(crate) fn gpu(&self, microwatts: u64, percent: u64) {
        let card = "sys/class/drm/card0/device";
        self.write(
            &format!("{card}/hwmon/hwmon3/power1_average"),
            &format!("{microwatts}\n"),
        );
        self.write(&format!("{card}/gpu_busy_percent"), &format!("{percent}\n"));
    }

    pub(crate) fn write(&self, relative: &str, text: &str) {
        let path = self.folder.path().join(relative);
        fs::create_dir_all(path.parent().unwrap_or_else(|| Path::new("/"))).unwrap();
        fs::write(path, text).unwrap();
    }

    pub(crate) fn root(&self) -> Root {
        Root::at(self.folder.path())
    }
}
