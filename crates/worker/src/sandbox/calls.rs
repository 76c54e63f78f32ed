//! seccomp: a list of what a process that computes needs, and everything else is refused. Refused and not killed, because
//! libraries try things that they can do without.

use std::collections::BTreeMap;

use seccompiler::{
    BackendError, BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter,
    SeccompRule,
};

use super::{Rights, Unsafe};

type Rules = BTreeMap<i64, Vec<SeccompRule>>;

/// Calls that are harmless whatever their arguments, given that no descriptor but the socket, the log and the model's files
/// can be come by.
const HARMLESS: &[i64] = &[
    libc::SYS_read,
    libc::SYS_readv,
    libc::SYS_pread64,
    libc::SYS_preadv,
    libc::SYS_write,
    libc::SYS_writev,
    libc::SYS_close,
    libc::SYS_lseek,
    libc::SYS_fstat,
    libc::SYS_newfstatat,
    libc::SYS_statx,
    libc::SYS_faccessat,
    libc::SYS_faccessat2,
    libc::SYS_readlinkat,
    libc::SYS_getcwd,
    libc::SYS_fcntl,
    libc::SYS_recvfrom,
    libc::SYS_getsockopt,
    libc::SYS_shutdown,
    libc::SYS_ppoll,
    libc::SYS_epoll_create1,
    libc::SYS_epoll_ctl,
    libc::SYS_epoll_pwait,
    libc::SYS_epoll_pwait2,
    libc::SYS_eventfd2,
    libc::SYS_pipe2,
    libc::SYS_munmap,
    libc::SYS_mremap,
    libc::SYS_madvise,
    libc::SYS_mincore,
    libc::SYS_brk,
    libc::SYS_futex,
    libc::SYS_futex_waitv,
    libc::SYS_get_robust_list,
    libc::SYS_set_robust_list,
    libc::SYS_set_tid_address,
    libc::SYS_rseq,
    libc::SYS_membarrier,
    libc::SYS_sched_yield,
    libc::SYS_sched_getaffinity,
    libc::SYS_sched_getparam,
    libc::SYS_sched_getscheduler,
    libc::SYS_sched_get_priority_max,
    libc::SYS_sched_get_priority_min,
    libc::SYS_getcpu,
    libc::SYS_getpid,
    libc::SYS_gettid,
    libc::SYS_getppid,
    libc::SYS_getuid,
    libc::SYS_geteuid,
    libc::SYS_getgid,
    libc::SYS_getegid,
    libc::SYS_getrandom,
    libc::SYS_getrusage,
    libc::SYS_times,
    libc::SYS_uname,
    libc::SYS_sysinfo,
    libc::SYS_clock_gettime,
    libc::SYS_clock_getres,
    libc::SYS_clock_nanosleep,
    libc::SYS_nanosleep,
    libc::SYS_gettimeofday,
    libc::SYS_rt_sigaction,
    libc::SYS_rt_sigprocmask,
    libc::SYS_rt_sigreturn,
    libc::SYS_sigaltstack,
    libc::SYS_restart_syscall,
    libc::SYS_exit,
    libc::SYS_exit_group,
];

/// The older names of some of these, where a processor has them.
#[cfg(target_arch = "x86_64")]
const OLDER: &[i64] = &[
    libc::SYS_stat,
    libc::SYS_lstat,
    libc::SYS_access,
    libc::SYS_readlink,
    libc::SYS_poll,
    libc::SYS_epoll_wait,
    libc::SYS_time,
];
#[cfg(not(target_arch = "x86_64"))]
const OLDER: &[i64] = &[];

/// `PR_SET_VMA`: names for mappings, which allocators set.
const PR_SET_VMA: u64 = 0x5356_4d41;

/// Says whether the kernel enforces it.
pub(super) fn restrict(rights: &Rights) -> Result<bool, Unsafe> {
    let failed = |error: &dyn std::fmt::Display| Unsafe(format!("system calls: {error}"));
    let new_clone = new_clone().map_err(|error| failed(&error))?;
    let rest = rest(rights).map_err(|error| failed(&error))?;
    for program in [new_clone, rest] {
        match seccompiler::apply_filter(&program) {
            Ok(()) => {}
            // A kernel without seccomp.
            Err(seccompiler::Error::Seccomp(error)) if error.raw_os_error() == Some(libc::EINVAL) => return Ok(false),
            Err(error) => return Err(failed(&error)),
        }
    }
    Ok(true)
}

/// The newer call to start a thread hides its arguments from a filter. Without it the C library takes the older one.
fn new_clone() -> Result<BpfProgram, BackendError> {
    let rules = [(libc::SYS_clone3, vec![])].into();
    compile(rules, SeccompAction::Allow, SeccompAction::Errno(errno(libc::ENOSYS)))
}

fn rest(rights: &Rights) -> Result<BpfProgram, BackendError> {
    let harmless = HARMLESS.iter().chain(OLDER).chain([&libc::SYS_clone3]);
    let mut rules: Rules = harmless.map(|call| (*call, vec![])).collect();
    let thread = unsigned(libc::CLONE_THREAD);
    rules.insert(libc::SYS_clone, vec![when(0, SeccompCmpOp::MaskedEq(thread), thread)?]);
    let writing = unsigned(libc::O_WRONLY | libc::O_RDWR | libc::O_CREAT | libc::O_TRUNC);
    let reading = |place| when(place, SeccompCmpOp::MaskedEq(writing), 0);
    rules.insert(libc::SYS_openat, vec![reading(2)?]);
    #[cfg(target_arch = "x86_64")]
    rules.insert(libc::SYS_open, vec![reading(1)?]);
    // No address: the one socket is connected.
    rules.insert(libc::SYS_sendto, vec![equal(4, 0)?]);
    rules.insert(libc::SYS_ioctl, vec![equal(1, FIONBIO)?]);
    // Own limits can be read.
    rules.insert(libc::SYS_prlimit64, vec![equal(2, 0)?]);
    let own = u64::from(std::process::id());
    rules.insert(libc::SYS_tgkill, vec![equal(0, own)?]);
    let names = [unsigned(libc::PR_SET_NAME), unsigned(libc::PR_GET_NAME), PR_SET_VMA];
    let names = names
        .into_iter()
        .map(|option| equal(0, option))
        .collect::<Result<_, _>>()?;
    rules.insert(libc::SYS_prctl, names);
    // Memory that is written is never executed.
    let code = unsigned(libc::PROT_EXEC);
    for call in [libc::SYS_mmap, libc::SYS_mprotect] {
        rules.insert(call, vec![when(2, SeccompCmpOp::MaskedEq(code), 0)?]);
    }
    if rights.gpu {
        for call in [
            libc::SYS_ioctl,
            libc::SYS_mmap,
            libc::SYS_mprotect,
            libc::SYS_openat,
            libc::SYS_memfd_create,
            libc::SYS_getdents64,
            libc::SYS_ftruncate,
            libc::SYS_mlock,
            libc::SYS_munlock,
            libc::SYS_set_mempolicy,
            libc::SYS_get_mempolicy,
            libc::SYS_mbind,
        ] {
            rules.insert(call, vec![]);
        }
    }
    compile(rules, SeccompAction::Errno(errno(libc::EPERM)), SeccompAction::Allow)
}

/// `FIONBIO`: whether a descriptor blocks.
const FIONBIO: u64 = 0x5421;

fn compile(rules: Rules, otherwise: SeccompAction, matched: SeccompAction) -> Result<BpfProgram, BackendError> {
    let architecture = std::env::consts::ARCH.try_into()?;
    SeccompFilter::new(rules, otherwise, matched, architecture)?.try_into()
}

fn when(argument: u8, operation: SeccompCmpOp, value: u64) -> Result<SeccompRule, BackendError> {
    let condition = SeccompCondition::new(argument, SeccompCmpArgLen::Qword, operation, value)?;
    SeccompRule::new(vec![condition])
}

fn equal(argument: u8, value: u64) -> Result<SeccompRule, BackendError> {
    when(argument, SeccompCmpOp::Eq, value)
}

fn errno(number: i32) -> u32 {
    number.unsigned_abs()
}

fn unsigned(flags: i32) -> u64 {
    u64::from(flags.unsigned_abs())
}
