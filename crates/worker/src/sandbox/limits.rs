//! Limits of resources, capabilities, and who may look at this process.

use std::io;

use rustix::{
    process::{DumpableBehavior, Pid, Resource, Rlimit, getpid, set_dumpable_behavior, setpriority_process, setrlimit},
    thread::{
        CapabilitySet, CapabilitySets, CpuSet, capabilities, sched_getaffinity, sched_setaffinity, set_capabilities,
    },
};

use super::{Rights, Unsafe};

/// Open files: the socket, the log, a model's files, and what a runtime needs.
const OPEN_FILES: u64 = 256;

/// The provider's own work comes first: it moves the money.
const NICENESS: i32 = 5;

pub(super) fn set(rights: &Rights) -> Result<(), Unsafe> {
    // Drivers of GPUs reserve address space without end.
    let memory = if rights.gpu { Resource::Data } else { Resource::As };
    for (resource, limit) in [
        (memory, rights.memory),
        (Resource::Nofile, OPEN_FILES),
        (Resource::Core, 0),
        (Resource::Fsize, 0),
    ] {
        let limit = Rlimit {
            current: Some(limit),
            maximum: Some(limit),
        };
        setrlimit(resource, limit).map_err(|error| Unsafe(format!("limit {resource:?}: {error}")))?;
    }
    set_dumpable_behavior(DumpableBehavior::NotDumpable).map_err(denied("dumpable"))?;
    if let Err(error) = setpriority_process(None, NICENESS) {
        tracing::debug!(%error, "priority was not lowered");
    }
    if let Some(processors) = rights.processors {
        pin(processors).map_err(denied("processors"))?;
    }
    drop_capabilities().map_err(denied("capabilities"))
}

fn denied(what: &'static str) -> impl Fn(rustix::io::Errno) -> Unsafe {
    move |error| Unsafe(format!("{what}: {}", io::Error::from(error)))
}

/// Leaves so many processors of those that there are. Which ones depends on the process, so that workers spread.
fn pin(count: u32) -> rustix::io::Result<()> {
    let all = sched_getaffinity(None)?;
    let there: Vec<usize> = (0..CpuSet::MAX_CPU).filter(|cpu| all.is_set(*cpu)).collect();
    let count = usize::try_from(count).unwrap_or(usize::MAX).max(1);
    if count >= there.len() {
        return Ok(());
    }
    let first = usize::try_from(Pid::as_raw(Some(getpid())))
        .unwrap_or_default()
        .wrapping_mul(count);
    let mut few = CpuSet::new();
    for cpu in there.iter().cycle().skip(first % there.len()).take(count) {
        few.set(*cpu);
    }
    sched_setaffinity(None, &few)
}

/// Keeps the one that reads files whatever their mode: Landlock says which files.
fn drop_capabilities() -> rustix::io::Result<()> {
    let held = capabilities(None)?;
    let kept = held.permitted & CapabilitySet::DAC_READ_SEARCH;
    let sets = CapabilitySets {
        effective: kept,
        permitted: kept,
        inheritable: CapabilitySet::empty(),
    };
    set_capabilities(None, sets)
}
