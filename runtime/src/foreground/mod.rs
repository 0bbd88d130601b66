//! A container's process in the foreground: its streams, the caller's signals, and its exit status.
//!
//! One loop on one thread: signals come from a signalfd, bytes are relayed when both sides are ready. Nothing here
//! outlives the process it waits for.
//!
//! Refused here: a terminal for a caller that has none.

mod relay;
mod terminal;

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::event::{PollFd, PollFlags};
use rustix::fs::{FileType, Gid, OFlags, Uid};
use rustix::io::Errno;
use rustix::pipe::PipeFlags;
use rustix::process::{Pid, WaitOptions, WaitStatus};

use crate::sys::Fd;
use crate::sys::signal::{self, Disposition, Mask};
use crate::{Error, Stdio};
use relay::Relay;
use terminal::HostTerminal;

/// The caller's signals and streams, taken over from before the process is made until it ended.
///
/// While it lives, the calling thread's signals are blocked and delivered here. A new process has no blocked
/// signals, whatever its parent's are.
#[derive(Debug)]
pub struct Foreground {
    signals: OwnedFd,
    before: Mask,
    children: Disposition,
    relays: Vec<Relay>,
    terminal: Option<HostTerminal>,
    /// Whether every child is reaped, also those that were adopted.
    subreaper: bool,
}

impl Foreground {
    /// Takes over the calling thread's signals, so that none is lost from here on.
    ///
    /// `SIGCHLD`, if this process ignores or handles it, does neither meanwhile.
    ///
    /// With `subreaper`, processes that the container leaves behind become this process's children and are reaped.
    ///
    /// # Errors
    ///
    /// The kernel refuses.
    pub fn new(subreaper: bool) -> Result<Self, Error> {
        let mask = Mask::all_but_faults();
        let before = signal::set_mask(mask).map_err(|error| failed("block signals", error))?;
        let signals = signal::signalfd(mask).map_err(|error| failed("open a signalfd", error))?;
        // Whoever ignores it has children that the kernel reaps, and no exit status of theirs.
        let children = signal::set_disposition(libc::SIGCHLD, &Disposition::default_action())
            .map_err(|error| failed("hear of the end of children", error))?;
        if subreaper {
            let own = Some(rustix::process::getpid());
            rustix::process::set_child_subreaper(own).map_err(|errno| failed("become a subreaper", errno))?;
        }
        Ok(Self {
            signals,
            before,
            children,
            relays: Vec::new(),
            terminal: None,
            subreaper,
        })
    }

    /// The streams for the process.
    ///
    /// With `terminal` it gets one of its own, and the caller's is put into raw mode when the process runs. Without,
    /// it gets the caller's streams, unless one of them is a terminal or a file. A terminal is never shared with a container:
    /// it could push input into it. A file would be given to the container's user, who could then do with it what no
    /// stream allows. The bytes of these are relayed through pipes.
    ///
    /// `root` is who root of the container's user namespace is to the caller, user and group, if it has one. A pipe of
    /// somebody's whom that namespace does not know could be used by the container, but not opened once more (`/dev/stdout`):
    /// there the relay's pipes, which are given to that root, stand in for the caller's too.
    ///
    /// # Errors
    ///
    /// A terminal is asked for and the caller has none, or the kernel refuses pipes.
    pub fn stdio(&mut self, terminal: bool, root: Option<(u32, u32)>) -> Result<Stdio, Error> {
        if terminal {
            self.terminal = Some(HostTerminal::find()?);
            return Ok(Stdio::Terminal);
        }
        let own = [
            rustix::stdio::stdin(),
            rustix::stdio::stdout(),
            rustix::stdio::stderr(),
        ];
        let is_strange =
            |stream: &BorrowedFd<'_>| root.is_some_and(|(user, _)| is_pipe_of_another(stream, user));
        if !own
            .iter()
            .any(|stream| is_not_for_sharing(stream) || is_strange(stream))
        {
            return Ok(Stdio::Inherit);
        }
        let (stdin, input) = pipe()?;
        let (output, stdout) = pipe()?;
        let (errors, stderr) = pipe()?;
        for end in [&stdin, &stdout, &stderr] {
            give(end, root)?;
        }
        self.relays = vec![
            Relay::new(duplicate(own[0])?, input)?,
            Relay::new(output, duplicate(own[1])?)?,
            Relay::new(errors, duplicate(own[2])?)?,
        ];
        Ok(Stdio::Fds {
            stdin,
            stdout,
            stderr,
        })
    }

    /// Connects the caller's terminal with that of the process.
    ///
    /// # Errors
    ///
    /// A terminal refuses its settings.
    pub fn attach(&mut self, console: OwnedFd) -> Result<(), Error> {
        terminal::keep_newlines(&console)?;
        self.relays = vec![
            Relay::new(duplicate(rustix::stdio::stdin())?, duplicate(console.as_fd())?)?.endless(),
            Relay::new(duplicate(console.as_fd())?, duplicate(rustix::stdio::stdout())?)?,
        ];
        match &mut self.terminal {
            Some(terminal) => terminal.attach(console),
            None => Ok(()),
        }
    }

    /// Waits for the process, a child of this one; passes signals on to it and bytes to and fro.
    ///
    /// Answers its exit status, 128 and the signal's number for one that was killed.
    ///
    /// # Errors
    ///
    /// The kernel refuses to wait or to poll.
    pub fn wait(mut self, pid: i32, pidfd: BorrowedFd<'_>) -> Result<i32, Error> {
        loop {
            self.poll(None)?;
            for signal in self.take_signals()? {
                match signal {
                    libc::SIGCHLD => {
                        if let Some(status) = self.reap(pid)? {
                            self.drain()?;
                            return Ok(status);
                        }
                    }
                    libc::SIGWINCH if self.terminal.is_some() => self.resize(),
                    // Raised by this process's own writes; the relay sees the error itself.
                    libc::SIGPIPE => {}
                    signal => match crate::sys::process::pidfd_signal(Fd::of(&pidfd), signal) {
                        Ok(()) => {}
                        Err(errno) if errno.number() == libc::ESRCH => {}
                        Err(errno) => return Err(failed(&format!("pass on signal {signal}"), errno)),
                    },
                }
            }
        }
    }

    /// Moves what can be moved, after at most `timeout` (for ever without one).
    fn poll(&mut self, timeout: Option<&rustix::event::Timespec>) -> Result<usize, Error> {
        let mut fds = vec![PollFd::new(&self.signals, PollFlags::IN)];
        let watched: Vec<Option<usize>> = self
            .relays
            .iter()
            .map(|relay| {
                relay.interest().map(|(fd, events)| {
                    fds.push(PollFd::from_borrowed_fd(fd, events));
                    fds.len() - 1
                })
            })
            .collect();
        match rustix::event::poll(&mut fds, timeout) {
            Ok(_) => {}
            Err(Errno::INTR) => return Ok(0),
            Err(errno) => return Err(failed("poll", errno)),
        }
        let ready: Vec<bool> = watched
            .iter()
            .map(|index| index.is_some_and(|index| !fds[index].revents().is_empty()))
            .collect();
        drop(fds);
        let mut moved = 0;
        for (relay, _) in self.relays.iter_mut().zip(&ready).filter(|(_, ready)| **ready) {
            relay.step();
            moved += 1;
        }
        Ok(moved)
    }

    /// Moves what the process left in its streams. Its own descendants are gone with it, or no longer waited for.
    fn drain(&mut self) -> Result<(), Error> {
        // What was not typed into the process yet will not be.
        if !self.relays.is_empty() {
            self.relays.remove(0);
        }
        let now = rustix::event::Timespec {
            tv_sec: 0,
            tv_nsec: 0,
        };
        loop {
            let holds = self.relays.iter().any(Relay::holds_bytes);
            let moved = self.poll(if holds { None } else { Some(&now) })?;
            // With bytes in hand the signals wake the loop too: they have nobody to go to any more.
            self.take_signals()?;
            if moved == 0 && !holds {
                return Ok(());
            }
        }
    }

    fn take_signals(&self) -> Result<Vec<i32>, Error> {
        const RECORD: usize = 128;
        let mut signals = Vec::new();
        let mut records = [0u8; 16 * RECORD];
        loop {
            match rustix::io::read(&self.signals, &mut records) {
                Ok(length) => signals.extend(
                    records[..length]
                        .chunks_exact(RECORD)
                        .map(|record| i32::from_ne_bytes([record[0], record[1], record[2], record[3]])),
                ),
                Err(Errno::AGAIN) => return Ok(signals),
                Err(Errno::INTR) => {}
                Err(errno) => return Err(failed("read a signalfd", errno)),
            }
        }
    }

    /// Collects children that ended; answers the status of process `pid` if it is among them.
    fn reap(&self, pid: i32) -> Result<Option<i32>, Error> {
        let own = Pid::from_raw(pid).ok_or_else(|| failed("wait", Errno::CHILD))?;
        let mut found = None;
        loop {
            let result = if self.subreaper {
                rustix::process::wait(WaitOptions::NOHANG)
            } else {
                rustix::process::waitpid(Some(own), WaitOptions::NOHANG)
            };
            match result {
                Ok(Some((ended, status))) => {
                    if ended == own {
                        found = Some(exit_code(status));
                    }
                }
                Ok(None) => return Ok(found),
                Err(Errno::CHILD) if found.is_some() => return Ok(found),
                Err(Errno::INTR) => {}
                Err(errno) => return Err(failed(&format!("wait for process {pid}"), errno)),
            }
        }
    }

    fn resize(&self) {
        if let Some(terminal) = &self.terminal {
            terminal.resize();
        }
    }
}

impl Drop for Foreground {
    fn drop(&mut self) {
        // Only a bad address or size could fail here, and it did not when they were set.
        if let Err(error) = signal::set_disposition(libc::SIGCHLD, &self.children) {
            debug_assert!(false, "restore what SIGCHLD does: {error}");
        }
        if let Err(error) = signal::set_mask(self.before) {
            debug_assert!(false, "restore the signal mask: {error}");
        }
    }
}

/// Whether a stream is a file or a terminal.
fn is_not_for_sharing(stream: &BorrowedFd<'_>) -> bool {
    let is_file = |stat: rustix::fs::Stat| FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile;
    rustix::fs::fstat(stream).is_ok_and(is_file) || rustix::termios::isatty(stream)
}

fn is_pipe_of_another(stream: &BorrowedFd<'_>, user: u32) -> bool {
    rustix::fs::fstat(stream)
        .is_ok_and(|stat| FileType::from_raw_mode(stat.st_mode) == FileType::Fifo && stat.st_uid != user)
}

/// Makes `root` the owner of a new pipe. Who then changes the owner in the user namespace must know its group, too.
fn give(end: &OwnedFd, root: Option<(u32, u32)>) -> Result<(), Error> {
    let Some((user, group)) = root.filter(|(user, _)| *user != rustix::process::geteuid().as_raw()) else {
        return Ok(());
    };
    let (owner, owners) = (Uid::from_raw(user), Gid::from_raw(group));
    rustix::fs::fchown(end, Some(owner), Some(owners))
        .map_err(|errno| failed(&format!("give a pipe to user {user} and group {group}"), errno))
}

fn exit_code(status: WaitStatus) -> i32 {
    match (status.exit_status(), status.terminating_signal()) {
        (Some(code), _) => code,
        (None, Some(signal)) => 128 + signal,
        (None, None) => 255,
    }
}

fn pipe() -> Result<(OwnedFd, OwnedFd), Error> {
    rustix::pipe::pipe_with(PipeFlags::CLOEXEC).map_err(|errno| failed("make a pipe", errno))
}

fn duplicate(fd: BorrowedFd<'_>) -> Result<OwnedFd, Error> {
    rustix::io::fcntl_dupfd_cloexec(fd, 3).map_err(|errno| failed("duplicate a descriptor", errno))
}

fn open_controlling_terminal() -> Result<OwnedFd, Error> {
    let flags = OFlags::RDWR | OFlags::NOCTTY | OFlags::CLOEXEC;
    rustix::fs::open("/dev/tty", flags, rustix::fs::Mode::empty())
        .map_err(|errno| failed("open /dev/tty", errno))
}

fn failed(operation: &str, source: impl Into<io::Error>) -> Error {
    Error::Io {
        operation: operation.to_owned(),
        cause: source.into(),
    }
}
