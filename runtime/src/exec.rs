//! Another process in a running container.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::PathBuf;

use oci_spec::runtime as oci;

use crate::{Container, Error, Stdio};

/// What to execute in a running container, and how.
#[derive(Debug)]
pub struct ExecOptions {
    /// The OCI `process` object, complete: capabilities, environment and the rest are taken from nowhere else.
    pub process: oci::Process,
    /// The standard streams.
    pub stdio: Stdio,
    /// Where to write the pid, as decimal digits.
    pub pid_file: Option<PathBuf>,
    /// How many descriptors from 3 on the process keeps.
    pub preserve_fds: u32,
    /// Keep the caller's session keyring instead of joining a new one.
    pub no_new_keyring: bool,
    /// A listening unix socket that receives the terminal's master.
    pub console_socket: Option<PathBuf>,
}

impl ExecOptions {
    /// Options with every switch off, inherited streams and no files.
    #[must_use]
    pub fn new(process: oci::Process) -> Self {
        Self {
            process,
            stdio: Stdio::Inherit,
            pid_file: None,
            preserve_fds: 0,
            no_new_keyring: false,
            console_socket: None,
        }
    }
}

/// A process that was executed in a container; a child of the caller, who reaps it.
#[derive(Debug)]
pub struct Process {
    pid: i32,
    pidfd: OwnedFd,
    console: Option<OwnedFd>,
}

impl Process {
    /// The process as the caller's pid namespace numbers it.
    #[must_use]
    pub fn pid(&self) -> i32 {
        self.pid
    }

    /// Becomes readable when the process ends.
    #[must_use]
    pub fn pidfd(&self) -> BorrowedFd<'_> {
        self.pidfd.as_fd()
    }

    /// The terminal's master, once; nothing without a terminal or when it went to the console socket.
    pub fn take_console(&mut self) -> Option<OwnedFd> {
        self.console.take()
    }
}

impl Container {
    /// Executes a process in the container. Blocks until the program runs, or failed to.
    ///
    /// # Errors
    ///
    /// The container is not running, the process is refused, or a step fails; then no process is left.
    pub fn exec(&self, options: ExecOptions) -> Result<Process, Error> {
        Err(Error::Unsupported(format!(
            "exec of {:?} in {}",
            options.process.args(),
            self.id()
        )))
    }
}
