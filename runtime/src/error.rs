//! What an operation on a container can end with.

use std::io;
use std::path::PathBuf;

use crate::id::InvalidId;
use crate::{ContainerId, Errno, Status, cgroup, checkpoint, intel_rdt, plan, spec};

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
    /// The configuration cannot be carried out.
    #[error(transparent)]
    Plan(#[from] plan::Error),
    /// A step of the new process failed, e.g. `mount proc on /proc: EPERM`.
    #[error("{description}")]
    Step {
        /// Operation, object and cause.
        description: String,
        /// The kernel's answer.
        errno: Errno,
    },
    /// The new process could not be made where it belongs.
    #[error("clone3: {0}")]
    Clone(Errno),
    /// Everything was done, and then the kernel would not execute the program (no permission, no interpreter, no format it
    /// knows). The words are those from which engines tell a program that cannot be run from one that is not there.
    #[error("exec {program}: {}", errno.words())]
    Execute {
        /// As `process.args` names it.
        program: String,
        /// The kernel's answer.
        errno: Errno,
    },
    /// The new process ended before its work was done.
    #[error("the container process ended while {0}")]
    Ended(&'static str),
    /// A hook failed.
    #[error("error running {kind} hook #{index}: {}: {problem}", path.display())]
    Hook {
        /// Which kind, as the configuration calls it.
        kind: &'static str,
        /// Which of that kind, from 0 on.
        index: usize,
        /// Its program.
        path: PathBuf,
        /// How it failed.
        problem: String,
    },
    /// A control group operation failed.
    #[error(transparent)]
    Cgroup(#[from] cgroup::Error),
    /// A share of caches or memory bandwidth cannot be given.
    #[error(transparent)]
    IntelRdt(#[from] intel_rdt::Error),
    /// A checkpoint or a restore failed.
    #[error(transparent)]
    Checkpoint(#[from] checkpoint::Error),
    /// A request that contradicts itself or the configuration.
    #[error("{0}")]
    Invalid(String),
    /// Something that is not there yet, by name.
    #[error("{0} is not supported yet")]
    Unsupported(String),
    /// A system call of this process failed.
    #[error("{operation}: {}", cause_of(cause))]
    Io {
        /// The operation and its object, e.g. `open /run/x/state.json`.
        operation: String,
        /// The kernel's answer.
        cause: io::Error,
    },
    /// An operation failed, and what it had made could not all be removed.
    #[error("{error}; left behind: {left}")]
    Leftovers {
        /// The failure itself.
        error: Box<Error>,
        /// What the clean-up failed with.
        left: String,
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
    /// A system call that failed.
    pub(crate) fn io(operation: impl Into<String>, cause: impl Into<io::Error>) -> Self {
        Self::Io {
            operation: operation.into(),
            cause: cause.into(),
        }
    }

    /// This error, with those of the clean-up after it.
    pub(crate) fn with_leftovers(self, left: Vec<Self>) -> Self {
        if left.is_empty() {
            return self;
        }
        let left: Vec<String> = left.iter().map(ToString::to_string).collect();
        Self::Leftovers {
            error: Box::new(self),
            left: left.join(", "),
        }
    }

    /// The class of this error.
    #[must_use]
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::Leftovers { error, .. } => error.kind(),
            Self::NotFound(_) => ErrorKind::NotFound,
            Self::Exists(_) => ErrorKind::AlreadyExists,
            Self::WrongStatus { .. } => ErrorKind::WrongStatus,
            Self::Plan(plan::Error::Unsupported(_)) => ErrorKind::Unsupported,
            Self::Id(_) | Self::Spec(_) | Self::Plan(_) | Self::Invalid(_) => ErrorKind::InvalidInput,
            Self::Unsupported(_) => ErrorKind::Unsupported,
            Self::Checkpoint(error) => error.kind(),
            Self::Cgroup(_)
            | Self::IntelRdt(_)
            | Self::Io { .. }
            | Self::State { .. }
            | Self::Step { .. }
            | Self::Clone(_)
            | Self::Execute { .. }
            | Self::Ended(_)
            | Self::Hook { .. } => ErrorKind::System,
        }
    }
}

/// The kernel's number by name, everything else in words.
fn cause_of(cause: &io::Error) -> String {
    match cause.raw_os_error() {
        Some(number) => Errno::new(number).to_string(),
        None => cause.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_that_cannot_be_executed_is_told_in_the_words_engines_look_for() {
        let of = |number| Error::Execute {
            program: "/etc".into(),
            errno: Errno::new(number),
        };
        assert_eq!(of(libc::EACCES).to_string(), "exec /etc: permission denied");
        assert_eq!(of(libc::ENOEXEC).to_string(), "exec /etc: exec format error");
        assert_eq!(of(libc::EIO).to_string(), "exec /etc: input/output error");
    }

    #[test]
    fn an_error_names_operation_object_and_cause_once() {
        let error = Error::io("open /x", Errno::new(libc::ENOENT));
        assert_eq!(error.to_string(), "open /x: ENOENT");
        assert!(std::error::Error::source(&error).is_none());
        let error = error.with_leftovers(vec![Error::Ended("being started")]);
        assert!(error.to_string().starts_with("open /x: ENOENT; left behind: "));
    }
}
