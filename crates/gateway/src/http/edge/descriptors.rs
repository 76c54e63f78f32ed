//! How many connections the system lets this process have.

/// Descriptors that are kept for the store, the network and the chain.
const KEPT: u64 = 256;

/// The most connections that the system allows, after its limit for this process was raised as far as it can be.
#[cfg(unix)]
pub(super) fn most_connections() -> usize {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit {
        current: limit.maximum,
        maximum: limit.maximum,
    };
    if let Err(error) = setrlimit(Resource::Nofile, raised) {
        tracing::debug!(%error, "the limit of open files could not be raised");
    }
    let most = getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX);
    usize::try_from(allowed(most)).unwrap_or(usize::MAX)
}

/// Where there is no such limit.
#[cfg(not(unix))]
pub(super) fn most_connections() -> usize {
    usize::MAX
}

#[cfg(unix)]
fn allowed(descriptors: u64) -> u64 {
    descriptors.saturating_sub(KEPT).max(descriptors / 2)
}

#[cfg(all(test, unix))]
mod tests {
    use super::*;

    #[test]
    fn some_descriptors_are_kept_for_other_things() {
        assert_eq!(allowed(1_024), 768);
        assert_eq!(allowed(256), 128);
        assert_eq!(allowed(u64::MAX), u64::MAX - KEPT);
    }
}
