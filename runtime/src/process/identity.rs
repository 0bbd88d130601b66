//! Which process a pid is: pids are used again, a pid with its start time is not.

use std::io;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, WaitId, WaitIdOptions, pidfd_open, waitid};

use crate::Error;
use crate::procfs;
use crate::sys::fd::above_streams;

/// When a process started, in clock ticks since boot (`/proc/PID/stat`, field 22); nothing when it is gone or a
/// zombie.
pub(crate) fn start_time(pid: i32) -> Option<u64> {
    parse(&read_stat(pid)?)
}

/// The process whose child it is (field 4); nothing when it is gone.
pub(crate) fn parent(pid: i32) -> Option<i32> {
    fields(&read_stat(pid)?)?.nth(1)?.parse().ok()
}

fn read_stat(pid: i32) -> Option<Vec<u8>> {
    procfs::read_bytes(format!("/proc/{pid}/stat"), 512).ok()
}

/// From the third on.
fn fields(stat: &[u8]) -> Option<impl Iterator<Item = &str>> {
    // The second field is the program's name in parentheses, and may contain anything.
    let end = stat.iter().rposition(|byte| *byte == b')')?;
    let rest = str::from_utf8(stat.get(end + 2..)?).ok()?;
    Some(rest.split(' '))
}

fn parse(stat: &[u8]) -> Option<u64> {
    let mut fields = fields(stat)?;
    let state = fields.next()?;
    if matches!(state, "Z" | "X" | "x") {
        return None;
    }
    fields.nth(18)?.parse().ok()
}

/// Opens the process `pid` if it is still the one that started at `started`.
pub(crate) fn open_pidfd(pid: i32, started: u64) -> Option<OwnedFd> {
    // First the descriptor, then the check: what is checked is what the descriptor holds.
    let pidfd = pidfd_open(Pid::from_raw(pid)?, PidfdFlags::empty()).ok()?;
    if start_time(pid) != Some(started) {
        return None;
    }
    above_streams(pidfd).ok()
}

/// Whether the process has not ended. Does not block.
pub(crate) fn is_alive(pidfd: BorrowedFd<'_>) -> bool {
    matches!(wait_exit(pidfd, Duration::ZERO), Ok(false))
}

/// Waits for the end of a process; whether it came in time.
pub(crate) fn wait_exit(pidfd: BorrowedFd<'_>, limit: Duration) -> Result<bool, Error> {
    let deadline = std::time::Instant::now() + limit;
    loop {
        let left = deadline.saturating_duration_since(std::time::Instant::now());
        let timeout = Timespec {
            tv_sec: left.as_secs().cast_signed(),
            tv_nsec: left.subsec_nanos().into(),
        };
        let mut fds = [PollFd::from_borrowed_fd(pidfd, PollFlags::IN)];
        match poll(&mut fds, Some(&timeout)) {
            Ok(0) => return Ok(false),
            Ok(_) => return Ok(true),
            Err(rustix::io::Errno::INTR) => {}
            Err(errno) => return Err(Error::io("wait for a process", errno)),
        }
    }
}

/// Reaps a process that ended, if it is a child of this one. Does not block.
pub(crate) fn reap(pidfd: BorrowedFd<'_>) -> Result<(), Error> {
    match waitid(
        WaitId::PidFd(pidfd),
        WaitIdOptions::EXITED | WaitIdOptions::NOHANG,
    ) {
        Ok(_) | Err(rustix::io::Errno::CHILD) => Ok(()),
        Err(errno) => Err(Error::io("reap a process", io::Error::from(errno))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_strange_program_name_does_not_shift_the_fields() {
        let tail = "S 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 4711 20";
        assert_eq!(parse(format!("12 (a) R 1) {tail}").as_bytes()), Some(4711));
        assert_eq!(
            parse(format!("12 (a) {}", tail.replacen('S', "Z", 1)).as_bytes()),
            None
        );
        assert_eq!(parse(b"12 (a)"), None);
        assert_eq!(parse(b""), None);
    }

    #[test]
    fn this_process_is_alive_and_is_who_it_is() {
        let pid = rustix::process::getpid().as_raw_pid();
        let started = start_time(pid).unwrap();
        assert!(open_pidfd(pid, started).is_some());
        assert!(open_pidfd(pid, started + 1).is_none());
        let above = rustix::process::getppid().unwrap().as_raw_pid();
        assert_eq!(parent(pid), Some(above));
    }
}
