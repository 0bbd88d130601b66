//! The few system calls that rustix does not wrap, and the only `unsafe` of this crate.
//!
//! Owns: the signal descriptor, descriptors handed to a child at fixed numbers, the read-only clone of the shim's own
//! binary. Refuses nothing: each function is one kernel interface, errors are the kernel's.
#![allow(unsafe_code)]

use std::ffi::CString;
use std::io;
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::process::Command;

use rustix::fs::CWD;
use rustix::io::fcntl_dupfd_cloexec;
use rustix::mount::{OpenTreeFlags, open_tree};

/// Signals read from a descriptor, see signalfd(2). The signals are blocked in the calling thread, and stay so.
pub struct Signals(OwnedFd);

impl Signals {
    /// Blocks `signals` and opens a descriptor that delivers them; non-blocking, close-on-exec.
    pub fn open(signals: &[i32]) -> io::Result<Signals> {
        // SAFETY: `sigset_t` is plain data, and sigemptyset makes any bit pattern a valid set before it is used.
        let mut set: libc::sigset_t = unsafe { std::mem::zeroed() };
        // SAFETY: `set` lives on this stack frame and is exclusively borrowed by each call.
        unsafe { libc::sigemptyset(&mut set) };
        for &signal in signals {
            // SAFETY: as above; an invalid signal number is answered with EINVAL.
            if unsafe { libc::sigaddset(&mut set, signal) } != 0 {
                return Err(io::Error::last_os_error());
            }
        }
        // SAFETY: `set` is initialised; the old mask is not asked for.
        if unsafe { libc::sigprocmask(libc::SIG_BLOCK, &set, std::ptr::null_mut()) } != 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: `set` is initialised; -1 asks for a new descriptor, which nobody else owns.
        let fd = unsafe { libc::signalfd(-1, &set, libc::SFD_NONBLOCK | libc::SFD_CLOEXEC) };
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: signalfd returned a fresh descriptor.
        Ok(Signals(unsafe { OwnedFd::from_raw_fd(fd) }))
    }

    /// The next pending signal's number, `None` when there is none.
    pub fn next(&self) -> io::Result<Option<i32>> {
        let mut info = [0u8; size_of::<libc::signalfd_siginfo>()];
        match rustix::io::read(&self.0, &mut info) {
            // `ssi_signo` is the first field of `signalfd_siginfo`.
            Ok(_) => Ok(Some(
                u32::from_ne_bytes([info[0], info[1], info[2], info[3]]) as i32
            )),
            Err(rustix::io::Errno::AGAIN) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }
}

impl AsFd for Signals {
    fn as_fd(&self) -> std::os::fd::BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// Lets `command`'s process have `fds` at the numbers 3, 4, … and dies with the caller when `dies_with_us`.
///
/// The descriptors are owned by the command and closed with it.
pub fn prepare_child(command: &mut Command, fds: Vec<OwnedFd>, dies_with_us: bool) -> io::Result<()> {
    // Numbers far from the targets, so that no dup2 in the child overwrites a source that is still needed.
    let fds = fds
        .into_iter()
        .map(|fd| fcntl_dupfd_cloexec(&fd, 64))
        .collect::<Result<Vec<OwnedFd>, _>>()?;
    let action = move || {
        for (index, fd) in fds.iter().enumerate() {
            // SAFETY: dup2 is async-signal-safe; source and target numbers are disjoint (see above).
            if unsafe { libc::dup2(fd.as_raw_fd(), 3 + index as i32) } < 0 {
                return Err(io::Error::last_os_error());
            }
        }
        // SAFETY: prctl with integer arguments only.
        if dies_with_us && unsafe { libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) } != 0 {
            return Err(io::Error::last_os_error());
        }
        Ok(())
    };
    // SAFETY: the closure runs between fork and exec of a single-threaded process and makes only raw system calls.
    unsafe { command.pre_exec(action) };
    Ok(())
}

/// Closes every descriptor from 3 on, whatever the caller's parents have left open.
///
/// Only for a process that has opened none yet.
pub fn close_inherited() -> io::Result<()> {
    // SAFETY: called first thing in `serve`, when no object of this process owns a descriptor from 3 on.
    match unsafe { libc::syscall(libc::SYS_close_range, 3u32, u32::MAX, 0u32) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Forks the calling process, see fork(2): `None` in the child.
///
/// Only for a process with one thread: the child is then a whole copy, and may do what its parent may.
pub fn fork() -> io::Result<Option<rustix::process::Pid>> {
    // SAFETY: this program never makes a second thread, so no lock is held by one that the child does not have.
    match unsafe { libc::fork() } {
        -1 => Err(io::Error::last_os_error()),
        pid => Ok(rustix::process::Pid::from_raw(pid)),
    }
}

/// Takes the page faults of a forked process before they are in somebody's way: its memory, which it would share with its
/// parent until it writes to it, is its own afterwards.
///
/// An optimisation: what the kernel cannot do (`MADV_POPULATE_WRITE`, Linux 5.14) is done by the faults.
pub fn populate_memory() {
    let Ok(maps) = std::fs::read_to_string("/proc/self/maps") else {
        return;
    };
    for line in maps.lines() {
        let mut words = line.split_ascii_whitespace();
        let (Some(range), Some(access)) = (words.next(), words.next()) else {
            continue;
        };
        // Not the stack, which is mostly unused.
        if access != "rw-p" || words.nth(3) == Some("[stack]") {
            continue;
        }
        let number = |text| usize::from_str_radix(text, 16).ok();
        if let Some((Some(begin), Some(end))) = range.split_once('-').map(|(a, b)| (number(a), number(b))) {
            // SAFETY: populating a mapping of this process changes nothing that it contains.
            unsafe { libc::madvise(begin as *mut libc::c_void, end - begin, libc::MADV_POPULATE_WRITE) };
        }
    }
}

/// Makes a forked process fit to work: no signal is blocked in it, and it dies with its parent.
pub fn begin_work() -> io::Result<()> {
    // SAFETY: `sigset_t` is plain data, and sigemptyset makes any bit pattern a valid set before it is used.
    let mut none: libc::sigset_t = unsafe { std::mem::zeroed() };
    // SAFETY: `none` lives on this stack frame and is exclusively borrowed by the call.
    unsafe { libc::sigemptyset(&mut none) };
    // SAFETY: `none` is initialised; the old mask is not asked for.
    if unsafe { libc::sigprocmask(libc::SIG_SETMASK, &none, std::ptr::null_mut()) } != 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: prctl with integer arguments only.
    match unsafe { libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Ends a forked process without running anything that its parent had registered.
pub fn end_work(status: u8) -> ! {
    // SAFETY: _exit ends the process and touches no memory of it.
    unsafe { libc::_exit(status.into()) }
}

/// Lets the kernel reap the children of the calling process (SIGCHLD is ignored), or keeps them for `wait` again.
pub fn ignore_children(ignore: bool) -> io::Result<()> {
    let action = if ignore { libc::SIG_IGN } else { libc::SIG_DFL };
    // SAFETY: neither disposition runs code of this process.
    if unsafe { libc::signal(libc::SIGCHLD, action) } == libc::SIG_ERR {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}

/// Gives the calling process a core-scheduling cookie of its own, which children inherit: prctl(PR_SCHED_CORE).
pub fn create_core_scheduling_group() -> io::Result<()> {
    const PR_SCHED_CORE: i32 = 62;
    const CREATE: libc::c_ulong = 1;
    const SCOPE_THREAD: libc::c_ulong = 0;
    // SAFETY: integer arguments only.
    match unsafe {
        libc::prctl(
            PR_SCHED_CORE,
            CREATE,
            0 as libc::c_ulong,
            SCOPE_THREAD,
            0 as libc::c_ulong,
        )
    } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// A handle to the running binary on a detached, read-only mount of its own.
///
/// A process started from it has a `/proc/<pid>/exe` through which nobody, not even root inside a container, can open
/// the host's file for writing (CVE-2019-5736). Needs `CAP_SYS_ADMIN` and Linux 5.12.
pub fn read_only_self() -> io::Result<OwnedFd> {
    let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
    let tree = open_tree(CWD, "/proc/self/exe", flags)?;
    let attributes = libc::mount_attr {
        attr_set: libc::MOUNT_ATTR_RDONLY,
        attr_clr: 0,
        propagation: 0,
        userns_fd: 0,
    };
    let empty = CString::default();
    // SAFETY: the path is NUL-terminated and `attributes` outlives the call, with its exact size passed.
    let result = unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            tree.as_raw_fd(),
            empty.as_ptr(),
            libc::AT_EMPTY_PATH,
            &raw const attributes,
            size_of::<libc::mount_attr>(),
        )
    };
    if result != 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(tree)
}
