//! Descriptors that the async runtime watches: FIFOs and inotify, which it has no types for that fit.

use std::os::fd::OwnedFd;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// Watches a non-blocking descriptor.
///
/// # Errors
///
/// The kernel cannot watch it: it is a regular file.
#[allow(unsafe_code)]
pub fn watch(fd: OwnedFd, interest: Interest) -> std::io::Result<AsyncFd<OwnedFd>> {
    // SAFETY: an `OwnedFd` is one open descriptor from its making to its drop, its `as_raw_fd` always returns that one,
    // and nobody else can close it: it is moved in here, and given out only by reference.
    unsafe { AsyncFd::register_with_interest(fd, interest) }.map_err(|error| error.into_parts().1)
}
