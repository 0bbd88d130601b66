//! Descriptors of the child half.

use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};

use super::{Errno, raw};

/// A descriptor that nobody drops: it is closed by name, or by `execve` and `_exit`.
///
/// The child half works with these, because an owning type would run code on every way out.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub(crate) struct Fd(RawFd);

impl Fd {
    /// The working directory, for the `*at` calls.
    pub(crate) const CWD: Self = Self(libc::AT_FDCWD);

    /// The number of an open descriptor.
    pub(crate) fn of(fd: &impl AsRawFd) -> Self {
        Self(fd.as_raw_fd())
    }

    /// One of the three standard streams or a number that `dup3` will make valid.
    pub(crate) const fn at(number: RawFd) -> Self {
        Self(number)
    }

    /// The number as the kernel takes it (sign-extended, for `AT_FDCWD`).
    pub(crate) fn arg(self) -> usize {
        self.0 as usize
    }

    /// The number.
    pub(crate) fn number(self) -> RawFd {
        self.0
    }

    /// Closes it. The number is free afterwards even when the kernel reports an error.
    pub(crate) fn close(self) {
        // SAFETY: closing takes no memory; a wrong number is an EBADF without effect, and the child half closes only
        // numbers that it got from the kernel.
        let result = unsafe { raw(libc::SYS_close, [self.arg()]) };
        debug_assert!(result != Err(Errno::new(libc::EBADF)));
    }
}

/// Takes ownership of a descriptor that a system call just returned.
pub(crate) fn owned(number: usize) -> OwnedFd {
    // SAFETY: the kernel just made this descriptor for the caller, and nobody else knows its number.
    unsafe { OwnedFd::from_raw_fd(number as RawFd) }
}

/// Takes ownership of a descriptor that one of this module tree's calls just made.
pub(crate) fn own(fd: Fd) -> OwnedFd {
    owned(fd.arg())
}

/// Sets the close-on-exec flag.
pub(crate) fn close_on_exec(fd: Fd) -> Result<(), Errno> {
    // SAFETY: F_SETFD takes no pointer.
    unsafe {
        raw(
            libc::SYS_fcntl,
            [fd.arg(), libc::F_SETFD as usize, libc::FD_CLOEXEC as usize],
        )
    }
    .map(drop)
}

/// Makes `to` a copy of `from`, which stays open; `to` survives `execve`.
pub(crate) fn duplicate_to(from: Fd, to: Fd) -> Result<(), Errno> {
    if from == to {
        // SAFETY: F_SETFD takes no pointer.
        return unsafe { raw(libc::SYS_fcntl, [from.arg(), libc::F_SETFD as usize, 0]) }.map(drop);
    }
    // SAFETY: dup3 takes no pointer.
    unsafe { raw(libc::SYS_dup3, [from.arg(), to.arg(), 0]) }.map(drop)
}

/// A copy of `fd` with a number of at least 3, close-on-exec.
pub(crate) fn duplicate_high(fd: BorrowedFd<'_>) -> Result<OwnedFd, Errno> {
    // SAFETY: F_DUPFD_CLOEXEC takes no pointer.
    let number = unsafe {
        raw(
            libc::SYS_fcntl,
            [Fd::of(&fd).arg(), libc::F_DUPFD_CLOEXEC as usize, 3],
        )?
    };
    Ok(owned(number))
}

/// The descriptor, or where its number is one of a standard stream's a copy with a higher one: a caller may have its streams
/// closed, and what then has their numbers would be overwritten by the streams of a new process.
pub(crate) fn above_streams(fd: OwnedFd) -> Result<OwnedFd, Errno> {
    use std::os::fd::AsFd;
    match fd.as_raw_fd() > 2 {
        true => Ok(fd),
        false => duplicate_high(fd.as_fd()),
    }
}

/// What [`close_range`] does with the range.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Closing {
    /// Close now.
    Now,
    /// Close when a program is executed.
    OnExec,
}

/// Closes every descriptor from `first` to `last`, both included.
pub(crate) fn close_range(first: u32, last: u32, closing: Closing) -> Result<(), Errno> {
    let flags = match closing {
        Closing::Now => 0,
        Closing::OnExec => libc::CLOSE_RANGE_CLOEXEC as usize,
    };
    // SAFETY: close_range takes no pointer; only the child half calls it, on its own copy of the table.
    unsafe { raw(libc::SYS_close_range, [first as usize, last as usize, flags]) }.map(drop)
}
