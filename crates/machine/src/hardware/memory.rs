//! Memory: how much there is, and how much a model may have.

use serde::Serialize;

use crate::Root;

/// The machine's memory, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Memory {
    /// All of it, or what a container may have of it.
    pub total_bytes: u64,
    /// What can be had without swapping.
    pub available_bytes: u64,
}

impl Memory {
    /// Reads `/proc/meminfo` and the container's limits, or asks the system where there are none.
    pub(crate) fn detect(root: &Root) -> Self {
        let Ok(text) = root.text("proc/meminfo") else {
            return Self::of_system();
        };
        let total = kibibytes(&text, "MemTotal").unwrap_or(0);
        let available = kibibytes(&text, "MemAvailable").unwrap_or(0);
        // Version 2's root group has no such file; a container's own has, with a number or the word `max`.
        let Some(limit) = root.number("sys/fs/cgroup/memory.max") else {
            return Self {
                total_bytes: total,
                available_bytes: available,
            };
        };
        let used = root.number("sys/fs/cgroup/memory.current").unwrap_or(0);
        Self {
            total_bytes: total.min(limit),
            available_bytes: available.min(limit.saturating_sub(used)),
        }
    }

    /// What a system without `/proc` tells, such as macOS; zeros when it tells nothing.
    fn of_system() -> Self {
        let Ok(mut system) = sysinfo::System::new() else {
            return Self {
                total_bytes: 0,
                available_bytes: 0,
            };
        };
        system.refresh_memory();
        Self {
            total_bytes: system.total_memory(),
            available_bytes: system.available_memory(),
        }
    }
}

/// A line such as `MemTotal:       16384 kB`, in bytes.
fn kibibytes(text: &str, name: &str) -> Option<u64> {
    let line = text
        .lines()
        .find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))?;
    let number: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    number.checked_mul(1_024)
}
