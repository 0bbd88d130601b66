//! What a container's process gets as its descriptors 0, 1 and 2.

use std::os::fd::OwnedFd;

/// The standard streams of a new process.
#[derive(Debug, Default)]
pub enum Stdio {
    /// The caller's own descriptors 0, 1 and 2.
    #[default]
    Inherit,
    /// These, one each; the caller's copies are closed when the process is there.
    Fds {
        /// Descriptor 0.
        stdin: OwnedFd,
        /// Descriptor 1.
        stdout: OwnedFd,
        /// Descriptor 2.
        stderr: OwnedFd,
    },
    /// A terminal from the container's own devpts; needs `process.terminal`. The master goes to the console
    /// socket when one is given, and to `take_console` otherwise.
    Terminal,
}
