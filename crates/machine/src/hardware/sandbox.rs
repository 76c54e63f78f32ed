//! What the kernel can do to hold a model's process, so that a hostile model file reaches nothing.

use serde::Serialize;

use crate::Root;

/// What the kernel can do to hold a model's process.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Sandbox {
    /// The version of Landlock, which closes files and ports to a process; `None` when the kernel has none.
    pub landlock: Option<u32>,
    /// Whether seccomp filters system calls.
    pub seccomp: bool,
}

impl Sandbox {
    /// Reads what seccomp can do, and asks the kernel for Landlock if `root` is this machine.
    pub(crate) fn detect(root: &Root) -> Self {
        let actions = root.text("proc/sys/kernel/seccomp/actions_avail").unwrap_or_default();
        Self {
            landlock: if root.is_system() { landlock() } else { None },
            seccomp: actions.split_whitespace().any(|action| action == "kill_process"),
        }
    }

    /// Whether a model's process can be held as the worker means to.
    pub fn is_whole(&self) -> bool {
        self.landlock.is_some() && self.seccomp
    }
}

/// The kernel's version of Landlock. A thread that ends at once takes a restriction upon itself and says what became of
/// it: nothing else tells the version without unsafe code.
#[cfg(target_os = "linux")]
fn landlock() -> Option<u32> {
    use landlock::{AccessFs, LandlockStatus, Ruleset, RulesetAttr};

    let asked = std::thread::Builder::new().name("landlock".to_owned()).spawn(|| {
        let rules = Ruleset::default().handle_access(AccessFs::MakeBlock).ok()?;
        Some(rules.create().ok()?.restrict_self().ok()?.landlock)
    });
    match asked.ok()?.join().ok()?? {
        LandlockStatus::Available {
            effective_abi,
            kernel_abi,
        } => kernel_abi
            .and_then(|abi| u32::try_from(abi).ok())
            .or(Some(effective_abi as u32)),
        LandlockStatus::NotEnabled | LandlockStatus::NotImplemented => None,
    }
}

/// Landlock is Linux's.
#[cfg(not(target_os = "linux"))]
fn landlock() -> Option<u32> {
    None
}
