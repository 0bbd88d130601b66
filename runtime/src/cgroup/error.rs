//! Why a control group could not be planned, made, read or removed.

use std::io;
use std::path::{Path, PathBuf};

use crate::spec::told;

/// A failed operation on control groups.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A system call on a cgroup file or directory failed.
    #[error("{operation} {}: {source}", path.display())]
    Io {
        /// What was tried, e.g. `write "1024" to`.
        operation: String,
        /// The file or directory.
        path: PathBuf,
        /// The kernel's answer.
        #[source]
        source: io::Error,
    },
    /// The configuration asks for what cannot be given.
    #[error("{field}: {problem}")]
    Field {
        /// The field of the configuration.
        field: String,
        /// What is wrong with it.
        problem: String,
    },
    /// What a kernel file says could not be understood.
    #[error("{}: {problem}", file.display())]
    Malformed {
        /// The file read.
        file: PathBuf,
        /// What was found.
        problem: String,
    },
    /// The group has processes of somebody else.
    #[error("container's cgroup is not empty: {count} process(es) found in {}", path.display())]
    NotEmpty {
        /// The group's directory.
        path: PathBuf,
        /// How many processes are in it.
        count: usize,
    },
    /// The group was left frozen.
    #[error("container's cgroup unexpectedly frozen: {}", path.display())]
    Frozen {
        /// The group's directory.
        path: PathBuf,
    },
    /// An operation did not come to its end in the time it was given.
    #[error("{operation} {}: not done after {seconds} s", path.display())]
    Timeout {
        /// What was tried.
        operation: &'static str,
        /// The group's directory.
        path: PathBuf,
        /// The time given.
        seconds: u64,
    },
    /// A user without privileges asked for limits where there is no permission to set any.
    #[error("rootless needs no limits + no cgrouppath when no permission is granted for cgroups: {0}")]
    Rootless(#[source] Box<Error>),
    /// systemd refused, or could not be asked.
    #[error("{0}")]
    Systemd(String),
    /// The caller may not make the group.
    #[error("unable to apply cgroup configuration: {operation} {}: permission denied", path.display())]
    Permission {
        /// What was tried.
        operation: String,
        /// The file or directory.
        path: PathBuf,
    },
    /// The container has no group for the operation: a user without privileges may not be able to make one.
    #[error("{0}: cgroups not configured for container")]
    NoGroup(&'static str),
    /// The operation is not there on this host.
    #[error("{0} is not supported")]
    Unsupported(String),
}

impl Error {
    pub(super) fn io(
        operation: impl Into<String>,
        path: impl AsRef<Path>,
        source: impl Into<io::Error>,
    ) -> Self {
        Self::Io {
            operation: told(operation.into()),
            path: path.as_ref().to_owned(),
            source: source.into(),
        }
    }

    pub(super) fn field(field: impl Into<String>, problem: impl Into<String>) -> Self {
        Self::Field {
            field: told(field.into()),
            problem: told(problem.into()),
        }
    }

    /// Whether the kernel said that the caller may not.
    #[must_use]
    pub fn is_permission(&self) -> bool {
        matches!(self, Self::Io { source, .. }
            if matches!(source.raw_os_error(), Some(libc::EPERM | libc::EACCES | libc::EROFS)))
    }
}
