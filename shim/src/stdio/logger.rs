//! Logging programs: `binary://` URIs.
//!
//! The program gets the process's stdout as descriptor 3, its stderr as 4, and tells by closing descriptor 5 (or, for
//! `binary-v2`, by writing a byte to it) that it is ready. It reads the pipes itself; the shim copies nothing. Its
//! environment is containerd's contract: `CONTAINER_ID` and `CONTAINER_NAMESPACE` beside what the shim has.

use std::io;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::pipe::{PipeFlags, pipe_with};
use rustix::process::{Pid, Signal, kill_process};

use crate::status::Refusal;
use crate::sys::prepare_child;

/// How long a program may take to become ready. The shim serves nothing else in that time.
const READY: Duration = Duration::from_secs(5);

/// A running logging program, reaped by the shim's main loop.
pub struct Logger {
    pid: Pid,
}

impl Logger {
    /// The program's process.
    pub fn pid(&self) -> Pid {
        self.pid
    }

    /// Asks it, or makes it, end.
    pub fn signal(&self, signal: Signal) {
        // The only failure is that it is gone, which is what was wanted.
        let _ = kill_process(self.pid, signal);
    }
}

/// What to run, and for whom.
pub struct Request<'a> {
    /// The program.
    pub program: &'a Path,
    /// Its arguments.
    pub arguments: &'a [String],
    /// Whether closing the ready pipe without a byte is a failure.
    pub must_answer: bool,
    /// The container.
    pub container: &'a str,
    /// Its namespace.
    pub namespace: &'a str,
}

/// Runs a logging program on the reading ends `stdout` and `stderr`; blocks until it is ready, at most 5 s.
///
/// # Errors
///
/// The program cannot be run, ends, or is not ready in time; then it is killed.
pub fn start(request: &Request<'_>, stdout: OwnedFd, stderr: OwnedFd) -> Result<Logger, Refusal> {
    let failed =
        |cause: io::Error| Refusal::system(format!("logging program {}", request.program.display()), cause);
    let (ready, tell) = pipe_with(PipeFlags::CLOEXEC).map_err(|error| failed(error.into()))?;
    let mut command = Command::new(request.program);
    command
        .args(request.arguments)
        .env("CONTAINER_ID", request.container)
        .env("CONTAINER_NAMESPACE", request.namespace)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    prepare_child(&mut command, vec![stdout, stderr, tell], false).map_err(failed)?;
    let child = command.spawn().map_err(failed)?;
    drop(command);
    let logger = Logger {
        pid: Pid::from_child(&child),
    };
    match wait_ready(&ready, request.must_answer) {
        Ok(()) => Ok(logger),
        Err(error) => {
            logger.signal(Signal::KILL);
            Err(failed(error))
        }
    }
}

fn wait_ready(ready: &OwnedFd, must_answer: bool) -> io::Result<()> {
    let deadline = Instant::now() + READY;
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        let timeout = Timespec {
            tv_sec: left.as_secs() as i64,
            tv_nsec: left.subsec_nanos().into(),
        };
        match poll(&mut [PollFd::new(ready, PollFlags::IN)], Some(&timeout)) {
            Ok(0) => return Err(io::Error::new(io::ErrorKind::TimedOut, "not ready in time")),
            Ok(_) => break,
            Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
    match rustix::io::read(ready, &mut [0; 1])? {
        0 if must_answer => Err(io::Error::other("ended without becoming ready")),
        _ => Ok(()),
    }
}
