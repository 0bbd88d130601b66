//! What an operation on a container can end with.

use std::io;
use std::path::PathBuf;

use crate::id::InvalidId;
use crate::{ContainerId, Status, cgroup, seccomp, spec};

/// A failed operation.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// There is no container of that name.
    #[error("container {0} does not exist")]
    NotFound(ContainerId),
    /// The name is taken.
    #[error("container {0} exists already")]
    Exists(ContainerId),
    /// The name is no name.
    #[error(transparent)]
    Id(#[from] InvalidId),
    /// The container is not in a state that allows the operation.
    #[error("cannot {operation} container {id}: it is {status}")]
    WrongStatus {
        /// What was asked for, e.g. `start`.
        operation: &'static str,
        /// The container.
        id: ContainerId,
        /// What it is.
        status: Status,
    },
    /// The configuration was refused.
    #[error(transparent)]
    Spec(#[from] spec::Error),
    /// The system call filter was refused.
    #[error(transparent)]
    Seccomp(#[from] seccomp::Error),
    /// A control group operation failed.
    #[error(transparent)]
    Cgroup(#[from] cgroup::Error),
    /// A request that contradicts itself or the configuration.
    #[error("{0}")]
    Invalid(String),
    /// Something that is not there yet, by name.
    #[error("{0} is not supported yet")]
    Unsupported(String),
    /// A system call of this process failed.
    #[error("{operation}: {source}")]
    Io {
        /// The operation and its object, e.g. `open /run/x/state.json`.
        operation: String,
        /// The kernel's answer.
        #[source]
        source: io::Error,
    },
    /// The stored state of a container cannot be read.
    #[error("{}: {problem}", path.display())]
    State {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        problem: String,
    },
}

/// The classes of [`Error`] that a caller tells apart.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum ErrorKind {
    /// No such container.
    NotFound,
    /// The name is taken.
    AlreadyExists,
    /// The container's status forbids it.
    WrongStatus,
    /// The caller's input was refused.
    InvalidInput,
    /// Not there yet.
    Unsupported,
    /// The system refused or failed.
    System,
}

impl Error {
    /// The class of this error.
    #[must_use]
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::NotFound(_) => ErrorKind::NotFound,
            Self::Exists(_) => ErrorKind::AlreadyExists,
            Self::WrongStatus { .. } => ErrorKind::WrongStatus,
            Self::Id(_) | Self::Spec(_) | Self::Seccomp(_) | Self::Invalid(_) => ErrorKind::InvalidInput,
            Self::Unsupported(_) => ErrorKind::Unsupported,
            Self::Cgroup(_) | Self::Io { .. } | Self::State { .. } => ErrorKind::System,
        }
    }
}
