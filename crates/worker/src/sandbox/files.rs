//! Landlock: the model's files can be read, and a few files about the machine; nothing can be written, and where the kernel
//! knows it, no port bound or connected to and no process signalled.

use std::path::{Path, PathBuf};

use landlock::{
    ABI, Access, AccessFs, AccessNet, CompatLevel, Compatible, PathBeneath, PathFd, Ruleset, RulesetAttr,
    RulesetCreated, RulesetCreatedAttr, RulesetError, RulesetStatus, Scope,
};

use super::{Rights, Unsafe};

/// The newest rights that this program knows of.
const NEWEST: ABI = ABI::V6;

/// What libraries ask about processors and memory.
const MACHINE: [&str; 4] = [
    "/proc/cpuinfo",
    "/proc/meminfo",
    "/proc/self/status",
    "/sys/devices/system/cpu",
];

/// What drivers of GPUs need besides.
const GPU_READ: [&str; 8] = ["/usr", "/lib", "/lib64", "/opt", "/etc", "/proc", "/sys", "/dev"];
const GPU_WRITE: [&str; 4] = ["/dev", "/dev/dri", "/dev/shm", "/tmp"];

/// Says whether the kernel enforces it.
pub(super) fn restrict(rights: &Rights) -> Result<bool, Unsafe> {
    apply(rights).map_err(|error| Unsafe(format!("files: {error}")))
}

fn apply(rights: &Rights) -> Result<bool, RulesetError> {
    let mut ruleset = Ruleset::default()
        .set_compatibility(CompatLevel::BestEffort)
        .handle_access(AccessFs::from_all(NEWEST))?
        .handle_access(AccessNet::from_all(NEWEST))?
        .scope(Scope::from_all(NEWEST))?
        .create()?;
    let read = AccessFs::ReadFile | AccessFs::ReadDir;
    for file in &rights.files {
        ruleset = allow(ruleset, file, AccessFs::ReadFile.into())?;
    }
    for path in MACHINE {
        ruleset = allow(ruleset, Path::new(path), read)?;
    }
    if rights.gpu {
        for path in GPU_READ {
            ruleset = allow(ruleset, Path::new(path), read | AccessFs::Execute)?;
        }
        for path in GPU_WRITE.map(PathBuf::from) {
            ruleset = allow(ruleset, &path, AccessFs::from_all(NEWEST))?;
        }
    }
    let status = ruleset.restrict_self()?;
    Ok(status.ruleset != RulesetStatus::NotEnforced)
}

/// A path that is not there needs no rule.
fn allow(
    ruleset: RulesetCreated,
    path: &Path,
    access: landlock::BitFlags<AccessFs>,
) -> Result<RulesetCreated, RulesetError> {
    let Ok(opened) = PathFd::new(path) else {
        return Ok(ruleset);
    };
    let access = if path.is_dir() {
        access
    } else {
        access & AccessFs::from_file(NEWEST)
    };
    ruleset.add_rule(PathBeneath::new(opened, access))
}
