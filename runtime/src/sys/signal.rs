//! Sending a signal by its number, which may be a realtime one.

use std::io;
use std::os::fd::{FromRawFd, OwnedFd};

/// Sends `signal` to process `pid`, one process only: `pid` is greater than zero.
///
/// A pid may have passed to another process meanwhile; callers have it from a group that is frozen, or check.
pub(crate) fn kill(pid: i32, signal: i32) -> io::Result<()> {
    if pid <= 0 {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    // SAFETY: kill has no memory arguments.
    if unsafe { libc::kill(pid, signal) } == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}

/// A thread's set of blocked signals, as the kernel has it: bit 0 is signal 1.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct Mask(u64);

impl Mask {
    /// Every signal but those that a fault of this thread raises, which cannot wait.
    pub(crate) fn all_but_faults() -> Self {
        let faults = [
            libc::SIGSEGV,
            libc::SIGBUS,
            libc::SIGFPE,
            libc::SIGILL,
            libc::SIGTRAP,
            libc::SIGABRT,
            libc::SIGSYS,
        ];
        Self(!faults.iter().fold(0, |bits, signal| bits | 1 << (signal - 1)))
    }
}

/// Sets the calling thread's blocked signals; answers those of before.
pub(crate) fn set_mask(mask: Mask) -> io::Result<Mask> {
    let mut before = Mask(0);
    // SAFETY: both sets are live and have the eight bytes that the kernel is told of.
    let answer = unsafe {
        libc::syscall(
            libc::SYS_rt_sigprocmask,
            libc::SIG_SETMASK,
            &raw const mask.0,
            &raw mut before.0,
            size_of::<u64>(),
        )
    };
    if answer == 0 {
        Ok(before)
    } else {
        Err(io::Error::last_os_error())
    }
}

/// What this process does about a signal, to be set again.
#[derive(Clone, Copy)]
pub(crate) struct Disposition(libc::sigaction);

impl std::fmt::Debug for Disposition {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter
            .debug_tuple("Disposition")
            .field(&self.0.sa_sigaction)
            .finish()
    }
}

impl Disposition {
    /// The default action.
    pub(crate) fn default_action() -> Self {
        // SAFETY: all zero is `SIG_DFL` with no flags and an empty mask.
        Self(unsafe { std::mem::zeroed() })
    }
}

/// Sets what this process does about `signal`; answers what it did before.
pub(crate) fn set_disposition(signal: i32, disposition: &Disposition) -> io::Result<Disposition> {
    let mut before = Disposition::default_action();
    // SAFETY: both structures are live; the handler, if there is one, was installed by this process and is a handler still.
    if unsafe { libc::sigaction(signal, &raw const disposition.0, &raw mut before.0) } == 0 {
        Ok(before)
    } else {
        Err(io::Error::last_os_error())
    }
}

/// A descriptor (close-on-exec, does not block) that delivers the blocked signals of `mask` as
/// `signalfd_siginfo` records of 128 bytes, the signal's number first.
pub(crate) fn signalfd(mask: Mask) -> io::Result<OwnedFd> {
    let flags = libc::SFD_CLOEXEC | libc::SFD_NONBLOCK;
    // SAFETY: the set is live and has the eight bytes that the kernel is told of.
    let fd = unsafe {
        libc::syscall(
            libc::SYS_signalfd4,
            -1,
            &raw const mask.0,
            size_of::<u64>(),
            flags,
        )
    };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the descriptor is new, so nobody else owns it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd as libc::c_int) })
}
