//! The kernel's power capping counters of Intel's and AMD's processors: microjoules that only grow, and go round.

use std::io::ErrorKind;

use super::Obstacle;
use crate::Root;

/// Where the domains are.
const FOLDER: &str = "sys/class/powercap";

/// A counter of one part of the machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Domain {
    /// Such as `package-0` or `dram`.
    pub(crate) name: String,
    /// Below the root.
    file: String,
    /// The counter begins anew after this many microjoules.
    range: u64,
}

/// The domains that add up to what the processors and their memory draw.
///
/// A package contains its cores and its graphics, which are therefore left out; memory is counted apart from it. The
/// domain `psys`, which some laptops have, contains everything else and would be counted twice.
pub(crate) fn find(root: &Root) -> Result<Vec<Domain>, Obstacle> {
    let mut domains = Vec::new();
    for entry in root.names(FOLDER) {
        let folder = format!("{FOLDER}/{entry}");
        let name = root.line(&format!("{folder}/name")).unwrap_or_default();
        // `intel-rapl-mmio:0` is another way to the same package.
        let counts = entry.starts_with("intel-rapl:") && (name.starts_with("package") || name == "dram");
        if !counts {
            continue;
        }
        let file = format!("{folder}/energy_uj");
        match root.text(&file) {
            Ok(_) => {}
            Err(error) if error.kind() == ErrorKind::PermissionDenied => {
                return Err(Obstacle::Unreadable(root.path(&file)));
            }
            Err(_) => continue,
        }
        domains.push(Domain {
            name,
            file,
            range: root.number(&format!("{folder}/max_energy_range_uj")).unwrap_or(0),
        });
    }
    if domains.is_empty() {
        return Err(Obstacle::Absent);
    }
    Ok(domains)
}

impl Domain {
    /// Microjoules now, modulo the range.
    pub(crate) fn read(&self, root: &Root) -> Option<u64> {
        root.number(&self.file)
    }

    /// Microjoules between two readings, of which the second may have gone round once; `None` if that cannot be told.
    pub(crate) fn between(&self, before: u64, after: u64) -> Option<u64> {
        match after.checked_sub(before) {
            Some(drawn) => Some(drawn),
            None => self.range.checked_sub(before)?.checked_add(after),
        }
    }
}
