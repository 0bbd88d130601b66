//! Creating a container: from a bundle to a process that waits at the start gate.

use std::path::PathBuf;

use crate::{Container, ContainerId, Error, Runtime, Stdio};

/// How a container is created.
#[derive(Debug)]
pub struct CreateOptions {
    /// The name; must not be taken.
    pub id: ContainerId,
    /// The directory with `config.json`.
    pub bundle: PathBuf,
    /// The standard streams.
    pub stdio: Stdio,
    /// Where to write the first process's pid, as decimal digits.
    pub pid_file: Option<PathBuf>,
    /// How many descriptors from 3 on the process keeps; every other one is closed.
    pub preserve_fds: u32,
    /// Move the root mount instead of `pivot_root` (for a host that runs from an initramfs; weaker).
    pub no_pivot: bool,
    /// Keep the caller's session keyring instead of joining a new one.
    pub no_new_keyring: bool,
    /// `linux.cgroupsPath` is `slice:prefix:name`, for systemd.
    pub systemd_cgroup: bool,
    /// A listening unix socket that receives the terminal's master.
    pub console_socket: Option<PathBuf>,
}

impl CreateOptions {
    /// Options with every switch off, inherited streams and no files.
    #[must_use]
    pub fn new(id: ContainerId, bundle: impl Into<PathBuf>) -> Self {
        Self {
            id,
            bundle: bundle.into(),
            stdio: Stdio::Inherit,
            pid_file: None,
            preserve_fds: 0,
            no_pivot: false,
            no_new_keyring: false,
            systemd_cgroup: false,
            console_socket: None,
        }
    }
}

impl Runtime {
    /// Creates a container. Blocks until its process waits at the start gate.
    ///
    /// The process is a child of the caller, who reaps it. When this fails nothing is left: no process (it is
    /// reaped here), no control group, no state.
    ///
    /// # Errors
    ///
    /// The name is taken, the configuration is refused, or a step fails.
    pub fn create(&self, options: CreateOptions) -> Result<Container, Error> {
        Err(Error::Unsupported(format!("creating {}", options.id)))
    }
}
