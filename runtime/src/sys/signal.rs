//! Sending a signal by its number, which may be a realtime one.

use std::io;

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
