//! Giving up rights, once and for good: what a model's file makes this process do afterwards can neither reach the network,
//! nor another file, nor another process, nor more memory than the model needs.
//!
//! On Linux three things of the kernel that do not rest on each other: resource limits, Landlock for files (5.13 and later),
//! and seccomp for everything else. Where one is missing the others still hold, and [`Report`] says so. Other systems
//! have the process boundary alone.

#[cfg(target_os = "linux")]
mod calls;
#[cfg(target_os = "linux")]
mod files;
#[cfg(target_os = "linux")]
mod limits;

use std::path::PathBuf;

/// What a worker is left with.
#[derive(Debug, Clone)]
pub struct Rights {
    /// Files that it may read.
    pub files: Vec<PathBuf>,
    /// Bytes of address space.
    pub memory: u64,
    /// Processors that it may use; `None` for all.
    pub processors: Option<u32>,
    /// Whether it needs a GPU: its driver opens devices, maps memory without end and makes code at run time, which
    /// loosens everything but the network.
    pub gpu: bool,
}

/// What holds now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Report {
    /// Landlock restricts files.
    pub landlock: bool,
    /// seccomp restricts system calls.
    pub seccomp: bool,
}

/// Why rights could not be given up. A worker that meets this loads nothing.
#[derive(Debug, thiserror::Error)]
#[error("the sandbox cannot be entered: {0}")]
pub struct Unsafe(pub String);

/// Gives up every right but these. Must be called before the first thread is started, because what the kernel restricts is
/// a thread and those that it starts.
#[cfg(target_os = "linux")]
pub fn enter(rights: &Rights) -> Result<Report, Unsafe> {
    limits::set(rights)?;
    let landlock = files::restrict(rights)?;
    let seccomp = calls::restrict(rights)?;
    if !landlock && !seccomp {
        return Err(Unsafe("this kernel has neither Landlock nor seccomp".to_owned()));
    }
    Ok(Report { landlock, seccomp })
}

/// There is nothing to enter here but the process itself.
#[cfg(not(target_os = "linux"))]
pub fn enter(_rights: &Rights) -> Result<Report, Unsafe> {
    Ok(Report {
        landlock: false,
        seccomp: false,
    })
}
