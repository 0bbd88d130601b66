//! Why a control group could not be planned, made, read or removed.

use std::io;
use std::path::PathBuf;

/// A failed operation on control groups.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A system call on a cgroup file or directory failed.
    #[error("{operation} {}: {source}", path.display())]
    Io {
        /// What was tried, e.g. `write 1024 to`.
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
    /// What the kernel's tables say could not be understood.
    #[error("{file}: {problem}")]
    Malformed {
        /// The file read.
        file: String,
        /// What was found.
        problem: String,
    },
    /// The operation is not there (yet) on this host.
    #[error("{0} is not supported")]
    Unsupported(String),
}
