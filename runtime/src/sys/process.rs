//! Making, joining, signalling and replacing processes.

use std::convert::Infallible;
use std::ffi::CStr;
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::ptr;

use super::fd::owned;
use super::strings::Strings;
use super::{Errno, Fd, raw};

/// The kernel's `struct clone_args`, version 2.
#[derive(Default)]
#[repr(C, align(8))]
struct CloneArguments {
    flags: u64,
    pidfd: u64,
    child_tid: u64,
    parent_tid: u64,
    exit_signal: u64,
    stack: u64,
    stack_size: u64,
    tls: u64,
    set_tid: u64,
    set_tid_size: u64,
    cgroup: u64,
}

/// A child process that was just made.
#[derive(Debug)]
pub(crate) struct Child {
    /// As this process's pid namespace numbers it.
    pub(crate) pid: i32,
    /// Close-on-exec.
    pub(crate) pidfd: OwnedFd,
}

/// What its parent hears of a process's end besides its pidfd.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Notice {
    /// `SIGCHLD`, as of any child.
    Child,
    /// Nothing: it is none of what the program's own handlers and waits for children collect, and it waits to be
    /// reaped by [`wait`] even where `SIGCHLD` is ignored. For a process that executes no program: that makes it an
    /// ordinary child.
    Nothing,
}

impl Notice {
    fn signal(self) -> u64 {
        match self {
            Self::Child => libc::SIGCHLD as u64,
            Self::Nothing => 0,
        }
    }
}

/// Makes a child with its own copy of the memory, in the new namespaces that `namespaces` (`CLONE_NEW*`) asks for and
/// in the v2 control group `cgroup`; the child runs `body` and nothing else.
///
/// The child has no signal handlers. `body` must not allocate, lock or unwind: another thread may have held a
/// lock of the allocator or of the C library at the moment of the copy.
///
/// # Safety
///
/// `body` must keep to that: only calls of this module tree on memory prepared before.
pub(crate) unsafe fn clone_child<F>(
    namespaces: u64,
    cgroup: Option<Fd>,
    notice: Notice,
    body: F,
) -> Result<Child, Errno>
where
    F: FnOnce() -> Infallible,
{
    const CLONE_CLEAR_SIGHAND: u64 = 0x1_0000_0000;
    const CLONE_INTO_CGROUP: u64 = 0x2_0000_0000;
    let mut pidfd: i32 = -1;
    let mut arguments = CloneArguments {
        flags: namespaces | libc::CLONE_PIDFD as u64 | CLONE_CLEAR_SIGHAND,
        pidfd: &raw mut pidfd as u64,
        exit_signal: notice.signal(),
        ..CloneArguments::default()
    };
    if let Some(cgroup) = cgroup {
        arguments.flags |= CLONE_INTO_CGROUP;
        arguments.cgroup = cgroup.number() as u64;
    }
    // SAFETY: without CLONE_VM the child has its own copy of memory and stack, so returning twice is sound; the
    // arguments outlive the call and the size is theirs; the kernel writes the pidfd into the parent's variable.
    let pid = unsafe {
        raw(
            libc::SYS_clone3,
            [&raw const arguments as usize, size_of::<CloneArguments>()],
        )
    };
    let pid = match pid {
        // A filter cannot look into the structure, so many have no clone3. The child then keeps the signal handlers, which
        // are none where filters are.
        Err(errno) if errno.number() == libc::ENOSYS && namespaces == 0 && cgroup.is_none() => {
            let flags = libc::CLONE_PIDFD as u64 | arguments.exit_signal;
            // SAFETY: as above; without a stack of its own the child goes on with the copy of this one.
            unsafe {
                raw(
                    libc::SYS_clone,
                    [flags as usize, 0, &raw mut pidfd as usize, 0, 0],
                )
            }
        }
        answer => answer,
    }?;
    if pid == 0 {
        body();
    }
    Ok(Child {
        pid: pid as i32,
        pidfd: owned(pidfd as usize),
    })
}

/// Makes a sibling of this process, with its own copy of the memory and the new namespaces that `namespaces` asks for: a child of
/// this process's parent, who is told of its end by the same signal. Answers its pid, as this process numbers it, and
/// its pidfd. For the child half.
///
/// # Safety
///
/// As for [`clone_child`].
pub(crate) unsafe fn clone_sibling<F>(namespaces: u64, body: F) -> Result<(i32, Fd), Errno>
where
    F: FnOnce() -> Infallible,
{
    let mut pidfd: i32 = -1;
    let arguments = CloneArguments {
        flags: namespaces | (libc::CLONE_PIDFD | libc::CLONE_PARENT) as u64,
        pidfd: &raw mut pidfd as u64,
        ..CloneArguments::default()
    };
    // SAFETY: without CLONE_VM the sibling has its own copy of memory and stack, so returning twice is sound; the
    // arguments outlive the call and the size is theirs; the kernel writes the pidfd into this process's variable.
    let pid = unsafe {
        raw(
            libc::SYS_clone3,
            [&raw const arguments as usize, size_of::<CloneArguments>()],
        )
    };
    let pid = match pid {
        Err(errno) if errno.number() == libc::ENOSYS && namespaces == 0 => {
            // SAFETY: as above, and as in `clone_child`: without a stack the sibling goes on with the copy of this one.
            unsafe {
                raw(
                    libc::SYS_clone,
                    [arguments.flags as usize, 0, &raw mut pidfd as usize, 0, 0],
                )
            }
        }
        answer => answer,
    }?;
    if pid == 0 {
        body();
    }
    Ok((pid as i32, Fd::at(pidfd)))
}

/// As [`clone_child`] without a control group, by the call that every kernel has.
///
/// # Safety
///
/// As [`clone_child`]. The caller's signal handlers are the child's until it resets them.
pub(crate) unsafe fn clone_child_old<F>(namespaces: u64, notice: Notice, body: F) -> Result<Child, Errno>
where
    F: FnOnce() -> Infallible,
{
    let mut pidfd: i32 = -1;
    let flags = namespaces | libc::CLONE_PIDFD as u64 | notice.signal();
    // SAFETY: without CLONE_VM the child has its own copy of memory and stack, so returning twice is sound, and no stack
    // is given; the kernel writes the pidfd into the parent's variable, which is the third argument everywhere.
    let pid = unsafe {
        raw(
            libc::SYS_clone,
            [flags as usize, 0, &raw mut pidfd as usize, 0, 0],
        )?
    };
    if pid == 0 {
        body();
    }
    Ok(Child {
        pid: pid as i32,
        pidfd: owned(pidfd as usize),
    })
}

/// Makes a child in new namespaces that does nothing, and ends when the pipe that it reads from is closed.
pub(crate) fn clone_waiting(namespaces: u64, read: Fd, write: Fd) -> Result<Child, Errno> {
    let wait = || {
        // Otherwise it would wait for itself.
        write.close();
        let ended = super::fs::read(read, &mut [0]);
        exit(i32::from(ended.is_err()))
    };
    // SAFETY: the body makes three system calls on two numbers and never returns.
    unsafe { clone_child_old(namespaces, Notice::Child, wait) }
}

/// Ends this process at once: no destructors, no exit handlers.
pub(crate) fn exit(code: i32) -> ! {
    loop {
        // SAFETY: exit_group takes no pointer and does not return.
        let never = unsafe { raw(libc::SYS_exit_group, [code as usize]) };
        debug_assert!(never.is_err());
    }
}

/// Replaces the program. Returns only when that fails.
pub(crate) fn execve(path: &CStr, arguments: &Strings, environment: &Strings) -> Errno {
    // SAFETY: `Strings` ends its array with null and owns every string of it; both outlive the call, as `path` does.
    let result = unsafe {
        raw(
            libc::SYS_execve,
            [
                path.as_ptr() as usize,
                arguments.pointers().as_ptr() as usize,
                environment.pointers().as_ptr() as usize,
            ],
        )
    };
    match result {
        Err(errno) => errno,
        Ok(_) => Errno::new(0),
    }
}

/// Replaces the program by an open file. Returns only when that fails.
pub(crate) fn execve_file(file: Fd, arguments: &Strings, environment: &Strings) -> Errno {
    // SAFETY: `Strings` ends its array with null and owns every string of it; both outlive the call, as the static path.
    let result = unsafe {
        raw(
            libc::SYS_execveat,
            [
                file.arg(),
                c"".as_ptr() as usize,
                arguments.pointers().as_ptr() as usize,
                environment.pointers().as_ptr() as usize,
                libc::AT_EMPTY_PATH as usize,
            ],
        )
    };
    match result {
        Err(errno) => errno,
        Ok(_) => Errno::new(0),
    }
}

/// Leaves the namespaces of `flags` for new ones.
pub(crate) fn unshare(flags: u64) -> Result<(), Errno> {
    // SAFETY: no pointer.
    unsafe { raw(libc::SYS_unshare, [flags as usize]) }.map(drop)
}

/// Joins the namespace of a descriptor, or those of a pidfd's process that `flags` names (since 5.8).
pub(crate) fn setns(fd: Fd, flags: u64) -> Result<(), Errno> {
    #[cfg(feature = "old-kernel")]
    {
        const NSFS_MAGIC: i64 = 0x6e73_6673;
        if super::fs::filesystem(fd)? != NSFS_MAGIC {
            return Err(Errno::new(libc::EINVAL));
        }
    }
    // SAFETY: no pointer.
    unsafe { raw(libc::SYS_setns, [fd.arg(), flags as usize]) }.map(drop)
}

/// The `CLONE_NEW*` bit of an open namespace (`NS_GET_NSTYPE`).
pub(crate) fn namespace_type(namespace: Fd) -> Result<u64, Errno> {
    const NS_GET_NSTYPE: usize = 0xb703;
    // SAFETY: the request takes no argument.
    unsafe { raw(libc::SYS_ioctl, [namespace.arg(), NS_GET_NSTYPE, 0]) }.map(|kind| kind as u64)
}

/// How a process ended.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Ended {
    /// With that exit status.
    Exited(i32),
    /// By that signal.
    Killed(i32),
}

/// Reaps a child that ended, whatever its notice is; blocks until it has.
pub(crate) fn wait(pidfd: Fd) -> Result<Ended, Errno> {
    let mut info = MaybeUninit::<libc::siginfo_t>::zeroed();
    let options = libc::WEXITED | libc::__WALL;
    loop {
        // SAFETY: `info` outlives the call and is the kernel's `siginfo_t`; no usage is asked for.
        let answer = unsafe {
            raw(
                libc::SYS_waitid,
                [
                    libc::P_PIDFD as usize,
                    pidfd.arg(),
                    info.as_mut_ptr() as usize,
                    options as usize,
                    0,
                ],
            )
        };
        match answer {
            Err(errno) if errno.number() == libc::EINTR => {}
            answer => break answer.map(drop)?,
        }
    }
    // SAFETY: all zero is valid, and the call filled in the fields of a child that ended.
    let (code, status) = unsafe {
        let info = info.assume_init();
        (info.si_code, info.si_status())
    };
    Ok(match code {
        libc::CLD_EXITED => Ended::Exited(status),
        _ => Ended::Killed(status),
    })
}

/// Waits until a descriptor is readable, at most that many milliseconds; whether it is.
pub(crate) fn wait_readable(fd: Fd, limit: Option<u32>) -> Result<bool, Errno> {
    let mut polled = libc::pollfd {
        fd: fd.number(),
        events: libc::POLLIN,
        revents: 0,
    };
    let limit_ms = limit.unwrap_or(0);
    let mut left = libc::timespec {
        tv_sec: i64::from(limit_ms / 1000),
        tv_nsec: i64::from(limit_ms % 1000) * 1_000_000,
    };
    let timeout = match limit {
        Some(_) => &raw mut left as usize,
        None => 0,
    };
    loop {
        // SAFETY: both structures outlive the call, in which the kernel writes what time is left; no signal mask is given.
        let answer = unsafe { raw(libc::SYS_ppoll, [&raw mut polled as usize, 1, timeout, 0, 0]) };
        match answer {
            Err(errno) if errno.number() == libc::EINTR => {}
            answer => return answer.map(|ready| ready > 0),
        }
    }
}

/// This process's number in its own pid namespace.
pub(crate) fn own_pid() -> i32 {
    // SAFETY: no arguments; the call cannot fail.
    unsafe { raw(libc::SYS_getpid, []) }.map_or(0, |pid| pid as i32)
}

/// Lets this thread run on the CPUs of `mask` (bit n of word n/64) that its control group allows.
pub(crate) fn set_affinity(mask: &[u64]) -> Result<(), Errno> {
    // SAFETY: the mask outlives the call; the size is its own.
    unsafe {
        raw(
            libc::SYS_sched_setaffinity,
            [0, size_of_val(mask), mask.as_ptr() as usize],
        )
    }
    .map(drop)
}

/// Sets the NUMA memory policy of this thread; an empty mask is no nodes.
pub(crate) fn set_memory_policy(mode: u32, nodes: &[u64]) -> Result<(), Errno> {
    // The kernel counts one bit less than it is told.
    let bits = match nodes.len() {
        0 => 0,
        words => words * 64 + 1,
    };
    let mask = match nodes.len() {
        0 => 0,
        _ => nodes.as_ptr() as usize,
    };
    // SAFETY: the mask outlives the call and has at least `bits - 1` bits, which is what the kernel reads.
    unsafe { raw(libc::SYS_set_mempolicy, [mode as usize, mask, bits]) }.map(drop)
}

/// Sends a signal through a pidfd.
pub(crate) fn pidfd_signal(pidfd: Fd, signal: i32) -> Result<(), Errno> {
    // SAFETY: no siginfo is given.
    unsafe { raw(libc::SYS_pidfd_send_signal, [pidfd.arg(), signal as usize, 0, 0]) }.map(drop)
}

/// A copy of descriptor `number` of a pidfd's process, close-on-exec. Needs the right to trace it.
pub(crate) fn pidfd_getfd(pidfd: Fd, number: i32) -> Result<OwnedFd, Errno> {
    // SAFETY: no pointer.
    unsafe { raw(libc::SYS_pidfd_getfd, [pidfd.arg(), number as usize, 0]) }.map(owned)
}

/// Makes this process the leader of a new session.
pub(crate) fn setsid() -> Result<(), Errno> {
    // SAFETY: no pointer.
    unsafe { raw(libc::SYS_setsid, []) }.map(drop)
}

/// Blocks no signal, and gives every signal its default action, also those the caller ignores.
pub(crate) fn reset_signals() -> Result<(), Errno> {
    /// The kernel's `struct sigaction`; all zero is `SIG_DFL` without flags.
    #[repr(C)]
    struct Action([usize; 4]);
    let default = Action([0; 4]);
    for signal in 1..=64 {
        if signal == libc::SIGKILL || signal == libc::SIGSTOP {
            continue;
        }
        // SAFETY: `default` outlives the call and is at least as large as the kernel's structure; the size is that of
        // the kernel's signal set.
        unsafe {
            raw(
                libc::SYS_rt_sigaction,
                [signal as usize, &raw const default as usize, 0, SET_SIZE],
            )?;
        }
    }
    block_signals(NO_SIGNALS)
}

/// The kernel's size of a set of signals.
const SET_SIZE: usize = 8;

/// Sets of signals, bit 0 is signal 1.
pub(crate) const NO_SIGNALS: u64 = 0;
/// `SIGKILL` and `SIGSTOP` cannot be blocked, whoever asks.
pub(crate) const ALL_SIGNALS: u64 = u64::MAX;

/// Blocks those signals and no other.
pub(crate) fn block_signals(set: u64) -> Result<(), Errno> {
    // SAFETY: the set outlives the call and has the kernel's size.
    unsafe {
        raw(
            libc::SYS_rt_sigprocmask,
            [libc::SIG_SETMASK as usize, &raw const set as usize, 0, SET_SIZE],
        )
    }
    .map(drop)
}

/// Makes a descriptor, close-on-exec, that delivers blocked signals.
pub(crate) fn signal_descriptor(set: u64) -> Result<Fd, Errno> {
    // SAFETY: the set outlives the call and has the kernel's size.
    unsafe {
        raw(
            libc::SYS_signalfd4,
            [
                usize::MAX,
                &raw const set as usize,
                SET_SIZE,
                libc::SFD_CLOEXEC as usize,
            ],
        )
    }
    .map(|number| Fd::at(number as i32))
}

/// Waits until one of two descriptors is readable; which.
pub(crate) fn wait_either(first: Fd, second: Fd) -> Result<(bool, bool), Errno> {
    let polled = |fd: Fd| libc::pollfd {
        fd: fd.number(),
        events: libc::POLLIN,
        revents: 0,
    };
    let mut both = [polled(first), polled(second)];
    loop {
        // SAFETY: the array outlives the call and has two elements; neither a timeout nor a mask is given.
        match unsafe { raw(libc::SYS_ppoll, [both.as_mut_ptr() as usize, 2, 0, 0, 0]) } {
            Err(errno) if errno.number() == libc::EINTR => {}
            answer => return answer.map(|_| (both[0].revents != 0, both[1].revents != 0)),
        }
    }
}

/// Sets one resource limit of this process.
pub(crate) fn set_rlimit(resource: u32, soft: u64, hard: u64) -> Result<(), Errno> {
    let limit = [soft, hard];
    // SAFETY: `limit` outlives the call and has the layout of the kernel's `struct rlimit64`.
    unsafe {
        raw(
            libc::SYS_prlimit64,
            [0, resource as usize, &raw const limit as usize, 0],
        )
    }
    .map(drop)
}

/// The hard limit of a resource, of this process.
pub(crate) fn hard_limit(resource: u32) -> Result<u64, Errno> {
    let mut limit = [0u64; 2];
    // SAFETY: `limit` outlives the call and has the layout of the kernel's `struct rlimit64`; nothing is set.
    unsafe {
        raw(
            libc::SYS_prlimit64,
            [0, resource as usize, 0, &raw mut limit as usize],
        )?;
    }
    Ok(limit[1])
}

/// Raises the hard limit of a resource for process `pid` (0 for this one); what is in force stays.
pub(crate) fn raise_hard_limit(pid: i32, resource: u32, hard: u64) -> Result<(), Errno> {
    let mut limit = [0u64; 2];
    // SAFETY: `limit` outlives both calls and has the layout of the kernel's `struct rlimit64`.
    unsafe {
        raw(
            libc::SYS_prlimit64,
            [pid as usize, resource as usize, 0, &raw mut limit as usize],
        )?;
        limit[1] = hard;
        raw(
            libc::SYS_prlimit64,
            [pid as usize, resource as usize, &raw const limit as usize, 0],
        )?;
    }
    Ok(())
}

/// Sets the host name of the UTS namespace.
pub(crate) fn set_hostname(name: &CStr) -> Result<(), Errno> {
    // SAFETY: the string outlives the call; the length is its own.
    unsafe {
        raw(
            libc::SYS_sethostname,
            [name.as_ptr() as usize, name.count_bytes()],
        )
    }
    .map(drop)
}

/// Sets the NIS domain name of the UTS namespace.
pub(crate) fn set_domainname(name: &CStr) -> Result<(), Errno> {
    // SAFETY: the string outlives the call; the length is its own.
    unsafe {
        raw(
            libc::SYS_setdomainname,
            [name.as_ptr() as usize, name.count_bytes()],
        )
    }
    .map(drop)
}

/// Sets the execution domain.
pub(crate) fn set_personality(domain: u32) -> Result<(), Errno> {
    // SAFETY: no pointer.
    unsafe { raw(libc::SYS_personality, [domain as usize]) }.map(drop)
}

/// Sets the I/O priority of this process.
pub(crate) fn set_io_priority(priority: u32) -> Result<(), Errno> {
    const WHO_PROCESS: usize = 1;
    // SAFETY: no pointer; process 0 is this one.
    unsafe { raw(libc::SYS_ioprio_set, [WHO_PROCESS, 0, priority as usize]) }.map(drop)
}

/// The kernel's `struct sched_attr`, version 1.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
#[repr(C)]
pub struct Scheduling {
    size: u32,
    /// `SCHED_*`.
    pub policy: u32,
    /// `SCHED_FLAG_*`.
    pub flags: u64,
    /// For `SCHED_OTHER` and `SCHED_BATCH`.
    pub nice: i32,
    /// For `SCHED_FIFO` and `SCHED_RR`.
    pub priority: u32,
    /// For `SCHED_DEADLINE`, nanoseconds.
    pub runtime: u64,
    /// For `SCHED_DEADLINE`, nanoseconds.
    pub deadline: u64,
    /// For `SCHED_DEADLINE`, nanoseconds.
    pub period: u64,
    /// Clamps of utilization: the specification has flags for them and no values.
    utilization: [u32; 2],
}

/// Sets the scheduling policy of this process.
pub(crate) fn set_scheduling(scheduling: &Scheduling) -> Result<(), Errno> {
    let sized = Scheduling {
        size: size_of::<Scheduling>() as u32,
        ..*scheduling
    };
    // SAFETY: `sized` outlives the call and carries its own size.
    unsafe { raw(libc::SYS_sched_setattr, [0, ptr::from_ref(&sized) as usize, 0]) }.map(drop)
}

/// Joins a new session keyring of that name, which the same user's processes may search.
pub(crate) fn join_keyring(name: &CStr) -> Result<(), Errno> {
    const JOIN_SESSION_KEYRING: usize = 1;
    const SETPERM: usize = 5;
    // The possessor may do everything; the user may view, read, search and link.
    const PERMISSIONS: usize = 0x3f1b_0000;
    // SAFETY: the string outlives the call.
    let ring = unsafe { raw(libc::SYS_keyctl, [JOIN_SESSION_KEYRING, name.as_ptr() as usize])? };
    // SAFETY: no pointer.
    unsafe { raw(libc::SYS_keyctl, [SETPERM, ring, PERMISSIONS]) }.map(drop)
}
